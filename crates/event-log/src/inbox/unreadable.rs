//! Messages of INBOX that break the connection of whoever they are handed out to.
//!
//! The servers pass headers on without looking at them. Our client gives the connection up when
//! they are malformed, or its task dies; a status line it takes for a word of the server's. Such
//! a message is never seen by a reader, and is handed out for ever. So it is looked for in another
//! way: the API of `JetStream` returns headers as text, in Base64.

use std::time::Duration;

use async_nats::jetstream::{ErrorCode, consumer::Info};
use bytes::Bytes;
use data_encoding::{BASE64, BASE64_MIME_PERMISSIVE};
use fanfare_domain::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    EventLog, Headers, InboxMessage, ReadError, cas,
    log::{ApiError, ask, tell},
    read::{INGEST, connects},
    topology::Stream,
};

/// The header under which the original headers are kept.
const ORIGINAL_HEADERS: &str = "Fanfare-Original-Headers";

/// How long a word of the client's own task is waited for.
const ALIVE: Duration = Duration::from_secs(1);

/// A message of INBOX that no reader will ever see.
#[derive(Clone, Debug)]
pub struct UnreadableMessage {
    /// Its sequence in INBOX.
    pub sequence: u64,
    /// When INBOX stored it.
    pub stored_at: Timestamp,
    /// What it holds; its headers as they were, in Base64, are the value of the only one.
    pub message: InboxMessage,
    /// What is wrong with it.
    pub detail: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    time: String,
}

impl EventLog {
    /// How often the connection was made. Another number than before means that what was on its
    /// way in between is lost.
    pub fn connections(&self) -> u64 {
        connects(self)
    }

    /// Tells whether the client still works at all: it dies of headers with a lone carriage
    /// return. A client that is looking for a server works.
    pub async fn is_alive(&self) -> bool {
        !matches!(timeout(ALIVE, self.inner.client.flush()).await, Ok(Err(_)))
    }

    /// Looks for messages that were handed out, are not settled, and cannot be read.
    ///
    /// `redelivered_only`: not if no message was handed out more than once. Asks for each
    /// unsettled message; call it through another connection than the reader's, and before INBOX
    /// is taken over: what was handed out before that is not known afterwards.
    pub async fn unreadable_inbox(
        &self,
        redelivered_only: bool,
    ) -> Result<Vec<UnreadableMessage>, ReadError> {
        let name = self.topology().stream(Stream::Inbox);
        let refused = |error: async_nats::Error| cas::refused(&name, error);
        let mut found = Vec::new();
        let subject = format!("CONSUMER.INFO.{name}.{INGEST}");
        let info: Info = match ask(&self.inner.jetstream, &subject).await {
            Ok(info) => info,
            // Nobody has read INBOX yet.
            Err(error) if error.is_not_found() => return Ok(found),
            Err(error) => return Err(refused(error.into())),
        };
        if info.num_ack_pending == 0 || (redelivered_only && info.num_redelivered == 0) {
            return Ok(found);
        }
        let mut next = info.ack_floor.stream_sequence + 1;
        while next <= info.delivered.stream_sequence {
            let Some(stored) =
                self.stored(&name, next).await.map_err(|error| refused(error.into()))?
            else {
                break;
            };
            next = stored.seq + 1;
            found.extend(self.unreadable(stored));
        }
        Ok(found)
    }

    /// Removes a message that cannot be read from INBOX. That it is gone already is no error.
    pub async fn remove_unreadable(&self, unreadable: &UnreadableMessage) -> Result<(), ReadError> {
        let name = self.topology().stream(Stream::Inbox);
        let question = json!({ "seq": unreadable.sequence, "no_erase": true });
        let subject = format!("STREAM.MSG.DELETE.{name}");
        match tell::<_, serde_json::Value>(&self.inner.jetstream, &subject, &question).await {
            Ok(_) => Ok(()),
            Err(error) if error.is(ErrorCode::STREAM_MESSAGE_DELETE_FAILED) => Ok(()),
            Err(error) if error.is(ErrorCode::NO_MESSAGE_FOUND) => Ok(()),
            Err(error) => Err(cas::refused(&name, error)),
        }
    }

