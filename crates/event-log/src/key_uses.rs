//! When API keys were last used, to the hour: one entry of a key-value bucket for each.

use bytes::Bytes;
use fanfare_domain::{KeyId, Timestamp};

use crate::{
    EventLog, PublishError, ReadError,
    cas::{Cell, Held, Set, Write},
    topology::Bucket,
};

impl EventLog {
    /// Notes that an API key was used, unless a later use is on record. Repeats until the outcome is
    /// known, for ever if need be: bound it from outside.
    pub async fn key_used(&self, key: KeyId, at: Timestamp) -> Result<(), PublishError> {
        let cell = self.key_use(key);
        let value = Write::Value(Bytes::from(at.to_string()));
        let mut expected = 0;
        while let Set::Conflict(held) = cell.set(expected, &value).await? {
            if held.as_ref().and_then(time).is_some_and(|noted| noted >= at) {
                return Ok(());
            }
            expected = held.map_or(0, |held| held.sequence);
        }
        Ok(())
    }

    /// Returns when an API key was last used, as far as that was noted.
    pub async fn key_last_used(&self, key: KeyId) -> Result<Option<Timestamp>, ReadError> {
        Ok(self.key_use(key).get().await?.as_ref().and_then(time))
    }

    /// Forgets when an API key was last used.
    pub async fn forget_key_use(&self, key: KeyId) -> Result<(), ReadError> {
        let cell = self.key_use(key);
        let Some(held) = cell.get().await? else { return Ok(()) };
        let forgotten = cell.set(held.sequence, &Write::Deleted).await;
        // Whoever wrote something else there meanwhile did so before the key was deleted.
        forgotten.map(drop).map_err(|error| crate::cas::refused("key-uses", error))
    }

    fn key_use(&self, key: KeyId) -> Cell {
        self.key(&self.topology().bucket(Bucket::KeyUses), &key.to_string())
    }
}

fn time(held: &Held) -> Option<Timestamp> {
    Timestamp::parse(std::str::from_utf8(held.value.as_ref()?).ok()?)
}
