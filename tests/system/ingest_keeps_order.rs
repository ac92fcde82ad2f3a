//! The events of a key are in EVENTS in the order in which their producer published them to INBOX,
//! with two ingests of which one reads at a time, while they are killed and frozen, and nats-server
//! is killed too; and each is there once.
//!
//! The run is a function of its seed, which is printed: `FANFARE_TEST_SEED=… cargo test …` plays
//! it again, as far as the machine's timing allows. `FANFARE_TEST_LONG=1` runs the long version.

use std::{
    collections::BTreeMap,
    fmt,
    io::Write as _,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_event_log::topology::Stream;
use fanfare_testkit::wait_at_most;
use futures_util::future::try_join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::support::{
    Expected, Hooks, Options, Process, Route, Scene, Service, evidence, logs, nemesis,
};

/// How many producers there are, each with a key of its own but the last, which has none.
const PRODUCERS: usize = 9;
/// How often each of them publishes.
const PACE: Duration = Duration::from_millis(20);
/// How long an ingest is frozen: longer than it takes to be taken for dead.
const FROZEN: Duration = Duration::from_millis(4_500);
/// How long the pause between two deeds is, in milliseconds.
const PAUSE: Range<u64> = 300..1_500;
/// How long INBOX may take to be empty in the end.
const PATIENCE: Duration = Duration::from_mins(1);

/// What befalls something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Each of the ingests is killed, one after the other, and another one started: so one of
    /// them read INBOX.
    KillEach,
    /// Each of them is frozen for a while, one after the other.
    FreezeEach,
    /// The older one is asked to end, and another one started.
    Stop,
    /// nats-server is killed, and started again.
    RestartServer,
}

const DEEDS: [Deed; 4] = [Deed::KillEach, Deed::FreezeEach, Deed::Stop, Deed::RestartServer];

