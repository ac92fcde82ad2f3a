//! The durable places that services read from.

use std::{str::FromStr, time::Duration};

use async_nats::{StatusCode, Subject, client::Request, jetstream::Message};
use bytes::Bytes;
use fanfare_domain::{Command, RetryDue, Shard, StoredEvent, Task};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    EventLog, InboxMessage, ReadError, Reader,
    read::{NotDecoded, Patience, Place, Position},
    topology::{Stream, header},
};

/// The consumer by which ingest reads INBOX.
pub(crate) const INGEST: &str = "ingest";
/// The consumer by which fan-out reads EVENTS.
pub(crate) const FAN_OUT: &str = "fan-out";
/// How many messages may be unsettled: of INBOX and EVENTS, and of a shard's queue.
const UNSETTLED_SHARED: i64 = 8192;
const UNSETTLED_SHARD: i64 = 4096;
/// How many messages are asked for at once when a queue is looked through, and how many bytes.
const LOOK_THROUGH: usize = 1000;
const LOOK_THROUGH_BYTES: usize = 8 * 1024 * 1024;
/// How long the next of them may take.
const ANSWER: Duration = Duration::from_secs(5);

impl EventLog {
    /// Reads INBOX, taking it over from whoever read it: what was handed out to them and is not
    /// settled comes here at once, from the oldest on, and they get [`ReadError::TakenOver`].
    ///
    /// Messages come for the first time in the order of INBOX; one that comes again has come
    /// before. Where that cannot be kept up, the reader ends with [`ReadError::Broken`].
    pub async fn read_inbox(&self) -> Result<Reader<InboxMessage>, ReadError> {
        let place = shared(Stream::Inbox, INGEST);
        Reader::open(self, Place { exclusive: true, unbroken: true, ..place }, inbox).await
    }

    /// Reads EVENTS for fan-out; several processes share the work.
    pub async fn read_events(&self) -> Result<Reader<StoredEvent>, ReadError> {
        Reader::open(self, shared(Stream::Events, FAN_OUT), event).await
    }

    /// Reads the tasks of a shard, message by message, taking the queue over from whoever read it: what was handed
    /// out to them and is not settled comes here at once, and they get
    /// [`ReadError::TakenOver`]. Only the shard's owner may call it.
    pub async fn read_tasks(&self, shard: Shard) -> Result<Reader<Vec<Task>>, ReadError> {
        let filter = self.topology().deliveries(shard);
        let place = exclusive(Stream::Deliveries, format!("dispatcher-{shard}"), filter);
        Reader::open(self, place, tasks).await
    }

    /// Reads the retries of a shard that are due, taking the queue over as
    /// [`Self::read_tasks`] does.
    pub async fn read_due(&self, shard: Shard) -> Result<Reader<RetryDue>, ReadError> {
        let filter = self.topology().retry_due(shard);
        let place = exclusive(Stream::Retries, format!("dispatcher-{shard}"), filter);
        Reader::open(self, place, due).await
    }

    /// Reads the commands to the owner of a shard, taking the queue over as
    /// [`Self::read_tasks`] does.
    pub async fn read_commands(&self, shard: Shard) -> Result<Reader<Command>, ReadError> {
        let filter = self.topology().command(shard);
        let place = exclusive(Stream::Commands, format!("dispatcher-{shard}"), filter);
        Reader::open(self, place, command).await
    }

    /// The smallest journal sequence that an unsettled task or due retry of the shard refers to;
    /// `None` if the queues are empty.
    ///
    /// Looks through both queues, which takes about a second for 100,000 messages. What is
    /// stored while it looks may be missed.
    pub async fn oldest_unsettled(&self, shard: Shard) -> Result<Option<u64>, ReadError> {
        let due = self.topology().retry_due(shard);
        let tasks = self.oldest_task_reference(shard).await?;
        let due = self.smallest_reference(Stream::Retries, due).await?;
        Ok(tasks.into_iter().chain(due).min())
    }

    /// The smallest journal sequence that an unsettled task of the shard refers to; `None` if
    /// there is no task.
    pub async fn oldest_task_reference(&self, shard: Shard) -> Result<Option<u64>, ReadError> {
        let deliveries = self.topology().deliveries(shard);
        self.smallest_reference(Stream::Deliveries, deliveries).await
    }

