//! What the tests share.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use bytes::Bytes;
use fanfare_domain::{
    Conclusion, DeliveryId, DeliveryRef, EndpointId, Event, EventId, Fact, Outcome, Record,
    RetryDue, Shard, ShardCount, StoredEvent, Target, Task, Timestamp, TraceContext,
    fact::{AttemptMade, ConclusionReason, DeliveryConcluded, DeliveryParked, EventRouted, Timing},
};
use fanfare_event_log::{EventLog, Headers, InboxMessage, Settings};
use fanfare_nats_server::{Binary, Options, Server, ServerOptions};
pub(crate) use fanfare_testkit::Overheard;

/// The shard that tests work on.
pub(crate) const SHARD: Shard = Shard::from_index(1);

pub(crate) async fn server() -> Result<Server> {
    let located = tokio::task::spawn_blocking(|| Binary::locate(&Options::from_env()));
    let binary = located.await?.context("find nats-server")?;
    Server::start(&binary, ServerOptions::default()).await.context("start nats-server")
}

pub(crate) fn settings(server: &Server) -> Settings {
    let shards = ShardCount::new(4).unwrap();
    Settings { url: server.client_url(), shards, ..Settings::default() }
}

/// Settings of servers that forget ids after a second.
pub(crate) fn forgetful(server: &Server) -> Settings {
    Settings { duplicate_window: Duration::from_secs(1), ..settings(server) }
}

pub(crate) async fn log(server: &Server) -> Result<EventLog> {
    open(&settings(server)).await
}

pub(crate) async fn open(settings: &Settings) -> Result<EventLog> {
    EventLog::open("test", settings).await.context("open the log")
}

/// A client of its own, to look at the servers and to do what operators do.
pub(crate) async fn outsider(server: &Server) -> Result<jetstream::Context> {
    Ok(jetstream::new(async_nats::connect(server.client_url()).await?))
}

/// For tests in which a question must not be asked again only because it took long.
pub(crate) const FOR_EVER: Duration = Duration::from_hours(1);

/// A log that asks again only if something happened.
pub(crate) async fn patient(settings: &Settings) -> Result<EventLog> {
    EventLog::open_patiently("test", settings, FOR_EVER).await.context("open the log")
}

/// Listens to what is said under a subject, questions to the servers included.
pub(crate) async fn overhear(server: &Server, subject: &str) -> Result<Overheard> {
    Overheard::on(server.client_url(), subject).await
}

pub(crate) async fn messages(context: &jetstream::Context, stream: &str) -> Result<u64> {
    let mut stream = context.get_stream(stream).await?;
    Ok(stream.info().await?.state.messages)
}

/// Looks until it is so, or cannot be looked at.
pub(crate) async fn wait_until(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let looks = fanfare_testkit::wait_until(what, async || match look().await {
        Ok(false) => Err("not yet"),
        Ok(true) => Ok(Ok(())),
        Err(error) => Ok(Err(error)),
    });
    looks.await.with_context(|| format!("look whether {what}"))
}

pub(crate) fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + millis)
}

pub(crate) fn event(number: u8) -> Event {
    identified([number; 10])
}

/// One of more events than there are bytes.
pub(crate) fn numbered(number: u16) -> Event {
    let [high, low] = number.to_be_bytes();
    identified([high, low, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn identified(id: [u8; 10]) -> Event {
    Event {
        id: EventId::new(time(0), id),
        tenant: "acme".parse().unwrap(),
        event_type: "invoice.paid".parse().unwrap(),
        occurred_at: time(0),
        accepted_at: None,
        config_revision: None,
        data: Bytes::from_static(b"{\"a\":1}"),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    }
}

pub(crate) fn delivery(number: u8) -> DeliveryRef {
    delivery_of(event(number))
}

pub(crate) fn delivery_of(event: Event) -> DeliveryRef {
    let endpoint = EndpointId::new(time(0), [7; 10]);
    DeliveryRef {
        id: DeliveryId::of(event.id, endpoint, 0),
        tenant: event.tenant,
        event: event.id,
        event_sequence: 1,
        event_type: event.event_type,
        endpoint,
        generation: 0,
        accepted_at: time(0),
    }
}

pub(crate) fn task(number: u8, journal_sequence: u64) -> Task {
    let delivery = delivery(number);
    let event = event(number);
    let envelope = fanfare_proto::encode_event(&event);
    let event = Arc::new(event);
    Task {
        event: StoredEvent { event, sequence: 1, accepted_at: time(0), envelope },
        targets: vec![Target {
            delivery: delivery.id,
            endpoint: delivery.endpoint,
            not_before: None,
        }],
        generation: 0,
        journal_sequence,
    }
}

pub(crate) fn retry(number: u8, due_at: Timestamp, journal_sequence: u64) -> RetryDue {
    retry_of(delivery(number), due_at, journal_sequence)
}

pub(crate) fn retry_of(
    delivery: DeliveryRef,
    due_at: Timestamp,
    journal_sequence: u64,
) -> RetryDue {
    let trace = TraceContext::default();
    RetryDue { delivery, attempt: 2, due_at, journal_sequence, trace, batch: None }
}

fn record(fact: Fact) -> Record {
    Record { recorded_at: time(1), trace: TraceContext::default(), fact }
}

/// A fact that tells itself from others by its number.
pub(crate) fn fact(number: u8) -> Record {
    record(Fact::DeliveryParked(DeliveryParked { delivery: delivery(number), attempt: 1 }))
}

/// The last attempt of a delivery.
pub(crate) fn attempt(number: u8, outcome: Outcome) -> AttemptMade {
    AttemptMade {
        delivery: delivery(number),
        attempt: 1,
        started_at: time(3),
        duration: Duration::from_millis(4),
        timing: Timing::default(),
        outcome,
        detail: String::new(),
        config_revision: 5,
        url: Arc::from("https://example.com/hook"),
        signature: String::from("v1,signed"),
        response_headers: vec![(String::from("server"), Bytes::from_static(b"some"))],
        response_body: Bytes::from_static(b"ok"),
        response_truncated: true,
        retry_at: None,
        batch: None,
        trace_sampled: None,
    }
}

pub(crate) fn made(attempt: AttemptMade) -> Record {
    record(Fact::AttemptMade(Box::new(attempt)))
}

/// How a delivery ended with its first attempt.
pub(crate) fn ended(number: u8, conclusion: Conclusion) -> Record {
    let (delivery, reason) = (delivery(number), ConclusionReason::Outcome);
    record(Fact::DeliveryConcluded(DeliveryConcluded { delivery, conclusion, attempts: 1, reason }))
}

pub(crate) fn routed(number: u8, part: u32, parts: u32) -> Record {
    let delivery = delivery(number);
    record(Fact::EventRouted(EventRouted {
        event: delivery.event,
        tenant: delivery.tenant,
        event_sequence: 1,
        config_revision: 1,
        generation: 0,
        targets: vec![delivery.endpoint],
        skipped: Vec::new(),
        held: Vec::new(),
        fed: Vec::new(),
        part,
        parts,
    }))
}

pub(crate) fn inbox(payload: &'static str) -> InboxMessage {
    InboxMessage {
        tenant: String::from("acme"),
        event_type: String::from("invoice.paid"),
        headers: Headers::default(),
        payload: Bytes::from_static(payload.as_bytes()),
    }
}

/// The servers' clock: it is this machine's.
#[expect(clippy::disallowed_methods, reason = "a real server's schedules follow the real clock")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap())
}
