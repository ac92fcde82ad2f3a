//! The event and the attempt that inputs are tried with.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_domain::{
    Attempt, DeliveryId, EndpointId, Event, EventId, EventType, Timestamp, TraceContext,
};

/// 2023-11-14T22:13:20.120Z.
pub(crate) const AT: Timestamp = Timestamp::from_millis(1_700_000_000_120);

/// An event of a type, with data.
pub(crate) fn event(event_type: EventType, data: &[u8]) -> Event {
    Event {
        id: EventId::new(AT, [0xab; 10]),
        tenant: "acme".parse().expect("acme is a tenant's id"),
        event_type,
        occurred_at: AT,
        accepted_at: None,
        config_revision: None,
        data: Bytes::copy_from_slice(data),
        ordering_key: None,
        attributes: BTreeMap::from([(String::from("region"), String::from("eu"))]),
        idempotency_key: None,
        trace: TraceContext::default(),
    }
}

/// An attempt at a delivery of an event.
pub(crate) fn attempt(event: &Event, number: u32) -> Attempt {
    let delivery = DeliveryId::of(event.id, EndpointId::from_bytes([7; 16]), 0);
    Attempt { delivery, number, at: Timestamp::from_millis(1_700_000_100_007) }
}
