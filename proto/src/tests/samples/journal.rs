//! Facts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    BreakerMemory, BreakerState, Conclusion, DeliveryId, Fact, Fault, Outcome, Record, Shard,
    Timestamp, TraceContext, WindowMemory,
    fact::{
        AttemptMade, ConclusionReason, DeferReason, DeliveryConcluded, DeliveryDeferred,
        DeliveryParked, EventRouted, InFlight, LimitState, RetryScheduled, ShardClaimed,
        ShardReleased, Timing,
    },
};

use super::{at, delivery, endpoint_id, event_id, in_batch, trace};

/// Batches, under the names of their golden records.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Vec<Record>)> {
    use DeferReason::{Breaker, EventUnavailable, LaneFull, RateLimit, RetryAfter};

    [
        ("journal-shard-claimed", vec![shard_claimed()]),
        ("journal-attempt-accepted", vec![attempt_accepted()]),
        ("journal-attempt-refused", vec![attempt_refused()]),
        ("journal-attempt-traced", vec![attempt_traced(true), attempt_traced(false)]),
        ("journal-attempt-timed", vec![attempt_timed()]),
        ("journal-attempt-concluded", vec![attempt_accepted(), delivered()]),
        // Those that the first version knew.
        ("journal-attempts-failed", Fault::ALL[..9].iter().copied().map(attempt_failed).collect()),
        ("journal-attempt-unauthenticated", vec![attempt_failed(Fault::AuthenticationFailed)]),
        ("journal-deliveries-deferred", deferred([LaneFull, EventUnavailable])),
        ("journal-deliveries-deferred-by-limits", deferred([RateLimit, Breaker, RetryAfter])),
        ("journal-delivery-parked", vec![parked()]),
        ("journal-deliveries-concluded", concluded()),
        ("journal-retry-scheduled", vec![retry_scheduled()]),
        ("journal-event-routed", vec![event_routed()]),
        ("journal-event-fed", vec![event_fed()]),
        ("journal-shard-released", vec![shard_released()]),
        ("journal-shard-released-learnt", vec![shard_released_with_memories()]),
        ("journal-batch", of_a_batch()),
    ]
    .into_iter()
}

fn record(fact: Fact) -> Record {
    Record { recorded_at: at(200_000_000), trace: trace(), fact }
}

pub(in crate::tests) fn shard_claimed() -> Record {
    let claimed =
        ShardClaimed { shard: Shard::from_index(3), epoch: 12, owner: String::from("host-1/7") };
    Record { trace: TraceContext::default(), ..record(Fact::ShardClaimed(claimed)) }
}

fn shard_released() -> Record {
    let in_flight = |attempt| InFlight {
        delivery: delivery().id,
        attempt,
        endpoint: endpoint_id(1),
        ends_by: at(30_000_000_000),
        request: delivery().id,
    };
    let (gate, plan, quiet_until) = (at(1_000_000), at(2_000_000), None);
    let endpoint = endpoint_id(2);
    let limit = LimitState { endpoint, gate, plan, quiet_until, breaker: None, window: None };
    let released = ShardReleased {
        shard: Shard::from_index(3),
        epoch: 12,
        limits_since: at(100_000_000),
        in_flight: vec![in_flight(1), in_flight(2)],
        limits: vec![limit],
        part: 1,
        parts: 2,
    };
    let fact = Fact::ShardReleased(Box::new(released));
    Record { trace: TraceContext::default(), ..record(fact) }
}

fn shard_released_with_memories() -> Record {
    let memory = |state| BreakerMemory {
        state,
        since: at(40_000_000),
        run: 3,
        wait: Duration::from_secs(20),
        probe_at: at(60_000_000_000),
    };
    let limit = |endpoint, breaker, window| LimitState {
        endpoint,
        gate: Timestamp::EPOCH,
        plan: Timestamp::EPOCH,
        quiet_until: None,
        breaker,
        window,
    };
    let window = WindowMemory { size: 2_500, slow_start: true, stepped_at: at(50_000_000) };
    let released = ShardReleased {
        shard: Shard::from_index(3),
        epoch: 12,
        limits_since: at(100_000_000),
        in_flight: Vec::new(),
        limits: vec![
            limit(endpoint_id(1), Some(memory(BreakerState::Open)), None),
            limit(endpoint_id(2), Some(memory(BreakerState::HalfOpen)), Some(window)),
        ],
        part: 0,
        parts: 1,
    };
    let fact = Fact::ShardReleased(Box::new(released));
    Record { trace: TraceContext::default(), ..record(fact) }
}

