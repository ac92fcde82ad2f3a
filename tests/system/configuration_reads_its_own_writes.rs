//! An event that is published after an endpoint's creation was acknowledged is delivered to it,
//! always: also while many other events are on their way.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::support::{Expected, Planned, Route, Scene, api::Made, scene::TENANT};

const PATIENCE: Duration = Duration::from_mins(1);
/// How many endpoints are made, each with an event right after.
const ROUNDS: usize = 40;
/// How many other events are published meanwhile.
const LOAD: usize = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_after_an_endpoints_creation_always_reaches_it() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.subscribe("/load", &["load.>"], &["1s"]).await?;
    let load: Vec<Planned> =
        (0..LOAD).map(|_| scene.plan("load.some", Route::Inbox)).collect::<Result<_>>()?;
    let producer = scene.producer();
    let (loaded, made) = tokio::join!(producer.publish_all(load), make_and_publish(&scene));
    scene.acknowledged.extend(loaded?);
    for (path, filter, endpoint, acknowledged) in made? {
        scene.note(&path, &[&filter], &endpoint, &["1s"])?;
        scene.acknowledged.push(acknowledged);
    }
    scene.concluded(PATIENCE).await?;
    let report = scene.judge().await?;
    assert_eq!(report.conclusions.get("delivered"), Some(&(LOAD + ROUNDS)));
    scene.finish(Expected::Calm).await
}

type Round = (String, String, Made, crate::support::Acknowledged);

async fn make_and_publish(scene: &Scene) -> Result<Vec<Round>> {
    let producer = scene.producer();
    let routes = [Route::Inbox, Route::Request, Route::Http];
    let mut made = Vec::new();
    for round in 0..ROUNDS {
        let (path, filter) = (format!("/new-{round}"), format!("new.{round}"));
        let new = scene.endpoint(&path, &[&filter], &["1s"]);
        let endpoint = scene.api().endpoint(TENANT, &new).await?;
        let planned = scene.plan(&filter, routes[round % routes.len()])?;
        made.push((path, filter, endpoint, producer.publish(planned).await?));
    }
    Ok(made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_after_a_change_is_judged_by_it() -> Result<()> {
    let mut scene = Scene::set().await?;
    let endpoint = scene.subscribe("/moves", &["old.type"], &["1s"]).await?;
    let path = format!("/v1/tenants/{TENANT}/endpoints/{}", endpoint.id);
    let producer = scene.producer();
    for round in 0..ROUNDS {
        let filter = format!("round.{round}");
        scene.api().patch(&path, &json!({ "event_types": [filter] })).await?;
        producer.publish(scene.plan(&filter, Route::Inbox)?).await?;
        // Of the round before: nobody wants it any more.
        if let Some(before) = round.checked_sub(1) {
            producer.publish(scene.plan(&format!("round.{before}"), Route::Inbox)?).await?;
        }
    }
    scene.hooks_have(ROUNDS).await;
    // Each event is routed by the time of this one, which is the last in the log.
    scene.api().patch(&path, &json!({ "event_types": ["sentinel"] })).await?;
    producer.publish(scene.plan("sentinel", Route::Inbox)?).await?;
    scene.hooks_have(ROUNDS + 1).await;
    let seen = scene.hooks.seen_at("/moves");
    assert_eq!(seen.len(), ROUNDS + 1, "one event of each round, and the sentinel");
    scene.finish(Expected::Calm).await
}
