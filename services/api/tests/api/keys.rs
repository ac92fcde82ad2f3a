//! Keys that come with the settings, and those that are made.

use anyhow::Result;
use fanfare_testkit::Proxy;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, World, holds};

#[tokio::test]
async fn the_operators_key_is_admitted_once_and_deleted_for_good() -> Result<()> {
    let world = World::new().await?;
    let (one, other) = tokio::try_join!(world.another(), world.another())?;
    let admitted = world.get("/v1/keys").await?.ids();
    assert_eq!(admitted.len(), 1);
    one.stop().await?;
    other.stop().await?;
    let (_, new) = world.key(None, "admin").await?;
    let path = format!("/v1/keys/{}", admitted[0]);
    let gone = world.call(Method::DELETE, &path, Value::Null).await?;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get("/v1/keys").await?.status, StatusCode::UNAUTHORIZED);
    let again = world.another().await?;
    let refused = again.call(Method::GET, "/v1/keys", Some(&world.operator), Value::Null).await?;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "it is not admitted again");
    let left = again.call(Method::GET, "/v1/keys", Some(&new), Value::Null).await?;
    assert_eq!(left.data().len(), 1);
    again.stop().await
}

#[tokio::test]
async fn a_deleted_key_changes_nothing_and_is_told_nothing_by_any_process() -> Result<()> {
    let mut world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let proxy = Proxy::to(world.nats.server().client_address()).await?;
    let other = world.another_by(&proxy).await?;
    let path = "/v1/tenants/acme/endpoints";
    let endpoint = json!({"url": "https://example.com/hook", "event_types": ["a"]});
    let create = |bearer: &str, key: Option<&'static str>| {
        let request = other.request(Method::POST, path).bearer_auth(bearer).json(&endpoint);
        Answer::of(match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        })
    };
    let (id, key) = world.key(Some("acme"), "admin").await?;
    let links = "/v1/tenants/acme/portal-links";
    let link = other.call(Method::POST, links, Some(&key), json!({"role": "admin"})).await?;
    let link = link.text("token");
    let (operators_id, operators) = world.key(None, "admin").await?;
    let expunge = other.request(Method::POST, "/v1/tenants/acme/expunge").bearer_auth(&operators);
    let expunge = Answer::of(expunge.json(&json!({"confirm": "acme"})));
    let made = create(&key, Some("kept")).await?;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    // The other process does not hear of the deletion until requests have come that it would let in.
    proxy.hold_answers();
    world.call(Method::DELETE, &format!("/v1/tenants/acme/keys/{id}"), Value::Null).await?;
    world.call(Method::DELETE, &format!("/v1/keys/{operators_id}"), Value::Null).await?;
    let calls = [(&key, None), (&key, Some("kept")), (&key, Some("new")), (&link, None)];
    let calls = calls.map(|(bearer, key)| create(bearer, key)).into_iter().chain([expunge]);
    let releasing = async {
        fanfare_testkit::wait_until("the requests to come", async || {
            let told = other.call(Method::GET, "/metrics", Some(&world.operator), Value::Null);
            let told = told.await.map(|told| told.body.as_str().map(open_connections));
            if matches!(told, Ok(Some(6..))) { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
        proxy.release();
    };
    let (refused, ()) = tokio::join!(futures_util::future::join_all(calls), releasing);
    for refused in refused {
        let refused = refused?;
        // Whoever had to wait for too long is told to try again.
        let expected = [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE];
        assert!(expected.contains(&refused.status), "{refused:?}");
    }
    assert_eq!(create(&key, Some("kept")).await?.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get(path).await?.data().len(), 1);
    other.stop().await
}

fn open_connections(metrics: &str) -> u32 {
    let value = metrics.lines().find_map(|line| line.strip_prefix("fanfare_api_connections "));
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_deleted_key_publishes_no_more_within_a_moment() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let other = world.another().await?;
    let (id, key) = world.key(Some("acme"), "publish").await?;
    world.call(Method::DELETE, &format!("/v1/tenants/acme/keys/{id}"), Value::Null).await?;
    fanfare_testkit::wait_until("the key to be refused", async || {
        let event = json!({"type": "a", "data": 1});
        let told = other.call(Method::POST, "/v1/tenants/acme/events", Some(&key), event).await;
        match told {
            Ok(told) if told.status == StatusCode::UNAUTHORIZED => Ok(()),
            told => Err(format!("{told:?}")),
        }
    })
    .await;
    other.stop().await
}

#[tokio::test]
async fn a_use_that_is_written_after_its_key_was_deleted_is_forgotten_too() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (id, key) = world.key(Some("acme"), "read").await?;
    let hour = fanfare_domain::Timestamp::from_millis(3_600_000);
    world.api.call(Method::GET, "/v1/tenants/acme", Some(&key), Value::Null).await?;
    let another = world.another().await?;
    another.call(Method::GET, "/v1/tenants/acme", Some(&key), Value::Null).await?;
    world.call(Method::DELETE, &format!("/v1/tenants/acme/keys/{id}"), Value::Null).await?;
    // As the other process would, had it looked a moment before.
    world.log.key_used(id.parse()?, hour).await?;
    fanfare_testkit::wait_until("the use to be forgotten", async || {
        match id.parse().map(|id| world.log.key_last_used(id)) {
            Ok(used) => match used.await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            },
            Err(malformed) => Err(format!("{malformed:?}")),
        }
    })
    .await;
    another.stop().await
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_a_hash() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let made =
        world.post("/v1/tenants/acme/keys", json!({"role": "publish", "name": "ci"})).await?;
    let key = made.text("key");
    assert!(key.starts_with("fk_"));
    let list = world.get("/v1/tenants/acme/keys").await?;
    assert!(!list.body.to_string().contains(&key));
    assert_eq!(list.body["data"][0]["name"], "ci");
    assert_eq!(list.body["data"][0]["role"], "publish");
    for message in world.nats.everything().await? {
        assert!(!holds(&message, &key), "{}", message.subject);
        assert!(!holds(&message, &world.operator), "{}", message.subject);
    }
    Ok(())
}