/// What a producer published, by idempotency keys, in order.
struct Published {
    ordering_key: Option<String>,
    keys: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_key_are_stored_as_they_were_published_under_kills() -> Result<()> {
    let seed = nemesis::seed()?;
    let rounds = if nemesis::is_long()? { 5 } else { 1 };
    say(format_args!("seed {seed}: FANFARE_TEST_SEED={seed} plays it again; {rounds} rounds"))?;
    // What is frozen wakes within the window: what it had on its way is known again.
    let options = Options { duplicate_window: Duration::from_mins(1), ..Options::default() };
    let mut scene = Scene::set_with(options, Hooks::start().await?).await?;
    let mut ingests = vec![
        scene.installation.take(Service::Ingest)?,
        scene.installation.another(Service::Ingest)?,
    ];
    let producer = scene.producer();
    let over = AtomicBool::new(false);
    let mut plans = Vec::new();
    for number in 0..PRODUCERS {
        let ordering_key = (number + 1 < PRODUCERS).then(|| format!("key-{number}"));
        let mut plan = scene.plan("a.b", Route::Inbox)?;
        plan.ordering_key = ordering_key;
        plans.push(plan);
    }
    let publishing = plans.into_iter().enumerate().map(async |(number, plan)| {
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut keys = Vec::new();
        while !over.load(Ordering::Acquire) {
            ticks.tick().await;
            let mut next = plan.clone();
            next.key = format!("{number}/{}", keys.len());
            // The next one only once this one is acknowledged.
            keys.push(producer.publish(next).await?.key);
        }
        anyhow::Ok(Published { ordering_key: plan.ordering_key, keys })
    });
    let doing = async {
        let done = befall(&mut scene, &mut ingests, seed, rounds).await;
        over.store(true, Ordering::Release);
        done.with_context(|| format!("seed {seed}"))
    };
    let (published, ()) = tokio::try_join!(try_join_all(publishing), doing)?;
    inbox_is_empty(&scene).await;
    check(&scene, &published).await.with_context(|| format!("seed {seed}"))?;
    for ingest in ingests {
        ingest.stop().await?;
    }
    scene.finish(Expected::Turmoil).await
}

/// Does everything that there is to do, in an order of chance.
async fn befall(
    scene: &mut Scene,
    ingests: &mut Vec<Process>,
    seed: u64,
    rounds: usize,
) -> Result<()> {
    let mut dice = StdRng::seed_from_u64(seed);
    for _ in 0..rounds {
        let mut deeds = DEEDS;
        deeds.shuffle(&mut dice);
        for deed in deeds {
            match deed {
                Deed::KillEach => {
                    for _ in 0..ingests.len() {
                        pause(&mut dice).await;
                        ingests.remove(0).kill().await?;
                        ingests.push(scene.installation.another(Service::Ingest)?);
                    }
                }
                Deed::FreezeEach => {
                    for ingest in &mut *ingests {
                        pause(&mut dice).await;
                        ingest.suspend()?;
                        sleep(FROZEN).await;
                        ingest.resume()?;
                    }
                }
                Deed::Stop => {
                    pause(&mut dice).await;
                    // The oldest: one that has just begun does not know yet how to end.
                    ingests.push(scene.installation.another(Service::Ingest)?);
                    ingests.remove(0).stop().await?;
                }
                Deed::RestartServer => {
                    pause(&mut dice).await;
                    scene.installation.nats().kill().await.context("kill nats-server")?;
                    scene.installation.nats().restart().await.context("restart nats-server")?;
                }
            }
            ingests.iter().try_for_each(Process::check_alive)?;
        }
    }
    Ok(())
}

/// The moments of deeds are the dice's.
async fn pause(dice: &mut StdRng) {
    sleep(Duration::from_millis(dice.random_range(PAUSE))).await;
}

async fn inbox_is_empty(scene: &Scene) {
    let inbox = scene.log.topology().stream(Stream::Inbox);
    wait_at_most(PATIENCE, "INBOX to be empty", async || {
        match scene.installation.server().messages(&inbox).await {
            Ok(0) => Ok(()),
            Ok(left) => Err(format!("{left} messages")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
}

/// Checks that EVENTS has all that was published, once, and what is of a key in order.
async fn check(scene: &Scene, published: &[Published]) -> Result<()> {
    let events = evidence::events(&scene.installation, &scene.log).await?;
    let mut stored: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for event in events.iter().map(|stored| &stored.event) {
        let key = event.idempotency_key.as_deref().context("every event has one")?;
        stored.entry(event.ordering_key.as_deref()).or_default().push(key);
    }
    let count: usize = published.iter().map(|producer| producer.keys.len()).sum();
    let readers = readers(scene)?;
    say(format_args!("{count} published, INBOX was taken over {readers} times"))?;
    ensure!(readers > 2, "INBOX was taken over {readers} times");
    ensure!(count > 100 * PRODUCERS, "only {count} were published");
    for Published { ordering_key, keys } in published {
        let mut stored = stored.remove(&ordering_key.as_deref()).unwrap_or_default();
        if ordering_key.is_none() {
            stored.sort_by_key(|key| (key.len(), *key));
        }
        let wrong = stored.iter().zip(keys).position(|(stored, key)| stored != key);
        if let Some(at) = wrong {
            let from = at.saturating_sub(3);
            let around: Vec<_> = stored.iter().skip(from).take(10).collect();
            anyhow::bail!("{ordering_key:?} is out of order at {at}: {around:?}");
        }
        ensure!(stored.len() == keys.len(), "{ordering_key:?}: {} of {}", stored.len(), keys.len());
    }
    Ok(())
}

/// How often an ingest began to read INBOX.
fn readers(scene: &Scene) -> Result<usize> {
    let mut readers = 0;
    for path in logs::files(&scene.installation.logs())? {
        let lines = logs::read(&path)?;
        readers +=
            lines.iter().filter(|line| line.field("message") == Some("reading INBOX")).count();
    }
    Ok(readers)
}

/// Says something past the test harness's capture, which shows nothing of tests that pass.
fn say(text: fmt::Arguments<'_>) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "ingest_keeps_order: {text}")?)
}
