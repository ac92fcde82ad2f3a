//! A log with events and facts in it, and what the projector makes of them.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_delivery_log::{
    AttemptRow, Database, EventFilter, EventRow, Filter, Listed, Progress, Statistics, Store,
    StoreError, Streams,
};
use fanfare_domain::{
    Conclusion, DeliveryId, DeliveryRef, EndpointId, Event, EventId, Fact, Outcome, Record,
    StoredEvent, Timestamp, TraceContext,
    fact::{AttemptMade, ConclusionReason, DeliveryConcluded, EventRouted, RetryScheduled},
};
use fanfare_event_log::{Column, EventLog, JournalWriter};
use fanfare_projector::Settings;
use fanfare_service::{Clock, Context, Failure, Metrics, SystemClock, random_bytes};
use fanfare_testkit::{NatsServer, delivery_of, wait_until};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a projector may take to finish what it has in hand.
const GRACE: Duration = Duration::from_secs(20);
/// More than a test has.
const ALL: usize = 10_000;

/// A server, a log on it, and one endpoint whose shard's facts are ours to write.
pub(crate) struct World {
    pub(crate) nats: NatsServer,
    pub(crate) log: EventLog,
    pub(crate) endpoint: EndpointId,
    attempts: JournalWriter,
    plans: JournalWriter,
    directory: TempDir,
}

/// A running projector.
pub(crate) struct Projector {
    metrics: Metrics,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Failure>>,
}

