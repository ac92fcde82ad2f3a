//! W3C trace context, as it travels in every envelope, and the spans that follow from it.
//!
//! Nothing but the producer's context is carried along. Everything else is a function of ids that
//! are there anyway: which trace an event is in ([`Place`]), what its spans are called ([`SpanId`]),
//! and what each of them says ([`span`]). So every service knows every other one's spans, and a span
//! that is made later from what is on record is the one that would have been made at the time.

mod place;
mod sampler;
pub mod span;

use data_encoding::HEXLOWER;

pub use place::{Place, SpanId, TraceId};
pub use sampler::{Sampler, SamplerError};

/// The longest `traceparent` that is looked at, in bytes: later versions may be longer than ours.
const TRACEPARENT_MAX: usize = 256;

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
    /// Takes the headers of a message; a malformed `traceparent` counts as none (W3C, section 3.2.2.3).
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let Some(traceparent) = traceparent.filter(|text| is_traceparent(text)) else {
            return Self::default();
        };
        let tracestate = tracestate.filter(|text| {
            text.len() <= 512 && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        });
        Self {
            traceparent: String::from(traceparent),
            tracestate: tracestate.map(String::from).unwrap_or_default(),
        }
    }

    /// Starts a trace with ids drawn by the caller; not sampled.
    pub fn start(trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        let (trace_id, span_id) = (HEXLOWER.encode(&trace_id), HEXLOWER.encode(&span_id));
        Self { traceparent: format!("00-{trace_id}-{span_id}-00"), tracestate: String::new() }
    }

    /// Names a span, with nothing more known about its trace.
    pub fn of(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        let flags = u8::from(sampled);
        Self { traceparent: format!("00-{trace}-{span}-{flags:02x}"), tracestate: String::new() }
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
    hex(version, 2)
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
    fn malformed_parents_count_as_none() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let extra = format!("{PARENT}-x");
        for bad in
            ["", "00", zero, &extra, "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]
        {
            assert!(TraceContext::from_headers(Some(bad), None).is_empty(), "{bad}");
        }
    }
}
