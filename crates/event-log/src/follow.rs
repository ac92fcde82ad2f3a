//! Reading EVENTS in order, without settling: for those who keep their own place.

use fanfare_domain::{StoredEvent, chain};
use tracing::error;

use crate::{
    EventLog, ReadError,
    read::{Ordered, Selection, Start},
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
            let (sequence, stored_at) = (next.sequence, next.stored_at);
            match fanfare_proto::decode_event(next.message.payload.clone(), sequence, stored_at) {
                Ok(event) => return Ok(event),
                Err(source) if source.is_from_newer_version() => {
                    let stream = self.log.topology().stream(Stream::Events);
                    return Err(ReadError::Unreadable { stream, sequence, source });
                }
                Err(unreadable) => {
                    let error = chain(&unreadable);
                    error!(sequence, error, "an event cannot be read and is passed over");
                }
            }
        }
    }

    /// How many messages were ahead when the server last said so; those that cannot be decoded
    /// count. Cancel safe.
    pub async fn pending(&mut self) -> Result<u64, ReadError> {
        self.messages.pending().await
    }
}
