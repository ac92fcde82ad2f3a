//! A small run in which all is well: two events, two endpoints, one retry.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    Conclusion, DeliveryId, DeliveryRef, EndpointId, Event, EventId, Fact, Outcome, Record, Shard,
    StoredEvent, Timestamp, TraceContext,
    fact::{
        AttemptMade, ConclusionReason, DeliveryConcluded, EventRouted, RetryScheduled, ShardClaimed,
    },
};
use fanfare_event_log::{Column, JournalBatch};

use crate::support::{Acknowledged, Subscriber, checker::Evidence, hooks::Seen};

const TYPES: [&str; 2] = ["order.paid", "user.created"];

/// An instant of the sample.
pub(super) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// An event's id.
pub(super) fn event_id(number: u8) -> EventId {
    EventId::from_bytes([number + 1; 16])
}

/// An endpoint's id.
pub(super) fn endpoint_id(number: u8) -> EndpointId {
    EndpointId::from_bytes([number + 101; 16])
}

/// A delivery of the sample.
pub(super) fn delivery(event: u8, endpoint: u8) -> DeliveryRef {
    let (event_id, endpoint) = (event_id(event), endpoint_id(endpoint));
    DeliveryRef {
        id: DeliveryId::of(event_id, endpoint, 0),
        tenant: "acme".parse().expect("a tenant's id"),
        event: event_id,
        event_sequence: u64::from(event) + 1,
        event_type: TYPES[usize::from(event)].parse().expect("an event type"),
        endpoint,
        generation: 0,
        accepted_at: at(10_000),
    }
}

fn event(number: u8) -> Event {
    Event {
        id: event_id(number),
        tenant: "acme".parse().expect("a tenant's id"),
        event_type: TYPES[usize::from(number)].parse().expect("an event type"),
        occurred_at: at(10_000),
        accepted_at: None,
        config_revision: None,
        data: Bytes::from(format!(r#"{{"number":{number}}}"#)),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: Some(format!("key-{number}")),
        trace: TraceContext::default(),
    }
}

/// An event in its place.
pub(super) fn stored(event: Event, sequence: u64) -> StoredEvent {
    let event = Arc::new(event);
    StoredEvent { event, sequence, accepted_at: at(10_000), envelope: Bytes::new() }
}

/// A batch of the dispatcher's with one fact.
pub(super) fn batch(sequence: u64, fact: Fact) -> JournalBatch {
    let column = match fact {
        Fact::EventRouted(_) => None,
        Fact::RetryScheduled(_) => Some((Shard::from_index(0), Column::Plans)),
        Fact::ShardClaimed(_)
        | Fact::ShardReleased(_)
        | Fact::AttemptMade(_)
        | Fact::DeliveryDeferred(_)
        | Fact::DeliveryParked(_)
        | Fact::DeliveryConcluded(_) => Some((Shard::from_index(0), Column::Attempts)),
    };
    let record = Record { recorded_at: at(10_000), trace: TraceContext::default(), fact };
    JournalBatch { sequence, stored_at: at(10_000), column, facts: vec![record] }
}

/// When an attempt begins: the second 20 ms after it is due.
fn starts(attempt: u32) -> Timestamp {
    at(10_000 + u64::from(attempt - 1) * 1_030)
}

/// An attempt's fact. The first fails with 500 unless it is accepted, and the next is due a
/// second after its end.
pub(super) fn attempt(delivery: &DeliveryRef, attempt: u32, outcome: Outcome) -> Fact {
    let failed = !matches!(outcome, Outcome::Accepted { .. });
    let duration = Duration::from_millis(10);
    let ended = starts(attempt).saturating_add(duration);
    Fact::AttemptMade(Box::new(AttemptMade {
        delivery: delivery.clone(),
        attempt,
        started_at: starts(attempt),
        duration,
        timing: fanfare_domain::fact::Timing::default(),
        outcome,
        detail: String::new(),
        config_revision: 3,
        url: "http://127.0.0.1/".into(),
        signature: format!("sig-{attempt}"),
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_at: failed.then(|| ended.saturating_add(Duration::from_secs(1))),
        batch: None,
        trace_sampled: None,
    }))
}

fn seen(endpoint: u8, event: u8, attempt: u32, status: u16) -> Seen {
    Seen {
        path: format!("/{endpoint}"),
        event: Some(event_id(event)),
        signature: format!("sig-{attempt}"),
        at: starts(attempt).saturating_add(Duration::from_millis(5)),
        answered: Some(status),
        body: Bytes::new(),
    }
}

fn concluded(delivery: &DeliveryRef, attempts: u32) -> Fact {
    Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: delivery.clone(),
        conclusion: Conclusion::Delivered,
        attempts,
        reason: ConclusionReason::Outcome,
    })
}

