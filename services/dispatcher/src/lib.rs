//! Makes the attempts: signs and POSTs each delivery, and records what came of it.
//!
//! | reads                                       | writes                                     |
//! | ------------------------------------------- | ------------------------------------------ |
//! | `deliveries.<shard>`, `retries.due.<shard>` | `journal.<shard>.attempts`                 |
//! | `commands.<shard>`                          |                                            |
//! | `events.>`, `config.>`, bucket of feeds     | bucket of feeds                            |
//!
//! **Guarantee.** At least once, with the same ids on every repeat. A task or a due retry is
//! settled only after the facts about it are in the journal; what is on record is never attempted
//! again; and the journal takes facts of a shard only from the process whose claim is the last.
//!
//! **Not here.** When a retry wakes up is the retry-scheduler's; which endpoints an event goes to
//! is fan-out's.

mod attempt;
mod counters;
mod echo;
mod erased;
mod feeds;
mod grant;
mod guard;
mod instruments;
mod lanes;
mod ledger;
mod leftovers;
mod legacy;
mod memory;
mod messages;
mod pen;
mod permits;
mod progress;
mod registry;
mod rulebook;
mod runtime;
mod settings;
mod shard;
mod strain;
mod task_event;
mod workers;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{Shard, Timestamp, history::WIDENED_EARLIER, seal::Keyring};
use fanfare_event_log::{
    Column, ConfigView, EventLog, FeedsView, JournalWriter, ReadError,
    journal::{From, JournalFilter},
    membership::{self, Duty, Membership},
};
use fanfare_service::{
    Clock, Context, Joined as _, Metrics, Readiness, Traces, check_keyring, load_keyring,
    random_bytes,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use settings::Settings;

use crate::{
    attempt::Desk,
    counters::Counters,
    feeds::{Feeds, Resumed},
    guard::Guard,
    ledger::{Ledger, Place},
    leftovers::Leftovers,
    legacy::Legacy,
    registry::Registry,
    shard::{Parts, ShardWorker},
};

/// The role whose shards the dispatchers share.
const ROLE: &str = "dispatcher";

/// How many shards are claimed and folded at once.
const CLAIMS_MAX: usize = 8;

/// How many shards may have leftovers that nobody has begun to see through.
const LEFTOVERS_MAX: usize = 256;

/// How much journal time the ledger covers at least.
const LEDGER_WINDOW: Duration = Duration::from_mins(10);

/// The most deliveries that the ledgers of all shards remember in a generation.
const LEDGER_ENTRIES_MAX: usize = 4_000_000;

/// How much longer than events it is remembered what endpoints wanted.
const KEPT_LONGER: Duration = Duration::from_hours(24);

/// How far the clocks of the streams' leaders may be apart.
const CLOCKS_APART: Duration = Duration::from_mins(1);

/// Connects to the log, joins the other dispatchers, and works on its share of the shards.
pub async fn start(context: &mut Context, settings: Settings) -> Result<()> {
    let keyring = load_keyring(&settings.sealing_key_file)?;
    let log = EventLog::open("dispatcher", &settings.log).await.context("open the event log")?;
    let margin = if settings.log.replicas > 1 { WIDENED_EARLIER } else { Duration::ZERO };
    let registry = Registry::new(settings.log.retention.saturating_add(KEPT_LONGER), margin);
    let starting = ConfigView::start_with(registry, &log, context.support_stop());
    let (view, follow) = starting.await.context("read the configuration")?;
    let now = context.clock().now();
    // With other keys every attempt would fail, and use up the attempts that there are.
    view.read(|registry: &Registry| check_keyring(&keyring, registry.endpoints(), now))?;
    context.spawn_support("config view", async move {
        match follow.await {
            // The work is over, and has closed the log after its last acknowledgement.
            Ok(()) | Err(ReadError::Closed) => Ok(()),
            Err(error) => Err(error).context("follow the configuration"),
        }
    });
    let (feeds, follow_feeds) =
        FeedsView::start(&log, context.support_stop()).await.context("read the feeds")?;
    context.spawn_support("feeds view", async move {
        match follow_feeds.await {
            Ok(()) | Err(ReadError::Closed) => Ok(()),
            Err(error) => Err(error).context("follow the feeds"),
        }
    });
    let process = Process {
        readiness: context.readiness("dispatching"),
        clock: context.clock(),
        metrics: context.metrics().clone(),
        traces: context.traces().clone(),
        stop: context.stop(),
        log,
        view,
        feeds,
        keyring,
        settings,
    };
    context.spawn("dispatching", process.dispatch());
    Ok(())
}

/// One run of the service.
struct Process {
    readiness: Readiness,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    traces: Traces,
    stop: CancellationToken,
    log: EventLog,
    view: ConfigView<Registry>,
    feeds: FeedsView,
    keyring: Keyring,
    settings: Settings,
}

impl Process {
    /// Works until the stop; then finishes what is in hand, and hands its shards over.
    async fn dispatch(self) -> Result<()> {
        let log = self.log.clone();
        let dispatched = Box::pin(self.take_part()).await;
        log.close().await;
        dispatched
    }

    async fn take_part(self) -> Result<()> {
        let owner = format!("dispatcher-{:016x}", u64::from_be_bytes(random_bytes()));
        let leave = self.stop.child_token();
        let (membership, driver) = self.log.join(ROLE, &owner, leave.clone());
        let revision = self.view.clone();
        let guard = Guard::new(self.view, membership.lease());
        let (seen, kept) = ((guard.clone(), self.feeds), (self.keyring, &self.settings));
        let counters = Counters::new(instruments::times(&self.metrics));
        let desk = Desk::new(seen, self.log.clone(), self.clock, kept, (counters, self.traces));
        let desk = Arc::new(desk.context("prepare to send")?);
        instruments::register(&self.metrics, &desk, revision);
        let (leftovers, coming) = mpsc::channel(LEFTOVERS_MAX);
        let shop =
            Arc::new(Shop { desk, log: self.log, claims: Semaphore::new(CLAIMS_MAX), leftovers });
        let (mut driving, mut seeing) = (JoinSet::new(), JoinSet::new());
        driving.spawn(driver);
        seeing.spawn(leftovers::see_through(coming));
        let (confirmed, routed) = (guard.keep_confirmed(), Arc::clone(&shop.desk).keep_routed());
        let telling = tell_readiness(membership.clone(), self.readiness);
        let straining = strain::watch(shop.desk.permits(), shop.desk.arrivals());
        let worked = tokio::select! {
            worked = membership.work(|duty| Arc::clone(&shop).work(duty)) => worked,
            never = async { tokio::join!(confirmed, routed, telling, straining).0 } => match never {},
        };
        // Leaving in order lets the others begin at once, also after a failure.
        leave.cancel();
        if let Some(left) = driving.join_next().await {
            left.joined().context("run the membership")?.context("take part")?;
        }
        // Nobody has work to leave any more.
        drop(shop);
        if let Some(seen) = seeing.join_next().await {
            seen.joined().context("see through what was left")?;
        }
        worked
    }
}

/// Says that we are ready as long as we are a member, with shards or without.
async fn tell_readiness(mut membership: Membership, readiness: Readiness) {
    loop {
        match membership.member() {
            Some(_) => readiness.ready(),
            None => readiness.not_ready("joining the other dispatchers"),
        }
        if membership.changed().await.is_err() {
            return;
        }
    }
}

/// What all shards of the process share.
struct Shop {
    log: EventLog,
    desk: Arc<Desk>,
    /// One for each shard that is being claimed.
    claims: Semaphore,
    /// Where what is left of a shard is seen through.
    leftovers: mpsc::Sender<Leftovers>,
}

impl Shop {
    /// Works on a shard until it is to be handed over, or another process has claimed it.
    async fn work(self: Arc<Self>, duty: Duty) -> Result<()> {
        let shard = duty.shard;
        match Box::pin(self.work_on(&duty)).await {
            Err(error) if membership::is_loss(error.as_ref()) => {
                let error = format!("{error:#}");
                tracing::warn!(shard = shard.index(), error, "another process took a shard");
                Ok(())
            }
            worked => worked,
        }
    }

    async fn work_on(&self, duty: &Duty) -> Result<()> {
        let turn = duty.stop.run_until_cancelled(self.claims.acquire()).await;
        let Some(turn) = turn else { return Ok(()) };
        let turn = turn.context("claims are never closed")?;
        // From the claim on everything is done in order, also if it is in vain: a claim that ends
        // without a word looks like a death.
        let worker = self.take(duty).await?;
        drop(turn);
        let left = Box::pin(worker.run(duty.stop.clone())).await?;
        let seen_to = self.leftovers.send(left).await;
        debug_assert!(seen_to.is_ok(), "whoever sees to it is there as long as we are");
        Ok(())
    }

    /// Claims a shard, and folds what is on record.
    async fn take(&self, duty: &Duty) -> Result<ShardWorker> {
        let (log, shard) = (&self.log, duty.shard);
        let shards = usize::from(log.shards().get());
        let claimed_at = self.desk.now();
        let claimed = log.claim(shard, Column::Attempts, &duty.owner, claimed_at).await;
        let writer = claimed.with_context(|| format!("claim shard {shard}"))?;
        let reports = log.reports(shard).await.context("take reports")?;
        let questions = log.health_questions(shard).await.context("take questions")?;
        let trials = log.trials(shard).await.context("take trials")?;
        let hints = log.feed_hints(shard).await.context("take hints about feeds")?;
        // What an owner before us has written until now is in the view then.
        self.desk.feeds().confirm().await.context("confirm the feeds")?;
        let stored = self.desk.feeds().read(|it| it.of_shard(shard).cloned().collect::<Vec<_>>());
        let mut resumed = Resumed::new(stored);
        let folding = fold((log, shard), &writer, LEDGER_ENTRIES_MAX / shards, &mut resumed);
        let (ledger, legacy) = folding.await?;
        let known_from = match ledger.covers_from().at {
            Timestamp::EPOCH => 0,
            at => {
                log.first_event_at(at.saturating_add(CLOCKS_APART)).await.context("read events")?
            }
        };
        tracing::debug!(shard = shard.index(), on_record = ledger.len(), "took a shard");
        Ok(ShardWorker::new(Parts {
            shard,
            tasks: log.read_tasks(shard).await.context("read tasks")?,
            due: log.read_due(shard).await.context("read due retries")?,
            commands: log.read_commands(shard).await.context("read commands")?,
            writer,
            ledger,
            legacy,
            claimed_at,
            reports,
            feeds: Feeds::resume(resumed, known_from, self.desk.now()),
            hints,
            questions,
            trials,
            desk: Arc::clone(&self.desk),
        }))
    }
}

/// Folds what is on record about everything that may still be handed out: from the oldest fact
/// that an unsettled message refers to, and the last [`LEDGER_WINDOW`] of journal time at least.
async fn fold(
    (log, shard): (&EventLog, Shard),
    writer: &JournalWriter,
    entries_max: usize,
    feeds: &mut Resumed,
) -> Result<(Ledger, Legacy)> {
    let last = writer.claimed_at();
    let before = match writer.claimed_after() {
        0 => None,
        before => log.journal_batch(before).await.context("read the last facts")?,
    };
    let Some(before) = before else {
        // No facts at all: whatever will be is ours.
        let place = Place { sequence: last, at: Timestamp::EPOCH };
        return Ok((Ledger::new(LEDGER_WINDOW, entries_max, place), Legacy::default()));
    };
    let waiting = log.schedules().oldest_due(shard).await.context("find the oldest due retry")?;
    let newest = waiting.map_or(before.stored_at, |due| due.min(before.stored_at));
    let since = newest.saturating_sub(LEDGER_WINDOW);
    let oldest = log.oldest_task_reference(shard).await.context("find the oldest task")?;
    let filter = JournalFilter::Column(shard, Column::Attempts);
    let reader = log.journal(filter.clone(), From::Time(since)).await;
    let mut reader = reader.context("read the journal")?.brief();
    let mut batch = reader.next_until(last).await.context("fold the journal")?;
    let first = batch.as_ref().map_or(last, |batch| batch.sequence);
    if let Some(oldest) = oldest.filter(|oldest| *oldest < first) {
        let from_oldest = log.journal(filter, From::Sequence(oldest)).await;
        reader = from_oldest.context("read the journal")?.brief();
        batch = reader.next_until(last).await.context("fold the journal")?;
    }
    let sequence = oldest.map_or(first, |oldest| oldest.min(first));
    let mut ledger = Ledger::new(LEDGER_WINDOW, entries_max, Place { sequence, at: since });
    let mut legacy = Legacy::default();
    while let Some(read) = batch {
        let place = Place { sequence: read.sequence, at: read.stored_at };
        for record in &read.facts {
            ledger.record(&record.fact, place);
            legacy.record(&record.fact);
            feeds.record(&record.fact);
        }
        batch = reader.next_until(last).await.context("fold the journal")?;
    }
    Ok((ledger, legacy))
}
