//! Durable reading with explicit settling.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use fanfare_domain::{RetryDue, Shard, StoredEvent, Task, Timestamp};

use crate::EventLog;

/// Reading failed in a way that waiting does not cure.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The server refused.
    #[error("the server refused to read {stream}")]
    Refused {
        /// Which stream.
        stream: String,
        /// What the client said.
        #[source]
        source: async_nats::Error,
    },
    // helper: more as needed
}

/// Where a record stands, and how it came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub stored_at: Timestamp,
    /// How often it was handed out, this time included.
    pub delivered: u64,
    /// Whether its consequences may be on record already, longer ago than the duplicate window:
    /// handed out before, or stored before this process connected (or connected again).
    pub suspect: bool,
}

/// A record whose consequences are not recorded yet.
pub struct Unsettled<T> {
    /// The record.
    pub record: T,
    /// Where it stands.
    pub position: Position,
    /// What settles it.
    pub settler: Settler,
}

/// Settles one record. Forgetting it is harmless: the log hands the record out again.
pub struct Settler {/* acker */}

impl Settler {
    /// Tells the log that the record's consequences are recorded. Queued, not waited for.
    pub async fn settle(self) {
        todo!()
    }

    /// Asks for the record to be handed out again at once, or after a while.
    pub async fn redeliver(self, after: std::time::Duration) {
        let _ = after;
        todo!()
    }
}

impl<T> Unsettled<T> {
    /// Settles the record.
    pub async fn settle(self) {
        self.settler.settle().await;
    }
}

/// A durable place in a stream. Records that cannot be decoded are set aside (copied to
/// `<prefix>.aside.<stream>` of REJECTED, then settled, with a warning) and never seen here.
pub struct Reader<T> {/* stream of messages, decode fn, publisher for set-aside */ _record: std::marker::PhantomData<T>}

impl<T> Reader<T> {
    /// Waits for a record, and returns it with what else is there, up to `max`.
    ///
    /// Loss of the connection is waited out. Cancel safe: a record that was taken and not
    /// returned is handed out again... helper: make it truly cancel safe by keeping it in self.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Unsettled<T>>, ReadError> {
        let _ = max;
        todo!()
    }
}

/// Headers of a message from outside: names are compared without case.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Wraps pairs.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// Returns the first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns every pair, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// What a producer sent, as it came: nothing of it has been checked.
#[derive(Clone, Debug)]
pub struct InboxMessage {
    /// The first token after `inbox.` (or `publish.`): should be a tenant's id.
    pub tenant: String,
    /// The rest of the subject: should be an event type.
    pub event_type: String,
    /// The headers.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
}

impl EventLog {
    /// Reads INBOX; several processes share the work.
    pub async fn read_inbox(&self) -> Result<Reader<InboxMessage>, ReadError> {
        todo!()
    }

    /// Reads EVENTS for fan-out; several processes share the work.
    pub async fn read_events(&self) -> Result<Reader<StoredEvent>, ReadError> {
        todo!()
    }

    /// Reads the tasks of a shard. One consumer per shard, pinned to one client at a time.
    pub async fn read_tasks(&self, shard: Shard) -> Result<Reader<Task>, ReadError> {
        let _ = shard;
        todo!()
    }

    /// Reads the retries of a shard that are due.
    pub async fn read_due(&self, shard: Shard) -> Result<Reader<RetryDue>, ReadError> {
        let _ = shard;
        todo!()
    }

    /// The smallest journal sequence that an unsettled task or due retry of the shard refers to;
    /// `None` if the queues are empty.
    pub async fn oldest_unsettled(&self, shard: Shard) -> Result<Option<u64>, ReadError> {
        let _ = shard;
        todo!()
    }
}
