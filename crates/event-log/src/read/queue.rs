//! A durable consumer, kept open over reconnects, restarts and its own loss.

use std::{
    collections::{HashMap, VecDeque, vec_deque::Drain},
    time::Duration,
};

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, Info, pull},
};
use fanfare_domain::Timestamp;
use futures_util::{StreamExt as _, future::BoxFuture};
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tokio_util::sync::ReusableBoxFuture;
use tracing::{debug, info};

use crate::{
    EventLog, ReadError,
    log::{ApiError, ask, server_time},
    read::{Patience, connects, ready_now},
    topology::Stream,
};

/// How many messages, and bytes of them, are fetched ahead.
const AHEAD: usize = 512;
const AHEAD_BYTES: usize = 16 * 1024 * 1024;
/// How long one request for messages lives.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that there is nothing.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long to wait before opening it again.
const PAUSE: Duration = Duration::from_millis(100);
/// The metadata of an exclusive consumer that tells whose it is.
const READER: &str = "fanfare-reader";

/// Which messages, and how.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) stream: Stream,
    /// The consumer's name.
    pub(crate) consumer: String,
    /// The subject that it reads, if not all of the stream.
    pub(crate) filter: Option<String>,
    /// How many messages may be unsettled.
    pub(crate) unsettled_max: i64,
    /// Whether the newest reader takes it over from all before it.
    pub(crate) exclusive: bool,
    /// Whether the reader ends where a message got lost on its way, before it reads what comes
    /// behind it. Only of an exclusive one: others get some of the messages.
    pub(crate) unbroken: bool,
}

/// See the module.
///
/// What was begun with the servers is kept over calls that are dropped: callers who look after
/// other things in between would never get an end of it from servers that take longer.
pub(crate) struct Queue {
    durable: Durable,
    messages: Option<pull::Stream>,
    taken: VecDeque<Message>,
    /// The opening that was begun.
    opening: Option<ReusableBoxFuture<'static, Result<pull::Stream, ReadError>>>,
    /// Since when the server knows us, by its clock, and on which connection.
    since: Option<(u64, Timestamp)>,
    /// The question for it that was begun.
    synchronising: Option<ReusableBoxFuture<'static, Option<(u64, Timestamp)>>>,
}

/// The consumer on the servers.
#[derive(Clone)]
struct Durable {
    log: EventLog,
    place: Place,
    /// Of an exclusive consumer: the mark by which we know it to be ours.
    mark: Option<String>,
}

