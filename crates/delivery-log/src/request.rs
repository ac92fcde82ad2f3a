//! Requests as they were sent: from the event, the profile and what is kept of the attempt.
//!
//! Not among them are `host`, `content-length`, `user-agent` and the endpoint's own headers, which are
//! sealed in its configuration of that revision. What the request said of its trace is apart:
//! [`trace_as_sent`].

use std::sync::Arc;

use fanfare_domain::{
    Batch, DeliveryId, Event, Profile, Rendered, Request, Signer, TraceContext, batch::Fit,
    body::DataRefused, profile::Attempt,
};

use crate::rows::AttemptRow;

/// Rebuilds the request of an attempt that carried one event.
///
/// # Errors
///
/// If the profile does not take the event's data: then nothing was sent.
pub fn as_sent(
    profile: &Arc<Profile>,
    attempt: &AttemptRow,
    event: &Event,
) -> Result<Request, DataRefused> {
    let sent =
        Attempt { delivery: attempt.delivery, number: attempt.number, at: attempt.started_at };
    Ok(Rendered::new(profile, event)?.request_as_sent(&attempt.signature, &sent))
}

/// Rebuilds the request of an attempt that carried several events, in the order in which they were
/// in it: that of EVENTS. `None` if these are not the events of the batch, or the profile has none.
///
/// # Errors
///
/// If the profile does not take an event's data: then nothing was sent.
pub fn batch_as_sent(
    profile: &Arc<Profile>,
    attempt: &AttemptRow,
    events: &[(Arc<Event>, DeliveryId)],
) -> Result<Option<Request>, DataRefused> {
    let batch = batch(profile, attempt, events)?;
    Ok(batch.and_then(|batch| batch.request_as_sent(&attempt.signature)))
}

/// Rebuilds what the request of an attempt said of its trace, in the headers `traceparent` and
/// `tracestate`, from its events in their order, each with its delivery and what counts its replays.
/// `None` if it said nothing, or was sent before that was noted.
pub fn trace_as_sent<'a>(
    attempt: &AttemptRow,
    events: impl IntoIterator<Item = (&'a Event, (DeliveryId, u32))>,
) -> Option<TraceContext> {
    let sampled = attempt.trace_sampled?;
    let mut events = events.into_iter().peekable();
    let first = events.peek().copied();
    let traced = events.find(|(event, _)| !event.trace.is_empty());
    let (event, delivery) = traced.or(first)?;
    Some(event.trace.of_attempt(event.id, delivery, (attempt.number, sampled)))
}

/// Tells whether the request that is rebuilt is the one that was sent: whether these secrets give it
/// the signature on record. The events are those of the request, in its order; one, if the attempt
/// carried one.
///
/// # Errors
///
/// If the profile does not take an event's data: then nothing was sent.
pub fn is_signed_by(
    signer: &Signer,
    profile: &Arc<Profile>,
    attempt: &AttemptRow,
    events: &[(Arc<Event>, DeliveryId)],
) -> Result<bool, DataRefused> {
    let sent =
        Attempt { delivery: attempt.delivery, number: attempt.number, at: attempt.started_at };
    let request = match (attempt.batch, events) {
        (None, [(event, _)]) => Some(Rendered::new(profile, event)?.request(signer, &sent)),
        (None, _) => None,
        (Some(_), _) => batch(profile, attempt, events)?.and_then(|batch| batch.request(signer)),
    };
    Ok(request.is_some_and(|request| request.signature() == attempt.signature))
}

/// Puts the events of a batch together; `None` if these are not its events.
fn batch(
    profile: &Arc<Profile>,
    attempt: &AttemptRow,
    events: &[(Arc<Event>, DeliveryId)],
) -> Result<Option<Batch>, DataRefused> {
    let Some(mut batch) = Batch::new(profile, attempt.number, attempt.started_at) else {
        return Ok(None);
    };
    for (event, delivery) in events {
        match batch.add(event, *delivery)? {
            Fit::Added => {}
            Fit::TooLarge => return Ok(None),
        }
    }
    Ok(attempt.batch.is_some_and(|known| known.id == batch.id()).then_some(batch))
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{Fact, SpanId};

    use super::*;
    use crate::{
        fold::{
            self,
            tests::{delivery, made, stored},
        },
        rows::Place,
    };

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn row(number: u32, trace_sampled: Option<bool>) -> AttemptRow {
        let Fact::AttemptMade(made) = made(delivery(1, 1), number, 200) else {
            panic!("it is one")
        };
        AttemptRow { trace_sampled, ..fold::attempt(Place(1), &made) }
    }

    fn event(number: u8, parent: Option<&str>) -> Event {
        let trace = TraceContext::from_headers(parent, parent.map(|_| "a=b"));
        Event { trace, ..Event::clone(&stored(number).event) }
    }

    #[test]
    fn a_request_named_the_first_trace_that_its_events_came_with() {
        let (own, given) = (event(1, None), event(2, Some(PARENT)));
        let ids = [delivery(1, 1).id, delivery(2, 1).id];
        let both = [(&own, (ids[0], 0)), (&given, (ids[1], 0))];
        let said = trace_as_sent(&row(2, Some(true)), both).unwrap();
        let span = SpanId::attempt(ids[1], 2);
        assert_eq!(said.traceparent, format!("00-0af7651916cd43dd8448eb211c80319c-{span}-01"));
        assert_eq!(said.tracestate, "a=b");
        let alone = trace_as_sent(&row(1, Some(false)), [both[0]]).unwrap();
        let (trace, span, sampled) = alone.parts().unwrap();
        assert_eq!((trace.as_bytes(), sampled), (own.id.as_bytes(), false));
        assert_eq!(span, SpanId::attempt(ids[0], 1));
        assert_eq!(trace_as_sent(&row(1, None), both), None);
        assert_eq!(trace_as_sent(&row(1, Some(true)), []), None);
    }
}
