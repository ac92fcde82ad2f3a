//! A world with a server, a dispatcher that the test plays, and the retry-scheduler.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_domain::{
    Change, Conclusion, DeliveryId, DeliveryRef, Endpoint, EndpointId, EndpointState, Entity,
    EventId, Fact, Outcome, Record, RetryDue, Shard, Tenant, Timestamp, TraceContext,
    fact::{
        AttemptMade, ConclusionReason, DeferReason, DeliveryConcluded, DeliveryDeferred,
        DeliveryParked,
    },
};
use fanfare_event_log::{
    Column, EventLog, JournalFilter, JournalWriter, Reader, Unsettled, journal::From,
};
use fanfare_retry_scheduler::{Count, Counters, Settings, start_counted};
use fanfare_service::{Clock as _, Context, Failure, SystemClock};
use fanfare_testkit::NatsServer;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A server with one tenant and one endpoint, and the endpoint's shard in our hands.
pub(crate) struct World {
    pub(crate) nats: NatsServer,
    pub(crate) log: EventLog,
    pub(crate) shard: Shard,
    pub(crate) endpoint: Endpoint,
    /// The endpoint's.
    pub(crate) revision: u64,
    attempts: JournalWriter,
    due: Reader<RetryDue>,
}

/// A retry-scheduler that runs.
pub(crate) struct Scheduler {
    pub(crate) counters: Arc<Counters>,
    stop: CancellationToken,
    running: JoinSet<Result<(), Failure>>,
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        Self::on(NatsServer::start().await?).await
    }

    pub(crate) async fn on(nats: NatsServer) -> Result<Self> {
        fanfare_service::install_crypto_provider();
        let log = nats.log().await?;
        let endpoint = endpoint();
        let shard = log.shards().of(endpoint.id);
        let attempts = log.claim(shard, Column::Attempts, "test", now()).await?;
        let due = log.read_due(shard).await?;
        add_tenant(&log, "acme").await?;
        let mut world = Self { nats, log, shard, endpoint, revision: 0, attempts, due };
        world.put_endpoint(EndpointState::Active).await?;
        Ok(world)
    }

    /// Starts a retry-scheduler whose sweeps are fast.
    pub(crate) async fn start(&self) -> Result<Scheduler> {
        self.start_with(|_| {}).await
    }

    pub(crate) async fn start_with(&self, adjust: impl FnOnce(&mut Settings)) -> Result<Scheduler> {
        let mut settings = Settings {
            log: self.nats.log_settings(),
            profiles_dir: None,
            operator_tenant: "operator".parse()?,
            in_flight_max: 64,
            sweep_interval: Duration::from_millis(100),
            // Nothing is rescued only because the machine stood still for a while.
            sweep_grace: Duration::from_secs(20),
            snapshot_interval: Duration::from_millis(100),
        };
        adjust(&mut settings);
        let counters = Arc::<Counters>::default();
        let mut context = Context::new("retry-scheduler");
        start_counted(&mut context, settings, Arc::clone(&counters)).await?;
        let stop = context.stop();
        let mut running = JoinSet::new();
        running.spawn(context.run_until_cancelled(Duration::from_secs(20)));
        Ok(Scheduler { counters, stop, running })
    }

    /// Changes the endpoint's state.
    pub(crate) async fn put_endpoint(&mut self, state: EndpointState) -> Result<()> {
        self.endpoint.state = state;
        let entity = Entity::Endpoint(Arc::new(self.endpoint.clone()));
        self.revision = self.log.change(&change(entity), self.revision).await?;
        Ok(())
    }

    /// The delivery of that number to the endpoint.
    pub(crate) fn delivery(&self, number: u8) -> DeliveryRef {
        let event = EventId::new(self.endpoint.created_at, [number; 10]);
        DeliveryRef {
            id: DeliveryId::of(event, self.endpoint.id, 0),
            tenant: self.endpoint.tenant.clone(),
            event,
            event_sequence: u64::from(number),
            event_type: "invoice.paid".parse().expect("two words"),
            endpoint: self.endpoint.id,
            generation: 0,
            accepted_at: self.endpoint.created_at,
        }
    }

    /// Writes facts as the dispatcher would; returns their sequence.
    pub(crate) async fn record(&mut self, facts: Vec<Fact>) -> Result<u64> {
        let (recorded_at, trace) = (now(), trace());
        let record = |fact| Record { recorded_at, trace: trace.clone(), fact };
        let facts: Vec<_> = facts.into_iter().map(record).collect();
        self.attempts.append(&facts).await.context("record facts")
    }

    /// An attempt that was answered with a status.
    pub(crate) fn attempt(
        &self,
        number: u8,
        attempt: u32,
        status: u16,
        retry_at: Option<Timestamp>,
    ) -> Fact {
        Fact::AttemptMade(Box::new(AttemptMade {
            delivery: self.delivery(number),
            attempt,
            started_at: now(),
            duration: Duration::from_millis(3),
            timing: fanfare_domain::fact::Timing::default(),
            outcome: match status {
                200 => Outcome::Accepted { status },
                _ => Outcome::Refused { status, retry_after: None },
            },
            detail: String::new(),
            config_revision: self.revision,
            url: Arc::from(self.endpoint.url.as_str()),
            signature: String::new(),
            response_headers: Vec::new(),
            response_body: Bytes::new(),
            response_truncated: false,
            retry_at,
            batch: None,
            trace_sampled: None,
        }))
    }

    /// The attempt that fell due was made.
    pub(crate) fn attempt_of(&self, retry: &RetryDue, status: u16) -> Fact {
        let mut fact = self.attempt(0, retry.attempt, status, None);
        if let Fact::AttemptMade(made) = &mut fact {
            made.delivery = retry.delivery.clone();
        }
        fact
    }

    /// A delivery's attempt fails and is to be followed by another.
    pub(crate) async fn fail(&mut self, number: u8, retry_at: Timestamp) -> Result<u64> {
        let fact = self.attempt(number, 1, 500, Some(retry_at));
        self.record(vec![fact]).await
    }

    /// A delivery's second attempt succeeds.
    pub(crate) async fn succeed(&mut self, number: u8) -> Result<u64> {
        let made = self.attempt(number, 2, 200, None);
        let ended = self.concluded(number, Conclusion::Delivered);
        self.record(vec![made, ended]).await
    }

    pub(crate) fn concluded(&self, number: u8, conclusion: Conclusion) -> Fact {
        Fact::DeliveryConcluded(DeliveryConcluded {
            delivery: self.delivery(number),
            conclusion,
            attempts: 2,
            reason: ConclusionReason::AttemptsSpent,
        })
    }

    pub(crate) fn deferred(&self, number: u8, attempt: u32, until: Timestamp) -> Fact {
        let (delivery, reason) = (self.delivery(number), DeferReason::LaneFull);
        Fact::DeliveryDeferred(DeliveryDeferred { delivery, attempt, until, reason, batch: None })
    }

    pub(crate) fn parked(&self, number: u8, attempt: u32) -> Fact {
        Fact::DeliveryParked(DeliveryParked { delivery: self.delivery(number), attempt })
    }

    /// Waits until the last claims of the columns are by so many processes, with so many each.
    pub(crate) async fn owned(&self, wanted: &[usize]) {
        fanfare_testkit::wait_until("the shards to be spread", async || {
            let mut journal =
                self.log.journal(JournalFilter::Deliveries, From::Sequence(1)).await.ok();
            let last = self.log.journal_last().await.unwrap_or_default();
            let mut owners = BTreeMap::new();
            while let Some(journal) = &mut journal
                && let Ok(Some(batch)) = journal.next_until(last).await
            {
                let Some((shard, Column::Plans)) = batch.column else { continue };
                for record in batch.facts {
                    if let Fact::ShardClaimed(claimed) = record.fact {
                        owners.insert(shard, claimed.owner);
                    }
                }
            }
            let mut loads = BTreeMap::<String, usize>::new();
            for owner in owners.into_values() {
                *loads.entry(owner).or_default() += 1;
            }
            let loads: Vec<usize> = loads.into_values().collect();
            if loads == wanted { Ok(()) } else { Err(loads) }
        })
        .await;
    }

    /// Waits for the next retry to fall due; it stays unsettled.
    pub(crate) async fn next_due(&mut self) -> Result<Unsettled<RetryDue>> {
        let next = tokio::time::timeout(Duration::from_mins(1), self.due.next_batch(1)).await;
        let due = next.context("nothing fell due")??;
        due.into_iter().next().context("an empty batch")
    }

    /// Waits for the next retry to fall due, and settles it.
    pub(crate) async fn take_due(&mut self) -> Result<RetryDue> {
        let due = self.next_due().await?;
        due.settler.settle().await;
        Ok(due.record)
    }
}

