//! Gathering what the streams bring, and writing it in portions.

use std::time::Duration;

use fanfare_delivery_log::{Changes, Progress, Store, StoreError};
use fanfare_domain::{StoredEvent, Timestamp};
use fanfare_event_log::{
    ConfigFollower, EventFollower, EventLog, JournalBatch, JournalFilter, JournalReader, Marks,
    ReadError, StoredChange, journal::From,
};
use tokio::time::{Instant, timeout_at};

/// How many bytes of answers may be gathered: a portion is kept in memory until it is written.
const BYTES_MAX: usize = 16 << 20;

/// How much is written in one transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Facts and events.
    pub(crate) count: usize,
    /// How long they are gathered.
    pub(crate) wait: Duration,
}

/// Folding cannot go on like this.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The streams.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stream ends before what was folded from it.
    #[error(
        "the delivery log has {stream} up to message {folded}, and the stream ends at {last}: it was \
         restored from a backup, or lost its end. Make the log anew with \
         `fanfare delivery-log rebuild`"
    )]
    Beyond {
        /// Which stream, and when it was made.
        stream: String,
        /// How far it is folded.
        folded: u64,
        /// How far it goes.
        last: u64,
    },
}

impl FoldError {
    /// What went wrong, for those who look for its type.
    pub(crate) fn into_cause(self) -> anyhow::Error {
        match self {
            Self::Store(cause) => cause.into(),
            Self::Read(cause) => cause.into(),
            Self::Beyond { .. } => self.into(),
        }
    }
}

/// What the tables are to be folded from.
pub(crate) fn sources(log: &EventLog, marks: &Marks) -> fanfare_delivery_log::Streams {
    fanfare_delivery_log::Streams {
        events: marks.events.stream.clone(),
        journal: marks.journal.stream.clone(),
        config: marks.config.stream.clone(),
        inbox: String::from(log.inbox_identity()),
    }
}

/// Finds a stream that ends before what was folded from it.
pub(crate) fn beyond(progress: Progress, marks: &Marks) -> Option<FoldError> {
    let Marks { events, journal, config } = marks;
    let folded =
        [(events, progress.events), (journal, progress.journal), (config, progress.config)];
    let (mark, folded) = folded.into_iter().find(|(mark, folded)| *folded > mark.last)?;
    Some(FoldError::Beyond { stream: mark.stream.clone(), folded, last: mark.last })
}

/// The streams, read from where the fold stands.
pub(crate) struct Streams {
    config: ConfigFollower,
    events: EventFollower,
    journal: JournalReader,
}

/// What was gathered.
pub(crate) struct Portion {
    changes: Changes,
    before: Progress,
    after: Progress,
    count: usize,
    bytes: usize,
    /// When the oldest of it was stored.
    oldest: Option<Timestamp>,
}

impl Streams {
    /// Opens them behind the progress.
    pub(crate) async fn open(log: &EventLog, progress: Progress) -> Result<Self, ReadError> {
        let config = log.follow_config(progress.config + 1).await?;
        let events = log.follow_events(progress.events + 1).await?;
        let from = From::Sequence(progress.journal + 1);
        let journal = log.journal(JournalFilter::All, from).await?;
        Ok(Self { config, events, journal })
    }

    /// Waits until there is something, then gathers what comes until the limits are reached. Empty
    /// if there is nothing until that time. Not cancel safe: what was gathered is lost, and has to
    /// be read again.
    pub(crate) async fn gather(
        &mut self,
        progress: Progress,
        limits: Limits,
        until: Instant,
    ) -> Result<Portion, ReadError> {
        let mut portion = Portion::of(progress);
        match timeout_at(until, self.take(&mut portion)).await {
            Ok(taken) => taken?,
            Err(_) => return Ok(portion),
        }
        let end = Instant::now() + limits.wait;
        while !portion.is_full(limits) {
            match timeout_at(end, self.take(&mut portion)).await {
                Ok(taken) => taken?,
                Err(_) => break,
            }
        }
        Ok(portion)
    }

