//! One shard at work: its queues, its lanes, its attempts and its facts.
//!
//! ```text
//! tasks ─┐            ┌─ lanes ─▶ attempts ─┐
//! due  ──┴─▶ ledger ──┤                     ├─▶ facts ─▶ journal ─▶ settle
//!                     └─ put off, on record ┘
//! ```
//!
//! One task of the runtime owns all of it, so that nothing is locked; only the attempts and the
//! writing of a batch run beside it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    DeliveryId, DeliveryRef, Fact, Record, RetryDue, Shard, Task, Timestamp, TraceContext,
    fact::{DeferReason, DeliveryDeferred},
};
use fanfare_event_log::{
    Column, JournalWriter, ReadError, Reader, Settler, Unsettled,
    journal::{From, JournalFilter},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::{self, Desk, Job, TaskEvent},
    lanes::{Lanes, PutOff, Queued},
    ledger::{Admission, Ledger, Place},
    messages::{MessageKey, Messages},
    pen::{Batch, Entry, Pen},
};

/// The most messages that are taken from a queue at once.
const BATCH_MAX: usize = 128;

/// How many deliveries may wait for their facts to be written before no new attempt is started.
const UNRECORDED_MAX: usize = 1_024;

/// How often slow lanes are looked for.
const SHED_EVERY: Duration = Duration::from_millis(500);

/// How far the clocks of servers and services may be apart.
const CLOCKS_APART: Duration = Duration::from_mins(1);

/// How long a message waits that came before the fact that it follows from.
const EARLY_WAIT: Duration = Duration::from_secs(1);

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) shard: Shard,
    pub(crate) tasks: Reader<Vec<Task>>,
    pub(crate) due: Reader<RetryDue>,
    pub(crate) writer: JournalWriter,
    pub(crate) ledger: Ledger,
    pub(crate) desk: Arc<Desk>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) queued_max: usize,
}

/// A shard that this process owns.
pub(crate) struct ShardWorker {
    shard: Shard,
    tasks: Reader<Vec<Task>>,
    due: Reader<RetryDue>,
    ledger: Ledger,
    lanes: Lanes<Waiting>,
    messages: Messages,
    pen: Pen,
    attempts: JoinSet<Finished>,
    desk: Arc<Desk>,
    permits: Arc<Semaphore>,
    shedding: Interval,
}

/// An attempt that waits in its lane.
struct Waiting {
    job: Job,
    message: MessageKey,
}

/// An attempt that was made, or found to be impossible or needless.
struct Finished {
    endpoint: fanfare_domain::EndpointId,
    message: MessageKey,
    records: Vec<Record>,
}

