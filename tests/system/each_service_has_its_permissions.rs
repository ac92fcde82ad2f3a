//! On servers with the configuration of `fanfare nats config` every service does all of its work, the
//! servers refuse nothing of it, and refuse everything else, to each user.

mod forbidden;
mod started;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::{ConnectOptions, jetstream};
use bytes::Bytes;
use fanfare_event_log::{Durability, Survey};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::{wait_at_most, wait_until};
use serde_json::{Value, json};

use crate::support::{
    Answer, Count, EAGER, Expected, Hooks, Options, Route, Scene, Service, api::text,
    installation::Installation, logs, scene::TENANT,
};

/// How long something may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// The tenant that publishes by requests alone, and is expunged in the end.
const REQUESTER: &str = "globex";

/// Servers with a producer of one tenant and a requester of another.
const SERVERS: &[&str] = &["--producer", TENANT, "--requester", REQUESTER];

/// The path of something of the tenant's.
fn own(rest: &str) -> String {
    format!("/v1/tenants/{TENANT}{rest}")
}

async fn scene(count: usize) -> Result<Scene> {
    let hooks = Hooks::answering(|request, earlier| {
        Answer::Status(match request.path.as_str() {
            "/flaky" if earlier == 0 => 500,
            "/dead" | "/waiting" => 500,
            _ => 200,
        })
    });
    let servers = Count::Locked(count, SERVERS);
    // What the services promise is what the configuration says.
    let durability = Durability::Process;
    let options = Options { servers, durability, profile: EAGER, ..Options::default() };
    Scene::set_with(options, hooks.await?).await
}

/// Publishes as the tenants' software does: with a NATS client of its own.
async fn publish_as_producers(scene: &Scene) -> Result<()> {
    let locked = scene.installation.servers().locked();
    let options = ConnectOptions::new();
    let inbox = "_INBOX.fanfare.producer.acme";
    let producer = locked.client("producer-acme", inbox, options).await?;
    let stored = jetstream::new(producer.clone())
        .publish("fanfare.inbox.acme.order.made", Bytes::from_static(b"{\"way\":\"inbox\"}"))
        .await?
        .await
        .context("publish to INBOX")?;
    ensure!(stored.sequence > 0);
    let inbox = "_INBOX.fanfare.producer.globex";
    let requester = locked.client("producer-globex", inbox, ConnectOptions::new()).await?;
    for (client, tenant) in [(producer, TENANT), (requester, REQUESTER)] {
        let subject = format!("fanfare.publish.{tenant}.order.made");
        let answer = client.request(subject, Bytes::from_static(b"{\"way\":\"request\"}")).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(text(&answer, "id")?.starts_with("evt_"), "{answer}");
    }
    Ok(())
}

/// Waits until the endpoint at a path has got so many requests.
async fn got(scene: &Scene, path: &str, wanted: usize) {
    wait_until(path, async || {
        let count = scene.hooks.seen_at(path).len();
        if count >= wanted { Ok(()) } else { Err(count) }
    })
    .await;
}

/// Waits until a resource is as wanted.
async fn until(scene: &Scene, path: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = wait_at_most(PATIENCE, path, async || match scene.api().get(path).await {
        Ok(found) if is(&found) => Ok(found),
        Ok(found) => Err(found.to_string()),
        Err(error) => Err(format!("{error:#}")),
    });
    Ok(found.await)
}

/// Events by every way, to endpoints that take them, take them at last, and never do.
async fn deliver(scene: &mut Scene) -> Result<()> {
    for (path, delays) in [
        ("/good", &["1h"][..]),
        ("/flaky", &["300ms"]),
        ("/dead", &["300ms"]),
        ("/waiting", &["1h"]),
    ] {
        scene.subscribe(path, &["order.*"], delays).await?;
    }
    let mut ordered = scene.endpoint("/ordered", &["order.*"], &["300ms"]);
    ordered["ordering"] = json!("all");
    scene.api().endpoint(TENANT, &ordered).await?;
    let limit = json!({ "rate_limit": { "requests": 100, "per": "second" } });
    scene.api().patch(&own(""), &limit).await?;
    publish_as_producers(scene).await?;
    let planned =
        [Route::Inbox, Route::Request, Route::Http].map(|way| scene.plan("order.paid", way));
    scene.publish(planned.into_iter().collect::<Result<_>>()?).await?;
    for (path, wanted) in
        [("/good", 5), ("/flaky", 10), ("/dead", 10), ("/waiting", 5), ("/ordered", 5)]
    {
        got(scene, path, wanted).await;
    }
    // The delivery log lists them, with those that were given up.
    let dead = until(scene, &own("/dead-letters"), |found| {
        found["data"].as_array().is_some_and(|items| items.len() >= 5)
    })
    .await?;
    ensure!(dead["data"][0]["state"] == "exhausted", "{dead}");
    Ok(())
}

