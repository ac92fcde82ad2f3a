//! Replays make new deliveries of past events, each once, also where fan-out dies in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{Conclusion, DeliveryId, Fact};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::wait_at_most;
use serde_json::{Value, json};

use crate::support::{
    Answer, EAGER, Expected, Hooks, Options, Route, Scene, Service,
    api::{Made, Refused},
    checker::{History, fold},
    evidence,
    scene::TENANT,
};

/// How long a replay may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The path of an endpoint that takes nothing any more once the others do.
const DEAD: &str = "/dead";

/// A scene whose endpoints refuse everything until they are told to take it, maybe slowly.
struct Stage {
    scene: Scene,
    works: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
    since: String,
}

impl Stage {
    async fn set(path: &str, events: usize) -> Result<(Self, Made)> {
        let (stage, endpoints) = Self::set_many(&[path.to_owned()], events).await?;
        let endpoint = endpoints.into_iter().next().context("an endpoint")?;
        Ok((stage, endpoint))
    }

    async fn set_many(paths: &[String], events: usize) -> Result<(Self, Vec<Made>)> {
        let [works, is_slow] = [false; 2].map(|it| Arc::new(AtomicBool::new(it)));
        let told = [Arc::clone(&works), Arc::clone(&is_slow)];
        let hooks = Hooks::answering(move |request, _| {
            let [works, is_slow] = told.each_ref().map(|told| told.load(Ordering::SeqCst));
            match (is_slow, works) {
                (false, true) if request.path == DEAD => Answer::Silence,
                (true, _) => Answer::Late(200, Duration::from_secs(3)),
                (false, true) => Answer::Status(200),
                (false, false) => Answer::Status(500),
            }
        });
        let options = Options { profile: EAGER, ..Options::default() };
        let mut scene = Scene::set_with(options, hooks.await?).await?;
        let since = SystemClock.now().to_string();
        let mut endpoints = Vec::with_capacity(paths.len());
        for path in paths {
            endpoints.push(scene.subscribe(path, &["a.*"], &[]).await?);
        }
        let planned =
            (0..events).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<Vec<_>>>()?;
        scene.publish(planned).await?;
        scene.concluded(PATIENCE).await?;
        works.store(true, Ordering::SeqCst);
        Ok((Self { scene, works, is_slow, since }, endpoints))
    }

    /// Begins a replay to an endpoint, and returns it.
    async fn replay(&self, endpoint: &Made, which: &str) -> Result<Value> {
        let body = json!({ "since": self.since, "which": which });
        self.scene.api().act(TENANT, &endpoint.id, "replay", &body).await
    }

    /// Waits until a replay is done, and all that it made has ended; returns how many it made.
    async fn done(&self, replay: &Value) -> Result<u64> {
        let id = replay["id"].as_str().context("an id")?;
        let path = format!("/v1/tenants/{TENANT}/replays/{id}");
        let made = wait_at_most(PATIENCE, "a replay to be done", async || {
            let found = self.scene.api().get(&path).await.map_err(|error| format!("{error:#}"))?;
            let is_done = found["state"] == "done";
            is_done.then(|| found["made"].as_u64().unwrap_or_default()).ok_or(found.to_string())
        })
        .await;
        wait_at_most(PATIENCE, "what was replayed to end", async || {
            let found = self.of(replay).await.map_err(|error| format!("{error:#}"))?;
            let ended = found.values().filter(|history| history.conclusion().is_some()).count();
            if u64::try_from(ended) == Ok(made) {
                Ok(())
            } else {
                Err(format!("{ended} of {made}"))
            }
        })
        .await;
        Ok(made)
    }

    /// Kills fan-out whenever so many deliveries of a replay were begun.
    async fn kill_on_the_way(&mut self, replay: &Value, goals: [usize; 3]) -> Result<()> {
        for goal in goals {
            wait_at_most(PATIENCE, "some of the replay", async || {
                let found = self.of(replay).await.map_err(|error| format!("{error:#}"))?;
                if found.len() >= goal { Ok(()) } else { Err(found.len().to_string()) }
            })
            .await;
            self.scene.installation.kill(Service::FanOut).await?;
            self.scene.installation.start_service(Service::FanOut).await?;
        }
        Ok(())
    }

    /// Everything that was routed for a replay has become a delivery that ended.
    async fn check_routed(&self, replay: &Value) -> Result<()> {
        let found = self.of(replay).await?;
        let batches = evidence::journal(&self.scene.log).await?;
        for record in batches.iter().flat_map(|batch| &batch.facts) {
            let Fact::EventRouted(routed) = &record.fact else { continue };
            if replay["generation"].as_u64() != Some(routed.generation.into()) {
                continue;
            }
            for endpoint in &routed.targets {
                let id = DeliveryId::of(routed.event, *endpoint, routed.generation);
                let history = found.get(&id).with_context(|| format!("{id} was only routed"))?;
                ensure!(history.conclusion().is_some(), "{id} has not ended");
            }
        }
        Ok(())
    }

