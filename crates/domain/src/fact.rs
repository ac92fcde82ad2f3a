//! Facts about deliveries: what the journal holds.
//!
//! All state is a fold over these. A fact is in the past tense, and recording it twice changes
//! nothing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    BatchId, BreakerMemory, DeliveryId, EndpointId, EventId, EventType, Outcome, Shard, TenantId,
    Timestamp, TraceContext, WindowMemory,
};

/// A fact, with when it was recorded and where it stands in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was recorded, by the clock of who recorded it.
    pub recorded_at: Timestamp,
    /// The trace of the event that it is about; empty if there is none.
    pub trace: TraceContext,
    /// What happened.
    pub fact: Fact,
}

/// Something that happened, named in the past tense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A process became the only one that may write the rest of a shard's facts.
    ShardClaimed(ShardClaimed),
    /// One HTTP request was made, or could not be.
    AttemptMade(Box<AttemptMade>),
    /// A delivery was put off without an attempt.
    DeliveryDeferred(DeliveryDeferred),
    /// A delivery waits for its endpoint to be resumed.
    DeliveryParked(DeliveryParked),
    /// A delivery ended.
    DeliveryConcluded(DeliveryConcluded),
    /// A later attempt was given its time.
    RetryScheduled(RetryScheduled),
    /// An event was matched with the endpoints of its tenant.
    EventRouted(EventRouted),
    /// The process that had claimed a shard gave it away, and said what it leaves.
    ShardReleased(Box<ShardReleased>),
}

/// Names a delivery and what it is of, so that it can be carried on without looking elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRef {
    /// Identifies the delivery.
    pub id: DeliveryId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What is delivered.
    pub event: EventId,
    /// The event's sequence in EVENTS.
    pub event_sequence: u64,
    /// The event's type.
    pub event_type: EventType,
    /// Where it is delivered.
    pub endpoint: EndpointId,
    /// 0 for the delivery that the event's acceptance caused; counts replays.
    pub generation: u32,
    /// When the event was accepted; of a replay, when that made it.
    pub accepted_at: Timestamp,
}

/// See [`Fact::ShardClaimed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardClaimed {
    /// The shard.
    pub shard: Shard,
    /// One more than the epoch of the claim before.
    pub epoch: u64,
    /// Who claimed it: unique to a process's run.
    pub owner: String,
}

/// See [`Fact::ShardReleased`]. One with much to say is written in several facts, one after the
/// other. They are the last that the owner writes, but for those about what it leaves in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardReleased {
    /// The shard.
    pub shard: Shard,
    /// The epoch of the claim that ended.
    pub epoch: u64,
    /// Rate limits that are not among `limits` had at most used up their burst at that time.
    pub limits_since: Timestamp,
    /// Requests that run on.
    pub in_flight: Vec<InFlight>,
    /// What is known of endpoints, where that is more than a new owner would assume.
    pub limits: Vec<LimitState>,
    /// Which part of the release this is, from 0.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
}

impl ShardReleased {
    /// The most requests in one fact, which then has no limits.
    pub const REQUESTS_MAX: usize = 384;

    /// The most limits in one fact, which then has no requests.
    pub const LIMITS_MAX: usize = 256;
}

/// A request that runs on after its shard was given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The number of the attempt.
    pub attempt: u32,
    /// Where the request went.
    pub endpoint: EndpointId,
    /// When it ends at the latest.
    pub ends_by: Timestamp,
    /// Which request it is: one of the deliveries that it carries, the same for all of them.
    pub request: DeliveryId,
}

/// The request that a delivery was part of, where one carries several: a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InBatch {
    /// Identifies the batch: a function of the deliveries in it.
    pub id: BatchId,
    /// How many deliveries were in it; 1 or more.
    pub size: u32,
}

/// What an owner knows of an endpoint: where its rate limit stands, which is two theoretical arrival
/// times, and what was learnt of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// Whose limit it is.
    pub endpoint: EndpointId,
    /// Of the next request.
    pub gate: Timestamp,
    /// Of the next delivery that is given a time.
    pub plan: Timestamp,
    /// Until when the endpoint asked to be left alone.
    pub quiet_until: Option<Timestamp>,
    /// What its breaker has come to, if there is anything to remember.
    pub breaker: Option<BreakerMemory>,
    /// How many requests it seems to bear, if those are fewer than it may have.
    pub window: Option<WindowMemory>,
}