/// What people ask for.
async fn look_after(scene: &Scene) -> Result<()> {
    let endpoint = |path: &str| {
        let found = scene.subscribers.iter().find(|subscriber| subscriber.path == path);
        found.map(|subscriber| subscriber.id.to_string()).context("an endpoint")
    };
    let waiting = endpoint("/waiting")?;
    let path = own(&format!("/endpoints/{waiting}/deliveries"));
    let listed =
        until(scene, &path, |found| found["data"].as_array().is_some_and(|all| all.len() >= 5));
    let listed = listed.await?;
    for (at, what) in [(0, "cancel"), (1, "retry")] {
        let delivery = text(&listed["data"][at], "id")?;
        scene.api().post(&own(&format!("/deliveries/{delivery}/{what}")), &json!({})).await?;
        scene.api().get(&own(&format!("/deliveries/{delivery}"))).await?;
    }
    got(scene, "/waiting", 6).await;
    let good = endpoint("/good")?;
    let sample = json!({ "event_type": "order.tried", "data": {} });
    let tried = scene.api().act(TENANT, &good, "test", &sample).await?;
    ensure!(tried["attempt"]["status"] == 200, "{tried}");
    let path = own(&format!("/endpoints/{good}"));
    until(scene, &path, |found| found["health"].is_object()).await?;
    scene.api().act(TENANT, &good, "pause", &json!({ "mode": "hold" })).await?;
    scene.api().act(TENANT, &good, "resume", &json!({})).await?;
    let before = scene.hooks.seen_at("/good").len();
    let ago = SystemClock.now().saturating_sub(Duration::from_mins(10)).to_string();
    let body = json!({ "since": ago, "which": "all" });
    scene.api().act(TENANT, &good, "replay", &body).await?;
    got(scene, "/good", before + 5).await;
    let key = json!({ "role": "publish", "name": "a key" });
    scene.api().post(&own("/keys"), &key).await?;
    scene
        .api()
        .post(&format!("/v1/tenants/{REQUESTER}/expunge"), &json!({ "confirm": REQUESTER }))
        .await?;
    let path = format!("/v1/tenants/{REQUESTER}/expunge");
    until(scene, &path, |found| found["state"] == "finished").await?;
    Ok(())
}

/// Services that come and go: work changes hands, and what was kept is read again.
async fn hand_over(scene: &mut Scene) -> Result<()> {
    let second = scene.installation.another(Service::Dispatcher)?;
    for service in [Service::Dispatcher, Service::RetryScheduler, Service::Ingest, Service::FanOut]
    {
        scene.installation.stop(service).await?;
        let before = scene.hooks.seen_at("/good").len();
        if service != Service::Dispatcher {
            scene.installation.start_service(service).await?;
        }
        let planned = scene.plan("order.late", Route::Inbox)?;
        scene.publish(vec![planned]).await?;
        got(scene, "/good", before + 1).await;
    }
    scene.installation.start_service(Service::Dispatcher).await?;
    second.stop().await
}

/// The servers have refused nothing, and the services say so too.
fn check_nothing_was_refused(installation: &Installation) -> Result<()> {
    let said = installation.servers().locked().said()?;
    let refused: Vec<_> = said.lines().filter(|line| line.contains("Violation")).collect();
    ensure!(refused.is_empty(), "the servers refused:\n{}", refused.join("\n"));
    for path in logs::files(&installation.logs())? {
        let lines = logs::read(&path)?;
        let denied = lines.iter().find(|line| line.text.contains("user of NATS may not"));
        ensure!(denied.is_none(), "{}: {denied:?}", path.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_does_its_work_and_nobody_more_than_that() -> Result<()> {
    let mut scene = scene(1).await?;
    scene.installation.start_service(Service::Projector).await?;
    scene.api().tenant(REQUESTER, Options::default().profile).await?;
    deliver(&mut scene).await?;
    look_after(&scene).await?;
    hand_over(&mut scene).await?;
    check_nothing_was_refused(&scene.installation)?;

    let before = scene.log.survey().await?;
    let servers = scene.installation.servers();
    forbidden::all_is_refused(servers.locked()).await?;
    forbidden::no_answer_is_stored(servers.locked()).await?;
    let after = scene.log.survey().await?;
    let count = |survey: &Survey, stream: &str| {
        let found = survey.streams.iter().find(|one| one.stream == stream);
        found.map_or(0, |one| one.messages)
    };
    assert_eq!(count(&before, "EVENTS"), count(&after, "EVENTS"), "what was refused was not done");
    assert!(count(&after, "RETRIES") > 0, "alarm clocks that go off in an hour are there");
    scene.installation.stop(Service::Projector).await?;
    scene.finish(Expected::Turmoil).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_keep_what_node_promises() -> Result<()> {
    let mut scene = scene(3).await?;
    scene.subscribe("/good", &["order.*"], &["1h"]).await?;
    scene.api().tenant(REQUESTER, Options::default().profile).await?;
    publish_as_producers(&scene).await?;
    got(&scene, "/good", 2).await;
    for service in Service::ALL {
        let lines = logs::read(&scene.installation.logs().join(format!("{service}.log")))?;
        let kept = lines.iter().any(|line| {
            line.field("message") == Some("the servers keep what is promised")
                && line.field("level") == Some("node")
        });
        ensure!(kept, "{service} has not checked durability node");
    }
    check_nothing_was_refused(&scene.installation)?;
    let survey = scene.log.survey().await?;
    ensure!(survey.streams.iter().any(|stream| stream.stream == "EVENTS" && stream.messages == 3));
    scene.finish(Expected::Calm).await
}
