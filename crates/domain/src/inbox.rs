//! Events on their way in, as a producer sent them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Timestamp, TraceContext};

/// What a producer may say of an event, in whatever form it was sent. Nothing of it is judged
/// yet, but a malformed trace counts as none.
///
/// Its tenant and type come from the subject, and its id from its place in INBOX.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxEvent {
    /// The data, byte for byte.
    pub data: Bytes,
    /// The media type of the data; empty for `application/json`.
    pub content_type: String,
    /// When it happened, in whole milliseconds; `None` for its acceptance.
    pub occurred_at: Option<Timestamp>,
    /// Events of one tenant with the same key keep their order where an endpoint asks for it;
    /// never empty.
    pub ordering_key: Option<String>,
    /// Short facts about the event beside its data, with names as the producer wrote them.
    pub attributes: BTreeMap<String, String>,
    /// Of several events of one tenant with the same key, one is accepted; never empty.
    pub idempotency_key: Option<String>,
    /// Where the event stands in its producer's trace.
    pub trace: TraceContext,
}
