//! Reading facts in the order of the journal.

use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{Record, chain};
use fanfare_proto::DecodeError;
use tokio::time::{Instant, timeout};
use tokio_util::sync::ReusableBoxFuture;
use tracing::error;

use crate::{
    EventLog, PublishError, ReadError,
    journal::{From, JournalBatch, JournalFilter},
    log::Which,
    read::{Numbered, Ordered, Selection, Start, Unreadable},
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
    decode: fn(Bytes) -> Result<Vec<Record>, DecodeError>,
    /// Taken, and not returned: it lies behind the end that was asked for.
    ahead: Option<Numbered>,
    /// The sequence up to which everything was taken.
    reached: u64,
    goal: Option<Goal>,
    // What was begun with the servers is kept over calls that are dropped.
    /// The question for a goal.
    asking: Option<ReusableBoxFuture<'static, Result<Goal, ReadError>>>,
    /// The setting aside of what lies ahead.
    setting_aside: Option<ReusableBoxFuture<'static, Result<(), PublishError>>>,
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
        Ok(JournalReader {
            log: self.clone(),
            messages,
            filter,
            decode: fanfare_proto::decode_journal,
            ahead: None,
            reached,
            goal: None,
            asking: None,
            setting_aside: None,
        })
    }
}

impl JournalReader {
    /// Leaves out what was sent and answered in attempts that were accepted: their URL, signature,
    /// and the answer's head and body come as if there were none. Such facts, which are most, cost less
    /// to read then. For folds that neither show nor pass on what they read.
    #[must_use]
    pub fn brief(mut self) -> Self {
        self.decode = fanfare_proto::decode_journal_briefly;
        self
    }

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
        let batch = match (self.decode)(ahead.message.payload.clone()) {
            Ok(facts) => Some(JournalBatch { sequence, stored_at, column, facts }),
            Err(source) if source.is_from_newer_version() => {
                let stream = self.log.topology().stream(Stream::Journal);
                return Err(ReadError::Unreadable { stream, sequence, source });
            }
            Err(cause) => {
                let cause = chain(&cause);
                let log = self.log.clone();
                let setting_aside = self.setting_aside.get_or_insert_with(|| {
                    error!(sequence, cause, "facts cannot be read and are passed over");
                    let record = Unreadable::new(Stream::Journal, sequence, &ahead.message, cause);
                    ReusableBoxFuture::new(log.set_aside(record))
                });
                let set_aside = setting_aside.await;
                self.setting_aside = None;
                set_aside.map_err(|source| ReadError::NotSetAside {
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
        loop {
            let asking = self.asking.get_or_insert_with(|| {
                ReusableBoxFuture::new(ask(self.log.clone(), self.filter.clone(), last))
            });
            let goal = asking.await;
            self.asking = None;
            let goal = goal?;
            self.goal = Some(goal);
            // It may have been begun for another end.
            if goal.last == last {
                return Ok(goal.found);
            }
        }
    }
}

async fn ask(log: EventLog, filter: JournalFilter, last: u64) -> Result<Goal, ReadError> {
    let asked_at = Instant::now();
    let end = log.get(Stream::Journal, Which::Sequence(last)).await?;
    let found = match end {
        // The usual end, an owner's claim: no server that is not up to date can hide it.
        Some(end) if log.journal_takes(&filter, &end.subject) => last,
        Some(_) | None => last_under(&log, &filter).await?,
    };
    Ok(Goal { last, found, asked_at })
}

async fn last_under(log: &EventLog, filter: &JournalFilter) -> Result<u64, ReadError> {
    let mut last = 0;
    for subject in log.journal_subjects(filter) {
        let message = log.get(Stream::Journal, Which::Last(&subject)).await?;
        last = last.max(message.map_or(0, |message| message.sequence));
    }
    Ok(last)
}
