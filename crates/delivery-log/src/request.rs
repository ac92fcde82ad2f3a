//! Requests as they were sent: from the event, the profile and what is kept of the attempt.
//!
//! Not among them are `host`, `content-length`, `user-agent` and the endpoint's own headers, which are
//! sealed in its configuration of that revision.

use std::sync::Arc;

use fanfare_domain::{
    Batch, DeliveryId, Event, Profile, Rendered, Request, Signer, batch::Fit, body::DataRefused,
    profile::Attempt,
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