    async fn smallest_reference(
        &self,
        stream: Stream,
        subject: String,
    ) -> Result<Option<u64>, ReadError> {
        let mut patience = Patience::new(self, self.topology().stream(stream));
        let mut look = Look { smallest: None, next: 1, done: false };
        while !look.done {
            match self.answer(self.look_through(stream, &subject, &mut look)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => patience.bear(error).await?,
                Err(lost) => patience.bear(lost.into()).await?,
            }
        }
        Ok(look.smallest)
    }

    /// Takes one answer of many messages. On an error, `look` stands behind the last one.
    async fn look_through(
        &self,
        stream: Stream,
        subject: &str,
        look: &mut Look,
    ) -> Result<(), async_nats::Error> {
        let question = json!({
            "seq": look.next, "next_by_subj": subject,
            "batch": LOOK_THROUGH, "max_bytes": LOOK_THROUGH_BYTES,
        });
        let inbox = self.inner.client.new_inbox();
        let mut answers = self.inner.client.subscribe(inbox.clone()).await?;
        let request = Request::new().inbox(inbox).payload(Bytes::from(question.to_string()));
        let api = Subject::from(format!("DIRECT.GET.{}", self.topology().stream(stream)));
        self.inner.jetstream.send_request(api, request).await?;
        loop {
            let answer = timeout(ANSWER, answers.next()).await?.ok_or(Cut)?;
            let number = |name: &str| -> Option<u64> {
                let headers = answer.headers.as_ref()?;
                u64::from_str(headers.get(name)?.as_str()).ok()
            };
            match answer.status {
                None => {
                    look.next = number("Nats-Sequence").ok_or(Cut)? + 1;
                    // Without a number it may refer to anything.
                    let refers_to = number(header::JOURNAL_SEQUENCE).unwrap_or(1);
                    look.smallest = Some(look.smallest.unwrap_or(refers_to).min(refers_to));
                }
                // The end of this answer.
                Some(status) if status.as_u16() == 204 => {
                    look.done = number("Nats-Num-Pending").unwrap_or_default() == 0;
                    return Ok(());
                }
                Some(StatusCode::NOT_FOUND) => {
                    look.done = true;
                    return Ok(());
                }
                Some(_) => return Err(Cut.into()),
            }
        }
    }
}

/// How far a queue was looked through.
struct Look {
    smallest: Option<u64>,
    next: u64,
    done: bool,
}

/// The answer broke off.
#[derive(Debug, thiserror::Error)]
#[error("the servers' answer broke off")]
struct Cut;

fn shared(stream: Stream, name: &str) -> Place {
    Place {
        stream,
        consumer: name.to_owned(),
        filter: None,
        unsettled_max: UNSETTLED_SHARED,
        exclusive: false,
        unbroken: false,
    }
}

fn exclusive(stream: Stream, consumer: String, filter: String) -> Place {
    let (filter, unsettled_max) = (Some(filter), UNSETTLED_SHARD);
    Place { stream, consumer, filter, unsettled_max, exclusive: true, unbroken: false }
}

#[expect(clippy::unnecessary_wraps, reason = "other records can be malformed")]
fn inbox(log: &EventLog, message: &Message, _: Position) -> Result<InboxMessage, NotDecoded> {
    let rest = log.topology().tokens(&message.subject, "inbox").unwrap_or_default();
    Ok(InboxMessage::of(rest, message.headers.as_ref(), message.payload.clone()))
}

fn event(_: &EventLog, message: &Message, position: Position) -> Result<StoredEvent, NotDecoded> {
    let payload = message.payload.clone();
    Ok(fanfare_proto::decode_event(payload, position.sequence, position.stored_at)?)
}

fn tasks(_: &EventLog, message: &Message, _: Position) -> Result<Vec<Task>, NotDecoded> {
    Ok(fanfare_proto::decode_tasks(message.payload.clone())?)
}

fn due(_: &EventLog, message: &Message, _: Position) -> Result<RetryDue, NotDecoded> {
    Ok(fanfare_proto::decode_retry_due(message.payload.clone())?)
}

fn command(_: &EventLog, message: &Message, _: Position) -> Result<Command, NotDecoded> {
    Ok(fanfare_proto::decode_command(message.payload.clone())?)
}
