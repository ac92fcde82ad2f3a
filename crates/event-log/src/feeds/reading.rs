//! Reading EVENTS for a feed: some events at a time, by questions that leave nothing behind on the
//! servers, so that a feed that waits costs nothing.

use std::{str::FromStr, time::Duration};

use async_nats::{
    HeaderMap, StatusCode, Subject,
    client::Request,
    jetstream::{consumer::Info, stream::RawMessageErrorKind},
};
use bytes::Bytes;
use fanfare_domain::{StoredEvent, TenantId, Timestamp, TypePattern, chain};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::error;

use crate::{
    EventLog, ReadError,
    log::ask,
    read::{FAN_OUT, Patience},
    topology::Stream,
};

/// How long the next message of an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What is left out of a time where it is written.
const ROUNDED: Duration = Duration::from_millis(1);

/// What to read, and how much of it.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Whose events.
    pub tenant: TenantId,
    /// The patterns of which types; others may come along.
    pub patterns: Vec<TypePattern>,
    /// The first sequence.
    pub from: u64,
    /// The most events.
    pub count: usize,
    /// The bytes after which no more are read.
    pub bytes: usize,
}

/// Some events, in the order of EVENTS.
#[derive(Debug)]
pub struct Batch {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Where to go on.
    pub next: u64,
    /// Whether there was more.
    pub more: bool,
}

/// A message of a stream.
pub(crate) struct Message {
    pub(crate) sequence: u64,
    stored_at: Timestamp,
    pub(crate) payload: Bytes,
}

/// The answer broke off.
#[derive(Debug, thiserror::Error)]
#[error("the servers' answer broke off")]
struct Cut;

impl EventLog {
    /// Reads some events. A server that is not up to date may say that there are no more though
    /// there are; it never leaves one out in between. Loss of the connection is waited out.
    ///
    /// An event that cannot be decoded is passed over with an error in the log; one that a newer
    /// version wrote is [`ReadError::Unreadable`].
    pub async fn read_feed(&self, reach: &Reach) -> Result<Batch, ReadError> {
        let subject = self.topology().events_like(&reach.tenant, &reach.patterns);
        let question = json!({
            "seq": reach.from.max(1), "next_by_subj": subject,
            "batch": reach.count, "max_bytes": reach.bytes,
        });
        let mut patience = Patience::new(self, self.topology().stream(Stream::Events));
        loop {
            match self.answer(self.ask_directly(Stream::Events, &question)).await {
                Ok(Ok((messages, more))) => return self.decode_batch(reach, messages, more),
                Ok(Err(error)) => patience.bear(error).await?,
                Err(lost) => patience.bear(lost.into()).await?,
            }
        }
    }

