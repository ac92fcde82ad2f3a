//! `EventEnvelope`: what EVENTS holds.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_domain::{Event, EventId, StoredEvent, Timestamp};

use crate::{
    encode::{self, Fields, Sink, TextEntry},
    error::DecodeError,
    parse, wire,
};

/// Writes an event's envelope. The data is copied once.
///
/// An event accepted at the Unix epoch itself reads back as accepted when stored, one whose
/// configuration has revision 0 as one whose configuration is not known.
pub fn encode_event(event: &Event) -> Bytes {
    let bytes = event.to_bytes();
    encode::debug_assert_readable(|| decode_event(bytes.clone(), 1, Timestamp::EPOCH));
    bytes
}

/// Reads an event's envelope with its place in EVENTS: its sequence, and when the stream stored
/// it. The data and the envelope are slices of the input.
pub fn decode_event(
    envelope: Bytes,
    sequence: u64,
    stored_at: Timestamp,
) -> Result<StoredEvent, DecodeError> {
    let wire: wire::EventEnvelope = parse::message(envelope.clone(), "EventEnvelope")?;
    let accepted_at =
        Some(wire.accepted_at_ns).filter(|&nanos| nanos != 0).map(Timestamp::from_nanos);
    let event = Event {
        id: parse::id(&wire.event_id, "EventEnvelope.event_id", EventId::from_bytes)?,
        tenant: parse::tenant(&wire.tenant, "EventEnvelope.tenant")?,
        event_type: parse::event_type(&wire.event_type, "EventEnvelope.event_type")?,
        occurred_at: Timestamp::from_nanos(wire.occurred_at_ns),
        accepted_at,
        config_revision: Some(wire.config_revision).filter(|&revision| revision != 0),
        data: wire.data,
        ordering_key: wire.ordering_key,
        attributes: wire.attributes,
        idempotency_key: wire.idempotency_key,
        trace: parse::trace(wire.traceparent, wire.tracestate),
    };
    Ok(StoredEvent {
        event: Arc::new(event),
        sequence,
        accepted_at: accepted_at.unwrap_or(stored_at),
        envelope,
    })
}

impl Fields for Event {
    fn write(&self, out: &mut impl Sink) {
        let Self {
            id,
            tenant,
            event_type,
            occurred_at,
            accepted_at,
            config_revision,
            data,
            ordering_key,
            attributes,
            idempotency_key,
            trace,
        } = self;
        out.bytes(1, id.as_bytes());
        out.text(2, tenant.as_str());
        out.text(3, event_type.as_str());
        out.time(4, *occurred_at);
        out.time(5, accepted_at.unwrap_or_default());
        out.bytes(6, data);
        out.some_text(7, ordering_key.as_deref());
        for (name, value) in attributes {
            out.message(8, &TextEntry(name, value));
        }
        out.some_text(9, idempotency_key.as_deref());
        out.trace(10, trace);
        out.uint(12, config_revision.unwrap_or_default());
    }
}
