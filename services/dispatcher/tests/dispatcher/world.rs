//! A dispatcher with a tenant, endpoints and a receiver.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_dispatcher::Settings;
use fanfare_domain::{
    AddressPolicy, Change, DeliveryId, DeliveryRef, Endpoint, EndpointId, EndpointState, Entity,
    Event, EventId, Fact, RetryDue, StoredEvent, Target, Task, Tenant, Timestamp, TraceContext,
    address::AddressRule,
    endpoint::{Secret, secret_owner},
    fact::InBatch,
    retry::Policy,
    seal::Keyring,
};
use fanfare_event_log::{
    EventLog,
    journal::{From, JournalFilter},
};
use fanfare_service::{Clock as _, Context, Metrics, SystemClock};
use fanfare_testkit::{NatsServer, delivery_of, receiver::Receiver};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A dispatcher with a tenant, an endpoint and a receiver.
pub(crate) struct World {
    pub(crate) nats: NatsServer,
    pub(crate) log: EventLog,
    pub(crate) receiver: Receiver,
    pub(crate) endpoint: Endpoint,
    pub(crate) revision: u64,
    pub(crate) key_file: PathBuf,
    _directory: TempDir,
}

/// A running dispatcher.
pub(crate) struct Running {
    pub(crate) metrics: Metrics,
    stop: CancellationToken,
    ended: JoinSet<Result<(), fanfare_service::Failure>>,
}

