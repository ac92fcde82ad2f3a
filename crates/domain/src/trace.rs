//! W3C trace context, as it travels in every envelope, and the spans that follow from it.
//!
//! Nothing but the producer's context is carried along. Everything else is a function of ids that
//! are there anyway: which trace an event is in ([`Place`]), what its spans are called ([`SpanId`]),
//! and what each of them says ([`span`]). So every service knows every other one's spans, and a span
//! that is made later from what is on record is the one that would have been made at the time.

mod place;
mod sampler;
pub mod span;
mod state;

use data_encoding::HEXLOWER;

pub use place::{Place, SpanId, TraceId};
pub use sampler::{Sampler, SamplerError};

use crate::{DeliveryId, EventId};

/// The longest `traceparent` that is looked at, in bytes: later versions may be longer than ours.
const TRACEPARENT_MAX: usize = 256;
/// How long one of ours is, in bytes.
const TRACEPARENT_LENGTH: usize = 55;

/// Where a record stands in a distributed trace (W3C Trace Context, level 1).
///
/// Empty when nobody traces. What comes from outside is kept only if it is well formed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The `traceparent` header: `00-<trace id>-<span id>-<flags>`; empty if there is none.
    pub traceparent: String,
    /// The `tracestate` header; empty if there is none. Up to 512 bytes.
    pub tracestate: String,
}

impl TraceContext {
    /// Takes the headers of a message; see [`Self::from_lines`].
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        Self::from_lines(traceparent, tracestate)
    }

    /// Takes the headers of a message: of each as many as there are, in their order. A `traceparent`
    /// that is malformed or there twice counts as none (W3C, section 3.2), and so does a malformed
    /// `tracestate` (section 3.3).
    pub fn from_lines<'a>(
        traceparent: impl IntoIterator<Item = &'a str>,
        tracestate: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut parents = traceparent.into_iter();
        match (parents.next(), parents.next()) {
            (Some(parent), None) if is_traceparent(parent) => {
                Self { traceparent: String::from(parent), tracestate: state::read(tracestate) }
            }
            (Some(_) | None, _) => Self::default(),
        }
    }

    /// Starts a trace with ids drawn by the caller; not sampled.
    pub fn start(trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        let (trace_id, span_id) = (HEXLOWER.encode(&trace_id), HEXLOWER.encode(&span_id));
        Self { traceparent: format!("00-{trace_id}-{span_id}-00"), tracestate: String::new() }
    }

    /// Names a span, with nothing more known about its trace.
    pub fn of(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        let mut traceparent = String::with_capacity(TRACEPARENT_LENGTH);
        traceparent.push_str("00-");
        HEXLOWER.encode_append(trace.as_bytes(), &mut traceparent);
        traceparent.push('-');
        HEXLOWER.encode_append(span.as_bytes(), &mut traceparent);
        traceparent.push_str(if sampled { "-01" } else { "-00" });
        Self { traceparent, tracestate: String::new() }
    }

    /// Returns what the request of an attempt says of its place in this trace of the event's.
    #[must_use]
    pub fn of_attempt(
        &self,
        event: EventId,
        (delivery, generation): (DeliveryId, u32),
        (attempt, sampled): (u32, bool),
    ) -> Self {
        let place = Place::of(event, self, generation);
        let said = Self::of(place.trace, SpanId::attempt(delivery, attempt), sampled);
        // A replay's trace is our own, and nobody has said anything about its state.
        let tracestate = if generation == 0 { self.tracestate.clone() } else { String::new() };
        Self { tracestate, ..said }
    }

    /// Returns the same place, with another decision on whether it is sampled.
    #[must_use]
    pub fn decided(self, sampled: bool) -> Self {
        match self.parts() {
            Some((trace, span, _)) => {
                Self { tracestate: self.tracestate, ..Self::of(trace, span, sampled) }
            }
            None => self,
        }
    }

    /// Tells whether there is no trace.
    pub fn is_empty(&self) -> bool {
        self.traceparent.is_empty()
    }

    /// Returns the trace id, 32 hexadecimal digits; `None` if there is no trace.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.split('-').nth(1)
    }

    /// Returns the trace id, the span id and whether it is sampled; `None` if there is no trace.
    pub fn parts(&self) -> Option<(TraceId, SpanId, bool)> {
        let mut parts = self.traceparent.split('-').skip(1);
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some((TraceId::from_hex(trace)?, SpanId::from_hex(span)?, flags & 1 == 1))
    }

    /// Returns the same trace, seen from another of its spans.
    #[must_use]
    pub fn child(&self, span_id: [u8; 8]) -> Self {
        let mut parts = self.traceparent.split('-');
        let (Some(_), Some(trace), Some(_), Some(flags)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Self::default();
        };
        let traceparent = format!("00-{trace}-{}-{flags}", HEXLOWER.encode(&span_id));
        Self { traceparent, tracestate: self.tracestate.clone() }
    }
}

