//! Spans as OpenTelemetry's exporters take them.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_domain::{
    SpanId, Timestamp, TraceId,
    trace::span::{Kind, Link, SEMCONV, Span, Value},
};
use opentelemetry::{
    InstrumentationScope, KeyValue, StringValue, Value as Said,
    trace::{Event, Link as SpanLink, SpanContext, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// Where the names of attributes are explained.
static SCHEMA: LazyLock<String> =
    LazyLock::new(|| format!("https://opentelemetry.io/schemas/{SEMCONV}"));

/// Who says it. Each span gets a copy: all of it is static, so that this costs nothing.
static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("fanfare")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA.as_str())
        .build()
});

/// Who says it.
pub(super) fn scope() -> InstrumentationScope {
    SCOPE.clone()
}

/// Returns a span as it is sent.
pub(super) fn of(span: Span) -> SpanData {
    let state = match span.tracestate.as_str() {
        "" => TraceState::NONE,
        state => state.parse().unwrap_or_default(),
    };
    let mut events = SpanEvents::default();
    events.events = span
        .events
        .into_iter()
        .map(|(name, at)| Event::new(name, time(at), Vec::new(), 0))
        .collect();
    let mut links = SpanLinks::default();
    links.links = span.links.iter().map(link).collect();
    let parent = span.parent.map_or(opentelemetry::SpanId::INVALID, span_id);
    SpanData {
        span_context: context((span.trace, span.id), state),
        parent_span_id: parent,
        parent_span_is_remote: span.parent_is_remote,
        span_kind: match span.kind {
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
            Kind::Client => SpanKind::Client,
        },
        name: span.name.into(),
        start_time: time(span.start),
        end_time: time(span.end),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events,
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope(),
    }
}

fn link(link: &Link) -> SpanLink {
    let context = context((link.trace, link.span), TraceState::default());
    SpanLink::new(context, vec![KeyValue::new("fanfare.link", link.relation)], 0)
}

/// Whatever is exported counts as sampled.
fn context((trace, span): (TraceId, SpanId), state: TraceState) -> SpanContext {
    let trace = opentelemetry::TraceId::from_bytes(*trace.as_bytes());
    SpanContext::new(trace, span_id(span), TraceFlags::SAMPLED, false, state)
}

fn span_id(span: SpanId) -> opentelemetry::SpanId {
    opentelemetry::SpanId::from_bytes(*span.as_bytes())
}

fn time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(at.as_nanos())
}

fn attribute((name, value): (&'static str, Value)) -> KeyValue {
    let value = match value {
        Value::Name(name) => Said::String(StringValue::from(name)),
        Value::Text(text) => Said::String(StringValue::from(text)),
        Value::Shared(text) => Said::String(StringValue::from(text)),
        Value::Number(number) => Said::I64(number),
    };
    KeyValue::new(name, value)
}
