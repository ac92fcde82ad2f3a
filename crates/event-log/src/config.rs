//! Configuration: a fold over CONFIG that reads its own writes.

use std::{future::Future, sync::Arc};

use fanfare_domain::{Change, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{EventLog, ReadError};

/// What a service keeps of the configuration.
pub trait ConfigFold: Default + Send + Sync + 'static {
    /// Applies a change. `revision` is its sequence in CONFIG, `stored_at` its time there.
    fn apply(&mut self, revision: u64, stored_at: Timestamp, change: &Change);
}

/// A fold that follows CONFIG. Cheap to clone.
pub struct ConfigView<F> {
    state: Arc<std::sync::RwLock<F>>,
}

impl<F: ConfigFold> ConfigView<F> {
    /// Folds all of CONFIG, then returns the view and the future that follows what comes until
    /// `stop`; the caller spawns it.
    pub async fn start(log: &EventLog, stop: CancellationToken) -> Result<(Self, impl Future<Output = Result<(), ReadError>> + Send + use<F>), ReadError> {
        let _ = (log, stop);
        todo!() as Result<(Self, std::future::Ready<Result<(), ReadError>>), ReadError>
    }

    /// Looks at the state. Never hold it over an await: the closure keeps that from happening.
    pub fn read<R>(&self, look: impl FnOnce(&F) -> R) -> R {
        let _ = &self.state;
        let _ = look;
        todo!()
    }

    /// The revision that the view has reached.
    pub fn revision(&self) -> u64 {
        todo!()
    }

    /// Waits until the view has reached every change that was acknowledged before this call.
    /// Returns the revision. Calls at the same time share one question to the server.
    pub async fn confirm(&self) -> Result<u64, ReadError> {
        todo!()
    }

    /// When the view was last known to be complete, on the monotonic clock: the time at which the
    /// question was *sent* whose answer it has reached.
    pub fn confirmed_at(&self) -> Option<tokio::time::Instant> {
        todo!()
    }
}

/// A change was not written.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The thing has changed since the revision that the change was made from.
    #[error("changed meanwhile: at revision {actual}, not {expected}")]
    Conflict {
        /// What the caller expected; 0 for "does not exist".
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// The write was refused for good.
    #[error(transparent)]
    Refused(#[from] crate::PublishError),
}

impl EventLog {
    /// Writes a change if the thing is still at the revision that it was made from (0: does not
    /// exist yet, never did or was deleted at... helper: a deleted thing's last revision is a tombstone; creating again expects its revision or 0 if none). Returns the new revision once it is stored.
    pub async fn change(&self, change: &Change, expected: u64) -> Result<u64, ChangeError> {
        let _ = (change, expected);
        todo!()
    }
}
