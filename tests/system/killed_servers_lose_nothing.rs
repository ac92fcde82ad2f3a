//! Durability `node` and `site`: servers that die, one at a time or all at once, lose nothing that
//! was acknowledged.
//!
//! What this shows and what it does not: a process that is killed leaves what it wrote in the
//! system's cache, and the next one finds it there, synced or not. So these tests show that the
//! services and the servers put the pieces together again: other leaders, connections to other
//! servers, writes whose fate is unknown, a disk that comes back empty. Only a machine that loses
//! its power shows that what was to be synced is on the disk. That the servers are told to sync is
//! checked at each start (`durability_is_checked`); that they do, and that the disks do not lie, is
//! taken on trust.

use std::{cell::Cell, future::ready, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_event_log::{Durability, topology::Stream};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::{NatsCluster, receiver::Received};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep};

use crate::support::{
    Acknowledged, Answer, Count, EAGER, Expected, Hooks, Options, Planned, Producer, Route, Scene,
    Service,
    nemesis::{Kill, Victim},
};

/// The services that are started again while a server is down.
const SERVICES: [Service; 4] =
    [Service::Ingest, Service::FanOut, Service::Dispatcher, Service::RetryScheduler];

/// What each endpoint wants.
const ENDPOINTS: [(&str, &[&str]); 4] =
    [("/all", &[">"]), ("/orders", &["order.>"]), ("/none", &["never.>"]), (FLAKY, &["*.paid"])];
/// The endpoint that accepts a delivery at the third attempt.
const FLAKY: &str = "/flaky";
const DELAYS: [&str; 4] = ["300ms", "600ms", "1s", "2s"];
const TYPES: [&str; 4] = ["order.paid", "order.made", "invoice.paid", "user.created"];

/// How long to wait before the next event is published.
const PACE: Duration = Duration::from_millis(60);
/// How many events may be unanswered at once.
const WINDOW: usize = 32;
/// The most events that are published during one fault.
const EVENTS_MAX: usize = 120;
/// How many events are published during all faults, at the least.
const EVENTS_MIN: usize = 60;

/// After how many requests a fault comes, and at the latest after how long.
const MOMENT: usize = 16;
const MOMENT_MAX: Duration = Duration::from_secs(2);
/// How long a server stays down: longer than the servers know an id again.
const DOWN: Duration = Duration::from_millis(1_500);
/// How long the deliveries may take that are open when the last fault is over.
const PATIENCE: Duration = Duration::from_mins(1);

async fn scene(durability: Durability, servers: Count) -> Result<Scene> {
    let hooks = Hooks::answering(answer).await?;
    let options = Options { durability, servers, profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks).await?;
    for (path, filters) in ENDPOINTS {
        scene.subscribe(path, filters, &DELAYS).await?;
    }
    Ok(scene)
}

fn answer(request: &Received, earlier: usize) -> Answer {
    let fails = request.path == FLAKY && earlier < 2;
    Answer::Status(if fails { 503 } else { 200 })
}

fn plan(scene: &Scene) -> Result<Vec<Planned>> {
    let routes = [Route::Inbox, Route::Request, Route::Http];
    let types = TYPES.iter().cycle().zip(routes.iter().cycle());
    types.take(EVENTS_MAX).map(|(event_type, route)| scene.plan(event_type, *route)).collect()
}

/// Publishes one event after the other, without waiting for answers, until the fault is over.
async fn publish(
    producer: &Producer,
    planned: Vec<Planned>,
    over: &Cell<bool>,
) -> Result<Vec<Acknowledged>> {
    let paced = stream::iter(planned).then(|one| async move {
        // Without it all events would be through before the fault.
        sleep(PACE).await;
        one
    });
    let paced = paced.take_while(|_| ready(!over.get()));
    paced.map(|one| producer.publish(one)).buffer_unordered(WINDOW).try_collect().await
}

