//! Trying an endpoint with a sample event: one request as any other, which leaves nothing behind.

use std::{borrow::Cow, sync::Arc, time::Duration};

use fanfare_domain::{
    DeliveryId, Fault, Outcome, Record, StoredEvent, Target, fact::ConclusionReason, retry::Policy,
    trace::span::Moments,
};
use fanfare_event_log::Trial;
use tokio::time::timeout;

use super::{
    Desk, Job, build,
    exchange::exchange,
    facts::{Made, Reply},
    handshake,
};
use crate::{registry::Permission, runtime::Unready, task_event::TaskEvent};

/// How long it may take until a request may be sent: who asks waits some seconds longer than for the
/// request, and nobody is to be sent a sample that nobody waits for.
const GUARDED_WITHIN: Duration = Duration::from_millis(1_500);

/// Why there is no attempt: stable names.
const PAUSED: &str = "endpoint_paused";
pub(super) const UNUSABLE: &str = "endpoint_unusable";
pub(super) const CHANGED: &str = "endpoint_changed";

/// What is said where too many are being tried.
pub(crate) const BUSY: &str = "busy";

/// Makes the request, and answers.
pub(crate) async fn make(desk: Arc<Desk>, trial: Trial) {
    let made = match &trial.handshake {
        Some(origin) => handshake::make(&desk, &trial, origin).await,
        None => attempt(&desk, &trial).await,
    };
    match made {
        Ok(record) => trial.answer(&record).await,
        Err(reason) => trial.refuse(reason).await,
    }
}

/// Waits until a request may be sent, as far as it is up to us.
pub(super) async fn guarded(desk: &Desk) -> Result<(), &'static str> {
    let guarded = async {
        desk.guard.view_confirmed().await;
        desk.guard.held().await;
    };
    timeout(GUARDED_WITHIN, guarded).await.map_err(|_| BUSY)
}

/// Tells of an endpoint that cannot be sent to.
pub(super) fn unusable(trial: &Trial, unready: &Unready) -> &'static str {
    tracing::warn!(
        error = unready as &dyn std::error::Error,
        tenant_id = %trial.event.event.tenant,
        endpoint_id = %trial.endpoint,
        trace_id = trial.event.event.trace.trace_id(),
        "an endpoint cannot be tried"
    );
    UNUSABLE
}

async fn attempt(desk: &Arc<Desk>, trial: &Trial) -> Result<Record, &'static str> {
    guarded(desk).await?;
    let now = desk.now();
    let stored = StoredEvent { accepted_at: now, ..trial.event.clone() };
    let memory = Arc::new(desk.memory.count(stored.event.data.len()));
    let event = Arc::new(TaskEvent::new(stored, memory));
    let delivery = DeliveryId::of(event.event().id, trial.endpoint, 0);
    let target = Target { delivery, endpoint: trial.endpoint, not_before: None };
    let job = Job::first(event.delivery(&target, 0), None, Arc::clone(&event));
    let (endpoint, revision, profile) = match desk.permit(&job.delivery) {
        Permission::Go { endpoint, revision, profile } => (endpoint, revision, profile),
        Permission::Hold => return Err(PAUSED),
        Permission::Cancelled(reason) => return Err(refusal(reason)),
    };
    let ready = desk.readying.ready(trial.endpoint, &endpoint, (revision, &profile, now));
    let ready = ready.map_err(|unready| unusable(trial, &unready))?;
    let trace = event.trace().clone();
    let mut moments = Moments::default();
    let mut made = Made {
        job,
        now,
        revision,
        outcome: Outcome::Failed(Fault::RequestInvalid),
        detail: Cow::Borrowed(""),
        url: Arc::clone(&ready.url_text),
        signature: String::new(),
        reply: None,
        batch: None,
        trace_sampled: None,
    };
    match build(&ready, &event, delivery, (1, now)) {
        Ok((mut request, signature)) => {
            made.signature = signature;
            let about = (&made.job.delivery, 1);
            made.trace_sampled = desk.say_trace((&ready, &trace), about, &mut request.headers);
            let wanted = desk.wanted(&made.job.delivery);
            let exchanged = exchange(&desk.client, &ready, request, wanted).await.ok_or(CHANGED)?;
            (made.outcome, made.detail) = exchanged.judge(&ready.profile, desk.now());
            moments = exchanged.answer.moments;
            made.reply = Some(Reply::of(exchanged, &ready));
        }
        Err(detail) => made.detail = Cow::Owned(detail),
    }
    let once = Policy::from_delays(Vec::new());
    let ended_at = desk.now();
    let facts = made.conclude(&once, ended_at, ended_at);
    desk.tell_trial(&facts, &trace, &moments);
    let fact = facts.into_iter().next().ok_or(UNUSABLE)?;
    Ok(Record { recorded_at: ended_at, trace, fact })
}

pub(super) const fn refusal(reason: ConclusionReason) -> &'static str {
    match reason {
        ConclusionReason::EndpointDeleted => "endpoint_deleted",
        ConclusionReason::EndpointDisabled => "endpoint_disabled",
        ConclusionReason::EndpointPaused => PAUSED,
        ConclusionReason::Outcome
        | ConclusionReason::AttemptsSpent
        | ConclusionReason::Expired
        | ConclusionReason::ByHand
        | ConclusionReason::EventGone => CHANGED,
    }
}
