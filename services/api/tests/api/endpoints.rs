//! Endpoints: their secrets, their states, and the limits of profiles.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use fanfare_domain::{BreakerState, Health};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{World, holds};

#[tokio::test]
async fn secrets_are_shown_once_and_never_stored_in_the_clear() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let body = json!({
        "url": "https://example.com/hook",
        "event_types": ["integration.created"],
        "headers": {"X-Token": "t0k3n-in-the-clear"},
    });
    let made = world.post("/v1/tenants/acme/endpoints", body).await?;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let path = format!("/v1/tenants/acme/endpoints/{}", made.text("id"));
    let rotated = world.post(&format!("{path}/rotate-secret"), json!({"overlap_s": 3_600})).await?;
    assert_eq!(rotated.status, StatusCode::OK, "{rotated:?}");
    let secrets = [made.text("secret"), rotated.text("secret"), "t0k3n-in-the-clear".into()];
    assert_ne!(secrets[0], secrets[1]);
    assert_eq!(rotated.body["secrets"].as_array().map(Vec::len), Some(2));

    let (shown, list) = (world.get(&path).await?, world.get("/v1/tenants/acme/endpoints").await?);
    assert_eq!(shown.body["headers"], json!(["x-token"]));
    let stored = world.nats.everything().await?;
    assert!(stored.len() > 3);
    for secret in secrets {
        assert!(!shown.body.to_string().contains(&secret));
        assert!(!list.body.to_string().contains(&secret));
        assert!(!stored.iter().any(|message| holds(message, &secret)));
    }
    Ok(())
}

#[tokio::test]
async fn a_rotation_without_overlap_leaves_one_secret() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let path =
        format!("/v1/tenants/acme/endpoints/{}/rotate-secret", world.endpoint("acme").await?);
    let day = world.post(&path, Value::Null).await?;
    assert_eq!(day.body["secrets"].as_array().map(Vec::len), Some(2), "a day, if not said");
    let none = world.post(&path, json!({"overlap_s": 0})).await?;
    assert_eq!(none.body["secrets"].as_array().map(Vec::len), Some(1));
    let long = world.post(&path, json!({"overlap_s": 604_801})).await?;
    assert_eq!((long.code(), long.text("field").as_str()), ("value_invalid", "overlap_s"));
    let own = world.post(&path, json!({"secret": "mine"})).await?;
    assert_eq!((own.code(), own.text("field").as_str()), ("value_invalid", "secret"));
    Ok(())
}

#[tokio::test]
async fn the_health_of_an_endpoint_is_what_its_dispatcher_says() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let id = world.endpoint("acme").await?;
    let path = format!("/v1/tenants/acme/endpoints/{id}");
    let unknown = world.get(&path).await?;
    assert_eq!(unknown.body.get("health"), Some(&Value::Null), "{unknown:?}");
    let shard = world.log.shards().of(id.parse()?);
    let mut questions = world.log.health_questions(shard).await?;
    // A server that answers this knows that somebody listens.
    world.log.journal_last().await?;
    let health = Health { breaker: BreakerState::Open, held: 7, ..Health::unburdened(16) };
    let (shown, asked) = tokio::join!(world.get(&path), async {
        let question = questions.next().await.context("the log is open")?;
        let asked = question.endpoint.to_string();
        question.answer(&health).await;
        anyhow::Ok(asked)
    });
    assert_eq!(asked?, id);
    let expected = json!({
        "state": "open", "since": null, "window": 16, "in_flight": 0, "held": 7,
        "quiet_until": null,
    });
    assert_eq!(shown?.body["health"], expected);
    Ok(())
}

#[tokio::test]
async fn states_follow_from_each_other_as_they_may() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kyberaccess").await?;
    let path = format!("/v1/tenants/acme/endpoints/{}", world.endpoint("acme").await?);
    for (action, body, expected) in [
        ("resume", Value::Null, Ok(("active", Value::Null))),
        ("pause", Value::Null, Ok(("paused", json!("skip")))),
        ("enable", Value::Null, Err("endpoint_paused")),
        ("pause", json!({"mode": "hold"}), Ok(("paused", json!("hold")))),
        ("resume", json!({}), Ok(("active", Value::Null))),
        ("disable", Value::Null, Ok(("disabled", Value::Null))),
        ("pause", Value::Null, Err("endpoint_disabled")),
        ("resume", Value::Null, Err("endpoint_disabled")),
        ("enable", Value::Null, Ok(("active", Value::Null))),
    ] {
        let answer = world.post(&format!("{path}/{action}"), body).await?;
        match expected {
            Ok((state, mode)) => {
                assert_eq!(answer.text("state"), state, "{action}");
                assert_eq!(answer.body["pause_mode"], mode, "{action}");
                let mut shown = world.get(&path).await?.body;
                shown.as_object_mut().context("an endpoint")?.remove("health");
                assert_eq!(shown, answer.body, "{action}");
            }
            Err(code) => assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, code)),
        }
    }
    Ok(())
}

