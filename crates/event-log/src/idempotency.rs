//! Producers' idempotency keys, kept for 24 hours in a key-value bucket.

use fanfare_domain::{EventId, TenantId};

use crate::{EventLog, ReadError};

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// The key is new: it now stands for the given event, which is to be written.
    Claimed,
    /// The key stands for this event, which may not be written yet: writing it (under its id) is
    /// harmless and makes it so.
    Pending(EventId),
    /// The key stands for this event, which is in EVENTS.
    Done(EventId),
}

/// Producers' idempotency keys.
#[derive(Clone)]
pub struct IdempotencyKeys {/* kv store */}

impl EventLog {
    /// Opens the keys.
    pub async fn idempotency_keys(&self) -> Result<IdempotencyKeys, ReadError> {
        todo!()
    }
}

impl IdempotencyKeys {
    /// The longest key, in bytes.
    pub const LENGTH_MAX: usize = 256;

    /// Lets the key stand for the event, if it stands for none.
    pub async fn claim(&self, tenant: &TenantId, key: &str, event: EventId) -> Result<KeyState, ReadError> {
        let _ = (tenant, key, event);
        todo!()
    }

    /// Notes that the key's event is in EVENTS.
    pub async fn complete(&self, tenant: &TenantId, key: &str, event: EventId) -> Result<(), ReadError> {
        let _ = (tenant, key, event);
        todo!()
    }
}
