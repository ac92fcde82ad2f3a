//! Where attempts stand in the traces of their events: what requests say of it, and what a collector
//! is told.

use fanfare_domain::{
    DeliveryRef, Fact, Outcome, Place, SpanId, Timestamp, TraceContext,
    fact::AttemptMade,
    trace::span::{self, Moments},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::debug;

use super::Desk;
use crate::runtime::Ready;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

impl Desk {
    /// Says in a request which attempt it is, if its endpoint wants that and the event is traced, by
    /// its producer or by us.
    pub(super) fn say_trace(
        &self,
        (ready, context): (&Ready, &TraceContext),
        (delivery, attempt): (&DeliveryRef, u32),
        headers: &mut HeaderMap,
    ) {
        if !ready.trace_context || (context.is_empty() && !self.traces.is_on()) {
            return;
        }
        let place = Place::of(delivery.event, context, delivery.generation);
        let sampled = if self.traces.is_on() {
            self.traces.samples(&place)
        } else {
            place.sampled.unwrap_or(false)
        };
        let span = SpanId::attempt(delivery.id, attempt);
        let said = TraceContext::of(place.trace, span, sampled);
        if let Ok(value) = HeaderValue::try_from(said.traceparent) {
            headers.insert(TRACEPARENT, value);
        }
        // A replay's trace is our own, and nobody has said anything about its state.
        let state = HeaderValue::try_from(context.tracestate.as_str()).ok();
        let state = state.filter(|state| !state.is_empty() && delivery.generation == 0);
        if let Some(state) = state {
            headers.insert(TRACESTATE, state);
        }
    }

    /// Tells of an attempt, if there is one among the facts: of each that failed, and of others where
    /// their trace is sampled.
    pub(super) fn tell(&self, facts: &[Fact], context: &TraceContext, moments: &Moments) {
        let made = facts.iter().find_map(Fact::attempt_made);
        let Some(made) = made else { return };
        log(made, context);
        if !self.traces.is_on() {
            return;
        }
        let place = Place::of(made.delivery.event, context, made.delivery.generation);
        let is_accepted = matches!(made.outcome, Outcome::Accepted { .. });
        if is_accepted && !self.traces.samples(&place) {
            return;
        }
        let conclusion = facts.iter().find_map(|fact| match fact {
            Fact::DeliveryConcluded(concluded) => Some(concluded.conclusion),
            Fact::ShardClaimed(_)
            | Fact::ShardReleased(_)
            | Fact::AttemptMade(_)
            | Fact::DeliveryDeferred(_)
            | Fact::DeliveryParked(_)
            | Fact::RetryScheduled(_)
            | Fact::EventRouted(_) => None,
        });
        self.traces.export(span::attempt(made, context, conclusion, moments));
    }

    /// Tells of a delivery that is taken from a feed, as fan-out tells of others.
    pub(crate) fn tell_fed(&self, delivery: &DeliveryRef, context: &TraceContext, now: Timestamp) {
        let place = Place::of(delivery.event, context, delivery.generation);
        if self.traces.samples(&place) {
            self.traces.export(span::delivery(delivery, context, (now, now)));
        }
    }
}

fn log(made: &AttemptMade, context: &TraceContext) {
    let AttemptMade { delivery, attempt, outcome, duration, .. } = made;
    debug!(
        tenant_id = %delivery.tenant,
        event_id = %delivery.event,
        endpoint_id = %delivery.endpoint,
        delivery_id = %delivery.id,
        attempt,
        ?outcome,
        ?duration,
        trace_id = %Place::of(delivery.event, context, delivery.generation).trace,
        span_id = %SpanId::attempt(delivery.id, *attempt),
        "an attempt was made",
    );
}
