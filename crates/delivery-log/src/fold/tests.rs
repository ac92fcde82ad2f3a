//! The fold, and its laws.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    Event, EventType, Fault, Outcome, TraceContext,
    fact::{DeferReason, DeliveryDeferred, DeliveryParked, RetryScheduled, Timing},
};
use fanfare_testkit::delivery_of;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

pub(crate) fn endpoint(number: u8) -> EndpointId {
    EndpointId::new(at(0), [number; 10])
}

pub(crate) fn stored(number: u8) -> StoredEvent {
    copy(number, 0)
}

/// The event as it is in EVENTS for the first time, or once more: then later, and by an older version
/// that stored no time of acceptance with it. Of one such copy not even the rest is the same.
pub(crate) fn copy(number: u8, again: u8) -> StoredEvent {
    let accepted_at = match again {
        3 => at(0),
        _ => at(u64::from(number) + 100 * u64::from(again)),
    };
    let event = Event {
        id: EventId::new(at(u64::from(number)), [number; 10]),
        tenant: "acme".parse().unwrap(),
        event_type: event_type(number + u8::from(again == 3)),
        occurred_at: at(u64::from(again)),
        accepted_at: Some(accepted_at),
        config_revision: None,
        data: Bytes::from_static(b"{}"),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    };
    StoredEvent {
        event: Arc::new(event),
        sequence: u64::from(number) + 1 + 100 * u64::from(again),
        accepted_at,
        envelope: Bytes::new(),
    }
}

fn event_type(number: u8) -> EventType {
    let name = if number.is_multiple_of(2) { "invoice.paid" } else { "invoice.sent" };
    name.parse().unwrap()
}

pub(crate) fn delivery(event: u8, to: u8) -> DeliveryRef {
    delivery_of(&stored(event), endpoint(to), 0)
}

pub(crate) fn routed(event: u8, targets: &[u8], skipped: &[u8]) -> Fact {
    routed_of(&stored(event), targets, skipped)
}

fn routed_of(stored: &StoredEvent, targets: &[u8], skipped: &[u8]) -> Fact {
    Fact::EventRouted(EventRouted {
        event: stored.event.id,
        tenant: "acme".parse().unwrap(),
        event_sequence: stored.sequence,
        config_revision: 1,
        generation: 0,
        targets: targets.iter().map(|to| endpoint(*to)).collect(),
        skipped: skipped.iter().map(|to| endpoint(*to)).collect(),
        held: Vec::new(),
        fed: Vec::new(),
        part: 0,
        parts: 1,
    })
}

pub(crate) fn made(delivery: DeliveryRef, attempt: u32, status: u16) -> Fact {
    Fact::AttemptMade(Box::new(AttemptMade {
        delivery,
        attempt,
        started_at: at(1),
        duration: Duration::from_millis(3),
        timing: Timing {
            connect: (attempt == 1).then(|| Duration::from_millis(1)),
            first_byte: (status > 0).then(|| Duration::from_micros(2_500)),
        },
        outcome: match status {
            0 => Outcome::Failed(Fault::TimedOut),
            200 => Outcome::Accepted { status },
            _ => Outcome::Refused { status, retry_after: None },
        },
        detail: String::new(),
        config_revision: 1,
        url: Arc::from("https://example.com/"),
        signature: String::from("v1,x"),
        response_headers: Vec::new(),
        response_body: Bytes::from_static(b"no"),
        response_truncated: false,
        retry_at: (status != 200).then(|| at(60_000)),
        batch: None,
        trace_sampled: match attempt % 3 {
            0 => None,
            rest => Some(rest == 1),
        },
    }))
}

fn scheduled(delivery: DeliveryRef, attempt: u32) -> Fact {
    let due_at = at(60_000 + u64::from(attempt));
    Fact::RetryScheduled(RetryScheduled {
        delivery,
        attempt,
        due_at,
        cause_sequence: 1,
        batch: None,
    })
}

fn deferred(delivery: DeliveryRef, attempt: u32) -> Fact {
    let (until, reason) = (at(70_000), DeferReason::LaneFull);
    Fact::DeliveryDeferred(DeliveryDeferred { delivery, attempt, until, reason, batch: None })
}

fn parked(delivery: DeliveryRef, attempt: u32) -> Fact {
    Fact::DeliveryParked(DeliveryParked { delivery, attempt })
}

