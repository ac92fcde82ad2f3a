//! Writing with patience: a full stream holds events back, and never drops one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{Record, Shard, Task};
use fanfare_event_log::{PublishError, Publisher, Stored};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The first wait for room in a stream; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(50);
/// The longest wait for room in a stream.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Writes facts and tasks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outlet {
    publisher: Publisher,
    stop: CancellationToken,
    /// Whether a write is waiting for room, so that it is logged once and not per write.
    waiting: Arc<AtomicBool>,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is stored, maybe for longer already.
    Stored(Stored),
    /// The service stops, and there was no room until now.
    GivenUp,
}

impl Outlet {
    /// Wraps a publisher. Waiting for room ends with `stop`.
    pub(crate) fn new(publisher: Publisher, stop: CancellationToken) -> Self {
        Self { publisher, stop, waiting: Arc::default() }
    }

    /// Writes routed facts as one message.
    pub(crate) async fn routed(&self, facts: &[Record]) -> Result<Written, PublishError> {
        let mut wait = WAIT_FIRST;
        loop {
            let written = self.write_routed(facts).await;
            if let Some(end) = self.end(written, &mut wait).await? {
                return Ok(end);
            }
        }
    }

    /// Writes a task.
    pub(crate) async fn task(&self, shard: Shard, task: &Task) -> Result<Written, PublishError> {
        let mut wait = WAIT_FIRST;
        loop {
            let written = self.write_task(shard, task).await;
            if let Some(end) = self.end(written, &mut wait).await? {
                return Ok(end);
            }
        }
    }

    async fn write_routed(&self, facts: &[Record]) -> Result<Stored, PublishError> {
        self.publisher.routed(facts).await?.stored().await
    }

    async fn write_task(&self, shard: Shard, task: &Task) -> Result<Stored, PublishError> {
        self.publisher.task(shard, task).await?.stored().await
    }

    /// Returns what came of a write in the end, or `None` after a wait: then it is to be repeated.
    async fn end(
        &self,
        written: Result<Stored, PublishError>,
        wait: &mut Duration,
    ) -> Result<Option<Written>, PublishError> {
        match written {
            Ok(stored) => {
                self.note_room();
                return Ok(Some(Written::Stored(stored)));
            }
            Err(PublishError::Full { stream }) => self.note_full(&stream),
            Err(other) => return Err(other),
        }
        let pause = tokio::time::sleep(*wait);
        *wait = (*wait * 2).min(WAIT_MAX);
        let waited = self.stop.run_until_cancelled(pause).await;
        Ok(waited.is_none().then_some(Written::GivenUp))
    }

    fn note_full(&self, stream: &str) {
        if !self.waiting.swap(true, Ordering::Relaxed) {
            warn!(stream, "the stream is full, events wait until there is room");
        }
    }

    fn note_room(&self) {
        if self.waiting.swap(false, Ordering::Relaxed) {
            info!("there is room in the stream");
        }
    }
}