    /// Takes one message of any. Cancel safe, as all readers are.
    async fn take(&mut self, portion: &mut Portion) -> Result<(), ReadError> {
        tokio::select! {
            change = self.config.next() => portion.config(&change?),
            event = self.events.next() => portion.event(&event?),
            batch = self.journal.next() => portion.journal(&batch?),
        }
        Ok(())
    }
}

impl Portion {
    /// Begins one.
    pub(crate) fn of(progress: Progress) -> Self {
        let changes = Changes::default();
        Self { changes, before: progress, after: progress, count: 0, bytes: 0, oldest: None }
    }

    /// Adds a change of the configuration.
    pub(crate) fn config(&mut self, stored: &StoredChange) {
        self.changes.config(stored.revision, stored.stored_at, &stored.change);
        self.after.config = stored.revision;
        self.count += 1;
    }

    /// Adds an event.
    pub(crate) fn event(&mut self, event: &StoredEvent) {
        self.changes.event(event);
        self.after.events = event.sequence;
        self.count += 1;
        self.note(event.accepted_at);
    }

    /// Adds facts.
    pub(crate) fn journal(&mut self, batch: &JournalBatch) {
        self.changes.journal(batch.sequence, &batch.facts);
        self.after.journal = batch.sequence;
        self.count += batch.facts.len();
        self.note(batch.stored_at);
        self.bytes += batch.facts.iter().map(fanfare_event_log::record_length).sum::<usize>();
    }

    fn note(&mut self, stored_at: Timestamp) {
        self.oldest = Some(self.oldest.map_or(stored_at, |oldest| oldest.min(stored_at)));
    }

    /// When the oldest of it was stored.
    pub(crate) const fn oldest(&self) -> Option<Timestamp> {
        self.oldest
    }

    /// How many facts and events it has.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Tells whether no more is to be added. One fact may be a thousand rows.
    pub(crate) fn is_full(&self, limits: Limits) -> bool {
        self.count.max(self.rows()) >= limits.count || self.bytes >= BYTES_MAX
    }

    /// How many rows it changes.
    pub(crate) fn rows(&self) -> usize {
        self.changes.len()
    }

    /// Tells whether endpoints were deleted, whose history is to be removed.
    pub(crate) fn has_deletions(&self) -> bool {
        self.changes.has_deletions()
    }

    /// Tells whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.before == self.after
    }

    /// Writes it, if there is anything; returns how far the fold is then.
    pub(crate) async fn write(self, store: &Store) -> Result<Progress, StoreError> {
        let Self { changes, before, after, .. } = self;
        if before != after {
            store.apply(changes, before, after).await?;
        }
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use fanfare_event_log::Mark;

    use super::*;

    #[test]
    fn a_stream_that_ends_before_what_was_folded_is_named() {
        let mark = |stream: &str, last| Mark { stream: String::from(stream), last };
        let marks = Marks {
            events: mark("EVENTS@1", 7),
            journal: mark("JOURNAL@1", 9),
            config: mark("CONFIG@1", 3),
        };
        let found = |events, journal, config| {
            let found = beyond(Progress { events, journal, config }, &marks);
            found.map(|error| match error {
                FoldError::Beyond { stream, folded, last } => (stream, folded, last),
                other @ (FoldError::Store(_) | FoldError::Read(_)) => panic!("{other}"),
            })
        };
        assert_eq!(found(7, 9, 3), None);
        assert_eq!(found(0, 0, 0), None);
        assert_eq!(found(8, 9, 3), Some((String::from("EVENTS@1"), 8, 7)));
        assert_eq!(found(7, 10, 3), Some((String::from("JOURNAL@1"), 10, 9)));
        assert_eq!(found(7, 9, 4), Some((String::from("CONFIG@1"), 4, 3)));
    }
}