fn routed(event: u8, targets: &[u8]) -> Fact {
    Fact::EventRouted(EventRouted {
        event: event_id(event),
        tenant: "acme".parse().expect("a tenant's id"),
        event_sequence: u64::from(event) + 1,
        config_revision: 3,
        generation: 0,
        targets: targets.iter().copied().map(endpoint_id).collect(),
        skipped: Vec::new(),
        held: Vec::new(),
        fed: Vec::new(),
        part: 0,
        parts: 1,
    })
}

fn claimed(epoch: u64) -> ShardClaimed {
    ShardClaimed { shard: Shard::from_index(0), epoch, owner: String::from("one") }
}

fn journal() -> Vec<JournalBatch> {
    let (retried, beside, other) = (delivery(0, 0), delivery(0, 1), delivery(1, 0));
    let (good, bad) =
        (Outcome::Accepted { status: 200 }, Outcome::Refused { status: 500, retry_after: None });
    let plan = RetryScheduled {
        delivery: retried.clone(),
        attempt: 2,
        due_at: starts(1).saturating_add(Duration::from_millis(1_010)),
        cause_sequence: 4,
        batch: None,
    };
    let facts = [
        Fact::ShardClaimed(claimed(1)),
        routed(0, &[0, 1]),
        routed(1, &[0]),
        attempt(&retried, 1, bad),
        attempt(&beside, 1, good.clone()),
        concluded(&beside, 1),
        attempt(&other, 1, good.clone()),
        concluded(&other, 1),
        attempt(&retried, 2, good),
        concluded(&retried, 2),
    ];
    let mut journal: Vec<_> = (1..).zip(facts).map(|(at, fact)| batch(at, fact)).collect();
    let mut plans = batch(11, Fact::RetryScheduled(plan));
    let mut claim = batch(11, Fact::ShardClaimed(claimed(1)));
    plans.facts.insert(0, claim.facts.remove(0));
    journal.push(plans);
    journal
}

/// The run.
pub(super) fn sample() -> Evidence {
    let events: Vec<StoredEvent> = (0..2).map(|n| stored(event(n), u64::from(n) + 1)).collect();
    let acknowledged = events.iter().map(|stored| Acknowledged {
        key: stored.event.idempotency_key.clone().expect("it has one"),
        tenant: stored.event.tenant.clone(),
        event_type: stored.event.event_type.clone(),
        data: stored.event.data.clone(),
        event: Some(stored.event.id),
    });
    let subscribers = [(0, ">"), (1, "order.*")].map(|(number, filter)| Subscriber {
        id: endpoint_id(number),
        tenant: "acme".parse().expect("a tenant's id"),
        filters: vec![filter.parse().expect("a filter")],
        path: format!("/{number}"),
        attempts_max: 3,
    });
    Evidence {
        acknowledged: acknowledged.collect(),
        subscribers: subscribers.into(),
        events: events.clone(),
        journal: journal(),
        journal_again: journal(),
        requests: vec![
            seen(0, 0, 1, 500),
            seen(1, 0, 1, 200),
            seen(0, 1, 1, 200),
            seen(0, 0, 2, 200),
        ],
        kills: Vec::new(),
    }
}
