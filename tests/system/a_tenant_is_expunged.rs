//! An expunged tenant is gone from every stream but JOURNAL, from the delivery log and from all answers;
//! another tenant has everything as before. An event that is gone stops no shard.

mod away;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_delivery_log::{Database, EventFilter, Filter, Store};
use fanfare_domain::{
    Change, Conclusion, DeliveryId, Entity, Fact, Tenant, fact::ConclusionReason,
    tenant::ExpungeStage,
};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::wait_until;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    Answer, Expected, Hooks, Needles, Options, Refused, Scene, Service,
    api::Made,
    api::text,
    binary, evidence,
    scene::{TENANT, tenant},
};

const PATIENCE: Duration = Duration::from_mins(1);
const OTHER: &str = "other";
/// What only the tenant says.
const MARKER: &str = "strictly-private-4711";

/// The path of something of the tenant's.
fn own(rest: &str) -> String {
    format!("/v1/tenants/{TENANT}{rest}")
}

/// A scene with endpoints that answer by their path: `/good` well, `/bad` and `/late` never.
async fn scene() -> Result<Scene> {
    scene_with(None).await
}

/// The same with the delivery log there, if it is not in a file.
async fn scene_with(database: Option<String>) -> Result<Scene> {
    let hooks = Hooks::answering(|request, _| match request.path.as_str() {
        "/good" | "/other" => Answer::Status(200),
        _ => Answer::Status(500),
    });
    let options = Options { database, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    scene.installation.start_service(Service::Projector).await?;
    let settings = scene.installation.settings(Service::Projector);
    let database = Database::to_read(&settings.get("database").context("a database")?.parse()?)?;
    let streams = scene.streams().await?;
    wait_until("the delivery log to be there", async || {
        let attached = Store::attach(&database, &streams).await;
        attached.map(drop).map_err(|error| format!("{error:?}"))
    })
    .await;
    database.close().await;
    scene.api().tenant(OTHER, Options::default().profile).await?;
    Ok(scene)
}

async fn endpoint(scene: &Scene, tenant: &str, path: &str, delays: &[&str]) -> Result<Made> {
    let mut new = scene.endpoint(path, &[">"], delays);
    if tenant == TENANT {
        new["name"] = json!(MARKER);
        new["metadata"] = json!({ "note": MARKER });
        new["headers"] = json!({ "x-note": MARKER });
    }
    scene.api().endpoint(tenant, &new).await
}

async fn publish(scene: &Scene, tenant: &str, count: usize) -> Result<Vec<String>> {
    let data = if tenant == TENANT { format!("\"{MARKER}\"") } else { String::from("1") };
    let mut ids = Vec::new();
    for number in 0..count {
        let key = format!("key-{number}");
        ids.push(scene.api().publish(tenant, "invoice.paid", &data, &key).await?);
    }
    Ok(ids)
}

/// The conclusions on record.
async fn conclusions(
    scene: &Scene,
) -> Result<BTreeMap<DeliveryId, (String, Conclusion, ConclusionReason)>> {
    let mut found = BTreeMap::new();
    for batch in evidence::journal(&scene.log).await? {
        for record in batch.facts {
            if let Fact::DeliveryConcluded(concluded) = record.fact {
                let endpoint = concluded.delivery.endpoint.to_string();
                let how = (endpoint, concluded.conclusion, concluded.reason);
                found.insert(concluded.delivery.id, how);
            }
        }
    }
    Ok(found)
}

/// Waits until so many deliveries to an endpoint are on record as concluded, and tells how.
async fn concluded(
    scene: &Scene,
    endpoint: &str,
    wanted: usize,
) -> Vec<(Conclusion, ConclusionReason)> {
    wait_until("deliveries to end", async || {
        let found = conclusions(scene).await.map_err(|error| format!("{error:#}"))?;
        let of = found.into_values().filter(|(to, ..)| to == endpoint);
        let how: Vec<_> = of.map(|(_, conclusion, reason)| (conclusion, reason)).collect();
        if how.len() == wanted { Ok(how) } else { Err(format!("{how:?}")) }
    })
    .await
}

async fn listed(scene: &Scene, path: &str, wanted: usize) -> Vec<Value> {
    wait_until("the list to be as expected", async || match scene.api().get(path).await {
        Ok(page) => match page["data"].as_array() {
            Some(found) if found.len() == wanted => Ok(found.clone()),
            _ => Err(page.to_string()),
        },
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

async fn refusal(scene: &Scene, path: &str) -> Result<String> {
    match scene.api().get(path).await {
        Ok(found) => anyhow::bail!("{path} is answered: {found}"),
        Err(error) => Ok(String::from(error.downcast::<Refused>()?.code())),
    }
}

/// Waits until the tenant is expunged, also from the delivery log.
async fn gone(scene: &Scene) -> Value {
    wait_until("the tenant to be expunged", async || {
        match scene.api().get(&own("/expunge")).await {
            Ok(found)
                if found["state"] == "finished" && found["delivery_log_forgot"] == json!(true) =>
            {
                Ok(found)
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Looks for the marker in all that the servers hold; returns the streams that have it.
async fn streams_with_marker(scene: &Scene) -> Result<BTreeMap<String, usize>> {
    let needles = Needles::new(vec![(String::from("it"), MARKER.as_bytes().to_vec())]);
    let mut found = BTreeMap::new();
    for message in scene.installation.server().everything().await? {
        if message.texts().any(|text| needles.find(text).is_some()) {
            *found.entry(message.stream).or_default() += 1;
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expunged_tenant_is_gone_and_another_one_is_untouched() -> Result<()> {
    let mut scene = scene().await?;
    let good = endpoint(&scene, TENANT, "/good", &["1s"]).await?;
    let bad = endpoint(&scene, TENANT, "/bad", &["100ms"]).await?;
    // Some retry of it is always to come, and does long after the events are gone.
    let late = endpoint(&scene, TENANT, "/late", &["12s"; 10]).await?;
    endpoint(&scene, OTHER, "/other", &["1s"]).await?;
    let entry = json!({ "type": "invoice.paid", "description": MARKER });
    scene.api().post(&own("/event-types"), &entry).await?;
    let key = scene.api().post(&own("/keys"), &json!({ "role": "admin", "name": MARKER })).await?;
    let events = publish(&scene, TENANT, 5).await?;
    publish(&scene, OTHER, 5).await?;
    concluded(&scene, &good.id, 5).await;
    concluded(&scene, &bad.id, 5).await;
    let before = listed(&scene, &own("/deliveries?state=delivered"), 5).await;
    listed(&scene, &own("/dead-letters"), 5).await;
    let others = format!("/v1/tenants/{OTHER}/deliveries?state=delivered");
    listed(&scene, &others, 5).await;
    let found = streams_with_marker(&scene).await?;
    for stream in ["FANFARE_EVENTS", "FANFARE_CONFIG"] {
        ensure!(found.contains_key(stream), "the search finds nothing: {found:?}");
    }

    scene.api().post(&own("/expunge"), &json!({ "confirm": TENANT })).await?;
    scene.installation.kill(Service::Api).await?;
    scene.installation.start_service(Service::Api).await?;
    let refused = scene.api().publish(TENANT, "invoice.paid", "1", "after").await.unwrap_err();
    assert_eq!(refused.downcast::<Refused>()?.code(), "tenant_not_found");
    let done = gone(&scene).await;
    ensure!(done["finished_at"].is_string(), "{done}");
    let found = streams_with_marker(&scene).await?;
    ensure!(found.is_empty(), "it is left in {found:?}");

    // What waited for its time ends like anything for a deleted endpoint, and no shard stands.
    let how = concluded(&scene, &late.id, 5).await;
    let deleted = (Conclusion::Cancelled, ConclusionReason::EndpointDeleted);
    ensure!(how.iter().all(|how| *how == deleted), "{how:?}");
    publish_again(&scene).await?;
    listed(&scene, &others, 7).await;
    audited(&scene).await?;

    rebuild(&scene).await?;
    forgotten(&scene).await?;

    // A later tenant of the id has nothing of it, and its idempotency keys are free.
    let again = json!({ "id": TENANT });
    let refused = scene.api().post("/v1/tenants", &again).await.unwrap_err();
    assert_eq!(refused.downcast::<Refused>()?.code(), "tenant_expunged_recently");
    rest(&scene).await?;
    scene.api().tenant(TENANT, Options::default().profile).await?;
    let delivery = text(before.first().context("one")?, "id")?;
    let event = events.first().context("one")?;
    for (path, code) in [
        (own(&format!("/deliveries/{delivery}")), "delivery_not_found"),
        (own(&format!("/deliveries/{delivery}/facts")), "delivery_not_found"),
        (own(&format!("/deliveries/{delivery}/attempts")), "delivery_not_found"),
        (own(&format!("/events/{event}")), "event_not_found"),
        (own(&format!("/events/{event}/deliveries")), "event_not_found"),
    ] {
        assert_eq!(refusal(&scene, &path).await?, code, "{path}");
    }
    for list in ["/deliveries", "/events", "/dead-letters", "/endpoints", "/keys", "/replays"] {
        listed(&scene, &own(list), 0).await;
    }
    let own_audit = listed(&scene, &own("/audit"), 1).await;
    ensure!(own_audit.iter().all(|one| one["action"] == "created"), "{own_audit:?}");
    let made = endpoint(&scene, TENANT, "/good", &["1s"]).await?;
    publish(&scene, TENANT, 2).await?;
    concluded(&scene, &made.id, 2).await;
    listed(&scene, &own("/deliveries?state=delivered"), 2).await;
    ensure!(text(&key, "key").is_ok(), "{key}");
    scene.finish(Expected::Turmoil).await
}

/// Publishes for the other tenant, under keys that are new.
async fn publish_again(scene: &Scene) -> Result<()> {
    for key in ["more-1", "more-2"] {
        scene.api().publish(OTHER, "invoice.paid", "1", key).await?;
    }
    Ok(())
}

/// The audit says who did what, and nothing of what the tenant said.
async fn audited(scene: &Scene) -> Result<()> {
    let path = format!("/v1/audit?tenant={TENANT}&limit=250");
    let page = scene.api().get(&path).await?;
    let entries = page["data"].as_array().context("a page")?;
    ensure!(entries.len() >= 9, "{page}");
    ensure!(!page.to_string().contains(MARKER), "{page}");
    ensure!(entries.iter().all(|one| one["who"].as_str().is_some_and(|who| !who.is_empty())));
    let newest = entries.first().context("one")?;
    let expunge = &newest["before"]["expunge"];
    ensure!(expunge["state"] == "finished", "{newest}");
    Ok(())
}

/// The tables themselves have nothing of the tenant.
async fn forgotten(scene: &Scene) -> Result<()> {
    let settings = scene.installation.settings(Service::Projector);
    let database = Database::to_read(&settings.get("database").context("a database")?.parse()?)?;
    let store = Store::attach(&database, &scene.streams().await?).await?;
    let tenant = tenant()?;
    let deliveries = store.deliveries(&Filter::of(tenant.clone()), None, 10).await?;
    ensure!(deliveries.rows.is_empty(), "{deliveries:?}");
    let events = store.events(&EventFilter::of(tenant), None, 10).await?;
    ensure!(events.rows.is_empty(), "{events:?}");
    database.close().await;
    Ok(())
}

/// Makes it so that the tenant was expunged when its id has rested since.
async fn rest(scene: &Scene) -> Result<()> {
    let all = scene.log.last_changes_of(&tenant()?, 0).await?;
    let found = all.into_iter().find_map(|(stored, _)| match &stored.change.entity {
        Entity::Tenant(tenant) => Some((Tenant::clone(tenant), stored)),
        Entity::Endpoint(_) | Entity::EventType(_) | Entity::Profile(_) | Entity::ApiKey(_) => None,
    });
    let (mut tenant, stored) = found.context("the tenant's record")?;
    let expunge = tenant.expunge.as_mut().context("it was expunged")?;
    let long_ago = SystemClock.now().saturating_sub(Duration::from_hours(31 * 24));
    expunge.stage = ExpungeStage::Finished(long_ago);
    let change = Change { entity: Entity::Tenant(Arc::new(tenant)), ..stored.change };
    scene.log.change(&change, stored.revision).await?;
    Ok(())
}

/// Makes the log anew as a person would, with everything running.
async fn rebuild(scene: &Scene) -> Result<()> {
    let mut command = Command::new(binary::fanfare().await?);
    command.args(["--json", "delivery-log", "rebuild"]);
    for (key, value) in &scene.installation.settings(Service::Projector) {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let output = command.output().await.context("rebuild the log")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_gone_ends_its_delivery_and_stops_no_shard() -> Result<()> {
    let scene = scene().await?;
    let late = endpoint(&scene, TENANT, "/late", &["3s"; 30]).await?;
    let other = endpoint(&scene, OTHER, "/other", &["1s"]).await?;
    publish(&scene, TENANT, 3).await?;
    scene.hooks_have(3).await;
    let purged = scene.log.purge_events(&tenant()?, SystemClock.now()).await?;
    assert_eq!((purged.events, purged.keys), (3, 3));
    let how = concluded(&scene, &late.id, 3).await;
    let ended = (Conclusion::Exhausted, ConclusionReason::EventGone);
    ensure!(how.iter().all(|how| *how == ended), "{how:?}");
    publish(&scene, OTHER, 3).await?;
    let how = concluded(&scene, &other.id, 3).await;
    ensure!(how.iter().all(|(conclusion, _)| *conclusion == Conclusion::Delivered), "{how:?}");
    tokio::time::timeout(PATIENCE, scene.finish(Expected::Turmoil)).await?
}