    /// What a replay made, as far as anything has happened to it.
    async fn of(&self, replay: &Value) -> Result<BTreeMap<DeliveryId, History>> {
        let generation = replay["generation"].as_u64().context("a generation")?;
        let mut found = fold(&evidence::journal(&self.scene.log).await?);
        found.retain(|_, history| u64::from(history.delivery.generation) == generation);
        Ok(found)
    }
}

/// Each was delivered, with the first attempt.
fn check_delivered(found: &BTreeMap<DeliveryId, History>, count: usize) -> Result<()> {
    ensure!(found.len() == count, "{} deliveries instead of {count}", found.len());
    let events: BTreeSet<_> = found.values().map(|history| history.delivery.event).collect();
    ensure!(events.len() == count, "{} events instead of {count}", events.len());
    for (id, history) in found {
        let ends: Vec<_> = history.conclusions.iter().map(|it| it.conclusion).collect();
        ensure!(ends == [Conclusion::Delivered], "{id} ended {ends:?}");
        let numbers: Vec<_> = history.attempts.iter().map(|made| made.attempt).collect();
        ensure!(numbers == [1], "{id} has attempts {numbers:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_is_delivered_again_once() -> Result<()> {
    let (stage, endpoint) = Stage::set("/one", 150).await?;
    let replay = stage.replay(&endpoint, "failed").await?;
    assert_eq!(stage.done(&replay).await?, 150);
    check_delivered(&stage.of(&replay).await?, 150)?;
    let again = stage.replay(&endpoint, "failed").await?;
    assert_eq!(stage.done(&again).await?, 0, "nothing has failed since");
    let all = stage.replay(&endpoint, "all").await?;
    assert_eq!(stage.done(&all).await?, 150);
    check_delivered(&stage.of(&all).await?, 150)?;
    assert_eq!(stage.scene.hooks.count(), 450);
    stage.scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_endpoint_gets_what_it_never_had() -> Result<()> {
    let (mut stage, first) = Stage::set("/one", 100).await?;
    let late = stage.scene.subscribe("/late", &["a.*"], &[]).await?;
    let planned = vec![stage.scene.plan("a.b", Route::Inbox)?];
    stage.scene.publish(planned).await?;
    stage.scene.hooks_have(102).await;
    let replay = stage.replay(&late, "missing").await?;
    assert_eq!(stage.done(&replay).await?, 100);
    check_delivered(&stage.of(&replay).await?, 100)?;
    assert_eq!(stage.scene.hooks.seen_at("/late").len(), 101);
    let again = stage.replay(&late, "missing").await?;
    assert_eq!(stage.done(&again).await?, 0);
    let none = stage.replay(&first, "missing").await?;
    assert_eq!(stage.done(&none).await?, 0, "it had all of them, though they failed");
    stage.scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_deliveries_are_sent_again() -> Result<()> {
    let (stage, _) = Stage::set("/one", 5).await?;
    let found = fold(&evidence::journal(&stage.scene.log).await?);
    let ids: Vec<String> = found.keys().map(DeliveryId::to_string).collect();
    let path = format!("/v1/tenants/{TENANT}/deliveries/{}/replay", ids[0]);
    let replay = stage.scene.api().post(&path, &json!({})).await?;
    assert_eq!(stage.done(&replay).await?, 1);
    let made = stage.of(&replay).await?;
    check_delivered(&made, 1)?;
    let told = replay["delivery_ids"][0].as_str().context("an id")?;
    assert_eq!(made.keys().map(DeliveryId::to_string).collect::<Vec<_>>(), [told]);
    let shown = stage.scene.api().get(&format!("/v1/tenants/{TENANT}/deliveries/{told}")).await?;
    assert_eq!((&shown["state"], &shown["attempts"]), (&json!("delivered"), &json!(1)));
    let path = format!("/v1/tenants/{TENANT}/dead-letters/redrive");
    let redrive = stage.scene.api().post(&path, &json!({ "deliveries": ids })).await?;
    assert_eq!(stage.done(&redrive).await?, 5);
    check_delivered(&stage.of(&redrive).await?, 5)?;
    let refused = stage.scene.api().post(&path, &json!({ "deliveries": [told] })).await;
    let refused = refused.unwrap_err();
    let refused = refused.downcast_ref::<Refused>().context("a refusal")?;
    assert_eq!(refused.code(), "delivery_concluded");
    stage.scene.finish(Expected::Calm).await
}

/// Its deliveries stand together in the list, and are more than a turn has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_sent_again_to_all_endpoints_that_are_named() -> Result<()> {
    let paths: Vec<String> = (0..130).map(|number| format!("/{number}")).collect();
    let (stage, _) = Stage::set_many(&paths, 1).await?;
    let found = fold(&evidence::journal(&stage.scene.log).await?);
    let ids: Vec<String> = found.keys().map(DeliveryId::to_string).collect();
    assert_eq!(ids.len(), 130);
    let path = format!("/v1/tenants/{TENANT}/dead-letters/redrive");
    let redrive = stage.scene.api().post(&path, &json!({ "deliveries": ids })).await?;
    assert_eq!(stage.done(&redrive).await?, 130);
    let made = stage.of(&redrive).await?;
    assert_eq!(made.len(), 130);
    for id in made.keys() {
        let path = format!("/v1/tenants/{TENANT}/deliveries/{id}");
        let shown = stage.scene.api().get(&path).await?;
        assert_eq!((&shown["state"], &shown["attempts"]), (&json!("delivered"), &json!(1)));
    }
    stage.check_routed(&redrive).await?;
    stage.scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_never_answers_keeps_no_other_of_a_replay_waiting() -> Result<()> {
    let paths = ["/one", DEAD, "/two"].map(String::from);
    let (stage, endpoints) = Stage::set_many(&paths, 400).await?;
    let dead = &endpoints[1].id;
    let path = format!("/v1/tenants/{TENANT}/endpoints/{dead}");
    stage.scene.api().patch(&path, &json!({ "concurrency": 1 })).await?;
    let body = json!({ "since": stage.since, "which": "failed" });
    let replays = format!("/v1/tenants/{TENANT}/replays");
    let replay = stage.scene.api().post(&replays, &body).await?;
    wait_at_most(PATIENCE, "the others to have everything", async || {
        let [one, two] = ["/one", "/two"].map(|path| stage.scene.hooks.seen_at(path).len());
        if (one, two) == (800, 800) { Ok(()) } else { Err(format!("{one} and {two}")) }
    })
    .await;
    let its = stage.scene.hooks.seen_at(DEAD).len() - 400;
    ensure!(its < 100, "it got {its}");
    let path = format!("{replays}/{}", replay["id"].as_str().context("an id")?);
    wait_at_most(PATIENCE, "only that one to be behind", async || {
        let shown = stage.scene.api().get(&path).await.map_err(|error| format!("{error:#}"))?;
        let is_it = shown["state"] == "running" && shown["behind_endpoint_ids"] == json!([dead]);
        if is_it { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let cancelled = stage.scene.api().post(&format!("{path}/cancel"), &json!({})).await?;
    let made = cancelled["made"].as_u64().context("a number")?;
    ensure!((800..1_200).contains(&made), "{made} were made");
    wait_at_most(PATIENCE, "the others' deliveries to end", async || {
        let mut found = stage.of(&replay).await.map_err(|error| format!("{error:#}"))?;
        found.retain(|_, history| history.delivery.endpoint.to_string() != *dead);
        let is_delivered = |it: &History| it.conclusions.len() == 1 && it.attempts.len() == 1;
        let ended = found.values().filter(|history| is_delivered(history)).count();
        if ended == 800 { Ok(()) } else { Err(format!("{ended} of 800")) }
    })
    .await;
    stage.scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_fan_out_repeats_and_loses_nothing_of_a_replay() -> Result<()> {
    let (mut stage, endpoint) = Stage::set("/one", 800).await?;
    let replay = stage.replay(&endpoint, "all").await?;
    stage.kill_on_the_way(&replay, [50, 300, 500]).await?;
    stage.done(&replay).await?;
    check_delivered(&stage.of(&replay).await?, 800)?;
    stage.check_routed(&replay).await?;
    assert!(stage.works.load(Ordering::SeqCst));
    stage.scene.finish(Expected::Turmoil).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_fan_out_loses_nothing_of_what_was_missing() -> Result<()> {
    let (mut stage, _) = Stage::set("/one", 800).await?;
    // With one, the times of the tenant's limit are asked for in between.
    let limit = json!({ "rate_limit": { "requests": 200, "per": "second" } });
    stage.scene.api().patch(&format!("/v1/tenants/{TENANT}"), &limit).await?;
    let late = stage.scene.subscribe("/late", &["a.*"], &[]).await?;
    let replay = stage.replay(&late, "missing").await?;
    stage.kill_on_the_way(&replay, [50, 300, 500]).await?;
    assert_eq!(stage.done(&replay).await?, 800);
    check_delivered(&stage.of(&replay).await?, 800)?;
    stage.check_routed(&replay).await?;
    stage.scene.finish(Expected::Turmoil).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_replay_makes_no_more() -> Result<()> {
    let (stage, endpoint) = Stage::set("/one", 2_000).await?;
    // So it is not done before it is cancelled.
    stage.is_slow.store(true, Ordering::SeqCst);
    let replay = stage.replay(&endpoint, "all").await?;
    let id = replay["id"].as_str().context("an id")?;
    let path = format!("/v1/tenants/{TENANT}/replays/{id}/cancel");
    let cancelled = stage.scene.api().post(&path, &json!({})).await?;
    stage.is_slow.store(false, Ordering::SeqCst);
    assert_eq!(cancelled["state"], "cancelled");
    let made = cancelled["made"].as_u64().context("a number")?;
    ensure!(made < 2_000, "it was done before: {cancelled}");
    // What was on its way when it was cancelled ends, and nothing follows.
    let at_most = usize::try_from(made)? + 64;
    let other = stage.replay(&endpoint, "missing").await?;
    assert_eq!(stage.done(&other).await?, 0);
    let found = stage.of(&replay).await?;
    ensure!(found.len() <= at_most, "{} were made, and {made} before", found.len());
    stage.scene.finish(Expected::Calm).await
}
