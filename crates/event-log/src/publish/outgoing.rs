//! A message on its way, and the repeating of it until its outcome is known.

use std::time::Duration;

use async_nats::{
    HeaderMap, HeaderName, HeaderValue, Subject,
    client::{PublishError as ClientError, PublishErrorKind},
    header::NATS_MESSAGE_ID,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::{
    EventLog, PublishError, Stored,
    log::server_time,
    publish::{
        acks::{ANSWER_MAX, ANSWER_MIN, Ticket},
        verdict::Verdict,
    },
    topology::Stream,
};

/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After how long a person should look into it.
const WORRY: Duration = Duration::from_secs(15);
/// How far before its first sending a message is looked for: clocks of servers differ.
const MARGIN: Duration = Duration::from_secs(5);

/// A message, encoded once and kept for as long as it may have to be repeated.
pub(crate) struct Outgoing {
    pub(crate) stream: Stream,
    pub(crate) subject: Subject,
    /// By which the server knows it again.
    pub(crate) id: Option<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) payload: Bytes,
}

impl Outgoing {
    /// What it counts against the servers' limit, in bytes.
    pub(crate) fn size(&self) -> usize {
        let line = |name: &str, value: &str| name.len() + value.len() + 4;
        let id = self.id.as_deref().map_or(0, |id| line(NATS_MESSAGE_ID.as_ref(), id));
        let others = self.headers.iter().map(|(name, value)| line(name.as_ref(), value.as_str()));
        14 + id + others.sum::<usize>() + self.payload.len()
    }

    pub(crate) fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        if let Some(id) = &self.id {
            map.insert(NATS_MESSAGE_ID, id.as_str());
        }
        for (name, value) in &self.headers {
            map.append(name.clone(), value.clone());
        }
        map
    }
}

impl Stream {
    /// Whether a copy outside of the duplicate window would be another record. In a work queue
    /// it is not: what the copy asks for is on record by then, or was never done; and a schedule
    /// replaces the one before.
    pub(crate) const fn must_be_unique(self) -> bool {
        match self {
            Self::Events
            | Self::Journal
            | Self::Rejected
            | Self::Dead
            | Self::Jobs
            | Self::Config => true,
            Self::Inbox | Self::Deliveries | Self::Retries | Self::Commands => false,
        }
    }
}

impl EventLog {
    /// Tells whether a message can be sent at all; returns its size in bytes.
    pub(crate) fn sendable(&self, message: &Outgoing) -> Result<usize, PublishError> {
        if self.inner.closed.is_cancelled() {
            return Err(PublishError::Closed);
        }
        let (bytes, max) = (message.size(), self.payload_max());
        if bytes > max { Err(PublishError::TooLarge { bytes, max }) } else { Ok(bytes) }
    }

    /// Hands a message to the connection, without waiting for anything but room in its queue.
    pub(crate) async fn send(&self, message: &Outgoing) -> Result<Ticket, PublishError> {
        self.sendable(message)?;
        let (ticket, reply) = self.inner.acks.ticket();
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        let client = &self.inner.client;
        let sent = client
            .publish_with_reply_and_headers(subject, reply, message.header_map(), payload)
            .await;
        sent.map(|()| ticket).map_err(|error| self.unsent(message, error))
    }

