//! Reading facts in the order of the journal.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::error;

use crate::{
    EventLog, ReadError,
    journal::{From, JournalBatch, JournalFilter},
    log::Which,
    read::{Numbered, Ordered, Selection, Start, Unreadable, chain},
    topology::Stream,
};

/// After how long without a batch to ask again whether there is one to wait for: what was there
/// may have aged out meanwhile.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Reads the journal in order: never a gap, never a repeat, over reconnects.
pub struct JournalReader {
    log: EventLog,
    messages: Ordered,
    filter: JournalFilter,
    /// Taken, and not returned: it lies behind the end that was asked for.
    ahead: Option<Numbered>,
    /// The sequence up to which everything was taken.
    reached: u64,
    goal: Option<Goal>,
}

/// The last batch under the filter at or before an end, as far as it is known.
#[derive(Clone, Copy, Debug)]
struct Goal {
    /// The end that was asked for.
    last: u64,
    /// The last sequence under the filter when the server was asked.
    found: u64,
    asked_at: Instant,
}

impl EventLog {
    /// Reads facts in the order of the journal, from a place on, following what comes.
    pub async fn journal(
        &self,
        filter: JournalFilter,
        from: From,
    ) -> Result<JournalReader, ReadError> {
        let start = match from {
            From::Sequence(sequence) => Start::Sequence(sequence),
            From::Time(time) => Start::Time(time),
            // A number, so that what is written while there is no connection is not passed over.
            From::New => Start::Sequence(self.journal_last().await? + 1),
        };
        let subjects = self.journal_subjects(&filter);
        let selection = Selection { stream: Stream::Journal, subjects, headers_only: false };
        let reached = match start {
            Start::Sequence(sequence) => sequence.saturating_sub(1),
            Start::Time(_) => 0,
        };
        let mut messages = Ordered::new(self, selection, start);
        // So that a refusal is told here, and what is written from now on is followed.
        messages.pending().await?;
        Ok(JournalReader { log: self.clone(), messages, filter, ahead: None, reached, goal: None })
    }
}

impl JournalReader {
    /// Waits for the next batch. Cancel safe. A batch that cannot be decoded is set aside and
    /// passed over with an error log; one that a newer version wrote ends the reading
    /// ([`ReadError::Unreadable`]), because passing over it would drop facts.
    pub async fn next(&mut self) -> Result<JournalBatch, ReadError> {
        loop {
            if self.ahead.is_none() {
                let numbered = self.messages.next().await?;
                self.ahead = Some(numbered);
            }
            if let Some(batch) = self.take_ahead().await? {
                return Ok(batch);
            }
        }
    }

    /// Returns the next batch at or before `last`, or `None` once all of them (under the filter)
    /// are read. Cancel safe. `last` is taken from [`EventLog::journal_last`], or is the sequence of
    /// one's own claim, which is the surer end in the moment that a leader of the stream changes.
    pub async fn next_until(&mut self, last: u64) -> Result<Option<JournalBatch>, ReadError> {
        loop {
            if let Some(ahead) = &self.ahead {
                if ahead.sequence > last {
                    return Ok(None);
                }
                if let Some(batch) = self.take_ahead().await? {
                    return Ok(Some(batch));
                }
            }
            if self.reached >= last || self.reached >= self.goal(last).await? {
                return Ok(None);
            }
            if let Ok(next) = timeout(ASK_AGAIN, self.messages.next()).await {
                self.ahead = Some(next?);
            }
        }
    }

    /// Decodes what was taken. It stays taken until it is returned or set aside, so that nothing
    /// is lost if the caller stops waiting in between.
    async fn take_ahead(&mut self) -> Result<Option<JournalBatch>, ReadError> {
        let Some(ahead) = &self.ahead else { return Ok(None) };
        let (sequence, stored_at) = (ahead.sequence, ahead.stored_at);
        let column = self.log.topology().column(&ahead.message.subject);
        let batch = match fanfare_proto::decode_journal(ahead.message.payload.clone()) {
            Ok(facts) => Some(JournalBatch { sequence, stored_at, column, facts }),
            Err(source) if source.is_from_newer_version() => {
                let stream = self.log.topology().stream(Stream::Journal);
                return Err(ReadError::Unreadable { stream, sequence, source });
            }
            Err(cause) => {
                let cause = chain(&cause);
                error!(sequence, cause, "facts cannot be read and are passed over");
                let record = Unreadable::new(Stream::Journal, sequence, &ahead.message, cause);
                self.log.set_aside(&record).await.map_err(|source| ReadError::NotSetAside {
                    stream: self.log.topology().stream(Stream::Journal),
                    source,
                })?;
                None
            }
        };
        self.ahead = None;
        self.reached = sequence;
        self.log.saw_journal(sequence);
        Ok(batch)
    }

    /// The last sequence worth waiting for on the way to `last`.
    async fn goal(&mut self, last: u64) -> Result<u64, ReadError> {
        if let Some(goal) = self.goal
            && goal.last == last
            && goal.asked_at.elapsed() < ASK_AGAIN
        {
            return Ok(goal.found);
        }
        let asked_at = Instant::now();
        let end = self.log.get(Stream::Journal, Which::Sequence(last)).await?;
        let found = match end {
            // The usual end, an owner's claim: no server that is not up to date can hide it.
            Some(end) if self.log.journal_takes(&self.filter, &end.subject) => last,
            Some(_) | None => self.last_under_filter().await?,
        };
        self.goal = Some(Goal { last, found, asked_at });
        Ok(found)
    }

    async fn last_under_filter(&self) -> Result<u64, ReadError> {
        let mut last = 0;
        for subject in self.log.journal_subjects(&self.filter) {
            let message = self.log.get(Stream::Journal, Which::Last(&subject)).await?;
            last = last.max(message.map_or(0, |message| message.sequence));
        }
        Ok(last)
    }
}
