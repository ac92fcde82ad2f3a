//! Takes messages from INBOX and keeps a few batches on their way to EVENTS.
//!
//! ```text
//! next_batch ─▶ catch up ─▶ judge ─▶ look up suspects ─▶ claim keys ─▶ send ─▶ settle
//!               └──────── one batch at a time, in order ─────────────────┘   several
//! ```
//!
//! **Order.** INBOX is handed out to us from the oldest unsettled message on, without a gap: where
//! one may have been lost on its way, INBOX is opened anew before anything behind it is read. What
//! is in hand then comes a second time, behind itself; its id tells. The events of one ordering
//! key stand in line from when they are read until they are stored.

mod batch;
mod caught_up;
mod examiner;
mod lines;
mod sweeper;

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use fanfare_domain::chain;
use fanfare_event_log::{
    EventLog, InboxMessage, ReadError, Reader, Settings, Unsettled,
    membership::{Duty, Lease, is_loss},
};
use fanfare_service::Joined as _;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span, info, warn};

pub(crate) use self::examiner::Examiner;
use self::{
    batch::{Batch, Finisher},
    caught_up::CaughtUp,
    lines::Lines,
    sweeper::Sweeper,
};
use crate::{
    counters::Counters,
    door::{Condition, Door},
    guard::Guard,
    outlet::Outlet,
    spans::Spans,
};

/// The most messages of one batch.
const MESSAGES_MAX: usize = 128;
/// How often the connection is looked at, and how often messages that came again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Takes messages whenever that is this process's duty.
pub(crate) struct Intake {
    /// Where events go.
    pub(crate) log: EventLog,
    /// Where INBOX is: it comes by connections of its own.
    pub(crate) settings: Settings,
    /// By which it comes at this moment.
    pub(crate) inbox: Mutex<EventLog>,
    /// Decides.
    pub(crate) examiner: Examiner,
    /// Counts.
    pub(crate) counters: Arc<Counters>,
    /// How many batches may be written at once.
    pub(crate) batches_max: usize,
    /// Tells what is stored.
    pub(crate) spans: Spans,
    /// Ends the taking of messages.
    pub(crate) stop: CancellationToken,
}

/// The time for which INBOX is this process's.
struct Shift {
    intake: Arc<Intake>,
    guard: Guard,
    finisher: Finisher,
    sweeper: Sweeper,
    stop: CancellationToken,
}

/// Why a connection is not read from any more.
enum End {
    Stopped,
    /// It will never do anything again.
    Dead,
    /// Something may have been lost on it.
    Broken,
}

impl Intake {
    fn connection(&self) -> MutexGuard<'_, EventLog> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what comes until the duty ends; then finishes what is being written.
    pub(crate) async fn work(self: Arc<Self>, duty: Duty, lease: Lease) -> anyhow::Result<()> {
        let shift = Shift::new(&self, lease);
        let stop = shift.stop.clone();
        info!(member = &*duty.owner, "reading INBOX");
        self.counters.set_reads_inbox(true);
        let mut working = pin!(shift.work());
        let worked = tokio::select! {
            worked = &mut working => worked,
            () = duty.stop.cancelled() => {
                stop.cancel();
                working.await
            }
        };
        self.counters.set_reads_inbox(false);
        self.counters.set_batches(0);
        match worked {
            Err(error) if is_loss(error.as_ref()) => {
                warn!(error = chain(error.as_ref()), "another process reads INBOX");
                Ok(())
            }
            worked => worked,
        }
    }
}

impl Shift {
    fn new(intake: &Arc<Intake>, lease: Lease) -> Self {
        let Intake { log, examiner, counters, stop, .. } = &**intake;
        let (stop, guard) = (stop.child_token(), Guard::new(lease, log.clone()));
        // A publisher of its own: what it has not sent when the duty is lost is never sent, and a
        // flood of messages does not hold requests back.
        let outlet = Outlet::new(log.publisher(), guard.clone(), stop.clone());
        let counters = || Arc::clone(counters);
        let finisher = Finisher {
            outlet: outlet.clone(),
            keys: examiner.keys.clone(),
            counters: counters(),
            spans: intake.spans.clone(),
            lines: Lines::default(),
        };
        let sweeper = Sweeper { log: log.clone(), outlet, counters: counters() };
        Self { intake: Arc::clone(intake), guard, finisher, sweeper, stop }
    }

