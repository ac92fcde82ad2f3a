//! What becomes of first attempts that were put off.

use std::time::Duration;

use fanfare_domain::{DeliveryId, EventId, feed::Blocked};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const DAY: u64 = 24 * 60 * 60;

fn later(seconds: u64) -> Timestamp {
    NOW.saturating_add(Duration::from_secs(seconds))
}

fn endpoint() -> EndpointId {
    EndpointId::from_bytes([1; 16])
}

fn delivery(sequence: u64, generation: u32) -> DeliveryRef {
    let event = EventId::of_message("test", sequence, NOW);
    DeliveryRef {
        id: DeliveryId::of(event, endpoint(), generation),
        tenant: "acme".parse().unwrap(),
        event,
        event_sequence: sequence,
        event_type: "a.b".parse().unwrap(),
        endpoint: endpoint(),
        generation,
        accepted_at: NOW,
    }
}

const QUIET: Circumstances =
    Circumstances { is_held: false, is_ordered: false, is_open: true, routed: 1_000 };

/// What is to be written of the feed; it is, at that revision.
fn write(feeds: &mut Feeds, revision: u64, now: Timestamp) -> Option<Feed> {
    let Some(Wish::Write(feed)) = feeds.wish(endpoint(), QUIET, now) else { return None };
    feeds.cursor(endpoint()).unwrap().stored(feed.clone(), revision, now);
    Some(feed)
}

/// Feeds of an endpoint with first attempts that were put off, each by as many hours as its number
/// says.
fn crowded(sequences: &[u64]) -> Feeds {
    let mut feeds = Feeds::default();
    for sequence in sequences {
        feeds.took(endpoint(), *sequence);
        feeds.put_off(&delivery(*sequence, 0), later(sequence * 3_600));
    }
    feeds.open((endpoint(), "acme".parse().unwrap()), Reason::Backlog, (0, NOW));
    feeds
}

#[test]
fn an_alarm_clock_is_not_heeded_once_it_is_stored_that_the_feed_makes_its_attempt() {
    let mut feeds = crowded(&[1, 2]);
    let first = delivery(1, 0);
    assert!(!feeds.took_over(&first, later(3_600)), "whoever comes next would not know");
    write(&mut feeds, 1, NOW).unwrap();
    assert!(feeds.took_over(&first, later(3_600)));
    // Another time, another delivery, another endpoint's, a replay's.
    assert!(!feeds.took_over(&first, later(3_601)));
    assert!(!feeds.took_over(&delivery(3, 0), later(3_600)));
    assert!(!feeds.took_over(&delivery(1, 1), later(3_600)));
    let other = DeliveryRef { endpoint: EndpointId::from_bytes([2; 16]), ..first };
    assert!(!feeds.took_over(&other, later(3_600)));
}

#[test]
fn who_comes_next_heeds_them_no_more_than_who_took_them_over() {
    let mut feeds = crowded(&[1, 30]);
    let feed = write(&mut feeds, 1, NOW).unwrap();
    // The first one has been made since.
    let left = Blocked { key: Feed::GIVEN_UP, by: 0, waiting: vec![30] };
    let feed = Feed { blocked: vec![left], ..feed };
    let stored = StoredFeed { feed: feed.into(), revision: 1 };
    let mut next = Feeds::resume(Resumed::new([stored]), 0, later(DAY));
    assert!(next.took_over(&delivery(1, 0), later(3_600)), "it may be in the queue since");
    assert!(next.took_over(&delivery(30, 0), later(30 * 3_600)));
    // By now it has been taken from the queue, if it was there.
    let feed = write(&mut next, 2, later(DAY + 301)).unwrap();
    assert_eq!(feed.taken_over.len(), 1);
    assert!(!next.took_over(&delivery(1, 0), later(3_600)));
    assert!(next.took_over(&delivery(30, 0), later(30 * 3_600)));
    assert_eq!(write(&mut next, 3, later(DAY + 601)), None, "nothing has changed");
}

#[test]
fn what_waits_to_be_fed_is_remembered_however_late_it_is() {
    let mut feeds = crowded(&[1, 2]);
    write(&mut feeds, 1, NOW).unwrap();
    let cursor = feeds.cursor(endpoint()).unwrap();
    cursor.singles(9);
    cursor.take_single(1, None);
    let feed = write(&mut feeds, 2, later(DAY)).unwrap();
    assert_eq!(feed.taken_over, [PutOff { sequence: 2, until: later(2 * 3_600) }]);
}

#[test]
fn a_feed_is_remembered_for_as_long_as_an_alarm_clock_may_go_off() {
    let mut feeds = crowded(&[1]);
    write(&mut feeds, 1, NOW).unwrap();
    let cursor = feeds.cursor(endpoint()).unwrap();
    assert_eq!(cursor.singles(9), [1]);
    cursor.take_single(1, None);
    assert!(!feeds.took_over(&delivery(1, 0), later(3_600)), "its event is gone, so it ends by it");
    let mut feeds = crowded(&[1]);
    let open = write(&mut feeds, 1, NOW).unwrap();
    let closed = Feed { phase: Phase::Closed { until: 1, at: NOW }, blocked: Vec::new(), ..open };
    let stored = StoredFeed { feed: closed.into(), revision: 2 };
    let mut feeds = Feeds::resume(Resumed::new([stored]), 0, NOW);
    assert_ne!(feeds.wish(endpoint(), QUIET, later(3_600)), Some(Wish::Remove));
    assert_eq!(feeds.wish(endpoint(), QUIET, later(7_201)), Some(Wish::Remove));
}

#[test]
fn what_is_fed_again_is_remembered_together() {
    let mut feeds = crowded(&[1]);
    let open = write(&mut feeds, 1, NOW).unwrap();
    let closed = Feed { phase: Phase::Closed { until: 1, at: NOW }, blocked: Vec::new(), ..open };
    let stored = StoredFeed { feed: closed.into(), revision: 2 };
    let mut feeds = Feeds::resume(Resumed::new([stored]), 0, NOW);
    feeds.put_off(&delivery(9, 0), later(60));
    feeds.open((endpoint(), "acme".parse().unwrap()), Reason::Backlog, (1_000, NOW));
    let feed = write(&mut feeds, 3, NOW).unwrap();
    assert_eq!(feed.taken_over.len(), 2);
    assert!(feeds.took_over(&delivery(1, 0), later(3_600)));
    assert!(feeds.took_over(&delivery(9, 0), later(60)));
}

#[test]
fn what_only_its_owner_knows_to_be_the_feeds_is_not_given_up_yet() {
    let mut feeds = crowded(&[1]);
    let open = write(&mut feeds, 1, NOW).unwrap();
    let phase = Phase::Closed { until: 5, at: NOW };
    let closed = Feed { phase, next: 6, blocked: Vec::new(), ..open };
    let stored = StoredFeed { feed: closed.into(), revision: 2 };
    let mut feeds = Feeds::resume(Resumed::new([stored]), 0, NOW);
    assert_eq!(feeds.whose(&delivery(9, 0), false), Whose::Task);
    feeds.open((endpoint(), "acme".parse().unwrap()), Reason::Backlog, (1_000, NOW));
    assert_eq!(feeds.whose(&delivery(9, 0), false), Whose::Limbo, "it may never be stored");
    assert_eq!(feeds.whose(&delivery(3, 0), false), Whose::Feed, "that is stored");
    write(&mut feeds, 3, NOW).unwrap();
    assert_eq!(feeds.whose(&delivery(9, 0), false), Whose::Feed);
}
