//! Facts as they are shown.

use std::time::Duration;

use axum::body::Bytes;
use fanfare_domain::{
    DeliveryId, EndpointId, EventId, Fact, Outcome, Record, SpanId,
    fact::{AttemptMade, InBatch},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::scan::Routed;

/// What an event's routing says of one endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryOfEvent {
    /// Identifies the delivery; `null` if there is none, because the endpoint skips.
    #[schema(required)]
    id: Option<String>,
    /// Which endpoint.
    endpoint_id: String,
    /// What becomes of the event there.
    routing: RoutingName,
}

/// What becomes of an event at an endpoint that wants it.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Routing)]
enum RoutingName {
    /// It is delivered.
    Delivery,
    /// It is not: the endpoint was paused, and skips what comes meanwhile.
    Skipped,
    /// It is delivered once the endpoint is resumed.
    Held,
}

/// Something that happened to a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fact)]
pub(crate) struct FactView {
    /// The sequence in the journal of the message that holds the fact.
    sequence: u64,
    /// When it was recorded.
    #[schema(format = DateTime)]
    recorded_at: String,
    #[serde(flatten)]
    body: FactBody,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "fact", rename_all = "snake_case")]
enum FactBody {
    /// One HTTP request was made, or could not be.
    AttemptMade(Box<AttemptView>),
    /// The delivery was put off without an attempt.
    DeliveryDeferred(DeferredView),
    /// The delivery waits for its endpoint to be resumed.
    DeliveryParked(ParkedView),
    /// A later attempt was given its time.
    RetryScheduled(ScheduledView),
    /// The delivery ended.
    DeliveryConcluded(ConcludedView),
}

/// One HTTP request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AttemptMade)]
struct AttemptView {
    /// Counts from 1.
    attempt: u32,
    /// Its span in the delivery's trace: 16 hexadecimal digits.
    #[schema(example = "b7ad6b7169203331")]
    span_id: String,
    /// When the request was begun; also the time that it was signed with.
    #[schema(format = DateTime)]
    started_at: String,
    /// From the beginning to the outcome, in milliseconds.
    duration_ms: u64,
    /// How long it took until a connection was made for the request, in milliseconds: name, TCP and
    /// TLS. `null` if it went over one that was there already, or none came about.
    #[schema(required)]
    connect_ms: Option<u64>,
    /// How long it took until the head of the answer was there, in milliseconds; `null` if none came.
    #[schema(required)]
    first_byte_ms: Option<u64>,
    /// What came of it.
    outcome: OutcomeName,
    /// The status that the endpoint answered with; `null` if it did not.
    #[schema(required)]
    status: Option<u16>,
    /// Why no answer came; `null` if one did.
    #[schema(required, example = "timed_out")]
    fault: Option<&'static str>,
    /// More about why it failed, for people; may be empty.
    detail: String,
    /// The revision of the configuration that the request was made with.
    config_revision: u64,
    /// The URL that the request went to.
    url: String,
    /// The value of the signature header; empty if nothing was sent.
    signature: String,
    /// The head of the answer.
    response_headers: Vec<HeaderView>,
    /// The first 16 KiB of the answer's body; what is not UTF-8 is replaced.
    response_body: String,
    /// Whether the answer's body was longer, or broke off.
    response_truncated: bool,
    /// When the next attempt is due; `null` if there is to be none.
    #[schema(required, format = DateTime)]
    retry_at: Option<String>,
    /// The batch that the request was, if it carried several deliveries; otherwise `null`.
    #[schema(required)]
    batch: Option<InBatchView>,
}

/// A request that carried several deliveries. Its time, outcome and signature are those of all of
/// them; the first holds the whole answer, the others the beginning of its body.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InBatch)]
pub(super) struct InBatchView {
    /// Identifies the batch: the same deliveries sent again are the same batch.
    #[schema(example = "bat_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: String,
    /// How many deliveries were in it.
    size: u32,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Outcome)]
pub(crate) enum OutcomeName {
    /// The endpoint answered with a status that the profile counts as success.
    Accepted,
    /// The endpoint answered with any other status.
    Refused,
    /// No answer came.
    Failed,
}

/// A header of an answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Header)]
pub(super) struct HeaderView {
    /// Its name, in lower case.
    name: String,
    /// Its value; what is not UTF-8 is replaced.
    value: String,
}

/// A delivery that was put off.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryDeferred)]
struct DeferredView {
    /// The number of the attempt that was put off.
    attempt: u32,
    /// Until when.
    #[schema(format = DateTime)]
    until: String,
    /// Why: `lane_full`, `event_unavailable`, `rate_limit`, `breaker` or `retry_after`.
    #[schema(example = "lane_full")]
    reason: &'static str,
}

