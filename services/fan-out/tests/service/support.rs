//! A log, endpoints and events in it, and what fan-out made of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Change, DeliveryId, Endpoint, EndpointId, EndpointState, Entity, Event, EventId, Fact, Record,
    Shard, StoredEvent, Task, Tenant, TraceContext,
    endpoint::{RateLimit, RatePeriod},
    fact::EventRouted,
};
use fanfare_event_log::{
    EventLog, Reader,
    journal::{From, JournalFilter},
};
use fanfare_fan_out::{Counters, Settings};
use fanfare_service::{Clock as _, Context, Failure, SystemClock, random_bytes};
use fanfare_testkit::{NatsServer, wait_until};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long running services may take to finish what they have in hand.
const GRACE: Duration = Duration::from_secs(20);

/// A server, a log on it, and the settings of both.
pub(crate) struct World {
    pub(crate) nats: NatsServer,
    pub(crate) log: EventLog,
    pub(crate) settings: fanfare_event_log::Settings,
}

/// A running fan-out.
pub(crate) struct FanOut {
    pub(crate) counters: Arc<Counters>,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Failure>>,
}

/// An endpoint as it stands in CONFIG.
#[derive(Clone)]
pub(crate) struct Configured {
    pub(crate) endpoint: Endpoint,
    pub(crate) revision: u64,
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(
        change: impl FnOnce(&mut fanfare_event_log::Settings),
    ) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let mut settings = nats.log_settings();
        change(&mut settings);
        let log = EventLog::open("test", &settings).await?;
        Ok(Self { nats, log, settings })
    }

    pub(crate) async fn start(&self) -> Result<FanOut> {
        let mut context = Context::new("fan-out");
        let settings = Settings { log: self.settings.clone(), batches_max: 4, tasks_max: 256 };
        let counters = Arc::<Counters>::default();
        fanfare_fan_out::start_counted(&mut context, settings, Arc::clone(&counters)).await?;
        let stop = context.stop();
        let mut tasks = JoinSet::new();
        tasks.spawn(context.run_until_cancelled(GRACE));
        Ok(FanOut { counters, stop, tasks })
    }

    /// Creates an active endpoint of the tenant `acme`.
    pub(crate) async fn create(&self, filters: &[&str]) -> Result<Configured> {
        self.create_of("acme", filters).await
    }

    /// The same, of another tenant.
    pub(crate) async fn create_of(&self, tenant: &str, filters: &[&str]) -> Result<Configured> {
        self.create_with(tenant, filters, None).await
    }

    /// Creates an active endpoint of the tenant `acme` that looks at the content of events.
    pub(crate) async fn create_asking(
        &self,
        filters: &[&str],
        condition: &str,
    ) -> Result<Configured> {
        self.create_with("acme", filters, Some(condition)).await
    }

    pub(crate) async fn create_with(
        &self,
        tenant: &str,
        filters: &[&str],
        condition: Option<&str>,
    ) -> Result<Configured> {
        let now = SystemClock.now();
        let endpoint = Endpoint {
            id: EndpointId::new(now, random_bytes()),
            tenant: tenant.parse()?,
            url: String::from("https://example.com/"),
            name: String::new(),
            description: String::new(),
            filters: filters.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            condition: condition.map(String::from),
            secrets: Vec::new(),
            headers: BTreeMap::new(),
            state: EndpointState::Active,
            retry: None,
            timeout: None,
            concurrency: None,
            rate_limit: None,
            ordering: fanfare_domain::endpoint::Ordering::None,
            batch: None,
            cancelled_before: None,
            trace_context: None,
            security: fanfare_domain::endpoint::Security::default(),
            metadata: BTreeMap::new(),
            created_at: now,
            updated_at: now,
        };
        let revision = self.write(&endpoint, false, 0).await?;
        Ok(Configured { endpoint, revision })
    }

    pub(crate) async fn set(&self, endpoint: &mut Configured, state: EndpointState) -> Result<()> {
        endpoint.endpoint.state = state;
        endpoint.revision = self.write(&endpoint.endpoint, false, endpoint.revision).await?;
        Ok(())
    }

    /// Has an endpoint look at something else.
    pub(crate) async fn ask(&self, endpoint: &mut Configured, condition: &str) -> Result<()> {
        endpoint.endpoint.condition = Some(String::from(condition));
        endpoint.revision = self.write(&endpoint.endpoint, false, endpoint.revision).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, endpoint: Configured) -> Result<()> {
        self.write(&endpoint.endpoint, true, endpoint.revision).await.map(drop)
    }

    async fn write(&self, endpoint: &Endpoint, deleted: bool, expected: u64) -> Result<u64> {
        self.change(Entity::Endpoint(Arc::new(endpoint.clone())), deleted, expected).await
    }

    /// Gives the tenant `acme` a rate limit, so many in a second, or none; returns the revision.
    pub(crate) async fn limit(&self, requests: Option<u32>, expected: u64) -> Result<u64> {
        let requests = requests.and_then(NonZeroU32::new);
        let limit =
            |requests| RateLimit { requests, per: RatePeriod::Second, burst: NonZeroU32::MIN };
        let tenant = Tenant {
            id: "acme".parse()?,
            name: String::new(),
            profile: String::from("standard-webhooks"),
            rate_limit: requests.map(limit),
            unknown_types: fanfare_domain::tenant::UnknownTypes::Allowed,
            plan: None,
            endpoints_max: None,
            created_at: SystemClock.now(),
            expunge: None,
        };
        self.change(Entity::Tenant(Arc::new(tenant)), false, expected).await
    }

    async fn change(&self, entity: Entity, deleted: bool, expected: u64) -> Result<u64> {
        let change = Change {
            entity,
            deleted,
            actor: String::from("test"),
            reason: String::new(),
            trace: TraceContext::default(),
        };
        self.log.change(&change, expected).await.context("change the configuration")
    }

    /// Puts an event of the tenant `acme` into the event log.
    pub(crate) async fn publish(&self, event_type: &str) -> Result<EventId> {
        self.publish_data(event_type, "{}").await
    }

    /// The same, of another tenant.
    pub(crate) async fn publish_of(&self, tenant: &str, event_type: &str) -> Result<EventId> {
        self.publish_data_of(tenant, event_type, "{}").await
    }

    pub(crate) async fn publish_data(&self, event_type: &str, data: &str) -> Result<EventId> {
        self.publish_data_of("acme", event_type, data).await
    }

    /// The same, of another tenant.
    pub(crate) async fn publish_data_of(
        &self,
        tenant: &str,
        event_type: &str,
        data: &str,
    ) -> Result<EventId> {
        let event = Event { tenant: tenant.parse()?, ..event(event_type, data)? };
        self.log.publisher().event(&event).await?.stored().await?;
        Ok(event.id)
    }

    /// The same, of an event whose acceptance saw a revision of CONFIG.
    pub(crate) async fn publish_seen(&self, event_type: &str, revision: u64) -> Result<EventId> {
        let event = Event { config_revision: Some(revision), ..event(event_type, "{}")? };
        self.log.publisher().event(&event).await?.stored().await?;
        Ok(event.id)
    }

    /// The same, of an event that was accepted so long ago by the clock of who accepted it.
    pub(crate) async fn publish_early(&self, event_type: &str, by: Duration) -> Result<EventId> {
        let event = event(event_type, "{}")?;
        let accepted_at = Some(event.occurred_at.saturating_sub(by));
        let event = Event { accepted_at, ..event };
        self.log.publisher().event(&event).await?.stored().await?;
        Ok(event.id)
    }

    /// Returns every routed fact until now.
    pub(crate) async fn routed(&self) -> Result<Vec<EventRouted>> {
        let last = self.log.journal_last().await?;
        let mut reader = self.log.journal(JournalFilter::Routed, From::Sequence(1)).await?;
        let mut found = Vec::new();
        while let Some(batch) = reader.next_until(last).await? {
            for Record { fact, .. } in batch.facts {
                if let Fact::EventRouted(routed) = fact {
                    found.push(routed);
                }
            }
        }
        Ok(found)
    }

    /// Waits until every one of the events is on record, whole; returns the facts by event.
    pub(crate) async fn routings(
        &self,
        events: &[EventId],
    ) -> Result<BTreeMap<EventId, Vec<EventRouted>>> {
        let by_event = wait_until("the events to be routed", async || {
            let mut found: BTreeMap<EventId, Vec<EventRouted>> = BTreeMap::new();
            for fact in self.routed().await.map_err(|error| format!("{error:#}"))? {
                found.entry(fact.event).or_default().push(fact);
            }
            let whole = |event: &&EventId| {
                found.get(event).is_some_and(|facts| {
                    let parts = facts.first().map_or(u32::MAX, |first| first.parts);
                    u32::try_from(facts.len()).is_ok_and(|count| count >= parts)
                })
            };
            match events.iter().filter(whole).count() {
                count if count == events.len() => Ok(found),
                count => Err(format!("{count} of {}", events.len())),
            }
        });
        Ok(by_event.await)
    }

    /// Waits for the one routed fact of an event.
    pub(crate) async fn routing(&self, event: EventId) -> Result<EventRouted> {
        let mut found = self.routings(&[event]).await?.remove(&event).context("an event")?;
        anyhow::ensure!(found.len() == 1, "{found:?}");
        found.pop().context("a fact")
    }

    /// Opens every shard's queue.
    pub(crate) async fn queues(&self) -> Result<Queues> {
        let mut readers = Vec::new();
        for shard in self.log.shards().shards() {
            readers.push((shard, self.log.read_tasks(shard).await?));
        }
        Ok(Queues { readers, tasks: Vec::new(), deliveries: BTreeSet::new() })
    }

    /// Returns how many messages of tasks were ever stored.
    pub(crate) async fn tasks_stored(&self) -> Result<u64> {
        self.nats.last_sequence("FANFARE_DELIVERIES").await
    }

    /// Returns how many bytes of tasks are stored.
    pub(crate) async fn bytes_of_tasks(&self) -> Result<usize> {
        let stored = self.nats.everything().await?.into_iter();
        let tasks = stored.filter(|message| message.stream == "FANFARE_DELIVERIES");
        Ok(tasks.map(|message| message.payload.len()).sum())
    }

    /// Returns an event as fan-out reads it.
    pub(crate) async fn stored(&self, id: EventId) -> Result<StoredEvent> {
        for sequence in 1.. {
            let stored = self.log.event(sequence).await?.context("an event of that id")?;
            if stored.event.id == id {
                return Ok(stored);
            }
        }
        unreachable!("sequences do not end")
    }
}

