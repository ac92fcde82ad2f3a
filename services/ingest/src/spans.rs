//! Tells a collector which events were taken in.

use std::sync::Arc;

use fanfare_domain::{
    Event, SpanId, Timestamp,
    trace::span::{self, Told},
};
use fanfare_service::{Clock, Traces};
use tracing::debug;

/// Tells of events that are stored. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spans {
    traces: Traces,
    clock: Arc<dyn Clock>,
}

impl Spans {
    /// Tells where spans go, by this clock.
    pub(crate) fn new(traces: Traces, clock: Arc<dyn Clock>) -> Self {
        Self { traces, clock }
    }

    /// The present instant, from which on something is in hand.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Tells that an event is stored which was in hand since then.
    pub(crate) fn stored(&self, event: &Event, since: Timestamp) {
        let told = Told::of(event);
        debug!(
            tenant_id = %event.tenant,
            event_id = %event.id,
            event_type = event.event_type.as_str(),
            trace_id = %told.place().trace,
            span_id = %SpanId::ingest(event.id),
            "an event was taken in"
        );
        if self.traces.samples(&told.place()) {
            self.traces.export(|| span::ingest(&told, (since, self.now())));
        }
    }
}
