//! Gathering what the streams bring, and writing it in portions.

use std::time::Duration;

use fanfare_delivery_log::{Changes, Progress, Store, StoreError};
use fanfare_domain::{StoredEvent, Timestamp};
use fanfare_event_log::{
    ConfigFollower, EventFollower, EventLog, JournalBatch, JournalFilter, JournalReader, ReadError,
    StoredChange, journal::From,
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

    /// Writes it; returns how far the fold is then.
    pub(crate) async fn write(self, store: &Store) -> Result<Progress, StoreError> {
        let Self { changes, before, after, .. } = self;
        store.apply(changes, before, after).await?;
        Ok(after)
    }
}
