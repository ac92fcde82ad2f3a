//! Checks that several records share. Each takes the name of the field for the error.

use std::{error::Error, num::NonZeroU32, str::FromStr};

use bytes::Bytes;
use fanfare_domain::{EventType, Shard, ShardCount, TenantId, Timestamp, TraceContext};
use prost::Message;

use crate::error::DecodeError;

/// Reads a generated message; its `bytes` fields are slices of the input.
pub(crate) fn message<M: Message + Default>(
    bytes: Bytes,
    message: &'static str,
) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|cause| DecodeError::Malformed { message, cause })
}

/// Unwraps a field that is always written.
pub(crate) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field: field.into() })
}

/// Reads bytes of a fixed length.
pub(crate) fn fixed<const N: usize>(
    bytes: &[u8],
    field: &'static str,
) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Length {
        field: field.into(),
        length: bytes.len(),
        expected: N,
    })
}

/// Reads an id: `wrap` is its type's `from_bytes`.
pub(crate) fn id<T>(
    bytes: &[u8],
    field: &'static str,
    wrap: fn([u8; 16]) -> T,
) -> Result<T, DecodeError> {
    fixed(bytes, field).map(wrap)
}

/// Reads text that follows a syntax.
pub(crate) fn syntax<T>(text: &str, field: &'static str) -> Result<T, DecodeError>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    text.parse()
        .map_err(|cause| DecodeError::Syntax { field: field.into(), cause: Box::new(cause) })
}

/// Reads a tenant's id.
pub(crate) fn tenant(text: &str, field: &'static str) -> Result<TenantId, DecodeError> {
    syntax(text, field)
}

/// Reads an event's type.
pub(crate) fn event_type(text: &str, field: &'static str) -> Result<EventType, DecodeError> {
    syntax(text, field)
}

/// Reads a number that fits 16 bits.
pub(crate) fn small(value: u32, field: &'static str) -> Result<u16, DecodeError> {
    u16::try_from(value).map_err(|_| out_of_range(value, field))
}

/// Reads a number that counts from 1.
pub(crate) fn ordinal(value: u32, field: &'static str) -> Result<u32, DecodeError> {
    if value == 0 { Err(out_of_range(value, field)) } else { Ok(value) }
}

/// Reads a number that is not zero.
pub(crate) fn positive(value: u32, field: &'static str) -> Result<NonZeroU32, DecodeError> {
    NonZeroU32::new(value).ok_or_else(|| out_of_range(value, field))
}

/// Reads a shard's index.
pub(crate) fn shard(value: u32, field: &'static str) -> Result<Shard, DecodeError> {
    let index = small(value, field)?;
    if index < ShardCount::MAX {
        Ok(Shard::from_index(index))
    } else {
        Err(out_of_range(value, field))
    }
}

/// Wraps an instant that may be absent.
pub(crate) fn time(nanos: Option<u64>) -> Option<Timestamp> {
    nanos.map(Timestamp::from_nanos)
}

/// Wraps a trace that one of us wrote, and that was checked before.
pub(crate) fn trace(traceparent: String, tracestate: String) -> TraceContext {
    TraceContext { traceparent, tracestate }
}

/// Says that a number cannot be.
pub(crate) fn out_of_range(value: impl TryInto<i64>, field: &'static str) -> DecodeError {
    let value = value.try_into().unwrap_or(i64::MAX);
    DecodeError::OutOfRange { field: field.into(), value }
}
