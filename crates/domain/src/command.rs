//! What people ask of the owner of a shard.
//!
//! A command is carried out once in effect: it says how its delivery stood when it was asked for,
//! so that whoever takes it a second time sees that what it asks for was done.

use crate::{CommandId, DeliveryRef, EndpointId, TenantId, Timestamp, TraceContext};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Identifies the command.
    pub id: CommandId,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Who asked: a key's id.
    pub actor: String,
    /// What is to be done.
    pub order: Order,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// End a delivery without another attempt.
    Cancel(Box<Aim>),
    /// Make a delivery's next attempt now.
    RetryNow(Box<Aim>),
    /// End every delivery of an endpoint whose event was accepted before the command was asked
    /// for.
    CancelAll {
        /// Whose endpoint it is.
        tenant: TenantId,
        /// The endpoint.
        endpoint: EndpointId,
    },
}

/// A delivery, as it stood when something was asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    /// The delivery.
    pub delivery: DeliveryRef,
    /// The number of its next attempt.
    pub attempt: u32,
    /// Whether nothing was on record about it but the routing of its event.
    pub untouched: bool,
    /// The sequence of JOURNAL up to which its facts were read: what has happened since comes after
    /// it.
    pub journal_sequence: u64,
    /// The trace of its event; empty if there is none.
    pub trace: TraceContext,
}
