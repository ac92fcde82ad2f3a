//! Tells a collector which events were matched, and which deliveries came of them.

use std::{iter, sync::Arc};

use fanfare_domain::{
    DeliveryId, DeliveryRef, EndpointId, SpanId, StoredEvent, Timestamp,
    trace::span::{self, Span, Told},
};
use fanfare_service::{Clock, Traces};
use tracing::debug;

/// Tells of events and deliveries. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spans {
    traces: Traces,
    clock: Arc<dyn Clock>,
}

/// An event whose deliveries are being written.
pub(crate) struct Routed {
    event: StoredEvent,
    /// Whom it is written for.
    targets: Vec<EndpointId>,
    /// How many deliveries it has, those among them that are not written.
    deliveries: usize,
    generation: u32,
    since: Timestamp,
}

impl Spans {
    /// Tells where spans go, by this clock.
    pub(crate) fn new(traces: Traces, clock: Arc<dyn Clock>) -> Self {
        Self { traces, clock }
    }

    /// Notes an event that is matched at `since`, if it is to be told of; none if not. Beside its
    /// targets it has so many deliveries that come from feeds.
    pub(crate) fn routed(
        &self,
        event: &StoredEvent,
        (targets, fed): (&[EndpointId], usize),
        (generation, since): (u32, Timestamp),
    ) -> Option<Box<Routed>> {
        let told = Told { generation, ..Told::of(&event.event) };
        debug!(
            tenant_id = %event.event.tenant,
            event_id = %event.event.id,
            event_type = event.event.event_type.as_str(),
            trace_id = %told.place().trace,
            span_id = %SpanId::fan_out(event.event.id, generation),
            generation,
            deliveries = targets.len() + fed,
            "an event was matched"
        );
        let note = || Routed {
            event: event.clone(),
            targets: targets.to_vec(),
            deliveries: targets.len() + fed,
            generation,
            since,
        };
        self.traces.samples(&told.place()).then(|| Box::new(note()))
    }

    /// Tells that all of an event's deliveries are written.
    pub(crate) fn written(&self, routed: Option<Box<Routed>>) {
        let Some(routed) = routed else { return };
        let now = self.clock.now();
        self.traces.export_all(routed.targets.len() + 1, || routed.spans(now));
    }
}

impl Routed {
    /// The span of the matching, and then those of the deliveries.
    fn spans(self, now: Timestamp) -> impl Iterator<Item = Span> + Send {
        let Self { event, targets, deliveries, generation, since } = self;
        let (matched, times) = (event.clone(), (since, now));
        let matching = iter::once_with(move || {
            let told = Told { generation, ..Told::of(&matched.event) };
            span::fan_out(&told, deliveries, times)
        });
        let created = targets.into_iter().map(move |endpoint| {
            let delivery = delivery(&event, endpoint, generation);
            span::delivery(&delivery, &event.event.trace, times)
        });
        matching.chain(created)
    }
}

fn delivery(stored: &StoredEvent, endpoint: EndpointId, generation: u32) -> DeliveryRef {
    let event = &stored.event;
    DeliveryRef {
        id: DeliveryId::of(event.id, endpoint, generation),
        tenant: event.tenant.clone(),
        event: event.id,
        event_sequence: stored.sequence,
        event_type: event.event_type.clone(),
        endpoint,
        generation,
        accepted_at: stored.accepted_at,
    }
}