impl ShardWorker {
    /// Puts a shard together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            shard: parts.shard,
            tasks: parts.tasks,
            due: parts.due,
            ledger: parts.ledger,
            lanes: Lanes::new(parts.queued_max),
            messages: Messages::new(),
            pen: Pen::new(parts.writer),
            attempts: JoinSet::new(),
            desk: parts.desk,
            permits: parts.permits,
            shedding: tokio::time::interval(SHED_EVERY),
        }
    }

    /// Works until `stop`; then finishes what is in flight, writes its facts, and gives back what waits.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<()> {
        self.shedding.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            self.step(&stop).await?;
        }
        while !self.attempts.is_empty() || !self.pen.is_idle() {
            self.pen.write(&mut self.messages, fanfare_event_log::record_length);
            tokio::select! {
                Some(joined) = self.attempts.join_next() => self.finish(joined),
                written = self.pen.written() => self.recorded(&written.context("record attempts")?),
            }
        }
        for settler in self.messages.abandon() {
            settler.redeliver(Duration::ZERO).await;
        }
        self.tasks.stop().await;
        self.due.stop().await;
        Ok(())
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<()> {
        self.pen.write(&mut self.messages, fanfare_event_log::record_length);
        let room = self.lanes.room().min(BATCH_MAX);
        let may_start = self.lanes.has_ready() && self.pen.gathered() < UNRECORDED_MAX;
        let permits = Arc::clone(&self.permits);
        tokio::select! {
            () = stop.cancelled() => {}
            Some(joined) = self.attempts.join_next() => {
                self.finish(joined);
                while let Some(joined) = self.attempts.try_join_next() {
                    self.finish(joined);
                }
            }
            written = self.pen.written() => {
                self.recorded(&written.with_context(|| format!("record attempts of shard {}", self.shard))?);
            }
            _ = self.shedding.tick() => self.shed(),
            permit = permits.acquire_owned(), if may_start => {
                self.start(permit.context("the permits are never closed")?);
            }
            batch = self.tasks.next_batch(room), if room > 0 => {
                let tasks = batch.context("read tasks")?;
                self.recall_tasks(&tasks).await.context("look for what is on record")?;
                for tasks in tasks {
                    self.take_tasks(tasks).await;
                }
            }
            batch = self.due.next_batch(room), if room > 0 => {
                let retries = batch.context("read due retries")?;
                self.recall_due(&retries).await.context("look for what is on record")?;
                for retry in retries {
                    self.take_due(retry).await;
                }
            }
        }
        Ok(())
    }

    /// Starts attempts as long as there are lanes that may send and permits to send with.
    fn start(&mut self, permit: OwnedSemaphorePermit) {
        let mut permit = Some(permit);
        while let Some(held) = permit.take() {
            let Some((endpoint, waiting)) = self.lanes.start() else { return };
            let desk = Arc::clone(&self.desk);
            self.attempts.spawn(async move {
                let records = attempt::make(&desk, waiting.job).await;
                drop(held);
                Finished { endpoint, message: waiting.message, records }
            });
            if self.lanes.has_ready() {
                permit = Arc::clone(&self.permits).try_acquire_owned().ok();
            }
        }
    }

    fn finish(&mut self, joined: Result<Finished, tokio::task::JoinError>) {
        let finished = match joined.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(finished) => finished,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => return,
        };
        self.lanes.finish(finished.endpoint);
        self.pen.gather(Entry { records: finished.records, message: finished.message });
    }

    fn recorded(&mut self, batch: &Batch) {
        for record in &batch.records {
            let place = Place { sequence: batch.sequence, at: record.recorded_at };
            self.ledger.record(&record.fact, place);
        }
    }

    /// Asks the journal about deliveries of tasks that were made before what the ledger covers:
    /// fan-out writes such tasks again when it was away for long.
    async fn recall_tasks(&mut self, taken: &[Unsettled<Vec<Task>>]) -> Result<(), ReadError> {
        let horizon = self.ledger.covers_from().sequence;
        let tasks = || taken.iter().flat_map(|message| &message.record);
        let old = || tasks().filter(|task| task.journal_sequence < horizon);
        let targets = old().flat_map(|task| &task.targets).map(|target| target.delivery);
        let wanted: BTreeSet<_> =
            targets.filter(|delivery| !self.ledger.knows(*delivery)).collect();
        let Some(first) = old().map(|task| task.journal_sequence).min() else {
            return Ok(());
        };
        self.recall(From::Sequence(first), &wanted).await
    }

    /// The same for retries: facts about an attempt are no older than the time it was due.
    async fn recall_due(&mut self, retries: &[Unsettled<RetryDue>]) -> Result<(), ReadError> {
        let horizon = self.ledger.covers_from().at;
        let old = || retries.iter().map(|retry| &retry.record).filter(|it| it.due_at < horizon);
        let deliveries = old().map(|retry| retry.delivery.id);
        let wanted = deliveries.filter(|delivery| !self.ledger.knows(*delivery)).collect();
        let Some(first) = old().map(|retry| retry.due_at).min() else { return Ok(()) };
        self.recall(From::Time(first.saturating_sub(CLOCKS_APART)), &wanted).await
    }

    async fn recall(&mut self, from: From, wanted: &BTreeSet<DeliveryId>) -> Result<(), ReadError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let last = self.ledger.covers_from().sequence;
        tracing::info!(shard = self.shard.index(), deliveries = wanted.len(), "recalling facts");
        let filter = JournalFilter::Column(self.shard, Column::Attempts);
        let mut reader = self.desk.log().journal(filter, from).await?;
        while let Some(batch) = reader.next_until(last).await? {
            for record in &batch.facts {
                self.ledger.recall(&record.fact, wanted);
            }
        }
        Ok(())
    }

    async fn take_tasks(&mut self, message: Unsettled<Vec<Task>>) {
        let Unsettled { record: tasks, settler, .. } = message;
        // The message before this one settles it; or it is handed out again, and all is on
        // record. Taking a part of it now would settle it while the live ones have no fact.
        let mut targets = tasks.iter().flat_map(|task| &task.targets);
        if targets.any(|target| self.ledger.is_live(target.delivery)) {
            return;
        }
        let mut jobs = Vec::new();
        for task in tasks {
            let event = Arc::new(TaskEvent::new(task.event));
            for target in &task.targets {
                if self.ledger.admit_first(target.delivery) == Admission::Make {
                    let delivery = event.delivery(target, task.generation);
                    jobs.push(Job::first(delivery, Arc::clone(&event)));
                }
            }
        }
        self.queue(settler, jobs).await;
    }

    async fn take_due(&mut self, retry: Unsettled<RetryDue>) {
        let Unsettled { record: retry, settler, .. } = retry;
        match self.ledger.admit_due(retry.delivery.id, retry.attempt) {
            Admission::Make => {
                let job = Job::later(retry);
                self.queue(settler, vec![job]).await;
            }
            Admission::OnRecord => settler.settle().await,
            Admission::Early => settler.redeliver(EARLY_WAIT).await,
            Admission::Live => {}
        }
    }

    async fn queue(&mut self, settler: Settler, jobs: Vec<Job>) {
        let message = match self.messages.open(settler, jobs.len()) {
            Ok(message) => message,
            Err(settler) => return settler.settle().await,
        };
        let now = self.desk.now();
        for job in jobs {
            let endpoint = job.delivery.endpoint;
            let concurrency = self.desk.concurrency(endpoint);
            let waiting = Waiting { job, message };
            if let Queued::Deferred(put_off) = self.lanes.queue(endpoint, concurrency, now, waiting)
            {
                self.put_off(put_off, now);
            }
        }
    }

    /// Puts off what slow lanes hold beyond what they may keep.
    fn shed(&mut self) {
        let now = self.desk.now();
        for put_off in self.lanes.shed(now) {
            self.put_off(put_off, now);
        }
    }

    fn put_off(&mut self, PutOff { item, until }: PutOff<Waiting>, now: Timestamp) {
        let Waiting { job, message } = item;
        let (trace, why) = (job.trace(), (until, DeferReason::LaneFull));
        let record = deferred(job.delivery, job.attempt, why, now, trace);
        self.pen.gather(Entry { records: vec![record], message });
    }
}

/// Says that an attempt is put off until a time, for a reason.
pub(crate) fn deferred(
    delivery: DeliveryRef,
    attempt: u32,
    (until, reason): (Timestamp, DeferReason),
    now: Timestamp,
    trace: TraceContext,
) -> Record {
    let fact = Fact::DeliveryDeferred(DeliveryDeferred { delivery, attempt, until, reason });
    Record { recorded_at: now, trace, fact }
}
