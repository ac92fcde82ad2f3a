//! Producers' idempotency keys, kept for 24 hours in a key-value bucket.
//!
//! A key stands for one event from the moment it is claimed. Whoever finds it claimed does not
//! know whether the event was written (the claimant may have died in between), so it writes the
//! event itself, under the id that is on record: writing twice is harmless.

use bytes::Bytes;
use fanfare_domain::{EventId, TenantId, id::idempotency_token};
use tracing::warn;

use crate::{
    EventLog, ReadError,
    cas::{self, Cell, Set, Write},
    read::Patience,
    topology::Bucket,
};

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// The key is new: it now stands for the given event, which is to be written. Also returned
    /// when it stood for that very event before, and nobody noted that it was written.
    Claimed,
    /// The key stands for this event, which may not be written yet: writing it (under its id) is
    /// harmless and makes it so.
    Pending(EventId),
    /// The key stands for this event, which is in EVENTS.
    Done(EventId),
}

/// Producers' idempotency keys. Cheap to clone.
#[derive(Clone)]
pub struct IdempotencyKeys {
    log: EventLog,
    bucket: String,
}

impl EventLog {
    /// Opens the keys. Waits for a bucket that has no leader yet: it may have been made just now.
    pub async fn idempotency_keys(&self) -> Result<IdempotencyKeys, ReadError> {
        let bucket = self.topology().bucket(Bucket::Idempotency);
        let keys = IdempotencyKeys { log: self.clone(), bucket };
        // A question whose answer does not matter: the bucket is there, and may be read.
        let any = keys.log.key(&keys.bucket, "-");
        let stream = self.topology().bucket_stream(Bucket::Idempotency);
        let mut patience = Patience::new(self, stream);
        while let Err(unanswered) = any.get().await {
            patience.bear(unanswered.source).await?;
        }
        Ok(keys)
    }
}

impl IdempotencyKeys {
    /// The longest key, in bytes.
    pub const LENGTH_MAX: usize = 256;

    /// Lets the key stand for the event, if it stands for none.
    ///
    /// Of callers at the same time, in whatever process, one gets the key. Repeats while the
    /// servers do not answer: bound it from outside. Repeating it with the same event is
    /// harmless. Callers keep to [`Self::LENGTH_MAX`]; it is not checked here.
    pub async fn claim(
        &self,
        tenant: &TenantId,
        key: &str,
        event: EventId,
    ) -> Result<KeyState, ReadError> {
        let cell = self.cell(tenant, key);
        let claim = Write::Value(State::Pending.of(event));
        let mut expected = 0;
        loop {
            let held = match self.set(&cell, expected, &claim).await? {
                Set::Stored(_) => return Ok(KeyState::Claimed),
                Set::Conflict(held) => held,
            };
            expected = held.as_ref().map_or(0, |held| held.sequence);
            match held.and_then(|held| held.value).as_ref().map(read) {
                Some(Some((State::Pending, own))) if own == event => return Ok(KeyState::Claimed),
                Some(Some((State::Pending, other))) => return Ok(KeyState::Pending(other)),
                Some(Some((State::Done, written))) => return Ok(KeyState::Done(written)),
                Some(None) => {
                    warn!(bucket = self.bucket, "an idempotency key held no event and is replaced");
                }
                // Deleted, or expired in between.
                None => {}
            }
        }
    }

    /// Returns the event that a key stands for; claims nothing.
    pub async fn find(&self, tenant: &TenantId, key: &str) -> Result<Option<EventId>, ReadError> {
        let held = self.cell(tenant, key).get().await?;
        let value = held.and_then(|held| held.value);
        Ok(value.as_ref().and_then(read).map(|(_, event)| event))
    }

    /// Notes that the key's event is in EVENTS. Does nothing if the key stands for another
    /// event or none, as it may a day after it was claimed.
    pub async fn complete(
        &self,
        tenant: &TenantId,
        key: &str,
        event: EventId,
    ) -> Result<(), ReadError> {
        let cell = self.cell(tenant, key);
        let done = Write::Value(State::Done.of(event));
        let mut found = cell.get().await?;
        while let Some(held) = found {
            if held.value.as_ref().and_then(read) != Some((State::Pending, event)) {
                return Ok(());
            }
            found = match self.set(&cell, held.sequence, &done).await? {
                Set::Stored(_) => return Ok(()),
                Set::Conflict(held) => held,
            };
        }
        Ok(())
    }

    async fn set(&self, cell: &Cell, expected: u64, write: &Write) -> Result<Set, ReadError> {
        cell.set(expected, write).await.map_err(|error| cas::refused(&self.bucket, error))
    }

    fn cell(&self, tenant: &TenantId, key: &str) -> Cell {
        self.log.key(&self.bucket, &idempotency_token(tenant, key))
    }
}

/// The first byte of a value; the event's id follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Done,
}

impl State {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Pending => b'p',
            Self::Done => b'd',
        }
    }

    fn of(self, event: EventId) -> Bytes {
        let mut value = Vec::with_capacity(17);
        value.push(self.to_byte());
        value.extend_from_slice(event.as_bytes());
        Bytes::from(value)
    }
}

fn read(value: &Bytes) -> Option<(State, EventId)> {
    let (&first, id) = value.split_first()?;
    let state = [State::Pending, State::Done].into_iter().find(|state| state.to_byte() == first)?;
    Some((state, EventId::from_bytes(id.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use fanfare_domain::Timestamp;

    use super::*;

    #[test]
    fn a_value_reads_back_and_nothing_else_does() {
        let event = EventId::new(Timestamp::from_millis(1), [7; 10]);
        for state in [State::Pending, State::Done] {
            assert_eq!(read(&state.of(event)), Some((state, event)));
        }
        for bad in
            [&b""[..], b"p", b"p123456789012345", b"p12345678901234567", b"x1234567890123456"]
        {
            assert_eq!(read(&Bytes::from_static(bad)), None, "{bad:?}");
        }
    }
}
