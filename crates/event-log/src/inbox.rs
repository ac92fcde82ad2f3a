//! Events on their way in: as protobuf, and those that our client cannot even read.

mod unreadable;

use bytes::Bytes;
use fanfare_domain::InboxEvent;
use fanfare_proto::DecodeError;

pub use unreadable::UnreadableMessage;

use crate::{EventLog, ReadError, topology::Stream};

impl EventLog {
    /// The last sequence of INBOX at this moment, by its leader. Loss of the connection is waited
    /// out.
    pub async fn inbox_last(&self) -> Result<u64, ReadError> {
        self.last_sequence(Stream::Inbox).await
    }
}

/// Bytes that are no `fanfare.v1.InboxEvent`.
#[derive(Debug, thiserror::Error)]
#[error("not a fanfare.v1.InboxEvent")]
pub struct MalformedInboxEvent {
    #[source]
    cause: DecodeError,
}

/// Reads an event that a producer sent as protobuf (`fanfare.v1.InboxEvent`). The data is a
/// slice of the input.
///
/// Refuses a time before the epoch, and one so late that it was probably not meant in
/// milliseconds. Empty keys and a malformed trace count as none; nothing else is judged.
pub fn decode_protobuf(bytes: Bytes) -> Result<InboxEvent, MalformedInboxEvent> {
    fanfare_proto::decode_inbox(bytes).map_err(|cause| MalformedInboxEvent { cause })
}

/// Writes an event as a producer may send it as protobuf.
pub fn encode_protobuf(event: &InboxEvent) -> Bytes {
    fanfare_proto::encode_inbox(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back() {
        let event = InboxEvent { data: Bytes::from_static(b"{}"), ..InboxEvent::default() };
        assert_eq!(decode_protobuf(encode_protobuf(&event)).unwrap(), event);
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(decode_protobuf(Bytes::from_static(b"{\"a\":1}")).is_err());
    }
}
