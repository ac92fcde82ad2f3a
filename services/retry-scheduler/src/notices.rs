//! Operational events: what operators are told of, as ordinary events of their own tenant. Pure.
//!
//! Their ids are made from what they tell of, so that telling twice is harmless. Nothing about the
//! operator's own tenant makes one: a receiver of these events that fails would otherwise cause
//! more of them.

use std::collections::BTreeMap;

use fanfare_domain::{
    Event, EventId, EventType, Fact, Outcome, Record, Role, TenantId, Timestamp, TraceContext,
    endpoint::DisableReason, fact::DeliveryConcluded,
};
use serde_json::{Value, json};

use crate::{
    agenda::Exhausted,
    directory::{Disabled, Known, KnownKey},
    health::Streak,
};

/// The type of the event that a delivery is exhausted.
const DELIVERY_EXHAUSTED: &str = "delivery.exhausted";
/// The type of the event that an endpoint was disabled.
const ENDPOINT_DISABLED: &str = "endpoint.disabled";

/// The type of the event that an endpoint fails.
const ENDPOINT_FAILING: &str = "endpoint.failing";
/// The type of the event that an API key was made.
const KEY_CREATED: &str = "key.created";

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

/// Tells of an endpoint that fails, once for each row of failures; `None` if it is one of the
/// operator's own.
pub(crate) fn failing(operator: &TenantId, known: &Known, streak: &Streak) -> Option<Event> {
    let data = json!({
        "endpoint_id": known.id.to_string(),
        "tenant_id": known.tenant.as_str(),
        "failures": streak.failures,
        "first_failure_at": streak.first_at.to_string(),
        "last_failure_at": streak.last_at.to_string(),
    });
    let source = format!("operational/{ENDPOINT_FAILING}/{}", known.id);
    let id = EventId::of_message(&source, streak.since, streak.first_at);
    // Not when the last attempt was: whoever looks for it in EVENTS has to begin before it.
    let event = event(operator, id, ENDPOINT_FAILING, streak.first_at, &data);
    (known.tenant != *operator).then_some(event)
}

/// Tells of an API key that was made; `None` if it is one of the operator's tenant, which only sees
/// events.
pub(crate) fn key_created(operator: &TenantId, known: &KnownKey) -> Option<Event> {
    let KnownKey { key, revision, at, actor, words } = known;
    let data = json!({
        "key_id": key.id.to_string(),
        "tenant_id": key.tenant.as_ref().map(TenantId::as_str),
        "name": key.name,
        "role": role_name(key.role),
        "reveals_secrets": key.reveals_secrets,
        "expires_at": key.expires_at.map(|end| end.to_string()),
        "created_at": at.to_string(),
        "created_by": actor,
        "reason": words,
    });
    let source = format!("operational/{KEY_CREATED}/{}", key.id);
    let id = EventId::of_message(&source, *revision, *at);
    let event = event(operator, id, KEY_CREATED, *at, &data);
    (key.tenant.as_ref() != Some(operator)).then_some(event)
}

fn event(
    operator: &TenantId,
    id: EventId,
    event_type: &str,
    occurred_at: Timestamp,
    data: &Value,
) -> Event {
    let event_type: EventType = event_type.parse().expect("all types are dot-separated words");
    Event {
        id,
        tenant: operator.clone(),
        event_type,
        occurred_at,
        accepted_at: None,
        config_revision: None,
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

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Publish => "publish",
        Role::Read => "read",
    }
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
    fn a_row_of_failures_has_an_id_of_its_own() {
        let mut directory = Directory::default();
        directory.learn_endpoint(3, endpoint(1));
        let known = directory.endpoint(endpoint_id(1)).unwrap();
        let row = |first_at, failures| {
            let streak =
                Streak { failures, first_at, last_at: NOW, since: 3, gone: false, told: false };
            failing(&operator(), known, &streak).unwrap()
        };
        let first = row(NOW, 50);
        assert_eq!(first.event_type.as_str(), ENDPOINT_FAILING);
        assert_eq!(data(&first)["failures"], 50);
        assert_eq!(row(NOW, 51).id, first.id);
        assert_ne!(row(crate::samples::after(1), 50).id, first.id);
        assert_eq!(
            failing(
                &"acme".parse().unwrap(),
                known,
                &Streak {
                    failures: 1,
                    first_at: NOW,
                    last_at: NOW,
                    since: 3,
                    gone: false,
                    told: false,
                }
            ),
            None
        );
    }

    #[test]
    fn a_key_that_was_made_is_told_of_without_anything_secret() {
        let mut directory = Directory::default();
        let key = fanfare_domain::ApiKey {
            id: fanfare_domain::KeyId::new(NOW, [1; 10]),
            name: String::from("ci"),
            tenant: Some("acme".parse().unwrap()),
            role: Role::Publish,
            sha256: [0xab; 32],
            created_at: NOW,
            expires_at: None,
            reveals_secrets: false,
            rate_limit: None,
        };
        let entity = || fanfare_domain::Entity::ApiKey(std::sync::Arc::new(key.clone()));
        directory.learn(4, entity());
        let known = directory.keys_after(3).next().unwrap();
        let told = key_created(&operator(), known).unwrap();
        assert_eq!(told.event_type.as_str(), KEY_CREATED);
        assert_eq!(
            (&data(&told)["role"], &data(&told)["created_by"]),
            (&"publish".into(), &"test".into())
        );
        assert!(!String::from_utf8_lossy(&told.data).contains("abab"));
        assert_eq!(key_created(&"acme".parse().unwrap(), known), None);
        directory.learn(5, entity());
        assert_eq!((directory.keys_after(4).count(), directory.keys_last()), (0, 4));
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