    /// The first message at a sequence or behind it.
    async fn stored(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, ApiError> {
        let question = json!({ "seq": sequence, "next_by_subj": ">" });
        let subject = format!("STREAM.MSG.GET.{stream}");
        match tell::<_, Answer>(&self.inner.jetstream, &subject, &question).await {
            Ok(answer) => Ok(Some(answer.message)),
            Err(error) if error.is(ErrorCode::NO_MESSAGE_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn unreadable(&self, stored: Stored) -> Option<UnreadableMessage> {
        let Stored { subject, seq, hdrs, data, time } = stored;
        let decoded =
            |text: &str| BASE64_MIME_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
        let raw = decoded(&hdrs);
        let detail = defect(&subject, &raw)?;
        let place = self.topology().tokens(&subject, "inbox").unwrap_or(&subject);
        let original = (ORIGINAL_HEADERS.to_owned(), BASE64.encode(&raw));
        let mut message = InboxMessage::of(place, None, Bytes::from(decoded(&data)));
        message.headers = Headers::new(vec![original]);
        let stored_at = Timestamp::parse(&time).unwrap_or_default();
        Some(UnreadableMessage { sequence: seq, stored_at, message, detail })
    }
}

/// What keeps our client from reading a message; `None` if nothing does. As strict as the client,
/// and no stricter: what it can read is in somebody's hands.
fn defect(subject: &str, headers: &[u8]) -> Option<&'static str> {
    // What stands for bytes that were not UTF-8.
    if subject.contains(char::REPLACEMENT_CHARACTER) {
        return Some("its subject is not UTF-8");
    }
    if headers.is_empty() {
        return None;
    }
    let Ok(text) = std::str::from_utf8(headers) else { return Some("its headers are not UTF-8") };
    let mut lines = text.lines().peekable();
    let Some(status) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else {
        return Some("its headers do not begin with NATS/1.0");
    };
    if !status.trim().is_empty() {
        return Some("its headers have a status, as only those of servers may");
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Some("a line of its headers has no colon");
        };
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some("the name of a header is not made of printable ASCII");
        }
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        if value.trim_end().contains('\r') {
            return Some("the value of a header has a lone carriage return");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_can_read_has_no_defect() {
        for headers in [
            &b""[..],
            b"NATS/1.0\r\n\r\n",
            b"NATS/1.0\r\nA: b\r\nA:c\r\n\r\n",
            b"NATS/1.0\r\nA: b\r\n continued\r\n\r\n",
            "NATS/1.0\r\nA: é\r\n\r\n".as_bytes(),
            b"NATS/1.0\nA: b\n\n",
            b"NATS/1.0\r\n: nameless\r\n\r\n",
            b"NATS/1.0\r\nA: ends in a return\r\r\n\r\n",
        ] {
            assert_eq!(defect("a", headers), None, "{}", String::from_utf8_lossy(headers));
        }
    }

    #[test]
    fn what_breaks_the_client_has_one() {
        for headers in [
            &b"NATS/1.0\r\nA: \xff\r\n\r\n"[..],
            b"nonsense",
            b"NATS/1.0 503\r\n\r\n",
            b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
            b"NATS/1.0X\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\na b: c\r\n\r\n",
            b"NATS/1.0\r\nA: b\rc\r\n\r\n",
            b"NATS/1.0\r\nA: b\r\n c\rd\r\n\r\n",
            b"NATS/1.0\r\nA: b\r\r\n c\r\n\r\n",
        ] {
            assert!(defect("a", headers).is_some(), "{}", String::from_utf8_lossy(headers));
        }
        assert!(defect("fanfare.inbox.acme.\u{fffd}", b"").is_some());
    }
}
