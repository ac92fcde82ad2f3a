//! Compare-and-set on the last message of a subject, with an outcome that is always found out.
//!
//! A write whose answer got lost is tried again; the server then refuses it because of itself.
//! So every write carries a mark of its own, and the first message after the one it expected
//! tells whose write won. All questions go to the stream's leader.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        context::{PublishError as AckError, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
        stream::{RawMessageError, RawMessageErrorKind},
    },
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::{EventLog, PublishError, ReadError, log::Lost};

/// The header that holds a write's mark.
const MARK: &str = "Fanfare-Change";
/// The header by which key-value tools know a deleted key.
const OPERATION: &str = "KV-Operation";

/// How long the marker of a deleted key is kept, so that they do not pile up.
const MARKER: Duration = Duration::from_hours(1);

/// How long to wait after an unknown outcome.
const PAUSE: Duration = Duration::from_millis(100);

/// The last message of one subject, as a register.
pub(crate) struct Cell {
    log: EventLog,
    stream: String,
    subject: String,
}

/// What a register held when it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Where the message stands in the stream.
    pub(crate) sequence: u64,
    /// What it holds; `None` if the key was deleted.
    pub(crate) value: Option<Bytes>,
    mark: Option<String>,
}

/// How a write ended.
#[derive(Debug)]
pub(crate) enum Set {
    /// The register holds the value, at this sequence, or held it until somebody read it there.
    Stored(u64),
    /// The register, or its stream, was not as expected. The register holds this; nothing if it
    /// was purged.
    Conflict(Option<Held>),
}

/// What to write.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// A value.
    Value(Bytes),
    /// The marker of a deleted key, which goes away by itself after an hour. The bucket has to
    /// allow that.
    Deleted,
}

/// What a write wants to find.
#[derive(Clone, Copy)]
struct Expected {
    /// The register's last sequence; 0 for "there is none".
    register: u64,
    /// The last sequence of all the stream, where that matters.
    stream: Option<u64>,
}

/// How one try ended, as far as it is known.
enum Tried {
    Stored(u64),
    Conflict,
    Unknown,
}

/// The register could not be read at this moment.
#[derive(Debug, thiserror::Error)]
#[error("the leader of {stream} did not answer")]
pub(crate) struct Unanswered {
    stream: String,
    /// What the client said.
    #[source]
    pub(crate) source: async_nats::Error,
}

impl From<Unanswered> for ReadError {
    fn from(unanswered: Unanswered) -> Self {
        refused(&unanswered.stream.clone(), unanswered)
    }
}

/// Wraps what kept us from reading a stream or bucket.
pub(crate) fn refused(stream: &str, source: impl Into<async_nats::Error>) -> ReadError {
    ReadError::Refused { stream: stream.to_owned(), source: source.into() }
}

impl EventLog {
    /// The last message of a subject of a stream.
    pub(crate) fn cell(&self, stream: String, subject: String) -> Cell {
        Cell { log: self.clone(), stream, subject }
    }

    /// A key of a key-value bucket.
    pub(crate) fn key(&self, bucket: &str, key: &str) -> Cell {
        self.cell(format!("KV_{bucket}"), format!("$KV.{bucket}.{key}"))
    }
}

