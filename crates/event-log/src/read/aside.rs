//! Setting aside what nobody can read, so that it neither stops the others nor is lost.

use async_nats::{HeaderName, HeaderValue, Message};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tracing::warn;

use crate::{
    EventLog, PublishError,
    publish::{self, outgoing::Outgoing},
    topology::{Stream, header},
};

/// What the headers of a record that was set aside may add, in bytes; of a record that leaves no
/// room for them, only the beginning is kept.
const HEADROOM: usize = 4 * 1024;
/// How much of the error is told, in bytes.
const ERROR_MAX: usize = 512;

/// A record that cannot be read.
#[derive(Clone)]
pub(crate) struct Unreadable {
    pub(crate) stream: Stream,
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
    pub(crate) error: String,
}

impl Unreadable {
    pub(crate) fn new(stream: Stream, sequence: u64, message: &Message, error: String) -> Self {
        let (subject, payload) = (message.subject.to_string(), message.payload.clone());
        Self { stream, sequence, subject, payload, error }
    }
}

impl EventLog {
    /// Copies a record to `<prefix>.aside.<stream>` of REJECTED, with where it was and what is
    /// wrong with it. Doing so again changes nothing.
    pub(crate) fn set_aside(
        self,
        record: Unreadable,
    ) -> BoxFuture<'static, Result<(), PublishError>> {
        Box::pin(async move {
            let Unreadable { stream, sequence, subject, payload, error } = record;
            let name = self.topology().stream(stream);
            warn!(
                stream = name,
                sequence, subject, error, "set aside a record that cannot be read"
            );
            let room = self.payload_max().saturating_sub(HEADROOM + subject.len());
            let told: String = error.chars().take(ERROR_MAX).collect();
            let message = Outgoing {
                stream: Stream::Rejected,
                subject: self.topology().aside(stream).into(),
                id: Some(format!("aside/{name}/{sequence}")),
                headers: vec![
                    (HeaderName::from_static(header::ASIDE_STREAM), publish::line(&name)),
                    (HeaderName::from_static(header::ASIDE_SEQUENCE), HeaderValue::from(sequence)),
                    (HeaderName::from_static(header::ASIDE_SUBJECT), publish::line(&subject)),
                    (HeaderName::from_static(header::ASIDE_ERROR), publish::line(&told)),
                ],
                payload: payload.slice(..payload.len().min(room)),
            };
            let sent = tokio::time::Instant::now();
            let ticket = self.send(&message).await?;
            self.outcome(&message, ticket, sent).await.map(drop)
        })
    }
}
