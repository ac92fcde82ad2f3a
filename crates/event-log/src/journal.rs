//! The journal: facts in batches, one writer per shard and column.

mod reader;
mod writer;

use std::{sync::atomic::Ordering, time::Duration};

use fanfare_domain::{Record, Shard, Timestamp};
use tokio::time::{Instant, sleep};
use tracing::warn;

pub use self::{
    reader::JournalReader,
    writer::{AppendError, JournalWriter},
};
use crate::{
    EventLog, ReadError,
    log::{Which, timestamp},
    topology::Stream,
};

/// How long a journal that is shorter than it was is put down to a server that is not up to date.
const OUTDATED: Duration = Duration::from_secs(15);
/// How long to wait before asking such a server again.
const PAUSE: Duration = Duration::from_millis(100);

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
    ///
    /// A server that led the stream, was stopped for a while and does not know that it leads no
    /// more would tell an old one; what this process has written or read is never left out.
    pub async fn journal_last(&self) -> Result<u64, ReadError> {
        let begun = Instant::now();
        loop {
            let seen = self.inner.journal_seen.load(Ordering::Acquire);
            let last = self.last_sequence(Stream::Journal).await?;
            if last >= seen {
                return Ok(last);
            }
            if begun.elapsed() > OUTDATED {
                warn!(last, seen, "the journal is shorter than it was");
                self.inner.journal_seen.fetch_min(last, Ordering::AcqRel);
                return Ok(last);
            }
            sleep(PAUSE).await;
        }
    }

    /// Notes that JOURNAL is at least this long.
    pub(crate) fn saw_journal(&self, sequence: u64) {
        self.inner.journal_seen.fetch_max(sequence, Ordering::AcqRel);
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

    /// Whether a filter takes a message of this subject.
    fn journal_takes(&self, filter: &JournalFilter, subject: &str) -> bool {
        let column = self.topology().column(subject);
        match filter {
            JournalFilter::All => true,
            JournalFilter::Shard(shard) => column.is_some_and(|(of, _)| of == *shard),
            JournalFilter::Column(shard, wanted) => column == Some((*shard, *wanted)),
            JournalFilter::Deliveries => column.is_some(),
            JournalFilter::Routed => subject == self.topology().routed(),
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
