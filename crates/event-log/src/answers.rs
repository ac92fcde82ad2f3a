//! Answers to requests that may be repeated, under the callers' idempotency keys: in the bucket of
//! the producers' keys, for 24 hours.
//!
//! What an answer is, and whose turn it is to make one, is the caller's to say: here it is bytes,
//! replaced by compare-and-set.

use bytes::Bytes;
use fanfare_domain::id::answer_token;

use crate::{
    EventLog, PublishError, ReadError,
    cas::{Cell, Held, Set, Write},
    topology::Bucket,
};

/// A caller's idempotency key.
pub struct AnswerKey {
    cell: Cell,
}

/// What is kept under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldAnswer {
    /// What a write has to be made from that replaces it.
    pub sequence: u64,
    /// The bytes.
    pub value: Bytes,
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is stored; what replaces it is made from this.
    Stored(u64),
    /// Something else is there than the caller expected.
    Conflict(Option<HeldAnswer>),
}

impl EventLog {
    /// A key of a caller, told apart from those of others by their scope.
    pub fn answer_key(&self, scope: &str, key: &str) -> AnswerKey {
        let bucket = self.topology().bucket(Bucket::Idempotency);
        AnswerKey { cell: self.key(&bucket, &answer_token(scope, key)) }
    }
}

impl AnswerKey {
    /// Returns what is kept, by the bucket's leader.
    pub async fn get(&self) -> Result<Option<HeldAnswer>, ReadError> {
        Ok(self.cell.get().await?.and_then(HeldAnswer::of))
    }

    /// Keeps bytes, if `expected` is what is there; 0 for nothing. Repeats until the outcome is
    /// known, for ever if need be: bound it from outside.
    pub async fn set(&self, expected: u64, value: Bytes) -> Result<Kept, PublishError> {
        Ok(match self.cell.set(expected, &Write::Value(value)).await? {
            Set::Stored(sequence) => Kept::Stored(sequence),
            Set::Conflict(held) => Kept::Conflict(held.and_then(HeldAnswer::of)),
        })
    }
}

impl HeldAnswer {
    /// Keys of this bucket are never deleted: they expire, and then there is nothing.
    fn of(held: Held) -> Option<Self> {
        let sequence = held.sequence;
        held.value.map(|value| Self { sequence, value })
    }
}
