//! Events: what happened at a producer.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{EventId, EventType, TenantId, Timestamp, TraceContext};

/// Something that happened, as a producer told it. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "`type` alone is a keyword")]
pub struct Event {
    /// Identifies the event.
    pub id: EventId,
    /// Whose event it is.
    pub tenant: TenantId,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// When it happened, by the producer; its acceptance if the producer did not say.
    pub occurred_at: Timestamp,
    /// When it was accepted: the time at which INBOX stored it. `None` for an event that is
    /// accepted by being stored in EVENTS, whose time then counts.
    pub accepted_at: Option<Timestamp>,
    /// A revision of CONFIG that has every change that was acknowledged before the event was
    /// accepted; maybe later ones too. `None` if that is not known, as with an event that is accepted
    /// by being stored in EVENTS. A replay does not change it: it is about the first acceptance.
    pub config_revision: Option<u64>,
    /// One JSON value, byte for byte as the producer sent it, checked to be well formed UTF-8.
    pub data: Bytes,
    /// Events of one tenant with the same key keep their order where an endpoint asks for it.
    pub ordering_key: Option<String>,
    /// Short facts about the event beside its data. Names are lower case.
    pub attributes: BTreeMap<String, String>,
    /// The producer's idempotency key, if it gave one.
    pub idempotency_key: Option<String>,
    /// Where the event stands in its producer's trace.
    pub trace: TraceContext,
}

/// An event in its place in the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event.
    pub event: Arc<Event>,
    /// Its sequence in EVENTS.
    pub sequence: u64,
    /// When it was accepted; see [`Event::accepted_at`].
    pub accepted_at: Timestamp,
    /// The envelope as it is stored, so that it can be passed on without encoding it again.
    pub envelope: Bytes,
}