pub(crate) fn concluded(delivery: DeliveryRef, attempts: u32, conclusion: Conclusion) -> Fact {
    let reason = ConclusionReason::Outcome;
    Fact::DeliveryConcluded(DeliveryConcluded { delivery, conclusion, attempts, reason })
}

pub(crate) fn record(fact: Fact) -> Record {
    Record { recorded_at: at(5), trace: TraceContext::default(), fact }
}

fn fold(facts: &[Fact]) -> Changes {
    let mut changes = Changes::default();
    for (index, fact) in facts.iter().enumerate() {
        changes.record(Place::of(7, index), &record(fact.clone()));
    }
    changes
}

fn only(changes: &Changes) -> &DeliveryRow {
    assert_eq!(changes.deliveries.len(), 1);
    changes.deliveries.values().next().unwrap()
}

#[test]
fn each_fact_moves_the_state() {
    let own = || delivery(1, 1);
    let facts = [
        (routed(1, &[1], &[]), State::Pending, false, 0),
        (deferred(own(), 1), State::Pending, true, 0),
        (parked(own(), 1), State::Parked, false, 0),
        (scheduled(own(), 1), State::Pending, true, 0),
        (made(own(), 1, 500), State::Retrying, true, 1),
        (scheduled(own(), 2), State::Retrying, true, 1),
        (deferred(own(), 2), State::Retrying, true, 1),
        (made(own(), 2, 200), State::Retrying, false, 2),
        (concluded(own(), 2, Conclusion::Delivered), State::Delivered, false, 2),
    ];
    let all: Vec<Fact> = facts.iter().map(|(fact, ..)| fact.clone()).collect();
    for (index, (_, state, waits, attempts)) in facts.iter().enumerate() {
        let changes = fold(&all[..=index]);
        let row = only(&changes);
        let found = (row.standing.state, row.standing.next_attempt_at.is_some(), row.attempts);
        assert_eq!(found, (*state, *waits, *attempts), "{:?}", all[index]);
    }
}

#[test]
fn a_plan_of_the_attempt_before_does_not_take_back_the_attempt() {
    // The plans column may be read, and written, later than the attempts column.
    let own = || delivery(1, 1);
    let late = fold(&[made(own(), 1, 500), made(own(), 2, 500), scheduled(own(), 2)]);
    assert_eq!(only(&late).standing.next_attempt_at, Some(at(60_000)));
    let over = fold(&[concluded(own(), 1, Conclusion::Cancelled), scheduled(own(), 2)]);
    assert_eq!(only(&over).standing.state, State::Cancelled);
}

#[test]
fn of_two_routings_the_first_counts() {
    let twice = fold(&[routed(1, &[1], &[]), routed(1, &[], &[1])]);
    assert_eq!(only(&twice).standing.state, State::Pending);
    let skipped = fold(&[routed(1, &[], &[1]), routed(1, &[1], &[])]);
    assert_eq!(only(&skipped).standing.state, State::Skipped);
}

#[test]
fn a_delivery_has_its_type_from_its_event_or_from_its_facts() {
    let mut changes = fold(&[routed(1, &[1], &[])]);
    changes.fill();
    assert_eq!(only(&changes).origin, None);
    changes.event(&stored(1));
    changes.fill();
    let expected = Origin { accepted_at: at(1), event_type: event_type(1) };
    assert_eq!(only(&changes).origin, Some(expected.clone()));
    let alone = fold(&[deferred(delivery(1, 1), 1)]);
    assert_eq!(only(&alone).origin, Some(expected));
}

#[test]
fn what_is_forgotten_is_not_folded() {
    let mut changes = fold(&[made(delivery(1, 1), 1, 500), made(delivery(2, 1), 1, 500)]);
    changes.event(&stored(1));
    changes.event(&stored(2));
    changes.forget(at(2));
    assert_eq!((changes.events.len(), changes.deliveries.len(), changes.attempts.len()), (1, 1, 1));
}