impl Queue {
    /// Opens it. An exclusive one is taken from whoever has it: what was handed out to them and
    /// is not settled comes to us at once, and their requests end.
    pub(crate) fn open(log: &EventLog, place: Place) -> BoxFuture<'_, Result<Self, ReadError>> {
        Box::pin(async move {
            let name = log.topology().stream(place.stream);
            let mark = place.exclusive.then(|| log.inner.client.new_inbox());
            let durable = Durable { log: log.clone(), place, mark };
            let mut patience = Patience::new(log, name);
            if durable.place.exclusive {
                loop {
                    match log.answer(durable.take_over()).await {
                        Ok(Ok(())) => break,
                        Ok(Err(error)) => patience.bear(error).await?,
                        Err(lost) => patience.bear(lost.into()).await?,
                    }
                }
            }
            let mut queue = Self {
                durable,
                messages: None,
                taken: VecDeque::new(),
                opening: None,
                since: None,
                synchronising: None,
            };
            queue.reopen().await?;
            queue.synchronise().await;
            Ok(queue)
        })
    }

    /// Waits for messages, and returns what is there, up to `max`, with the time before which a
    /// message counts as suspect. Cancel safe: what was taken and not returned comes next.
    pub(crate) async fn next(
        &mut self,
        max: usize,
    ) -> Result<(Drain<'_, Message>, Option<Timestamp>), ReadError> {
        while self.taken.is_empty() {
            self.wait().await?;
        }
        if let Some(messages) = &mut self.messages {
            while self.taken.len() < max
                && let Some(Some(Ok(message))) = ready_now(messages).await
            {
                self.taken.push_back(message);
            }
        }
        self.synchronise().await;
        let since = self.since.map(|(_, since)| since);
        let count = max.min(self.taken.len());
        Ok((self.taken.drain(..count), since))
    }

    /// Says that something was handed out to us and never came.
    pub(crate) fn broken(&self) -> ReadError {
        let Place { stream, consumer, .. } = &self.durable.place;
        let stream = self.durable.log.topology().stream(*stream);
        debug!(stream, consumer, "something got lost on the way");
        ReadError::Broken { stream, consumer: consumer.clone() }
    }

    /// Takes nothing more, and returns what was fetched and not returned.
    pub(crate) async fn stop(mut self) -> VecDeque<Message> {
        if let Some(mut messages) = self.messages.take() {
            while let Some(Some(Ok(message))) = ready_now(&mut messages).await {
                self.taken.push_back(message);
            }
        }
        self.taken
    }

    async fn wait(&mut self) -> Result<(), ReadError> {
        let closed = self.durable.log.inner.closed.clone();
        let Some(messages) = &mut self.messages else {
            self.reopen().await?;
            // What was fetched and not taken is gone.
            return if self.durable.place.unbroken { Err(self.broken()) } else { Ok(()) };
        };
        let next = closed.run_until_cancelled(messages.next()).await.ok_or(ReadError::Closed)?;
        match next {
            Some(Ok(message)) => self.taken.push_back(message),
            Some(Err(error)) => {
                debug!(%error, consumer = self.durable.place.consumer, "opening a consumer again");
                self.messages = None;
                sleep(PAUSE).await;
            }
            None => {
                self.messages = None;
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Asks the server for its time if the connection is not the one that we know it for. Where
    /// that fails, all messages are suspect.
    async fn synchronise(&mut self) {
        let now = connects(&self.durable.log);
        if self.since.is_some_and(|(known, _)| known == now) {
            return;
        }
        self.since = None;
        let durable = &self.durable;
        let synchronising =
            self.synchronising.get_or_insert_with(|| durable.clone().synchronising(now));
        let since = synchronising.await;
        self.synchronising = None;
        // It may have been begun on the connection before.
        self.since = since.filter(|(known, _)| *known == now);
    }

    async fn reopen(&mut self) -> Result<(), ReadError> {
        let durable = &self.durable;
        let opening = self.opening.get_or_insert_with(|| durable.clone().opening());
        let opened = opening.await;
        self.opening = None;
        self.messages = Some(opened?);
        Ok(())
    }
}

impl Durable {
    fn synchronising(
        self,
        connection: u64,
    ) -> ReusableBoxFuture<'static, Option<(u64, Timestamp)>> {
        ReusableBoxFuture::new(self.since(connection))
    }

    fn opening(self) -> ReusableBoxFuture<'static, Result<pull::Stream, ReadError>> {
        ReusableBoxFuture::new(self.reopen())
    }

    /// What the server's clock says, with the connection that it was asked on.
    async fn since(self, connection: u64) -> Option<(u64, Timestamp)> {
        let stream = self.log.topology().stream(self.place.stream);
        let asking = server_time(&self.log.inner.jetstream, &stream);
        match self.log.answer(asking).await {
            Ok(Ok(time)) => return Some((connection, time)),
            Ok(Err(error)) => debug!(%error, stream, "cannot tell which messages are new"),
            Err(error) => debug!(%error, stream, "cannot tell which messages are new"),
        }
        None
    }

    async fn reopen(self) -> Result<pull::Stream, ReadError> {
        let name = self.log.topology().stream(self.place.stream);
        let mut patience = Patience::new(&self.log, name.clone());
        loop {
            match self.log.answer(self.try_open()).await {
                Ok(Ok(Some(messages))) => return Ok(messages),
                Ok(Ok(None)) => {
                    let consumer = self.place.consumer;
                    return Err(ReadError::TakenOver { stream: name, consumer });
                }
                Ok(Err(error)) => patience.bear(error).await?,
                Err(lost) => patience.bear(lost.into()).await?,
            }
        }
    }

    /// `None` if an exclusive consumer is no longer ours.
    async fn try_open(&self) -> Result<Option<pull::Stream>, async_nats::Error> {
        let stream = self.log.stream(self.place.stream).await?;
        let consumer = match &self.mark {
            None => stream.create_consumer(self.config()).await?,
            Some(mark) => match self.tell::<Info>("INFO").await {
                Ok(info) if marked(&info) == Some(mark) => {
                    stream.get_consumer(&self.place.consumer).await?
                }
                Ok(_) => return Ok(None),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error.into()),
            },
        };
        let messages = consumer
            .stream()
            .max_messages_per_batch(AHEAD)
            .max_bytes_per_batch(AHEAD_BYTES)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await?;
        Ok(Some(messages))
    }

    /// Replaces the consumer by one of ours. Of several that do so at once, the last one has it.
    async fn take_over(&self) -> Result<(), async_nats::Error> {
        let stream = self.log.stream(self.place.stream).await?;
        match self.tell::<serde_json::Value>("DELETE").await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        stream.create_consumer_strict(self.config()).await?;
        info!(consumer = self.place.consumer, "took over a queue");
        Ok(())
    }

    async fn tell<V: DeserializeOwned>(&self, what: &str) -> Result<V, ApiError> {
        let stream = self.log.topology().stream(self.place.stream);
        let subject = format!("CONSUMER.{what}.{stream}.{}", self.place.consumer);
        ask(&self.log.inner.jetstream, &subject).await
    }

    fn config(&self) -> pull::Config {
        let mark = self.mark.iter().map(|mark| (String::from(READER), mark.clone()));
        pull::Config {
            durable_name: Some(self.place.consumer.clone()),
            name: Some(self.place.consumer.clone()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.log.inner.settings.ack_wait,
            // Never given up: what cannot be read is set aside by us.
            max_deliver: -1,
            filter_subject: self.place.filter.clone().unwrap_or_default(),
            max_ack_pending: self.place.unsettled_max,
            metadata: mark.collect::<HashMap<_, _>>(),
            ..pull::Config::default()
        }
    }
}

fn marked(info: &Info) -> Option<&String> {
    info.config.metadata.get(READER)
}