impl Running {
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        let ended = self.ended.join_next().await.context("it runs")?;
        Ok(ended??)
    }

    /// Ends it as a crash would: nothing is finished, nothing is given away.
    pub(crate) async fn crash(mut self) {
        self.ended.shutdown().await;
    }
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        fanfare_service::install_crypto_provider();
        let nats = NatsServer::start().await?;
        let log = nats.log().await?;
        let directory = tempfile::tempdir()?;
        let key_file = directory.path().join("sealing.key");
        let key = "ab".repeat(32);
        std::fs::write(&key_file, &key)?;
        let receiver = Receiver::start().await?;
        let now = SystemClock.now();
        let id = EndpointId::new(now, [7; 10]);
        let sealed = Keyring::parse(&key)?.seal(&secret_owner(id), SECRET, [1; 24]);
        let endpoint = Endpoint {
            id,
            tenant: "acme".parse()?,
            url: receiver.url("/hook"),
            name: String::new(),
            description: String::new(),
            filters: vec![">".parse()?],
            condition: None,
            secrets: vec![Secret { sealed, created_at: now, expires_at: None }],
            headers: BTreeMap::new(),
            state: EndpointState::Active,
            retry: Some(Policy::from_delays(vec![Duration::from_hours(1)])),
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
        let tenant = Tenant {
            id: "acme".parse()?,
            name: String::new(),
            profile: String::from("standard-webhooks"),
            unknown_types: fanfare_domain::tenant::UnknownTypes::Allowed,
            plan: None,
            endpoints_max: None,
            created_at: now,
            rate_limit: None,
            expunge: None,
        };
        log.change(&change(Entity::Tenant(Arc::new(tenant)), false), 0).await?;
        let mut world =
            Self { nats, log, receiver, endpoint, revision: 0, key_file, _directory: directory };
        world.put_endpoint(false).await?;
        Ok(world)
    }

    pub(crate) async fn put_endpoint(&mut self, deleted: bool) -> Result<()> {
        let entity = Entity::Endpoint(Arc::new(self.endpoint.clone()));
        self.revision = self.log.change(&change(entity, deleted), self.revision).await?;
        Ok(())
    }

    pub(crate) async fn run(&self) -> Result<Running> {
        let settings = Settings {
            log: self.nats.log_settings(),
            egress: fanfare_egress::Settings {
                addresses: AddressPolicy {
                    allow: AddressRule::LOOPBACK.to_vec(),
                    deny: Vec::new(),
                },
                ..fanfare_egress::Settings::default()
            },
            sealing_key_file: self.key_file.clone(),
            profiles_dir: None,
            in_flight_max: 64,
            queued_max: 1_024,
            queued_bytes_max: 64 << 20,
        };
        let mut context = Context::new("dispatcher");
        fanfare_dispatcher::start(&mut context, settings).await?;
        let (stop, metrics) = (context.stop(), context.metrics().clone());
        let grace = Duration::from_secs(10);
        let mut ended = JoinSet::new();
        ended.spawn(context.run_until_cancelled(grace));
        Ok(Running { metrics, stop, ended })
    }

    /// Adds another endpoint like the first, at another path.
    pub(crate) async fn add_endpoint(&self, number: u8, path: &str) -> Result<EndpointId> {
        let id = EndpointId::new(self.endpoint.created_at, [number; 10]);
        let key = std::fs::read_to_string(&self.key_file)?;
        let sealed = Keyring::parse(&key)?.seal(&secret_owner(id), SECRET, [number; 24]);
        let secret = Secret { sealed, created_at: self.endpoint.created_at, expires_at: None };
        let url = self.receiver.url(path);
        let endpoint = Endpoint { id, url, secrets: vec![secret], ..self.endpoint.clone() };
        self.log.change(&change(Entity::Endpoint(Arc::new(endpoint)), false), 0).await?;
        Ok(id)
    }

    /// Puts an event into EVENTS and a task for the endpoint into DELIVERIES.
    pub(crate) async fn send(&self, number: u64) -> Result<Task> {
        self.send_to(self.endpoint.id, number).await
    }

    /// The same for another endpoint.
    pub(crate) async fn send_to(&self, endpoint: EndpointId, number: u64) -> Result<Task> {
        self.send_at(endpoint, number, None).await
    }

    /// The same with a time that the tenant's rate limit keeps for it.
    pub(crate) async fn send_at(
        &self,
        endpoint: EndpointId,
        number: u64,
        not_before: Option<Timestamp>,
    ) -> Result<Task> {
        let stored = self.store(number, format!("{{\"n\":{number}}}")).await?;
        let delivery = DeliveryId::of(stored.event.id, endpoint, 0);
        let targets = vec![Target { delivery, endpoint, not_before }];
        let task = Task { event: stored, targets, generation: 0, journal_sequence: 1 };
        let shard = self.log.shards().of(endpoint);
        let publisher = self.log.publisher();
        publisher.tasks(shard, std::slice::from_ref(&task)).await?.stored().await?;
        Ok(task)
    }

    /// Puts an event into EVENTS, and nothing else.
    pub(crate) async fn store(&self, number: u64, data: String) -> Result<StoredEvent> {
        let accepted_at = SystemClock.now();
        let event = Event {
            id: EventId::of_message("test", number, accepted_at),
            tenant: "acme".parse()?,
            event_type: "invoice.paid".parse()?,
            occurred_at: accepted_at,
            accepted_at: Some(accepted_at),
            config_revision: None,
            data: Bytes::from(data),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        let publisher = self.log.publisher();
        let sequence = publisher.event(&event).await?.stored().await?.sequence;
        self.log.event(sequence).await?.context("the event is in the log")
    }

    /// What an attempt at an event's delivery to the endpoint is of.
    pub(crate) fn delivery(&self, stored: &StoredEvent) -> DeliveryRef {
        delivery_of(stored, self.endpoint.id, 0)
    }

    /// Has an attempt fall due that failed in a batch before.
    pub(crate) async fn fall_due(
        &self,
        delivery: DeliveryRef,
        attempt: u32,
        batch: InBatch,
        due_at: Timestamp,
    ) -> Result<()> {
        let (trace, batch) = (TraceContext::default(), Some(batch));
        let retry = RetryDue { delivery, attempt, due_at, journal_sequence: 1, trace, batch };
        let shard = self.log.shards().of(self.endpoint.id);
        self.log.schedules().put(shard, &retry).await?.stored().await?;
        Ok(())
    }

    /// Stands in for the retry-scheduler: sets an alarm clock for what is put off, until it is
    /// dropped.
    pub(crate) fn set_alarm_clocks(&self) -> JoinSet<Result<()>> {
        let log = self.log.clone();
        let mut clocks = JoinSet::new();
        clocks.spawn(async move {
            let mut journal = log.journal(JournalFilter::Deliveries, From::Sequence(1)).await?;
            let schedules = log.schedules();
            loop {
                let batch = journal.next().await?;
                for record in batch.facts {
                    let Fact::DeliveryDeferred(deferred) = record.fact else { continue };
                    let shard = log.shards().of(deferred.delivery.endpoint);
                    let retry = RetryDue {
                        delivery: deferred.delivery,
                        attempt: deferred.attempt,
                        due_at: deferred.until,
                        journal_sequence: batch.sequence,
                        trace: TraceContext::default(),
                        batch: deferred.batch,
                    };
                    schedules.put(shard, &retry).await?.stored().await?;
                }
            }
        });
        clocks
    }

    /// Reads facts about a delivery until one concludes it, parks it or asks for a retry.
    pub(crate) async fn story(&self, delivery: DeliveryId) -> Result<Vec<Fact>> {
        self.story_after(delivery, 0).await
    }

    /// The same, from the attempt after that number on.
    pub(crate) async fn story_after(
        &self,
        delivery: DeliveryId,
        attempts: u32,
    ) -> Result<Vec<Fact>> {
        let mut journal = self.log.journal(JournalFilter::Deliveries, From::Sequence(1)).await?;
        let mut story = Vec::new();
        let reading = async {
            loop {
                for record in journal.next().await?.facts {
                    if record.fact.delivery().is_none_or(|found| found.id != delivery) {
                        continue;
                    }
                    let is_end = match &record.fact {
                        Fact::AttemptMade(made) => {
                            made.retry_at.is_some() && made.attempt > attempts
                        }
                        Fact::DeliveryConcluded(_)
                        | Fact::DeliveryDeferred(_)
                        | Fact::DeliveryParked(_) => true,
                        Fact::ShardClaimed(_)
                        | Fact::ShardReleased(_)
                        | Fact::RetryScheduled(_)
                        | Fact::EventRouted(_) => false,
                    };
                    story.push(record.fact);
                    if is_end {
                        return anyhow::Ok(());
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.context("no end")??;
        Ok(story)
    }
}

fn change(entity: Entity, deleted: bool) -> Change {
    Change {
        entity,
        deleted,
        actor: String::from("test"),
        reason: String::new(),
        trace: TraceContext::default(),
    }
}