#[test]
fn of_an_event_that_is_there_twice_the_first_copy_counts() {
    let (first, second) = (stored(1), copy(1, 1));
    let facts = [
        record(deferred(delivery_of(&second, endpoint(1), 0), 1)),
        record(routed_of(&first, &[1], &[])),
    ];
    for events in [[&first, &second], [&second, &first]] {
        for facts in [[&facts[0], &facts[1]], [&facts[1], &facts[0]]] {
            let mut changes = Changes::default();
            changes.record(Place::of(1, 0), facts[0]);
            changes.event(events[0]);
            changes.fill();
            changes.record(Place::of(1, 1), facts[1]);
            changes.event(events[1]);
            changes.fill();
            let row = only(&changes);
            assert_eq!(row.event_sequence, first.sequence);
            assert_eq!(row.origin.as_ref().map(|origin| origin.accepted_at), Some(at(1)));
            let row = &changes.events[&first.event.id];
            assert_eq!((row.sequence, row.accepted_at), (first.sequence, at(1)));
        }
    }
}

/// A message of either stream.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// An event, and how often it was there before.
    Event(u8, u8),
    Facts(u64, Vec<Fact>),
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let one = (0..3_u8, 0..4_u8, 0..3_u8)
        .prop_map(|(event, again, to)| delivery_of(&copy(event, again), endpoint(to), 0));
    let status = prop_oneof![Just(200_u16), Just(500), Just(0)];
    let conclusion = prop_oneof![Just(Conclusion::Delivered), Just(Conclusion::Exhausted)];
    prop_oneof![
        (one.clone(), 1..4_u32, status).prop_map(|(of, n, status)| made(of, n, status)),
        (one.clone(), 2..4_u32).prop_map(|(of, n)| scheduled(of, n)),
        (one.clone(), 1..4_u32).prop_map(|(of, n)| deferred(of, n)),
        (one.clone(), 1..4_u32).prop_map(|(of, n)| parked(of, n)),
        (one, 0..4_u32, conclusion).prop_map(|(of, n, conclusion)| concluded(of, n, conclusion)),
        (0..3_u8, 0..4_u8, vec(0..3_u8, 0..3), vec(0..3_u8, 0..2)).prop_map(
            |(event, again, targets, skipped)| routed_of(&copy(event, again), &targets, &skipped)
        ),
    ]
}

/// Both streams of some history, in order.
pub(crate) fn history() -> impl Strategy<Value = Vec<Message>> {
    let facts = vec(vec(any_fact(), 1..5), 0..12);
    (facts, vec((0..3_u8, 0..4_u8), 0..6)).prop_map(|(batches, events)| {
        let numbered = (1..).zip(batches);
        let journal = numbered.map(|(sequence, facts)| Message::Facts(sequence, facts));
        let events = events.into_iter().map(|(event, again)| Message::Event(event, again));
        journal.chain(events).collect()
    })
}

pub(crate) fn folded<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Changes {
    let mut changes = Changes::default();
    for message in messages {
        match message {
            Message::Event(number, again) => changes.event(&copy(*number, *again)),
            Message::Facts(sequence, facts) => {
                let records: Vec<Record> = facts.iter().cloned().map(record).collect();
                changes.journal(*sequence, &records);
            }
        }
    }
    changes
}

fn filled(mut changes: Changes) -> Changes {
    changes.fill();
    changes
}

proptest! {
    #[test]
    fn any_order_of_reading_gives_the_same_rows(
        messages in history(),
        keys in vec(any::<u32>(), 18),
    ) {
        let mut shuffled: Vec<_> = messages.iter().zip(keys).collect();
        shuffled.sort_by_key(|(_, key)| *key);
        let again = folded(shuffled.into_iter().map(|(message, _)| message));
        prop_assert_eq!(filled(again), filled(folded(&messages)));
    }

    #[test]
    fn a_part_folded_twice_and_any_split_give_the_same_rows(
        messages in history(),
        cut in any::<Index>(),
        again in any::<Index>(),
    ) {
        let cut = cut.index(messages.len() + 1);
        let again = again.index(cut + 1);
        let mut split = folded(&messages[..cut]);
        split.fill();
        split.merge(folded(&messages[again..]));
        split.merge(folded(&messages[..again]));
        prop_assert_eq!(filled(split), filled(folded(&messages)));
    }

    #[test]
    fn merging_does_not_ask_who_comes_first(
        messages in history(),
        mine in vec(any::<bool>(), 18),
    ) {
        let parts = messages.iter().zip(mine);
        let (one, other): (Vec<_>, Vec<_>) = parts.partition(|(_, mine)| *mine);
        let [one, other] = [one, other].map(|part| folded(part.into_iter().map(|(it, _)| it)));
        let (mut there, mut back) = (one.clone(), other.clone());
        there.merge(other);
        back.merge(one);
        prop_assert_eq!(filled(there), filled(back));
    }
}
