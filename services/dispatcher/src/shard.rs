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

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    DeliveryRef, Fact, Record, RetryDue, Shard, Task, Timestamp, TraceContext,
    fact::{DeferReason, DeliveryDeferred},
};
use fanfare_event_log::{JournalWriter, Reader, Settler, Unsettled};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::{self, Desk, Job, TaskEvent},
    lanes::{Lanes, Queued},
    ledger::{Admission, Ledger},
    messages::{MessageKey, Messages},
    pen::{Entry, Pen},
};

/// The most messages that are taken from a queue at once.
const BATCH_MAX: usize = 128;

/// How long a message waits that came before the fact that it follows from.
const EARLY_WAIT: Duration = Duration::from_secs(1);

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) shard: Shard,
    pub(crate) tasks: Reader<Task>,
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
    tasks: Reader<Task>,
    due: Reader<RetryDue>,
    ledger: Ledger,
    lanes: Lanes<Waiting>,
    messages: Messages,
    pen: Pen,
    attempts: JoinSet<Finished>,
    desk: Arc<Desk>,
    permits: Arc<Semaphore>,
    queued_max: usize,
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
            lanes: Lanes::new(),
            messages: Messages::new(),
            pen: Pen::new(parts.writer),
            attempts: JoinSet::new(),
            desk: parts.desk,
            permits: parts.permits,
            queued_max: parts.queued_max,
        }
    }

    /// Works until `stop`; then finishes what is in flight, writes its facts, and gives back what waits.
    #[expect(clippy::large_futures, reason = "it lives in a task of its own, on the heap")]
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<()> {
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
        let room = self.queued_max.saturating_sub(self.lanes.queued()).min(BATCH_MAX);
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
            permit = permits.acquire_owned(), if self.lanes.has_ready() => {
                self.start(permit.context("the permits are never closed")?);
            }
            batch = self.tasks.next_batch(room), if room > 0 => {
                for task in batch.context("read tasks")? {
                    self.take_task(task).await;
                }
            }
            batch = self.due.next_batch(room), if room > 0 => {
                for retry in batch.context("read due retries")? {
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

    fn recorded(&mut self, records: &[Record]) {
        for record in records {
            self.ledger.record(&record.fact, record.recorded_at);
        }
    }

    async fn take_task(&mut self, task: Unsettled<Task>) {
        let Unsettled { record: task, settler, .. } = task;
        let event = Arc::new(TaskEvent::new(task.event));
        let mut jobs = Vec::with_capacity(task.targets.len());
        let mut is_live = false;
        for target in &task.targets {
            match self.ledger.admit_first(target.delivery) {
                Admission::Make => {
                    let delivery = event.delivery(target, task.generation);
                    jobs.push(Job::first(delivery, Arc::clone(&event)));
                }
                Admission::Live | Admission::Early => is_live = true,
                Admission::OnRecord => {}
            }
        }
        // The message before it settles it; or it is handed out again, and all is on record.
        if is_live && jobs.is_empty() {
            return;
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
            if let Queued::Deferred(waiting, until) =
                self.lanes.queue(endpoint, concurrency, now, waiting)
            {
                let job = waiting.job;
                let trace = job.trace();
                let record = deferred(job.delivery, job.attempt, (until, DeferReason::LaneFull), now, trace);
                self.pen.gather(Entry { records: vec![record], message });
            }
        }
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
