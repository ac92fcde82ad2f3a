//! An expunged tenant is gone from everything that the API keeps; others stay.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Change, DeliveryId, Entity, EventId, Fact, Record, Tenant, TenantId, Timestamp, TraceContext,
    fact::EventRouted, tenant::ExpungeStage,
};
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use fanfare_testkit::wait_until;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Api, World, holds};

pub(crate) const EXPUNGE: &str = "/v1/tenants/acme/expunge";
const MARKER: &str = "private-marker";

/// A tenant with things that bear the marker, and another one like it. Returns the first one's key.
async fn two_tenants(world: &World) -> Result<String> {
    for tenant in ["acme", "other"] {
        world.post("/v1/tenants", json!({"id": tenant, "name": MARKER})).await?;
        let path = format!("/v1/tenants/{tenant}");
        let endpoint = json!({
            "url": format!("https://example.com/{MARKER}"), "event_types": ["a"],
            "name": MARKER, "metadata": {"note": MARKER},
        });
        for _ in 0..3 {
            let made = world.post(&format!("{path}/endpoints"), endpoint.clone()).await?;
            let place = format!("{path}/endpoints/{}", made.text("id"));
            world.call(Method::PATCH, &place, json!({"description": MARKER})).await?;
        }
        let entry = json!({"type": "a.b", "description": MARKER});
        world.post(&format!("{path}/event-types"), entry).await?;
    }
    let made =
        world.post("/v1/tenants/acme/keys", json!({"role": "admin", "name": MARKER})).await?;
    Ok(made.text("key"))
}

async fn ask(world: &World, api: &Api) -> Result<Value> {
    let answer = api.call(Method::GET, EXPUNGE, Some(&world.operator), Value::Null).await?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    Ok(answer.body)
}

/// Waits until it is done, with a delivery log that takes in what is configured.
pub(crate) async fn finished(world: &World, api: &Api) -> Value {
    wait_until("the tenant to be expunged", async || {
        world.fold_config().await.map_err(|error| Err(format!("{error:#}")))?;
        match ask(world, api).await {
            Ok(found) if found.get("state").is_some_and(|state| state == "finished") => Ok(found),
            other => Err(other.map_err(|error| format!("{error:#}"))),
        }
    })
    .await
}

/// Makes it so that the tenant was expunged when its id has rested since.
pub(crate) async fn rest(world: &World) -> Result<()> {
    let all = world.log.last_changes_of(&"acme".parse()?, 0).await?;
    let found = all.into_iter().find_map(|(stored, _)| match &stored.change.entity {
        Entity::Tenant(tenant) => Some((Tenant::clone(tenant), stored)),
        Entity::Endpoint(_) | Entity::EventType(_) | Entity::Profile(_) | Entity::ApiKey(_) => None,
    });
    let (mut tenant, stored) = found.context("the tenant's record")?;
    let expunge = tenant.expunge.as_mut().context("it was expunged")?;
    let long_ago = SystemClock.now().saturating_sub(Duration::from_hours(31 * 24));
    expunge.stage = ExpungeStage::Finished(long_ago);
    let change = Change { entity: Entity::Tenant(Arc::new(tenant)), ..stored.change };
    world.log.change(&change, stored.revision).await?;
    Ok(())
}

