//! The loop of the service: from where the tables stand, on and on.
//!
//! Whatever goes wrong with the database, there is one way to go on: ask it how far the fold is,
//! and read the streams from there. A transaction of which nobody knows whether it was written, a
//! database that was away, another projector and a restart are all the same. Tables that are not ours,
//! or that know more than the streams have, are waited for too, until a person has seen to them: where
//! all services are one process, deliveries must not end for that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_delivery_log::{Database, ExpungeCursor, Progress, Store, StoreError, TypeCursor};
use fanfare_domain::chain;
use fanfare_event_log::EventLog;
use fanfare_service::Clock;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    counters::Counters,
    folding::{FoldError, Limits, Streams, beyond, sources},
};

/// How long to wait before the database is asked again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long nothing has to come for all to be read: the first messages of a reader take a moment.
const ALL_READ_AFTER: Duration = Duration::from_secs(1);
/// How long a projector stands by whose place another one has taken.
const STAND_BY: Duration = Duration::from_secs(5);
/// How often old rows are looked for.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// How many rows are forgotten in one transaction, and how long it is waited before the next one
/// while there is nothing to write: for those who search meanwhile.
const FORGET_ROWS: u32 = 500;
/// Of an expunged tenant: deliveries go with all their attempts.
const EXPUNGE_ROWS: u32 = 100;
const FORGET_PAUSE: Duration = Duration::from_millis(200);
/// How many rows are forgotten for each that was written, while there are old ones: more than come.
const FORGET_RATIO: usize = 2;
/// How many types are looked at then, whether something of them is left.
const FORGET_TYPES: u32 = 500;
/// How often it is looked whether the streams are still those that the tables are folded from.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often they are looked at again when they seem to end too early, and how long: a server that
/// does not know yet that it leads no more tells an old end.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const OUTDATED: Duration = Duration::from_secs(10);
/// How often a person is told of the same trouble again.
const TELL_EVERY: Duration = Duration::from_mins(5);

/// See the module.
pub(crate) struct Projecting {
    pub(crate) counters: Arc<Counters>,
    pub(crate) log: EventLog,
    pub(crate) database: Database,
    pub(crate) erasing: BTreeSet<String>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) retention: Duration,
    pub(crate) limits: Limits,
    pub(crate) stop: CancellationToken,
}

/// How long to wait, and whether somebody was told.
struct Patience {
    pause: Duration,
    /// When somebody was told of what, if it has not passed.
    told: Option<(Instant, bool)>,
}

