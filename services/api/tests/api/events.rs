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
