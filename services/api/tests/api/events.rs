//! Publishing: what is asked of ingest, and how its answers are told. Ingest is played here.

use anyhow::{Context as _, Result};
use fanfare_domain::{EventId, Timestamp};
use fanfare_event_log::{InboxMessage, PublishAnswer, Request};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, World};

/// Publishes an event, answers in the place of ingest, and returns both sides.
async fn publish(world: &World, answer: PublishAnswer) -> Result<(Answer, InboxMessage)> {
    let mut requests = world.log.requests().await?;
    let body = json!({"type": "a.b", "data": {"n": 1}, "attributes": {"k": "v"}});
    let request = world.api.request(Method::POST, "/v1/tenants/acme/events");
    let request =
        request.bearer_auth(&world.operator).header("idempotency-key", "once").json(&body);
    let ingest = async {
        let Request { message, reply } = requests.next().await.context("a request")?;
        reply.send(&answer).await;
        anyhow::Ok(message)
    };
    let (told, message) = tokio::join!(Answer::of(request), ingest);
    requests.stop().await;
    Ok((told?, message?))
}

#[tokio::test]
async fn an_accepted_event_is_answered_with_its_id() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let event = EventId::new(Timestamp::from_millis(7), [1; 10]);
    let (told, message) =
        publish(&world, PublishAnswer::Accepted { event, duplicate: true }).await?;
    assert_eq!(told.status, StatusCode::ACCEPTED);
    assert_eq!(told.body, json!({"id": event.to_string(), "duplicate": true}));
    assert_eq!((message.tenant.as_str(), message.event_type.as_str()), ("acme", "a.b"));
    assert_eq!(message.payload, r#"{"n":1}"#);
    assert_eq!(message.headers.get("fanfare-idempotency-key"), Some("once"));
    assert_eq!(message.headers.get("fanfare-attribute-k"), Some("v"));
    Ok(())
}