/// Everything that is in the tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) events: Vec<EventRow>,
    pub(crate) deliveries: Vec<Listed>,
    pub(crate) attempts: Vec<AttemptRow>,
    pub(crate) statistics: BTreeMap<EndpointId, Statistics>,
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        let nats = NatsServer::start().await?;
        let log = nats.log().await?;
        let endpoint = EndpointId::new(SystemClock.now(), random_bytes());
        let (attempts, plans) = claim(&log, endpoint).await?;
        let directory = tempfile::tempdir()?;
        Ok(Self { nats, log, endpoint, attempts, plans, directory })
    }

    /// Deletes EVENTS and JOURNAL, and has them made anew, empty.
    pub(crate) async fn replace_streams(&mut self) -> Result<()> {
        for stream in ["FANFARE_EVENTS", "FANFARE_JOURNAL"] {
            self.nats.delete_stream(stream).await?;
        }
        self.log = self.nats.log().await?;
        (self.attempts, self.plans) = claim(&self.log, self.endpoint).await?;
        Ok(())
    }

    /// The tables of the log that is folded from the streams as they are.
    pub(crate) async fn open(&self, database: &str) -> Result<Store, StoreError> {
        let marks = self.log.marks().await.expect("the streams answer");
        let (events, journal, config) =
            (marks.events.stream, marks.journal.stream, marks.config.stream);
        let inbox = String::from(self.log.inbox_identity());
        let database = Database::new(&database.parse().expect("the URL of a database"))?;
        Store::open(&database, &Streams { events, journal, config, inbox }).await
    }

    /// The URL of a file for tables.
    pub(crate) fn file(&self, name: &str) -> String {
        url(&self.directory.path().join(name))
    }

    pub(crate) fn settings(&self, database: &str) -> Result<Settings> {
        Ok(Settings {
            log: self.nats.log_settings(),
            database: database.parse()?,
            profiles_dir: None,
            retention: Duration::from_hours(24),
            batch_max: 3,
            batch_wait: Duration::from_millis(5),
        })
    }

    /// Starts a projector on a database.
    pub(crate) async fn start(&self, database: &str) -> Result<Projector> {
        self.start_by(database, Arc::new(SystemClock)).await
    }

    /// The same, by another clock.
    pub(crate) async fn start_by(
        &self,
        database: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Projector> {
        let mut context = Context::with_clock("projector", clock);
        fanfare_projector::start(&mut context, self.settings(database)?).await?;
        let (stop, metrics) = (context.stop(), context.metrics().clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(context.run_until_cancelled(GRACE));
        Ok(Projector { metrics, stop, tasks })
    }

    /// Puts an event with its whole story on record: routed, failed once, planned, delivered.
    pub(crate) async fn deliver(&mut self) -> Result<DeliveryId> {
        let stored = self.publish().await?;
        let delivery = delivery_of(&stored, self.endpoint, 0);
        let id = delivery.id;
        self.routed(&stored).await?;
        self.attempts.append(&[made(&delivery, 1, 500)]).await?;
        self.plans.append(&[scheduled(&delivery, 2)]).await?;
        let last = [made(&delivery, 2, 200), concluded(&delivery, 2)];
        self.attempts.append(&last).await?;
        Ok(id)
    }

    async fn publish(&self) -> Result<StoredEvent> {
        let now = SystemClock.now();
        let event = Event {
            id: EventId::new(now, random_bytes()),
            tenant: "acme".parse()?,
            event_type: "invoice.paid".parse()?,
            occurred_at: now,
            accepted_at: None,
            config_revision: None,
            data: bytes("{\"n\":1}"),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        let written = self.log.publisher().event(&event).await?.stored().await?;
        self.log.event(written.sequence).await?.context("the event")
    }

    async fn routed(&self, stored: &StoredEvent) -> Result<()> {
        let routed = Fact::EventRouted(EventRouted {
            event: stored.event.id,
            tenant: stored.event.tenant.clone(),
            event_sequence: stored.sequence,
            config_revision: 1,
            generation: 0,
            targets: vec![self.endpoint],
            skipped: Vec::new(),
            held: Vec::new(),
            fed: Vec::new(),
            part: 0,
            parts: 1,
        });
        self.log.publisher().routed(&[record(routed)]).await?.stored().await?;
        Ok(())
    }

    /// Waits until all that is in the streams is in the tables; returns what is in them.
    pub(crate) async fn caught_up(&self, database: &str) -> Result<Content> {
        let journal = self.log.journal_last().await?;
        let events = self.log.events_last().await?;
        let config = self.log.config_last().await?;
        let database = Database::new(&database.parse()?)?;
        let store = Store::of(&database);
        wait_until("the delivery log to catch up", async || {
            let found = store.progress().await.map_err(|error| error.to_string())?;
            let ends = Progress { events, journal, config };
            if found == ends { Ok(()) } else { Err(format!("{found:?} of {ends:?}")) }
        })
        .await;
        let content = content(&store).await?;
        database.close().await;
        Ok(content)
    }
}

impl Projector {
    /// Waits until a number is above 0.
    pub(crate) async fn tells(&self, series: &str) {
        self.tells_of(series, |value| value > 0.0).await;
    }

    /// Waits until a number is 0.
    pub(crate) async fn tells_zero(&self, series: &str) {
        self.tells_of(series, |value| value <= 0.0).await;
    }

    async fn tells_of(&self, series: &str, is_right: impl Fn(f64) -> bool) {
        wait_until("the projector to tell it", async || {
            let text = self.metrics.text();
            let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
            let found = lines.find(|(name, _)| *name == series);
            let found = found.and_then(|(_, value)| value.parse::<f64>().ok());
            if found.is_some_and(&is_right) { Ok(()) } else { Err(format!("{series}: {found:?}")) }
        })
        .await;
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        Ok(self.tasks.join_next().await.context("it runs")???)
    }

    /// Ends it as a crash would: whatever it was in the middle of.
    pub(crate) async fn crash(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Takes both columns of the endpoint's shard.
async fn claim(log: &EventLog, endpoint: EndpointId) -> Result<(JournalWriter, JournalWriter)> {
    let (shard, now) = (log.shards().of(endpoint), SystemClock.now());
    let attempts = log.claim(shard, Column::Attempts, "test", now).await?;
    Ok((attempts, log.claim(shard, Column::Plans, "test", now).await?))
}

async fn content(store: &Store) -> Result<Content> {
    let tenant = || "acme".parse();
    let deliveries = store.deliveries(&Filter::of(tenant()?), None, ALL).await?;
    let events = store.events(&EventFilter::of(tenant()?), None, ALL).await?;
    let (mut attempts, mut statistics) = (Vec::new(), BTreeMap::new());
    for row in &deliveries.rows {
        attempts.extend(store.attempts(row.delivery.id, 100).await?);
        let endpoint = row.delivery.endpoint;
        statistics.insert(endpoint, store.statistics(endpoint, Timestamp::EPOCH).await?);
    }
    Ok(Content { events: events.rows, deliveries: deliveries.rows, attempts, statistics })
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn bytes<T: From<&'static str>>(text: &'static str) -> T {
    T::from(text)
}

fn record(fact: Fact) -> Record {
    Record { recorded_at: SystemClock.now(), trace: TraceContext::default(), fact }
}

fn made(delivery: &DeliveryRef, attempt: u32, status: u16) -> Record {
    let now = SystemClock.now();
    let accepted = status == 200;
    let outcome = if accepted {
        Outcome::Accepted { status }
    } else {
        Outcome::Refused { status, retry_after: None }
    };
    record(Fact::AttemptMade(Box::new(AttemptMade {
        delivery: delivery.clone(),
        attempt,
        started_at: now,
        duration: Duration::from_millis(3),
        timing: fanfare_domain::fact::Timing::default(),
        outcome,
        detail: String::new(),
        config_revision: 1,
        url: Arc::from("https://example.com/"),
        signature: String::from("v1,x"),
        response_headers: vec![(String::from("server"), bytes("x"))],
        response_body: bytes("no"),
        response_truncated: false,
        retry_at: (!accepted).then(|| now.saturating_add(Duration::from_secs(5))),
        batch: None,
        trace_sampled: None,
    })))
}

fn scheduled(delivery: &DeliveryRef, attempt: u32) -> Record {
    let due_at = SystemClock.now().saturating_add(Duration::from_secs(5));
    let delivery = delivery.clone();
    record(Fact::RetryScheduled(RetryScheduled {
        delivery,
        attempt,
        due_at,
        cause_sequence: 1,
        batch: None,
    }))
}

fn concluded(delivery: &DeliveryRef, attempts: u32) -> Record {
    let (delivery, reason) = (delivery.clone(), ConclusionReason::Outcome);
    let conclusion = Conclusion::Delivered;
    record(Fact::DeliveryConcluded(DeliveryConcluded { delivery, conclusion, attempts, reason }))
}
