//! Makes the attempts: signs and POSTs each delivery, and records what came of it.
//!
//! | reads                                       | writes                                     |
//! | ------------------------------------------- | ------------------------------------------ |
//! | `deliveries.<shard>`, `retries.due.<shard>` | `journal.<shard>.attempts`                 |
//! | `events.>` (by reference), `config.>`       |                                            |
//!
//! **Guarantee.** At least once, with the same ids on every repeat. A task or a due retry is
//! settled only after the facts about it are in the journal; what is on record is never attempted
//! again; and the journal takes facts of a shard only from the process whose claim is the last.
//!
//! **Not here.** When a retry wakes up is the retry-scheduler's; which endpoints an event goes to
//! is fan-out's.

mod attempt;
mod guard;
mod lanes;
mod ledger;
mod messages;
mod pen;
mod registry;
mod runtime;
mod settings;
mod shard;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{Shard, Timestamp};
use fanfare_event_log::{
    Column, ConfigView, EventLog, JournalWriter, ReadError,
    journal::{From, JournalFilter},
};
use fanfare_service::{Clock, Context, Readiness, random_bytes};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use settings::Settings;

use crate::{
    attempt::Desk,
    guard::Guard,
    ledger::{Ledger, Place},
    registry::Registry,
    shard::{Parts, ShardWorker},
};

/// The role that one dispatcher holds at a time.
const ROLE: &str = "dispatcher";

/// How much journal time the ledger covers at least.
const LEDGER_WINDOW: Duration = Duration::from_mins(10);

/// The most deliveries that the ledgers of all shards remember in a generation.
const LEDGER_ENTRIES_MAX: usize = 4_000_000;

/// Connects to the log and starts to work as soon as no other dispatcher does.
pub async fn start(context: &mut Context, settings: Settings) -> Result<()> {
    let log = EventLog::open("dispatcher", &settings.log).await.context("open the event log")?;
    let (view, follow) =
        ConfigView::start(&log, context.support_stop()).await.context("read the configuration")?;
    context.spawn_support("config view", async move {
        match follow.await {
            // The work is over, and has closed the log after its last acknowledgement.
            Ok(()) | Err(ReadError::Closed) => Ok(()),
            Err(error) => Err(error).context("follow the configuration"),
        }
    });
    let process = Process {
        readiness: context.readiness("dispatching"),
        clock: context.clock(),
        stop: context.stop(),
        log,
        view,
        settings,
    };
    context.spawn("dispatching", process.dispatch());
    Ok(())
}

/// One run of the service.
struct Process {
    readiness: Readiness,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    log: EventLog,
    view: ConfigView<Registry>,
    settings: Settings,
}

impl Process {
    async fn dispatch(self) -> Result<()> {
        let owner = format!("dispatcher-{:016x}", u64::from_be_bytes(random_bytes()));
        // The role outlives the work, so that what is in flight can end in order.
        let release = CancellationToken::new();
        let acquired = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            acquired = self.log.acquire(ROLE, &owner, release.clone()) => acquired,
        };
        let Some((lease, heartbeat)) = acquired.context("take the role")? else { return Ok(()) };
        let guard = Guard::new(self.view.clone(), lease);
        let desk =
            Desk::new(guard.clone(), self.log.clone(), Arc::clone(&self.clock), &self.settings);
        let desk = Arc::new(desk.context("prepare to send")?);
        let mut around = JoinSet::new();
        around.spawn(async move { heartbeat.await.context("keep the role") });
        around.spawn(guard.keep_confirmed(release.clone()));
        let result = tokio::select! {
            result = self.work(desk, &owner) => result,
            ended = around.join_next() => Err(ended_early(ended)),
        };
        release.cancel();
        // Giving up the role lets the next dispatcher begin at once.
        while around.join_next().await.is_some() {}
        self.log.close().await;
        result
    }

    /// Claims every shard, folds what is on record, and works until the stop.
    async fn work(&self, desk: Arc<Desk>, owner: &str) -> Result<()> {
        let log = &self.log;
        let permits = Arc::new(Semaphore::new(self.settings.in_flight_max));
        let shards = usize::from(log.shards().get());
        let mut workers = JoinSet::new();
        for shard in log.shards().shards() {
            let claimed = log.claim(shard, Column::Attempts, owner, desk.now()).await;
            let writer = claimed.with_context(|| format!("claim shard {shard}"))?;
            let ledger = fold(log, shard, &writer, LEDGER_ENTRIES_MAX / shards).await?;
            tracing::debug!(shard = shard.index(), on_record = ledger.len(), "took a shard");
            let parts = Parts {
                shard,
                tasks: log.read_tasks(shard).await.context("read tasks")?,
                due: log.read_due(shard).await.context("read due retries")?,
                writer,
                ledger,
                desk: Arc::clone(&desk),
                permits: Arc::clone(&permits),
                queued_max: (self.settings.queued_max / shards).max(64),
            };
            workers.spawn(ShardWorker::new(parts).run(self.stop.clone()));
        }
        self.readiness.ready();
        tracing::info!(owner, shards, "dispatching");
        while let Some(ended) = workers.join_next().await {
            ended.context("work on a shard")??;
        }
        Ok(())
    }
}

fn ended_early(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => error.into(),
        Some(Ok(Ok(()))) | None => {
            anyhow::anyhow!("the role's heartbeat ended before it was asked to")
        }
    }
}

/// Folds what is on record about everything that may still be handed out: from the oldest fact
/// that an unsettled message refers to, and the last [`LEDGER_WINDOW`] of journal time at least.
async fn fold(
    log: &EventLog,
    shard: Shard,
    writer: &JournalWriter,
    entries_max: usize,
) -> Result<Ledger> {
    let last = writer.claimed_at();
    let before = match writer.claimed_after() {
        0 => None,
        before => log.journal_batch(before).await.context("read the last facts")?,
    };
    let Some(before) = before else {
        // No facts at all: whatever will be is ours.
        let place = Place { sequence: last, at: Timestamp::EPOCH };
        return Ok(Ledger::new(LEDGER_WINDOW, entries_max, place));
    };
    let waiting = log.schedules().oldest_due(shard).await.context("find the oldest due retry")?;
    let newest = waiting.map_or(before.stored_at, |due| due.min(before.stored_at));
    let since = newest.saturating_sub(LEDGER_WINDOW);
    let oldest = log.oldest_task_reference(shard).await.context("find the oldest task")?;
    let filter = JournalFilter::Column(shard, Column::Attempts);
    let reader = log.journal(filter.clone(), From::Time(since)).await;
    let mut reader = reader.context("read the journal")?;
    let mut batch = reader.next_until(last).await.context("fold the journal")?;
    let first = batch.as_ref().map_or(last, |batch| batch.sequence);
    if let Some(oldest) = oldest.filter(|oldest| *oldest < first) {
        reader = log.journal(filter, From::Sequence(oldest)).await.context("read the journal")?;
        batch = reader.next_until(last).await.context("fold the journal")?;
    }
    let sequence = oldest.map_or(first, |oldest| oldest.min(first));
    let mut ledger = Ledger::new(LEDGER_WINDOW, entries_max, Place { sequence, at: since });
    while let Some(read) = batch {
        let place = Place { sequence: read.sequence, at: read.stored_at };
        for record in &read.facts {
            ledger.record(&record.fact, place);
        }
        batch = reader.next_until(last).await.context("fold the journal")?;
    }
    Ok(ledger)
}
