//! Rows, and how two accounts of the same row become one.
//!
//! Merging is commutative, associative and idempotent: of what contradicts itself, the account
//! with the higher place in a total order counts. The upserts of [`crate::Store`] do the same in SQL.

use bytes::Bytes;
use fanfare_domain::{
    DeliveryId, EndpointId, EventId, EventType, Outcome, TenantId, Timestamp,
    fact::{ConclusionReason, InBatch, Timing},
};

/// The place of a fact: a message of JOURNAL, and where in it. Sorts as the journal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub(crate) i64);

impl Place {
    /// The most facts of a message that are told apart by their place.
    const FACTS_MAX: i64 = 1 << 16;

    /// Returns the place of a fact, by its message's sequence and its index in the message.
    pub fn of(sequence: u64, index: usize) -> Self {
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        let index = i64::try_from(index).unwrap_or(i64::MAX).min(Self::FACTS_MAX - 1);
        Self(sequence.saturating_mul(Self::FACTS_MAX).saturating_add(index))
    }

    /// Returns the message's sequence and the index in the message.
    pub fn parts(self) -> (u64, usize) {
        let (sequence, index) = (self.0 / Self::FACTS_MAX, self.0 % Self::FACTS_MAX);
        (u64::try_from(sequence).unwrap_or_default(), usize::try_from(index).unwrap_or_default())
    }

    /// Returns a place that sorts the other way round.
    pub(crate) const fn reversed(self) -> Self {
        Self(i64::MAX - self.0)
    }
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No attempt was made yet.
    Pending,
    /// An attempt failed, and another one is to come.
    Retrying,
    /// It waits for its endpoint to be resumed.
    Parked,
    /// There is none: the endpoint was paused, and skips what comes meanwhile.
    Skipped,
    /// The endpoint accepted it.
    Delivered,
    /// Every attempt failed, or its time ran out.
    Exhausted,
    /// The endpoint answered with a status that is final.
    Refused,
    /// The endpoint was deleted, disabled or paused, or a person cancelled it.
    Cancelled,
}

impl State {
    /// Every state, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Retrying,
        Self::Parked,
        Self::Skipped,
        Self::Delivered,
        Self::Exhausted,
        Self::Refused,
        Self::Cancelled,
    ];

    /// Returns the stable name, as it stands in the API and in the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Skipped => "skipped",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// An event, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Identifies the event; carries its time.
    pub id: EventId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// Its sequence in EVENTS, where its data is. The lowest, if it is there twice.
    pub sequence: u64,
    /// When it was accepted. The earliest, if it is there twice.
    pub accepted_at: Timestamp,
    /// When it happened, by the producer.
    pub occurred_at: Timestamp,
    /// How many bytes its data has.
    pub data_bytes: u64,
    /// The key of those that keep their order, if it has one.
    pub ordering_key: Option<String>,
    /// The trace that it belongs to: 32 hexadecimal digits, if there is one.
    pub trace_id: Option<String>,
}

/// What a delivery has in common with its event. Known from the event, or from the facts about the
/// delivery itself. Sorts by time, then by type: of several accounts the first one counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// When the event was accepted.
    pub accepted_at: Timestamp,
    /// The event's type.
    pub event_type: EventType,
}

/// An event for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Identifies the delivery; carries its event's time.
    pub id: DeliveryId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What is delivered.
    pub event: EventId,
    /// The event's sequence in EVENTS. The lowest, if it is there twice.
    pub event_sequence: u64,
    /// Where it is delivered.
    pub endpoint: EndpointId,
    /// 0 for the delivery that the event's acceptance caused; counts replays.
    pub generation: u32,
    /// What it has from its event; `None` if neither the event nor a fact that says it was read.
    pub origin: Option<Origin>,
    /// How many attempts were made.
    pub attempts: u32,
    /// How it stands.
    pub standing: Standing,
}