fn attempt(outcome: Outcome) -> AttemptMade {
    AttemptMade {
        delivery: delivery(),
        attempt: 2,
        started_at: at(150_000_000),
        duration: Duration::from_micros(12_345),
        timing: Timing::default(),
        outcome,
        detail: String::new(),
        config_revision: 77,
        url: Arc::from("https://hooks.example.com/in?a=b"),
        signature: String::from("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_at: None,
        batch: None,
        trace_sampled: None,
    }
}

fn attempt_accepted() -> Record {
    let made = AttemptMade {
        response_headers: vec![(String::from("content-length"), Bytes::from_static(b"2"))],
        response_body: Bytes::from_static(b"ok"),
        ..attempt(Outcome::Accepted { status: 200 })
    };
    record(Fact::AttemptMade(Box::new(made)))
}

fn attempt_traced(sampled: bool) -> Record {
    let accepted = Outcome::Accepted { status: 200 };
    let made = AttemptMade { trace_sampled: Some(sampled), ..attempt(accepted) };
    record(Fact::AttemptMade(Box::new(made)))
}

/// An attempt with every field set that its first version had.
pub(in crate::tests) fn attempt_refused() -> Record {
    let refused = Outcome::Refused { status: 503, retry_after: Some(at(120_000_000_000)) };
    let made = AttemptMade {
        detail: String::from("asked to wait"),
        response_headers: vec![
            (String::from("retry-after"), Bytes::from_static(b"120")),
            (String::from("x-not-text"), Bytes::from_static(b"\xff\xfe")),
        ],
        response_body: Bytes::from_static(b"<html>\x00\xff"),
        response_truncated: true,
        retry_at: Some(at(300_000_000_000)),
        ..attempt(refused)
    };
    record(Fact::AttemptMade(Box::new(made)))
}

fn attempt_timed() -> Record {
    let (connect, first_byte) = (Duration::from_micros(2_345), Duration::from_millis(12));
    let timing = Timing { connect: Some(connect), first_byte: Some(first_byte) };
    let made = AttemptMade { timing, ..attempt(Outcome::Accepted { status: 200 }) };
    record(Fact::AttemptMade(Box::new(made)))
}

fn attempt_failed(fault: Fault) -> Record {
    let made = AttemptMade {
        detail: String::from("in words"),
        retry_at: Some(at(300_000_000_000)),
        ..attempt(Outcome::Failed(fault))
    };
    record(Fact::AttemptMade(Box::new(made)))
}

fn deferred<const N: usize>(reasons: [DeferReason; N]) -> Vec<Record> {
    let deferred = |reason| {
        record(Fact::DeliveryDeferred(DeliveryDeferred {
            delivery: delivery(),
            attempt: 1,
            until: at(7_000_000_000),
            reason,
            batch: None,
        }))
    };
    reasons.map(deferred).into()
}

fn parked() -> Record {
    record(Fact::DeliveryParked(DeliveryParked { delivery: delivery(), attempt: 4 }))
}

fn concluded() -> Vec<Record> {
    let conclusions =
        [Conclusion::Delivered, Conclusion::Exhausted, Conclusion::Refused, Conclusion::Cancelled];
    let reasons = ConclusionReason::ALL.into_iter();
    let pairs = reasons.zip(conclusions.into_iter().cycle());
    let concluded = |(reason, conclusion)| {
        record(Fact::DeliveryConcluded(DeliveryConcluded {
            delivery: delivery(),
            conclusion,
            attempts: 6,
            reason,
        }))
    };
    pairs.map(concluded).collect()
}

/// The end that [`attempt_accepted`] led to.
fn delivered() -> Record {
    record(Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: delivery(),
        conclusion: Conclusion::Delivered,
        attempts: 2,
        reason: ConclusionReason::Outcome,
    }))
}

fn retry_scheduled() -> Record {
    record(Fact::RetryScheduled(RetryScheduled {
        delivery: delivery(),
        attempt: 3,
        due_at: at(300_000_000_000),
        cause_sequence: 1_002,
        batch: None,
    }))
}

/// Facts about deliveries that go to their endpoint in one request.
fn of_a_batch() -> Vec<Record> {
    let batch = Some(in_batch());
    let refused = Outcome::Refused { status: 500, retry_after: None };
    let retry_at = Some(at(300_000_000_000));
    let made = AttemptMade { retry_at, batch, ..attempt(refused) };
    let scheduled = RetryScheduled {
        delivery: delivery(),
        attempt: 3,
        due_at: at(300_000_000_000),
        cause_sequence: 1_002,
        batch,
    };
    let deferred = DeliveryDeferred {
        delivery: delivery(),
        attempt: 3,
        until: at(400_000_000_000),
        reason: DeferReason::LaneFull,
        batch,
    };
    let in_flight = InFlight {
        delivery: delivery().id,
        attempt: 3,
        endpoint: endpoint_id(1),
        ends_by: at(500_000_000_000),
        request: DeliveryId::from_bytes([1, 0x9e, 2, 3, 4, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]),
    };
    let released = ShardReleased {
        shard: Shard::from_index(3),
        epoch: 12,
        limits_since: at(100_000_000),
        in_flight: vec![in_flight],
        limits: Vec::new(),
        part: 0,
        parts: 1,
    };
    let facts = [
        Fact::AttemptMade(Box::new(made)),
        Fact::RetryScheduled(scheduled),
        Fact::DeliveryDeferred(deferred),
        Fact::ShardReleased(Box::new(released)),
    ];
    facts.map(record).into()
}

fn event_routed() -> Record {
    record(Fact::EventRouted(routed()))
}

fn event_fed() -> Record {
    let fed = vec![endpoint_id(6), endpoint_id(7)];
    record(Fact::EventRouted(EventRouted { fed, ..routed() }))
}

fn routed() -> EventRouted {
    EventRouted {
        event: event_id(),
        tenant: "acme".parse().unwrap(),
        event_sequence: 42,
        config_revision: 77,
        generation: 3,
        targets: vec![endpoint_id(1), endpoint_id(2)],
        skipped: vec![endpoint_id(3)],
        held: vec![endpoint_id(4), endpoint_id(5)],
        fed: Vec::new(),
        part: 1,
        parts: 2,
    }
}
