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
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::{
    EventLog, ReadError,
    log::{date_time, timestamp},
    read::{Patience, connects},
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
/// How often to look whether the connection is still the one that the consumer was made on.
const LOOK: Duration = Duration::from_millis(500);
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

/// See the module.
pub(crate) struct Ordered {
    log: EventLog,
    /// The stream's name.
    stream: String,
    subjects: Vec<String>,
    headers_only: bool,
    next: Start,
    open: Option<Open>,
}

struct Open {
    messages: pull::Stream,
    name: String,
    connects: u64,
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
        let stream = log.topology().stream(stream);
        Self { headers_only, ..Self::of(log, stream, subjects, start) }
    }

    /// Reads what is under some subjects, at least one, of a stream with this name.
    pub(crate) fn of(log: &EventLog, stream: String, subjects: Vec<String>, start: Start) -> Self {
        Self { log: log.clone(), stream, subjects, headers_only: false, next: start, open: None }
    }

    /// How many messages were ahead when the server last said so. Cancel safe.
    pub(crate) async fn pending(&mut self) -> Result<u64, ReadError> {
        Ok(self.opened().await?.pending)
    }

    /// Waits for the next message. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Numbered, ReadError> {
        loop {
            let now = connects(&self.log);
            let open = self.opened().await?;
            match timeout(LOOK, open.messages.next()).await {
                Ok(Some(Ok(message))) => {
                    if let Some(numbered) = self.take(message) {
                        return Ok(numbered);
                    }
                }
                Ok(Some(Err(error))) => {
                    debug!(%error, stream = self.stream, "making another consumer");
                    self.open = None;
                    sleep(PAUSE).await;
                }
                Ok(None) => {
                    self.open = None;
                    sleep(PAUSE).await;
                }
                Err(_) if open.connects != now => self.open = None,
                Err(_) => {}
            }
        }
    }

    /// Forgets the consumer on the server too, so that they do not pile up.
    pub(crate) async fn close(mut self) {
        let Some(open) = self.open.take() else { return };
        let Ok(stream) = self.log.stream_named(&self.stream).await else { return };
        if let Err(error) = stream.delete_consumer(&open.name).await {
            debug!(%error, "a consumer is left to be forgotten");
        }
    }

    /// Takes a message if it is the next one.
    fn take(&mut self, message: Message) -> Option<Numbered> {
        let open = self.open.as_mut()?;
        let Some(place) =
            message.info().ok().filter(|info| info.consumer_sequence == open.received + 1)
        else {
            debug!(stream = self.stream, "a message is missing: reading it again");
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
            let mut patience = Patience::new(&self.log, self.stream.clone());
            let open = loop {
                // Boxed, because it is rare and large.
                match Box::pin(self.try_open()).await {
                    Ok(open) => break open,
                    Err(error) => patience.bear(error).await?,
                }
            };
            self.open = Some(open);
        }
        Ok(self.open.as_mut().expect("it was opened just now"))
    }

    async fn try_open(&self) -> Result<Open, async_nats::Error> {
        let connects = connects(&self.log);
        let stream = self.log.stream_named(&self.stream).await?;
        let consumer = stream.create_consumer(self.config()).await?;
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
        Ok(Open { messages, name, connects, received: 0, pending })
    }

    fn config(&self) -> pull::Config {
        let deliver_policy = match self.next {
            Start::Sequence(sequence) => {
                DeliverPolicy::ByStartSequence { start_sequence: sequence.max(1) }
            }
            Start::Time(time) => DeliverPolicy::ByStartTime { start_time: date_time(time) },
        };
        let (filter_subject, filter_subjects) = match self.subjects.as_slice() {
            [only] => (only.clone(), Vec::new()),
            several => (String::new(), several.to_vec()),
        };
        pull::Config {
            deliver_policy,
            filter_subject,
            filter_subjects,
            headers_only: self.headers_only,
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGET,
            num_replicas: 1,
            memory_storage: true,
            replay_policy: jetstream::consumer::ReplayPolicy::Instant,
            ..pull::Config::default()
        }
    }
}