    /// Judges why the client did not take a message.
    pub(crate) fn unsent(&self, message: &Outgoing, error: ClientError) -> PublishError {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                PublishError::TooLarge { bytes: message.size(), max: self.payload_max() }
            }
            PublishErrorKind::InvalidSubject => {
                PublishError::Malformed { what: "subject", source: error.into() }
            }
            PublishErrorKind::Send => PublishError::Closed,
        }
    }

    /// Waits for the outcome of a message that was sent, and repeats it while that is unknown.
    pub(crate) async fn outcome(
        &self,
        message: &Outgoing,
        ticket: Ticket,
        sent: Instant,
    ) -> Result<Stored, PublishError> {
        self.until_known(message, Tried::Sent(ticket), sent).await
    }

    /// Finds out what became of a message whose first try, at `sent`, has an unknown outcome, and
    /// repeats it until that is known.
    pub(crate) async fn find_out(
        &self,
        message: &Outgoing,
        why: &'static str,
        sent: Instant,
    ) -> Result<Stored, PublishError> {
        self.until_known(message, Tried::Unknown(why), sent).await
    }

    async fn until_known(
        &self,
        message: &Outgoing,
        tried: Tried,
        sent: Instant,
    ) -> Result<Stored, PublishError> {
        let closed = self.inner.closed.clone();
        let repeating = self.repeat(message, tried, sent);
        closed.run_until_cancelled_owned(repeating).await.unwrap_or(Err(PublishError::Closed))
    }

    async fn repeat(
        &self,
        message: &Outgoing,
        mut tried: Tried,
        sent: Instant,
    ) -> Result<Stored, PublishError> {
        let mut doubt =
            Doubt { sent, covered: sent, pause: PAUSE_MIN, patience: ANSWER_MIN, worried: false };
        loop {
            let why = match tried {
                Tried::Sent(ticket) => {
                    match self.conclude(message.stream, ticket.verdict(doubt.patience).await) {
                        Ok(outcome) => return outcome,
                        Err(why) => why,
                    }
                }
                Tried::Unknown(why) => why,
            };
            // Boxed, because it is rare and large, and waits for acknowledgements are many.
            match Box::pin(self.again(message, &mut doubt, why)).await? {
                Again::Sent(ticket) => tried = Tried::Sent(ticket),
                Again::Found(sequence) => return Ok(Stored { sequence, duplicate: true }),
            }
        }
    }

    /// Turns a verdict on a message that expected no sequence into its outcome; `Err` says why it
    /// is not known yet.
    pub(crate) fn conclude(
        &self,
        stream: Stream,
        verdict: Verdict,
    ) -> Result<Result<Stored, PublishError>, &'static str> {
        match verdict {
            Verdict::Stored(stored) => Ok(Ok(stored)),
            Verdict::Full => Ok(Err(self.full(stream))),
            Verdict::Refused(refusal) => Ok(Err(self.refused(stream, refusal))),
            Verdict::Conflict => Ok(Err(self.refused(stream, Unexpected))),
            Verdict::Unknown(why) => Err(why),
        }
    }

    /// Sends a message again, unless it turns out to be there.
    fn again<'a>(
        &'a self,
        message: &'a Outgoing,
        doubt: &'a mut Doubt,
        why: &'static str,
    ) -> BoxFuture<'a, Result<Again, PublishError>> {
        Box::pin(async move {
            let subject = message.subject.as_str();
            if !doubt.worried && doubt.sent.elapsed() > WORRY {
                doubt.worried = true;
                warn!(why, subject, "a publish is repeated and its outcome still unknown");
            }
            debug!(why, subject, "the outcome of a publish is unknown: repeating it");
            doubt.patience = (doubt.patience * 3 / 2).min(ANSWER_MAX);
            loop {
                sleep(doubt.pause).await;
                doubt.pause = (doubt.pause * 2).min(PAUSE_MAX);
                self.inner.link.up(&self.inner.client).await;
                let known = doubt.covered.elapsed() <= self.inner.settings.duplicate_window / 2;
                if known || !message.stream.must_be_unique() {
                    return self.send(message).await.map(Again::Sent);
                }
                let looked = Instant::now();
                match self.look_for(message, doubt.sent).await {
                    Ok(Some(sequence)) => return Ok(Again::Found(sequence)),
                    Ok(None) => {
                        doubt.covered = looked;
                        return self.send(message).await.map(Again::Sent);
                    }
                    Err(error) => debug!(%error, subject, "cannot look for a message yet"),
                }
            }
        })
    }

    /// Looks in the stream itself, because the server may have forgotten the id.
    fn look_for<'a>(
        &'a self,
        message: &'a Outgoing,
        sent: Instant,
    ) -> BoxFuture<'a, Result<Option<u64>, async_nats::Error>> {
        Box::pin(async move {
            let Some(id) = &message.id else { return Ok(None) };
            let stream = self.topology().stream(message.stream);
            let now = server_time(&self.inner.jetstream, &stream).await?;
            let since = now.saturating_sub(sent.elapsed() + MARGIN);
            Ok(self.find_id(message.stream, message.subject.as_str(), id, since).await?)
        })
    }

    pub(crate) fn full(&self, stream: Stream) -> PublishError {
        PublishError::Full { stream: self.topology().stream(stream) }
    }

    pub(crate) fn refused(
        &self,
        stream: Stream,
        source: impl Into<async_nats::Error>,
    ) -> PublishError {
        PublishError::Refused { stream: self.topology().stream(stream), source: source.into() }
    }
}

/// What is known of a message whose outcome is not.
struct Doubt {
    sent: Instant,
    /// Whatever the server stored of it before this time, it either knows the id of, or we have
    /// looked for it.
    covered: Instant,
    pause: Duration,
    patience: Duration,
    worried: bool,
}

/// How the last try went.
enum Tried {
    Sent(Ticket),
    Unknown(&'static str),
}

/// How a repeat went.
enum Again {
    Sent(Ticket),
    Found(u64),
}

/// A conflict where nothing was expected.
#[derive(Debug, thiserror::Error)]
#[error("the server compared a sequence that was not given")]
struct Unexpected;
