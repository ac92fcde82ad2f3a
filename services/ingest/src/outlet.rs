//! Writing with patience: a full EVENTS holds messages back, and never drops one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{Event, chain};
use fanfare_event_log::{InboxMessage, Pending, PublishError, Publisher, Stored};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{admit::Rejection, guard::Guard};

/// The first wait for room; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(50);
/// The longest wait for room.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Writes events and refused messages. Cheap to clone; clones share one window.
#[derive(Clone)]
pub(crate) struct Outlet {
    publisher: Publisher,
    guard: Guard,
    stop: CancellationToken,
    /// Whether a write is waiting for room, so that it is logged once and not per write.
    waiting: Arc<AtomicBool>,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is stored.
    Stored {
        /// Whether it was stored before.
        duplicate: bool,
    },
    /// The work stops, and there was no room until now.
    GivenUp,
}

impl Outlet {
    /// Wraps a publisher. Waiting for room ends with `stop`.
    pub(crate) fn new(publisher: Publisher, guard: Guard, stop: CancellationToken) -> Self {
        Self { publisher, guard, stop, waiting: Arc::default() }
    }

    /// Sends an event on its way once the guard lets it. In the order of calls, as far as the
    /// servers are there.
    pub(crate) async fn send(&self, event: &Event) -> Result<Pending, PublishError> {
        self.guard.held().await;
        self.publisher.event(event).await
    }

    /// Does something; `None` if the work stops meanwhile.
    pub(crate) async fn unless_stopped<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(doing).await
    }

    /// Waits until an event that was sent is stored, sending it again while there is no room.
    pub(crate) async fn stored(
        &self,
        event: &Event,
        pending: Pending,
    ) -> Result<Written, PublishError> {
        let mut sent = pending.stored().await;
        let mut wait = WAIT_FIRST;
        let duplicate = loop {
            match sent {
                Ok(Stored { duplicate, .. }) => break duplicate,
                Err(PublishError::Full { stream }) => self.note_full(&stream),
                Err(other) => return Err(other),
            }
            let waiting = async {
                sleep(wait).await;
                self.guard.held().await;
            };
            if self.unless_stopped(waiting).await.is_none() {
                return Ok(Written::GivenUp);
            }
            wait = (wait * 2).min(WAIT_MAX);
            sent = self.once(event).await;
        };
        self.note_room();
        Ok(Written::Stored { duplicate })
    }

    /// Writes an event, without waiting for room.
    pub(crate) async fn once(&self, event: &Event) -> Result<Stored, PublishError> {
        self.send(event).await?.stored().await
    }

    /// Keeps a refused message for people to look at. That it fails never stops ingest.
    pub(crate) async fn reject(self, message: InboxMessage, rejection: Rejection) {
        let Rejection { reason, detail } = rejection;
        let written = async {
            self.publisher.rejected(&message, reason.as_str(), &detail).await?.stored().await
        };
        if let Err(error) = written.await {
            warn!(
                error = chain(&error),
                reason = reason.as_str(),
                tenant_id = message.tenant,
                "a refused message could not be kept"
            );
        }
    }

    fn note_full(&self, stream: &str) {
        if !self.waiting.swap(true, Ordering::Relaxed) {
            warn!(stream, "the stream is full, messages wait until there is room");
        }
    }

    fn note_room(&self) {
        if self.waiting.swap(false, Ordering::Relaxed) {
            info!("there is room in the stream");
        }
    }
}
