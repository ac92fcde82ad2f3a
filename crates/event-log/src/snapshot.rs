//! Snapshots of folds, per shard, in an object-store bucket.
//!
//! An object's chunks are written under a name of their own before its entry replaces the one
//! before, so a reader sees the old snapshot or the new one, whole. A process that dies in
//! between leaves chunks that no entry refers to: whoever reads a snapshot later removes them.

mod abandoned;
mod fetch;

use std::{io::Cursor, time::Duration};

use async_nats::jetstream::object_store::{ObjectMetadata, ObjectStore, PutErrorKind};
use bytes::{Buf as _, Bytes};
use fanfare_domain::Shard;
use futures_util::future::BoxFuture;
use tokio::{
    io::AsyncReadExt,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use self::fetch::Fetched;
use crate::{EventLog, ReadError, cas, topology::Bucket};

/// How often writing or reading is tried, and how long is waited in between: long enough for a
/// server to be restarted.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(500);
/// How long writing one snapshot may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often a snapshot must be found damaged to count as damaged: reading may coincide with
/// its replacement.
const DAMAGE_SEEN: u32 = 2;
/// How large the pieces are that a snapshot is written in, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// A fold's state as of a place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last journal sequence that it covers.
    pub sequence: u64,
    /// The state, in the form of whoever wrote it.
    pub state: Bytes,
}

/// A snapshot did not come or go in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a snapshot could not be moved in time")]
pub struct SnapshotTimedOut;

impl EventLog {
    /// Keeps a snapshot, replacing the one before; the one before stays until the new one is
    /// complete. `name` says whose it is, without dots.
    ///
    /// Gives up after some tries: the state is still in the journal.
    pub fn put_snapshot<'a>(
        &'a self,
        name: &'a str,
        shard: Shard,
        snapshot: &'a Snapshot,
    ) -> BoxFuture<'a, Result<(), ReadError>> {
        Box::pin(async move {
            let bucket = self.topology().bucket(Bucket::Snapshots);
            let mut tries = 0;
            loop {
                tries += 1;
                let put = async {
                    let store = self.inner.jetstream.get_object_store(&bucket).await?;
                    put(&store, &object(name, shard), snapshot).await
                };
                let error = match timeout(PATIENCE, put).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => error,
                    Err(_) => SnapshotTimedOut.into(),
                };
                if tries == TRIES {
                    return Err(cas::refused(&bucket, error));
                }
                debug!(error, name, %shard, "a snapshot was not stored yet");
                sleep(PAUSE).await;
            }
        })
    }

    /// Returns the last snapshot; `None` if there is none or it is damaged (its hash does not
    /// fit).
    pub fn snapshot<'a>(
        &'a self,
        name: &'a str,
        shard: Shard,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, ReadError>> {
        Box::pin(async move {
            let bucket = self.topology().bucket(Bucket::Snapshots);
            let object = object(name, shard);
            let (mut tries, mut damage_seen) = (0, 0);
            loop {
                let error = match self.fetch(&bucket, &object).await {
                    Ok(Fetched::Nothing) => break Ok(None),
                    Ok(Fetched::Whole(bytes)) => break Ok(read(bytes)),
                    Ok(Fetched::Damaged) if damage_seen + 1 == DAMAGE_SEEN => {
                        warn!(name, %shard, "a snapshot is damaged and is not used");
                        break Ok(None);
                    }
                    Ok(Fetched::Damaged) => {
                        damage_seen += 1;
                        SnapshotTimedOut.into()
                    }
                    Err(error) => error,
                };
                tries += 1;
                if tries == TRIES {
                    break Err(cas::refused(&bucket, error));
                }
                debug!(error, name, %shard, "a snapshot was not read yet");
                sleep(PAUSE).await;
            }
        })
    }
}

fn object(name: &str, shard: Shard) -> String {
    format!("{name}.{shard}")
}

async fn put(
    store: &ObjectStore,
    object: &str,
    snapshot: &Snapshot,
) -> Result<(), async_nats::Error> {
    let head = snapshot.sequence.to_be_bytes();
    let mut data = AsyncReadExt::chain(head.as_slice(), Cursor::new(&snapshot.state));
    let metadata = ObjectMetadata {
        name: object.to_owned(),
        chunk_size: Some(CHUNK_BYTES),
        ..ObjectMetadata::default()
    };
    match store.put(metadata, &mut data).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == PutErrorKind::PurgeOldChunks => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn read(mut bytes: Bytes) -> Option<Snapshot> {
    let sequence = bytes.try_get_u64().ok()?;
    Some(Snapshot { sequence, state: bytes })
}
