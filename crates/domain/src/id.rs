//! Identifiers: 16 bytes each, shown with a prefix that says what they identify.
//!
//! The first 6 bytes are milliseconds since the Unix epoch, so that ids sort by time and a
//! record can be looked for from its own time on. The other 10 are a hash of what caused the
//! thing, or random: see each constructor.

use std::{fmt, str::FromStr};

use data_encoding::Encoding;
use sha2::{Digest as _, Sha256};

use crate::{TenantId, Timestamp};

/// Crockford's base 32 in lower case: no `i`, `l`, `o` or `u`, and it sorts like the bytes.
fn alphabet() -> &'static Encoding {
    static ENCODING: std::sync::LazyLock<Encoding> = std::sync::LazyLock::new(|| {
        let mut specification = data_encoding::Specification::new();
        specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
        specification.encoding().expect("32 distinct symbols make an encoding")
    });
    &ENCODING
}

/// Text that is not an id of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_ and 26 characters: {text:?}")]
pub struct MalformedId {
    prefix: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// What the text form begins with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Wraps the 16 bytes of an id.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Returns the 16 bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Makes an id from the time and 10 bytes of chance, both drawn by the caller.
            pub fn new(now: Timestamp, chance: [u8; 10]) -> Self {
                Self(stamp(now, chance))
            }

            /// Returns the time that the id carries, in whole milliseconds.
            pub fn time(&self) -> Timestamp {
                let mut millis = [0; 8];
                millis[2..].copy_from_slice(&self.0[..6]);
                Timestamp::from_millis(u64::from_be_bytes(millis))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 26];
                alphabet().encode_mut(&self.0, &mut text);
                let text = std::str::from_utf8(&text).expect("the alphabet is ASCII");
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = MalformedId;

            fn from_str(text: &str) -> Result<Self, MalformedId> {
                let malformed = || MalformedId { prefix: $prefix, text: text.chars().take(64).collect() };
                let symbols = text.strip_prefix(concat!($prefix, "_")).ok_or_else(malformed)?;
                let bytes = alphabet().decode(symbols.as_bytes()).map_err(|_| malformed())?;
                Ok(Self(bytes.try_into().map_err(|_| malformed())?))
            }
        }
    };
}

id! {
    /// Identifies an event: `evt_…`.
    EventId, "evt"
}
id! {
    /// Identifies an endpoint: `ep_…`.
    EndpointId, "ep"
}
id! {
    /// Identifies a delivery: `dlv_…`.
    DeliveryId, "dlv"
}
id! {
    /// Identifies a batch, the deliveries of one request: `bat_…`.
    BatchId, "bat"
}
id! {
    /// Identifies an API key: `key_…`. It is not the key.
    KeyId, "key"
}
id! {
    /// Identifies a command to the owner of a shard: `cmd_…`.
    CommandId, "cmd"
}
id! {
    /// Identifies a long job: `job_…`.
    JobId, "job"
}

id! {
    /// Identifies a portal link: `lnk_…`. It is not the token that the link is used with.
    LinkId, "lnk"
}

impl EventId {
    /// Derives the id of the event that an INBOX message became.
    ///
    /// A function of the message alone (its stream's identity, sequence and time of storing), so
    /// that taking the same message twice gives the same event.
    pub fn of_message(stream: &str, sequence: u64, stored_at: Timestamp) -> Self {
        let nanos = stored_at.as_nanos().to_be_bytes();
        Self(stamp(stored_at, digest(&[stream.as_bytes(), &sequence.to_be_bytes(), &nanos])))
    }
}

impl DeliveryId {
    /// Derives the id of the delivery of an event to an endpoint.
    ///
    /// `generation` is 0 for the delivery that the event's acceptance caused, and counts the
    /// replays asked for since. The id carries the event's time.
    pub fn of(event: EventId, endpoint: EndpointId, generation: u32) -> Self {
        let hash = digest(&[&event.0, &endpoint.0, &generation.to_be_bytes()]);
        Self(stamp(event.time(), hash))
    }
}

impl BatchId {
    /// Derives the id of a batch from its deliveries: the same for the same ones, in whatever order
    /// they are given. It carries the time of the first event.
    pub fn of(deliveries: impl IntoIterator<Item = DeliveryId>) -> Self {
        let mut deliveries: Vec<_> = deliveries.into_iter().collect();
        deliveries.sort_unstable();
        let first = deliveries.first().map_or(Timestamp::EPOCH, DeliveryId::time);
        let parts: Vec<&[u8]> = deliveries.iter().map(|delivery| &delivery.0[..]).collect();
        Self(stamp(first, digest(&parts)))
    }
}

/// Derives the dedupe key of a set of records from what they are about.
pub fn dedupe_key(parts: &[&[u8]]) -> String {
    alphabet().encode(&digest(parts))
}

/// Derives the key under which a producer's idempotency key is kept, safe as a subject token.
pub fn idempotency_token(tenant: &TenantId, key: &str) -> String {
    data_encoding::HEXLOWER
        .encode(&Sha256::digest([tenant.as_str().as_bytes(), &[0], key.as_bytes()].concat()))
}

/// Derives the key under which the answer to a caller's request is kept. No producer's key has
/// the same: `/` occurs in no tenant's id.
pub fn answer_token(scope: &str, key: &str) -> String {
    let parts: [&[u8]; 5] = [b"/answer", &[0], scope.as_bytes(), &[0], key.as_bytes()];
    data_encoding::HEXLOWER.encode(&Sha256::digest(parts.concat()))
}

fn stamp(now: Timestamp, rest: [u8; 10]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&now.as_millis().to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&rest);
    bytes
}

fn digest(parts: &[&[u8]]) -> [u8; 10] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(part);
    }
    *hash.finalize().first_chunk().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_keeps_its_time() {
        let now = Timestamp::from_millis(1_700_000_000_123);
        let id = EventId::of_message("INBOX/1", 7, now);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 4 + 26);
        assert_eq!(id.time(), now);
        let delivery = DeliveryId::of(id, EndpointId::new(now, [1; 10]), 0);
        assert_eq!(delivery.time(), now);
        assert_ne!(delivery, DeliveryId::of(id, EndpointId::new(now, [1; 10]), 1));
    }

    #[test]
    fn a_batch_is_named_by_what_is_in_it() {
        let [one, two, three] = [1, 2, 3].map(|n| {
            let event = EventId::new(Timestamp::from_millis(n), [0; 10]);
            DeliveryId::of(event, EndpointId::from_bytes([1; 16]), 0)
        });
        let id = BatchId::of([two, one]);
        assert_eq!(id, BatchId::of([one, two]));
        assert_eq!(id.time(), one.time());
        assert!(id.to_string().starts_with("bat_"));
        let others =
            [BatchId::of([one]), BatchId::of([one, three]), BatchId::of([one, two, three])];
        assert!(!others.contains(&id));
    }

    #[test]
    fn ids_of_another_kind_are_refused() {
        let id = EventId::of_message("INBOX/1", 7, Timestamp::EPOCH).to_string();
        assert!(id.parse::<DeliveryId>().is_err());
        assert!("evt_".parse::<EventId>().is_err());
        assert!("evt_é".parse::<EventId>().is_err());
    }
}
