//! What goes on record about an attempt.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    Conclusion, DeliveryRef, Fact, Fault, Outcome, SpanId, Timestamp,
    fact::{AttemptMade, ConclusionReason, DeliveryConcluded, InBatch, Timing},
    retry::{Judged, Policy, Verdict},
};
use fanfare_service::delivery_line;

use super::{Desk, Job, Looked, exchange::Exchanged};
use crate::runtime::{Ready, Unready};

/// How many bytes of an answer's headers are kept.
const HEADERS_KEPT_MAX: usize = 8 << 10;

/// How much of the answer's body each delivery of a batch keeps but the first, which keeps all.
const EXCERPT_MAX: usize = 256;

/// What is known of an attempt before it is judged.
pub(super) struct Made {
    pub(super) job: Job,
    pub(super) now: Timestamp,
    pub(super) revision: u64,
    pub(super) outcome: Outcome,
    pub(super) detail: Cow<'static, str>,
    pub(super) url: Arc<str>,
    pub(super) signature: String,
    pub(super) reply: Option<Reply>,
    pub(super) batch: Option<InBatch>,
    pub(super) trace_sampled: Option<bool>,
}

/// What is kept of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    headers: Vec<(String, Bytes)>,
    body: Bytes,
    truncated: bool,
    duration: Duration,
    timing: Timing,
}

impl Reply {
    /// Keeps what is kept of an answer of an endpoint.
    pub(super) fn of(exchanged: Exchanged, ready: &Ready) -> Self {
        let Exchanged { answer, token, .. } = exchanged;
        let conceal = |said| ready.conceal(said, token.as_deref());
        let headers = answer.result.as_ref().map(|head| head.pairs(HEADERS_KEPT_MAX));
        let headers = headers.unwrap_or_default().into_iter();
        Self {
            headers: headers.map(|(name, value)| (name, conceal(value))).collect(),
            body: conceal(answer.body),
            truncated: answer.truncated,
            duration: answer.duration,
            timing: answer.moments.timing(),
        }
    }

    /// Returns the beginning of it. A thousand deliveries of a batch keep a thousand of these.
    pub(super) fn excerpt(&self) -> Self {
        let length = self.body.len().min(EXCERPT_MAX);
        Self {
            headers: Vec::new(),
            body: self.body.slice(..length),
            truncated: self.truncated || length < self.body.len(),
            duration: self.duration,
            timing: self.timing,
        }
    }
}

impl Made {
    /// The facts about the attempt: that it was made, and its delivery's end if it was the last.
    pub(super) fn conclude(
        self,
        policy: &Policy,
        ended_at: Timestamp,
        give_up_at: Timestamp,
    ) -> Vec<Fact> {
        let Self { job, now, revision, outcome, detail, url, .. } = self;
        let Self { signature, reply, batch, trace_sampled, .. } = self;
        let Job { delivery, attempt, .. } = job;
        let judged = Judged {
            delivery: delivery.id,
            batch: batch.map(|batch| batch.id),
            attempt,
            outcome: &outcome,
            ended_at,
            give_up_at,
        };
        let verdict = policy.judge(&judged);
        let retry_at = match verdict {
            Verdict::RetryAt(due) => Some(due),
            Verdict::Delivered | Verdict::GiveUp(_) => None,
        };
        let ending = verdict.conclusion().map(|it| concluded(delivery.clone(), attempt, it));
        let Reply { headers, body, truncated, duration, timing } = reply.unwrap_or_default();
        let made = Fact::AttemptMade(Box::new(AttemptMade {
            delivery,
            attempt,
            started_at: now,
            duration,
            timing,
            outcome,
            detail: detail.into_owned(),
            config_revision: revision,
            url,
            signature,
            response_headers: headers,
            response_body: body,
            response_truncated: truncated,
            retry_at,
            batch,
            trace_sampled,
        }));
        std::iter::once(made).chain(ending).collect()
    }
}

/// The facts about an attempt that the endpoint's configuration makes impossible.
pub(super) fn unsendable(
    desk: &Desk,
    job: Job,
    (profile, revision, now): Looked<'_>,
    unready: &Unready,
) -> Vec<Fact> {
    delivery_line!(
        warn, (job.delivery, job.trace()), "an endpoint's configuration cannot be used",
        error = unready as &dyn std::error::Error,
        attempt = job.attempt,
        span_id = %SpanId::attempt(job.delivery.id, job.attempt),
    );
    let default = desk.readying.profile("");
    let profile = desk.readying.profile(profile).or(default);
    let policy = profile.map_or_else(|| Policy::from_delays(Vec::new()), |it| it.retry.clone());
    let give_up_at = policy.give_up_at(job.delivery.accepted_at, desk.retention);
    let made = Made {
        job,
        now,
        revision,
        outcome: Outcome::Failed(Fault::RequestInvalid),
        detail: Cow::Owned(unready.to_string()),
        url: Arc::from(""),
        signature: String::new(),
        reply: None,
        batch: None,
        trace_sampled: None,
    };
    made.conclude(&policy, now, give_up_at)
}

/// The end of a delivery that was cancelled.
pub(super) fn cancelled(job: Job, reason: ConclusionReason) -> Fact {
    let ending = (Conclusion::Cancelled, reason);
    concluded(job.delivery, job.attempt.saturating_sub(1), ending)
}

/// The end of a delivery whose time ran out before this attempt.
pub(super) fn expired(job: Job) -> Fact {
    let attempts = job.attempt.saturating_sub(1);
    concluded(job.delivery, attempts, (Conclusion::Exhausted, ConclusionReason::Expired))
}

/// The end of a delivery.
pub(super) fn concluded(
    delivery: DeliveryRef,
    attempts: u32,
    (conclusion, reason): (Conclusion, ConclusionReason),
) -> Fact {
    Fact::DeliveryConcluded(DeliveryConcluded { delivery, conclusion, attempts, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_says_that_it_is_one() {
        let reply = |length: usize, truncated| Reply {
            headers: vec![(String::from("server"), Bytes::from_static(b"x"))],
            body: Bytes::from(vec![b'x'; length]),
            truncated,
            duration: Duration::from_millis(3),
            timing: Timing { connect: None, first_byte: Some(Duration::from_millis(2)) },
        };
        for (length, truncated, kept, expected) in [
            (0, false, 0, false),
            (EXCERPT_MAX, false, EXCERPT_MAX, false),
            (EXCERPT_MAX, true, EXCERPT_MAX, true),
            (EXCERPT_MAX + 1, false, EXCERPT_MAX, true),
        ] {
            let excerpt = reply(length, truncated).excerpt();
            assert_eq!((excerpt.body.len(), excerpt.truncated), (kept, expected), "{length}");
            assert!(excerpt.headers.is_empty());
            assert_eq!(excerpt.duration, Duration::from_millis(3));
            assert_eq!(excerpt.timing.first_byte, Some(Duration::from_millis(2)));
        }
    }
}
