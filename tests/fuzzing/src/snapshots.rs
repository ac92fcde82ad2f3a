//! Snapshots of the retry-scheduler: what can be read is written, and read as the same.
//!
//! An input is a snapshot without its checksum, which is put behind it; and as it is.

use fanfare_domain::Shard;
use fanfare_retry_scheduler::fuzzing::read_snapshot;

/// The shard whose snapshots are read.
const SHARD: Shard = Shard::from_index(3);

/// Reads an input as a snapshot.
pub fn run(input: &[u8]) {
    same(input);
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = input.iter().fold(0xcbf2_9ce4_8422_2325, step);
    same(&[input, &sum.to_be_bytes()].concat());
}

fn same(bytes: &[u8]) {
    if let Some(written) = read_snapshot(SHARD, bytes) {
        let again = read_snapshot(SHARD, &written).expect("what is written can be read");
        assert_eq!(again, written, "it is written otherwise");
    }
}
