//! What is read, offered and stored, in which order.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_domain::{
    DeliveryId, EndpointId, Event, EventId, Feed, StoredEvent, Timestamp, TraceContext,
    feed::{Blocked, Phase, Reason},
};

use super::{Cursor, Fed, Known, Next};
use crate::{
    memory::{Limits, Memory},
    task_event::TaskEvent,
};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn later(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1_000)
}

fn feed(from: u64) -> Feed {
    Feed {
        tenant: "acme".parse().unwrap(),
        endpoint: EndpointId::from_bytes([1; 16]),
        from,
        phase: Phase::Open,
        reason: Reason::Backlog,
        opened_at: NOW,
        next: from,
        blocked: Vec::new(),
        past: Vec::new(),
        ended: Vec::new(),
        ended_since: 0,
        taken_over: Vec::new(),
    }
}

fn event(sequence: u64, key: Option<u64>, single: bool) -> Fed {
    let id = EventId::of_message("test", sequence, NOW);
    let event = Event {
        id,
        tenant: "acme".parse().unwrap(),
        event_type: "a.b".parse().unwrap(),
        occurred_at: NOW,
        accepted_at: None,
        config_revision: None,
        data: Bytes::from_static(b"1"),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    };
    let (event, envelope) = (std::sync::Arc::new(event), Bytes::new());
    let stored = StoredEvent { event, sequence, accepted_at: NOW, envelope };
    let memory = Memory::new(Limits { deliveries: 100, bytes: 1_000 });
    let event = std::sync::Arc::new(TaskEvent::new(stored, memory.count(1).into()));
    let delivery = DeliveryId::of(id, EndpointId::from_bytes([1; 16]), 0);
    Fed { sequence, delivery, key, single, event }
}

/// Reads so many events from the cursor's place on.
fn read(cursor: &mut Cursor, count: u64, key: impl Fn(u64) -> Option<u64>) {
    let from = cursor.reading();
    let events = (from..from + count).map(|sequence| event(sequence, key(sequence), false));
    cursor.take(from, events.collect(), (from + count, None), NOW);
}

/// Offers everything that is ready, none of which is known; returns the sequences.
fn offer(cursor: &mut Cursor) -> Vec<u64> {
    let mut offered = Vec::new();
    loop {
        match cursor.judge(|_| Known::Nothing) {
            Next::Make => offered.extend(cursor.pop(true).map(|fed| fed.sequence)),
            Next::Pass => drop(cursor.pop(false)),
            Next::Stand => return offered,
        }
    }
}

#[test]
fn what_is_stored_is_the_first_that_is_not_on_record() {
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    read(&mut cursor, 4, |_| None);
    assert_eq!(offer(&mut cursor), [10, 11, 12, 13]);
    cursor.on_record(11, true);
    assert_eq!(cursor.to_store().next, 10);
    cursor.on_record(10, false);
    assert_eq!(cursor.to_store().next, 12);
    assert!(cursor.save(NOW).is_none(), "it is too early");
    assert_eq!(cursor.save(later(6)).map(|feed| feed.next), Some(12));
    cursor.on_record(12, true);
    cursor.on_record(13, true);
    assert_eq!(cursor.to_store().next, 14);
    assert!(cursor.is_idle());
}

#[test]
fn what_the_ledger_knows_is_passed_over_and_what_is_live_is_waited_for() {
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    read(&mut cursor, 3, |_| None);
    for known in [Known::Begun, Known::Concluded] {
        assert_eq!(cursor.judge(|_| known), Next::Pass);
        cursor.pop(false);
    }
    assert_eq!(cursor.judge(|_| Known::Live), Next::Stand);
    assert_eq!(cursor.judge(|_| Known::Nothing), Next::Make);
}

#[test]
fn what_a_lane_may_not_keep_comes_again_in_its_order() {
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    read(&mut cursor, 4, |_| None);
    offer(&mut cursor);
    for sequence in [13, 12] {
        cursor.take_back(event(sequence, None, false));
    }
    assert_eq!(cursor.to_store().next, 10);
    cursor.let_go();
    let from = cursor.reading();
    assert_eq!(from, 12);
    let events = vec![event(12, None, false), event(13, None, false)];
    cursor.take(from, events, (14, None), NOW);
    assert_eq!(offer(&mut cursor), [12, 13]);
}

