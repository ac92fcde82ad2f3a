//! A fold over all of a stream that reads its own writes.
//!
//! A view folds what is there and then follows. That alone would lag: a write can be acknowledged
//! to its maker before it has come to us. So whoever is about to judge by the view asks how far the
//! stream has come, and waits until the view has come as far, or knows a revision that will do.
//!
//! How far it has come, whoever leads the stream says, and it does not ask the other servers before
//! it answers. On one server the answer is right always. On a cluster it is right unless the server
//! that answers was cut off from the others within the last 10 s or so and does not know yet that
//! it leads no more: the others take 4 to 9 s to elect another leader, which acknowledges writes
//! then, and until the old one gives up it answers those that still reach it by what it had.

mod follow;

use std::sync::{Arc, PoisonError, RwLock};

use fanfare_proto::DecodeError;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{EventLog, ReadError, Topology, cas, read::Numbered};

/// What a view keeps.
pub(crate) trait Fold: Send + Sync + 'static {
    /// The name of the stream, and the subjects in it.
    fn place(topology: &Topology) -> (String, Vec<String>);

    /// Takes a message. One that a newer version wrote, and that must not be passed over, is
    /// [`DecodeError::UnknownValue`]; other errors are passed over with an error in the log.
    fn take(&mut self, numbered: &Numbered) -> Result<(), DecodeError>;
}

/// A fold that follows a stream. Cheap to clone; clones share the fold.
pub(crate) struct View<F> {
    shared: Arc<Shared<F>>,
}

impl<F> Clone for View<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Nobody follows the stream for this view any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the view is not followed any more")]
struct NotFollowed;

struct Shared<F> {
    /// The name of the stream.
    stream: String,
    subjects: Vec<String>,
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

impl<F: Fold> View<F> {
    /// Folds all that is there into `state`, then returns the view and the future that follows what
    /// comes until `stop`; the caller spawns it.
    ///
    /// Waits for servers that are away, for ever. If `stop` comes first, the view is returned as
    /// far as it has come, and cannot be confirmed. The future ends a moment after `stop`, once
    /// nobody asks for confirmations any more.
    pub(crate) async fn start(
        state: F,
        log: &EventLog,
        stop: CancellationToken,
    ) -> Result<(Self, impl Future<Output = Result<(), ReadError>> + Send + use<F>), ReadError>
    {
        let (stream, subjects) = F::place(log.topology());
        let shared = Arc::new(Shared {
            stream,
            subjects,
            state: RwLock::new(state),
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
    pub(crate) fn read<R>(&self, look: impl FnOnce(&F) -> R) -> R {
        // A fold that panicked in the middle of a change took its follower's task with it, and
        // that stops the service: what is left to do then may see half a change.
        look(&self.shared.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells whether the view has reached a revision. Fails once nobody follows the stream any more.
    pub(crate) fn has(&self, revision: u64) -> Result<bool, ReadError> {
        let at = *self.shared.progress.borrow();
        if at.ended {
            return Err(cas::refused(&self.shared.stream, NotFollowed));
        }
        Ok(at.revision >= revision)
    }

    /// The revision that the view has reached.
    pub(crate) fn revision(&self) -> u64 {
        self.shared.progress.borrow().revision
    }

    /// Waits until the view has reached every write that was acknowledged before this call: on
    /// one server always; on a cluster unless the server that answers was cut off from the others
    /// within the last 10 s or so and does not know yet. Such a one may not have what another
    /// leader acknowledged meanwhile.
    ///
    /// Returns the revision that it then had, or a later one. Cancel safe.
    ///
    /// Calls at the same time share one question to the stream's leader, and it is one that was
    /// sent after each of these calls. While the servers are away it is repeated for ever: bound
    /// this from outside. Fails once nobody follows CONFIG any more.
    pub(crate) async fn confirm(&self) -> Result<u64, ReadError> {
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
    pub(crate) fn confirmed_at(&self) -> Option<Instant> {
        self.shared.progress.borrow().confirmed_at
    }
}
