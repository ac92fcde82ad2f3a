//! `Feed`: what the bucket of feeds holds; and `FeedHint`, which is sent and not stored.

use bytes::Bytes;
use fanfare_domain::{
    EndpointId, Feed, Timestamp,
    feed::{Blocked, Interval, Phase, PutOff},
};
use prost::encoding::{WireType, encoded_len_varint};

use crate::{
    choice::Choice,
    encode::{self, Fields, Sink},
    error::DecodeError,
    parse, wire,
};

/// Writes a feed: some 100 bytes, and more for ordering keys that wait.
pub fn encode_feed(feed: &Feed) -> Bytes {
    let bytes = feed.to_bytes();
    encode::debug_assert_readable(|| decode_feed(bytes.clone()));
    bytes
}

/// Reads a feed.
pub fn decode_feed(bytes: Bytes) -> Result<Feed, DecodeError> {
    let wire: wire::Feed = parse::message(bytes, "Feed")?;
    Ok(Feed {
        tenant: parse::tenant(&wire.tenant, "Feed.tenant")?,
        endpoint: parse::id(&wire.endpoint_id, "Feed.endpoint_id", EndpointId::from_bytes)?,
        from: wire.from,
        phase: phase(&wire)?,
        reason: Choice::from_wire(wire.reason, "Feed.reason")?,
        opened_at: Timestamp::from_nanos(wire.opened_at_ns),
        next: wire.next,
        blocked: wire.blocked.into_iter().map(blocked).collect(),
        past: wire.past.iter().map(interval).collect(),
        ended: wire.ended,
        ended_since: wire.ended_since,
        taken_over: wire.taken_over.iter().map(put_off).collect(),
    })
}

/// Writes a hint: endpoints, each with the last sequence that is left to its feed.
pub fn encode_feed_hint(fed: &[(EndpointId, u64)]) -> Bytes {
    Hint(fed).to_bytes()
}

/// Reads a hint.
pub fn decode_feed_hint(bytes: Bytes) -> Result<Vec<(EndpointId, u64)>, DecodeError> {
    let wire: wire::FeedHint = parse::message(bytes, "FeedHint")?;
    let ids = wire.endpoint_ids.iter();
    let ids = ids.map(|id| parse::id(id, "FeedHint.endpoint_ids", EndpointId::from_bytes));
    ids.zip(wire.sequences).map(|(id, sequence)| Ok((id?, sequence))).collect()
}

fn phase(wire: &wire::Feed) -> Result<Phase, DecodeError> {
    let number = wire.phase;
    match wire::FeedPhase::try_from(number) {
        Ok(wire::FeedPhase::Open) => Ok(Phase::Open),
        Ok(wire::FeedPhase::Closing) => Ok(Phase::Closing),
        Ok(wire::FeedPhase::Closed) => Ok(Phase::Closed {
            until: wire.until,
            at: parse::required(parse::time(wire.closed_at_ns), "Feed.closed_at_ns")?,
        }),
        Ok(wire::FeedPhase::Unspecified) => {
            Err(DecodeError::Missing { field: "Feed.phase".into() })
        }
        Err(_) => Err(DecodeError::UnknownValue { field: "Feed.phase".into(), value: number }),
    }
}

fn blocked(wire: wire::FeedBlocked) -> Blocked {
    Blocked { key: wire.key, by: wire.by, waiting: wire.waiting }
}

fn interval(wire: &wire::FeedInterval) -> Interval {
    let closed_at = Timestamp::from_nanos(wire.closed_at_ns);
    Interval { from: wire.from, until: wire.until, closed_at }
}

fn put_off(wire: &wire::FeedPutOff) -> PutOff {
    PutOff { sequence: wire.sequence, until: Timestamp::from_nanos(wire.until_ns) }
}

impl Fields for Feed {
    fn write(&self, out: &mut impl Sink) {
        let Self { tenant, endpoint, from, phase, reason, opened_at, .. } = self;
        let Self { next, blocked, past, ended, ended_since, taken_over, .. } = self;
        out.text(1, tenant.as_str());
        out.bytes(2, endpoint.as_bytes());
        out.uint(3, *from);
        let (number, until, closed_at) = match phase {
            Phase::Open => (wire::FeedPhase::Open, 0, None),
            Phase::Closing => (wire::FeedPhase::Closing, 0, None),
            Phase::Closed { until, at } => (wire::FeedPhase::Closed, *until, Some(*at)),
        };
        out.uint(4, number as u64);
        out.uint(5, until);
        out.some_time(6, closed_at);
        out.uint(7, reason.to_wire());
        out.time(8, *opened_at);
        out.uint(9, *next);
        for blocked in blocked {
            out.message(10, blocked);
        }
        for past in past {
            out.message(11, past);
        }
        packed(out, 12, ended);
        for put_off in taken_over {
            out.message(13, put_off);
        }
        out.uint(14, *ended_since);
    }
}

impl Fields for PutOff {
    fn write(&self, out: &mut impl Sink) {
        let Self { sequence, until } = self;
        out.uint(1, *sequence);
        out.time(2, *until);
    }
}

impl Fields for Blocked {
    fn write(&self, out: &mut impl Sink) {
        let Self { key, by, waiting } = self;
        if *key != 0 {
            out.key(1, WireType::SixtyFourBit);
            out.raw(&key.to_le_bytes());
        }
        out.uint(2, *by);
        packed(out, 3, waiting);
    }
}

impl Fields for Interval {
    fn write(&self, out: &mut impl Sink) {
        let Self { from, until, closed_at } = self;
        out.uint(1, *from);
        out.uint(2, *until);
        out.time(3, *closed_at);
    }
}

struct Hint<'a>(&'a [(EndpointId, u64)]);

impl Fields for Hint<'_> {
    fn write(&self, out: &mut impl Sink) {
        for (endpoint, _) in self.0 {
            out.bytes(1, endpoint.as_bytes());
        }
        let sequences: Vec<u64> = self.0.iter().map(|(_, sequence)| *sequence).collect();
        packed(out, 2, &sequences);
    }
}

/// Takes numbers, one behind the other in one field.
fn packed(out: &mut impl Sink, number: u32, values: &[u64]) {
    if values.is_empty() {
        return;
    }
    out.key(number, WireType::LengthDelimited);
    let length: usize = values.iter().map(|value| encoded_len_varint(*value)).sum();
    out.varint(length as u64);
    for value in values {
        out.varint(*value);
    }
}
