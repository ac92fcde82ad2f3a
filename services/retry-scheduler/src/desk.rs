//! The shell around the agendas: reads the journal, carries out what follows from it.
//!
//! ```text
//! journal ─▶ Agenda::apply ─▶ Agenda::commands ─┬▶ plans, in batches, one per shard under way ─▶ journal
//!    ▲                                          ├▶ alarms, pipelined ─▶ RETRIES
//!    └── facts that we wrote come back here     └▶ notices ─▶ DEAD, EVENTS
//! ```
//!
//! One task owns all state. What has to be waited for is a job beside it, and its end is one of
//! the things that happen. A command is issued only after the facts that call for it were read
//! from the journal, our own included: catching up after a restart is then the same as working.

mod disabling;
mod jobs;
mod recovery;
mod saving;
mod sweeping;
mod telling;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use fanfare_domain::{DeliveryId, EndpointId, Fact, Record, RetryDue, Shard, Timestamp};
use fanfare_event_log::{
    ConfigView, EventLog, JournalBatch, JournalReader, JournalWriter, Publisher, ReadError,
    Schedules, ownership::Lease,
};
use fanfare_service::Clock;
use tokio::{
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use self::{jobs::Done, saving::Saving, sweeping::Sweeping, telling::Telling};
use crate::{
    Settings,
    agenda::{Agenda, Command},
    counters::Counters,
    directory::Directory,
};

/// How often what could not be done is tried again, and clocks are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How old the last confirmation of our role may be when an alarm is set.
const LEASE_AGE_MAX: Duration = Duration::from_secs(2);
/// How many batches of the journal are looked up at once.
const RECALLS_MAX: usize = 8;
/// How many alarms are being stopped at once.
const CANCELS_MAX: usize = 16;
/// How many wait to be stopped. What is more goes off for nothing: stopping them is a courtesy.
const CANCELS_QUEUED_MAX: usize = 100_000;

/// What the work takes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) log: EventLog,
    pub(crate) schedules: Schedules,
    pub(crate) publisher: Publisher,
    pub(crate) view: ConfigView<Directory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) lease: Lease,
    pub(crate) owner: Arc<str>,
    pub(crate) stop: CancellationToken,
}

/// All shards, and everything that is under way for them.
pub(crate) struct Desk {
    tools: Tools,
    /// By index.
    shards: Vec<ShardDesk>,
    reader: JournalReader,
    /// Everything in the journal up to this sequence is folded in.
    position: u64,
    jobs: JoinSet<anyhow::Result<Done>>,
    /// Alarms, and rescues, that are on their way.
    alarms: usize,
    /// Facts to be read again, because there is something to do about them.
    recalls: BTreeSet<(u64, Shard)>,
    recalling: usize,
    /// The same, but only with the next tick: it did not work just now.
    stalled: BTreeSet<(u64, Shard)>,
    cancels: VecDeque<(Shard, DeliveryId)>,
    cancelling: usize,
    disabling: BTreeSet<EndpointId>,
    telling: Telling,
    sweeping: Sweeping,
    saving: Saving,
}

/// One shard.
struct ShardDesk {
    shard: Shard,
    agenda: Agenda,
    /// Facts to be written.
    plans: VecDeque<Record>,
    /// How many are being written.
    writing: usize,
    /// The right to write them; absent while a batch is being written.
    writer: Option<JournalWriter>,
    saved: saving::Saved,
}

/// Something that happened.
enum Step {
    Read(Option<JournalBatch>),
    Done(Result<anyhow::Result<Done>, JoinError>),
    ConfigChanged,
    Tick,
}

