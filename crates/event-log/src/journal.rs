//! The journal: facts in batches, one writer per shard and column.

mod reader;
mod writer;

use fanfare_domain::{Record, Shard, Timestamp};

pub use self::{
    reader::JournalReader,
    writer::{AppendError, JournalWriter},
};
use crate::{
    EventLog, ReadError,
    log::{Which, timestamp},
    topology::Stream,
};

/// Which of a shard's two subjects: each has one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// `journal.<shard>.attempts`: the shard's dispatcher.
    Attempts,
    /// `journal.<shard>.plans`: the shard's retry-scheduler.
    Plans,
}

impl Column {
    /// Returns the name, as it stands in the subject.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Plans => "plans",
        }
    }

    /// Reads the name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Attempts, Self::Plans].into_iter().find(|column| column.as_str() == text)
    }
}

/// Which facts to read.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At this sequence, or the first one kept after it.
    Sequence(u64),
    /// At the first batch stored at that time or later.
    Time(Timestamp),
    /// With the next batch that is written.
    New,
}

/// One message of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl EventLog {
    /// The last sequence of JOURNAL at this moment, for [`JournalReader::next_until`].
    pub async fn journal_last(&self) -> Result<u64, ReadError> {
        self.last_sequence(Stream::Journal).await
    }

    /// One batch by its sequence; `None` if it has aged out.
    pub async fn journal_batch(&self, sequence: u64) -> Result<Option<JournalBatch>, ReadError> {
        let which = Which::Sequence(sequence);
        let Some(message) = self.get(Stream::Journal, which).await? else { return Ok(None) };
        let column = self.topology().column(&message.subject);
        let stored_at = timestamp(message.time);
        match fanfare_proto::decode_journal(message.payload) {
            Ok(facts) => Ok(Some(JournalBatch { sequence, stored_at, column, facts })),
            Err(source) => {
                let stream = self.topology().stream(Stream::Journal);
                Err(ReadError::Unreadable { stream, sequence, source })
            }
        }
    }

    /// The subjects that a filter stands for.
    fn journal_subjects(&self, filter: &JournalFilter) -> Vec<String> {
        let topology = self.topology();
        let prefix = topology.prefix();
        match filter {
            JournalFilter::All => vec![format!("{prefix}.journal.>")],
            JournalFilter::Shard(shard) => vec![format!("{prefix}.journal.{shard}.*")],
            JournalFilter::Column(shard, column) => vec![topology.journal(*shard, *column)],
            JournalFilter::Deliveries => vec![format!("{prefix}.journal.*.*")],
            JournalFilter::Routed => vec![topology.routed()],
        }
    }
}
