//! The dispatcher alone, against a real nats-server and a real receiver.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_dispatcher::Settings;
use fanfare_domain::{
    AddressPolicy, Change, Conclusion, DeliveryId, Endpoint, EndpointId, EndpointState, Entity,
    Event, EventId, Fact, Fault, Outcome, PauseMode, RetryDue, StoredEvent, Target, Task, Tenant,
    TraceContext,
    address::AllowRule,
    endpoint::{Secret, secret_owner},
    fact::ConclusionReason,
    retry::Policy,
    seal::{Clear, Keyring},
};
use fanfare_event_log::{
    EventLog,
    journal::{From, JournalFilter},
};
use fanfare_service::{Clock as _, Context, SystemClock};
use fanfare_testkit::{
    NatsServer,
    receiver::{Behaviour, Receiver},
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A dispatcher with a tenant, an endpoint and a receiver.
struct World {
    nats: NatsServer,
    log: EventLog,
    receiver: Receiver,
    endpoint: Endpoint,
    revision: u64,
    key_file: PathBuf,
    _directory: TempDir,
}

/// A running dispatcher.
struct Running {
    stop: CancellationToken,
    ended: JoinSet<Result<(), fanfare_service::Failure>>,
}

impl Running {
    async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        let ended = self.ended.join_next().await.context("it runs")?;
        Ok(ended??)
    }
}