#[tokio::test]
async fn it_takes_the_tenants_id_once_more_and_an_operator() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (_, key) = world.key(Some("acme"), "admin").await?;
    let (_, reader) = world.key(None, "read").await?;
    let confirmed = json!({"confirm": "acme"});
    for key in [&key, &reader] {
        let refused = world.api.call(Method::POST, EXPUNGE, Some(key), confirmed.clone()).await?;
        assert_eq!(refused.code(), "forbidden");
    }
    assert_eq!(world.post(EXPUNGE, json!({"confirm": "other"})).await?.code(), "value_invalid");
    assert_eq!(world.post(EXPUNGE, json!({})).await?.code(), "body_malformed");
    let ghost = "/v1/tenants/ghost/expunge";
    assert_eq!(world.post(ghost, json!({"confirm": "ghost"})).await?.code(), "tenant_not_found");
    assert_eq!(world.get(EXPUNGE).await?.code(), "tenant_not_found", "it is not being expunged");
    assert_eq!(world.get("/v1/tenants/acme").await?.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_of_it_in_the_configuration_also_if_the_process_ends_meanwhile()
-> Result<()> {
    let mut world = World::new().await?;
    let key = two_tenants(&world).await?;
    // What was deleted before leaves as little.
    let endpoint = json!({
        "url": format!("https://example.com/{MARKER}"), "event_types": ["a"], "name": MARKER,
    });
    let made = world.post("/v1/tenants/acme/endpoints", endpoint).await?;
    let place = format!("/v1/tenants/acme/endpoints/{}", made.text("id"));
    world.call(Method::DELETE, &place, Value::Null).await?;
    let begun = world.post(EXPUNGE, json!({"confirm": "acme"})).await?;
    assert_eq!((begun.status, begun.text("state")), (StatusCode::ACCEPTED, "running".into()));
    let refused = world.post("/v1/tenants", json!({"id": "acme"})).await?;
    assert_eq!(refused.code(), "tenant_expunging");
    assert_eq!(world.get("/v1/tenants/acme").await?.code(), "tenant_not_found");
    let again = world.post(EXPUNGE, json!({"confirm": "acme"})).await?;
    assert_eq!(again.text("begun_at"), begun.text("begun_at"), "it goes on");
    let next = world.another().await?;
    std::mem::replace(&mut world.api, next).stop().await?;
    let done = finished(&world, &world.api).await;
    assert!(done["finished_at"].is_string(), "{done}");
    let mine = world.api.call(Method::GET, "/v1/tenants/acme", Some(&key), Value::Null).await?;
    assert_eq!(mine.status, StatusCode::UNAUTHORIZED);
    let (mut own, mut others) = (0, 0);
    for message in world.nats.everything().await? {
        if holds(&message, MARKER) {
            assert!(message.subject.contains(".other."), "{} has the marker", message.subject);
            others += 1;
        }
        own += usize::from(message.subject.contains(".config.endpoint.acme."));
    }
    assert!(others > 5, "the search finds nothing at all");
    assert_eq!(own, 4, "each endpoint says that it was deleted, once");
    assert_eq!(world.get("/v1/tenants/other/endpoints").await?.data().len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_later_tenant_of_the_id_sees_nothing_of_the_earlier_one() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let endpoint = world.endpoint("acme").await?.parse()?;
    let event = EventId::new(SystemClock.now(), random_bytes());
    let tenant: TenantId = "acme".parse()?;
    // Its sequence is none that EVENTS has come to: with the first event of another tenant it is.
    let fact = Fact::EventRouted(EventRouted {
        event,
        tenant,
        event_sequence: 0,
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
    let delivery = DeliveryId::of(event, endpoint, 0);
    let paths = [
        format!("/v1/tenants/acme/deliveries/{delivery}"),
        format!("/v1/tenants/acme/events/{event}/deliveries"),
    ];
    for path in &paths {
        assert_eq!(world.get(path).await?.status, StatusCode::OK, "{path}");
    }
    let since = json!({"since": "2026-01-01T00:00:00Z"});
    let replay = world.post("/v1/tenants/acme/replays", since).await?.text("id");
    world.post(EXPUNGE, json!({"confirm": "acme"})).await?;
    finished(&world, &world.api).await;
    rest(&world).await?;
    world.tenant("acme", "kryptos").await?;
    for path in &paths {
        assert_eq!(world.get(path).await?.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(world.get("/v1/tenants/acme/replays").await?.data().len(), 0);
    let path = format!("/v1/tenants/acme/replays/{replay}");
    assert_eq!(world.get(&path).await?.code(), "replay_not_found");
    // Deleted as any other, it can be expunged too.
    let gone = world.call(Method::DELETE, "/v1/tenants/acme", Value::Null).await?;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let begun = world.post(EXPUNGE, json!({"confirm": "acme"})).await?;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{begun:?}");
    finished(&world, &world.api).await;
    Ok(())
}