#[tokio::test]
async fn refusals_are_told_with_their_reason() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let refused = |code, reason: &'static str| PublishAnswer::Refused {
        code,
        reason: reason.into(),
        detail: String::from("why"),
    };
    for (answer, status, code) in [
        (refused(422, "number_not_representable"), 422, "event_refused"),
        (refused(400, "invalid_json"), 422, "event_refused"),
        (refused(404, "unknown_tenant"), 404, "tenant_not_found"),
        (refused(413, "too_large"), 413, "body_too_large"),
        (refused(500, "internal_error"), 500, "internal"),
        (PublishAnswer::Unavailable { detail: String::from("EVENTS is full") }, 503, "unavailable"),
    ] {
        let reason = answer.refusal().map(|(_, reason)| String::from(reason));
        let (told, _) = publish(&world, answer).await?;
        assert_eq!((told.status.as_u16(), told.code()), (status, code), "{told:?}");
        if status == 422 {
            assert_eq!(told.body["reason"].as_str(), reason.as_deref());
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_ingest_the_caller_is_told_to_try_again() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let event = json!({"type": "a", "data": null});
    let told = world.post("/v1/tenants/acme/events", event.clone()).await?;
    assert_eq!((told.status, told.code()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert_eq!(told.headers["retry-after"], "1");
    let told = world.post("/v1/tenants/ghost/events", event).await?;
    assert_eq!(told.code(), "tenant_not_found");
    let told = world.post("/v1/tenants/acme/events", json!({"type": "a.*", "data": 1})).await?;
    assert_eq!((told.code(), &told.body["field"]), ("value_invalid", &Value::from("type")));
    Ok(())
}

#[tokio::test]
async fn a_batch_is_taken_event_by_event_and_answered_in_its_order() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let mut requests = world.log.requests().await?;
    let events: Vec<Value> = (0..6)
        .map(|number| match number {
            2 => json!({"type": "a.*", "data": number}),
            3 => json!({"type": "a"}),
            _ => json!({"type": "a", "data": number, "ordering_key": "k",
                "idempotency_key": format!("k{number}")}),
        })
        .collect();
    let ingest = async {
        let mut seen = Vec::new();
        for number in [0_u8, 1, 4, 5] {
            let Request { message, reply } = requests.next().await.context("a request")?;
            let key = message.headers.get("fanfare-idempotency-key").map(String::from);
            seen.push((message.payload.clone(), key));
            let answer = if number == 4 {
                let (reason, detail) = ("schema_violation".into(), String::from("why"));
                PublishAnswer::Refused { code: 422, reason, detail }
            } else {
                let event = EventId::new(Timestamp::from_millis(7), [number; 10]);
                PublishAnswer::Accepted { event, duplicate: number == 5 }
            };
            reply.send(&answer).await;
        }
        anyhow::Ok(seen)
    };
    let batch = world.post("/v1/tenants/acme/events/batch", json!({"events": events}));
    let (told, seen) = tokio::join!(batch, ingest);
    let (told, seen) = (told?, seen?);
    assert_eq!((told.status, &told.body["accepted"]), (StatusCode::OK, &json!(3)), "{told:?}");
    let statuses: Vec<_> = told.data().iter().map(|one| one["status"].as_u64()).collect();
    assert_eq!(statuses, [202, 202, 400, 400, 422, 202].map(Some));
    let problem = |place: usize| told.data()[place]["problem"]["code"].clone();
    let problems = [problem(2), problem(3), problem(4)];
    assert_eq!(problems, ["value_invalid", "body_malformed", "event_refused"]);
    assert_eq!(told.data()[5]["duplicate"], true);
    // Those of a key come one after the other.
    let payloads: Vec<_> = seen.iter().map(|(payload, _)| payload.as_ref()).collect();
    assert_eq!(payloads, [b"0", b"1", b"4", b"5"]);
    assert_eq!(seen[2].1.as_deref(), Some("k4"));
    requests.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_ingest_does_not_take_keeps_the_rest_of_its_key_back() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let event = |key: &str| json!({"type": "a", "data": 1, "ordering_key": key});
    let body = json!({"events": [event("a"), event("a"), event("b")]});
    let told = world.post("/v1/tenants/acme/events/batch", body).await?;
    let statuses: Vec<_> = told.data().iter().map(|one| one["status"].as_u64()).collect();
    assert_eq!(statuses, [503, 503, 503].map(Some), "{told:?}");
    for events in [json!([]), Value::from(vec![event("a"); 1_001])] {
        let refused =
            world.post("/v1/tenants/acme/events/batch", json!({"events": events})).await?;
        assert_eq!((refused.code(), &*refused.text("field")), ("value_invalid", "events"));
    }
    Ok(())
}

#[tokio::test]
async fn another_event_under_the_key_of_one_that_is_stored_is_refused() -> Result<()> {
    use fanfare_service::Clock as _;

    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let now = fanfare_service::SystemClock.now();
    let id = EventId::new(now, [1; 10]);
    for (data, told) in [(r#"{"n":1}"#, Ok(202)), (r#"{"n":2}"#, Err("idempotency_reused"))] {
        let stored = fanfare_domain::Event {
            id: if told.is_ok() { id } else { EventId::new(now, [2; 10]) },
            tenant: "acme".parse()?,
            event_type: "a.b".parse()?,
            occurred_at: now,
            accepted_at: None,
            config_revision: None,
            data: data.into(),
            ordering_key: None,
            attributes: std::collections::BTreeMap::new(),
            idempotency_key: None,
            trace: fanfare_domain::TraceContext::default(),
        };
        world.log.publisher().event(&stored).await?.stored().await?;
        let again = PublishAnswer::Accepted { event: stored.id, duplicate: true };
        // It sends {"n":1} as a.b.
        let (answer, _) = publish(&world, again).await?;
        match told {
            Ok(status) => assert_eq!(answer.status.as_u16(), status, "{answer:?}"),
            Err(code) => assert_eq!((answer.status.as_u16(), answer.code()), (422, code)),
        }
    }
    Ok(())
}