/// How a delivery stands, by one fact about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How far the fact brought it: the attempt that it is about counts before its place, because
    /// what plans an attempt and what comes of it are in different columns of the journal.
    pub(crate) step: i64,
    /// Where the fact is.
    pub(crate) place: Place,
    /// How it stands.
    pub state: State,
    /// Why it ended as it did, if it has ended.
    pub reason: Option<ConclusionReason>,
    /// When the next attempt is due, if there is one to come that cannot be made now.
    pub next_attempt_at: Option<Timestamp>,
    /// When that was recorded.
    pub since: Timestamp,
}

/// One HTTP request of a delivery, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Counts from 1.
    pub number: u32,
    /// Where it is delivered.
    pub endpoint: EndpointId,
    /// Where the fact is.
    pub place: Place,
    /// When the request was begun; also the time that it was signed with.
    pub started_at: Timestamp,
    /// From the beginning to the outcome, in nanoseconds.
    pub duration_nanos: u64,
    /// How far it was by when.
    pub timing: Timing,
    /// What came of it.
    pub outcome: Outcome,
    /// More about why it failed; may be empty.
    pub detail: String,
    /// The revision of the endpoint that it was made with.
    pub config_revision: u64,
    /// Where the request went.
    pub url: String,
    /// The value of the signature header; empty if nothing was sent.
    pub signature: String,
    /// The head of the answer.
    pub response_headers: Vec<(String, Bytes)>,
    /// The first bytes of the answer's body, 16 KiB at most.
    pub response_body: Bytes,
    /// Whether the answer's body was longer, or broke off.
    pub response_truncated: bool,
    /// When the next attempt is due, if there is to be one.
    pub retry_at: Option<Timestamp>,
    /// The request that it was part of, if it carried several deliveries.
    pub batch: Option<InBatch>,
    /// See [`AttemptMade::trace_sampled`](fanfare_domain::fact::AttemptMade::trace_sampled).
    pub trace_sampled: Option<bool>,
}

impl EventRow {
    /// Takes in another account of the same event: another copy of it, if EVENTS has it twice.
    ///
    /// What deliveries have from it is the lesser of both, whichever copy the rest is from, so that
    /// it makes no difference whether they had it before or after the copies met.
    pub(crate) fn merge(&mut self, other: Self) {
        let origin = self.origin().min(other.origin());
        if other.sequence < self.sequence {
            *self = other;
        }
        Origin { accepted_at: self.accepted_at, event_type: self.event_type } = origin;
    }

    /// What deliveries have from it.
    pub(crate) fn origin(&self) -> Origin {
        Origin { accepted_at: self.accepted_at, event_type: self.event_type.clone() }
    }
}

impl DeliveryRow {
    /// Takes in another account of the same delivery.
    pub fn merge(&mut self, other: Self) {
        self.attempts = self.attempts.max(other.attempts);
        self.learn(other.event_sequence, other.origin);
        if other.standing.rank() > self.standing.rank() {
            self.standing = other.standing;
        }
    }

    /// Takes in what somebody says of the event.
    pub(crate) fn learn(&mut self, event_sequence: u64, origin: Option<Origin>) {
        self.event_sequence = self.event_sequence.min(event_sequence);
        self.origin = match (self.origin.take(), origin) {
            (Some(mine), Some(other)) => Some(mine.min(other)),
            (mine, other) => mine.or(other),
        };
    }
}

impl Standing {
    /// Returns the place of the fact by which it stands so.
    pub const fn fact(&self) -> Place {
        if self.is_routed_only() { self.place.reversed() } else { self.place }
    }

    /// Tells whether nothing is on record but that its event was routed.
    pub const fn is_routed_only(&self) -> bool {
        self.step == 0
    }

    /// Tells whether it has ended.
    pub const fn has_ended(&self) -> bool {
        self.reason.is_some()
    }

    /// Of two facts, the delivery stands as the one of the higher rank says.
    pub(crate) const fn rank(&self) -> (i64, i64) {
        (self.step, self.place.0)
    }
}

impl AttemptRow {
    /// Takes in another account of the same attempt.
    pub(crate) fn merge(&mut self, other: Self) {
        if other.place > self.place {
            *self = other;
        }
    }
}