/// What came of a request that ran on after its shard was given away: what its sender tells the
/// shard's new owner, who alone can put it on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The number of the attempt.
    pub attempt: u32,
    /// The facts about it; none if nothing was sent after all.
    pub records: Vec<Record>,
}

/// See [`Fact::AttemptMade`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptMade {
    /// The delivery.
    pub delivery: DeliveryRef,
    /// Counts from 1, without gaps.
    pub attempt: u32,
    /// When the request was begun; also the time that it was signed with.
    pub started_at: Timestamp,
    /// From the beginning to the outcome.
    pub duration: Duration,
    /// How far it was by when.
    pub timing: Timing,
    /// What came of it.
    pub outcome: Outcome,
    /// Words for a person on why it failed; empty where the outcome says it all.
    pub detail: String,
    /// The revision of CONFIG that the request was made with.
    pub config_revision: u64,
    /// The URL that the request went to.
    pub url: Arc<str>,
    /// The value of the signature header, as sent; empty if nothing was sent.
    pub signature: String,
    /// The head of the answer; empty if there was none.
    pub response_headers: Vec<(String, Bytes)>,
    /// The first bytes of the answer's body, 16 KiB at most.
    pub response_body: Bytes,
    /// Whether the answer's body was longer than what is kept, or broke off.
    pub response_truncated: bool,
    /// When the next attempt is due, if there is to be one.
    pub retry_at: Option<Timestamp>,
    /// The batch that it was made in. Then its times, `outcome` and `signature` are those of the
    /// one request, which has a fact for each of its deliveries; the first of them
    /// holds the whole answer, the others the beginning of its body.
    pub batch: Option<InBatch>,
    /// What the request said of whether its trace is sampled; `None` if it named no trace. Which one
    /// it named follows from its event: of a batch, from the first one that came with a trace, or
    /// the first where none did.
    pub trace_sampled: Option<bool>,
}

/// How far an attempt was by when, counted from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// It had a connection made for it: name, TCP, and TLS if it is spoken. `None` if it went over
    /// one that was there already, or none came about.
    pub connect: Option<Duration>,
    /// The head of the answer was there. `None` if no answer came.
    pub first_byte: Option<Duration>,
}

/// See [`Fact::DeliveryDeferred`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryDeferred {
    /// The delivery.
    pub delivery: DeliveryRef,
    /// The number of the attempt that was put off.
    pub attempt: u32,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: DeferReason,
    /// The batch whose attempt failed before: its deliveries are tried again together.
    pub batch: Option<InBatch>,
}

/// Why a delivery was put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeferReason {
    /// The endpoint's lane was full.
    LaneFull,
    /// Its event was not readable from the log at that time.
    EventUnavailable,
    /// The endpoint's rate limit: the time is the one that the limit keeps for it.
    RateLimit,
    /// The endpoint keeps failing, and its breaker holds first attempts.
    Breaker,
    /// The endpoint asked to be left alone for a while.
    RetryAfter,
    /// The tenant's rate limit: the time is the one that the limit keeps for it.
    TenantRateLimit,
}

impl DeferReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 6] = [
        Self::LaneFull,
        Self::EventUnavailable,
        Self::RateLimit,
        Self::Breaker,
        Self::RetryAfter,
        Self::TenantRateLimit,
    ];

    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LaneFull => "lane_full",
            Self::EventUnavailable => "event_unavailable",
            Self::RateLimit => "rate_limit",
            Self::Breaker => "breaker",
            Self::RetryAfter => "retry_after",
            Self::TenantRateLimit => "tenant_rate_limit",
        }
    }
}

/// See [`Fact::DeliveryParked`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryParked {
    /// The delivery.
    pub delivery: DeliveryRef,
    /// The number of the attempt that waits.
    pub attempt: u32,
}

/// See [`Fact::DeliveryConcluded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryConcluded {
    /// The delivery.
    pub delivery: DeliveryRef,
    /// How it ended.
    pub conclusion: Conclusion,
    /// How many attempts were made.
    pub attempts: u32,
    /// Why, where the conclusion leaves it open.
    pub reason: ConclusionReason,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conclusion {
    /// The endpoint accepted it.
    Delivered,
    /// Every attempt failed, or its time ran out.
    Exhausted,
    /// The endpoint answered with a status that the policy calls final.
    Refused,
    /// The endpoint was deleted, disabled or paused, or a person cancelled it.
    Cancelled,
}

