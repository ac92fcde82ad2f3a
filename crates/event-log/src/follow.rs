//! Reading EVENTS in order, without settling: for those who keep their own place.

use fanfare_domain::{StoredEvent, chain};
use tracing::error;

use crate::{
    EventLog, ReadError,
    read::{Numbered, Ordered, Selection, Start},
    topology::Stream,
};

/// Reads the event log in order: never a gap, never a repeat, over reconnects.
pub struct EventFollower {
    log: EventLog,
    messages: Ordered,
}

impl EventLog {
    /// Reads events in the order of EVENTS, from a sequence on (or the first one kept after it),
    /// following what comes.
    pub async fn follow_events(&self, from: u64) -> Result<EventFollower, ReadError> {
        let subjects = self.topology().subjects(Stream::Events);
        let selection = Selection { stream: Stream::Events, subjects, headers_only: false };
        let mut messages = Ordered::new(self, selection, Start::Sequence(from));
        // So that a refusal is told here, and what is written from now on is followed.
        messages.pending().await?;
        Ok(EventFollower { log: self.clone(), messages })
    }
}

impl EventFollower {
    /// Waits for the next event. Cancel safe. One that cannot be decoded is passed over with an
    /// error log (fan-out sets it aside); one that a newer version wrote ends the reading
    /// ([`ReadError::Unreadable`]), because passing over it would lose it.
    pub async fn next(&mut self) -> Result<StoredEvent, ReadError> {
        loop {
            let next = self.messages.next().await?;
            if let Some(event) = self.read(&next)? {
                return Ok(event);
            }
        }
    }

    /// Returns the next event at or before `last`, or `None` once all of them are read, whatever comes
    /// meanwhile. Cancel safe. `last` is not behind the end that the stream had when it was opened.
    pub async fn next_until(&mut self, last: u64) -> Result<Option<StoredEvent>, ReadError> {
        while let Some(next) = self.messages.next_until(last).await? {
            if let Some(event) = self.read(&next)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn read(&self, next: &Numbered) -> Result<Option<StoredEvent>, ReadError> {
        let (sequence, stored_at) = (next.sequence, next.stored_at);
        match fanfare_proto::decode_event(next.message.payload.clone(), sequence, stored_at) {
            Ok(event) => Ok(Some(event)),
            Err(source) if source.is_from_newer_version() => {
                let stream = self.log.topology().stream(Stream::Events);
                Err(ReadError::Unreadable { stream, sequence, source })
            }
            Err(unreadable) => {
                let error = chain(&unreadable);
                error!(sequence, error, "an event cannot be read and is passed over");
                Ok(None)
            }
        }
    }
}
