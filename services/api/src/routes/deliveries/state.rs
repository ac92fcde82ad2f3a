//! How a delivery stands, as it is shown.

use fanfare_delivery_log::{DeliveryRow, State};
use fanfare_domain::{Conclusion, Timestamp, fact::ConclusionReason};
use serde::Serialize;
use utoipa::ToSchema;

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
    /// Shows a delivery.
    pub(crate) fn of(row: &DeliveryRow) -> Self {
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

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Tells whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.reason.is_some() || self.state == DeliveryState::Skipped
    }

    /// Tells whether it waits for its endpoint to be resumed.
    pub(crate) fn is_parked(&self) -> bool {
        self.state == DeliveryState::Parked
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
    use fanfare_delivery_log::{Changes, Place};
    use fanfare_domain::{
        DeliveryId, DeliveryRef, EndpointId, EventId, Fact, Record, TraceContext,
        fact::{DeferReason, DeliveryConcluded, DeliveryDeferred, DeliveryParked, RetryScheduled},
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

    #[test]
    fn each_fact_moves_the_state() {
        let (second, delivery) = (Timestamp::from_millis(1_000), delivery());
        let scheduled = |attempt| {
            Fact::RetryScheduled(RetryScheduled {
                delivery: delivery.clone(),
                attempt,
                due_at: second,
                cause_sequence: 1,
                batch: None,
            })
        };
        let deferred = Fact::DeliveryDeferred(DeliveryDeferred {
            delivery: delivery.clone(),
            attempt: 1,
            until: second,
            reason: DeferReason::LaneFull,
            batch: None,
        });
        let parked =
            Fact::DeliveryParked(DeliveryParked { delivery: delivery.clone(), attempt: 2 });
        let concluded = Fact::DeliveryConcluded(DeliveryConcluded {
            delivery: delivery.clone(),
            conclusion: Conclusion::Cancelled,
            attempts: 1,
            reason: ConclusionReason::EndpointDeleted,
        });
        let (mut changes, id) = (Changes::default(), delivery.id);
        for (sequence, (fact, state, waits)) in [
            (deferred, DeliveryState::Pending, true),
            (scheduled(1), DeliveryState::Pending, true),
            (scheduled(2), DeliveryState::Retrying, true),
            (parked, DeliveryState::Parked, false),
            (concluded, DeliveryState::Cancelled, false),
        ]
        .into_iter()
        .enumerate()
        {
            let record =
                Record { recorded_at: second, trace: TraceContext::default(), fact: fact.clone() };
            let place = Place::of(u64::try_from(sequence).unwrap(), 7);
            changes.record(place, &record);
            let row = changes.delivery(id).unwrap();
            assert_eq!(row.standing.fact(), place);
            let view = DeliveryView::of(row);
            assert_eq!((view.state, view.waits(Timestamp::EPOCH)), (state, waits), "{fact:?}");
        }
        let view = DeliveryView::of(changes.delivery(id).unwrap());
        assert_eq!((view.reason, view.attempts), (Some("endpoint_deleted"), 1));
    }
}
