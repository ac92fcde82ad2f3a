//! Configuration: a fold over CONFIG that reads its own writes.
//!
//! CONFIG is never aged, so a process folds all of it at the start and then follows. That alone
//! would lag: a change can be acknowledged to its maker before it has come to us. So whoever is
//! about to judge by the view asks with [`ConfigView::confirm`] how far CONFIG has come, and
//! waits until the view has come as far.
//!
//! How far CONFIG has come, whoever leads it says, and it does not ask the other servers before it
//! answers. On one server the answer is right always. On a cluster it is right unless the server
//! that answers was cut off from the others within the last 10 s or so and does not know yet that
//! it leads no more: the others take 4 to 9 s to elect another leader, which acknowledges changes
//! then, and until the old one gives up it answers those that still reach it by what it had.

mod change;
mod follow;

use std::sync::{Arc, PoisonError, RwLock};

use fanfare_domain::{Change, Timestamp};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{EventLog, ReadError, cas, topology::Stream};

pub use change::ChangeError;

/// What a service keeps of the configuration.
pub trait ConfigFold: Default + Send + Sync + 'static {
    /// Applies a change. `revision` is its sequence in CONFIG, `stored_at` its time there.
    fn apply(&mut self, revision: u64, stored_at: Timestamp, change: &Change);
}

/// A fold that follows CONFIG. Cheap to clone; clones share the fold.
pub struct ConfigView<F> {
    shared: Arc<Shared<F>>,
}

impl<F> Clone for ConfigView<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Nobody follows CONFIG for this view any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the view of the configuration is not followed any more")]
pub struct NotFollowed;

struct Shared<F> {
    /// The name of CONFIG.
    stream: String,
    state: RwLock<F>,
    progress: watch::Sender<Progress>,
    /// How many confirmations were asked for.
    asked: watch::Sender<u64>,
    /// Wakes the follower when what it waits for should have come long ago.
    stalled: Notify,
}

/// How far a view has come.
#[derive(Clone, Copy, Default)]
struct Progress {
    revision: u64,
    confirmed_at: Option<Instant>,
    /// Up to which one the confirmations that were asked for are given.
    confirmed: u64,
    ended: bool,
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
    {
        let shared = Arc::new(Shared {
            stream: log.topology().stream(Stream::Config),
            state: RwLock::default(),
            progress: watch::Sender::default(),
            asked: watch::Sender::default(),
            stalled: Notify::new(),
        });
        let view = Self { shared: Arc::clone(&shared) };
        let mut follow = Box::pin(follow::run(log.clone(), shared, stop));
        let ended = tokio::select! {
            biased;
            ended = &mut follow => Some(ended?),
            confirmed = view.confirm() => { confirmed?; None }
        };
        let following = async move {
            match ended {
                Some(()) => Ok(()),
                None => follow.await,
            }
        };
        Ok((view, following))
    }

    /// Looks at the state. Never hold it over an await: the closure keeps that from happening.
    pub fn read<R>(&self, look: impl FnOnce(&F) -> R) -> R {
        // A fold that panicked in the middle of a change took its follower's task with it, and
        // that stops the service: what is left to do then may see half a change.
        look(&self.shared.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The revision that the view has reached.
    pub fn revision(&self) -> u64 {
        self.shared.progress.borrow().revision
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
        let mut ours = 0;
        self.shared.asked.send_modify(|asked| {
            *asked += 1;
            ours = *asked;
        });
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|at| at.ended || at.confirmed >= ours).await;
        match reached.as_deref() {
            Ok(at) if at.confirmed >= ours => Ok(at.revision),
            Ok(_) | Err(_) => Err(cas::refused(&self.shared.stream, NotFollowed)),
        }
    }

    /// When the view was last known to be complete, as far as [`Self::confirm`] can know, on the
    /// monotonic clock: the time at which the question was *sent* whose answer it has reached.
    pub fn confirmed_at(&self) -> Option<Instant> {
        self.shared.progress.borrow().confirmed_at
    }
}
