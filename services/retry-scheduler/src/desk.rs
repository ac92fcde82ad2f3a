//! The shell around a shard's agenda: reads the journal, carries out what follows from it.
//!
//! ```text
//! journal ─▶ Agenda::apply ─▶ Agenda::commands ─┬▶ plans, in batches, one at a time ─▶ journal
//!    ▲                                          ├▶ alarms set, pipelined, and stopped ─▶ RETRIES
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
mod setting;
mod sweeping;
mod telling;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use fanfare_domain::{EndpointId, Fact, Record, RetryDue, Shard, SpanId, Timestamp};
use fanfare_event_log::{
    ConfigView, EventLog, JournalBatch, JournalReader, JournalWriter, Publisher, ReadError,
    Schedules, membership::Lease,
};
use fanfare_service::{Clock, Joined as _};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use self::{jobs::Done, setting::Setting, sweeping::Sweeping, telling::Telling};
use crate::{
    Settings,
    agenda::{Agenda, Cause, Command},
    counters::{Counters, Gauges, Levels},
    directory::Directory,
    spans::Afterwards,
};

/// How often what could not be done is tried again, and clocks are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How old the last confirmation of our membership may be when an alarm is set.
const LEASE_AGE_MAX: Duration = Duration::from_secs(2);
/// How many batches of the journal are looked up at once.
const RECALLS_MAX: usize = 8;
/// How many alarms are being stopped at once.
const STOPS_MAX: usize = 16;

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
    pub(crate) afterwards: Afterwards,
    pub(crate) lease: Lease,
    /// Under which name we own the shard.
    pub(crate) owner: Arc<str>,
    /// Cancelled when the shard is to be handed over.
    pub(crate) stop: CancellationToken,
}

/// A shard, and everything that is under way for it.
pub(crate) struct Desk {
    tools: Tools,
    shard: Shard,
    agenda: Agenda,
    /// Facts to be written.
    plans: VecDeque<Record>,
    /// How many are being written.
    writing: usize,
    /// The right to write them; absent while a batch is being written.
    writer: Option<JournalWriter>,
    saved: saving::Saved,
    gauges: Gauges,
    reader: JournalReader,
    /// Everything in the journal up to this sequence is folded in.
    position: u64,
    jobs: JoinSet<anyhow::Result<Done>>,
    /// The shard's part of what may be on its way.
    in_flight_max: usize,
    /// Alarms, and rescues, that are on their way.
    alarms: usize,
    /// Facts to be read again, because there is something to do about them.
    recalls: BTreeSet<u64>,
    recalling: usize,
    /// The same, but only with the next tick: it did not work just now.
    stalled: BTreeSet<u64>,
    /// Alarms to be stopped: duties of the agenda, all of them.
    stops: VecDeque<Cause>,
    stopping: usize,
    /// Deliveries whose alarms are on their way: none is stopped before it is set.
    setting: Setting,
    disabling: BTreeSet<EndpointId>,
    telling: Telling,
    sweeping: Sweeping,
}

/// Something that happened.
enum Step {
    Read(Option<JournalBatch>),
    Done(Result<anyhow::Result<Done>, JoinError>),
    ConfigChanged,
    Tick,
}

