//! Snapshots of folds, per shard, in an object-store bucket.

use bytes::Bytes;
use fanfare_domain::Shard;

use crate::{EventLog, ReadError};

/// A fold's state as of a place in the journal.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The last journal sequence that it covers.
    pub sequence: u64,
    /// The state, in the form of whoever wrote it.
    pub state: Bytes,
}

impl EventLog {
    /// Keeps a snapshot, replacing the one before; the one before stays until the new one is complete.
    pub async fn put_snapshot(&self, name: &str, shard: Shard, snapshot: &Snapshot) -> Result<(), ReadError> {
        let _ = (name, shard, snapshot);
        todo!()
    }

    /// Returns the last snapshot; `None` if there is none or it is damaged (its hash does not fit).
    pub async fn snapshot(&self, name: &str, shard: Shard) -> Result<Option<Snapshot>, ReadError> {
        let _ = (name, shard);
        todo!()
    }
}
