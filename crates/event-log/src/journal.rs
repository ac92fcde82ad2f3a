//! The journal: facts in batches, one writer per shard and column.

use fanfare_domain::{Record, Shard, Timestamp};

use crate::{EventLog, ReadError};

/// Which of a shard's two subjects: each has one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// `journal.<shard>.attempts`: the shard's dispatcher.
    Attempts,
    /// `journal.<shard>.plans`: the shard's retry-scheduler.
    Plans,
}

/// The right to write one column of a shard: a claim that is on record.
pub struct JournalWriter {/* log, shard, column, epoch, owner, last sequence */}

/// A batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another process has claimed the shard since. Stop working on it.
    #[error("shard {shard} was claimed by {owner} (epoch {epoch})")]
    Superseded {
        /// The shard.
        shard: Shard,
        /// Who claimed it.
        owner: String,
        /// The claim's epoch.
        epoch: u64,
    },
    /// The write was refused for good.
    #[error(transparent)]
    Refused(#[from] crate::PublishError),
    /// The log could not be read to find out.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
}

impl EventLog {
    /// Claims a column of a shard: writes *shard claimed* with the next epoch, expecting the last
    /// sequence of the subject. Repeats while others claim at the same time.
    pub async fn claim(&self, shard: Shard, column: Column, owner: &str, now: Timestamp) -> Result<JournalWriter, AppendError> {
        let _ = (shard, column, owner, now);
        todo!()
    }

    /// Reads facts in the order of the journal, from a place on, following what comes.
    pub async fn journal(&self, filter: JournalFilter, from: From) -> Result<JournalReader, ReadError> {
        let _ = (filter, from);
        todo!()
    }
}

impl JournalWriter {
    /// The largest batch, in facts.
    pub const FACTS_MAX: usize = 256;
    /// The largest batch, in bytes of facts.
    pub const BYTES_MAX: usize = 768 * 1024;

    /// The sequence of our claim.
    pub fn claimed_at(&self) -> u64 {
        todo!()
    }

    /// Our claim's epoch.
    pub fn epoch(&self) -> u64 {
        todo!()
    }

    /// Writes a batch, expecting to be still the last writer; returns its sequence once it is stored.
    /// Repeats until known: on a conflict the last record is read, and if it is this very batch, it counts.
    /// Splits nothing: the caller keeps to the limits.
    pub async fn append(&mut self, facts: &[Record]) -> Result<u64, AppendError> {
        let _ = facts;
        todo!()
    }
}

/// Which facts to read.
#[derive(Clone, Debug)]
pub enum JournalFilter {
    /// Every subject of the journal.
    All,
    /// Both columns of one shard.
    Shard(Shard),
    /// One column of one shard.
    Column(Shard, Column),
    /// Both columns of all shards, without routed facts.
    Deliveries,
    /// Routed facts.
    Routed,
}

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// At this sequence, or the first one kept after it.
    Sequence(u64),
    /// At the first batch stored at that time or later.
    Time(Timestamp),
    /// With the next batch that is written.
    New,
}

/// One message of the journal.
#[derive(Clone, Debug)]
pub struct JournalBatch {
    /// Its sequence in JOURNAL.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Whose it is; `None` for routed facts.
    pub column: Option<(Shard, Column)>,
    /// What it holds.
    pub facts: Vec<Record>,
}

/// Reads the journal in order: never a gap, never a repeat, over reconnects.
pub struct JournalReader {/* ordered consumer */}

impl JournalReader {
    /// Waits for the next batch. Cancel safe. A batch that cannot be decoded is set aside and passed over with an error log.
    pub async fn next(&mut self) -> Result<JournalBatch, ReadError> {
        todo!()
    }

    /// Returns the next batch, or `None` once all that was in the journal (under the filter) at the time of the call is read.
    pub async fn next_until(&mut self, last: u64) -> Result<Option<JournalBatch>, ReadError> {
        let _ = last;
        todo!()
    }
}

impl EventLog {
    /// The last sequence of JOURNAL at this moment, for [`JournalReader::next_until`].
    pub async fn journal_last(&self) -> Result<u64, ReadError> {
        todo!()
    }

    /// One batch by its sequence; `None` if it has aged out.
    pub async fn journal_batch(&self, sequence: u64) -> Result<Option<JournalBatch>, ReadError> {
        let _ = sequence;
        todo!()
    }
}
