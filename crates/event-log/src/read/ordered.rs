//! Reading a stream in order, without settling: never a gap, never a repeat.
//!
//! The consumer lives in one server's memory. When it is gone, or skips, or the connection was
//! another one in between (what was under way then is lost and nobody would tell), a new one goes
//! on behind the last message that was taken.

use std::time::Duration;

use async_nats::jetstream::{
    self, Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use fanfare_domain::Timestamp;
use futures_util::{StreamExt as _, future::BoxFuture};
use tokio::time::{sleep, timeout};
use tokio_util::sync::ReusableBoxFuture;
use tracing::debug;

use crate::{
    EventLog, ReadError,
    log::{Connection, date_time, timestamp},
    read::Patience,
    topology::Stream,
};

/// How many messages, and bytes of them, are fetched ahead.
const AHEAD: usize = 256;
const AHEAD_BYTES: usize = 16 * 1024 * 1024;
/// How long one request for messages lives.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that there is nothing.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// After how long without requests the server forgets the consumer.
const FORGET: Duration = Duration::from_mins(1);
/// After how long without a message to ask again whether there is one to wait for.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait before making another consumer.
const PAUSE: Duration = Duration::from_millis(50);

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Sequence(u64),
    Time(Timestamp),
}

/// What to read.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) stream: Stream,
    /// Subjects, wildcards allowed; at least one.
    pub(crate) subjects: Vec<String>,
    /// Whether the payloads are left out.
    pub(crate) headers_only: bool,
}

/// A selection, with the stream's name.
#[derive(Clone)]
struct What {
    stream: String,
    subjects: Vec<String>,
    headers_only: bool,
}

/// See the module.
pub(crate) struct Ordered {
    log: EventLog,
    what: What,
    next: Start,
    open: Option<Open>,
    /// The making of a consumer that was begun. It is kept over calls that are dropped: callers
    /// who look after other things every second would never get one from servers that take longer.
    opening: Option<ReusableBoxFuture<'static, Result<Open, ReadError>>>,
}

struct Open {
    messages: pull::Stream,
    name: String,
    connection: Connection,
    received: u64,
    pending: u64,
}

/// A message, and where it stands.
pub(crate) struct Numbered {
    pub(crate) message: Message,
    pub(crate) sequence: u64,
    pub(crate) stored_at: Timestamp,
}

impl Ordered {
    pub(crate) fn new(log: &EventLog, selection: Selection, start: Start) -> Self {
        let Selection { stream, subjects, headers_only } = selection;
        let what = What { stream: log.topology().stream(stream), subjects, headers_only };
        Self { log: log.clone(), what, next: start, open: None, opening: None }
    }

    /// Reads what is under some subjects, at least one, of a stream with this name.
    pub(crate) fn of(log: &EventLog, stream: String, subjects: Vec<String>, start: Start) -> Self {
        let what = What { stream, subjects, headers_only: false };
        Self { log: log.clone(), what, next: start, open: None, opening: None }
    }

    /// How many messages were ahead when the server last said so. Cancel safe.
    pub(crate) async fn pending(&mut self) -> Result<u64, ReadError> {
        Ok(self.opened().await?.pending)
    }