/// Does something to the servers, and waits until they are well again, while events are published.
async fn under_load(
    scene: &mut Scene,
    fault: impl AsyncFnOnce(&mut Scene) -> Result<()>,
) -> Result<()> {
    let (planned, producer, over) = (plan(scene)?, scene.producer(), Cell::new(false));
    let at = SystemClock.now();
    let struck = async {
        let (begun, before) = (Instant::now(), scene.hooks.count());
        while scene.hooks.count() < before + MOMENT && begun.elapsed() < MOMENT_MAX {
            sleep(Duration::from_millis(1)).await;
        }
        let struck = fault(scene).await;
        scene.installation.servers().settled().await;
        over.set(true);
        struck
    };
    let (published, struck) = tokio::join!(publish(&producer, planned, &over), struck);
    struck?;
    scene.acknowledged.extend(published?);
    scene.kills.push(Kill { victim: Victim::Nats, at, back: SystemClock.now() });
    Ok(())
}

/// Waits for the end, and has the evidence judged.
async fn conclude(scene: Scene, what: &str) -> Result<()> {
    scene.concluded(PATIENCE).await?;
    ensure!(scene.acknowledged.len() >= EVENTS_MIN, "only {}", scene.acknowledged.len());
    let report = scene.judge().await?;
    scene.api_agrees().await?;
    ensure!(report.conclusions.keys().eq(["delivered"].iter()), "{:?}", report.conclusions);
    ensure!(report.duplicates == 0, "{} duplicates", report.duplicates);
    let (p50, p99) = (report.lateness_percentile(50), report.lateness_percentile(99));
    let (events, attempts) = (scene.acknowledged.len(), report.attempts);
    say(&format!(
        "{what}: {events} events, {attempts} attempts, late by p50 {p50:?}, p99 {p99:?}"
    ))?;
    scene.finish(Expected::Turmoil).await
}

/// Kills a member, if it runs, and starts it again on its data.
async fn kill_and_restart(cluster: &mut NatsCluster, name: &str) -> Result<()> {
    cluster.member(name)?.kill().await.context("kill a member")?;
    // The time that it stays down is the fault itself.
    sleep(DOWN).await;
    cluster.restart_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_bears_the_loss_of_any_one_server() -> Result<()> {
    let mut scene = scene(Durability::Node, Count::Three).await?;
    let topology = scene.log.topology().clone();
    for stream in [Stream::Events, Stream::Journal, Stream::Retries] {
        let stream = topology.stream(stream);
        let leader = scene.installation.cluster().leader(&stream).await?;
        say(&format!("killing {leader}, which leads {stream}"))?;
        under_load(&mut scene, async |scene: &mut Scene| {
            kill_and_restart(scene.installation.cluster(), &leader).await
        })
        .await?;
    }
    let lost = scene.installation.cluster().leader(&topology.stream(Stream::Events)).await?;
    say(&format!("{lost} loses its disk"))?;
    under_load(&mut scene, async |scene: &mut Scene| {
        let cluster = scene.installation.cluster();
        cluster.member(&lost)?.kill().await.context("kill a member")?;
        cluster.empty(&lost).await?;
        kill_and_restart(cluster, &lost).await
    })
    .await?;
    let other = NatsCluster::NAMES.into_iter().find(|name| *name != lost).unwrap_or_default();
    say(&format!("killing {other}: now {lost} is one of the two that have to know all"))?;
    under_load(&mut scene, async |scene: &mut Scene| {
        let installation = &mut scene.installation;
        installation.cluster().member(other)?.kill().await.context("kill a member")?;
        for service in SERVICES {
            installation.stop(service).await?;
            installation.start_service(service).await.context("start without one server")?;
        }
        installation.cluster().restart_all().await
    })
    .await?;
    conclude(scene, "node").await
}

/// Kills all servers at once, some times.
async fn all_die(scene: &mut Scene, times: usize) -> Result<()> {
    for _ in 0..times {
        under_load(scene, async |scene: &mut Scene| {
            let servers = scene.installation.servers_mut();
            servers.kill_all().await?;
            sleep(DOWN).await;
            servers.restart_all().await
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn site_bears_the_death_of_its_only_server() -> Result<()> {
    let mut scene = scene(Durability::Site, Count::One).await?;
    all_die(&mut scene, 4).await?;
    conclude(scene, "site, one server").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn site_bears_the_death_of_all_three_servers() -> Result<()> {
    let mut scene = scene(Durability::Site, Count::Three).await?;
    all_die(&mut scene, 2).await?;
    conclude(scene, "site, three servers").await
}

/// Says something past the test harness's capture, which shows nothing of tests that pass.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "killed_servers_lose_nothing: {text}")?)
}