#[test]
fn what_was_given_up_to_the_feed_comes_first_and_is_stored_by_itself() {
    let mut cursor = Cursor::new(feed(10), 0);
    for sequence in [7, 5] {
        cursor.take_over(sequence);
    }
    let given_up =
        |waiting: &[u64]| Blocked { key: Feed::GIVEN_UP, by: 0, waiting: waiting.into() };
    assert_eq!(cursor.to_store().blocked, [given_up(&[5, 7])]);
    let stored = cursor.to_store();
    cursor.stored(stored, 1, NOW);
    read(&mut cursor, 1, |_| None);
    assert_eq!(cursor.singles(10), [5, 7]);
    for sequence in [5, 7] {
        cursor.take_single(sequence, Some(event(sequence, None, true)));
    }
    assert_eq!(offer(&mut cursor), [5, 7, 10]);
    cursor.on_record(5, true);
    let stored = cursor.to_store();
    assert_eq!((stored.next, &*stored.blocked), (10, &[given_up(&[7])][..]));
    let again = Cursor::resume(stored, 2, NOW);
    assert!(again.holds(7) && !again.holds(5));
}

#[test]
fn what_was_ended_is_passed_over_by_whoever_comes_to_it_and_forgotten_then() {
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    assert!(cursor.may_end(12) && !cursor.may_end(9));
    assert!(cursor.remembers_end(9), "it is not the feed's");
    assert!(!cursor.remembers_end(12), "it is not stored yet");
    let stored = cursor.save(later(6)).unwrap();
    assert_eq!((stored.next, &*stored.ended), (10, &[12][..]));
    cursor.stored(stored.clone(), 2, later(6));
    assert!(cursor.remembers_end(12));
    // The ledger of a new owner may have forgotten.
    let mut again = Cursor::resume(stored, 2, later(6));
    read(&mut again, 4, |_| None);
    assert_eq!(offer(&mut again), [10, 11, 13]);
    for sequence in [10, 11, 13] {
        again.on_record(sequence, true);
    }
    let stored = again.save(later(12)).unwrap();
    assert_eq!((stored.next, &*stored.ended), (14, &[][..]));
    again.stored(stored, 3, later(12));
    assert!(again.remembers_end(12), "nobody comes to it any more");
    assert!(again.save(later(18)).is_none());
}

#[test]
fn what_was_ended_behind_its_key_is_remembered_until_its_turn() {
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    read(&mut cursor, 3, |_| Some(1));
    assert_eq!(offer(&mut cursor), [10]);
    cursor.on_record(10, false);
    cursor.end(11, 7);
    let stored = cursor.to_store();
    assert_eq!((stored.next, &*stored.ended), (13, &[11][..]));
    let mut again = Cursor::resume(stored, 2, NOW);
    again.on_record(10, true);
    assert_eq!(again.singles(10), [11]);
    again.take_single(11, Some(event(11, Some(1), true)));
    assert_eq!(offer(&mut again), [0; 0]);
    assert_eq!(again.singles(10), [12]);
}

#[test]
fn one_event_of_a_key_is_under_way_at_a_time() {
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    read(&mut cursor, 6, |sequence| Some(sequence % 2 + 1));
    assert_eq!(offer(&mut cursor), [10, 11]);
    cursor.on_record(10, false);
    assert!(!cursor.has_singles(), "it waits for its retry");
    cursor.on_record(10, true);
    assert_eq!(cursor.singles(10), [12]);
    let stored = cursor.to_store();
    assert_eq!(stored.next, 16);
    let mut again = Cursor::resume(stored, 2, NOW);
    // What was offered, and is not on record as far as it is known, is offered again.
    assert_eq!(again.singles(10), [11, 12]);
    for sequence in [11, 12] {
        again.take_single(sequence, Some(event(sequence, Some(sequence % 2 + 1), true)));
    }
    assert_eq!(offer(&mut again), [11, 12]);
}

#[test]
fn an_order_that_is_given_up_loses_nothing() {
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    read(&mut cursor, 4, |_| Some(1));
    assert_eq!(offer(&mut cursor), [10]);
    cursor.give_up_order();
    assert_eq!(cursor.singles(10), [11, 12, 13]);
    assert_eq!(cursor.to_store().next, 10);
    let waiting = &cursor.to_store().blocked;
    assert_eq!(waiting.iter().map(|it| it.waiting.len()).sum::<usize>(), 3);
}

