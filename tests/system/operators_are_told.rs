//! What operators are to be told of arrives as ordinary webhooks of a tenant of theirs.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::wait_at_most;
use serde_json::{Value, json};

use crate::support::{Answer, Expected, Hooks, Options, Route, Scene, scene::TENANT};

const PATIENCE: Duration = Duration::from_mins(1);

/// The tenant that the retry-scheduler's settings name.
const OPERATOR: &str = "operator";

const TYPES: [&str; 4] =
    ["delivery.exhausted", "endpoint.disabled", "endpoint.failing", "key.created"];

/// What the operator's endpoint has got about the tenant, by type.
fn told(scene: &Scene) -> Result<BTreeMap<String, Value>> {
    let bodies = scene.hooks.seen_at("/operator").into_iter();
    let read = bodies.map(|seen| {
        let body: Value = serde_json::from_slice(&seen.body)?;
        let name = body["type"].as_str().context("a type")?;
        ensure!(seen.signature.starts_with("v1,"), "it is signed like any other");
        // The operator's own key is told of too.
        let is_theirs = body["data"]["tenant_id"] == TENANT;
        Ok(is_theirs.then(|| (String::from(name), body["data"].clone())))
    });
    read.filter_map(Result::transpose).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_and_who_gets_a_key_is_told_by_webhooks() -> Result<()> {
    let hooks = Hooks::answering(|request, earlier| {
        Answer::Status(match request.path.as_str() {
            "/gone" => 410,
            "/failing" => 500,
            // It is tried again like any other.
            "/operator" if earlier == 0 => 503,
            _ => 200,
        })
    });
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    scene.api().tenant(OPERATOR, "standard-webhooks").await?;
    let own = scene.endpoint("/operator", &[">"], &["10ms", "1s", "1s"]);
    scene.api().endpoint(OPERATOR, &own).await?;
    let failing = scene.endpoint("/failing", &["a.*"], &["10ms"; 11]);
    let failing = scene.api().endpoint(TENANT, &failing).await?;
    let gone = json!({ "url": scene.hooks.url("/gone"), "event_types": ["a.*"] });
    let gone = scene.api().endpoint(TENANT, &gone).await?;
    let planned = vec![scene.plan("a.b", Route::Request)?];
    scene.publish(planned).await?;
    let new = json!({ "name": "theirs", "role": "read" });
    let key = scene.api().post(&format!("/v1/tenants/{TENANT}/keys"), &new).await?;

    let told = wait_at_most(PATIENCE, "the operator to be told of everything", async || {
        let told = told(&scene).map_err(|error| format!("{error:#}"))?;
        let all = TYPES.iter().all(|name| told.contains_key(*name));
        if all { Ok(told) } else { Err(format!("{:?}", told.keys())) }
    })
    .await;
    assert_eq!(told.keys().collect::<Vec<_>>(), TYPES);
    assert_eq!(told["endpoint.failing"]["endpoint_id"], failing.id.as_str());
    assert_eq!(told["delivery.exhausted"]["endpoint_id"], failing.id.as_str());
    assert_eq!(told["delivery.exhausted"]["attempts"], 12);
    assert_eq!(told["endpoint.disabled"]["endpoint_id"], gone.id.as_str());
    assert_eq!(told["endpoint.disabled"]["reason"], "gone");
    assert_eq!(told["key.created"]["key_id"], key["id"]);
    let text = told["key.created"].to_string();
    let secret = key["key"].as_str().context("the key is shown once")?;
    ensure!(!text.contains(secret), "the key itself is not told");
    scene.finish(Expected::Turmoil).await
}
