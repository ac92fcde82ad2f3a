//! One shard at work: its queues, its lanes, its attempts and its facts.
//!
//! ```text
//! tasks ─┐            ┌─ lanes ─▶ attempts ─┐
//! due  ──┼─▶ ledger ──┤                     ├─▶ facts ─▶ journal ─▶ settle
//! feeds ─┘            └─ put off, on record ┘
//! ```
//!
//! One task of the runtime owns all of it, so that nothing is locked; only the attempts and the
//! writing of a batch run beside it.

mod early;
mod feeding;
mod flying;
mod foreign;
mod health;
mod held;
mod inherit;
mod intake;
mod orders;
mod release;
mod trying;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Command, DeliveryRef, Fact, Record, RetryDue, Shard, Task, Timestamp, TraceContext,
    fact::{DeferReason, DeliveryDeferred, InBatch},
    feed::Reason,
};
use fanfare_event_log::{FeedHints, HealthQuestions, JournalWriter, Reader, Reports, Trials};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub(crate) use self::flying::{Begun, Finished};
use self::{
    early::Early,
    flying::{Flying, Origin, Part, Waiting},
    foreign::Foreign,
    intake::Ahead,
    orders::Orders,
};
use crate::{
    attempt::{Desk, FeedCount},
    counters::Gauges,
    feeds::{Feeds, work::Work},
    lanes::{Flight, Kind, Lanes, PutOff, Started},
    ledger::{Ledger, Place},
    leftovers::Leftovers,
    legacy::{Fate, Legacy},
    memory::{Ration, Source},
    messages::Messages,
    pen::{self, Batch, Entry, Pen},
    permits::Door,
    rulebook::Rulebook,
    workers::Workers,
};

/// The most messages that are taken from a queue at once.
const BATCH_MAX: usize = 128;

/// How many deliveries may wait for their facts to be written before no new attempt is started.
pub(crate) const UNRECORDED_MAX: usize = 1_024;

/// How many messages of a queue may be unsettled before no more are taken: some less than the
/// servers hand out, so that lanes that cannot be served are cleared before the queue stands.
const UNSETTLED_MAX: usize = 3_072;

/// As many as the servers hand out.
pub(crate) const UNSETTLED_HARD_MAX: usize = 4_096;

/// The bytes that one message may bring.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How often slow lanes are looked for, and whether other shards have given room back.
const TIDY_EVERY: Duration = Duration::from_millis(250);

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) shard: Shard,
    pub(crate) tasks: Reader<Vec<Task>>,
    pub(crate) due: Reader<RetryDue>,
    pub(crate) commands: Reader<Command>,
    pub(crate) writer: JournalWriter,
    pub(crate) ledger: Ledger,
    pub(crate) legacy: Legacy,
    /// Just before the claim.
    pub(crate) claimed_at: Timestamp,
    pub(crate) reports: Reports,
    pub(crate) questions: HealthQuestions,
    pub(crate) trials: Trials,
    pub(crate) feeds: Feeds,
    pub(crate) hints: FeedHints,
    pub(crate) desk: Arc<Desk>,
}

/// A shard that this process owns.
pub(crate) struct ShardWorker {
    shard: Shard,
    tasks: Reader<Vec<Task>>,
    due: Reader<RetryDue>,
    commands: Reader<Command>,
    orders: Orders,
    ahead: Ahead,
    ledger: Ledger,
    lanes: Lanes<Waiting>,
    early: Early<Waiting>,
    messages: Messages,
    pen: Pen,
    attempts: Workers<Begun, Finished>,
    flying: BTreeMap<Flight, Flying>,
    reports: Reports,
    questions: HealthQuestions,
    trials: Trials,
    trying: trying::Trying,
    feeds: Feeds,
    /// What the feeds ask of the servers.
    work: Work,
    hints: FeedHints,
    /// The revision of the view of feeds that was seen, and how many of ours were counted.
    feeds_seen: u64,
    feeds_counted: FeedCount,
    /// What owners before us have in flight.
    foreign: Foreign,
    fate: Fate,
    claimed_at: Timestamp,
    desk: Arc<Desk>,
    door: Door,
    ration: Ration,
    rulebook: Rulebook,
    tidying: Interval,
    gauges: Gauges,
    /// When the gauges are to be set again.
    gauges_at: Timestamp,
}

