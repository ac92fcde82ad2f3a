//! Reading CONFIG in order, without settling: for those who keep their own place.

use fanfare_domain::{Change, Timestamp, chain};
use fanfare_proto::{DecodeError, decode_change};
use tracing::error;

use crate::{
    EventLog, ReadError,
    read::{Numbered, Ordered, Selection, Start},
    topology::Stream,
};

/// Reads the configuration's changes in order: never a gap, never a repeat, over reconnects.
pub struct ConfigFollower {
    log: EventLog,
    messages: Ordered,
}

/// A change in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChange {
    /// Its sequence in CONFIG.
    pub revision: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The change.
    pub change: Change,
}

impl EventLog {
    /// Reads changes in the order of CONFIG, from a revision on (or the first one kept after it),
    /// following what comes.
    pub async fn follow_config(&self, from: u64) -> Result<ConfigFollower, ReadError> {
        let subjects = self.topology().subjects(Stream::Config);
        let selection = Selection { stream: Stream::Config, subjects, headers_only: false };
        let mut messages = Ordered::new(self, selection, Start::Sequence(from));
        // So that a refusal is told here, and what is written from now on is followed.
        messages.pending().await?;
        Ok(ConfigFollower { log: self.clone(), messages })
    }

    /// The last sequence of CONFIG at this moment.
    pub async fn config_last(&self) -> Result<u64, ReadError> {
        self.last_sequence(Stream::Config).await
    }
}

impl ConfigFollower {
    /// Waits for the next change. Cancel safe. One that cannot be decoded is passed over with an
    /// error log; one that a newer version wrote ends the reading ([`ReadError::Unreadable`]), as
    /// it does for views of CONFIG.
    pub async fn next(&mut self) -> Result<StoredChange, ReadError> {
        loop {
            let next = self.messages.next().await?;
            if let Some(change) = self.read(&next)? {
                return Ok(change);
            }
        }
    }

    /// Returns the next change at or before `last`, or `None` once all of them are read, whatever
    /// comes meanwhile. Cancel safe. `last` is not behind the end that the stream had when it was opened.
    pub async fn next_until(&mut self, last: u64) -> Result<Option<StoredChange>, ReadError> {
        while let Some(next) = self.messages.next_until(last).await? {
            if let Some(change) = self.read(&next)? {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    fn read(&self, next: &Numbered) -> Result<Option<StoredChange>, ReadError> {
        let (revision, stored_at) = (next.sequence, next.stored_at);
        match decode_change(next.message.payload.clone()) {
            Ok(change) => Ok(Some(StoredChange { revision, stored_at, change })),
            Err(source @ DecodeError::UnknownValue { .. }) => {
                let stream = self.log.topology().stream(Stream::Config);
                Err(ReadError::Unreadable { stream, sequence: revision, source })
            }
            Err(unreadable) => {
                let error = chain(&unreadable);
                error!(revision, error, "a change cannot be read and is passed over");
                Ok(None)
            }
        }
    }
}
