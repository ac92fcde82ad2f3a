//! What the tests share.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fanfare_domain::{
    Change, Entity, Event, EventId, StoredEvent, Tenant, Timestamp, TraceContext, settings::Source,
};
use fanfare_event_log::{EventLog, Headers, InboxMessage, PublishAnswer};
use fanfare_ingest::{Counters, Settings, start_counted};
use fanfare_service::{Clock as _, Context, SystemClock};
use fanfare_testkit::{NatsServer, StoredMessage, wait_until};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long a request may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An ingest service that runs. Dropping it ends it as a crash would.
pub(crate) struct Ingest {
    pub(crate) counters: Arc<Counters>,
    stop: CancellationToken,
    running: JoinSet<Result<()>>,
}

impl Ingest {
    pub(crate) async fn start(settings: Settings) -> Result<Self> {
        let counters = Arc::<Counters>::default();
        let mut context = Context::new("ingest");
        start_counted(&mut context, settings, Arc::clone(&counters)).await?;
        let stop = context.stop();
        let mut running = JoinSet::new();
        running.spawn(async move {
            context.run_until_cancelled(Duration::from_secs(10)).await.map_err(Into::into)
        });
        Ok(Self { counters, stop, running })
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        self.running.join_next().await.context("it runs")??
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.running.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?.context("it ended").and_then(|()| anyhow::bail!("it stopped")),
        }
    }
}

/// Settings on a server, everything else by default.
pub(crate) fn settings(server: &NatsServer) -> Settings {
    let defaults: Settings = Source::default().load().expect("the defaults are usable");
    Settings { log: server.log_settings(), ..defaults }
}

/// Settings of servers that forget ids after a second, and hand messages out again after one.
pub(crate) fn forgetful(server: &NatsServer) -> Settings {
    let mut settings = settings(server);
    settings.log.duplicate_window = Duration::from_secs(1);
    settings.log.ack_wait = Duration::from_secs(1);
    settings
}

pub(crate) async fn open(settings: &Settings) -> Result<EventLog> {
    EventLog::open("test", &settings.log).await.context("open the log")
}

/// Makes a tenant.
pub(crate) async fn tenant(log: &EventLog, id: &str, profile: &str) -> Result<()> {
    let tenant = Tenant {
        id: id.parse()?,
        name: String::new(),
        profile: profile.to_owned(),
        unknown_types: fanfare_domain::tenant::UnknownTypes::Allowed,
        plan: None,
        endpoints_max: None,
        created_at: SystemClock.now(),
        rate_limit: None,
        expunge: None,
    };
    let change = Change {
        entity: Entity::Tenant(Arc::new(tenant)),
        deleted: false,
        actor: String::from("test"),
        reason: String::new(),
        trace: TraceContext::default(),
    };
    log.change(&change, 0).await?;
    Ok(())
}

/// A message of `acme`.
pub(crate) fn message(headers: &[(&str, &str)], payload: impl Into<Bytes>) -> InboxMessage {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    InboxMessage {
        tenant: String::from("acme"),
        event_type: String::from("invoice.paid"),
        headers: Headers::new(headers.iter().map(pair).collect()),
        payload: payload.into(),
    }
}

/// Puts a message into INBOX and returns the id that its event will have.
pub(crate) async fn publish(log: &EventLog, message: &InboxMessage) -> Result<u64> {
    Ok(log.publisher().inbox(message).await?.stored().await?.sequence)
}

/// Publishes headers as they are, with the payload `{}`, and waits until the server has them.
pub(crate) async fn publish_raw(
    server: &NatsServer,
    subject: &[u8],
    reply: &[u8],
    headers: &[u8],
) -> Result<()> {
    let address = server.url().trim_start_matches("nats://").to_owned();
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let payload = b"{}";
    let sizes = format!("{} {}", headers.len(), headers.len() + payload.len());
    let mut bytes = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
    let publish = [b"HPUB ", subject, b" ", reply, b" ", sizes.as_bytes(), b"\r\n"];
    bytes.extend(publish.concat());
    bytes.extend([headers, payload, b"\r\nPING\r\n"].concat());
    stream.get_mut().write_all(&bytes).await?;
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        anyhow::ensure!(stream.read_line(&mut line).await? > 0, "the server hung up");
        anyhow::ensure!(!line.starts_with("-ERR"), "{line}");
    }
    Ok(())
}

/// Every event of EVENTS, in order.
pub(crate) async fn events(server: &NatsServer, log: &EventLog) -> Result<Vec<StoredEvent>> {
    let mut events = Vec::new();
    for sequence in 1..=server.last_sequence("FANFARE_EVENTS").await? {
        events.extend(log.event(sequence).await?);
    }
    Ok(events)
}

/// Waits until there are so many events, and returns them.
pub(crate) async fn events_at_least(
    server: &NatsServer,
    log: &EventLog,
    count: usize,
) -> Result<Vec<StoredEvent>> {
    wait_until(&format!("there are {count} events"), async || {
        let count_now = server.last_sequence("FANFARE_EVENTS").await.unwrap_or_default();
        if usize::try_from(count_now).is_ok_and(|now| now >= count) {
            Ok(())
        } else {
            Err(count_now)
        }
    })
    .await;
    events(server, log).await
}

/// The messages of a stream.
pub(crate) async fn stored(server: &NatsServer, stream: &str) -> Result<Vec<StoredMessage>> {
    let everything = server.everything().await?;
    Ok(everything.into_iter().filter(|message| message.stream == stream).collect())
}

/// Waits until ingest has taken all of INBOX.
pub(crate) async fn inbox_is_empty(server: &NatsServer) {
    wait_until("INBOX is empty", async || match server.messages("FANFARE_INBOX").await {
        Ok(0) => Ok(()),
        Ok(left) => Err(format!("{left} messages")),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

/// Waits until the servers have forgotten the ids of all that was written before.
pub(crate) async fn servers_forget(log: &EventLog) -> Result<()> {
    let publisher = log.publisher();
    let sentinel = event(255, SystemClock.now());
    ensure!(!publisher.event(&sentinel).await?.stored().await?.duplicate, "it is new");
    wait_until("the servers forget", async || {
        let again = publisher.event(&sentinel).await.map_err(|error| error.to_string())?;
        match again.stored().await {
            Ok(stored) if stored.duplicate => Err(String::from("they know it")),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    Ok(())
}

/// An event of `acme`, as an earlier process may have written it.
pub(crate) fn event(number: u8, at: Timestamp) -> Event {
    Event {
        id: EventId::new(at, [number; 10]),
        tenant: "acme".parse().expect("a tenant's id"),
        event_type: "invoice.paid".parse().expect("an event type"),
        occurred_at: at,
        accepted_at: None,
        config_revision: None,
        data: Bytes::from_static(b"{}"),
        ordering_key: None,
        attributes: std::collections::BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    }
}

/// Asks for a message to be taken.
pub(crate) async fn ask(log: &EventLog, message: &InboxMessage) -> Result<PublishAnswer> {
    Ok(log.publish_request(message, PATIENCE).await?)
}

/// Asks, and expects an id.
pub(crate) async fn ask_for_id(log: &EventLog, message: &InboxMessage) -> Result<(EventId, bool)> {
    match ask(log, message).await? {
        PublishAnswer::Accepted { event, duplicate } => Ok((event, duplicate)),
        other @ (PublishAnswer::Refused { .. } | PublishAnswer::Unavailable { .. }) => {
            anyhow::bail!("{other:?}")
        }
    }
}