impl Projecting {
    /// Folds until the service stops. Ends early only where waiting is of no use.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut patience = Patience::new();
        loop {
            let session = Box::pin(self.session(&mut patience));
            // What is in hand then is read again the next time.
            let Some(ended) = self.stop.run_until_cancelled(session).await else { return Ok(()) };
            let wait = match ended {
                Ok(()) => PAUSE_MIN,
                Err(FoldError::Store(StoreError::Moved)) => {
                    debug!("another projector folds: standing by");
                    self.counters.stand_by();
                    STAND_BY
                }
                Err(FoldError::Store(error)) => {
                    self.counters.note_failure(self.clock.now());
                    patience.bear(&chain(&error), error.is_passing())
                }
                Err(error @ FoldError::Beyond { .. }) => {
                    self.counters.note_failure(self.clock.now());
                    patience.bear(&chain(&error), false)
                }
                Err(FoldError::Read(error)) => return Err(error).context("read the streams"),
            };
            if self.stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Folds from where the tables stand until something goes wrong, or the streams are others.
    async fn session(&self, patience: &mut Patience) -> Result<(), FoldError> {
        let streams = sources(&self.log, &self.log.marks().await?);
        let store = Store::open(&self.database, &streams).await?;
        let store = store.erasing(self.erasing.clone());
        let mut progress = store.progress().await?;
        self.counters.begin(progress);
        if !self.are_there(&streams, progress).await? {
            return Ok(());
        }
        let mut reading = Streams::open(&self.log, progress).await?;
        let (mut forget_at, mut look_at) = (Instant::now(), Instant::now() + LOOK_EVERY);
        let (mut types, mut expunge) = (TypeCursor::default(), ExpungeCursor::default());
        loop {
            let begun = Instant::now();
            let portion = reading.gather(progress, self.limits, forget_at.min(look_at)).await?;
            let rows = portion.rows();
            if portion.has_deletions() {
                forget_at = Instant::now();
            }
            if portion.is_empty() {
                if begun.elapsed() >= ALL_READ_AFTER {
                    self.counters.note_idle();
                    patience.relax();
                }
            } else {
                let count = portion.count();
                self.counters.note_portion(count.max(rows));
                self.counters.note_read(portion.oldest());
                progress = portion.write(&store).await?;
                self.counters.note_written(count, progress);
                patience.relax();
            }
            if Instant::now() >= forget_at {
                let wait = self.forget(&store, rows, &mut expunge).await?;
                if wait == FORGET_EVERY {
                    types = store.forget_types(types, FORGET_TYPES).await?;
                }
                forget_at = Instant::now() + wait;
            }
            if Instant::now() >= look_at {
                if !self.are_there(&streams, progress).await? {
                    return Ok(());
                }
                look_at = Instant::now() + LOOK_EVERY;
            }
        }
    }

    /// Tells whether the streams are still these. Waits a little where they seem to end too early.
    ///
    /// # Errors
    ///
    /// [`FoldError::Beyond`] if they do end before what was folded.
    async fn are_there(
        &self,
        streams: &fanfare_delivery_log::Streams,
        progress: Progress,
    ) -> Result<bool, FoldError> {
        let begun = Instant::now();
        loop {
            let marks = self.log.marks().await?;
            if sources(&self.log, &marks) != *streams {
                return Ok(false);
            }
            match beyond(progress, &marks) {
                None => return Ok(true),
                Some(error) if begun.elapsed() > OUTDATED => return Err(error),
                Some(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Forgets some rows that are old or of deleted endpoints, in small transactions, and more of them
    /// the more were written; returns when to look again.
    async fn forget(
        &self,
        store: &Store,
        written: usize,
        expunge: &mut ExpungeCursor,
    ) -> Result<Duration, StoreError> {
        let before = self.clock.now().saturating_sub(self.retention);
        let wanted = u64::try_from(written.saturating_mul(FORGET_RATIO)).unwrap_or(u64::MAX);
        let expunged = store.purge_expunged(expunge, EXPUNGE_ROWS).await?;
        let purged = store.purge(FORGET_ROWS).await? | expunged;
        let mut rows = 0;
        loop {
            let gone = store.forget(before, FORGET_ROWS).await?;
            rows += gone;
            let all = gone < u64::from(FORGET_ROWS);
            if all && !purged {
                return Ok(FORGET_EVERY);
            }
            if all || rows >= wanted {
                return Ok(if written > 0 { Duration::ZERO } else { FORGET_PAUSE });
            }
        }
    }
}

impl Patience {
    const fn new() -> Self {
        Self { pause: PAUSE_MIN, told: None }
    }

    /// Notes what went wrong; returns how long to wait. A person is told once, again when it has
    /// become worse, and then from time to time.
    fn bear(&mut self, cause: &str, passing: bool) -> Duration {
        let lately = |(at, was_passing): (Instant, bool)| {
            at.elapsed() < TELL_EVERY && (passing || !was_passing)
        };
        if self.told.is_some_and(lately) {
            debug!(error = cause, "the delivery log is still behind");
        } else {
            if passing {
                warn!(
                    error = cause,
                    "the delivery log falls behind; deliveries are made all the same"
                );
            } else {
                error!(
                    error = cause,
                    "the delivery log is not kept; deliveries are made all the same"
                );
            }
            self.told = Some((Instant::now(), passing));
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// Notes that all is well.
    fn relax(&mut self) {
        if self.told.is_some() {
            info!("the delivery log is kept again");
        }
        *self = Self::new();
    }
}
