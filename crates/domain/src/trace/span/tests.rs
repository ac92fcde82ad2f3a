//! What spans say.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Moments, Span, Told, Value};
use crate::{
    Conclusion, DeliveryId, DeliveryRef, EndpointId, EventId, Fault, Outcome, Place, SpanId,
    Timestamp, TraceContext, fact::AttemptMade, trace::span,
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

fn delivery_ref(generation: u32) -> DeliveryRef {
    let event = EventId::of_message("INBOX/1", 7, at(0));
    let endpoint = EndpointId::new(at(0), [3; 10]);
    DeliveryRef {
        id: DeliveryId::of(event, endpoint, generation),
        tenant: "acme".parse().unwrap(),
        event,
        event_sequence: 1,
        event_type: "invoice.paid".parse().unwrap(),
        endpoint,
        generation,
        accepted_at: at(0),
    }
}

fn made(attempt: u32, outcome: Outcome) -> AttemptMade {
    AttemptMade {
        delivery: delivery_ref(0),
        attempt,
        started_at: at(100),
        duration: Duration::from_millis(30),
        timing: crate::fact::Timing::default(),
        outcome,
        detail: String::from("words"),
        config_revision: 1,
        url: Arc::from("https://me:secret@example.com:8443/hook?token=hidden#x"),
        signature: String::from("v1,hidden"),
        response_headers: vec![(String::from("x"), Bytes::from_static(b"hidden"))],
        response_body: Bytes::from_static(b"hidden"),
        response_truncated: false,
        retry_at: None,
        batch: None,
        trace_sampled: None,
    }
}

fn context() -> TraceContext {
    TraceContext::from_headers(Some(PARENT), Some("a=b"))
}

fn value<'a>(span: &'a Span, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}

#[test]
fn the_spans_of_an_event_hang_together() {
    let (delivery, context) = (delivery_ref(0), context());
    let told = Told::of_delivery(&delivery, &context);
    let times = (at(1), at(2));
    let chain = [
        span::ingest(&told, times),
        span::fan_out(&told, 1, times),
        span::delivery(&delivery, &context, times),
        span::attempt(
            &made(1, Outcome::Accepted { status: 200 }),
            &context,
            None,
            &Moments::default(),
        ),
    ];
    assert_eq!(chain[0].parent.map(|id| id.to_string()).as_deref(), Some("b7ad6b7169203331"));
    for pair in chain.windows(2) {
        assert_eq!(pair[1].parent, Some(pair[0].id), "{} is below {}", pair[1].name, pair[0].name);
        assert_eq!(pair[1].trace, pair[0].trace);
        assert_eq!(pair[1].tracestate, "a=b");
    }
    assert_eq!(
        chain.iter().map(|span| span.name).collect::<Vec<_>>(),
        ["process INBOX", "process EVENTS", "create DELIVERIES", "POST"]
    );
}

/// What the conventions of [`span::SEMCONV`] call what we say: of messaging, HTTP clients, URLs, servers
/// and errors.
const CONVENTIONS: [&str; 12] = [
    "error.type",
    "http.request.method",
    "http.request.resend_count",
    "http.response.status_code",
    "messaging.destination.name",
    "messaging.message.id",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.system",
    "server.address",
    "server.port",
    "url.full",
];

