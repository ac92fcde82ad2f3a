//! Tells a collector which events were matched, and which deliveries came of them.
//!
//! What is told waits for the collector, however long that takes: nothing of it holds an event's data.

use std::{iter, sync::Arc};

use fanfare_domain::{
    DeliveryId, DeliveryRef, EndpointId, EventId, EventType, SpanId, StoredEvent, TenantId,
    Timestamp, TraceContext,
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
    about: About,
    /// Whom it is written for.
    targets: Vec<EndpointId>,
    /// How many deliveries it has, those among them that are not written.
    deliveries: usize,
    since: Timestamp,
}

/// What spans say of an event.
struct About {
    event: EventId,
    sequence: u64,
    tenant: TenantId,
    event_type: EventType,
    context: TraceContext,
    accepted_at: Timestamp,
    generation: u32,
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
            about: About::of(event, generation),
            targets: targets.to_vec(),
            deliveries: targets.len() + fed,
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
        let Self { about, targets, deliveries, since } = self;
        let times = (since, now);
        let (mut matching, mut targets) = (Some(deliveries), targets.into_iter());
        iter::from_fn(move || {
            if let Some(deliveries) = matching.take() {
                return Some(span::fan_out(&about.told(), deliveries, times));
            }
            let delivery = about.delivery(targets.next()?);
            Some(span::delivery(&delivery, &about.context, times))
        })
    }
}

impl About {
    fn of(stored: &StoredEvent, generation: u32) -> Self {
        let event = &stored.event;
        Self {
            event: event.id,
            sequence: stored.sequence,
            tenant: event.tenant.clone(),
            event_type: event.event_type.clone(),
            context: event.trace.clone(),
            accepted_at: stored.accepted_at,
            generation,
        }
    }

    fn told(&self) -> Told<'_> {
        let Self { event, tenant, event_type, context, generation, .. } = self;
        Told { event: *event, tenant, event_type, context, generation: *generation }
    }

    fn delivery(&self, endpoint: EndpointId) -> DeliveryRef {
        DeliveryRef {
            id: DeliveryId::of(self.event, endpoint, self.generation),
            tenant: self.tenant.clone(),
            event: self.event,
            event_sequence: self.sequence,
            event_type: self.event_type.clone(),
            endpoint,
            generation: self.generation,
            accepted_at: self.accepted_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_domain::Event;
    use fanfare_service::{SystemClock, install_crypto_provider};
    use fanfare_testkit::delivery_of;

    use super::*;

    fn event() -> StoredEvent {
        let envelope = vec![b'7'; 100_000];
        let event = Event {
            id: EventId::new(Timestamp::from_millis(1), [1; 10]),
            tenant: "acme".parse().unwrap(),
            event_type: "a.b".parse().unwrap(),
            occurred_at: Timestamp::EPOCH,
            accepted_at: None,
            config_revision: None,
            data: envelope.clone().into(),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        let (event, accepted_at) = (Arc::new(event), Timestamp::from_millis(5));
        StoredEvent { event, sequence: 7, accepted_at, envelope: envelope.into() }
    }

    fn endpoint(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 16])
    }

    #[tokio::test]
    async fn what_waits_for_a_collector_does_not_hold_the_event() {
        install_crypto_provider();
        // The exporter is never run: it is as if the collector did not answer.
        let (traces, exporter) = Traces::to("http://127.0.0.1:9/v1/traces", "some").unwrap();
        let spans = Spans::new(traces, Arc::new(SystemClock));
        let event = event();
        let targets = [endpoint(1), endpoint(2)];
        let routed = spans.routed(&event, (&targets, 0), (0, Timestamp::EPOCH));
        assert!(routed.is_some(), "everything is sampled");
        spans.written(routed);
        assert!(event.envelope.is_unique(), "the envelope is let go");
        let event = Arc::into_inner(event.event).expect("nobody else holds the event");
        assert!(event.data.is_unique(), "the data is let go");
        drop(exporter);
    }

    #[test]
    fn the_spans_are_those_of_the_matching_and_of_each_delivery() {
        let (stored, now) = (event(), Timestamp::from_millis(9));
        for generation in [0, 3] {
            let times = (Timestamp::from_millis(8), now);
            let routed = Routed {
                about: About::of(&stored, generation),
                targets: vec![endpoint(1), endpoint(2)],
                deliveries: 5,
                since: times.0,
            };
            let told = Told { generation, ..Told::of(&stored.event) };
            let delivery = |endpoint| {
                let delivery = delivery_of(&stored, endpoint, generation);
                span::delivery(&delivery, &stored.event.trace, times)
            };
            let expected =
                [span::fan_out(&told, 5, times), delivery(endpoint(1)), delivery(endpoint(2))];
            assert_eq!(routed.spans(now).collect::<Vec<_>>(), expected);
        }
    }
}
