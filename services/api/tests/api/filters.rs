//! Filters by content: admitted, changed, and tried.

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::World;

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";

fn new(filter: &str) -> Value {
    json!({"url": "https://example.com/hook", "event_types": ["a.*"], "filter": filter})
}

#[tokio::test]
async fn a_broken_filter_is_refused_with_the_place() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    for (filter, place) in [
        ("data.amount >", "line 1, column 14: "),
        ("event.amount > 1", "line 1, column 1: "),
        ("", "line 1, column 1: "),
    ] {
        let answer = world.post(ENDPOINTS, new(filter)).await?;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "value_invalid"));
        assert_eq!(answer.text("field"), "filter");
        assert!(answer.text("detail").starts_with(place), "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_filter_is_set_changed_and_taken_away() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    let made = world.post(ENDPOINTS, new("data.amount > 100")).await?;
    assert_eq!(made.text("filter"), "data.amount > 100");
    let path = format!("{ENDPOINTS}/{}", made.text("id"));
    for (patch, expected) in [
        (json!({"name": "n"}), json!("data.amount > 100")),
        (json!({"filter": "data.amount > 5"}), json!("data.amount > 5")),
        (json!({"filter": null}), Value::Null),
    ] {
        let changed = world.call(Method::PATCH, &path, patch).await?;
        assert_eq!(changed.status, StatusCode::OK);
        assert_eq!(changed.body["filter"], expected);
        assert_eq!(world.get(&path).await?.body["filter"], expected);
    }
    let refused = world.call(Method::PATCH, &path, json!({"filter": "("})).await?;
    assert_eq!(refused.code(), "value_invalid");
    Ok(())
}

#[tokio::test]
async fn a_filter_is_tried_without_an_event() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kyberaccess").await?;
    let made = world.post(ENDPOINTS, new("data.amount > 100")).await?;
    let path = format!("{ENDPOINTS}/{}/filter/test", made.text("id"));
    for (event, matches, type_matches, filter, reason) in [
        (json!({"type": "a.b", "data": {"amount": 150}}), true, true, json!(true), ""),
        (json!({"type": "a.b", "data": {"amount": 1}}), false, true, json!(false), "the filter"),
        (json!({"type": "a.b", "data": {}}), false, true, Value::Null, "there is no `amount`"),
        (json!({"type": "b", "data": {"amount": 150}}), false, false, json!(true), "the type"),
    ] {
        let verdict = world.post(&path, event).await?.body;
        assert_eq!(verdict["matches"], json!(matches), "{verdict}");
        assert_eq!(verdict["type_matches"], json!(type_matches), "{verdict}");
        assert_eq!(verdict["filter_matches"], filter, "{verdict}");
        let told = verdict["reason"].as_str().unwrap_or_default();
        assert!(told.starts_with(reason) && told.is_empty() == matches, "{verdict}");
    }
    let trial = json!({
        "event_types": ["*"],
        "filter": "attributes.region == 'eu'",
        "event": {"type": "a.b.c", "data": 1, "attributes": {"region": "eu"}},
    });
    let verdict = world.post("/v1/tenants/acme/filter/test", trial).await?;
    assert_eq!(verdict.body["matches"], json!(true), "{verdict:?}");
    let (_, reader) = world.key(Some("acme"), "read").await?;
    let event = json!({"type": "a.b", "data": {"amount": 150}});
    let read = world.api.call(Method::POST, &path, Some(&reader), event).await?;
    assert_eq!(read.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_key_has_filters_tried_so_often_and_no_more() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (_, reader) = world.key(Some("acme"), "read").await?;
    let path = "/v1/tenants/acme/filter/test";
    let trial = json!({"filter": "data > 1", "event": {"type": "a", "data": 2}});
    let call = |key: String| {
        let (api, trial) = (&world.api, trial.clone());
        async move { api.call(Method::POST, path, Some(&key), trial).await }
    };
    // In rounds: on a busy machine many of them may take longer than their pace allows.
    fanfare_testkit::wait_until("one to be refused", async || {
        let all = futures_util::future::join_all((0..100).map(|_| call(reader.clone()))).await;
        let told = all.into_iter().flatten().filter(|told| told.status != StatusCode::OK);
        match told.map(|told| (told.code() == "too_often", told)).next() {
            Some((true, told)) if told.headers["retry-after"] == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let other = call(world.operator.clone()).await?;
    assert_eq!(other.status, StatusCode::OK, "each key has its own pace: {other:?}");
    Ok(())
}
