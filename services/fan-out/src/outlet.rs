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
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long to wait before a write is repeated that found no room.
const WAIT: Duration = Duration::from_millis(50);

/// Writes facts and tasks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outlet {
    publisher: Publisher,
    stop: CancellationToken,
    /// Whether a write is waiting for room, so that it is logged once and not per write.
    waiting: Arc<AtomicBool>,
    /// Of the writes that found no room, one at a time is repeated: they are many, and the server
    /// has enough to do.
    turn: Arc<Mutex<()>>,
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
        Self { publisher, stop, waiting: Arc::default(), turn: Arc::default() }
    }

    /// Writes routed facts as one message.
    pub(crate) async fn routed(&self, facts: &[Record]) -> Result<Written, PublishError> {
        let mut turn = None;
        loop {
            let written = self.write_routed(facts).await;
            if let Some(end) = self.end(written, &mut turn).await? {
                return Ok(end);
            }
        }
    }

    /// Writes tasks as one message.
    pub(crate) async fn tasks(
        &self,
        shard: Shard,
        tasks: &[Task],
    ) -> Result<Written, PublishError> {
        let mut turn = None;
        loop {
            let written = self.write_tasks(shard, tasks).await;
            if let Some(end) = self.end(written, &mut turn).await? {
                return Ok(end);
            }
        }
    }

    async fn write_routed(&self, facts: &[Record]) -> Result<Stored, PublishError> {
        self.publisher.routed(facts).await?.stored().await
    }

    async fn write_tasks(&self, shard: Shard, tasks: &[Task]) -> Result<Stored, PublishError> {
        self.publisher.tasks(shard, tasks).await?.stored().await
    }

    /// Returns what came of a write in the end; `None` if it is to be repeated, which is said once
    /// it is its turn, or after a wait if it has had that.
    async fn end<'a>(
        &'a self,
        written: Result<Stored, PublishError>,
        turn: &mut Option<MutexGuard<'a, ()>>,
    ) -> Result<Option<Written>, PublishError> {
        match written {
            Ok(stored) => {
                self.note_room();
                return Ok(Some(Written::Stored(stored)));
            }
            Err(PublishError::Full { stream }) => self.note_full(&stream),
            Err(other) => return Err(other),
        }
        let wait = async {
            match turn {
                Some(_) => tokio::time::sleep(WAIT).await,
                None => *turn = Some(self.turn.lock().await),
            }
        };
        let waited = self.stop.run_until_cancelled(wait).await;
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
