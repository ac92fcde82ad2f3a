//! An endpoint that takes batches gets every event in them, once; a batch that fails is sent again
//! as it was; and the death of a dispatcher loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{BatchId, EventId, Fact, Profiles, seal::Clear};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::receiver::Received;
use serde_json::json;

use crate::support::{
    Answer, EAGER, Expected, Hooks, Options, Planned, Route, Scene, Service,
    api::Made,
    evidence,
    hooks::batch,
    nemesis::{Kill, Victim},
    scene::TENANT,
};

const EVENTS: usize = 500;
const MAX_EVENTS: usize = 50;
const MAX_WAIT_MS: u64 = 200;
/// Long enough for the alarm clocks of a batch to be set before one goes off.
const DELAYS: [&str; 3] = ["3s", "3s", "3s"];
const PATIENCE: Duration = Duration::from_mins(2);

/// One always answers 200; the other answers 500 to each batch that it sees for the first time.
const STEADY: &str = "/steady";
const SHAKY: &str = "/shaky";

async fn scene() -> Result<(Scene, [Made; 2])> {
    let hooks = Hooks::answering(|request, earlier| {
        let fails = request.path == SHAKY && earlier == 0;
        Answer::Status(if fails { 500 } else { 200 })
    });
    let options = Options { profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    let steady = subscribe(&mut scene, STEADY).await?;
    let shaky = subscribe(&mut scene, SHAKY).await?;
    Ok((scene, [steady, shaky]))
}

async fn subscribe(scene: &mut Scene, path: &str) -> Result<Made> {
    let mut endpoint = scene.endpoint(path, &[">"], &DELAYS);
    let batch = json!({ "max_events": MAX_EVENTS, "max_wait_ms": MAX_WAIT_MS });
    endpoint.as_object_mut().context("an object")?.insert(String::from("batch"), batch);
    let made = scene.api().endpoint(TENANT, &endpoint).await?;
    scene.note(path, &[">"], &made, &DELAYS)?;
    Ok(made)
}

fn plan(scene: &Scene, count: usize) -> Result<Vec<Planned>> {
    (0..count).map(|_| scene.plan("a.b", Route::Inbox)).collect()
}

/// The batches that a path got, each with its id and its events.
fn batches(scene: &Scene, path: &str) -> Result<Vec<(BatchId, Vec<EventId>)>> {
    let requests = scene.hooks.requests();
    let of = |request: &Received| {
        let id = request.header("webhook-id").context("an id")?.parse().context("a batch's id")?;
        let events: Option<Vec<_>> = batch(request).context("an array")?.into_iter().collect();
        anyhow::Ok((id, events.context("each element has its event's id")?))
    };
    let here = requests.iter().filter(|request| request.path == path);
    here.map(|request| of(request)).collect()
}

/// Checks each request by itself: its size, its id, its signature.
fn check_requests(scene: &Scene, made: &[Made; 2]) -> Result<()> {
    let profiles = Profiles::built_in();
    let profile = profiles.get("standard-webhooks").context("built in")?;
    for (path, made) in [STEADY, SHAKY].into_iter().zip(made) {
        let secret = Clear::new(made.secret.clone());
        for request in scene.hooks.requests().iter().filter(|request| request.path == path) {
            profile.verify(&secret, |name| request.header(name), &request.body)?;
        }
        for (id, events) in batches(scene, path)? {
            ensure!(events.len() <= MAX_EVENTS, "{id} has {} events", events.len());
        }
    }
    Ok(())
}

/// The events of all batches of a path, and that none is in two of them.
fn every_event(batches: &[(BatchId, Vec<EventId>)]) -> Result<BTreeSet<EventId>> {
    let mut all = BTreeSet::new();
    for (id, events) in batches {
        for event in events {
            ensure!(all.insert(*event), "{event} is in {id}, and was in another before");
        }
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_comes_once_and_a_batch_that_fails_comes_again() -> Result<()> {
    let (mut scene, made) = scene().await?;
    let planned = plan(&scene, EVENTS)?;
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    check_requests(&scene, &made)?;
    let steady = batches(&scene, STEADY)?;
    ensure!(every_event(&steady)?.len() == EVENTS);
    ensure!(steady.len() < EVENTS / 5, "{} requests for {EVENTS} events", steady.len());
    // Each batch fails once, and comes again with the same events under the same id.
    let mut seen: BTreeMap<BatchId, Vec<Vec<EventId>>> = BTreeMap::new();
    for (id, events) in batches(&scene, SHAKY)? {
        seen.entry(id).or_default().push(events);
    }
    let once: Vec<_> = seen.iter().map(|(id, times)| (*id, times[0].clone())).collect();
    ensure!(every_event(&once)?.len() == EVENTS);
    for (id, times) in &seen {
        ensure!(times.len() == 2 && times[0] == times[1], "{id} came as {times:?}");
    }
    let report = scene.judge().await?;
    ensure!(report.attempts == 3 * EVENTS, "{report:?}");
    ensure!(report.duplicates == 0, "{report:?}");
    check_facts(&scene, &steady).await?;
    scene.api_agrees().await?;
    scene.finish(Expected::Calm).await
}

/// Checks that facts name the batches that the endpoint got.
async fn check_facts(scene: &Scene, got: &[(BatchId, Vec<EventId>)]) -> Result<()> {
    let sizes: BTreeMap<BatchId, usize> = got.iter().map(|(id, it)| (*id, it.len())).collect();
    let steady = scene.subscribers[0].id;
    let mut facts: BTreeMap<BatchId, usize> = BTreeMap::new();
    let journal = evidence::journal(&scene.log).await?;
    for record in journal.iter().flat_map(|batch| &batch.facts) {
        let Fact::AttemptMade(made) = &record.fact else { continue };
        let batch = made.batch.context("every attempt is in a batch")?;
        if made.delivery.endpoint == steady {
            ensure!(sizes.get(&batch.id) == Some(&usize::try_from(batch.size)?), "{batch:?}");
            *facts.entry(batch.id).or_default() += 1;
        }
    }
    ensure!(facts == sizes, "a fact for each event: {facts:?}, but {sizes:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_that_dies_amid_batches_loses_nothing() -> Result<()> {
    let (mut scene, made) = scene().await?;
    for share in 1..=4 {
        let planned = plan(&scene, EVENTS / 4)?;
        scene.publish(planned).await?;
        if share == 4 {
            break;
        }
        // Amid its batches: some are on record, some on their way, some wait.
        scene.hooks_have(scene.hooks.count() + 1).await;
        let at = SystemClock.now();
        scene.installation.kill(Service::Dispatcher).await?;
        scene.installation.start_all().await?;
        let back = SystemClock.now();
        scene.kills.push(Kill { victim: Victim::Service(Service::Dispatcher), at, back });
    }
    scene.concluded(PATIENCE).await?;
    check_requests(&scene, &made)?;
    for path in [STEADY, SHAKY] {
        let events: BTreeSet<EventId> =
            batches(&scene, path)?.into_iter().flat_map(|(_, events)| events).collect();
        ensure!(events.len() == EVENTS, "{path} got {} events", events.len());
    }
    let report = scene.judge().await?;
    ensure!(report.conclusions == BTreeMap::from([("delivered", 2 * EVENTS)]), "{report:?}");
    scene.finish(Expected::Turmoil).await
}