#[tokio::test]
async fn an_operators_key_is_not_among_a_tenants() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (id, _) = world.key(None, "read").await?;
    let path = format!("/v1/tenants/acme/keys/{id}");
    let answer = world.call(Method::DELETE, &path, Value::Null).await?;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "key_not_found"));
    Ok(())
}

#[tokio::test]
async fn with_other_sealing_keys_than_the_installations_it_does_not_start() -> Result<()> {
    let world = World::new().await?;
    let (first, second) = ("ab".repeat(32), "cd".repeat(32));
    world.another_with_key(&second).await?.stop().await?;
    world.tenant("acme", "standard-webhooks").await?;
    let endpoint = world.endpoint("acme").await?;
    let Err(refused) = world.another_with_key(&second).await else {
        anyhow::bail!("it started with keys that open nothing");
    };
    let refused = format!("{refused:#}");
    assert!(refused.contains(&endpoint), "{refused}");
    assert!(refused.contains("sealed with key ") && refused.contains("Restore"), "{refused}");
    world.another_with_key(&format!("{second}\n{first}")).await?.stop().await
}

#[tokio::test]
async fn what_an_old_sealing_key_sealed_is_sealed_anew() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    world.tenant("beta", "standard-webhooks").await?;
    let body = json!({"url": "https://example.com/hook", "event_types": ["a.b"],
                      "headers": {"x-token": "t"}});
    world.post("/v1/tenants/acme/endpoints", body).await?;
    for _ in 0..2 {
        world.endpoint("beta").await?;
    }
    let (first, second) = ("ab".repeat(32), "cd".repeat(32));
    let both = world.another_with_key(&format!("{second}\n{first}")).await?;
    let rotate = async |body: Value| {
        let path = "/v1/sealing-key/rotate";
        let answer = both.call(Method::POST, path, Some(&world.operator), body).await?;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let counts = ["looked_at", "resealed"].map(|name| answer.body[name].as_u64().unwrap());
        let by: Vec<_> = answer.body["sealed_by"].as_object().unwrap().values().cloned().collect();
        anyhow::Ok((counts, by))
    };
    assert_eq!(rotate(json!({"dry_run": true})).await?, ([3, 3], vec![json!(4)]));
    assert!(world.another_with_key(&second).await.is_err(), "nothing was done yet");
    assert_eq!(rotate(json!({})).await?, ([3, 3], vec![json!(4)]));
    assert_eq!(rotate(json!({})).await?, ([3, 0], vec![json!(4)]), "it does no harm again");
    let new = world.another_with_key(&second).await?;
    let list =
        new.call(Method::GET, "/v1/tenants/beta/endpoints", Some(&world.operator), Value::Null);
    let end = list.await?.data().last().and_then(|one| one["id"].as_str()).map(String::from);
    let after = format!("beta/{}", end.expect("there are two"));
    assert_eq!(rotate(json!({"after": after})).await?, ([0, 0], vec![]));
    let (_, read_only) = world.key(None, "read").await?;
    let path = "/v1/sealing-key/rotate";
    let refused = new.call(Method::POST, path, Some(&read_only), json!({})).await?;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let refused =
        new.call(Method::POST, path, Some(&world.operator), json!({"after": "x"})).await?;
    assert_eq!(refused.code(), "value_invalid");
    both.stop().await?;
    new.stop().await
}