impl ShardWorker {
    /// Puts a shard together.
    pub(crate) fn new(parts: Parts) -> Self {
        let claimed_at = parts.claimed_at;
        let fate = parts.legacy.fate(parts.writer.epoch());
        let since = match fate {
            Fate::Released { limits_since } => limits_since,
            Fate::None | Fate::Died => claimed_at,
        };
        let mut left = parts.legacy.into_left();
        let claimed = parts.writer.claimed_at();
        let mut worker = Self {
            shard: parts.shard,
            tasks: parts.tasks,
            due: parts.due,
            commands: parts.commands,
            orders: Orders::new(parts.desk.log().schedules(), parts.shard),
            ahead: Ahead::default(),
            ledger: parts.ledger,
            lanes: Lanes::new(since),
            early: Early::new(),
            messages: Messages::new(),
            pen: Pen::new(parts.writer),
            attempts: Workers::new(),
            flying: BTreeMap::new(),
            reports: parts.reports,
            questions: parts.questions,
            trials: parts.trials,
            trying: trying::Trying::default(),
            work: Work::new(Arc::clone(&parts.desk), parts.shard),
            feeds: parts.feeds,
            hints: parts.hints,
            feeds_seen: 0,
            feeds_counted: parts.desk.feed_count(),
            foreign: Foreign::default(),
            fate,
            claimed_at,
            door: parts.desk.permits().door(),
            ration: parts.desk.memory().ration(),
            gauges: parts.desk.counters().gauges(parts.shard),
            gauges_at: Timestamp::EPOCH,
            desk: parts.desk,
            rulebook: Rulebook::default(),
            tidying: tokio::time::interval(TIDY_EVERY),
        };
        worker.feeds.reached(claimed);
        if fate == Fate::Died {
            // What an owner left that died since says nothing of what it sent.
            left.limits.clear();
        }
        worker.inherit(left);
        worker
    }