impl Scheduler {
    /// Stops it in order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        self.running.join_next().await.context("it runs once")??.context("it failed")
    }

    /// Ends it at once, as a kill would.
    pub(crate) async fn crash(mut self) {
        self.running.shutdown().await;
    }

    /// Waits until that many alarms are set.
    pub(crate) async fn alarms(&self, count: u64) {
        at_least("alarms to be set", &self.counters.alarms, count).await;
    }

    /// Waits until that many plans are counted, which are on record before.
    pub(crate) async fn plans(&self, count: u64) {
        at_least("plans to be counted", &self.counters.plans, count).await;
    }

    /// Waits until that many rescues are counted, which may go off before.
    pub(crate) async fn rescues(&self, count: u64) {
        at_least("rescues to be counted", &self.counters.rescues, count).await;
    }
}

async fn at_least(what: &str, counter: &Count, wanted: u64) {
    fanfare_testkit::wait_until(what, async || {
        let found = counter.get();
        if found >= wanted { Ok(()) } else { Err(found) }
    })
    .await;
}

/// The trace of every event.
pub(crate) fn trace() -> TraceContext {
    TraceContext::start([1; 16], [2; 8])
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn from_now(delay: Duration) -> Timestamp {
    now().saturating_add(delay)
}

pub(crate) async fn add_tenant(log: &EventLog, id: &str) -> Result<()> {
    let tenant = Tenant {
        id: id.parse()?,
        name: String::new(),
        profile: String::from("standard-webhooks"),
        unknown_types: fanfare_domain::tenant::UnknownTypes::Allowed,
        plan: None,
        endpoints_max: None,
        created_at: now(),
        rate_limit: None,
        expunge: None,
    };
    log.change(&change(Entity::Tenant(Arc::new(tenant))), 0).await?;
    Ok(())
}

fn change(entity: Entity) -> Change {
    let (actor, reason) = (String::from("test"), String::new());
    Change { entity, deleted: false, actor, reason, trace: TraceContext::default() }
}

fn endpoint() -> Endpoint {
    let created_at = now();
    Endpoint {
        id: EndpointId::new(created_at, [7; 10]),
        tenant: "acme".parse().expect("a word"),
        url: String::from("https://example.com/hook"),
        name: String::new(),
        description: String::new(),
        filters: vec![">".parse().expect("a wildcard")],
        condition: None,
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
        created_at,
        updated_at: created_at,
    }
}

/// Makes an API key of the tenant `acme`.
pub(crate) async fn add_key(log: &EventLog) -> Result<()> {
    let key = fanfare_domain::ApiKey {
        id: fanfare_domain::KeyId::new(now(), [1; 10]),
        name: String::from("ci"),
        tenant: Some("acme".parse()?),
        role: fanfare_domain::Role::Admin,
        sha256: [1; 32],
        created_at: now(),
        expires_at: None,
        reveals_secrets: false,
        rate_limit: None,
    };
    log.change(&change(Entity::ApiKey(Arc::new(key))), 0).await?;
    Ok(())
}
