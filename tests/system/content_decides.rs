//! An endpoint with a filter gets exactly the events whose content matches, also in order, and after
//! a pause; and data that does not follow the schema of its type is refused.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_domain::{EndpointId, EventId, Fact};
use fanfare_testkit::wait_at_most;
use serde_json::{Value, json};

use crate::support::{Expected, Planned, Route, Scene, api::Refused, evidence, scene::TENANT};

const PATIENCE: Duration = Duration::from_mins(1);
/// How many events are published, of which every third is wanted.
const EVENTS: usize = 90;
const FILTER: &str = "data.number % 3 == 0 && data.text.startsWith('Zo')";
/// The endpoints, and what order they ask for. The last one is paused meanwhile.
const ENDPOINTS: [(&str, &str); 3] = [("/some", "none"), ("/ordered", "all"), ("/held", "none")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_with_a_filter_gets_exactly_what_matches() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.subscribe("/all", &[">"], &["1s"]).await?;
    let mut ids = Vec::new();
    for (path, ordering) in ENDPOINTS {
        let mut endpoint = scene.endpoint(path, &["a.*"], &["1s"]);
        endpoint["ordering"] = json!(ordering);
        endpoint["filter"] = json!(FILTER);
        ids.push(scene.api().endpoint(TENANT, &endpoint).await?.id);
    }
    let held = ids.last().context("three endpoints")?;
    scene.api().act(TENANT, held, "pause", &json!({ "mode": "hold" })).await?;
    let routes = [Route::Inbox, Route::Request, Route::Http];
    let planned = (0..EVENTS).map(|n| scene.plan("a.b", routes[n % routes.len()]));
    let planned: Vec<Planned> = planned.collect::<Result<_>>()?;
    scene.publish(planned).await?;
    scene.api().act(TENANT, held, "resume", &json!({})).await?;
    scene.concluded(PATIENCE).await?;
    // What matches, by the number in the data.
    let wanted: BTreeSet<EventId> = evidence::events(&scene.installation, &scene.log)
        .await?
        .iter()
        .filter(|stored| number(&stored.event.data).is_ok_and(|number| number % 3 == 0))
        .map(|stored| stored.event.id)
        .collect();
    assert_eq!(wanted.len(), EVENTS / 3);
    for (path, _) in ENDPOINTS {
        let what = format!("the events of {path}");
        wait_at_most(PATIENCE, &what, async || {
            let count = scene.hooks.seen_at(path).len();
            (count >= wanted.len()).then_some(()).ok_or(count)
        })
        .await;
        let seen: Vec<_> =
            scene.hooks.seen_at(path).into_iter().filter_map(|it| it.event).collect();
        assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), wanted, "{path}");
        assert_eq!(seen.len(), wanted.len(), "{path}: each came once");
    }
    check_order(&scene).await?;
    check_record(&scene, &ids, &wanted).await?;
    scene.finish(Expected::Calm).await
}

/// What came in order came in that of EVENTS.
async fn check_order(scene: &Scene) -> Result<()> {
    let events = evidence::events(&scene.installation, &scene.log).await?;
    let place = |id| events.iter().position(|stored| stored.event.id == id);
    let seen = scene.hooks.seen_at("/ordered");
    let places: Vec<_> = seen.into_iter().filter_map(|it| place(it.event?)).collect();
    assert!(places.is_sorted(), "{places:?}");
    Ok(())
}

/// Fan-out decided for every endpoint, and has put it on record.
async fn check_record(scene: &Scene, ids: &[String], wanted: &BTreeSet<EventId>) -> Result<()> {
    let ids: Vec<EndpointId> = ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let journal = evidence::journal(&scene.log).await?;
    for record in journal.iter().flat_map(|batch| &batch.facts) {
        let Fact::EventRouted(routed) = &record.fact else { continue };
        for id in &ids {
            let is_routed = routed.targets.contains(id) || routed.fed.contains(id);
            assert_eq!(is_routed, wanted.contains(&routed.event), "{id} {routed:?}");
        }
    }
    Ok(())
}

fn number(data: &Bytes) -> Result<u64> {
    let data: Value = serde_json::from_slice(data)?;
    data["number"].as_u64().context("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_follow_its_schema_is_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.subscribe("/all", &[">"], &["1s"]).await?;
    let types = format!("/v1/tenants/{TENANT}/event-types");
    let schema = json!({
        "type": "object", "required": ["number"],
        "properties": { "number": { "type": "integer" } },
    });
    let new = json!({ "type": "a.b", "schema": schema, "validation": "enforce" });
    scene.api().post(&types, &new).await?;
    let refused = scene.api().publish(TENANT, "a.b", r#"{"number":"1"}"#, "bad").await;
    let refused = refused.err().context("it is refused")?;
    let refused = refused.downcast_ref::<Refused>().context("it is a refusal")?;
    assert_eq!((refused.status, refused.code()), (422, "event_refused"));
    assert_eq!(refused.body["reason"], json!("schema_violation"));
    let detail = refused.body["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with("/number: "), "{detail}");
    let planned = (0..5).map(|_| scene.plan("a.b", Route::Inbox));
    let planned: Vec<Planned> = planned.collect::<Result<_>>()?;
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    scene.judge().await?;
    assert_eq!(scene.hooks.count(), 5);
    scene.finish(Expected::Calm).await
}
