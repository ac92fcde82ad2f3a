//! `Idempotency-Key`: a repeat is answered as the first request was.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use fanfare_domain::{EventId, Timestamp};
use fanfare_event_log::{PublishAnswer, Request};
use fanfare_testkit::wait_until;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Api, World, any_body, holds, operations};

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";

fn endpoint() -> Value {
    json!({"url": "https://example.com/hook", "event_types": ["a"]})
}

async fn repeat(api: &Api, bearer: &str, path: &str, key: &str, body: Value) -> Result<Answer> {
    let request = api.request(Method::POST, path).bearer_auth(bearer);
    Answer::of(request.header("idempotency-key", key).json(&body)).await
}

#[tokio::test]
async fn a_repeat_gets_the_same_answer_from_any_process_and_does_nothing() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let other = world.another().await?;
    let first = repeat(&world.api, &world.operator, ENDPOINTS, "once", endpoint()).await?;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert!(first.headers.get("idempotency-replayed").is_none());
    for api in [&world.api, &other] {
        let again = repeat(api, &world.operator, ENDPOINTS, "once", endpoint()).await?;
        assert_eq!((again.status, &again.body), (first.status, &first.body), "secret included");
        for header in ["etag", "location", "content-type"] {
            assert_eq!(again.headers[header], first.headers[header]);
        }
        assert_eq!(again.headers["idempotency-replayed"], "true");
    }
    assert_eq!(world.get(ENDPOINTS).await?.data().len(), 1);
    let path = format!("{ENDPOINTS}/{}/rotate-secret", first.text("id"));
    let rotated = repeat(&world.api, &world.operator, &path, "rotate", json!({})).await?;
    let again = repeat(&other, &world.operator, &path, "rotate", json!({})).await?;
    assert_eq!(rotated.text("secret"), again.text("secret"));
    for message in world.nats.everything().await? {
        for secret in [first.text("secret"), rotated.text("secret")] {
            assert!(!holds(&message, &secret), "{}", message.subject);
        }
    }
    other.stop().await
}

#[tokio::test]
async fn of_repeats_at_the_same_time_one_is_carried_out_and_all_get_its_answer() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let other = world.another().await?;
    for round in 0..3 {
        let key = format!("round-{round}");
        let calls = (0..8).map(|number| {
            let api = if number % 2 == 0 { &world.api } else { &other };
            repeat(api, &world.operator, ENDPOINTS, &key, endpoint())
        });
        let mut secrets = BTreeSet::new();
        for answer in join_all(calls).await {
            let answer = answer?;
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            secrets.insert((answer.text("id"), answer.text("secret")));
        }
        assert_eq!(secrets.len(), 1, "round {round}");
    }
    assert_eq!(world.get(ENDPOINTS).await?.data().len(), 3);
    other.stop().await
}

#[tokio::test]
async fn another_request_with_the_same_key_is_refused() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    repeat(&world.api, &world.operator, ENDPOINTS, "k", endpoint()).await?;
    let other_body = json!({"url": "https://example.com/other", "event_types": ["a"]});
    for (path, body) in [(ENDPOINTS, other_body), ("/v1/tenants", json!({"id": "other"}))] {
        let refused = repeat(&world.api, &world.operator, path, "k", body).await?;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_reused")
        );
    }
    // What is wrong stays so, under its own key.
    for _ in 0..2 {
        let wrong = json!({"url": "ftp://example.com", "event_types": ["a"]});
        let refused = repeat(&world.api, &world.operator, ENDPOINTS, "w", wrong).await?;
        assert_eq!(refused.code(), "url_scheme_invalid");
    }
    let long = "k".repeat(257);
    for key in ["", &long] {
        let refused = repeat(&world.api, &world.operator, ENDPOINTS, key, endpoint()).await?;
        assert_eq!((refused.code(), &*refused.text("field")), ("value_invalid", "Idempotency-Key"));
    }
    Ok(())
}

