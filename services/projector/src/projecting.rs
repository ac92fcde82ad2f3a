//! The loop of the service: from where the tables stand, on and on.
//!
//! Whatever goes wrong with the database, there is one way to go on: ask it how far the fold is,
//! and read the streams from there. A transaction of which nobody knows whether it was written, a
//! database that was away, another projector and a restart are all the same. Tables that are not ours
//! are waited for too, until a person has seen to them: where all services are one process, deliveries
//! must not end for that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_delivery_log::{Database, Store, StoreError};
use fanfare_domain::chain;
use fanfare_event_log::EventLog;
use fanfare_service::Clock;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::folding::{FoldError, Limits, Streams};

/// How long to wait before the database is asked again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a projector stands by whose place another one has taken.
const STAND_BY: Duration = Duration::from_secs(5);
/// How often old rows are looked for.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// How many rows are forgotten in one transaction, and the pause before the next one: it is for
/// those who write and search meanwhile.
const FORGET_ROWS: u32 = 500;
const FORGET_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
pub(crate) struct Projecting {
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
    told: bool,
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
                    STAND_BY
                }
                Err(FoldError::Store(error)) => patience.bear(&error),
                Err(FoldError::Read(error)) => return Err(error).context("read the streams"),
            };
            if self.stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Folds from where the tables stand until something goes wrong.
    async fn session(&self, patience: &mut Patience) -> Result<(), FoldError> {
        let store = Store::open(&self.database, self.log.inbox_identity()).await?;
        let store = store.erasing(self.erasing.clone());
        let mut progress = store.progress().await?;
        let mut streams = Streams::open(&self.log, progress).await?;
        let mut forget_at = Instant::now();
        loop {
            let portion = streams.gather(progress, self.limits, forget_at).await?;
            if portion.has_deletions() {
                forget_at = Instant::now();
            }
            if !portion.is_empty() {
                progress = portion.write(&store).await?;
                patience.relax();
            }
            if Instant::now() >= forget_at {
                forget_at = Instant::now() + self.forget(&store).await?;
            }
        }
    }

    /// Forgets some rows that are old or of deleted endpoints; returns when to look again.
    async fn forget(&self, store: &Store) -> Result<Duration, StoreError> {
        let before = self.clock.now().saturating_sub(self.retention);
        let purged = store.purge(FORGET_ROWS).await?;
        let rows = store.forget(before, FORGET_ROWS).await?;
        let all = !purged && rows < u64::from(FORGET_ROWS);
        Ok(if all { FORGET_EVERY } else { FORGET_PAUSE })
    }
}

impl Patience {
    const fn new() -> Self {
        Self { pause: PAUSE_MIN, told: false }
    }

    /// Notes what went wrong; returns how long to wait. A person is told once.
    fn bear(&mut self, error: &StoreError) -> Duration {
        let cause = chain(error);
        if self.told {
            debug!(error = cause, "the delivery log is still behind");
        } else if error.is_passing() {
            warn!(error = cause, "the delivery log falls behind; deliveries are made all the same");
        } else {
            error!(error = cause, "the delivery log is not kept; deliveries are made all the same");
        }
        self.told = true;
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// Notes that all is well.
    fn relax(&mut self) {
        if self.told {
            info!("the delivery log is kept again");
        }
        *self = Self::new();
    }
}