    /// The sequence of the first such event from a sequence on, by the stream's leader; `None` if
    /// there is none.
    pub async fn first_event(
        &self,
        tenant: &TenantId,
        patterns: &[TypePattern],
        from: u64,
    ) -> Result<Option<u64>, ReadError> {
        let subject = self.topology().events_like(tenant, patterns);
        let mut patience = Patience::new(self, self.topology().stream(Stream::Events));
        loop {
            let stream = self.stream(Stream::Events).await?;
            let question = stream.raw_message_builder().sequence(from.max(1));
            let question = question.next_by_subject(&*subject).send();
            match self.answer(question).await {
                Ok(Ok(message)) => return Ok(Some(message.sequence)),
                Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    return Ok(None);
                }
                Ok(Err(error)) => patience.bear(error.into()).await?,
                Err(lost) => patience.bear(lost.into()).await?,
            }
        }
    }

    /// The sequence of the first event that was stored at a time or later; one more than the last
    /// sequence if there is none. Never too small: the time is taken to the next millisecond, and a
    /// server that is not up to date may say one that is too large.
    pub async fn first_event_at(&self, time: Timestamp) -> Result<u64, ReadError> {
        let end = self.events_last().await?;
        let subject = self.topology().subjects(Stream::Events).concat();
        let question = json!({
            "start_time": time.saturating_add(ROUNDED).to_string(), "next_by_subj": subject, "batch": 1,
        });
        let mut patience = Patience::new(self, self.topology().stream(Stream::Events));
        loop {
            match self.answer(self.ask_directly(Stream::Events, &question)).await {
                Ok(Ok((messages, _))) => {
                    let first = messages.first().map(|message| message.sequence);
                    return Ok(first.unwrap_or(end.saturating_add(1)));
                }
                Ok(Err(error)) => patience.bear(error).await?,
                Err(lost) => patience.bear(lost.into()).await?,
            }
        }
    }

    /// The last sequence of EVENTS, by its leader.
    pub async fn events_last(&self) -> Result<u64, ReadError> {
        self.last_sequence(Stream::Events).await
    }

    /// The sequence of EVENTS up to which everything is routed.
    pub async fn routed_until(&self) -> Result<u64, ReadError> {
        let name = self.topology().stream(Stream::Events);
        let question = format!("CONSUMER.INFO.{name}.{FAN_OUT}");
        let mut patience = Patience::new(self, name);
        loop {
            match self.answer(ask::<Info>(&self.inner.jetstream, &question)).await {
                Ok(Ok(info)) => return Ok(info.ack_floor.stream_sequence),
                // Fan-out has never run.
                Ok(Err(error)) if error.is_not_found() => return Ok(0),
                Ok(Err(error)) => patience.bear(error.into()).await?,
                Err(lost) => patience.bear(lost.into()).await?,
            }
        }
    }

    /// Asks for messages of a stream; returns them, and whether there are more.
    pub(crate) async fn ask_directly(
        &self,
        stream: Stream,
        question: &Value,
    ) -> Result<(Vec<Message>, bool), async_nats::Error> {
        let inbox = self.inner.client.new_inbox();
        let mut answers = self.inner.client.subscribe(inbox.clone()).await?;
        let request = Request::new().inbox(inbox).payload(Bytes::from(question.to_string()));
        let api = Subject::from(format!("DIRECT.GET.{}", self.topology().stream(stream)));
        self.inner.jetstream.send_request(api, request).await?;
        let mut messages = Vec::new();
        loop {
            let answer = timeout(ANSWER, answers.next()).await?.ok_or(Cut)?;
            let headers = answer.headers.unwrap_or_default();
            match answer.status {
                None => messages.push(Message {
                    sequence: number(&headers, "Nats-Sequence").ok_or(Cut)?,
                    stored_at: time(&headers).ok_or(Cut)?,
                    payload: answer.payload,
                }),
                // The end of this answer.
                Some(status) if status.as_u16() == 204 => {
                    let more = number(&headers, "Nats-Num-Pending").unwrap_or_default() > 0;
                    return Ok((messages, more));
                }
                Some(StatusCode::NOT_FOUND) => return Ok((messages, false)),
                Some(_) => return Err(Cut.into()),
            }
        }
    }

    fn decode_batch(
        &self,
        reach: &Reach,
        messages: Vec<Message>,
        more: bool,
    ) -> Result<Batch, ReadError> {
        let next = messages.last().map_or(reach.from, |last| last.sequence + 1);
        let mut events = Vec::with_capacity(messages.len());
        for Message { sequence, stored_at, payload } in messages {
            match fanfare_proto::decode_event(payload, sequence, stored_at) {
                Ok(event) => events.push(event),
                Err(source) if source.is_from_newer_version() => {
                    let stream = self.topology().stream(Stream::Events);
                    return Err(ReadError::Unreadable { stream, sequence, source });
                }
                // Fan-out sets it aside.
                Err(unreadable) => {
                    error!(error = chain(&unreadable), sequence, "an event cannot be read");
                }
            }
        }
        Ok(Batch { events, next, more })
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    u64::from_str(headers.get(name)?.as_str()).ok()
}

fn time(headers: &HeaderMap) -> Option<Timestamp> {
    Timestamp::parse(headers.get("Nats-Time-Stamp")?.as_str())
}
