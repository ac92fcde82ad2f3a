//! A door to the reading of snapshots for `tests/fuzzing`, and for nobody else.

use bytes::Bytes;
use fanfare_domain::Shard;

use crate::agenda::Agenda;

/// Reads a snapshot, and returns it as it would be written; `None` if it cannot be used.
pub fn read_snapshot(shard: Shard, bytes: &[u8]) -> Option<Bytes> {
    Agenda::decode(shard, bytes).ok().map(|agenda| agenda.encode())
}
