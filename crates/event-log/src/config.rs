//! Configuration: a fold over CONFIG that reads its own writes.
//!
//! CONFIG is never aged, so a process folds all of it at the start and then follows. Whoever is
//! about to judge by the view asks with [`ConfigView::confirm`] how far CONFIG has come, and waits
//! until the view has come as far: a change can be acknowledged to its maker before it has come to
//! us.

mod change;
mod follower;

use fanfare_domain::{Change, Timestamp};
use fanfare_proto::{DecodeError, decode_change};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    EventLog, ReadError, Topology,
    read::Numbered,
    topology::Stream,
    view::{Fold, View},
};

pub use change::ChangeError;
pub use follower::{ConfigFollower, StoredChange};

/// What a service keeps of the configuration.
pub trait ConfigFold: Send + Sync + 'static {
    /// Applies a change. `revision` is its sequence in CONFIG, `stored_at` its time there.
    fn apply(&mut self, revision: u64, stored_at: Timestamp, change: &Change);
}

/// A fold that follows CONFIG. Cheap to clone; clones share the fold.
pub struct ConfigView<F> {
    view: View<Changes<F>>,
}

impl<F> Clone for ConfigView<F> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone() }
    }
}

/// The fold, as a view keeps it.
struct Changes<F>(F);

impl<F: ConfigFold> Fold for Changes<F> {
    fn place(topology: &Topology) -> (String, Vec<String>) {
        (topology.stream(Stream::Config), topology.subjects(Stream::Config))
    }

    fn take(&mut self, numbered: &Numbered) -> Result<(), DecodeError> {
        let change = decode_change(numbered.message.payload.clone())?;
        self.0.apply(numbered.sequence, numbered.stored_at, &change);
        Ok(())
    }
}

impl<F: ConfigFold> ConfigView<F> {
    /// Folds all of CONFIG, then returns the view and the future that follows what comes until
    /// `stop`; the caller spawns it.
    ///
    /// Waits for servers that are away, for ever: bound it from outside. If `stop` comes first,
    /// the view is returned as far as it has come, and cannot be confirmed.
    ///
    /// The future ends a moment after `stop`, once nobody asks for confirmations any more. It,
    /// too, waits out whatever happens to the servers. It ends with an error only at
    /// a record that a newer version wrote and that changes something this version knows:
    /// passing over it would go against what was acknowledged. Other records that cannot be read
    /// are passed over with an error in the log: nothing is ever removed from CONFIG.
    pub async fn start(
        log: &EventLog,
        stop: CancellationToken,
    ) -> Result<(Self, impl Future<Output = Result<(), ReadError>> + Send + use<F>), ReadError>
    where
        F: Default,
    {
        Self::start_with(F::default(), log, stop).await
    }

    /// The same, with a fold that has something to know from the beginning.
    pub async fn start_with(
        fold: F,
        log: &EventLog,
        stop: CancellationToken,
    ) -> Result<(Self, impl Future<Output = Result<(), ReadError>> + Send + use<F>), ReadError>
    {
        let (view, follow) = View::start(Changes(fold), log, stop).await?;
        Ok((Self { view }, follow))
    }

    /// Looks at the state. Never hold it over an await: the closure keeps that from happening.
    pub fn read<R>(&self, look: impl FnOnce(&F) -> R) -> R {
        self.view.read(|changes| look(&changes.0))
    }

    /// Tells whether the view has reached a revision: one that has every change that matters to the
    /// caller need not be [confirmed](Self::confirm). Fails once nobody follows CONFIG any more.
    pub fn has(&self, revision: u64) -> Result<bool, ReadError> {
        self.view.has(revision)
    }

    /// The revision that the view has reached.
    pub fn revision(&self) -> u64 {
        self.view.revision()
    }

    /// Waits until the view has reached every change that was acknowledged before this call: on
    /// one server always; on a cluster unless the server that answers was cut off from the others
    /// within the last 10 s or so and does not know yet. Such a one may not have what another
    /// leader acknowledged meanwhile.
    ///
    /// Returns the revision that it then had, or a later one. Cancel safe.
    ///
    /// Calls at the same time share one question to the stream's leader, and it is one that was
    /// sent after each of these calls. While the servers are away it is repeated for ever: bound
    /// this from outside. Fails once nobody follows CONFIG any more.
    pub async fn confirm(&self) -> Result<u64, ReadError> {
        self.view.confirm().await
    }

    /// When the view was last known to be complete, as far as [`Self::confirm`] can know, on the
    /// monotonic clock: the time at which the question was *sent* whose answer it has reached.
    pub fn confirmed_at(&self) -> Option<Instant> {
        self.view.confirmed_at()
    }
}