impl World {
    async fn new() -> Result<Self> {
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
            secrets: vec![Secret { sealed, created_at: now, expires_at: None }],
            headers: BTreeMap::new(),
            state: EndpointState::Active,
            retry: Some(Policy::from_delays(vec![Duration::from_hours(1)])),
            timeout: None,
            concurrency: None,
            metadata: BTreeMap::new(),
            created_at: now,
            updated_at: now,
        };
        let tenant = Tenant {
            id: "acme".parse()?,
            name: String::new(),
            profile: String::from("standard-webhooks"),
            created_at: now,
        };
        log.change(&change(Entity::Tenant(Arc::new(tenant)), false), 0).await?;
        let mut world =
            Self { nats, log, receiver, endpoint, revision: 0, key_file, _directory: directory };
        world.put_endpoint(false).await?;
        Ok(world)
    }

    async fn put_endpoint(&mut self, deleted: bool) -> Result<()> {
        let entity = Entity::Endpoint(Arc::new(self.endpoint.clone()));
        self.revision = self.log.change(&change(entity, deleted), self.revision).await?;
        Ok(())
    }

    async fn run(&self) -> Result<Running> {
        let settings = Settings {
            log: self.nats.log_settings(),
            egress: fanfare_egress::Settings {
                addresses: AddressPolicy { allow: AllowRule::LOOPBACK.to_vec(), deny: Vec::new() },
                ..fanfare_egress::Settings::default()
            },
            sealing_key_file: self.key_file.clone(),
            profiles_dir: None,
            in_flight_max: 64,
            queued_max: 1_024,
        };
        let mut context = Context::new("dispatcher");
        fanfare_dispatcher::start(&mut context, settings).await?;
        let stop = context.stop();
        let grace = Duration::from_secs(10);
        let mut ended = JoinSet::new();
        ended.spawn(context.run_until_cancelled(grace));
        Ok(Running { stop, ended })
    }

    /// Puts an event into EVENTS and a task for the endpoint into DELIVERIES.
    async fn send(&self, number: u64) -> Result<Task> {
        let accepted_at = SystemClock.now();
        let event = Event {
            id: EventId::of_message("test", number, accepted_at),
            tenant: "acme".parse()?,
            event_type: "invoice.paid".parse()?,
            occurred_at: accepted_at,
            accepted_at: Some(accepted_at),
            data: Bytes::from(format!("{{\"n\":{number}}}")),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        let publisher = self.log.publisher();
        let sequence = publisher.event(&event).await?.stored().await?.sequence;
        let stored = self.log.event(sequence).await?.context("the event is in the log")?;
        let task = self.task(stored);
        let shard = self.log.shards().of(self.endpoint.id);
        publisher.tasks(shard, std::slice::from_ref(&task)).await?.stored().await?;
        Ok(task)
    }

    fn task(&self, event: StoredEvent) -> Task {
        let delivery = DeliveryId::of(event.event.id, self.endpoint.id, 0);
        let targets = vec![Target { delivery, endpoint: self.endpoint.id }];
        Task { event, targets, generation: 0, journal_sequence: 1 }
    }

    /// Reads facts about a delivery until one concludes it, parks it or asks for a retry.
    async fn story(&self, delivery: DeliveryId) -> Result<Vec<Fact>> {
        self.story_after(delivery, 0).await
    }

    /// The same, from the attempt after that number on.
    async fn story_after(&self, delivery: DeliveryId, attempts: u32) -> Result<Vec<Fact>> {
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
                        Fact::ShardClaimed(_) | Fact::RetryScheduled(_) | Fact::EventRouted(_) => {
                            false
                        }
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

fn conclusion(story: &[Fact]) -> Option<(Conclusion, ConclusionReason, u32)> {
    match story.last() {
        Some(Fact::DeliveryConcluded(end)) => Some((end.conclusion, end.reason, end.attempts)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_sent_signed_and_recorded() -> Result<()> {
    let world = World::new().await?;
    let dispatcher = world.run().await?;
    let task = world.send(1).await?;
    let story = world.story(task.targets[0].delivery).await?;
    let expected = (Conclusion::Delivered, ConclusionReason::Outcome, 1);
    assert_eq!(conclusion(&story), Some(expected));
    let requests = world.receiver.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("webhook-id"), Some(task.event.event.id.to_string().as_str()));
    let profiles = fanfare_domain::profile::Profiles::built_in();
    let profile = profiles.get("standard-webhooks").context("built in")?;
    let verified = profile.verify(
        &Clear::new(String::from(SECRET)),
        |name| requests[0].header(name),
        &requests[0].body,
    );
    assert_eq!(verified, Ok(()));
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_record_is_never_attempted_again() -> Result<()> {
    let world = World::new().await?;
    let dispatcher = world.run().await?;
    let task = world.send(1).await?;
    world.story(task.targets[0].delivery).await?;
    dispatcher.stop().await?;
    // A repeat outside the duplicate window: same deliveries, another message.
    let mut repeat = task.clone();
    let second = world.send(2).await?;
    repeat.targets.push(Target { delivery: second.targets[0].delivery, ..repeat.targets[0] });
    let shard = world.log.shards().of(world.endpoint.id);
    world.log.publisher().tasks(shard, std::slice::from_ref(&repeat)).await?.stored().await?;
    let dispatcher = world.run().await?;
    let sentinel = world.send(3).await?;
    world.story(second.targets[0].delivery).await?;
    world.story(sentinel.targets[0].delivery).await?;
    let ids: BTreeSet<_> = world
        .receiver
        .requests()
        .iter()
        .filter_map(|request| request.header("webhook-id").map(String::from))
        .collect();
    let expected = [&task, &second, &sentinel].map(|task| task.event.event.id.to_string());
    assert_eq!(ids, BTreeSet::from(expected));
    assert_eq!(world.receiver.count(), 3);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_attempt_asks_for_a_retry_and_the_last_one_exhausts() -> Result<()> {
    let world = World::new().await?;
    world.receiver.answer(Behaviour::status(500));
    let dispatcher = world.run().await?;
    let task = world.send(1).await?;
    let story = world.story(task.targets[0].delivery).await?;
    let [Fact::AttemptMade(made)] = story.as_slice() else { panic!("{story:?}") };
    assert_eq!(made.outcome, Outcome::Refused { status: 500, retry_after: None });
    let due_at = made.retry_at.context("a retry is asked for")?;
    assert!(due_at >= made.started_at.saturating_add(Duration::from_hours(1)));
    let retry = RetryDue {
        delivery: made.delivery.clone(),
        attempt: 2,
        due_at: SystemClock.now(),
        journal_sequence: 1,
        trace: TraceContext::default(),
    };
    let shard = world.log.shards().of(world.endpoint.id);
    world.log.schedules().put(shard, &retry).await?.stored().await?;
    let story = world.story_after(task.targets[0].delivery, 1).await?;
    let expected = (Conclusion::Exhausted, ConclusionReason::AttemptsSpent, 2);
    assert_eq!(conclusion(&story), Some(expected));
    assert_eq!(world.receiver.count(), 2);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoints_state_decides_at_the_last_moment() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.state = EndpointState::Paused(PauseMode::Hold);
    world.put_endpoint(false).await?;
    let dispatcher = world.run().await?;
    let held = world.send(1).await?;
    let story = world.story(held.targets[0].delivery).await?;
    assert!(matches!(story.as_slice(), [Fact::DeliveryParked(parked)] if parked.attempt == 1));
    world.endpoint.state = EndpointState::Paused(PauseMode::Skip);
    world.put_endpoint(false).await?;
    let skipped = world.send(2).await?;
    let story = world.story(skipped.targets[0].delivery).await?;
    let expected = (Conclusion::Cancelled, ConclusionReason::EndpointPaused, 0);
    assert_eq!(conclusion(&story), Some(expected));
    world.put_endpoint(true).await?;
    let deleted = world.send(3).await?;
    let story = world.story(deleted.targets[0].delivery).await?;
    let expected = (Conclusion::Cancelled, ConclusionReason::EndpointDeleted, 0);
    assert_eq!(conclusion(&story), Some(expected));
    assert_eq!(world.receiver.count(), 0);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_address_is_an_attempt_that_sent_nothing() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.url = String::from("http://10.0.0.1/hook");
    world.put_endpoint(false).await?;
    let dispatcher = world.run().await?;
    let task = world.send(1).await?;
    let story = world.story(task.targets[0].delivery).await?;
    let [Fact::AttemptMade(made)] = story.as_slice() else { panic!("{story:?}") };
    assert_eq!(made.outcome, Outcome::Failed(Fault::AddressForbidden));
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_on_concurrency_is_never_exceeded() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.concurrency = Some(3);
    world.put_endpoint(false).await?;
    world.receiver.answer(Behaviour::status(200).after(Duration::from_millis(20)));
    let mut last = None;
    for number in 0..40 {
        last = Some(world.send(number).await?);
    }
    let dispatcher = world.run().await?;
    let last = last.context("forty were sent")?;
    world.story(last.targets[0].delivery).await?;
    let all = world.receiver.wait_for(40, Duration::from_secs(30)).await;
    assert!(all.is_ok());
    assert_eq!(world.receiver.in_flight_max(), 3);
    dispatcher.stop().await
}
