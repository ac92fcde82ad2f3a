//! How a delivery stands: a fold over its facts.

use fanfare_delivery_log::{DeliveryRow, State};
use fanfare_domain::{Conclusion, Fact, TenantId, Timestamp, fact::ConclusionReason};
use serde::Serialize;
use utoipa::ToSchema;

use crate::scan::{FoundDelivery, Routed};

/// One event for one endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct DeliveryView {
    /// Identifies the delivery.
    #[schema(example = "dlv_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: String,
    /// Whose it is.
    tenant_id: String,
    /// What is delivered.
    event_id: String,
    /// Where it is delivered.
    endpoint_id: String,
    /// 0 for the delivery that the event's acceptance caused; counts replays.
    generation: u32,
    /// How it stands.
    state: DeliveryState,
    /// Why it ended as it did; `null` if it has not ended.
    #[schema(required, example = "attempts_spent")]
    reason: Option<&'static str>,
    /// How many attempts were made.
    attempts: u32,
    /// When the next attempt is due; `null` if there is none to come, or if it can be made now.
    #[schema(required, format = DateTime)]
    next_attempt_at: Option<String>,
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeliveryState {
    /// No attempt was made yet.
    Pending,
    /// An attempt failed, and another one is to come.
    Retrying,
    /// It waits for its endpoint to be resumed.
    Parked,
    /// There is none: the endpoint was paused, and skips what comes meanwhile.
    Skipped,
    /// The endpoint accepted it.
    Delivered,
    /// Every attempt failed, or its time ran out.
    Exhausted,
    /// The endpoint answered with a status that is final.
    Refused,
    /// The endpoint was deleted, disabled or paused, or a person cancelled it.
    Cancelled,
}

impl DeliveryState {
    /// Every state.
    const ALL: [Self; 8] = [
        Self::Pending,
        Self::Retrying,
        Self::Parked,
        Self::Skipped,
        Self::Delivered,
        Self::Exhausted,
        Self::Refused,
        Self::Cancelled,
    ];

    /// Reads a name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Returns the name, as it is shown.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Skipped => "skipped",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<Conclusion> for DeliveryState {
    fn from(conclusion: Conclusion) -> Self {
        match conclusion {
            Conclusion::Delivered => Self::Delivered,
            Conclusion::Exhausted => Self::Exhausted,
            Conclusion::Refused => Self::Refused,
            Conclusion::Cancelled => Self::Cancelled,
        }
    }
}

impl From<State> for DeliveryState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Retrying => Self::Retrying,
            State::Parked => Self::Parked,
            State::Skipped => Self::Skipped,
            State::Delivered => Self::Delivered,
            State::Exhausted => Self::Exhausted,
            State::Refused => Self::Refused,
            State::Cancelled => Self::Cancelled,
        }
    }
}

impl DeliveryView {
    /// Shows a delivery of which nothing but its routing is on record.
    pub(crate) fn routed(tenant: &TenantId, found: &FoundDelivery) -> Self {
        Self {
            id: found.id.to_string(),
            tenant_id: tenant.to_string(),
            event_id: found.event.to_string(),
            endpoint_id: found.endpoint.to_string(),
            generation: found.generation,
            state: match found.routed {
                Routed::Target => DeliveryState::Pending,
                Routed::Held => DeliveryState::Parked,
                Routed::Skipped => DeliveryState::Skipped,
            },
            reason: None,
            attempts: 0,
            next_attempt_at: None,
        }
    }

    /// Shows a delivery as the delivery log has it.
    pub(super) fn logged(row: &DeliveryRow) -> Self {
        Self {
            id: row.id.to_string(),
            tenant_id: row.tenant.to_string(),
            event_id: row.event.to_string(),
            endpoint_id: row.endpoint.to_string(),
            generation: row.generation,
            state: row.standing.state.into(),
            reason: row.standing.reason.map(ConclusionReason::as_str),
            attempts: row.attempts,
            next_attempt_at: row.standing.next_attempt_at.map(shown),
        }
    }

