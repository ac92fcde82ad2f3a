//! A tenant's key sees nothing of another tenant: each route answers as if it were absent.

use anyhow::Result;
use fanfare_domain::{
    EndpointId, EventId, Fact, Record, TenantId, Timestamp, TraceContext, fact::EventRouted,
};
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{World, any_body, operations};

/// Puts an event with one target on record, and returns it.
async fn routed(world: &World, tenant: &str, endpoint: EndpointId) -> Result<EventId> {
    let event = EventId::new(SystemClock.now(), random_bytes());
    let fact = Fact::EventRouted(EventRouted {
        event,
        tenant: tenant.parse::<TenantId>()?,
        event_sequence: 1,
        config_revision: 1,
        generation: 0,
        targets: vec![endpoint],
        skipped: Vec::new(),
        held: Vec::new(),
        fed: Vec::new(),
        part: 0,
        parts: 1,
    });
    let record = Record { recorded_at: Timestamp::EPOCH, trace: TraceContext::default(), fact };
    world.log.publisher().routed(&[record]).await?.stored().await?;
    Ok(event)
}

#[tokio::test]
async fn every_route_hides_other_tenants() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    world.tenant("other", "kryptos").await?;
    let (_, key) = world.key(Some("acme"), "admin").await?;
    let link = json!({"role": "admin"});
    let token = world.post("/v1/tenants/acme/portal-links", link).await?.text("token");
    let endpoint = world.endpoint("other").await?;
    let (key_id, _) = world.key(Some("other"), "read").await?;
    let event = routed(&world, "other", endpoint.parse()?).await?;
    let delivery = fanfare_domain::DeliveryId::of(event, endpoint.parse()?, 0);
    let (event, delivery) = (event.to_string(), delivery.to_string());
    world.post("/v1/tenants/other/event-types", json!({"type": "a.b"})).await?;
    let since = json!({"since": "2026-01-01T00:00:00Z"});
    let replay = world.post("/v1/tenants/other/replays", since).await?.text("id");
    let ids = [
        ("replay", &*replay),
        ("endpoint", &*endpoint),
        ("key", &*key_id),
        ("event", &*event),
        ("event_type", "a.b"),
        ("delivery", &*delivery),
    ];

    let mut tried = 0;
    for operation in operations() {
        // What needs no key is there for everybody.
        if !operation.path.contains("{tenant}") || !operation.needs_key {
            continue;
        }
        tried += 1;
        let call = async |tenant: &str, key: &str| {
            let path = operation.path_with(&[&ids[..], &[("tenant", tenant)]].concat());
            world.api.call(operation.method.clone(), &path, Some(key), any_body(&operation)).await
        };
        for credential in [&key, &token] {
            let theirs = call("other", credential).await?;
            let nobodys = call("ghost", credential).await?;
            assert_eq!(theirs.status, StatusCode::NOT_FOUND, "{operation:?}");
            assert_eq!(theirs.body, nobodys.body, "{operation:?}");
        }
        // Their things under our own name are not there either.
        if ids.iter().any(|(name, _)| operation.path.contains(&format!("{{{name}}}"))) {
            let mixed = call("acme", &key).await?;
            let hidden = [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN];
            assert!(hidden.contains(&mixed.status), "{operation:?} {mixed:?}");
            let by_operator = operation.id == "reveal_secrets";
            assert_eq!(mixed.status == StatusCode::FORBIDDEN, by_operator, "{operation:?}");
        }
    }
    assert!(tried > 15, "the document lost its routes");

    for (path, expected) in [
        (format!("/v1/tenants/other/endpoints/{endpoint}"), "active"),
        (format!("/v1/tenants/other/deliveries/{delivery}"), "pending"),
    ] {
        assert_eq!(world.get(&path).await?.text("state"), expected, "it is there all the same");
    }
    Ok(())
}

#[tokio::test]
async fn lists_hold_the_tenants_own_things_only() -> Result<()> {
    let world = World::new().await?;
    for tenant in ["acme", "other"] {
        world.tenant(tenant, "kryptos").await?;
        world.endpoint(tenant).await?;
        world.key(Some(tenant), "read").await?;
        world.post(&format!("/v1/tenants/{tenant}/event-types"), json!({"type": "a"})).await?;
    }
    for list in ["endpoints", "event-types", "keys"] {
        let answer = world.get(&format!("/v1/tenants/acme/{list}")).await?;
        let owners: Vec<_> = answer.data().iter().map(|one| &one["tenant_id"]).collect();
        assert_eq!(owners, ["acme"], "{list}");
    }
    Ok(())
}