impl FanOut {
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        Ok(self.tasks.join_next().await.context("it runs")???)
    }

    /// Ends it as a crash would: nothing is finished, nothing is handed back.
    pub(crate) async fn crash(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Every shard's queue, and what came out of them.
pub(crate) struct Queues {
    readers: Vec<(Shard, Reader<Vec<Task>>)>,
    /// The tasks, in the order in which they came.
    pub(crate) tasks: Vec<(Shard, Task)>,
    /// Their deliveries.
    pub(crate) deliveries: BTreeSet<DeliveryId>,
}

impl Queues {
    /// Takes and settles tasks until all of the deliveries have come; panics at others.
    pub(crate) async fn take(&mut self, expected: &BTreeSet<DeliveryId>) -> Result<()> {
        while self.deliveries.len() < expected.len() {
            let mut next = Vec::new();
            for (shard, reader) in &mut self.readers {
                next.push(Box::pin(async { (*shard, reader.next_batch(256).await) }));
            }
            let taken = futures_util::future::select_all(next);
            let taken = tokio::time::timeout(Duration::from_mins(1), taken).await;
            let ((shard, batch), ..) = taken.with_context(|| {
                format!("{} of {} deliveries have come", self.deliveries.len(), expected.len())
            })?;
            for unsettled in batch? {
                for task in unsettled.record {
                    self.deliveries.extend(task.targets.iter().map(|target| target.delivery));
                    self.tasks.push((shard, task));
                }
                unsettled.settler.settle().await;
            }
        }
        assert_eq!(&self.deliveries, expected);
        Ok(())
    }
}

/// An event of the tenant `acme`, accepted when it is stored.
fn event(event_type: &str, data: &str) -> Result<Event> {
    let now = SystemClock.now();
    Ok(Event {
        id: EventId::new(now, random_bytes()),
        tenant: "acme".parse()?,
        event_type: event_type.parse()?,
        occurred_at: now,
        accepted_at: None,
        config_revision: None,
        data: String::from(data).into(),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    })
}

/// The deliveries of an event to endpoints.
pub(crate) fn deliveries<'a>(
    event: EventId,
    endpoints: impl IntoIterator<Item = &'a EndpointId>,
) -> BTreeSet<DeliveryId> {
    endpoints.into_iter().map(|endpoint| DeliveryId::of(event, *endpoint, 0)).collect()
}