fn is_traceparent(text: &str) -> bool {
    if text.len() > TRACEPARENT_MAX {
        return false;
    }
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let some = |part: &str| part.bytes().any(|byte| byte != b'0');
    let mut parts = text.splitn(5, '-');
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    // Of what a later version adds nothing is known, but that it stands in a header.
    text.bytes().all(|byte| byte.is_ascii_graphic())
        && hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && (hex(trace, 32) && some(trace))
        && (hex(span, 16) && some(span))
        && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_child_keeps_trace_and_flags() {
        let child = TraceContext::from_headers(Some(PARENT), Some("a=b")).child([1; 8]);
        assert_eq!(child.traceparent, "00-0af7651916cd43dd8448eb211c80319c-0101010101010101-01");
        assert_eq!(child.tracestate, "a=b");
    }

    #[test]
    fn a_later_versions_parent_may_say_more_up_to_a_length() {
        let later = PARENT.replacen("00", "01", 1);
        let of_length = |length| format!("{later}{}", "-".repeat(length - later.len()));
        for (length, is_taken) in [(later.len(), true), (256, true), (257, false), (65_536, false)]
        {
            let context = TraceContext::from_headers(Some(&of_length(length)), None);
            assert_eq!(!context.is_empty(), is_taken, "{length}");
        }
    }

    #[test]
    fn two_parents_are_none_and_lines_of_state_are_one_list() {
        let twice = TraceContext::from_lines([PARENT, PARENT], ["a=b"]);
        assert_eq!(twice, TraceContext::default());
        let lines = TraceContext::from_lines([PARENT], ["a=b", "c=d"]);
        assert_eq!(lines.tracestate, "a=b,c=d");
        let malformed = TraceContext::from_lines([PARENT], ["a=b", "hello world"]);
        assert_eq!((malformed.traceparent.as_str(), malformed.tracestate.as_str()), (PARENT, ""));
    }

    #[test]
    fn another_decision_changes_nothing_else() {
        let context = TraceContext::from_headers(Some(PARENT), Some("a=b"));
        let decided = context.clone().decided(false);
        assert_eq!(decided.parts().map(|(_, _, sampled)| sampled), Some(false));
        assert_eq!(decided.decided(true), context);
        assert_eq!(TraceContext::default().decided(true), TraceContext::default());
    }

    #[test]
    fn a_request_says_which_attempt_it_is_and_a_replay_has_no_foreign_state() {
        let context = TraceContext::from_headers(Some(PARENT), Some("a=b"));
        let (event, delivery) = (EventId::from_bytes([9; 16]), DeliveryId::from_bytes([7; 16]));
        let said = context.of_attempt(event, (delivery, 0), (2, true));
        let span = SpanId::attempt(delivery, 2);
        assert_eq!(said.traceparent, format!("00-0af7651916cd43dd8448eb211c80319c-{span}-01"));
        assert_eq!(said.tracestate, "a=b");
        let replayed = context.of_attempt(event, (delivery, 1), (2, false));
        assert_ne!(replayed.trace_id(), said.trace_id());
        assert!(replayed.traceparent.ends_with("-00") && replayed.tracestate.is_empty());
    }

    #[test]
    fn malformed_parents_count_as_none() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let extra = format!("{PARENT}-x");
        let later = PARENT.replacen("00", "01", 1);
        let [line, letter] = ["\r\nX: y", "é"].map(|more| format!("{later}-{more}"));
        let version = PARENT.replacen("00", "ff", 1);
        for bad in ["", "00", zero, &extra, &version, &line, &letter] {
            assert!(TraceContext::from_headers(Some(bad), None).is_empty(), "{bad}");
        }
    }
}
