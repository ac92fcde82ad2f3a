//! An agenda as bytes: version, everything in order, a checksum. Numbers are big-endian.
//!
//! ```text
//! "FFRS" version shard folded announced | waiting | duties | parked | health | stops | checksum
//! ```
//!
//! What is not done yet is part of it, so that it may cover facts whose alarms are still on their
//! way. It is only a shortcut: one that cannot be read is as good as none.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use fanfare_domain::{DeliveryId, EndpointId, Shard, Timestamp};

use super::{
    Agenda,
    duties::{Duties, Kind},
    entry::{Entry, Phase},
};
use crate::health::{Health, Streak};

const MAGIC: [u8; 4] = *b"FFRS";
/// Version 1 does not say of which failures operators were told, version 2 not which alarms are to be
/// stopped.
const VERSIONS: [u8; 3] = [1, 2, 3];
const VERSION: u8 = 3;

/// Bytes that are not a snapshot we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Another version of the service wrote it.
    #[error("a snapshot of version {found}, not of 1 to {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// It is of another shard.
    #[error("a snapshot of shard {found}")]
    Shard {
        /// Its shard.
        found: Shard,
    },
    /// It is cut off, altered, or something else altogether.
    #[error("a damaged snapshot")]
    Damaged,
}

impl Agenda {
    /// Writes the state down.
    pub(crate) fn encode(&self) -> Bytes {
        let (waiting, parked) = self.size();
        let estimate = 64
            + 32 * (waiting + parked)
            + 25 * (self.duties.iter().len() + self.stops.iter().len());
        let mut out = BytesMut::with_capacity(estimate);
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u16(self.shard.index());
        out.put_u64(self.folded);
        out.put_u64(self.announced);
        put_entries(&mut out, &self.waiting);
        put_duties(&mut out, &self.duties);
        put_count(&mut out, self.parked.len());
        for (endpoint, entries) in &self.parked {
            out.put_slice(endpoint.as_bytes());
            put_entries(&mut out, entries);
        }
        put_count(&mut out, self.health.0.len());
        for (endpoint, streak) in &self.health.0 {
            out.put_slice(endpoint.as_bytes());
            put_streak(&mut out, streak);
        }
        put_duties(&mut out, &self.stops);
        out.put_u64(checksum(&out));
        out.freeze()
    }

    /// Reads a state back, with nobody carrying out its duties.
    pub(crate) fn decode(shard: Shard, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (content, sum) = bytes.split_last_chunk().ok_or(SnapshotError::Damaged)?;
        let mut input = Input(content);
        if input.take()? != MAGIC {
            return Err(SnapshotError::Damaged);
        }
        let [found] = input.take()?;
        if !VERSIONS.contains(&found) {
            return Err(SnapshotError::Version { found });
        }
        let version = found;
        if u64::from_be_bytes(*sum) != checksum(content) {
            return Err(SnapshotError::Damaged);
        }
        let found = Shard::from_index(u16::from_be_bytes(input.take()?));
        if found != shard {
            return Err(SnapshotError::Shard { found });
        }
        let mut agenda = Self::new(shard);
        agenda.folded = input.u64()?;
        agenda.announced = input.u64()?;
        agenda.waiting = input.entries()?;
        agenda.duties = input.duties()?;
        agenda.parked = input.map(|input| Ok((endpoint(input)?, input.entries()?)))?;
        agenda.health = Health(input.map(|input| Ok((endpoint(input)?, input.streak(version)?)))?);
        if version > 2 {
            agenda.stops = input.duties()?;
        }
        if !input.0.is_empty() {
            return Err(SnapshotError::Damaged);
        }
        for entry in agenda.waiting.values() {
            agenda.overdue.expect(*entry);
        }
        Ok(agenda)
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
}

fn put_entries(out: &mut BytesMut, entries: &BTreeMap<DeliveryId, Entry>) {
    put_count(out, entries.len());
    for (delivery, entry) in entries {
        out.put_slice(delivery.as_bytes());
        out.put_u64(entry.sequence);
        out.put_u32(entry.due_secs);
        out.put_u16(entry.attempt);
        out.put_u8(entry.rescues);
        out.put_u8(entry.phase.code());
    }
}

fn put_duties(out: &mut BytesMut, duties: &Duties) {
    put_count(out, duties.iter().len());
    for ((sequence, delivery), kind) in duties.iter() {
        out.put_u64(sequence);
        out.put_slice(delivery.as_bytes());
        out.put_u8(kind.code());
    }
}

fn put_streak(out: &mut BytesMut, streak: &Streak) {
    out.put_u32(streak.failures);
    out.put_u64(streak.first_at.as_nanos());
    out.put_u64(streak.last_at.as_nanos());
    out.put_u64(streak.since);
    out.put_u8(u8::from(streak.gone));
    out.put_u8(u8::from(streak.told));
}

/// FNV-1a: finds what went wrong by accident, and nobody else may write snapshots.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(SnapshotError::Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn map<K: Ord, V>(
        &mut self,
        mut pair: impl FnMut(&mut Self) -> Result<(K, V), SnapshotError>,
    ) -> Result<BTreeMap<K, V>, SnapshotError> {
        let count = self.u32()?;
        (0..count).map(|_| pair(self)).collect()
    }

    fn entries(&mut self) -> Result<BTreeMap<DeliveryId, Entry>, SnapshotError> {
        self.map(|input| Ok((DeliveryId::from_bytes(input.take()?), input.entry()?)))
    }

    fn entry(&mut self) -> Result<Entry, SnapshotError> {
        let (sequence, due_secs) = (self.u64()?, self.u32()?);
        let attempt = u16::from_be_bytes(self.take()?);
        let [rescues, phase] = self.take()?;
        let phase = *Phase::ALL.get(usize::from(phase)).ok_or(SnapshotError::Damaged)?;
        Ok(Entry { sequence, due_secs, attempt, rescues, phase })
    }

    fn duties(&mut self) -> Result<Duties, SnapshotError> {
        let mut duties = Duties::default();
        for _ in 0..self.u32()? {
            let cause = (self.u64()?, DeliveryId::from_bytes(self.take()?));
            let [kind] = self.take()?;
            let kind = *Kind::ALL.get(usize::from(kind)).ok_or(SnapshotError::Damaged)?;
            duties.open(cause, kind);
        }
        Ok(duties)
    }

    fn streak(&mut self, version: u8) -> Result<Streak, SnapshotError> {
        Ok(Streak {
            failures: self.u32()?,
            first_at: Timestamp::from_nanos(self.u64()?),
            last_at: Timestamp::from_nanos(self.u64()?),
            since: self.u64()?,
            gone: self.take()? != [0],
            told: version > 1 && self.take()? != [0],
        })
    }
}