    /// Applies a fact about the delivery. Applying it twice changes nothing.
    pub(crate) fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::AttemptMade(made) => {
                self.attempts = self.attempts.max(made.attempt);
                self.state = DeliveryState::Retrying;
                self.next_attempt_at = made.retry_at.map(shown);
            }
            Fact::RetryScheduled(scheduled) => {
                // Also a first attempt that was put off gets a time.
                self.state = DeliveryState::before(scheduled.attempt);
                self.next_attempt_at = Some(shown(scheduled.due_at));
            }
            Fact::DeliveryDeferred(deferred) => {
                self.state = DeliveryState::before(deferred.attempt);
                self.next_attempt_at = Some(shown(deferred.until));
            }
            Fact::DeliveryParked(_) => {
                self.state = DeliveryState::Parked;
                self.next_attempt_at = None;
            }
            Fact::DeliveryConcluded(concluded) => {
                self.state = concluded.conclusion.into();
                self.reason = Some(concluded.reason.as_str());
                self.attempts = concluded.attempts;
                self.next_attempt_at = None;
            }
            Fact::ShardClaimed(_) | Fact::ShardReleased(_) | Fact::EventRouted(_) => {}
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Tells whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.reason.is_some() || self.state == DeliveryState::Skipped
    }

    /// The name of its state.
    pub(crate) fn state_name(&self) -> &'static str {
        self.state.as_str()
    }

    /// Tells whether its next attempt waits for a time that has not come.
    pub(crate) fn waits(&self, now: Timestamp) -> bool {
        let next = self.next_attempt_at.as_deref().and_then(Timestamp::parse);
        next.is_some_and(|next| next > now)
    }
}

impl DeliveryState {
    /// How a delivery stands that waits for an attempt.
    pub(crate) const fn before(attempt: u32) -> Self {
        if attempt > 1 { Self::Retrying } else { Self::Pending }
    }
}

fn shown(at: Timestamp) -> String {
    at.to_string()
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{
        DeliveryId, DeliveryRef, EndpointId, EventId,
        fact::{
            ConclusionReason, DeferReason, DeliveryConcluded, DeliveryDeferred, DeliveryParked,
            RetryScheduled,
        },
    };

    use super::*;

    fn delivery() -> DeliveryRef {
        let event = EventId::new(Timestamp::EPOCH, [1; 10]);
        let endpoint = EndpointId::new(Timestamp::EPOCH, [2; 10]);
        DeliveryRef {
            id: DeliveryId::of(event, endpoint, 0),
            tenant: "acme".parse().unwrap(),
            event,
            event_sequence: 1,
            event_type: "a".parse().unwrap(),
            endpoint,
            generation: 0,
            accepted_at: Timestamp::EPOCH,
        }
    }

    fn view() -> DeliveryView {
        let own = delivery();
        let (event, endpoint, generation) = (own.event, own.endpoint, own.generation);
        let found = FoundDelivery {
            id: own.id,
            event,
            event_sequence: 1,
            endpoint,
            generation,
            routed: Routed::Target,
            sequence: 1,
            routed_at: Timestamp::EPOCH,
            trace: fanfare_domain::TraceId::from_bytes([1; 16]),
        };
        DeliveryView::routed(&own.tenant, &found)
    }

    #[test]
    fn each_fact_moves_the_state() {
        let second = Timestamp::from_millis(1_000);
        let deferred = Fact::DeliveryDeferred(DeliveryDeferred {
            delivery: delivery(),
            attempt: 1,
            until: second,
            reason: DeferReason::LaneFull,
            batch: None,
        });
        let scheduled = Fact::RetryScheduled(RetryScheduled {
            delivery: delivery(),
            attempt: 2,
            due_at: second,
            cause_sequence: 1,
            batch: None,
        });
        let parked = Fact::DeliveryParked(DeliveryParked { delivery: delivery(), attempt: 2 });
        let concluded = Fact::DeliveryConcluded(DeliveryConcluded {
            delivery: delivery(),
            conclusion: Conclusion::Cancelled,
            attempts: 1,
            reason: ConclusionReason::EndpointDeleted,
        });
        let first = Fact::RetryScheduled(RetryScheduled {
            delivery: delivery(),
            attempt: 1,
            due_at: second,
            cause_sequence: 1,
            batch: None,
        });
        let mut view = view();
        assert_eq!(view.state, DeliveryState::Pending);
        for (fact, state, waits) in [
            (deferred, DeliveryState::Pending, true),
            (first, DeliveryState::Pending, true),
            (scheduled, DeliveryState::Retrying, true),
            (parked, DeliveryState::Parked, false),
            (concluded, DeliveryState::Cancelled, false),
        ] {
            view.apply(&fact);
            view.apply(&fact);
            assert_eq!((view.state, view.next_attempt_at.is_some()), (state, waits), "{fact:?}");
        }
        assert_eq!((view.reason, view.attempts), (Some("endpoint_deleted"), 1));
    }
}
