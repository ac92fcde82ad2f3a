//! What a tenant may have: its plan, how many endpoints, and how many replays.

use anyhow::Result;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::World;

fn endpoint() -> Value {
    json!({"url": "https://example.com/hook", "event_types": ["visitor.denied"]})
}

#[tokio::test]
async fn a_plan_of_kyberaccess_gives_a_tenant_its_limits() -> Result<()> {
    let world = World::new().await?;
    let new = json!({"id": "acme", "profile": "kyberaccess", "plan": "starter"});
    let made = world.post("/v1/tenants", new).await?;
    let per_second = |count: u32| json!({"requests": count, "per": "second", "burst": 1});
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.body["endpoints_max"], 3);
    assert_eq!(made.body["rate_limit"], per_second(10));
    for (patch, plan, endpoints, rate) in [
        (json!({"name": "A"}), json!("starter"), json!(3), per_second(10)),
        (json!({"plan": "professional"}), json!("professional"), json!(10), per_second(50)),
        (json!({"endpoints_max": 12}), json!("professional"), json!(12), per_second(50)),
        (json!({"plan": "enterprise"}), json!("enterprise"), Value::Null, per_second(200)),
        (json!({"plan": null}), Value::Null, Value::Null, Value::Null),
    ] {
        let changed = world.call(Method::PATCH, "/v1/tenants/acme", patch.clone()).await?;
        let shown = ["plan", "endpoints_max", "rate_limit"].map(|name| changed.body[name].clone());
        assert_eq!(shown, [plan, endpoints, rate], "{patch}");
    }
    for body in [json!({"plan": "gold"}), json!({"endpoints_max": 0})] {
        let refused = world.call(Method::PATCH, "/v1/tenants/acme", body.clone()).await?;
        let field = body.as_object().and_then(|members| members.keys().next().cloned());
        assert_eq!((refused.code(), Some(refused.text("field"))), ("value_invalid", field));
    }
    Ok(())
}

#[tokio::test]
async fn over_the_endpoint_limit_of_its_plan_a_tenant_is_refused() -> Result<()> {
    let world = World::new().await?;
    let new = json!({"id": "acme", "profile": "kyberaccess", "plan": "starter"});
    world.post("/v1/tenants", new).await?;
    let path = "/v1/tenants/acme/endpoints";
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(world.post(path, endpoint()).await?.text("id"));
    }
    // Disabled ones count: they are the tenant's all the same.
    world.post(&format!("{path}/{}/disable", made[0]), Value::Null).await?;
    let refused = world.post(path, endpoint()).await?;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "endpoints_limit"));
    assert!(refused.text("detail").contains("3 endpoints (plan starter)"), "{refused:?}");
    world.call(Method::DELETE, &format!("{path}/{}", made[0]), Value::Null).await?;
    assert_eq!(world.post(path, endpoint()).await?.status, StatusCode::CREATED);
    // What a tenant has stays when its limit falls.
    world.call(Method::PATCH, "/v1/tenants/acme", json!({"endpoints_max": 1})).await?;
    assert_eq!(world.get(path).await?.data().len(), 3);
    assert_eq!(world.post(path, endpoint()).await?.code(), "endpoints_limit");
    world.call(Method::PATCH, "/v1/tenants/acme", json!({"endpoints_max": null})).await?;
    assert_eq!(world.post(path, endpoint()).await?.status, StatusCode::CREATED);
    Ok(())
}

#[tokio::test]
async fn of_many_endpoints_at_once_two_processes_make_as_many_as_the_limit_allows() -> Result<()> {
    let world = World::new().await?;
    let other = world.another().await?;
    for round in 0..3 {
        let tenant = format!("t{round}");
        let new = json!({"id": tenant, "profile": "kyberaccess", "endpoints_max": 3});
        world.post("/v1/tenants", new).await?;
        let before = world.nats.last_sequence("FANFARE_CONFIG").await?;
        let path = format!("/v1/tenants/{tenant}/endpoints");
        let calls = (0..10).map(|number| {
            let api = if number % 2 == 0 { &world.api } else { &other };
            api.call(Method::POST, &path, Some(&world.operator), endpoint())
        });
        let mut made = 0;
        for answer in join_all(calls).await {
            let answer = answer?;
            match answer.status {
                StatusCode::CREATED => made += 1,
                _ => assert_eq!(answer.code(), "endpoints_limit", "{answer:?}"),
            }
        }
        assert_eq!(made, 3, "round {round}");
        assert_eq!(world.get(&path).await?.data().len(), 3);
        let written = world.nats.last_sequence("FANFARE_CONFIG").await? - before;
        assert_eq!(written, 3, "none was made and taken back");
    }
    other.stop().await
}

