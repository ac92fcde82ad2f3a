//! Facts of the journal, for people and for programs.

use std::time::Duration;

use fanfare_domain::{
    Conclusion, DeliveryRef, EventId, Fact, Outcome, Record, TenantId, Timestamp,
    fact::{
        AttemptMade, ConclusionReason, DeferReason, DeliveryConcluded, DeliveryDeferred,
        EventRouted,
    },
};
use serde_json::{Map, Value, json};

use super::text::{clock, count, printable, span, span_until};
use crate::output::{Output, Tone};

/// A fact in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it was recorded.
    pub(crate) at: Timestamp,
    /// How good the news is.
    pub(crate) tone: Tone,
    /// What happened, in a word or two.
    pub(crate) what: String,
    /// To which delivery or event.
    pub(crate) subject: String,
    /// What else there is to say.
    pub(crate) details: String,
}

/// Which facts are of interest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interest {
    /// Those of this tenant.
    pub(crate) tenant: Option<TenantId>,
    /// Those about this event.
    pub(crate) event: Option<EventId>,
}

impl Interest {
    /// Tells whether a fact is of interest. Those about shards never are.
    pub(crate) fn includes(&self, fact: &Fact) -> bool {
        let (tenant, event) = match fact {
            Fact::EventRouted(routed) => (&routed.tenant, routed.event),
            Fact::ShardClaimed(_)
            | Fact::ShardReleased(_)
            | Fact::AttemptMade(_)
            | Fact::DeliveryDeferred(_)
            | Fact::DeliveryParked(_)
            | Fact::DeliveryConcluded(_)
            | Fact::RetryScheduled(_) => match fact.delivery() {
                Some(delivery) => (&delivery.tenant, delivery.event),
                None => return false,
            },
        };
        self.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
            && self.event.is_none_or(|wanted| wanted == event)
    }
}

impl Line {
    /// Puts a fact in words; `None` if it is about no event or delivery.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let at = record.recorded_at;
        let (tone, what, details) = match &record.fact {
            Fact::ShardClaimed(_) | Fact::ShardReleased(_) => return None,
            Fact::EventRouted(routed) => return Some(Self::routed(at, routed)),
            Fact::AttemptMade(made) => attempt(at, made),
            Fact::DeliveryDeferred(deferred) => put_off(at, deferred),
            Fact::DeliveryParked(parked) => (
                Tone::Warning,
                String::from("parked"),
                format!("attempt {} waits until the endpoint is resumed", parked.attempt),
            ),
            Fact::RetryScheduled(retry) => (
                Tone::Dim,
                String::from("scheduled"),
                format!("attempt {} in {}", retry.attempt, span_until(retry.due_at, at)),
            ),
            Fact::DeliveryConcluded(concluded) => conclusion(at, concluded),
        };
        let delivery = record.fact.delivery()?;
        let subject = format!("{}  {}", delivery.id, delivery.event_type);
        Some(Self { at, tone, what, subject, details })
    }

    fn routed(at: Timestamp, routed: &EventRouted) -> Self {
        let number =
            |ids: &[fanfare_domain::EndpointId]| u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let targets = number(&routed.targets).saturating_add(number(&routed.fed));
        let mut details = match targets {
            0 => String::from("no endpoint wants it"),
            targets => format!("to {}", count(targets, "endpoint")),
        };
        for (ids, why) in [
            (&routed.fed, "by a feed"),
            (&routed.skipped, "skipped: paused"),
            (&routed.held, "held: paused"),
        ] {
            if !ids.is_empty() {
                details = format!("{details}, {} {why}", number(ids));
            }
        }
        if routed.generation > 0 {
            details = format!("{details} (replay {})", routed.generation);
        }
        let tone = if targets == 0 { Tone::Dim } else { Tone::Accent };
        let subject = format!("{}  {}", routed.event, routed.tenant);
        Self { at, tone, what: String::from("routed"), subject, details }
    }

    /// Writes the line.
    pub(crate) fn show(&self, output: Output) -> String {
        format!(
            "{}  {}  {}  {}",
            output.tone(Tone::Dim, &clock(self.at)),
            output.tone(self.tone, &format!("{:<9}", self.what)),
            self.subject,
            output.tone(self.tone, &self.details),
        )
    }
}

/// Says what came of an attempt: `500`, `timed_out: no answer within 15 s`.
pub(crate) fn outcome(outcome: &Outcome, detail: &str) -> String {
    let what = match outcome {
        Outcome::Accepted { status } | Outcome::Refused { status, .. } => status.to_string(),
        Outcome::Failed(fault) => fault.to_string(),
    };
    if detail.is_empty() { what } else { format!("{what}: {}", printable(detail)) }
}

fn attempt(at: Timestamp, made: &AttemptMade) -> (Tone, String, String) {
    let tone = match (&made.outcome, made.retry_at) {
        (Outcome::Accepted { .. }, _) => Tone::Good,
        (Outcome::Refused { .. } | Outcome::Failed(_), Some(_)) => Tone::Warning,
        (Outcome::Refused { .. } | Outcome::Failed(_), None) => Tone::Bad,
    };
    let mut details = format!(
        "{} → {} in {}",
        printable(&made.url),
        outcome(&made.outcome, &made.detail),
        span(made.duration)
    );
    if let Some(batch) = made.batch {
        details = format!("{details}, in a batch of {}", batch.size);
    }
    if let Some(retry_at) = made.retry_at {
        details = format!("{details}, next attempt in {}", span_until(retry_at, at));
    }
    (tone, format!("attempt {}", made.attempt), details)
}

