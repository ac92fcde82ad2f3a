//! Which trace an event is in, and the ids of its spans.

use std::fmt;

use data_encoding::HEXLOWER;

use super::TraceContext;
use crate::{DeliveryId, EventId};

/// Identifies a trace: 16 bytes, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// Identifies a span in its trace: 8 bytes, shown as 16 hexadecimal digits; never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

/// Where an event's spans are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Their trace.
    pub trace: TraceId,
    /// The producer's span, above all of them.
    pub parent: Option<SpanId>,
    /// What the producer decided on sampling; `None` if that is ours to decide.
    pub sampled: Option<bool>,
}

/// What tells spans of one id apart. The values are part of what is exported: they never change.
const INGEST: u64 = 0x1d0e_7b9a_4c11_52f3;
const FAN_OUT: u64 = 0x5a3c_90d2_e7f4_0b68;
const REPLAY: u64 = 0x93b1_6e0f_2d85_c4a7;

impl Place {
    /// Returns the place of an event's spans. Those of a replay are in a trace of their own.
    ///
    /// Without a producer's trace, the trace id is the event's id, byte for byte.
    pub fn of(event: EventId, context: &TraceContext, generation: u32) -> Self {
        let own = event.as_bytes();
        let given = context.parts();
        let sampled = given.map(|(_, _, sampled)| sampled);
        if generation > 0 {
            let (head, tail) = halves(own);
            let tail = mix(tail ^ REPLAY, u64::from(generation));
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&head.to_be_bytes());
            bytes[8..].copy_from_slice(&tail.to_be_bytes());
            return Self { trace: TraceId(bytes), parent: None, sampled };
        }
        match given {
            Some((trace, parent, _)) => Self { trace, parent: Some(parent), sampled },
            None => Self { trace: TraceId(*own), parent: None, sampled },
        }
    }
}

impl TraceId {
    /// Wraps the bytes of a trace id.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads 32 hexadecimal digits in lower case.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        hex(text).map(Self)
    }

    /// The last 8 bytes, from which samplers decide.
    pub(super) fn chance(&self) -> u64 {
        halves(&self.0).1
    }
}

impl SpanId {
    /// The span in which an event was taken in.
    pub fn ingest(event: EventId) -> Self {
        Self::new(mix(halves(event.as_bytes()).1 ^ INGEST, 0))
    }

    /// The span in which an event was matched with its endpoints; `generation` counts replays.
    pub fn fan_out(event: EventId, generation: u32) -> Self {
        Self::new(mix(halves(event.as_bytes()).1 ^ FAN_OUT, u64::from(generation)))
    }

    /// The span in which a delivery came to be.
    pub fn delivery(delivery: DeliveryId) -> Self {
        // The end of a delivery's id is a hash, and nothing else's.
        Self::new(halves(delivery.as_bytes()).1)
    }

    /// The span of an attempt, counted from 1.
    pub fn attempt(delivery: DeliveryId, attempt: u32) -> Self {
        Self::new(mix(halves(delivery.as_bytes()).1, u64::from(attempt)))
    }

    /// Wraps the bytes of a span id.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// Reads 16 hexadecimal digits in lower case.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        hex(text).map(Self)
    }

    fn new(number: u64) -> Self {
        Self(number.max(1).to_be_bytes())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        HEXLOWER.encode_mut(&self.0, &mut text);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 16];
        HEXLOWER.encode_mut(&self.0, &mut text);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

fn hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let fits = HEXLOWER.decode_len(text.len()).ok() == Some(LENGTH);
    (fits && HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_ok()).then_some(bytes)
}

fn halves(bytes: &[u8; 16]) -> (u64, u64) {
    let all = u128::from_be_bytes(*bytes);
    let half = |part: u128| u64::try_from(part & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    (half(all >> 64), half(all))
}

/// Scatters a number and a count (splitmix64): counts of one number never meet.
const fn mix(number: u64, count: u64) -> u64 {
    let mut z = number.wrapping_add(count.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{EndpointId, Timestamp};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn event() -> EventId {
        EventId::of_message("INBOX/1", 7, Timestamp::from_millis(1_700_000_000_123))
    }

    #[test]
    fn an_event_is_in_its_producers_trace_or_in_one_of_its_own() {
        let given = TraceContext::from_headers(Some(PARENT), None);
        let place = Place::of(event(), &given, 0);
        assert_eq!(place.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(place.parent.map(|span| span.to_string()).as_deref(), Some("b7ad6b7169203331"));
        assert_eq!(place.sampled, Some(true));
        let own = Place::of(event(), &TraceContext::default(), 0);
        assert_eq!((own.trace.as_bytes(), own.parent), (event().as_bytes(), None));
        assert_eq!(own.sampled, None);
    }

    #[test]
    fn each_replay_has_a_trace_of_its_own() {
        let given = TraceContext::from_headers(Some(PARENT), None);
        let places = [0, 1, 2].map(|generation| Place::of(event(), &given, generation));
        let traces: BTreeSet<TraceId> = places.iter().map(|place| place.trace).collect();
        assert_eq!(traces.len(), 3);
        assert!(places[1].parent.is_none() && places[1].sampled == Some(true));
    }

    #[test]
    fn spans_of_an_event_are_told_apart() {
        let endpoint = EndpointId::new(Timestamp::EPOCH, [3; 10]);
        let mut spans = vec![SpanId::ingest(event())];
        for generation in 0..10 {
            let delivery = DeliveryId::of(event(), endpoint, generation);
            spans.extend([SpanId::fan_out(event(), generation), SpanId::delivery(delivery)]);
            spans.extend((1..100).map(|attempt| SpanId::attempt(delivery, attempt)));
        }
        let distinct: BTreeSet<SpanId> = spans.iter().copied().collect();
        assert_eq!(distinct.len(), spans.len());
    }

    #[test]
    fn the_ids_of_spans_never_change() {
        // Those who export an attempt again, from another version, mean the same span.
        let delivery = DeliveryId::from_bytes([7; 16]);
        let event = EventId::from_bytes([9; 16]);
        let ids = [
            SpanId::ingest(event),
            SpanId::fan_out(event, 0),
            SpanId::fan_out(event, 1),
            SpanId::delivery(delivery),
            SpanId::attempt(delivery, 1),
            SpanId::attempt(delivery, 2),
        ];
        let shown: Vec<String> = ids.iter().map(SpanId::to_string).collect();
        let expected = [
            "2769e0c466fd0f8d",
            "a9040d57eeb85341",
            "25b7bce9eaa64ae2",
            "0707070707070707",
            "729cc17039c47aa6",
            "53ddfdf645ee2482",
        ];
        assert_eq!(shown, expected);
    }
}
