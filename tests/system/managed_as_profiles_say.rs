//! What kyberaccess promises of an endpoint that keeps failing, and of its delivery log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::wait_at_most;
use serde_json::{Value, json};

use crate::support::{
    Answer, Expected, Hooks, Options, Route, Scene, Service, api::text, scene::TENANT,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// The path of something of the tenant's.
fn own(rest: &str) -> String {
    format!("/v1/tenants/{TENANT}{rest}")
}

fn options() -> Options {
    Options { profile: "kyberaccess", ..Options::default() }
}

async fn publish(scene: &mut Scene, count: usize) -> Result<()> {
    let planned = (0..count).map(|_| scene.plan("visitor.denied", Route::Request));
    let planned = planned.collect::<Result<_>>()?;
    scene.publish(planned).await
}

/// Waits until what is at a path is as expected.
async fn wait_for(scene: &Scene, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    wait_at_most(PATIENCE, "what is shown to change", async || {
        let found = scene.api().get(path).await.map_err(|error| format!("{error:#}"))?;
        if is_it(&found) { Ok(found) } else { Err(found.to_string()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kyberaccess_disables_an_endpoint_after_100_failures_and_a_person_enables_it() -> Result<()>
{
    let works = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&works);
    let hooks = Hooks::answering(move |_, _| {
        Answer::Status(if answers.load(Ordering::Relaxed) { 200 } else { 500 })
    });
    let mut scene = Scene::set_with(options(), hooks.await?).await?;
    let mut new = scene.endpoint("/hook", &["*"], &["10ms"; 4]);
    new["timeout_ms"] = json!(20_000);
    let made = scene.api().endpoint(TENANT, &new).await?;
    let path = own(&format!("/endpoints/{}", made.id));
    publish(&mut scene, 19).await?;
    scene.hooks_have(95).await;
    let before = scene.api().get(&path).await?;
    ensure!(before["state"] == "active", "95 are not enough: {before}");
    publish(&mut scene, 1).await?;
    let disabled = wait_for(&scene, &path, |found| found["state"] == "disabled").await;
    ensure!(disabled["disabled_reason"] == "failing", "{disabled}");
    works.store(true, Ordering::Relaxed);
    let enabled = scene.api().act(TENANT, &made.id, "enable", &json!({})).await?;
    ensure!(enabled["state"] == "active", "{enabled}");
    let count = scene.hooks.count();
    publish(&mut scene, 1).await?;
    scene.hooks_have(count + 1).await;
    scene.finish(Expected::Turmoil).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kyberaccess_log_tells_type_time_code_and_duration_and_a_time_out_as_408() -> Result<()> {
    let hooks = Hooks::answering(|request, _| match request.path.as_str() {
        "/slow" => Answer::Silence,
        _ => Answer::Status(200),
    });
    let mut scene = Scene::set_with(options(), hooks.await?).await?;
    scene.installation.start_service(Service::Projector).await?;
    let mut ids = Vec::new();
    for (path, timeout) in [("/slow", 400), ("/good", 20_000)] {
        let mut new = scene.endpoint(path, &["visitor.*"], &[]);
        new["timeout_ms"] = json!(timeout);
        ids.push(scene.api().endpoint(TENANT, &new).await?.id);
    }
    publish(&mut scene, 1).await?;
    let mut connects: Vec<u64> = Vec::new();
    for (endpoint, state, status) in [(&ids[0], "exhausted", 408), (&ids[1], "delivered", 200)] {
        let path = own(&format!("/deliveries?endpoint={endpoint}&state={state}"));
        let page = wait_for(&scene, &path, |found| !found["data"][0].is_null()).await;
        let one = &page["data"][0];
        ensure!(one["event_type"] == "visitor.denied" && one["last_status"] == status, "{one}");
        ensure!(one["accepted_at"].is_string() && one["state"] == state, "{one}");
        let attempt = own(&format!("/deliveries/{}/attempts/1", text(one, "id")?));
        let attempt = scene.api().get(&attempt).await?;
        let millis = |name: &str| attempt[name].as_u64();
        let took = millis("duration_ms").context("a duration")?;
        ensure!(attempt["status"] == status && attempt["started_at"].is_string(), "{attempt}");
        let headers = attempt["request"]["headers"].as_array().context("headers")?;
        ensure!(headers.iter().any(|it| it["name"] == "x-kyberaccess-signature"), "{attempt}");
        ensure!(attempt["request"]["body"].is_string(), "{attempt}");
        // The second one may go over the first one's connection.
        connects.extend(millis("connect_ms"));
        ensure!(millis("connect_ms").is_none_or(|connect| connect <= took), "{attempt}");
        if status == 408 {
            ensure!(took >= 400 && attempt["first_byte_ms"].is_null(), "{attempt}");
            ensure!(attempt["fault"] == "timed_out" && attempt["response"].is_null(), "{attempt}");
        } else {
            ensure!(millis("first_byte_ms").is_some_and(|first| first <= took), "{attempt}");
            ensure!(attempt["response"]["status"] == 200, "{attempt}");
        }
    }
    ensure!(!connects.is_empty(), "there was no connection");
    scene.finish(Expected::Turmoil).await
}
