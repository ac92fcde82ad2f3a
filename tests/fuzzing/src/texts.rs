//! Short texts from outside: ids, names, times, `Retry-After`, trace headers, settings.
//!
//! Each line of an input is read as all of them. What is read is written again, and read as the same.

use std::{fmt::Display, str::FromStr, time::Duration};

use fanfare_domain::{
    BatchId, DeliveryId, EndpointId, EventId, EventType, JobId, KeyId, TenantId, Timestamp,
    TraceContext,
    id::{answer_token, idempotency_token},
    retry_after,
    settings::{parse_bytes, parse_duration},
};

use crate::{input::text, sample::AT};

/// How far ahead `Retry-After` counts.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// Reads each line of an input as each kind of text.
pub fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let lines: Vec<&str> = text.split('\n').take(16).collect();
    for line in &lines {
        kept::<EventId>(line);
        kept::<EndpointId>(line);
        kept::<DeliveryId>(line);
        kept::<BatchId>(line);
        kept::<KeyId>(line);
        kept::<JobId>(line);
        kept::<EventType>(line);
        kept::<TenantId>(line);
        names(line);
        times(line);
        settings(line);
    }
    traces(&lines);
    tokens(&lines);
}

/// What is read shows as it was written: there is one text for one thing.
fn kept<T: FromStr + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
    }
}

/// Names that are tokens of a subject stay tokens: none leads to another tenant's subjects.
fn names(text: &str) {
    let is_plain = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if text.parse::<TenantId>().is_ok() {
        assert!(is_plain(text) && text.len() <= TenantId::LENGTH_MAX, "{text}");
    }
    if text.parse::<EventType>().is_ok() {
        assert!(text.split('.').all(is_plain) && text.len() <= EventType::LENGTH_MAX, "{text}");
    }
}

fn times(text: &str) {
    if let Some(at) = Timestamp::parse(text) {
        let shown = at.to_string();
        let again = Timestamp::parse(&shown).expect("what is shown is a time");
        assert_eq!(again.as_millis(), at.as_millis(), "{text}: {shown}");
        assert_eq!(again.to_string(), shown, "{text}");
    }
    for now in [Timestamp::EPOCH, AT, Timestamp::from_nanos(u64::MAX)] {
        if let Some(asked) = retry_after::parse(text, now) {
            let latest = now.saturating_add(RETRY_AFTER_MAX);
            assert!(now <= asked && asked <= latest, "{text}: {asked}");
        }
    }
    let digits = text.trim_matches([' ', '\t']);
    if (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = digits.parse().expect("these are digits");
        let expected = AT.saturating_add(Duration::from_secs(seconds));
        assert_eq!(retry_after::parse(text, AT), Some(expected), "{text}");
    }
}

fn settings(text: &str) {
    if let Ok(duration) = parse_duration(text) {
        let millis = format!("{}ms", duration.as_millis());
        assert_eq!(parse_duration(&millis), Ok(duration), "{text}");
    }
    if let Ok(bytes) = parse_bytes(text) {
        assert_eq!(parse_bytes(&bytes.to_string()), Ok(bytes), "{text}");
    }
}

/// What is kept of a trace is well formed, and can be sent on in a header.
fn traces(lines: &[&str]) {
    let Some((parent, states)) = lines.split_first() else { return };
    let context = TraceContext::from_lines([*parent], states.iter().copied());
    let is_visible = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let TraceContext { traceparent, tracestate } = &context;
    assert!(is_visible(traceparent) && is_visible(tracestate), "{context:?}");
    assert!(traceparent.len() <= 256 && tracestate.len() <= 512, "{context:?}");
    if context.is_empty() {
        return assert_eq!(context, TraceContext::default());
    }
    assert_eq!(traceparent, parent, "it is kept as it was");
    let again = TraceContext::from_headers(Some(traceparent), Some(tracestate));
    assert_eq!(again, context, "what is kept is well formed");
    let (trace, _, sampled) = context.parts().expect("what is kept has its parts");
    assert_eq!(context.trace_id(), Some(&*trace.to_string()));
    let decided = context.clone().decided(!sampled);
    assert_eq!(decided.parts().map(|(.., sampled)| sampled), Some(!sampled));
    let child = context.child([1; 8]);
    assert_eq!(child.parts().map(|(trace, ..)| trace), Some(trace), "a child is in another trace");
    assert_eq!(
        TraceContext::from_headers(Some(&child.traceparent), None).traceparent,
        child.traceparent
    );
}

/// Keys of callers become tokens of subjects: the same for the same, and never each other's.
fn tokens(lines: &[&str]) {
    let [one, other] = ["acme", "acme-2"].map(|id| id.parse::<TenantId>().expect("it is an id"));
    for key in lines {
        let token = idempotency_token(&one, key);
        assert!(token.bytes().all(|byte| byte.is_ascii_hexdigit()) && token.len() == 64);
        assert_eq!(idempotency_token(&one, key), token);
        assert_ne!(idempotency_token(&other, key), token, "{key:?}");
        assert_ne!(answer_token("acme", key), token, "{key:?}");
    }
    for (first, second) in lines.iter().zip(lines.iter().skip(1)) {
        let same = idempotency_token(&one, first) == idempotency_token(&one, second);
        assert_eq!(same, first == second, "{first:?} {second:?}");
    }
}
