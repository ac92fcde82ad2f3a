//! Spans of requests to us, by `tracing` and `tracing-opentelemetry`.
//!
//! Only spans of the target [`TARGET`] are exported, and nothing that is logged inside them: a log
//! line may say what a trace must not.

use std::time::Duration;

use fanfare_domain::{SpanId, TraceContext, TraceId};
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState, TracerProvider as _},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanProcessor},
};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, filter_fn},
    registry::LookupSpan,
};

use super::{Item, Traces, convert};

/// The target of spans that are exported.
pub const TARGET: &str = "fanfare::traced";

/// Puts finished spans into the queue.
struct Queued(Traces);

/// Says nothing of what it holds.
impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queued")
    }
}

impl SpanProcessor for Queued {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.offer(1, || Item::Own(Box::new(span)));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Traces {
    /// Returns what hears of spans; `None` if nothing is exported. The sampler is the one that the
    /// standard variables name, as it is for events.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        self.0.as_ref()?;
        let provider =
            SdkTracerProvider::builder().with_span_processor(Queued(self.clone())).build();
        let tracer = provider.tracer_with_scope(convert::scope());
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false);
        let wanted = filter_fn(|said| said.is_span() && said.target() == TARGET);
        // What is below is not asked about each time it might be said.
        Some(layer.with_filter(wanted.with_max_level_hint(LevelFilter::INFO)))
    }
}

/// Says of a span what a collector is told and no line of the log repeats.
pub fn describe(span: &Span, name: &'static str, value: impl Into<Value>) {
    span.set_attribute(name, value);
}

/// Links a span to the one that a request said it came from, where that does not count: so whoever
/// looks at either finds the other.
pub fn link_to(span: &Span, named: &TraceContext) {
    if let Some(named) = remote(named) {
        span.add_link_with_attributes(
            named,
            vec![KeyValue::new("fanfare.link", "named_by_caller")],
        );
    }
}

/// The span that a context names.
fn remote(context: &TraceContext) -> Option<SpanContext> {
    let (trace, span, sampled) = context.parts()?;
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let trace = opentelemetry::TraceId::from_bytes(*trace.as_bytes());
    let span = opentelemetry::SpanId::from_bytes(*span.as_bytes());
    let state: TraceState = context.tracestate.parse().unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// Puts a span below the one that a request came from. Returns the context of the span, for whoever
/// is asked next: what came with the request, if nothing is exported.
pub fn continue_from(span: &Span, came_with: TraceContext) -> TraceContext {
    if let Some(above) = remote(&came_with) {
        let _not_exported = span.set_parent(Context::new().with_remote_span_context(above));
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    if !own.is_valid() {
        return came_with;
    }
    let trace = TraceId::from_bytes(own.trace_id().to_bytes());
    let id = SpanId::from_bytes(own.span_id().to_bytes());
    TraceContext {
        tracestate: came_with.tracestate,
        ..TraceContext::of(trace, id, own.is_sampled())
    }
}
