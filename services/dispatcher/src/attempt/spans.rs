//! Where attempts stand in the traces of their events: what requests say of it, and what a collector
//! is told.

use fanfare_domain::{
    Conclusion, DeliveryRef, Fact, Outcome, Place, SpanId, Timestamp, TraceContext,
    fact::AttemptMade,
    trace::span::{self, Moments},
};
use fanfare_service::delivery_line;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Desk;
use crate::runtime::Ready;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

impl Desk {
    /// Says in a request which attempt it is, if its endpoint wants that and the event is traced, by
    /// its producer or by us; returns what it says of whether the trace is sampled.
    pub(super) fn say_trace(
        &self,
        (ready, context): (&Ready, &TraceContext),
        (delivery, attempt): (&DeliveryRef, u32),
        headers: &mut HeaderMap,
    ) -> Option<bool> {
        if !ready.trace_context || (context.is_empty() && !self.traces.is_on()) {
            return None;
        }
        let place = Place::of(delivery.event, context, delivery.generation);
        let sampled = if self.traces.is_on() {
            self.traces.samples(&place)
        } else {
            place.sampled.unwrap_or(false)
        };
        let about = (delivery.id, delivery.generation);
        let said = context.of_attempt(delivery.event, about, (attempt, sampled));
        for (name, value) in [(TRACEPARENT, said.traceparent), (TRACESTATE, said.tracestate)] {
            let value = HeaderValue::try_from(value).ok().filter(|value| !value.is_empty());
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        Some(sampled)
    }

    /// Tells of an attempt, if there is one among the facts: of each that failed, and of others where
    /// their trace is sampled.
    pub(super) fn tell(&self, facts: &[Fact], context: &TraceContext, moments: &Moments) {
        let Some(made) = facts.iter().find_map(Fact::attempt_made) else { return };
        let conclusion = conclusion(facts);
        log((made, context), conclusion, "an attempt was made");
        if self.wants(made, context) {
            self.traces.export(|| span::attempt(made, context, conclusion, moments));
        }
    }

    /// Tells of the attempt of a trial in the same way: it is below the request that asked for it,
    /// since there is no delivery.
    pub(super) fn tell_trial(&self, facts: &[Fact], context: &TraceContext, moments: &Moments) {
        let Some(made) = facts.iter().find_map(Fact::attempt_made) else { return };
        log((made, context), None, "an endpoint was tried");
        if self.wants(made, context) {
            self.traces.export(|| span::trial(made, context, moments));
        }
    }

    /// Tells whether the span of an attempt is exported.
    fn wants(&self, made: &AttemptMade, context: &TraceContext) -> bool {
        let place = || Place::of(made.delivery.event, context, made.delivery.generation);
        let is_accepted = matches!(made.outcome, Outcome::Accepted { .. });
        self.traces.is_on() && (!is_accepted || self.traces.samples(&place()))
    }

    /// Tells of a delivery that is taken from a feed, as fan-out tells of others.
    pub(crate) fn tell_fed(&self, delivery: &DeliveryRef, context: &TraceContext, now: Timestamp) {
        let place = Place::of(delivery.event, context, delivery.generation);
        if self.traces.samples(&place) {
            self.traces.export(|| span::delivery(delivery, context, (now, now)));
        }
    }
}

fn conclusion(facts: &[Fact]) -> Option<Conclusion> {
    facts.iter().find_map(|fact| match fact {
        Fact::DeliveryConcluded(concluded) => Some(concluded.conclusion),
        Fact::ShardClaimed(_)
        | Fact::ShardReleased(_)
        | Fact::AttemptMade(_)
        | Fact::DeliveryDeferred(_)
        | Fact::DeliveryParked(_)
        | Fact::RetryScheduled(_)
        | Fact::EventRouted(_) => None,
    })
}

fn log(
    (made, context): (&AttemptMade, &TraceContext),
    conclusion: Option<Conclusion>,
    what: &'static str,
) {
    let (outcome, fault) = match &made.outcome {
        Outcome::Accepted { .. } => ("accepted", None),
        Outcome::Refused { .. } => ("refused", None),
        Outcome::Failed(fault) => ("failed", Some(fault.as_str())),
    };
    delivery_line!(
        debug, (made.delivery, *context), "{what}",
        attempt = made.attempt,
        span_id = %SpanId::attempt(made.delivery.id, made.attempt),
        outcome,
        fault,
        status = made.outcome.status(),
        duration_ms = made.duration.as_millis(),
        conclusion = conclusion.map(Conclusion::as_str),
    );
}
