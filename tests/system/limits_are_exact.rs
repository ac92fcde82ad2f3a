//! An endpoint's limits hold exactly, also while its shard goes from one dispatcher to another:
//! what the receiver counts is never above the cap, and as many as the rate says.

use std::{collections::BTreeMap, fmt, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{EventId, Fact, Shard, Timestamp};
use fanfare_event_log::{Column, EventLog, JournalFilter, journal::From};
use fanfare_testkit::wait_until;
use serde_json::{Value, json};

use crate::support::{Answer, Expected, Hooks, Options, Process, Route, Scene, Service};

const SHARDS: u16 = 8;
const PATHS: [&str; 4] = ["/a", "/b", "/c", "/d"];

/// The most requests at once, and how many events there are.
const CAP: usize = 5;
const CAPPED: usize = 60;

/// Requests in a second, those that may be caught up at once, and the time over which they count.
const RATE: usize = 10;
const BURST: usize = 5;
const WINDOW: Duration = Duration::from_secs(30);
const RATED: usize = 340;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_holds_while_shards_change_hands() -> Result<()> {
    let hooks = Hooks::answering(|request, _| {
        let event = request.header("webhook-id").and_then(|id| id.parse().ok());
        Answer::Late(200, event.map_or(Duration::ZERO, delay))
    });
    let options = Options { shards: SHARDS, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    subscribe(&mut scene, &json!({ "concurrency": CAP, "timeout_ms": 10_000 })).await?;
    let first = scene.installation.take(Service::Dispatcher)?;
    publish(&mut scene, CAPPED).await?;
    let share = PATHS.len() * CAPPED / 6;
    scene.hooks_have(share).await;
    let second = join(&scene).await?;
    scene.hooks_have(scene.hooks.count() + share).await;
    first.stop().await?;
    scene.concluded(Duration::from_mins(1)).await?;
    for path in PATHS {
        let most = most_at_once(&scene, path);
        say(format_args!("{path}: {most} at once"))?;
        ensure!(most <= CAP, "{most} requests at once to {path}");
        ensure!(most == CAP, "the load was too low to tell: {most} at once to {path}");
    }
    let report = scene.judge().await?;
    ensure!(report.duplicates == 0, "{} were made twice", report.duplicates);
    second.stop().await?;
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_holds_while_shards_change_hands() -> Result<()> {
    let options = Options { shards: SHARDS, ..Options::default() };
    let mut scene = Scene::set_with(options, Hooks::start().await?).await?;
    let limit = json!({ "requests": RATE, "per": "second", "burst": BURST });
    subscribe(&mut scene, &json!({ "rate_limit": limit })).await?;
    let first = scene.installation.take(Service::Dispatcher)?;
    let second = join(&scene).await?;
    publish(&mut scene, RATED).await?;
    let total = PATHS.len() * RATED;
    scene.hooks_have(total / 4).await;
    let third = scene.installation.another(Service::Dispatcher)?;
    shared_by(&scene.log, 3).await;
    scene.hooks_have(total / 2).await;
    first.stop().await?;
    scene.concluded(Duration::from_mins(1)).await?;
    for path in PATHS {
        let times = times(&scene, path);
        let begin = times.first().context("requests came")?.saturating_add(Duration::from_secs(1));
        let counted = times.iter().filter(|at| **at >= begin && at.since(begin) < WINDOW).count();
        let pause = times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default();
        say(format_args!(
            "{path}: {counted} within {WINDOW:?}, never none for more than {pause:?}"
        ))?;
        let expected = RATE * usize::try_from(WINDOW.as_secs())?;
        let tolerance = expected / 20;
        ensure!(counted.abs_diff(expected) <= tolerance, "{counted} requests to {path}");
    }
    let report = scene.judge().await?;
    ensure!(report.duplicates == 0, "{} were made twice", report.duplicates);
    for process in [second, third] {
        process.stop().await?;
    }
    scene.finish(Expected::Calm).await
}

/// Makes the endpoints, with these settings besides the usual ones.
async fn subscribe(scene: &mut Scene, settings: &Value) -> Result<()> {
    for path in PATHS {
        let mut endpoint = scene.endpoint(path, &[">"], &["1s"]);
        let members = endpoint.as_object_mut().context("an object")?;
        members.extend(settings.as_object().context("an object")?.clone());
        let made = scene.api().endpoint(crate::support::scene::TENANT, &endpoint).await?;
        scene.note(path, &[">"], &made, &["1s"])?;
    }
    Ok(())
}

async fn publish(scene: &mut Scene, count: usize) -> Result<()> {
    let planned = (0..count).map(|_| scene.plan("a.b", Route::Inbox));
    let planned = planned.collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await
}

/// Has a second dispatcher join, and waits until it has its share.
async fn join(scene: &Scene) -> Result<Process> {
    let second = scene.installation.another(Service::Dispatcher)?;
    shared_by(&scene.log, 2).await;
    Ok(second)
}

/// Waits until all shards are claimed by so many dispatchers.
async fn shared_by(log: &EventLog, count: usize) {
    wait_until("the shards to be shared", async || {
        let owners = owners(log).await.map_err(|error| format!("{error:#}"))?;
        let mut loads: BTreeMap<&str, usize> = BTreeMap::new();
        for owner in owners.values() {
            *loads.entry(owner).or_default() += 1;
        }
        let even = loads.values().all(|load| *load <= usize::from(SHARDS).div_ceil(count));
        if loads.len() == count && even { Ok(()) } else { Err(format!("{loads:?}")) }
    })
    .await;
}

async fn owners(log: &EventLog) -> Result<BTreeMap<Shard, String>> {
    let last = log.journal_last().await?;
    let mut reader = log.journal(JournalFilter::Deliveries, From::Sequence(1)).await?;
    let mut owners = BTreeMap::new();
    while let Some(batch) = reader.next_until(last).await? {
        let Some((shard, Column::Attempts)) = batch.column else { continue };
        for record in batch.facts {
            if let Fact::ShardClaimed(claimed) = record.fact {
                owners.insert(shard, claimed.owner);
            }
        }
    }
    Ok(owners)
}

/// How long an endpoint takes to answer: 300 ms to 1 s, by chance.
fn delay(event: EventId) -> Duration {
    let number: u64 = event.as_bytes().iter().copied().map(u64::from).sum();
    Duration::from_millis(300 + number * 37 % 700)
}

/// When requests came to a path, in order.
fn times(scene: &Scene, path: &str) -> Vec<Timestamp> {
    let mut times: Vec<_> = scene.hooks.seen_at(path).iter().map(|seen| seen.at).collect();
    times.sort_unstable();
    times
}

/// How many requests a path had at most at once: come, and not answered yet.
fn most_at_once(scene: &Scene, path: &str) -> usize {
    let seen = scene.hooks.seen_at(path);
    let end = |at: Timestamp, event: Option<EventId>| {
        at.saturating_add(event.map_or(Duration::ZERO, delay))
    };
    let spans: Vec<_> = seen.iter().map(|seen| (seen.at, end(seen.at, seen.event))).collect();
    let at_once =
        |now: Timestamp| spans.iter().filter(|(from, to)| *from <= now && now < *to).count();
    spans.iter().map(|(from, _)| at_once(*from)).max().unwrap_or_default()
}

/// Says something past the test harness's capture, which shows nothing of tests that pass.
fn say(text: fmt::Arguments<'_>) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "limits_are_exact: {text}")?)
}
