//! What is said of each fact.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    BatchId, DeliveryId, EndpointId, Fault, Shard, TraceContext,
    fact::{DeliveryParked, InBatch, RetryScheduled, ShardClaimed, Timing},
};

use super::*;

const ACCEPTED: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn event() -> EventId {
    EventId::new(ACCEPTED, [1; 10])
}

fn delivery() -> DeliveryRef {
    let endpoint = EndpointId::new(ACCEPTED, [2; 10]);
    DeliveryRef {
        id: DeliveryId::of(event(), endpoint, 0),
        tenant: "acme".parse().unwrap(),
        event: event(),
        event_sequence: 1,
        event_type: "invoice.paid".parse().unwrap(),
        endpoint,
        generation: 0,
        accepted_at: ACCEPTED,
    }
}

fn later(millis: u64) -> Timestamp {
    ACCEPTED.saturating_add(Duration::from_millis(millis))
}

fn record(fact: Fact) -> Record {
    Record { recorded_at: later(1_500), trace: TraceContext::default(), fact }
}

fn attempt(outcome: Outcome, detail: &str, retry_at: Option<Timestamp>) -> Record {
    record(Fact::AttemptMade(Box::new(AttemptMade {
        delivery: delivery(),
        attempt: 2,
        started_at: later(1_000),
        duration: Duration::from_millis(12),
        timing: Timing { connect: None, first_byte: Some(Duration::from_millis(11)) },
        outcome,
        detail: String::from(detail),
        config_revision: 3,
        url: Arc::from("https://example.com/hook"),
        signature: String::from("v1,abc"),
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_at,
        batch: None,
        trace_sampled: None,
    })))
}

fn routed(targets: usize, skipped: usize, held: usize) -> Record {
    let ids = |count| vec![EndpointId::new(ACCEPTED, [2; 10]); count];
    record(Fact::EventRouted(EventRouted {
        event: event(),
        tenant: "acme".parse().unwrap(),
        event_sequence: 1,
        config_revision: 1,
        generation: 0,
        targets: ids(targets),
        skipped: ids(skipped),
        held: ids(held),
        fed: Vec::new(),
        part: 0,
        parts: 1,
    }))
}

fn concluded(conclusion: Conclusion, reason: ConclusionReason) -> Record {
    record(Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: delivery(),
        conclusion,
        attempts: 2,
        reason,
    }))
}

#[test]
fn each_fact_has_its_words_and_its_tone() {
    let refused = Outcome::Refused { status: 500, retry_after: None };
    let failed = Outcome::Failed(Fault::TimedOut);
    let parked = Fact::DeliveryParked(DeliveryParked { delivery: delivery(), attempt: 2 });
    let scheduled = RetryScheduled {
        delivery: delivery(),
        attempt: 3,
        due_at: later(6_498),
        cause_sequence: 1,
        batch: None,
    };
    let deferred = DeliveryDeferred {
        delivery: delivery(),
        attempt: 1,
        until: later(2_500),
        reason: DeferReason::LaneFull,
        batch: None,
    };
    let mut batched = attempt(refused.clone(), "", None);
    if let Fact::AttemptMade(made) = &mut batched.fact {
        made.batch = Some(InBatch { id: BatchId::from_bytes([1; 16]), size: 50 });
    }
    for (record, tone, what, details) in [
        (
            batched,
            Tone::Bad,
            "attempt 2",
            "https://example.com/hook → 500 in 12 ms, in a batch of 50",
        ),
        (routed(2, 0, 0), Tone::Accent, "routed", "to 2 endpoints"),
        (routed(0, 0, 0), Tone::Dim, "routed", "no endpoint wants it"),
        (
            routed(1, 1, 2),
            Tone::Accent,
            "routed",
            "to 1 endpoint, 1 skipped: paused, 2 held: paused",
        ),
        (
            attempt(Outcome::Accepted { status: 204 }, "", None),
            Tone::Good,
            "attempt 2",
            "https://example.com/hook → 204 in 12 ms",
        ),
        (
            attempt(refused, "", Some(later(6_498))),
            Tone::Warning,
            "attempt 2",
            "https://example.com/hook → 500 in 12 ms, next attempt in 5 s",
        ),
        (
            attempt(failed, "no answer\u{1b}[2J", None),
            Tone::Bad,
            "attempt 2",
            "https://example.com/hook → timed_out: no answer\u{fffd}[2J in 12 ms",
        ),
        (record(Fact::RetryScheduled(scheduled)), Tone::Dim, "scheduled", "attempt 3 in 5 s"),
        (
            record(Fact::DeliveryDeferred(deferred)),
            Tone::Dim,
            "put off",
            "attempt 1 in 1 s: the endpoint has as much as it can take",
        ),
        (record(parked), Tone::Warning, "parked", "attempt 2 waits until the endpoint is resumed"),
    ] {
        let line = Line::of(&record).unwrap();
        assert_eq!((line.tone, &*line.what, &*line.details), (tone, what, details));
        assert!(document(&record).is_some());
    }
}

