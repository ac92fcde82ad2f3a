//! Operational events: what operators are told of, as ordinary events of their own tenant. Pure.
//!
//! Their ids are made from what they tell of, so that telling twice is harmless. Nothing about the
//! operator's own tenant makes one: a receiver of these events that fails would otherwise cause
//! more of them.

use std::collections::BTreeMap;

use fanfare_domain::{
    Event, EventId, EventType, Fact, Outcome, Record, TenantId, Timestamp, TraceContext,
    endpoint::DisableReason, fact::DeliveryConcluded,
};
use serde_json::{Value, json};

use crate::{
    agenda::Exhausted,
    directory::{Disabled, Known},
};

/// The type of the event that a delivery is exhausted.
const DELIVERY_EXHAUSTED: &str = "delivery.exhausted";
/// The type of the event that an endpoint was disabled.
const ENDPOINT_DISABLED: &str = "endpoint.disabled";

/// Tells of an exhausted delivery; `None` if it is one of the operator's own.
pub(crate) fn exhausted(operator: &TenantId, told: &Exhausted) -> Option<Event> {
    let delivery = &told.delivery;
    let record = told.facts.last()?;
    let Fact::DeliveryConcluded(DeliveryConcluded { delivery: _, conclusion: _, attempts, reason }) =
        &record.fact
    else {
        return None;
    };
    let data = json!({
        "delivery_id": delivery.id.to_string(),
        "event_id": delivery.event.to_string(),
        "event_type": delivery.event_type.as_str(),
        "tenant_id": delivery.tenant.as_str(),
        "endpoint_id": delivery.endpoint.to_string(),
        "accepted_at": delivery.accepted_at.to_string(),
        "exhausted_at": record.recorded_at.to_string(),
        "attempts": attempts,
        "reason": reason.as_str(),
        "last_attempt": told.facts.iter().find_map(last_attempt),
    });
    let source = format!("operational/{DELIVERY_EXHAUSTED}/{}", delivery.id);
    let id = EventId::of_message(&source, 0, record.recorded_at);
    let event = event(operator, id, DELIVERY_EXHAUSTED, record.recorded_at, &data);
    (delivery.tenant != *operator).then(|| Event { trace: record.trace.clone(), ..event })
}

/// Tells of an endpoint that was disabled; `None` if it is one of the operator's own, or was not.
pub(crate) fn disabled(operator: &TenantId, known: &Known) -> Option<Event> {
    let Disabled { revision, at, reason, words } = known.disabled.as_deref()?;
    let data = json!({
        "endpoint_id": known.id.to_string(),
        "tenant_id": known.tenant.as_str(),
        "reason": reason_name(*reason),
        "detail": words,
        "disabled_at": at.to_string(),
    });
    let source = format!("operational/{ENDPOINT_DISABLED}/{}", known.id);
    let id = EventId::of_message(&source, *revision, *at);
    let event = event(operator, id, ENDPOINT_DISABLED, *at, &data);
    (known.tenant != *operator).then_some(event)
}

fn event(
    operator: &TenantId,
    id: EventId,
    event_type: &str,
    occurred_at: Timestamp,
    data: &Value,
) -> Event {
    let event_type: EventType = event_type.parse().expect("both types are dot-separated words");
    Event {
        id,
        tenant: operator.clone(),
        event_type,
        occurred_at,
        accepted_at: None,
        data: data.to_string().into(),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    }
}

fn last_attempt(record: &Record) -> Option<Value> {
    let Fact::AttemptMade(made) = &record.fact else { return None };
    let (status, fault) = match &made.outcome {
        Outcome::Accepted { status } | Outcome::Refused { status, .. } => (Some(status), None),
        Outcome::Failed(fault) => (None, Some(fault.as_str())),
    };
    Some(json!({
        "attempt": made.attempt,
        "started_at": made.started_at.to_string(),
        "status": status,
        "fault": fault,
        "detail": made.detail,
    }))
}

fn reason_name(reason: DisableReason) -> &'static str {
    match reason {
        DisableReason::ByHand => "by_hand",
        DisableReason::Gone => "gone",
        DisableReason::Failing => "failing",
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{Conclusion, Endpoint, EndpointState};

    use super::*;
    use crate::{
        directory::{
            Directory,
            tests::{endpoint, endpoint_id},
        },
        samples::{NOW, concluded, delivery, made},
    };

    fn operator() -> TenantId {
        "operator".parse().unwrap()
    }

    fn told(facts: Vec<Record>) -> Exhausted {
        Exhausted { sequence: 9, delivery: delivery(1), facts }
    }

    fn data(event: &Event) -> Value {
        serde_json::from_slice(&event.data).unwrap()
    }

    #[test]
    fn an_exhausted_delivery_is_told_of_with_its_last_attempt() {
        let end = concluded(delivery(1), Conclusion::Exhausted);
        let with = exhausted(&operator(), &told(vec![made(delivery(1), 5, None), end.clone()]));
        let with = with.unwrap();
        assert_eq!(
            (with.tenant.as_str(), with.event_type.as_str()),
            ("operator", DELIVERY_EXHAUSTED)
        );
        assert_eq!(data(&with)["delivery_id"], delivery(1).id.to_string());
        assert_eq!(data(&with)["last_attempt"]["status"], 500);
        let without = exhausted(&operator(), &told(vec![end])).unwrap();
        assert_eq!(data(&without)["last_attempt"], Value::Null);
        assert_eq!((without.id, without.id.time()), (with.id, NOW), "the id is the delivery's");
    }

    #[test]
    fn each_time_that_an_endpoint_is_disabled_has_an_id_of_its_own() {
        let mut directory = Directory::default();
        let state = EndpointState::Disabled(DisableReason::Gone);
        let mut ids = Vec::new();
        for revision in [3, 5] {
            directory.learn_endpoint(revision, Endpoint { state, ..endpoint(1) });
            let event = disabled(&operator(), directory.endpoint(endpoint_id(1)).unwrap()).unwrap();
            assert_eq!(data(&event)["reason"], "gone");
            assert_eq!(data(&event)["detail"], "because");
            ids.push(event.id);
            directory.learn_endpoint(revision + 1, endpoint(1));
        }
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn nothing_is_told_of_the_operators_own() {
        let own: TenantId = "acme".parse().unwrap();
        let end = concluded(delivery(1), Conclusion::Exhausted);
        assert_eq!(exhausted(&own, &told(vec![end])), None);
        let mut directory = Directory::default();
        let state = EndpointState::Disabled(DisableReason::ByHand);
        directory.learn_endpoint(3, Endpoint { state, ..endpoint(1) });
        assert_eq!(disabled(&own, directory.endpoint(endpoint_id(1)).unwrap()), None);
    }
}