impl Desk {
    /// Works until the shard is to be handed over, then saves the state.
    ///
    /// # Errors
    ///
    /// When another process has taken over the shard, or the log refuses something for good.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let stop = self.tools.stop.clone();
        let mut config = self.tools.view.read(Directory::changes);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.start_jobs();
            let has_room = self.under_way() < self.in_flight_max;
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
            Step::Done(done) => self.finished(done.joined().context("do a job")??).await?,
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
        self.save_in_time();
        let (waiting, parked) = self.agenda.size();
        self.gauges.set(Levels {
            waiting,
            parked,
            under_way: self.under_way(),
            under_way_max: self.in_flight_max,
            past_due: self.sweeping.past_due,
        });
    }

    /// Folds a batch in and issues what follows from it.
    async fn fold(&mut self, batch: JournalBatch) -> anyhow::Result<()> {
        let JournalBatch { sequence, stored_at: _, column: _, facts } = batch;
        if is_ahead_of(&facts, self.tools.view.revision()) {
            self.tools.view.confirm().await.context("confirm the configuration")?;
        }
        let apply = |directory: &Directory| self.agenda.apply(sequence, &facts, directory);
        let effects = self.tools.view.read(apply);
        self.position = sequence;
        self.saved.note_change();
        self.tools.counters.batches.add(1);
        let commands = self.agenda.commands(sequence, &facts, self.tools.now());
        for endpoint in effects.failing {
            self.judge(endpoint);
        }
        if effects.parked {
            self.resume();
        }
        self.issue(commands).await
    }

    /// Carries commands out, or has them carried out. Alarms are put in the order of their facts.
    async fn issue(&mut self, commands: Vec<Command>) -> anyhow::Result<()> {
        for command in commands {
            match command {
                Command::Plan(record) => self.plans.push_back(record),
                Command::Alarm(retry) => self.put_alarm(&retry).await?,
                Command::Stop(cause) => self.stops.push_back(cause),
                Command::Tell(told) => self.telling.push(told),
            }
        }
        Ok(())
    }

    async fn put_alarm(&mut self, retry: &RetryDue) -> anyhow::Result<()> {
        self.tools.wait_for_lease().await;
        let cause = (retry.journal_sequence, retry.delivery.id);
        match self.tools.schedules.put(self.shard, retry).await {
            Ok(pending) => {
                self.alarms += 1;
                self.setting.begin(retry.delivery.id);
                self.jobs.spawn(jobs::alarm(cause, pending));
                Ok(())
            }
            Err(error) => {
                jobs::full(error).context("put an alarm")?;
                self.stall(cause);
                Ok(())
            }
        }
    }

    /// Starts the jobs for which there is something to do and room.
    fn start_jobs(&mut self) {
        if let Some(writer) = self.writer.take_if(|_| !self.plans.is_empty()) {
            // A test shows that so many are not too large.
            let count = self.plans.len().min(JournalWriter::FACTS_MAX);
            let facts: Vec<_> = self.plans.drain(..count).collect();
            self.writing = count;
            let stop = self.tools.stop.clone();
            self.jobs.spawn(jobs::plan(self.shard, writer, facts, stop));
        }
        // Half of the room is kept for what happens now.
        let room = self.in_flight_max.div_ceil(2);
        while self.recalling < RECALLS_MAX && self.under_way() < room {
            let Some(sequence) = self.recalls.pop_first() else { break };
            self.recalling += 1;
            self.jobs.spawn(jobs::recall(self.tools.log.clone(), sequence));
        }
        while self.stopping < STOPS_MAX {
            let Some(cause) = self.stops.pop_front() else { break };
            if self.setting.contains(cause.1) {
                self.stop_later(cause);
            } else {
                self.stopping += 1;
                self.jobs.spawn(jobs::stop(self.tools.schedules.clone(), self.shard, cause));
            }
        }
        self.start_telling();
    }

    /// Returns how much is on its way. What only waits to be read back is not counted.
    fn under_way(&self) -> usize {
        self.plans.len() + self.writing + self.alarms + self.telling.len()
    }

    /// Takes note of what a job came to.
    async fn finished(&mut self, done: Done) -> anyhow::Result<()> {
        match done {
            Done::Planned { writer, count } => {
                self.tools.counters.plans.add(count);
                self.writing = 0;
                self.writer = Some(*writer);
            }
            Done::Alarmed { cause, set } => {
                self.alarms -= 1;
                self.setting.end(cause.1);
                self.tools.counters.alarms.add(usize::from(set));
                self.settle(cause, set);
            }
            Done::Rescued { delivery } => {
                self.alarms -= 1;
                self.setting.end(delivery);
            }
            Done::Recalled { sequence, recalled } => {
                self.recalling -= 1;
                self.recalled(sequence, recalled).await?;
            }
            Done::Stopped { cause, stopped } => {
                self.stopping -= 1;
                self.tools.counters.cancels.add(usize::from(stopped));
                if stopped {
                    self.agenda.stopped(cause);
                } else {
                    self.stop_later(cause);
                }
            }
            Done::Told { causes, told } => {
                self.telling.end(told, self.tools.now());
                self.tools.counters.exhausted.add(if told { causes.len() } else { 0 });
                for cause in causes {
                    self.settle(cause, told);
                }
            }
            Done::Announced { told } => self.announced(told),
            Done::Judged { endpoint, decide_again } => {
                self.disabling.remove(&endpoint);
                if decide_again {
                    self.judge(endpoint);
                }
            }
            Done::Looked { findings } => self.looked(findings),
            Done::Saved { saved } => self.note_saved(saved),
        }
        Ok(())
    }

    /// Closes a duty that is done; has one that is not done tried again.
    fn settle(&mut self, cause: Cause, done: bool) {
        if done { self.agenda.done(cause) } else { self.stall(cause) }
    }

    fn stall(&mut self, cause: Cause) {
        if self.agenda.not_done(cause) {
            self.stalled.insert(cause.0);
        }
    }

    /// Has an alarm stopped with a later tick.
    fn stop_later(&mut self, cause: Cause) {
        if self.agenda.not_stopped(cause) {
            self.stalled.insert(cause.0);
        }
    }

    /// Issues what is to be done about facts that were read again.
    async fn recalled(&mut self, sequence: u64, recalled: jobs::Recalled) -> anyhow::Result<()> {
        match recalled {
            jobs::Recalled::Facts(facts) => {
                let commands = self.agenda.commands(sequence, &facts, self.tools.now());
                self.issue(commands).await
            }
            jobs::Recalled::AgedOut => {
                for delivery in self.agenda.forget(sequence) {
                    error!(
                        delivery_id = %delivery,
                        span_id = %SpanId::delivery(delivery),
                        sequence,
                        "the journal does not hold it any more"
                    );
                }
                Ok(())
            }
            jobs::Recalled::Unreadable => {
                self.stalled.insert(sequence);
                Ok(())
            }
        }
    }

    /// Takes up parked deliveries whose endpoints hold nothing back any more.
    fn resume(&mut self) {
        let (now, retention) = (self.tools.now(), self.tools.settings.log.retention);
        let agenda = &mut self.agenda;
        let sequences = self.tools.view.read(|directory| agenda.resume(directory, retention, now));
        self.recalls.extend(sequences);
    }
}

impl Tools {
    /// Waits until our membership was confirmed lately: a process that was stopped and has been
    /// replaced must not set alarms over those of its successor.
    async fn wait_for_lease(&self) {
        let is_fresh = |at: Instant| at.elapsed() <= LEASE_AGE_MAX;
        while !self.lease.confirmed_at().is_some_and(is_fresh) {
            debug!("waiting for the membership to be confirmed");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
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
        | Fact::ShardReleased(_)
        | Fact::DeliveryDeferred(_)
        | Fact::DeliveryConcluded(_)
        | Fact::RetryScheduled(_)
        | Fact::EventRouted(_) => false,
    })
}