#[test]
fn each_conclusion_has_its_words_and_its_tone() {
    for (record, tone, what, details) in [
        (
            concluded(Conclusion::Delivered, ConclusionReason::Outcome),
            Tone::Good,
            "delivered",
            "after 2 attempts in 1.5 s",
        ),
        (
            concluded(Conclusion::Exhausted, ConclusionReason::AttemptsSpent),
            Tone::Bad,
            "exhausted",
            "after 2 attempts in 1.5 s: the policy allows no more",
        ),
        (
            concluded(Conclusion::Cancelled, ConclusionReason::EndpointDeleted),
            Tone::Warning,
            "cancelled",
            "after 2 attempts in 1.5 s: the endpoint was deleted",
        ),
    ] {
        let line = Line::of(&record).unwrap();
        assert_eq!((line.tone, &*line.what, &*line.details), (tone, what, details));
    }
}

#[test]
fn a_line_names_its_delivery() {
    let record = concluded(Conclusion::Delivered, ConclusionReason::Outcome);
    let output = Output { json: false, colours: false };
    let expected = format!(
        "22:13:21.500Z  delivered  {}  invoice.paid  after 2 attempts in 1.5 s",
        delivery().id
    );
    assert_eq!(Line::of(&record).unwrap().show(output), expected);
}

#[test]
fn programs_get_ids_and_names() {
    let refused = Outcome::Refused { status: 500, retry_after: None };
    let document = document(&attempt(refused, "", Some(later(6_500)))).unwrap();
    for (name, value) in [
        ("fact", json!("attempt_made")),
        ("recorded_at", json!("2023-11-14T22:13:21.500Z")),
        ("delivery_id", json!(delivery().id.to_string())),
        ("event_id", json!(event().to_string())),
        ("tenant_id", json!("acme")),
        ("outcome", json!("refused")),
        ("status", json!(500)),
        ("fault", json!(null)),
        ("duration_ms", json!(12)),
        ("connect_ms", json!(null)),
        ("first_byte_ms", json!(11)),
        ("retry_at", json!("2023-11-14T22:13:26.500Z")),
    ] {
        assert_eq!(document[name], value, "{name}");
    }
}

#[test]
fn only_what_is_of_interest_is_included() {
    let everything = Interest::default();
    let tenant = |tenant: &str| Interest { tenant: tenant.parse().ok(), event: None };
    let of_event = |event| Interest { tenant: None, event: Some(event) };
    for fact in
        [routed(1, 0, 0).fact, concluded(Conclusion::Delivered, ConclusionReason::Outcome).fact]
    {
        assert!(everything.includes(&fact));
        assert!(tenant("acme").includes(&fact) && !tenant("other").includes(&fact));
        assert!(of_event(event()).includes(&fact));
        assert!(!of_event(EventId::new(ACCEPTED, [9; 10])).includes(&fact));
    }
    let shard = ShardClaimed { shard: Shard::from_index(1), epoch: 1, owner: String::new() };
    let claimed = Fact::ShardClaimed(shard);
    assert!(!everything.includes(&claimed));
    assert_eq!(Line::of(&record(claimed)), None);
}
