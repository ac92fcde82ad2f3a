//! Tells a collector which events were matched, and which deliveries came of them.

use std::sync::Arc;

use fanfare_domain::{
    DeliveryId, DeliveryRef, EndpointId, StoredEvent, Timestamp,
    trace::span::{self, Told},
};
use fanfare_service::{Clock, Traces};

/// Tells of events and deliveries. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spans {
    traces: Traces,
    clock: Arc<dyn Clock>,
}

/// An event whose deliveries are being written.
pub(crate) struct Routed {
    event: StoredEvent,
    targets: Vec<EndpointId>,
    generation: u32,
    since: Timestamp,
}

impl Spans {
    /// Tells where spans go, by this clock.
    pub(crate) fn new(traces: Traces, clock: Arc<dyn Clock>) -> Self {
        Self { traces, clock }
    }

    /// Notes an event that is matched at `since`, if it is to be told of; none if not.
    pub(crate) fn routed(
        &self,
        event: &StoredEvent,
        targets: &[EndpointId],
        (generation, since): (u32, Timestamp),
    ) -> Option<Box<Routed>> {
        let told = Told { generation, ..Told::of(&event.event) };
        let note = || Routed { event: event.clone(), targets: targets.to_vec(), generation, since };
        self.traces.samples(&told.place()).then(|| Box::new(note()))
    }

    /// Tells that all of an event's deliveries are written.
    pub(crate) fn written(&self, routed: Option<Box<Routed>>) {
        let Some(routed) = routed else { return };
        let Routed { event, targets, generation, since } = *routed;
        let (told, now) = (Told { generation, ..Told::of(&event.event) }, self.clock.now());
        self.traces.export(span::fan_out(&told, targets.len(), (since, now)));
        for endpoint in targets {
            let delivery = delivery(&event, endpoint, generation);
            self.traces.export(span::delivery(&delivery, &event.event.trace, (since, now)));
        }
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