#[tokio::test]
async fn a_key_counts_for_the_api_key_that_it_came_with() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let made = repeat(&world.api, &world.operator, ENDPOINTS, "k", endpoint()).await?;
    let (_, reader) = world.key(Some("acme"), "read").await?;
    let refused = repeat(&world.api, &reader, ENDPOINTS, "k", endpoint()).await?;
    assert_eq!(refused.code(), "forbidden", "nobody gets another one's answer");
    let (_, admin) = world.key(Some("acme"), "admin").await?;
    let own = repeat(&world.api, &admin, ENDPOINTS, "k", endpoint()).await?;
    assert_eq!(own.status, StatusCode::CREATED);
    assert_ne!(own.text("id"), made.text("id"));
    let nobody = world.api.request(Method::POST, ENDPOINTS).header("idempotency-key", "k");
    let refused = Answer::of(nobody.json(&endpoint())).await?;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn a_caller_that_hangs_up_finds_the_answer_when_it_comes_back() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    for round in 0..5 {
        let key = format!("round-{round}");
        let call = repeat(&world.api, &world.operator, ENDPOINTS, &key, endpoint());
        // It is dropped in the middle of whatever it has come to by then.
        let pause = std::time::Duration::from_millis(3 * round + 1);
        drop(tokio::time::timeout(pause, call).await);
        let again = repeat(&world.api, &world.operator, ENDPOINTS, &key, endpoint()).await?;
        assert_eq!(again.status, StatusCode::CREATED, "{again:?}");
    }
    let made = wait_until("one endpoint for each key", async || {
        let made = world.get(ENDPOINTS).await.map(|list| list.data().len());
        if matches!(made, Ok(5)) { Ok(5) } else { Err(format!("{made:?}")) }
    })
    .await;
    assert_eq!(made, 5);
    Ok(())
}

#[tokio::test]
async fn a_batch_of_which_nothing_was_taken_is_sent_by_its_repeat() -> Result<()> {
    const BATCH: &str = "/v1/tenants/acme/events/batch";

    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let batch = || {
        let event = |data: u8| json!({"type": "a", "data": data, "ordering_key": data.to_string()});
        repeat(&world.api, &world.operator, BATCH, "k", json!({"events": [event(1), event(2)]}))
    };
    // Ingest is away.
    let told = batch().await?;
    assert_eq!((told.status, &told.body["accepted"]), (StatusCode::OK, &json!(0)), "{told:?}");
    // It takes one of the two.
    let mut requests = world.log.requests().await?;
    let ingest = async {
        for number in 0..2_u8 {
            let Request { message, reply } = requests.next().await.context("a request")?;
            let answer = if message.payload == "1" {
                let event = EventId::new(Timestamp::from_millis(7), [number; 10]);
                PublishAnswer::Accepted { event, duplicate: false }
            } else {
                PublishAnswer::Unavailable { detail: String::from("EVENTS is full") }
            };
            reply.send(&answer).await;
        }
        anyhow::Ok(())
    };
    let (told, asked) = tokio::join!(batch(), ingest);
    let told = told?;
    asked?;
    assert!(told.headers.get("idempotency-replayed").is_none(), "{told:?}");
    let statuses: Vec<_> = told.data().iter().map(|one| one["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(202), Some(503)], "{told:?}");
    // One was taken, so this is the answer.
    let again = batch().await?;
    assert_eq!(
        (&again.body, &again.headers["idempotency-replayed"]),
        (&told.body, &"true".parse()?)
    );
    requests.stop().await;
    Ok(())
}

#[tokio::test]
async fn every_post_takes_a_key() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let document: Value = serde_json::from_str(&fanfare_api::openapi_document())?;
    let posts = operations().into_iter().filter(|operation| operation.method == Method::POST);
    for operation in posts {
        let parameters = &document["paths"][&operation.path]["post"]["parameters"];
        let named = parameters.as_array().is_some_and(|all| {
            all.iter().any(|one| one["name"] == "Idempotency-Key" && one["in"] == "header")
        });
        // Each time that secrets are shown is on record.
        let never = operation.id == "reveal_secrets";
        assert_eq!(named, !never, "{operation:?}");
        if never || operation.id == "publish_event" {
            continue;
        }
        let unknown = "ep_00000000000000000000000000";
        let values = [("tenant", "acme"), ("endpoint", unknown)];
        let path = operation.path_with(&values);
        let call =
            || repeat(&world.api, &world.operator, &path, &operation.id, any_body(&operation));
        let (first, again) = (call().await?, call().await?);
        assert_eq!((first.status, first.body), (again.status, again.body), "{operation:?}");
        assert_eq!(again.headers["idempotency-replayed"], "true", "{operation:?}");
    }
    Ok(())
}
