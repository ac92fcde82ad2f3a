//! What a dispatcher takes from its queues.

use crate::{
    DeliveryId, DeliveryRef, EndpointId, StoredEvent, Timestamp, TraceContext, fact::InBatch,
};

/// First attempts of one event's deliveries to endpoints of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The event, with the envelope as it is stored in EVENTS. Of a replay, it counts as accepted
    /// when the replay made it.
    pub event: StoredEvent,
    /// Whom to deliver it to: 1 to [`Task::TARGETS_MAX`].
    pub targets: Vec<Target>,
    /// 0 for the deliveries that the event's acceptance caused; counts replays.
    pub generation: u32,
    /// The sequence in JOURNAL of the routed fact: whatever is on record about these deliveries
    /// comes after it.
    pub journal_sequence: u64,
}

impl Task {
    /// The most targets of one task.
    pub const TARGETS_MAX: usize = 32;
    /// The most targets of all tasks that travel in one message together.
    pub const TOGETHER_TARGETS_MAX: usize = 64;
    /// The most bytes of tasks that travel in one message together; one by itself may be larger.
    pub const TOGETHER_BYTES_MAX: usize = 256 * 1024;
}

/// One delivery of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Identifies the delivery.
    pub delivery: DeliveryId,
    /// Where it goes.
    pub endpoint: EndpointId,
    /// The time that its tenant's rate limit keeps for it; `None` if it may be made at once.
    pub not_before: Option<Timestamp>,
}

/// A later attempt of one delivery: what a scheduled message carries. It refers to the event
/// and does not hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryDue {
    /// The delivery.
    pub delivery: DeliveryRef,
    /// The number of the attempt that is due.
    pub attempt: u32,
    /// When it is due.
    pub due_at: Timestamp,
    /// The sequence in JOURNAL of the fact that gave it its time: whatever is on record about this
    /// attempt comes after it.
    pub journal_sequence: u64,
    /// The trace of the event, for what is done before the event is at hand; empty if there is
    /// none.
    pub trace: TraceContext,
    /// The batch whose attempt failed before: its deliveries are due at the same time, and are tried
    /// again together.
    pub batch: Option<InBatch>,
}