impl Desk {
    /// Works until the service stops, then saves the state.
    ///
    /// # Errors
    ///
    /// When another process has taken over a shard, or the log refuses something for good.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let stop = self.tools.stop.clone();
        let mut config = self.tools.view.read(Directory::changes);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.start_jobs();
            let has_room = self.under_way() < self.tools.settings.in_flight_max;
            let barrier = self.sweeping.barrier(self.position);
            let happened = tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = self.jobs.join_next() => Step::Done(done),
                read = next(&mut self.reader, barrier), if has_room => {
                    Step::Read(read.context("read the journal")?)
                }
                Ok(()) = config.changed() => Step::ConfigChanged,
                _ = ticks.tick() => Step::Tick,
            };
            // Whatever this waits for may not come any more; what is left undone is in the agenda.
            let Some(taken) = stop.run_until_cancelled(self.take(happened, barrier)).await else {
                break;
            };
            taken?;
        }
        self.finish().await
    }

    async fn take(&mut self, happened: Step, barrier: Option<u64>) -> anyhow::Result<()> {
        match happened {
            Step::Read(Some(batch)) => self.fold(batch).await?,
            Step::Read(None) => self.position = self.position.max(barrier.unwrap_or_default()),
            Step::Done(done) => self.finished(done.context("a job panicked")??).await?,
            Step::ConfigChanged => {
                self.resume();
                self.announce();
            }
            Step::Tick => self.tick(),
        }
        self.rescue().await
    }

    fn tick(&mut self) {
        self.recalls.append(&mut self.stalled);
        self.resume();
        self.announce();
        self.sweep();
        self.plan_saving();
        let sizes = self.shards.iter().map(|desk| desk.agenda.size());
        let (waiting, parked) = sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
        self.tools.counters.waiting.set(waiting);
        self.tools.counters.parked.set(parked);
    }

    /// Folds a batch in and issues what follows from it.
    async fn fold(&mut self, batch: JournalBatch) -> anyhow::Result<()> {
        let JournalBatch { sequence, stored_at: _, column, facts } = batch;
        if is_ahead_of(&facts, self.tools.view.revision()) {
            self.tools.view.confirm().await.context("confirm the configuration")?;
        }
        let Some(desk) = column.and_then(|(shard, _)| of_shard(&mut self.shards, shard)) else {
            self.position = sequence;
            return Ok(());
        };
        let shard = desk.shard;
        let apply = |directory: &Directory| desk.agenda.apply(sequence, &facts, directory);
        let effects = self.tools.view.read(apply);
        self.position = sequence;
        desk.saved.note_change();
        self.tools.counters.batches.add(1);
        let commands = desk.agenda.commands(sequence, &facts, self.tools.now());
        let cancels = effects.cancels.into_iter().map(|delivery| (shard, delivery));
        self.cancels.extend(cancels.take(CANCELS_QUEUED_MAX.saturating_sub(self.cancels.len())));
        for endpoint in effects.failing {
            self.judge(shard, endpoint);
        }
        if effects.parked {
            self.resume();
        }
        self.issue(shard, commands).await
    }

    /// Carries commands out, or has them carried out. Alarms are put in the order of their facts.
    async fn issue(&mut self, shard: Shard, commands: Vec<Command>) -> anyhow::Result<()> {
        for command in commands {
            match command {
                Command::Plan(record) => {
                    if let Some(desk) = of_shard(&mut self.shards, shard) {
                        desk.plans.push_back(record);
                    }
                }
                Command::Alarm(retry) => self.put_alarm(shard, &retry).await?,
                Command::Tell(told) => self.telling.push(shard, told),
            }
        }
        Ok(())
    }

    async fn put_alarm(&mut self, shard: Shard, retry: &RetryDue) -> anyhow::Result<()> {
        self.tools.wait_for_lease().await;
        let cause = (retry.journal_sequence, retry.delivery.id);
        match self.tools.schedules.put(shard, retry).await {
            Ok(pending) => {
                self.alarms += 1;
                self.jobs.spawn(jobs::alarm(shard, cause, pending));
                Ok(())
            }
            Err(error) => {
                jobs::full(error).context("put an alarm")?;
                self.stall(shard, cause);
                Ok(())
            }
        }
    }

    /// Starts the jobs for which there is something to do and room.
    fn start_jobs(&mut self) {
        for desk in &mut self.shards {
            let Some(writer) = desk.writer.take_if(|_| !desk.plans.is_empty()) else { continue };
            // A test shows that so many are not too large.
            let count = desk.plans.len().min(JournalWriter::FACTS_MAX);
            let facts: Vec<_> = desk.plans.drain(..count).collect();
            desk.writing = count;
            let stop = self.tools.stop.clone();
            self.jobs.spawn(jobs::plan(desk.shard, writer, facts, stop));
        }
        // Half of the room is kept for what happens now.
        let room = self.tools.settings.in_flight_max.div_ceil(2);
        while self.recalling < RECALLS_MAX && self.under_way() < room {
            let Some((sequence, shard)) = self.recalls.pop_first() else { break };
            self.recalling += 1;
            self.jobs.spawn(jobs::recall(self.tools.log.clone(), shard, sequence));
        }
        while self.cancelling < CANCELS_MAX {
            let Some((shard, delivery)) = self.cancels.pop_front() else { break };
            self.cancelling += 1;
            self.jobs.spawn(jobs::cancel(self.tools.schedules.clone(), shard, delivery));
        }
        self.start_telling();
        self.start_saving();
    }

    /// Returns how much is on its way. What only waits to be read back is not counted.
    fn under_way(&self) -> usize {
        let plans: usize = self.shards.iter().map(|desk| desk.plans.len() + desk.writing).sum();
        plans + self.alarms + self.telling.len()
    }

    /// Takes note of what a job came to.
    async fn finished(&mut self, done: Done) -> anyhow::Result<()> {
        match done {
            Done::Planned { writer, count } => {
                self.tools.counters.plans.add(count);
                if let Some(desk) = of_shard(&mut self.shards, writer.shard()) {
                    desk.writing = 0;
                    desk.writer = Some(*writer);
                }
            }
            Done::Alarmed { shard, cause, set } => {
                self.alarms -= 1;
                self.tools.counters.alarms.add(usize::from(set));
                self.settle(shard, cause, set);
            }
            Done::Rescued => self.alarms -= 1,
            Done::Recalled { shard, sequence, recalled } => {
                self.recalling -= 1;
                self.recalled(shard, sequence, recalled).await?;
            }
            Done::Cancelled { cancelled } => {
                self.cancelling -= 1;
                self.tools.counters.cancels.add(usize::from(cancelled));
            }
            Done::Told { causes, told } => {
                self.telling.end(told, self.tools.now());
                self.tools.counters.exhausted.add(if told { causes.len() } else { 0 });
                for (shard, cause) in causes {
                    self.settle(shard, cause, told);
                }
            }
            Done::Announced { revisions } => self.announced(&revisions),
            Done::Judged { shard, endpoint, decide_again } => {
                self.disabling.remove(&endpoint);
                if decide_again {
                    self.judge(shard, endpoint);
                }
            }
            Done::Looked { shard, findings } => self.looked(shard, findings),
            Done::Saved { shard, saved } => self.saved(shard, saved),
        }
        Ok(())
    }

    /// Closes a duty that is done; has one that is not done tried again.
    fn settle(&mut self, shard: Shard, cause: (u64, DeliveryId), done: bool) {
        if done {
            if let Some(desk) = of_shard(&mut self.shards, shard) {
                desk.agenda.done(cause);
            }
        } else {
            self.stall(shard, cause);
        }
    }

    fn stall(&mut self, shard: Shard, cause: (u64, DeliveryId)) {
        let desk = of_shard(&mut self.shards, shard);
        if desk.is_some_and(|desk| desk.agenda.not_done(cause)) {
            self.stalled.insert((cause.0, shard));
        }
    }

    /// Issues what is to be done about facts that were read again.
    async fn recalled(
        &mut self,
        shard: Shard,
        sequence: u64,
        recalled: jobs::Recalled,
    ) -> anyhow::Result<()> {
        let now = self.tools.now();
        let Some(desk) = of_shard(&mut self.shards, shard) else { return Ok(()) };
        match recalled {
            jobs::Recalled::Facts(facts) => {
                let commands = desk.agenda.commands(sequence, &facts, now);
                self.issue(shard, commands).await
            }
            jobs::Recalled::AgedOut => {
                for delivery in desk.agenda.forget(sequence) {
                    error!(delivery_id = %delivery, sequence, "the journal does not hold it any more");
                }
                Ok(())
            }
            jobs::Recalled::Unreadable => {
                self.stalled.insert((sequence, shard));
                Ok(())
            }
        }
    }

    /// Takes up parked deliveries whose endpoints hold nothing back any more.
    fn resume(&mut self) {
        let (now, retention) = (self.tools.now(), self.tools.settings.log.retention);
        let (shards, recalls) = (&mut self.shards, &mut self.recalls);
        self.tools.view.read(|directory| {
            for desk in shards {
                let sequences = desk.agenda.resume(directory, retention, now);
                recalls.extend(sequences.into_iter().map(|sequence| (sequence, desk.shard)));
            }
        });
    }
}

