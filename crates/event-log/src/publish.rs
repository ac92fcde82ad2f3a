//! The one way of writing: pipelined, bounded, repeated until the outcome is known.

use fanfare_domain::{DeliveryRef, Event, Fact, Record, Shard, Task, TenantId};

use crate::{EventLog, read::InboxMessage};

/// Writes to the streams. Cheap to clone; clones share the window.
#[derive(Clone)]
pub struct Publisher {/* log, Arc<Semaphore> window */}

/// A write that is on its way. Dropping it does not undo it.
#[must_use = "a write is not known to be stored before `stored` says so"]
pub struct Pending {/* permit, ack future, message for repeating */}

/// A message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence; for a duplicate, that of the first one if the server tells, else 0.
    pub sequence: u64,
    /// Whether it was there already.
    pub duplicate: bool,
}

/// A write was refused for good. Unknown outcomes are no errors: they are repeated.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The stream is full and refuses what is new (`discard: new`), or storage is short. Nothing is stored.
    #[error("stream {stream} is full")]
    Full {
        /// Which stream.
        stream: String,
    },
    /// The message is larger than the servers take.
    #[error("a message of {bytes} bytes is larger than the servers take ({max})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
    // helper: add what else the server can say for good (e.g. Refused{code, source})
}

impl EventLog {
    /// Makes a publisher with a window of its own.
    pub fn publisher(&self) -> Publisher {
        todo!()
    }
}

impl Publisher {
    /// Writes an event to EVENTS under its id. Waits while the window is full.
    /// `suspect`: an earlier process may have written it, longer ago than the duplicate window; the caller has looked ([`crate::scan`]).
    pub async fn event(&self, event: &Event) -> Result<Pending, PublishError> {
        let _ = event;
        todo!()
    }

    /// Puts a message into INBOX as a producer would: for the api, the client and tests.
    pub async fn inbox(&self, message: &InboxMessage) -> Result<Pending, PublishError> {
        let _ = message;
        todo!()
    }

    /// Writes a task to DELIVERIES; its id is made of its targets.
    pub async fn task(&self, shard: Shard, task: &Task) -> Result<Pending, PublishError> {
        let _ = (shard, task);
        todo!()
    }

    /// Writes routed facts (`EventRouted` only) to `journal.routed` as one message.
    pub async fn routed(&self, facts: &[Record]) -> Result<Pending, PublishError> {
        let _ = facts;
        todo!()
    }

    /// Writes what ingest refused, whole, with the reason's stable name and words, to REJECTED.
    pub async fn rejected(&self, message: &InboxMessage, reason: &str, detail: &str) -> Result<Pending, PublishError> {
        let _ = (message, reason, detail);
        todo!()
    }

    /// Writes an exhausted delivery to DEAD: the last facts about it.
    pub async fn dead(&self, delivery: &DeliveryRef, facts: &[Record]) -> Result<Pending, PublishError> {
        let _ = (delivery, facts);
        todo!()
    }
}

impl Pending {
    /// Waits until the message is stored, repeating it under the same id while that is unknown.
    pub async fn stored(self) -> Result<Stored, PublishError> {
        todo!()
    }
}