#[tokio::test]
async fn a_tenant_has_some_replays_under_way_at_most() -> Result<()> {
    let world = World::new().await?;
    for tenant in ["acme", "other"] {
        world.tenant(tenant, "standard-webhooks").await?;
    }
    let (path, since) = ("/v1/tenants/acme/replays", json!({"since": "2026-01-01T00:00:00Z"}));
    let mut made = Vec::new();
    for _ in 0..20 {
        let replay = world.post(path, since.clone()).await?;
        assert_eq!(replay.status, StatusCode::ACCEPTED, "{replay:?}");
        made.push(replay.text("id"));
    }
    let refused = world.post(path, since.clone()).await?;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "replays_limit"));
    let others = world.post("/v1/tenants/other/replays", since.clone()).await?;
    assert_eq!(others.status, StatusCode::ACCEPTED);
    world.post(&format!("{path}/{}/cancel", made[0]), Value::Null).await?;
    assert_eq!(world.post(path, since).await?.status, StatusCode::ACCEPTED);
    Ok(())
}

#[tokio::test]
async fn of_many_replays_at_once_two_processes_begin_as_many_as_there_may_be() -> Result<()> {
    let world = World::new().await?;
    let other = world.another().await?;
    world.tenant("acme", "standard-webhooks").await?;
    let (path, since) = ("/v1/tenants/acme/replays", json!({"since": "2026-01-01T00:00:00Z"}));
    for _ in 0..18 {
        world.post(path, since.clone()).await?;
    }
    let calls = (0..8).map(|number| {
        let api = if number % 2 == 0 { &world.api } else { &other };
        api.call(Method::POST, path, Some(&world.operator), since.clone())
    });
    let mut made = 0;
    for answer in join_all(calls).await {
        let answer = answer?;
        match answer.status {
            StatusCode::ACCEPTED => made += 1,
            _ => assert_eq!(answer.code(), "replays_limit", "{answer:?}"),
        }
    }
    assert_eq!(made, 2);
    let all = world.get(&format!("{path}?limit=100")).await?;
    let running = all.data().iter().filter(|replay| replay["state"] == "running").count();
    assert_eq!(running, 20);
    other.stop().await
}

#[tokio::test]
async fn of_many_event_types_at_once_two_processes_add_as_many_as_there_is_room_for() -> Result<()>
{
    let world = World::new().await?;
    let other = world.another().await?;
    world.tenant("acme", "standard-webhooks").await?;
    let webhooks: serde_json::Map<String, Value> =
        (0..998).map(|number| (format!("type.n{number}"), json!({"post": {}}))).collect();
    let document = json!({
        "openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "webhooks": webhooks,
    });
    let imported =
        world.post("/v1/tenants/acme/event-type-imports", json!({"openapi": document})).await?;
    assert_eq!(imported.body["created"].as_array().map(Vec::len), Some(998), "{imported:?}");
    let path = "/v1/tenants/acme/event-types";
    let calls = (0..8).map(|number| {
        let api = if number % 2 == 0 { &world.api } else { &other };
        let new = json!({"type": format!("more.n{number}")});
        api.call(Method::POST, path, Some(&world.operator), new)
    });
    let mut made = 0;
    for answer in join_all(calls).await {
        let answer = answer?;
        match answer.status {
            StatusCode::CREATED => made += 1,
            _ => assert_eq!(answer.code(), "event_types_limit", "{answer:?}"),
        }
    }
    assert_eq!(made, 2);
    other.stop().await
}