impl Tools {
    /// Waits until our role was confirmed lately: a process that was stopped and has been
    /// replaced must not set alarms over those of its successor.
    async fn wait_for_lease(&self) {
        while self.lease.confirmed_at().elapsed() > LEASE_AGE_MAX {
            debug!("waiting for the role to be confirmed");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn of_shard(shards: &mut [ShardDesk], shard: Shard) -> Option<&mut ShardDesk> {
    shards.get_mut(usize::from(shard.index()))
}

/// Waits for the next batch; with a barrier, no longer than until all before it are read.
/// Cancel safe.
async fn next(
    reader: &mut JournalReader,
    barrier: Option<u64>,
) -> Result<Option<JournalBatch>, ReadError> {
    match barrier {
        Some(last) => reader.next_until(last).await,
        None => reader.next().await.map(Some),
    }
}

/// Tells whether facts may have been made from a later configuration than a revision.
fn is_ahead_of(facts: &[Record], revision: u64) -> bool {
    facts.iter().any(|record| match &record.fact {
        Fact::AttemptMade(made) => made.config_revision > revision,
        // It does not say which revision paused its endpoint.
        Fact::DeliveryParked(_) => true,
        Fact::ShardClaimed(_)
        | Fact::DeliveryDeferred(_)
        | Fact::DeliveryConcluded(_)
        | Fact::RetryScheduled(_)
        | Fact::EventRouted(_) => false,
    })
}