#[tokio::test]
async fn a_keys_last_use_is_told_to_the_hour_by_any_process() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let other = world.another().await?;
    let (id, key) = world.key(Some("acme"), "read").await?;
    let path = "/v1/tenants/acme/keys";
    let used = async |api: &crate::support::Api| {
        let list = api.call(Method::GET, path, Some(&world.operator), Value::Null).await?;
        anyhow::Ok(list.body["data"][0]["last_used_at"].clone())
    };
    assert_eq!(used(&world.api).await?, Value::Null);
    world.api.call(Method::GET, "/v1/tenants/acme", Some(&key), Value::Null).await?;
    let here = used(&world.api).await?;
    let hour = here.as_str().is_some_and(|at| at.ends_with(":00:00.000Z"));
    assert!(hour, "{here}");
    fanfare_testkit::wait_until("the use to be written", async || match used(&other).await {
        Ok(there) if there == here => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let gone = world.call(Method::DELETE, &format!("{path}/{id}"), Value::Null).await?;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(world.log.key_last_used(id.parse()?).await?, None, "it is forgotten with the key");
    other.stop().await
}

#[tokio::test]
async fn only_an_operators_key_made_for_it_shows_secrets_again_and_says_why() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let body = json!({"url": "https://example.com/hook", "event_types": ["a"]});
    let made = world.post("/v1/tenants/acme/endpoints", body).await?;
    let path = format!("/v1/tenants/acme/endpoints/{}", made.text("id"));
    let reveal = async |key: &str, reason: &str| {
        let request = world.api.request(Method::POST, &format!("{path}/reveal-secrets"));
        let request = request.bearer_auth(key).header("fanfare-reason", reason);
        Answer::of(request).await
    };
    assert_eq!(reveal(&world.operator, "why").await?.code(), "forbidden");
    let new = json!({"role": "admin", "reveals_secrets": true});
    let refused = world.post("/v1/tenants/acme/keys", new.clone()).await?;
    assert_eq!((refused.code(), &*refused.text("field")), ("value_invalid", "reveals_secrets"));
    let reader = json!({"role": "read", "reveals_secrets": true});
    assert_eq!(world.post("/v1/keys", reader).await?.code(), "value_invalid");
    let key = world.post("/v1/keys", new).await?.text("key");
    let silent = reveal(&key, "").await?;
    assert_eq!((silent.code(), &*silent.text("field")), ("value_invalid", "Fanfare-Reason"));
    let before = world.get(&path).await?;
    let shown = reveal(&key, "ticket 7").await?;
    assert_eq!(shown.body["secrets"][0]["secret"], made.body["secret"], "{shown:?}");
    // It is on record, and changes nothing.
    let after = world.get(&path).await?;
    assert_eq!(after.body, before.body);
    let revision = after.etag().trim_matches('"').parse()?;
    let change = world.log.configured(revision).await?.expect("it is the last revision");
    assert_eq!(change.reason, "showed the secrets: ticket 7");
    assert_ne!(after.etag(), before.etag());
    // An Idempotency-Key keeps no secrets: each time is a time of its own, and on record.
    let again = async || {
        let request = world.api.request(Method::POST, &format!("{path}/reveal-secrets"));
        let request = request.bearer_auth(&key).header("fanfare-reason", "ticket 7");
        Answer::of(request.header("idempotency-key", "reveal")).await
    };
    let first = again().await?;
    assert_eq!(first.body["secrets"].as_array().map(Vec::len), Some(1), "{first:?}");
    let seen = world.get(&path).await?.etag();
    let rotated = world.post(&format!("{path}/rotate-secret"), json!({})).await?;
    let second = again().await?;
    assert_eq!(second.body["secrets"].as_array().map(Vec::len), Some(2), "{second:?}");
    assert!(second.headers.get("idempotency-replayed").is_none());
    assert_ne!(world.get(&path).await?.etag(), seen);
    let both = reveal(&key, "ticket 8").await?;
    let secrets: Vec<_> =
        (0..2).map(|place| both.body["secrets"][place]["secret"].clone()).collect();
    assert_eq!(secrets, [rotated.body["secret"].clone(), made.body["secret"].clone()]);
    Ok(())
}