#[test]
fn what_was_ended_beyond_what_can_be_named_is_looked_for_in_the_journal() {
    let many = u64::try_from(Feed::ENDED_MAX).unwrap() + 5;
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    for (journal, sequence) in (500..).zip((10..10 + many).rev()) {
        assert!(cursor.may_end(sequence));
        cursor.end(sequence, journal);
    }
    assert!(!cursor.remembers_end(10 + many - 1), "it is not stored yet");
    let stored = cursor.save(later(6)).unwrap();
    assert_eq!((stored.ended.len(), stored.ended_since), (Feed::ENDED_MAX, 500));
    cursor.stored(stored.clone(), 2, later(6));
    assert!(cursor.remembers_end(10) && cursor.remembers_end(10 + many - 1));
    assert_eq!(cursor.ask_for_ends(), None, "we know them all");
    assert!(cursor.save(later(12)).is_none());

    let mut again = Cursor::resume(stored, 2, later(6));
    read(&mut again, 2, |_| None);
    assert_eq!(again.judge(|_| Known::Nothing), Next::Stand);
    assert!(!again.may_end(10 + many));
    assert_eq!((again.ask_for_ends(), again.ask_for_ends()), (Some(500), None));
    again.found_ends((10..10 + many).collect());
    assert!(again.may_end(10 + many));
    read(&mut again, many, |_| None);
    assert_eq!(offer(&mut again), [10 + many, 10 + many + 1]);
    for sequence in [10 + many, 10 + many + 1] {
        again.on_record(sequence, true);
    }
    let stored = again.save(later(20)).unwrap();
    assert_eq!((&*stored.ended, stored.ended_since), (&[][..], 0));
}

#[test]
fn what_a_person_had_made_is_stored_whatever_else_was_ended() {
    let many = u64::try_from(Feed::ENDED_MAX).unwrap() + 5;
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    for sequence in 10..10 + many {
        cursor.end(sequence, 500);
    }
    let last = 20 + many;
    assert!(cursor.may_pass_over(last));
    assert!(!cursor.remembers_made(last), "it is not stored yet");
    let stored = cursor.save(later(6)).unwrap();
    assert_eq!((stored.ended.len(), stored.ended.last()), (Feed::ENDED_MAX, Some(&last)));
    cursor.stored(stored.clone(), 2, later(6));
    assert!(cursor.remembers_made(last) && cursor.remembers_end(10 + many - 1));

    let mut again = Cursor::resume(stored, 2, later(6));
    again.ask_for_ends();
    again.found_ends((10..10 + many).collect());
    assert!(again.remembers_made(last));
    assert!(!again.may_pass_over(last + 1), "nothing tells which of them it were");
    read(&mut again, many + 12, |_| None);
    let offered = offer(&mut again);
    assert_eq!(offered.first(), Some(&(10 + many)));
    assert!(!offered.contains(&last) && offered.contains(&(last - 1)));
}

#[test]
fn what_the_feed_has_passed_or_never_had_need_not_be_remembered() {
    let mut cursor = Cursor::resume(feed(10), 1, NOW);
    assert!(cursor.remembers_made(9) && !cursor.may_pass_over(9));
    read(&mut cursor, 2, |_| None);
    assert_eq!(offer(&mut cursor), [10, 11]);
    cursor.on_record(10, false);
    cursor.on_record(11, false);
    let stored = cursor.save(later(6)).unwrap();
    cursor.stored(stored, 2, later(6));
    assert!(cursor.remembers_made(10), "it is passed");
    assert!(!cursor.remembers_made(12));
    let stored = cursor.save(later(12)).unwrap();
    assert_eq!(stored.ended, [12]);
    read(&mut cursor, 2, |_| None);
    assert_eq!(offer(&mut cursor), [13]);
}

#[test]
fn of_the_version_before_no_more_is_remembered_than_is_named() {
    let last = 10 + u64::try_from(Feed::ENDED_MAX).unwrap();
    let mut cursor = Cursor::resume(Feed { ended: (10..last).collect(), ..feed(10) }, 1, NOW);
    assert_eq!(cursor.ask_for_ends(), None);
    assert!(!cursor.may_end(last) && cursor.may_end(last - 1));
}
