//! Several dispatchers and several retry-schedulers share the shards, and processes come, leave,
//! die and freeze under load: nothing is lost, nothing is doubled without a crash to account for
//! it, the shards of the dead are taken over in time, and who was frozen stays silent.
//!
//! The run is a function of its seed, which is printed: `FANFARE_TEST_SEED=… cargo test …` plays
//! it again, as far as the machine's timing allows. `FANFARE_TEST_LONG=1` runs the long version.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{DeliveryId, Fact, Shard, Timestamp};
use fanfare_event_log::{Column, EventLog, JournalFilter, JournalReader, journal::From};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::wait_until;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::support::{
    Acknowledged, Answer, EAGER, Expected, Hooks, Options, Process, Route, Scene, Service,
    nemesis::{self, Kill, Victim},
};

/// How many shards there are, and how many processes share them.
const SHARDS: u16 = 8;
const DISPATCHERS: usize = 3;
const SCHEDULERS: usize = 2;
/// Within which the shards of a process that died are another's.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);
/// How many events are published at once, and how often.
const BURST: usize = 6;
const PACE: Duration = Duration::from_millis(100);

/// How large a run is.
#[derive(Clone, Copy, Debug)]
struct Size {
    rounds: usize,
    frozen: Duration,
}

const SHORT: Size = Size { rounds: 1, frozen: Duration::from_secs(6) };
const LONG: Size = Size { rounds: 10, frozen: Duration::from_secs(20) };

/// What befalls a process. Each time, another one takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// It is asked to end, and hands over.
    Drain,
    /// It is killed.
    Kill,
    /// It is stopped for a while, and goes on.
    Freeze,
}

/// The processes of one role.
struct Fleet {
    service: Service,
    processes: Vec<Process>,
    claims: Claims,
}

/// A claim on record.
#[derive(Clone, Debug)]
struct Claimed {
    owner: String,
    at: Timestamp,
    /// How long before it the shard's last facts were written, by whoever had it then.
    gap: Option<Duration>,
}