impl Cell {
    /// Writes if the register's last sequence is `expected`; 0 for "there is none".
    ///
    /// Repeats until the outcome is known, for ever if need be: bound it from outside. Dropped
    /// half-way, it leaves open whether the value was written.
    pub(crate) fn set<'a>(
        &'a self,
        expected: u64,
        write: &'a Write,
    ) -> BoxFuture<'a, Result<Set, PublishError>> {
        Box::pin(self.find_out(Expected { register: expected, stream: None }, write))
    }

    /// The same, if nothing at all was written into the stream behind `last`: otherwise there is a
    /// conflict too.
    pub(crate) fn set_at<'a>(
        &'a self,
        (expected, last): (u64, u64),
        write: &'a Write,
    ) -> BoxFuture<'a, Result<Set, PublishError>> {
        Box::pin(self.find_out(Expected { register: expected, stream: Some(last) }, write))
    }

    /// What the register holds, by its stream's leader.
    pub(crate) fn get(&self) -> BoxFuture<'_, Result<Option<Held>, Unanswered>> {
        Box::pin(async move {
            let stream = self.no_info().await?;
            self.held(stream.get_last_raw_message_by_subject(&self.subject)).await
        })
    }

    /// Tries until it is known how a write ended.
    async fn find_out(&self, expected: Expected, write: &Write) -> Result<Set, PublishError> {
        // An inbox name is never used twice, by any process.
        let mark = self.log.inner.client.new_inbox();
        loop {
            match self.try_set(expected, write, &mark).await? {
                Tried::Stored(sequence) => return Ok(Set::Stored(sequence)),
                Tried::Conflict => match self.winner(expected, &mark).await {
                    Ok(Some(set)) => return Ok(set),
                    Ok(None) => {}
                    Err(error) => debug!(%error, "cannot tell yet whose write won"),
                },
                Tried::Unknown => {}
            }
            sleep(PAUSE).await;
            self.log.inner.link.up(&self.log.inner.client).await;
        }
    }

    /// Finds out what followed what was expected. `None` if nothing did, as far as the leader can
    /// show it: the conflict was with a write that was under way, and is over.
    async fn winner(&self, expected: Expected, mark: &str) -> Result<Option<Set>, Unanswered> {
        // What is written only from the end of the stream comes right behind that.
        let (before, subject) = match expected.stream {
            Some(last) => (last, ">"),
            None => (expected.register, self.subject.as_str()),
        };
        let stream = self.no_info().await?;
        let behind = stream.raw_message_builder().sequence(before.saturating_add(1));
        match self.held(behind.next_by_subject(subject).send()).await? {
            Some(held) if held.mark.as_deref() == Some(mark) => {
                Ok(Some(Set::Stored(held.sequence)))
            }
            Some(_) => Ok(Some(Set::Conflict(self.get().await?))),
            None => {
                let last = self.get().await?;
                let unchanged = last.as_ref().map_or(0, |held| held.sequence) == expected.register;
                Ok(if unchanged { None } else { Some(Set::Conflict(last)) })
            }
        }
    }

    async fn try_set(
        &self,
        expected: Expected,
        write: &Write,
        mark: &str,
    ) -> Result<Tried, PublishError> {
        let mut message = PublishMessage::build()
            .header(MARK, mark)
            .expected_last_subject_sequence(expected.register);
        if let Some(last) = expected.stream {
            message = message.expected_last_sequence(last);
        }
        match write {
            Write::Value(value) => message = message.payload(value.clone()),
            Write::Deleted => message = message.header(OPERATION, "DEL").ttl(MARKER),
        }
        let context = &self.log.inner.jetstream;
        let sent = async { context.send_publish(self.subject.clone(), message).await?.await };
        // Boxed, because it is large.
        match timeout(self.log.inner.patience, self.log.answer(Box::pin(sent))).await {
            Ok(Ok(Ok(ack))) => Ok(Tried::Stored(ack.sequence)),
            Ok(Ok(Err(error))) => self.judge(error, write),
            Ok(Err(Lost)) | Err(_) => Ok(Tried::Unknown),
        }
    }

    fn judge(&self, error: AckError, write: &Write) -> Result<Tried, PublishError> {
        match error.kind() {
            PublishErrorKind::WrongLastSequence => return Ok(Tried::Conflict),
            PublishErrorKind::MaxPayloadExceeded => {
                let bytes = match write {
                    Write::Value(value) => value.len(),
                    Write::Deleted => 0,
                };
                let max = self.log.payload_max();
                return Err(PublishError::TooLarge { bytes, max });
            }
            // No stream: the servers are starting, or have no leader.
            PublishErrorKind::StreamNotFound
            | PublishErrorKind::TimedOut
            | PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending => return Ok(Tried::Unknown),
            PublishErrorKind::WrongLastMessageId | PublishErrorKind::Other => {}
        }
        let said = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<jetstream::Error>());
        match said.map(jetstream::Error::error_code) {
            Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => Ok(Tried::Conflict),
            Some(
                ErrorCode::CLUSTER_NOT_AVAILABLE
                | ErrorCode::CLUSTER_NOT_LEADER
                | ErrorCode::STREAM_OFFLINE
                | ErrorCode::STREAM_OFFLINE_REASON
                | ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT,
            )
            | None => {
                debug!(%error, stream = self.stream, "the outcome of a write is unknown");
                Ok(Tried::Unknown)
            }
            Some(_) => Err(PublishError::from_ack(&self.stream, error)),
        }
    }

    async fn no_info(&self) -> Result<jetstream::stream::Stream<()>, Unanswered> {
        let stream = self.log.inner.jetstream.get_stream_no_info(&self.stream).await;
        stream.map_err(|error| self.unanswered(error))
    }

    async fn held(
        &self,
        asked: impl Future<Output = Result<StreamMessage, RawMessageError>>,
    ) -> Result<Option<Held>, Unanswered> {
        // Boxed, because it is large.
        match timeout(self.log.inner.patience, self.log.answer(Box::pin(asked))).await {
            Ok(Ok(Ok(message))) => Ok(Some(Held::from(message))),
            Ok(Ok(Err(error))) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Ok(Ok(Err(error))) => Err(self.unanswered(error)),
            Ok(Err(lost)) => Err(self.unanswered(lost)),
            Err(elapsed) => Err(self.unanswered(elapsed)),
        }
    }

    fn unanswered(&self, source: impl Into<async_nats::Error>) -> Unanswered {
        Unanswered { stream: self.stream.clone(), source: source.into() }
    }
}

impl From<StreamMessage> for Held {
    fn from(message: StreamMessage) -> Self {
        Self::of(message.sequence, &message.headers, message.payload)
    }
}

impl Held {
    /// Reads a message of a register.
    pub(crate) fn of(sequence: u64, headers: &HeaderMap, payload: Bytes) -> Self {
        let header = |name| headers.get(name).map(|value| value.as_str().to_owned());
        let deleted = header(OPERATION).is_some_and(|operation| operation != "PUT");
        Self { sequence, mark: header(MARK), value: Some(payload).filter(|_| !deleted) }
    }
}
