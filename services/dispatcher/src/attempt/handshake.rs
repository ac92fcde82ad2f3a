//! Asking an endpoint whether it may be sent to (CloudEvents, HTTP 1.1 Web Hooks for Event Delivery,
//! section 4): one request, which carries no event and leaves nothing behind.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_domain::{DeliveryId, Record, StoredEvent, Target, retry::Policy};
use fanfare_egress::Wanted;
use fanfare_event_log::Trial;
use http::{HeaderName, HeaderValue, Method};

use super::{
    Desk, Job,
    exchange::exchange,
    facts::{Made, Reply},
    trial::{CHANGED, UNUSABLE, guarded, refusal, unusable},
};
use crate::{registry::Permission, task_event::TaskEvent};

const ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const RATE: HeaderName = HeaderName::from_static("webhook-request-rate");

/// Asks; what came of it is told as an attempt.
pub(super) async fn make(
    desk: &Arc<Desk>,
    trial: &Trial,
    origin: &str,
) -> Result<Record, &'static str> {
    guarded(desk).await?;
    let now = desk.now();
    let permission = desk.guard.view().read(|registry| registry.permit_question(trial.endpoint));
    let (endpoint, revision, profile) = match permission {
        Permission::Go { endpoint, revision, profile } => (endpoint, revision, profile),
        Permission::Hold => return Err(CHANGED),
        Permission::Cancelled(reason) => return Err(refusal(reason)),
    };
    let ready = desk.readying.ready(trial.endpoint, &endpoint, (revision, &profile, now));
    let ready = ready.map_err(|unready| unusable(trial, &unready))?;
    let mut headers = ready.headers(2);
    headers.insert(ORIGIN, HeaderValue::try_from(origin).map_err(|_| UNUSABLE)?);
    if let Some(limit) = endpoint.unpack().rate_limit {
        // Of less than one in a minute, one is asked for.
        let per_minute = 60_000 / limit.interval().as_millis().clamp(1, 60_000);
        let per_minute = u64::try_from(per_minute).unwrap_or(u64::MAX);
        headers.insert(RATE, HeaderValue::from(per_minute));
    }
    let request = fanfare_egress::Request {
        method: Method::OPTIONS,
        url: ready.url.clone(),
        headers,
        body: Bytes::new(),
        deadline: ready.timeout,
        identity: ready.identity.clone(),
    };
    let holder = Arc::clone(desk);
    let wanted: Wanted = Arc::new(move || holder.guard.is_held());
    let exchanged = exchange(&desk.client, &ready, request, wanted).await.ok_or(CHANGED)?;
    let (outcome, detail) = exchanged.judge(&ready.profile, desk.now());
    let stored = StoredEvent { accepted_at: now, ..trial.event.clone() };
    let memory = Arc::new(desk.memory.count(0));
    let event = Arc::new(TaskEvent::new(stored, memory));
    let delivery = DeliveryId::of(event.event().id, trial.endpoint, 0);
    let target = Target { delivery, endpoint: trial.endpoint, not_before: None };
    let trace = event.trace().clone();
    let made = Made {
        job: Job::first(event.delivery(&target, 0), None, event),
        now,
        revision,
        outcome,
        detail,
        url: Arc::clone(&ready.url_text),
        signature: String::new(),
        reply: Some(Reply::of(exchanged, &ready)),
        batch: None,
        trace_sampled: None,
    };
    let ended_at = desk.now();
    let facts = made.conclude(&Policy::from_delays(Vec::new()), ended_at, ended_at);
    let fact = facts.into_iter().next().ok_or(UNUSABLE)?;
    Ok(Record { recorded_at: ended_at, trace, fact })
}