    /// Waits for the next message. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Numbered, ReadError> {
        loop {
            let client = self.log.inner.client.clone();
            let open = self.opened().await?;
            let message = tokio::select! {
                biased;
                message = open.messages.next() => message,
                () = open.connection.gone(&client) => None,
            };
            match message {
                Some(Ok(message)) => {
                    if let Some(numbered) = self.take(message) {
                        return Ok(numbered);
                    }
                }
                Some(Err(error)) => {
                    debug!(%error, stream = self.what.stream, "making another consumer");
                    self.open = None;
                    sleep(PAUSE).await;
                }
                None => {
                    self.open = None;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Returns the next message at or before `last`, or `None` once there is none. Cancel safe. It asks
    /// again now and then: what was there may have aged out.
    pub(crate) async fn next_until(&mut self, last: u64) -> Result<Option<Numbered>, ReadError> {
        loop {
            if matches!(self.next, Start::Sequence(next) if next > last) {
                return Ok(None);
            }
            if self.pending().await? == 0 {
                return Ok(None);
            }
            match timeout(ASK_AGAIN, self.next()).await {
                Ok(Ok(next)) if next.sequence > last => {
                    // For those who read on.
                    (self.next, self.open) = (Start::Sequence(next.sequence), None);
                    return Ok(None);
                }
                Ok(next) => return next.map(Some),
                Err(_) => self.open = None,
            }
        }
    }

    /// Forgets the consumer on the server too, so that they do not pile up.
    pub(crate) fn close(mut self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Some(open) = self.open.take() else { return };
            let Ok(stream) = self.log.stream_named(&self.what.stream).await else { return };
            if let Err(error) = stream.delete_consumer(&open.name).await {
                debug!(%error, "a consumer is left to be forgotten");
            }
        })
    }

    /// Takes a message if it is the next one.
    fn take(&mut self, message: Message) -> Option<Numbered> {
        let open = self.open.as_mut()?;
        let Some(place) =
            message.info().ok().filter(|info| info.consumer_sequence == open.received + 1)
        else {
            debug!(stream = self.what.stream, "a message is missing: reading it again");
            self.open = None;
            return None;
        };
        let (sequence, pending) = (place.stream_sequence, place.pending);
        let stored_at = timestamp(place.published);
        open.received += 1;
        open.pending = pending;
        self.next = Start::Sequence(sequence + 1);
        Some(Numbered { message, sequence, stored_at })
    }

    async fn opened(&mut self) -> Result<&mut Open, ReadError> {
        if self.open.is_none() {
            let opening = self.opening.get_or_insert_with(|| {
                let (log, what) = (self.log.clone(), self.what.clone());
                opening(log, what, self.next)
            });
            let opened = opening.await;
            self.opening = None;
            self.open = Some(opened?);
        }
        Ok(self.open.as_mut().expect("it was opened just now"))
    }
}

fn opening(
    log: EventLog,
    what: What,
    next: Start,
) -> ReusableBoxFuture<'static, Result<Open, ReadError>> {
    ReusableBoxFuture::new(open(log, what, next))
}

async fn open(log: EventLog, what: What, next: Start) -> Result<Open, ReadError> {
    let mut patience = Patience::new(&log, what.stream.clone());
    loop {
        match log.answer(try_open(&log, &what, next)).await {
            Ok(Ok(open)) => return Ok(open),
            Ok(Err(error)) => patience.bear(error).await?,
            Err(lost) => patience.bear(lost.into()).await?,
        }
    }
}

async fn try_open(log: &EventLog, what: &What, next: Start) -> Result<Open, async_nats::Error> {
    let connection = log.inner.link.connection(&log.inner.client);
    let stream = log.stream_named(&what.stream).await?;
    let consumer = stream.create_consumer(config(what, next)).await?;
    let info = consumer.cached_info();
    let (name, pending) = (info.name.clone(), info.num_pending);
    let messages = consumer
        .stream()
        .max_messages_per_batch(AHEAD)
        .max_bytes_per_batch(AHEAD_BYTES)
        .expires(EXPIRES)
        .heartbeat(HEARTBEAT)
        .messages()
        .await?;
    Ok(Open { messages, name, connection, received: 0, pending })
}

fn config(what: &What, next: Start) -> pull::Config {
    let deliver_policy = match next {
        Start::Sequence(sequence) => {
            DeliverPolicy::ByStartSequence { start_sequence: sequence.max(1) }
        }
        Start::Time(time) => DeliverPolicy::ByStartTime { start_time: date_time(time) },
    };
    let (filter_subject, filter_subjects) = match what.subjects.as_slice() {
        [only] => (only.clone(), Vec::new()),
        several => (String::new(), several.to_vec()),
    };
    pull::Config {
        deliver_policy,
        filter_subject,
        filter_subjects,
        headers_only: what.headers_only,
        ack_policy: AckPolicy::None,
        inactive_threshold: FORGET,
        num_replicas: 1,
        memory_storage: true,
        replay_policy: jetstream::consumer::ReplayPolicy::Instant,
        ..pull::Config::default()
    }
}