/// A delivery that waits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryParked)]
struct ParkedView {
    /// The number of the attempt that waits.
    attempt: u32,
}

/// A later attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetryScheduled)]
struct ScheduledView {
    /// The number of the attempt to come.
    attempt: u32,
    /// When it is due.
    #[schema(format = DateTime)]
    due_at: String,
}

/// The end of a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryConcluded)]
struct ConcludedView {
    /// How it ended: `delivered`, `exhausted`, `refused` or `cancelled`.
    #[schema(example = "delivered")]
    conclusion: &'static str,
    /// Why.
    #[schema(example = "outcome")]
    reason: &'static str,
    /// How many attempts were made.
    attempts: u32,
}

impl DeliveryOfEvent {
    /// Shows what becomes of an event at an endpoint.
    pub(crate) fn of(event: EventId, endpoint: EndpointId, routed: Routed) -> Self {
        let delivery = || Some(DeliveryId::of(event, endpoint, 0).to_string());
        let (id, routing) = match routed {
            Routed::Target => (delivery(), RoutingName::Delivery),
            Routed::Skipped => (None, RoutingName::Skipped),
            Routed::Held => (delivery(), RoutingName::Held),
        };
        Self { id, endpoint_id: endpoint.to_string(), routing }
    }
}

impl FactView {
    /// Shows a fact about a delivery; `None` for facts about something else.
    pub(crate) fn of(sequence: u64, record: &Record) -> Option<Self> {
        let body = match &record.fact {
            Fact::AttemptMade(made) => FactBody::AttemptMade(Box::new(AttemptView::of(made))),
            Fact::DeliveryDeferred(deferred) => FactBody::DeliveryDeferred(DeferredView {
                attempt: deferred.attempt,
                until: deferred.until.to_string(),
                reason: deferred.reason.as_str(),
            }),
            Fact::DeliveryParked(parked) => {
                FactBody::DeliveryParked(ParkedView { attempt: parked.attempt })
            }
            Fact::RetryScheduled(scheduled) => FactBody::RetryScheduled(ScheduledView {
                attempt: scheduled.attempt,
                due_at: scheduled.due_at.to_string(),
            }),
            Fact::DeliveryConcluded(concluded) => FactBody::DeliveryConcluded(ConcludedView {
                conclusion: concluded.conclusion.as_str(),
                reason: concluded.reason.as_str(),
                attempts: concluded.attempts,
            }),
            Fact::ShardClaimed(_) | Fact::ShardReleased(_) | Fact::EventRouted(_) => return None,
        };
        Some(Self { sequence, recorded_at: record.recorded_at.to_string(), body })
    }
}

impl AttemptView {
    fn of(made: &AttemptMade) -> Self {
        let (outcome, fault) = OutcomeName::of(&made.outcome);
        Self {
            attempt: made.attempt,
            span_id: SpanId::attempt(made.delivery.id, made.attempt).to_string(),
            started_at: made.started_at.to_string(),
            duration_ms: millis(made.duration),
            connect_ms: made.timing.connect.map(millis),
            first_byte_ms: made.timing.first_byte.map(millis),
            outcome,
            status: made.outcome.status(),
            fault,
            detail: made.detail.clone(),
            config_revision: made.config_revision,
            url: String::from(&*made.url),
            signature: made.signature.clone(),
            response_headers: made.response_headers.iter().map(HeaderView::of).collect(),
            response_body: String::from_utf8_lossy(&made.response_body).into_owned(),
            response_truncated: made.response_truncated,
            retry_at: made.retry_at.map(|at| at.to_string()),
            batch: made.batch.map(InBatchView::of),
        }
    }
}

/// Returns the whole milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl OutcomeName {
    /// Names an outcome, and the fault if it is one.
    pub(crate) const fn of(outcome: &Outcome) -> (Self, Option<&'static str>) {
        match outcome {
            Outcome::Accepted { .. } => (Self::Accepted, None),
            Outcome::Refused { .. } => (Self::Refused, None),
            Outcome::Failed(fault) => (Self::Failed, Some(fault.as_str())),
        }
    }
}

impl HeaderView {
    /// Shows a header of an answer.
    pub(super) fn of((name, value): &(String, Bytes)) -> Self {
        Self { name: name.clone(), value: String::from_utf8_lossy(value).into_owned() }
    }
}

impl InBatchView {
    /// Shows the request that a delivery was part of.
    pub(super) fn of(batch: InBatch) -> Self {
        Self { id: batch.id.to_string(), size: batch.size }
    }
}
