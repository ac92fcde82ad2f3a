//! Facts for tests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    Conclusion, DeliveryId, DeliveryRef, EventId, Fact, Outcome, Record, Timestamp, TraceContext,
    fact::{
        AttemptMade, ConclusionReason, DeferReason, DeliveryConcluded, DeliveryDeferred,
        DeliveryParked, RetryScheduled,
    },
};

use crate::directory::tests::endpoint_id;

/// When the facts of tests were recorded.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// An instant some seconds after [`NOW`].
pub(crate) fn after(seconds: u64) -> Timestamp {
    NOW.saturating_add(Duration::from_secs(seconds))
}

/// The delivery of that number, to endpoint 1.
pub(crate) fn delivery(number: u8) -> DeliveryRef {
    delivery_to(number, 1)
}

/// The delivery of that number, to the endpoint of that number.
pub(crate) fn delivery_to(number: u8, endpoint: u8) -> DeliveryRef {
    let event = EventId::new(NOW, [number; 10]);
    DeliveryRef {
        id: DeliveryId::of(event, endpoint_id(endpoint), 0),
        tenant: "acme".parse().unwrap(),
        event,
        event_sequence: u64::from(number),
        event_type: "invoice.paid".parse().unwrap(),
        endpoint: endpoint_id(endpoint),
        generation: 0,
        accepted_at: NOW,
    }
}

/// An attempt that was answered with 500.
pub(crate) fn attempt(number: u8, attempt: u32, retry_at: Option<Timestamp>) -> AttemptMade {
    AttemptMade {
        delivery: delivery(number),
        attempt,
        started_at: NOW,
        duration: Duration::from_millis(20),
        timing: fanfare_domain::fact::Timing::default(),
        outcome: Outcome::Refused { status: 500, retry_after: None },
        detail: String::new(),
        config_revision: 1,
        url: Arc::from("https://example.com/"),
        signature: String::new(),
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_at,
        batch: None,
        trace_sampled: None,
    }
}

/// A record made at [`NOW`].
pub(crate) fn record(fact: Fact) -> Record {
    Record { recorded_at: NOW, trace: TraceContext::default(), fact }
}

/// An attempt was made and is followed by another one, or not.
pub(crate) fn made(delivery: DeliveryRef, number: u32, retry_at: Option<Timestamp>) -> Record {
    let made = AttemptMade { delivery, ..attempt(0, number, retry_at) };
    record(Fact::AttemptMade(Box::new(made)))
}

/// An attempt was put off.
pub(crate) fn deferred(delivery: DeliveryRef, attempt: u32, until: Timestamp) -> Record {
    let reason = DeferReason::LaneFull;
    record(Fact::DeliveryDeferred(DeliveryDeferred {
        delivery,
        attempt,
        until,
        reason,
        batch: None,
    }))
}

/// A delivery was parked.
pub(crate) fn parked(delivery: DeliveryRef, attempt: u32) -> Record {
    record(Fact::DeliveryParked(DeliveryParked { delivery, attempt }))
}

/// A delivery ended.
pub(crate) fn concluded(delivery: DeliveryRef, conclusion: Conclusion) -> Record {
    let reason = ConclusionReason::Outcome;
    let concluded = DeliveryConcluded { delivery, conclusion, attempts: 1, reason };
    record(Fact::DeliveryConcluded(concluded))
}

/// An attempt was given its time.
pub(crate) fn scheduled(
    delivery: DeliveryRef,
    attempt: u32,
    due_at: Timestamp,
    cause_sequence: u64,
) -> Record {
    let scheduled = RetryScheduled { delivery, attempt, due_at, cause_sequence, batch: None };
    record(Fact::RetryScheduled(scheduled))
}