/// Follows who claims what.
struct Claims {
    log: EventLog,
    reader: JournalReader,
    column: Column,
    owners: BTreeMap<Shard, Claimed>,
    written: BTreeMap<Shard, Timestamp>,
    /// Every claim since this was last emptied.
    fresh: Vec<Claimed>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_come_and_go_and_the_promises_hold() -> Result<()> {
    let seed = nemesis::seed()?;
    let size = if nemesis::is_long()? { LONG } else { SHORT };
    say(format_args!("seed {seed}: FANFARE_TEST_SEED={seed} plays it again; {size:?}"))?;
    let hooks = Hooks::answering(|request, earlier| match (request.path.as_str(), earlier) {
        ("/e", 0) | ("/f", 0 | 1) => Answer::Status(500),
        _ => Answer::Status(200),
    });
    let options = Options { shards: SHARDS, profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    for path in ["/a", "/b", "/c", "/d", "/e", "/f"] {
        scene.subscribe(path, &[">"], &["500ms", "1s", "2s"]).await?;
    }
    let mut fleets = [
        Fleet::gather(&mut scene, Service::Dispatcher, Column::Attempts, DISPATCHERS).await?,
        Fleet::gather(&mut scene, Service::RetryScheduler, Column::Plans, SCHEDULERS).await?,
    ];
    for (at, deed) in plan(seed, size.rounds) {
        let over = AtomicBool::new(false);
        let doing = async {
            let done = fleets[at].befall(&scene, deed, size.frozen).await;
            over.store(true, Ordering::Release);
            done.with_context(|| format!("{deed:?} a {}, seed {seed}", fleets[at].service))
        };
        let (published, kills) = tokio::join!(publish_until(&scene, &over), doing);
        scene.acknowledged.extend(published?);
        scene.kills.extend(kills?);
    }
    scene.concluded(Duration::from_mins(1)).await.with_context(|| format!("seed {seed}"))?;
    let report = scene.judge().await.with_context(|| format!("seed {seed}"))?;
    scene.api_agrees().await.with_context(|| format!("seed {seed}"))?;
    say(format_args!(
        "{} events, {} attempts, {} requests, {} duplicates; later attempts late by p99 {:?}",
        scene.acknowledged.len(),
        report.attempts,
        report.requests,
        report.duplicates,
        report.lateness_percentile(99),
    ))?;
    for fleet in fleets {
        for process in fleet.processes {
            process.stop().await?;
        }
    }
    scene.finish(Expected::Turmoil).await
}

/// Every deed to both fleets, in an order of chance.
fn plan(seed: u64, rounds: usize) -> Vec<(usize, Deed)> {
    let mut dice = StdRng::seed_from_u64(seed);
    let deeds = [Deed::Drain, Deed::Kill, Deed::Freeze];
    let mut plan = Vec::new();
    for _ in 0..rounds {
        let mut round: Vec<_> = deeds.into_iter().flat_map(|deed| [(0, deed), (1, deed)]).collect();
        round.shuffle(&mut dice);
        plan.extend(round);
    }
    plan
}

/// Publishes some events again and again.
async fn publish_until(scene: &Scene, over: &AtomicBool) -> Result<Vec<Acknowledged>> {
    let producer = scene.producer();
    let routes = [Route::Inbox, Route::Request];
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut published = Vec::new();
    while !over.load(Ordering::Acquire) {
        ticks.tick().await;
        let routes = routes.iter().cycle().take(BURST);
        let planned = routes.map(|route| scene.plan("a.b", *route)).collect::<Result<Vec<_>>>()?;
        published.extend(producer.publish_all(planned).await?);
    }
    Ok(published)
}

impl Fleet {
    /// Takes the installation's process and adds others, until they share the shards.
    async fn gather(
        scene: &mut Scene,
        service: Service,
        column: Column,
        size: usize,
    ) -> Result<Self> {
        let mut processes = vec![scene.installation.take(service)?];
        while processes.len() < size {
            processes.push(scene.installation.another(service)?);
        }
        let claims = Claims::follow(&scene.log, column).await?;
        let mut fleet = Self { service, processes, claims };
        fleet.is_spread().await;
        Ok(fleet)
    }

    /// Does something to one process under load, and has another take its place.
    async fn befall(&mut self, scene: &Scene, deed: Deed, frozen: Duration) -> Result<Vec<Kill>> {
        self.claims.catch_up().await?;
        self.claims.fresh.clear();
        // The oldest: every process has its turn.
        let victim = self.processes.remove(0);
        let at = SystemClock.now();
        let kills = match deed {
            Deed::Drain => {
                victim.stop().await?;
                self.is_spread().await;
                self.tell("drained", at)?;
                Vec::new()
            }
            Deed::Kill => {
                victim.kill().await?;
                self.is_spread().await;
                let took = self.tell("killed", at)?;
                ensure!(took <= TAKEOVER_MAX, "taken over after {took:?}");
                vec![self.kill(at)]
            }
            Deed::Freeze => {
                victim.suspend()?;
                // The time that it is frozen is the fault itself.
                tokio::join!(self.is_spread(), sleep(frozen));
                let took = self.tell("frozen", at)?;
                ensure!(took <= TAKEOVER_MAX, "taken over after {took:?}");
                let kill = self.kill(at);
                let concluded = concluded(&scene.log).await?;
                let woken = SystemClock.now();
                victim.resume()?;
                self.claims.fresh.clear();
                self.processes.push(victim);
                self.is_spread().await;
                self.tell("woken", woken)?;
                is_silent(scene, woken, &concluded)?;
                return Ok(vec![kill]);
            }
        };
        self.claims.fresh.clear();
        let at = SystemClock.now();
        self.processes.push(scene.installation.another(self.service)?);
        self.is_spread().await;
        self.tell("joined by another", at)?;
        Ok(kills)
    }

    fn kill(&self, at: Timestamp) -> Kill {
        Kill { victim: Victim::Service(self.service), at, back: SystemClock.now() }
    }

    /// Waits until the shards are shared among all of these processes, and nobody else.
    async fn is_spread(&mut self) {
        let (size, claims) = (self.processes.len(), &mut self.claims);
        let mean = usize::from(SHARDS) / size;
        wait_until("the shards to be shared", async || {
            if let Err(error) = claims.catch_up().await {
                return Err(format!("{error:#}"));
            }
            let loads = claims.loads();
            let even = loads.values().all(|load| (mean..=mean + 1).contains(load));
            let whole = loads.values().sum::<usize>() == usize::from(SHARDS);
            if loads.len() == size && even && whole { Ok(()) } else { Err(format!("{loads:?}")) }
        })
        .await;
    }

    /// Says how long it took until the shards were claimed anew; returns it.
    fn tell(&self, what: &str, since: Timestamp) -> Result<Duration> {
        let fresh = &self.claims.fresh;
        ensure!(!fresh.is_empty(), "nothing was claimed");
        let took = fresh.iter().map(|claim| claim.at.since(since)).max().unwrap_or_default();
        let pause = fresh.iter().filter_map(|claim| claim.gap).max().unwrap_or_default();
        say(format_args!(
            "a {} is {what}: {} shards claimed within {took:?}, without facts for up to {pause:?}",
            self.service,
            fresh.len()
        ))?;
        Ok(took)
    }
}

impl Claims {
    async fn follow(log: &EventLog, column: Column) -> Result<Self> {
        let reader = log.journal(JournalFilter::Deliveries, From::Sequence(1)).await?;
        let (owners, written, fresh) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Ok(Self { log: log.clone(), reader, column, owners, written, fresh })
    }

    async fn catch_up(&mut self) -> Result<()> {
        let last = self.log.journal_last().await?;
        while let Some(batch) = self.reader.next_until(last).await? {
            let Some((shard, column)) = batch.column else { continue };
            if column != self.column {
                continue;
            }
            let before = self.written.insert(shard, batch.stored_at);
            for record in batch.facts {
                if let Fact::ShardClaimed(claimed) = record.fact {
                    let gap = before.map(|before| batch.stored_at.since(before));
                    let claim = Claimed { owner: claimed.owner, at: batch.stored_at, gap };
                    self.owners.insert(shard, claim.clone());
                    self.fresh.push(claim);
                }
            }
        }
        Ok(())
    }

    fn loads(&self) -> BTreeMap<&str, usize> {
        let mut loads = BTreeMap::new();
        for claim in self.owners.values() {
            *loads.entry(claim.owner.as_str()).or_default() += 1;
        }
        loads
    }
}

/// The deliveries that are concluded, as the journal says.
async fn concluded(log: &EventLog) -> Result<BTreeSet<DeliveryId>> {
    let last = log.journal_last().await?;
    let mut reader = log.journal(JournalFilter::Deliveries, From::Sequence(1)).await?;
    let mut concluded = BTreeSet::new();
    while let Some(batch) = reader.next_until(last).await? {
        for record in batch.facts {
            if let Fact::DeliveryConcluded(fact) = record.fact {
                concluded.insert(fact.delivery.id);
            }
        }
    }
    Ok(concluded)
}

/// Checks that nothing was sent since then of what had been concluded before.
fn is_silent(scene: &Scene, since: Timestamp, concluded: &BTreeSet<DeliveryId>) -> Result<()> {
    let endpoints: BTreeMap<&str, _> =
        scene.subscribers.iter().map(|one| (one.path.as_str(), one.id)).collect();
    for seen in scene.hooks.seen().iter().filter(|seen| seen.at > since) {
        let endpoint = endpoints.get(seen.path.as_str());
        let delivery = seen.event.zip(endpoint).map(|(event, id)| DeliveryId::of(event, *id, 0));
        let again = delivery.is_some_and(|delivery| concluded.contains(&delivery));
        ensure!(!again, "one who woke sent what was concluded: {seen:?}");
    }
    Ok(())
}

/// Says something past the test harness's capture, which shows nothing of tests that pass.
fn say(text: fmt::Arguments<'_>) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "scaled_dispatchers: {text}")?)
}
