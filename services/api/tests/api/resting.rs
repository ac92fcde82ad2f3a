//! The id of an expunged tenant rests; a later tenant of it has nothing of the earlier one's.

use anyhow::Result;
use fanfare_testkit::{Proxy, wait_until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    expunge::{EXPUNGE, finished, rest},
    log::publish,
    support::{World, holds},
};

const MARKER: &str = "private-marker";
const AUDIT: &str = "/v1/tenants/acme/audit?limit=250";

/// Expunges the tenant.
async fn expunged(world: &World) -> Result<Value> {
    world.post(EXPUNGE, json!({"confirm": "acme"})).await?;
    Ok(finished(world, &world.api).await)
}

#[tokio::test]
async fn the_id_of_an_expunged_tenant_rests_and_can_be_used_again_then() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    for _ in 0..3 {
        publish(&world, &"acme".parse()?).await?;
    }
    let done = expunged(&world).await?;
    assert_eq!(done["removed"]["events"], json!(3), "{done}");
    let until = done["id_rests_until"].as_str().unwrap_or_default();
    assert!(until > done["finished_at"].as_str().unwrap_or("~"), "{done}");
    let refused = world.post("/v1/tenants", json!({"id": "acme"})).await?;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::CONFLICT, "tenant_expunged_recently")
    );
    assert!(refused.text("detail").contains(until), "it says when: {refused:?}");
    rest(&world).await?;
    world.tenant("acme", "kryptos").await?;
    // Deleted and not expunged, it may come back at once, as any other.
    world.call(Method::DELETE, "/v1/tenants/acme", Value::Null).await?;
    world.tenant("acme", "kryptos").await
}

#[tokio::test]
async fn a_later_tenant_reads_nothing_of_the_earlier_ones_audit() -> Result<()> {
    let world = World::new().await?;
    world.post("/v1/tenants", json!({"id": "acme", "name": MARKER})).await?;
    let new = json!({"url": "https://example.com/", "event_types": ["a"], "name": MARKER});
    let made = world.post("/v1/tenants/acme/endpoints", new).await?;
    let endpoint = made.text("id");
    world.fold_config().await?;
    assert!(world.get(AUDIT).await?.body.to_string().contains(MARKER), "there is nothing to hide");
    expunged(&world).await?;
    // Nobody has redacted the tables yet.
    let all = world.get("/v1/audit?tenant=acme&limit=250").await?;
    assert!(!all.body.to_string().contains(MARKER), "{all:?}");
    let of_endpoint = all.data().iter().filter(|entry| entry["id"] == json!(endpoint));
    let actions: Vec<_> = of_endpoint.map(|entry| (&entry["action"], &entry["who"])).collect();
    assert_eq!(actions.len(), 2, "it was created and deleted: {all:?}");
    assert!(actions.iter().all(|(_, who)| who.as_str().is_some_and(|who| who.starts_with("key_"))));
    rest(&world).await?;
    world.tenant("acme", "kryptos").await?;
    let (_, key) = world.key(Some("acme"), "read").await?;
    world.fold_config().await?;
    let own = world.api.call(Method::GET, AUDIT, Some(&key), Value::Null).await?;
    let kinds: Vec<_> = own.data().iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["key", "tenant"], "{own:?}");
    Ok(())
}

#[tokio::test]
async fn whoever_was_away_learns_what_was_deleted_before_the_removal() -> Result<()> {
    let mut world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (id, key) = world.key(Some("acme"), "admin").await?;
    let entry = json!({"type": "a.b"});
    world.post("/v1/tenants/acme/event-types", entry.clone()).await?;
    let proxy = Proxy::to(world.nats.server().client_address()).await?;
    let away = world.another_by(&proxy).await?;
    let look = || away.call(Method::GET, "/v1/tenants/acme", Some(&key), Value::Null);
    assert_eq!(look().await?.status, StatusCode::OK);
    proxy.block();
    let paths = [format!("/v1/tenants/acme/keys/{id}"), "/v1/tenants/acme/event-types/a.b".into()];
    for path in paths {
        let gone = world.call(Method::DELETE, &path, Value::Null).await?;
        assert_eq!(gone.status, StatusCode::NO_CONTENT, "{path}");
    }
    expunged(&world).await?;
    rest(&world).await?;
    world.tenant("acme", "kryptos").await?;
    proxy.cut();
    let seen = wait_until("the other process to know the log again", async || match look().await {
        Ok(answer) if answer.status != StatusCode::SERVICE_UNAVAILABLE => Ok(answer.status),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(seen.await, StatusCode::UNAUTHORIZED, "an old key opens the new tenant");
    // What this process knows of the type's deletion is still so.
    let made = world.post("/v1/tenants/acme/event-types", entry).await?;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    away.stop().await
}

#[tokio::test]
async fn nothing_is_removed_from_the_configuration_before_the_audit_has_it() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let place = format!("/v1/tenants/acme/endpoints/{}", world.endpoint("acme").await?);
    world.call(Method::PATCH, &place, json!({"name": MARKER})).await?;
    world.post(EXPUNGE, json!({"confirm": "acme"})).await?;
    // The delivery log is behind.
    wait_until("the expunging to wait for it", async || {
        let found = world.get(EXPUNGE).await.map_err(|error| format!("{error:#}"))?;
        if found.body["waits_for"] == "delivery_log" { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    wait_until("the endpoint to be deleted", async || {
        let all = world.nats.everything().await.map_err(|error| format!("{error:#}"))?;
        let of = all.iter().filter(|one| one.subject.contains(".config.endpoint.acme."));
        let count = of.count();
        if count == 3 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    let done = finished(&world, &world.api).await;
    assert_eq!(done["waits_for"], Value::Null);
    let path = "/v1/audit?tenant=acme&kind=endpoint";
    assert_eq!(world.get(path).await?.data().len(), 3, "created, changed, deleted");
    for message in world.nats.everything().await? {
        assert!(!holds(&message, MARKER), "{} has the marker", message.subject);
    }
    Ok(())
}

#[tokio::test]
async fn without_a_delivery_log_there_is_no_audit_to_wait_for() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let alone = world.another_on(&world.file("nobody-keeps-it.sqlite")).await?;
    world.post(EXPUNGE, json!({"confirm": "acme"})).await?;
    wait_until("the tenant to be expunged", async || {
        let asked = alone.call(Method::GET, EXPUNGE, Some(&world.operator), Value::Null).await;
        match asked.map(|answer| answer.body) {
            Ok(found) if found["state"] == "finished" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    alone.stop().await
}