#[tokio::test]
async fn all_of_an_endpoint_is_cancelled_so_often_and_no_more() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (one, other) = (world.endpoint("acme").await?, world.endpoint("acme").await?);
    let cancel = |endpoint: &str| {
        let path = format!("/v1/tenants/acme/endpoints/{endpoint}/cancel-deliveries");
        let world = &world;
        async move { world.post(&path, Value::Null).await }
    };
    // In rounds: on a busy machine many of them may take longer than their pace allows.
    fanfare_testkit::wait_until("one to be refused", async || {
        let all = join_all((0..20).map(|_| cancel(&one))).await;
        let codes: Vec<_> = all.into_iter().flatten().map(|told| told.status).collect();
        let refused = codes.contains(&StatusCode::TOO_MANY_REQUESTS);
        if refused && codes.contains(&StatusCode::ACCEPTED) { Ok(()) } else { Err(codes) }
    })
    .await;
    let other = cancel(&other).await?;
    assert_eq!(other.status, StatusCode::ACCEPTED, "each has its own pace: {other:?}");
    Ok(())
}

#[tokio::test]
async fn a_deleted_endpoint_is_gone() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let path = format!("/v1/tenants/acme/endpoints/{}", world.endpoint("acme").await?);
    for expected in [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND] {
        assert_eq!(world.call(Method::DELETE, &path, Value::Null).await?.status, expected);
    }
    assert_eq!(world.get(&path).await?.code(), "endpoint_not_found");
    assert_eq!(
        world.post(&format!("{path}/pause"), Value::Null).await?.code(),
        "endpoint_not_found"
    );
    Ok(())
}

fn killb() -> Value {
    json!({
        "url": "https://example.com/hook",
        "event_types": ["RAMP"],
        "secret": "0123456789abcdef0123456789abcdef",
    })
}

#[tokio::test]
async fn killb_has_one_active_endpoint_also_of_many_made_at_once() -> Result<()> {
    let world = World::new().await?;
    let other = world.another().await?;
    for round in 0..5 {
        let tenant = format!("t{round}");
        world.tenant(&tenant, "killb").await?;
        let path = format!("/v1/tenants/{tenant}/endpoints");
        let calls = (0..8).map(|number| {
            let api = if number % 2 == 0 { &world.api } else { &other };
            api.call(Method::POST, &path, Some(&world.operator), killb())
        });
        let mut made = 0;
        for answer in join_all(calls).await {
            let answer = answer?;
            match answer.status {
                StatusCode::CREATED => made += 1,
                _ => assert_eq!(answer.code(), "active_endpoints_limit"),
            }
        }
        assert_eq!(made, 1, "round {round}");
        assert_eq!(world.get(&path).await?.data().len(), 1);
    }
    other.stop().await
}

#[tokio::test]
async fn killb_has_one_active_endpoint_whose_place_a_second_can_take() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "killb").await?;
    let path = "/v1/tenants/acme/endpoints";
    let first = world.post(path, killb()).await?.text("id");
    assert_eq!(world.post(path, killb()).await?.code(), "active_endpoints_limit");
    world.post(&format!("{path}/{first}/disable"), Value::Null).await?;
    let second = world.post(path, killb()).await?;
    assert_eq!(second.body["event_types"], json!(["RAMP"]));
    let refused = world.post(&format!("{path}/{first}/enable"), Value::Null).await?;
    assert_eq!(refused.code(), "active_endpoints_limit");
    assert_eq!(world.get(&format!("{path}/{first}")).await?.text("state"), "disabled");
    let short = json!({"url": "https://example.com/", "event_types": ["RAMP"], "secret": "short"});
    let refused = world.post(path, short).await?;
    assert_eq!(refused.text("field"), "secret");
    let detail = refused.text("detail");
    assert!(detail.contains('5') && detail.contains("32"), "{detail}");
    Ok(())
}

#[tokio::test]
async fn urls_that_lead_inside_are_refused_with_a_code() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    world.tenant("strict", "kyberaccess").await?;
    let codes = async |tenant: &str, url: &str| {
        let body = json!({"url": url, "event_types": ["a"]});
        let answer = world.post(&format!("/v1/tenants/{tenant}/endpoints"), body).await?;
        let made = answer.status == StatusCode::CREATED;
        anyhow::Ok(String::from(if made { "" } else { answer.code() }))
    };
    for (url, code) in [
        ("https://10.0.0.1/", "url_address_forbidden"),
        ("https://169.254.169.254/latest", "url_address_forbidden"),
        ("https://2130706433/", ""),
        ("http://127.0.0.1:9999/", ""),
        ("https://a:b@example.com/", "url_credentials_forbidden"),
        ("https://example.com:22/", "url_port_forbidden"),
        ("ftp://example.com/", "url_scheme_invalid"),
        ("http://example.com/", ""),
    ] {
        assert_eq!(codes("acme", url).await?, code, "{url}");
    }
    assert_eq!(codes("strict", "http://example.com/").await?, "url_https_required");
    assert_eq!(codes("strict", "http://127.0.0.1:9999/").await?, "", "the operator allows it");
    Ok(())
}

#[tokio::test]
async fn ids_of_endpoints_differ() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let made = join_all((0..20).map(|_| world.endpoint("acme"))).await;
    let ids: BTreeSet<String> = made.into_iter().collect::<Result<_>>()?;
    assert_eq!(ids.len(), 20);
    Ok(())
}