fn endpoint(input: &mut Input<'_>) -> Result<EndpointId, SnapshotError> {
    Ok(EndpointId::from_bytes(input.take()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard::from_index(3);

    #[test]
    fn what_is_not_a_snapshot_of_ours_is_refused() {
        let good = Agenda::new(SHARD).encode();
        assert!(Agenda::decode(SHARD, &good).is_ok());
        let found = Shard::from_index(4);
        let other = Agenda::new(found).encode();
        assert_eq!(Agenda::decode(SHARD, &other).unwrap_err(), SnapshotError::Shard { found });
        let mut newer = good.to_vec();
        newer[4] = 4;
        let refused = Agenda::decode(SHARD, &newer).unwrap_err();
        assert_eq!(refused, SnapshotError::Version { found: 4 });
        for length in 0..good.len() {
            assert_eq!(Agenda::decode(SHARD, &good[..length]).unwrap_err(), SnapshotError::Damaged);
        }
        for place in (0..good.len()).filter(|place| *place != 4) {
            let mut altered = good.to_vec();
            altered[place] ^= 1;
            assert!(Agenda::decode(SHARD, &altered).is_err(), "byte {place}");
        }
    }

    /// What a version before would have written: less at the end.
    fn older(new: &[u8], version: u8, less: usize) -> Agenda {
        let mut old = new[..new.len() - 8 - less].to_vec();
        old[4] = version;
        let sum = checksum(&old).to_be_bytes();
        Agenda::decode(SHARD, &[&old[..], &sum[..]].concat()).unwrap()
    }

    #[test]
    fn snapshots_of_the_versions_before_are_read() {
        let mut agenda = Agenda::new(SHARD);
        let at = Timestamp::from_millis(7);
        let streak =
            Streak { failures: 3, first_at: at, last_at: at, since: 2, gone: true, told: true };
        agenda.health.0.insert(EndpointId::from_bytes([1; 16]), streak);
        let new = agenda.encode();
        let streaks = |agenda: &Agenda| agenda.health.0.values().copied().collect::<Vec<_>>();
        // The number of stops, and whether operators were told.
        assert_eq!(streaks(&older(&new, 1, 4 + 1)), [Streak { told: false, ..streak }]);
        assert_eq!(streaks(&older(&new, 2, 4)), [streak]);
        assert_eq!(streaks(&Agenda::decode(SHARD, &new).unwrap()), [streak]);
    }
}