fn put_off(at: Timestamp, deferred: &DeliveryDeferred) -> (Tone, String, String) {
    let why = match deferred.reason {
        DeferReason::LaneFull => "the endpoint has as much as it can take",
        DeferReason::EventUnavailable => "its event cannot be read at the moment",
        DeferReason::RateLimit => "the endpoint's rate limit",
        DeferReason::Breaker => "the endpoint keeps failing",
        DeferReason::RetryAfter => "the endpoint asked to be left alone",
        DeferReason::TenantRateLimit => "the tenant's rate limit",
    };
    let until = span_until(deferred.until, at);
    let details = format!("attempt {} in {until}: {why}", deferred.attempt);
    (Tone::Dim, String::from("put off"), details)
}

fn conclusion(at: Timestamp, concluded: &DeliveryConcluded) -> (Tone, String, String) {
    let tone = match concluded.conclusion {
        Conclusion::Delivered => Tone::Good,
        Conclusion::Exhausted | Conclusion::Refused => Tone::Bad,
        Conclusion::Cancelled => Tone::Warning,
    };
    let why = match concluded.reason {
        ConclusionReason::Outcome => None,
        ConclusionReason::AttemptsSpent => Some("the policy allows no more"),
        ConclusionReason::Expired => Some("its time ran out"),
        ConclusionReason::EndpointDeleted => Some("the endpoint was deleted"),
        ConclusionReason::EndpointDisabled => Some("the endpoint is disabled"),
        ConclusionReason::EndpointPaused => Some("the endpoint is paused"),
        ConclusionReason::ByHand => Some("by hand"),
        ConclusionReason::EventGone => Some("its event is no longer in the log"),
    };
    let attempts = count(concluded.attempts.into(), "attempt");
    let took = span(at.since(concluded.delivery.accepted_at));
    let mut details = format!("after {attempts} in {took}");
    if let Some(why) = why {
        details = format!("{details}: {why}");
    }
    (tone, String::from(concluded.conclusion.as_str()), details)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a fact for programs; `None` if it is about no event or delivery.
pub(crate) fn document(record: &Record) -> Option<Value> {
    let mut members = match &record.fact {
        Fact::ShardClaimed(_) | Fact::ShardReleased(_) => return None,
        Fact::EventRouted(routed) => {
            let ids = |ids: &[fanfare_domain::EndpointId]| -> Vec<String> {
                ids.iter().map(ToString::to_string).collect()
            };
            json!({
                "fact": "event_routed",
                "event_id": routed.event.to_string(),
                "tenant_id": routed.tenant.as_str(),
                "generation": routed.generation,
                "targets": ids(&routed.targets),
                "skipped": ids(&routed.skipped),
                "held": ids(&routed.held),
                "fed": ids(&routed.fed),
            })
        }
        Fact::AttemptMade(made) => json!({
            "fact": "attempt_made",
            "attempt": made.attempt,
            "started_at": made.started_at.to_string(),
            "duration_ms": millis(made.duration),
            "connect_ms": made.timing.connect.map(millis),
            "first_byte_ms": made.timing.first_byte.map(millis),
            "outcome": match &made.outcome {
                Outcome::Accepted { .. } => "accepted",
                Outcome::Refused { .. } => "refused",
                Outcome::Failed(_) => "failed",
            },
            "status": made.outcome.status(),
            "fault": match &made.outcome {
                Outcome::Failed(fault) => Some(fault.as_str()),
                Outcome::Accepted { .. } | Outcome::Refused { .. } => None,
            },
            "detail": made.detail,
            "url": &*made.url,
            "retry_at": made.retry_at.map(|at| at.to_string()),
            "batch": made.batch.map(|it| json!({ "id": it.id.to_string(), "size": it.size })),
        }),
        Fact::DeliveryDeferred(deferred) => json!({
            "fact": "delivery_deferred",
            "attempt": deferred.attempt,
            "until": deferred.until.to_string(),
            "reason": deferred.reason.as_str(),
        }),
        Fact::DeliveryParked(parked) => {
            json!({ "fact": "delivery_parked", "attempt": parked.attempt })
        }
        Fact::RetryScheduled(retry) => json!({
            "fact": "retry_scheduled",
            "attempt": retry.attempt,
            "due_at": retry.due_at.to_string(),
        }),
        Fact::DeliveryConcluded(concluded) => json!({
            "fact": "delivery_concluded",
            "conclusion": concluded.conclusion.as_str(),
            "reason": concluded.reason.as_str(),
            "attempts": concluded.attempts,
        }),
    };
    if let Value::Object(members) = &mut members {
        members.insert(String::from("recorded_at"), json!(record.recorded_at.to_string()));
        if let Some(delivery) = record.fact.delivery() {
            add_delivery(members, delivery);
        }
    }
    Some(members)
}

fn add_delivery(members: &mut Map<String, Value>, delivery: &DeliveryRef) {
    let texts = [
        ("delivery_id", delivery.id.to_string()),
        ("event_id", delivery.event.to_string()),
        ("event_type", delivery.event_type.to_string()),
        ("endpoint_id", delivery.endpoint.to_string()),
        ("tenant_id", delivery.tenant.to_string()),
    ];
    for (name, text) in texts {
        members.insert(String::from(name), Value::String(text));
    }
    members.insert(String::from("generation"), json!(delivery.generation));
}

#[cfg(test)]
mod tests;