#[test]
fn names_are_the_conventions_or_our_own_and_stand_once() {
    let (delivery, context) = (delivery_ref(2), context());
    let told = Told::of_delivery(&delivery, &context);
    let refused = made(2, Outcome::Refused { status: 503, retry_after: None });
    let moments = Moments::default();
    let mut seen = BTreeSet::new();
    for span in [
        span::ingest(&told, (at(1), at(2))),
        span::fan_out(&told, 1, (at(1), at(2))),
        span::delivery(&delivery, &context, (at(1), at(2))),
        span::attempt(&refused, &context, Some(Conclusion::Exhausted), &moments),
    ] {
        let names: Vec<_> = span.attributes.iter().map(|(name, _)| *name).collect();
        let once: BTreeSet<_> = names.iter().copied().collect();
        assert_eq!(names.len(), once.len(), "{names:?}");
        let own = |name: &&str| name.starts_with("fanfare.");
        let unknown = names.iter().filter(|name| !own(name) && !CONVENTIONS.contains(name));
        assert_eq!(unknown.count(), 0, "{names:?}");
        for name in ["fanfare.tenant.id", "fanfare.event.id", "fanfare.event.type"] {
            assert!(once.contains(name), "{name} in {names:?}");
        }
        seen.extend(once);
    }
    let missing: Vec<_> = CONVENTIONS.iter().filter(|name| !seen.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for name in
        ["fanfare.delivery.id", "fanfare.endpoint.id", "fanfare.attempt", "fanfare.conclusion"]
    {
        assert!(seen.contains(name), "{name}");
    }
}

#[test]
fn a_failed_attempt_says_why_and_links_to_the_one_before() {
    let refused = Outcome::Refused { status: 503, retry_after: None };
    let moments = Moments { first_byte: Some(Duration::from_millis(20)), ..Moments::default() };
    let span = span::attempt(&made(2, refused), &context(), Some(Conclusion::Exhausted), &moments);
    assert_eq!(span.error.as_deref(), Some(""), "it failed, and the status says why");
    assert_eq!(value(&span, "error.type"), Some(&Value::Text(String::from("503"))));
    assert_eq!(value(&span, "http.response.status_code"), Some(&Value::Number(503)));
    assert_eq!(value(&span, "http.request.resend_count"), Some(&Value::Number(1)));
    assert_eq!(value(&span, "fanfare.conclusion"), Some(&Value::Name("exhausted")));
    assert_eq!(span.links.len(), 1);
    assert_eq!(span.links[0].span, SpanId::attempt(delivery_ref(0).id, 1));
    assert_eq!(span.events, [("first byte", at(120))]);
    assert_eq!((span.start, span.end), (at(100), at(130)));
    let lost = span::attempt(
        &made(1, Outcome::Failed(Fault::ConnectionLost)),
        &context(),
        None,
        &Moments::default(),
    );
    assert_eq!(lost.error.as_deref(), Some("connection_lost"));
    assert_eq!(value(&lost, "http.response.status_code"), None);
}

#[test]
fn no_span_holds_a_secret_or_a_payload() {
    let refused = Outcome::Refused { status: 503, retry_after: None };
    let span = span::attempt(&made(1, refused), &context(), None, &Moments::default());
    assert_eq!(
        value(&span, "url.full"),
        Some(&Value::Text(String::from("https://example.com:8443/hook")))
    );
    let said = format!("{span:?}");
    for hidden in ["hidden", "secret", "token", "me:secret"] {
        assert!(!said.contains(hidden), "{hidden} in {said}");
    }
}

#[test]
fn a_replay_is_a_trace_of_its_own_that_links_to_the_old_one() {
    let (delivery, context) = (delivery_ref(2), context());
    let told = Told::of_delivery(&delivery, &context);
    let span = span::fan_out(&told, 1, (at(1), at(2)));
    assert_eq!(span.parent, None);
    let original = Place::of(delivery.event, &context, 0);
    assert_ne!(span.trace, original.trace);
    assert_eq!(
        (span.links[0].trace, span.links[0].span),
        (original.trace, SpanId::fan_out(delivery.event, 0))
    );
    let below = span::delivery(&delivery, &context, (at(2), at(3)));
    assert_eq!((below.parent, below.trace), (Some(span.id), span.trace));
}

#[test]
fn tls_is_an_event_of_its_own() {
    let after = |millis| Some(Duration::from_millis(millis));
    let over_tls = Moments { tcp: after(1), connected: after(3), ..Moments::default() };
    let clear = Moments { connected: after(2), ..Moments::default() };
    let broken = Moments { tcp: after(1), ..Moments::default() };
    for (moments, expected) in [
        (over_tls, &[("connect", at(101)), ("tls", at(103))][..]),
        (clear, &[("connect", at(102))]),
        (broken, &[("connect", at(101))]),
    ] {
        let made = made(1, Outcome::Failed(Fault::TimedOut));
        let span = span::attempt(&made, &context(), None, &moments);
        assert_eq!(span.events, expected);
    }
}

#[test]
fn a_connection_that_the_request_did_not_go_over_is_not_told() {
    let after = |millis| Some(Duration::from_millis(millis));
    let sent = Moments { sent: after(4), first_byte: after(9), ..Moments::default() };
    let kept = &[("request sent", at(104)), ("first byte", at(109))][..];
    for (connected, is_own) in
        [(after(3), true), (after(4), true), (after(5), false), (None, false)]
    {
        let moments = Moments { dns: after(1), tcp: after(2), connected, ..sent };
        let made = made(1, Outcome::Failed(Fault::TimedOut));
        let span = span::attempt(&made, &context(), None, &moments);
        let names: Vec<_> = span.events.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.contains(&"dns"), is_own, "{connected:?}");
        assert_eq!(names.contains(&"tls"), is_own, "{connected:?}");
        assert_eq!(moments.timing().connect.is_some(), is_own, "{connected:?}");
        assert!(span.events.ends_with(kept), "{:?}", span.events);
        assert!(is_own || span.events == kept, "{:?}", span.events);
    }
}

#[test]
fn a_trial_is_below_the_request_that_asked_for_it() {
    let (made, none) = (made(1, Outcome::Accepted { status: 200 }), TraceContext::default());
    let span = span::trial(&made, &context(), &Moments::default());
    assert_eq!(span.parent.map(|id| id.to_string()).as_deref(), Some("b7ad6b7169203331"));
    assert!(span.parent_is_remote && value(&span, "fanfare.conclusion").is_none());
    assert_eq!(span::trial(&made, &none, &Moments::default()).parent, None);
}

#[test]
fn urls_are_taken_apart() {
    for (url, shown, host, port) in [
        ("http://127.0.0.1:80/", "http://127.0.0.1:80/", "127.0.0.1", 80),
        ("https://a.example/b/c?d=e", "https://a.example/b/c", "a.example", 443),
        ("http://[::1]:8080/x", "http://[::1]:8080/x", "::1", 8080),
        ("http://[::1]/x#y", "http://[::1]/x", "::1", 80),
        ("https://u:p@h/", "https://h/", "h", 443),
    ] {
        assert_eq!(span::address(url), Some((String::from(shown), host, port)), "{url}");
    }
    for none in ["", "ftp://a/", "https://", "https://a:x/"] {
        assert_eq!(span::address(none), None, "{none}");
    }
}
