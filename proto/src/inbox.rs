//! `InboxEvent`: what a producer may send as protobuf.

use bytes::Bytes;
use fanfare_domain::{InboxEvent, Timestamp, TraceContext};

use crate::{
    encode::{Fields, Sink, TextEntry},
    error::DecodeError,
    parse, wire,
};

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Writes an event on its way in. Its time of happening is cut to whole milliseconds.
pub fn encode_inbox(event: &InboxEvent) -> Bytes {
    event.to_bytes()
}

/// Reads an event on its way in. The data is a slice of the input.
///
/// Refuses an `occurred_at_ms` before the epoch, and one so late that it was probably not meant
/// in milliseconds (from the year 2554 on). Empty keys and a malformed trace count as none.
pub fn decode_inbox(bytes: Bytes) -> Result<InboxEvent, DecodeError> {
    let wire: wire::InboxEvent = parse::message(bytes, "InboxEvent")?;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(InboxEvent {
        data: wire.data,
        content_type: wire.content_type,
        occurred_at: occurred_at(wire.occurred_at_ms)?,
        ordering_key: given(wire.ordering_key),
        attributes: wire.attributes,
        idempotency_key: given(wire.idempotency_key),
        trace: TraceContext::from_headers(
            Some(&wire.traceparent),
            given(wire.tracestate).as_deref(),
        ),
    })
}

fn occurred_at(millis: i64) -> Result<Option<Timestamp>, DecodeError> {
    let nanos = u64::try_from(millis).ok().and_then(|millis| millis.checked_mul(NANOS_PER_MILLI));
    let nanos = nanos.ok_or_else(|| parse::out_of_range(millis, "InboxEvent.occurred_at_ms"))?;
    Ok(Some(nanos).filter(|&nanos| nanos != 0).map(Timestamp::from_nanos))
}

impl Fields for InboxEvent {
    fn write(&self, out: &mut impl Sink) {
        let Self {
            data,
            content_type,
            occurred_at,
            ordering_key,
            attributes,
            idempotency_key,
            trace,
        } = self;
        out.bytes(1, data);
        out.text(2, content_type);
        out.uint(3, occurred_at.unwrap_or_default().as_millis());
        out.text(4, ordering_key.as_deref().unwrap_or_default());
        for (name, value) in attributes {
            out.message(5, &TextEntry(name, value));
        }
        out.text(6, idempotency_key.as_deref().unwrap_or_default());
        out.trace(7, trace);
    }
}