    async fn work(self) -> anyhow::Result<()> {
        let mut under_way = JoinSet::new();
        while let Some(mut door) = self.open().await {
            match self.session(&mut door, &mut under_way).await? {
                End::Stopped => {
                    finish_all(&mut under_way).await?;
                    let Door { entry, log, .. } = door;
                    entry.stop().await;
                    if self.intake.stop.is_cancelled() {
                        log.close().await;
                    }
                    break;
                }
                End::Dead => warn!("a message broke the connection, which is made anew"),
                End::Broken => info!("a message may have been lost, INBOX is opened anew"),
            }
        }
        finish_all(&mut under_way).await
    }

    /// Takes INBOX over, also from ourselves; `None` if the work stops first.
    async fn open(&self) -> Option<Door<Reader<InboxMessage>>> {
        // What breaks connections may have been handed out before: nobody will know afterwards.
        self.sweep(false).await;
        // We may have been stopped for so long that INBOX is another's.
        self.stop.run_until_cancelled(self.guard.held()).await?;
        let settings = &self.intake.settings;
        let known = self.intake.connection().clone();
        // Making another connection takes more of the servers than this work needs.
        if known.is_alive().await {
            let opening = Box::pin(Door::open_by(known, settings));
            match self.stop.run_until_cancelled(opening).await? {
                Ok(door) => return Some(door),
                Err(error) => warn!(error = chain(error.as_ref()), "cannot read INBOX yet"),
            }
        }
        let door: Door<Reader<InboxMessage>> = Door::open_at_last(settings, &self.stop).await?;
        *self.intake.connection() = door.log.clone();
        Some(door)
    }

    /// Takes messages for as long as the connection lives.
    async fn session(
        &self,
        door: &mut Door<Reader<InboxMessage>>,
        under_way: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<End> {
        let (stop, mut caught_up) = (&self.stop, CaughtUp::default());
        let (mut looks, mut sweeps) = (interval(LOOK_EVERY), interval(SWEEP_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.intake.counters.set_batches(under_way.len());
            let has_room = under_way.len() < self.intake.batches_max;
            let taken = tokio::select! {
                () = stop.cancelled() => return Ok(End::Stopped),
                Some(done) = under_way.join_next() => {
                    finish(done)?;
                    continue;
                }
                _ = looks.tick() => {
                    match door.look().await {
                        Condition::Calm => continue,
                        Condition::Reconnected => return Ok(End::Broken),
                        Condition::Dead => return Ok(End::Dead),
                    }
                }
                _ = sweeps.tick() => {
                    self.sweep(true).await;
                    continue;
                }
                taken = door.entry.next_batch(MESSAGES_MAX), if has_room => taken,
            };
            let taken = match taken {
                Ok(taken) => taken,
                Err(_) if !door.log.is_alive().await => return Ok(End::Dead),
                Err(ReadError::Broken { .. }) => return Ok(End::Broken),
                Err(error) => return Err(error).context("next messages"),
            };
            let span = debug_span!("ingest", messages = taken.len());
            let sending = Box::pin(self.take(taken, &mut caught_up)).instrument(span.clone());
            // The view stands still once the service stops, so waiting for it has to end too.
            let Some(batch) = stop.run_until_cancelled(sending).await else {
                return Ok(End::Stopped);
            };
            under_way.spawn(self.finisher.clone().finish(batch?).instrument(span));
        }
    }

    /// Puts messages aside that break connections. `redelivered_only`: if some came again.
    async fn sweep(&self, redelivered_only: bool) {
        let swept = self.sweeper.sweep(redelivered_only);
        if let Some(Err(error)) = self.stop.run_until_cancelled(swept).await {
            warn!(error = chain(&error), "cannot look for messages that break connections");
        }
    }

    /// Decides on a batch and sends its events. Cancel safe: what is dropped is handed out again,
    /// and what was sent by then is known again by its id.
    async fn take(
        &self,
        taken: Vec<Unsettled<InboxMessage>>,
        caught_up: &mut CaughtUp,
    ) -> anyhow::Result<Batch> {
        let Intake { examiner, log, .. } = &*self.intake;
        let taken_at = Instant::now();
        let positions = taken.iter().map(|taken| taken.position);
        if let Some(newest) = positions.max_by_key(|position| position.sequence) {
            let catching_up = caught_up.reach(newest, log, &examiner.judge);
            catching_up.await.context("confirm the configuration")?;
        }
        let (entries, looked_at) = examiner.examine(taken, taken_at).await?;
        debug!(entries = entries.len(), "sending events");
        self.finisher.send(entries, looked_at).await.context("send events")
    }
}

async fn finish_all(under_way: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(done) = under_way.join_next().await {
        finish(done)?;
    }
    Ok(())
}

fn finish(done: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    done.joined().context("finish a batch")?
}