impl Conclusion {
    /// Returns the stable name, as it stands in the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a delivery ended as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConclusionReason {
    /// The last attempt's outcome.
    Outcome,
    /// The policy allows no more attempts.
    AttemptsSpent,
    /// The give-up time came.
    Expired,
    /// The endpoint was deleted.
    EndpointDeleted,
    /// The endpoint was disabled.
    EndpointDisabled,
    /// The endpoint was paused, and skips what comes meanwhile.
    EndpointPaused,
    /// A person asked for it.
    ByHand,
    /// The event is no longer in the log.
    EventGone,
}

impl ConclusionReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Outcome,
        Self::AttemptsSpent,
        Self::Expired,
        Self::EndpointDeleted,
        Self::EndpointDisabled,
        Self::EndpointPaused,
        Self::ByHand,
        Self::EventGone,
    ];

    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::AttemptsSpent => "attempts_spent",
            Self::Expired => "expired",
            Self::EndpointDeleted => "endpoint_deleted",
            Self::EndpointDisabled => "endpoint_disabled",
            Self::EndpointPaused => "endpoint_paused",
            Self::ByHand => "by_hand",
            Self::EventGone => "event_gone",
        }
    }
}

/// See [`Fact::RetryScheduled`]. Holds all that a scheduled message is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryScheduled {
    /// The delivery.
    pub delivery: DeliveryRef,
    /// The number of the attempt to come.
    pub attempt: u32,
    /// When it is due.
    pub due_at: Timestamp,
    /// The sequence in JOURNAL of the fact that asked for it.
    pub cause_sequence: u64,
    /// The batch whose attempt failed before: its deliveries are tried again together.
    pub batch: Option<InBatch>,
}

/// See [`Fact::EventRouted`]. An event with more than [`EventRouted::TARGETS_MAX`] targets is
/// routed in several facts; the parts of one event are in one batch or in successive ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRouted {
    /// The event.
    pub event: EventId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its sequence in EVENTS.
    pub event_sequence: u64,
    /// The revision of CONFIG that it was matched against.
    pub config_revision: u64,
    /// 0 for the event's acceptance; counts replays.
    pub generation: u32,
    /// Endpoints that get a task.
    pub targets: Vec<EndpointId>,
    /// Endpoints that matched, and were paused with `skip`.
    pub skipped: Vec<EndpointId>,
    /// Endpoints that matched, and were paused with `hold`: they get theirs when resumed.
    pub held: Vec<EndpointId>,
    /// Endpoints that matched, and whose owner reads the event by itself: see [`crate::feed`].
    pub fed: Vec<EndpointId>,
    /// Which part of the routing this is, from 0.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
}

impl EventRouted {
    /// The most endpoints in one fact.
    pub const TARGETS_MAX: usize = 1_000;

    /// Which routing of the event the fact is a part of, recorded at that time.
    pub fn edition(&self, recorded_at: Timestamp) -> Edition {
        Edition { config_revision: self.config_revision, parts: self.parts, recorded_at }
    }
}

/// Tells apart routings of one event that were made twice, as after a crash. Parts of two of them do
/// not make one: an endpoint that one of them has in its first part may be in the second part of
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition {
    config_revision: u64,
    parts: u32,
    recorded_at: Timestamp,
}

impl Edition {
    /// Whether so many of its parts are all that there are.
    pub fn is_whole(&self, parts: usize) -> bool {
        u32::try_from(parts).is_ok_and(|parts| parts == self.parts)
    }
}

impl Fact {
    /// Returns the attempt that was made, if the fact says so.
    pub fn attempt_made(&self) -> Option<&AttemptMade> {
        match self {
            Self::AttemptMade(made) => Some(made),
            Self::ShardClaimed(_)
            | Self::ShardReleased(_)
            | Self::DeliveryDeferred(_)
            | Self::DeliveryParked(_)
            | Self::DeliveryConcluded(_)
            | Self::RetryScheduled(_)
            | Self::EventRouted(_) => None,
        }
    }

    /// Returns the delivery that the fact is about, if it is about one.
    pub fn delivery(&self) -> Option<&DeliveryRef> {
        match self {
            Self::AttemptMade(made) => Some(&made.delivery),
            Self::DeliveryDeferred(deferred) => Some(&deferred.delivery),
            Self::DeliveryParked(parked) => Some(&parked.delivery),
            Self::DeliveryConcluded(concluded) => Some(&concluded.delivery),
            Self::RetryScheduled(scheduled) => Some(&scheduled.delivery),
            Self::ShardClaimed(_) | Self::ShardReleased(_) | Self::EventRouted(_) => None,
        }
    }
}