    /// Works until `stop`; then gives the shard away. What is returned has to be seen through.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<Leftovers> {
        self.tidying.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            self.step(&stop).await?;
        }
        Box::pin(self.release()).await
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<()> {
        self.take_ahead().await;
        self.feed();
        let wake_in = self.start();
        self.pen.write(&mut self.messages, fanfare_event_log::record_length);
        let (tasks_max, due_max) = (self.room(Source::Task), self.room(Source::Due));
        tokio::select! {
            () = stop.cancelled() => {}
            done = self.attempts.done(), if self.attempts.busy() > 0 => {
                self.finish(done);
                while let Some(finished) = self.attempts.done_already() {
                    self.finish(Ok(finished));
                }
            }
            written = self.pen.written() => {
                let written = written.with_context(|| format!("record attempts of shard {}", self.shard));
                self.recorded(&written?).await;
            }
            _ = self.tidying.tick() => {
                self.forget_overdue().await;
                self.tidy();
                self.attempts.let_go();
                self.see_feeds();
                self.tell_gauges();
            }
            done = self.work.done() => self.fed(done).await?,
            done = self.orders.done() => {
                self.ordered(done).await.context("look for what is on record")?;
            }
            batch = self.commands.next_batch(orders::BATCH_MAX), if self.orders.has_room() => {
                let read = batch.context("read commands")?;
                self.take_commands(read).await.context("look for what is on record")?;
            }
            Some(hints) = self.hints.next() => {
                for (endpoint, sequence) in hints {
                    self.feeds.hint(endpoint, sequence);
                }
            }
            Some(reported) = self.reports.next() => self.take_report(reported).await,
            Some(trial) = self.trials.next() => self.try_endpoint(trial).await,
            Some(question) = self.questions.next() => self.tell_health(question).await,
            () = sleep(wake_in) => {}
            () = self.door.knocked() => {
                self.start();
                self.door.pass_on();
            }
            batch = self.tasks.next_batch(tasks_max), if tasks_max > 0 => {
                let read = batch.context("read tasks")?;
                self.read_tasks(read).await.context("look for what is on record")?;
            }
            batch = self.due.next_batch(due_max), if due_max > 0 => {
                let read = batch.context("read due retries")?;
                self.read_due(read).await.context("look for what is on record")?;
            }
        }
        Ok(())
    }

    /// How many messages of a queue may be taken.
    fn room(&self, source: Source) -> usize {
        let open = self.messages.count(source);
        let deliveries = self.ration.room(source);
        if deliveries == 0 || open >= UNSETTLED_MAX || self.ahead.waits(source) {
            return 0;
        }
        let messages = match source {
            Source::Task => {
                let bytes = self.desk.memory().room_bytes() / MESSAGE_BYTES_MAX;
                (deliveries / Task::TOGETHER_TARGETS_MAX).min(bytes)
            }
            Source::Due => deliveries,
        };
        messages.clamp(1, BATCH_MAX)
    }

    /// Starts attempts as long as there are lanes that may send and permits to send with. Returns
    /// after how long there may be more, if that is known.
    fn start(&mut self) -> Option<Duration> {
        let now = self.desk.now();
        self.rulebook.renew(&self.desk);
        self.let_in(now);
        self.lanes.wake(now);
        while self.pen.gathered() < UNRECORDED_MAX {
            let desk = Arc::clone(&self.desk);
            let rules = |endpoint| self.rulebook.rules(&desk, endpoint);
            let Some(started) = self.lanes.start(rules, &self.door, now) else { break };
            let Started { flight, item: waiting, more, is_batch, permit } = started;
            let mut flying = Flying::of(&waiting, &more);
            let begun = Begun { desk, flight, waiting, more, is_batch, permit };
            flying.worker = self.attempts.begin(begun, flying::make);
            self.flying.insert(flight, flying);
        }
        let wake_at = self.lanes.wake_at().into_iter().chain(self.early.wake_at()).min();
        wake_at.map(|at| at.since(now))
    }

    fn finish(&mut self, joined: Result<Finished, tokio::task::JoinError>) {
        let finished = match joined.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(finished) => finished,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => return,
        };
        let Finished { flight, parts, left } = finished;
        let (flying, now) = (self.flying.remove(&flight), self.desk.now());
        // What was sent comes after what was not to be.
        let signal = self.desk.signal(parts.iter().rev().flat_map(|part| &part.records));
        self.lanes.end(flight, signal, &self.door, now);
        if let Some(flying) = &flying {
            self.feeds.wake(flying.endpoint);
        }
        if let Some(Flying { endpoint, kind, .. }) = flying.filter(|_| !left.is_empty()) {
            let load = |waiting: Waiting| {
                let load = waiting.job.load();
                (waiting, load)
            };
            self.lanes.give_back(endpoint, kind, left.into_iter().map(load).collect(), now);
        }
        for Part { origin, place, records, .. } in parts {
            let source = match origin {
                Origin::Message(message) => pen::Source::Message(message, place),
                Origin::Feed(_) => pen::Source::Feed(place),
                Origin::Order => pen::Source::Order(Some(place)),
            };
            self.pen.gather(Entry { records, source });
        }
    }

    async fn recorded(&mut self, batch: &Batch) {
        self.desk.counters().note(&batch.records);
        self.feeds.reached(batch.sequence);
        for record in &batch.records {
            let place = Place { sequence: batch.sequence, at: record.recorded_at };
            self.ledger.record(&record.fact, place);
            let Some(delivery) = record.fact.delivery() else { continue };
            let concluded = matches!(record.fact, Fact::DeliveryConcluded(_));
            self.feeds.on_record(delivery, concluded);
            if matches!(record.fact, Fact::DeliveryParked(_)) {
                self.begin_to_feed(delivery.endpoint, Reason::Hold);
            }
            for settler in self.messages.waited_for(delivery.id) {
                settler.settle().await;
            }
        }
        self.orders_on_record(batch).await;
    }

    /// Lets lanes that wait know of changes, and puts off what lanes hold beyond what they may keep.
    fn tidy(&mut self) {
        // Nothing is sent at present, and no endpoint is to blame for it.
        if !self.desk.may_send() {
            return;
        }
        let now = self.desk.now();
        self.rulebook.renew(&self.desk);
        if self.rulebook.take_changed() {
            self.lanes.review(|endpoint| self.rulebook.rules(&self.desk, endpoint), now);
        }
        let open = self.messages.count(Source::Task).max(self.messages.count(Source::Due));
        let fullness = self.desk.memory().fullness().max(open * 8 / UNSETTLED_HARD_MAX);
        self.lanes.set_fullness(fullness.min(8));
        for put_off in self.lanes.tidy(&self.door, now) {
            self.put_off(put_off, now);
        }
    }

    fn put_off(&mut self, PutOff { item, until, reason }: PutOff<Waiting>, now: Timestamp) {
        let Waiting { job, origin, place } = item;
        let endpoint = job.delivery.endpoint;
        let message = match origin {
            Origin::Message(message) => message,
            Origin::Feed(fed) => return self.take_back(endpoint, fed),
            Origin::Order => {
                let (trace, attempt) = (job.trace(), (job.delivery, job.attempt, job.batch));
                let records = vec![deferred(attempt, (until, reason), now, trace)];
                return self.pen.gather(Entry { records, source: pen::Source::Order(Some(place)) });
            }
        };
        // What waits for its tenant's limit has a time of its own, which a feed would not keep.
        let is_limited = reason == DeferReason::TenantRateLimit;
        if job.kind() == Kind::First && !is_limited {
            if self.feeds.is_crowded(endpoint) {
                self.begin_to_feed(endpoint, Reason::Backlog);
            }
            if job.is_first_of_task() && self.feeds.take_over(&job.delivery, message) {
                return self.ledger.withdraw(job.delivery.id);
            }
            self.feeds.put_off(&job.delivery, until);
        }
        let trace = job.trace();
        let attempt = (job.delivery, job.attempt, job.batch);
        let record = deferred(attempt, (until, reason), now, trace);
        let source = pen::Source::Message(message, place);
        self.pen.gather(Entry { records: vec![record], source });
    }
}

/// Sleeps that long; for ever if that is not known. Cancel safe.
async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Says that an attempt is put off until a time, for a reason.
pub(crate) fn deferred(
    (delivery, attempt, batch): (DeliveryRef, u32, Option<InBatch>),
    (until, reason): (Timestamp, DeferReason),
    now: Timestamp,
    trace: TraceContext,
) -> Record {
    let fact = Fact::DeliveryDeferred(DeliveryDeferred { delivery, attempt, until, reason, batch });
    Record { recorded_at: now, trace, fact }
}
