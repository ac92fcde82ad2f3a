//! Replays: what is made again, and what is not, whatever happened before.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{
    Conclusion, DeliveryId, EndpointId, EventId, Fact, JobId, Record, Replay, Shard, StoredEvent,
    Timestamp, TraceContext,
    fact::{ConclusionReason, DeliveryConcluded, EventRouted},
    job::{JobState, Past, Progress, Range, Scope, Which},
};
use fanfare_event_log::{Column, JobWritten, JobsView};
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use fanfare_testkit::{delivery_of, wait_at_most};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{World, deliveries};

/// How long a replay may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The jobs of a world.
pub(crate) struct Jobs {
    view: JobsView,
    _follow: JoinSet<Result<(), fanfare_event_log::ReadError>>,
    _stop: DropGuard,
}

impl Jobs {
    pub(crate) async fn of(world: &World) -> Result<Self> {
        let stop = CancellationToken::new();
        let (view, following) = JobsView::start(&world.log, stop.clone()).await?;
        let mut follow = JoinSet::new();
        follow.spawn(following);
        Ok(Self { view, _follow: follow, _stop: stop.drop_guard() })
    }

    pub(crate) fn find(&self, job: JobId) -> Option<Replay> {
        self.view.read(|jobs| jobs.replay(job).map(|stored| (*stored.replay).clone()))
    }

    /// Waits until a replay is done; returns how many deliveries it made.
    pub(crate) async fn done(&self, job: JobId) -> u64 {
        self.until(job, |replay| replay.state == JobState::Done).await.progress.made
    }

    /// Waits until a replay stands so.
    pub(crate) async fn until(&self, job: JobId, is_it: impl Fn(&Replay) -> bool) -> Replay {
        wait_at_most(PATIENCE, "a replay", async || {
            self.find(job).filter(&is_it).ok_or_else(|| format!("{:?}", self.find(job)))
        })
        .await
    }
}

/// A replay that was asked for just now.
pub(crate) fn replay(tenant: &str, scope: Scope) -> Result<Replay> {
    let now = SystemClock.now();
    Ok(Replay {
        id: JobId::new(now, random_bytes()),
        tenant: tenant.parse()?,
        actor: String::from("test"),
        reason: String::new(),
        created_at: now,
        scope,
        generation: 0,
        state: JobState::Running,
        progress: Progress { updated_at: now, ..Progress::default() },
        behind: BTreeMap::new(),
    })
}

/// All events until now.
pub(crate) fn range(which: Which, endpoint: Option<EndpointId>) -> Scope {
    let (since, until) = (Timestamp::EPOCH, SystemClock.now());
    Scope::Range(Range { endpoint, since, until, types: Vec::new(), which })
}

/// Asks for a replay; returns its generation.
pub(crate) async fn ask(world: &World, replay: &Replay) -> Result<u32> {
    match world.log.write_replay(replay, 0).await? {
        JobWritten::Stored(revision) => Ok(u32::try_from(revision)?),
        JobWritten::Conflict | JobWritten::Gone => anyhow::bail!("nobody else writes"),
    }
}

/// Has a replay stand as one that was begun, and has written nothing but its beginning. Returns its
/// generation.
async fn begin(world: &World, replay: &Replay) -> Result<u32> {
    let generation = ask(world, replay).await?;
    let journal_sequence = world.log.journal_last().await?;
    let progress = Progress { next: 1, journal_sequence, ..replay.progress };
    let begun = Replay { generation, progress, ..replay.clone() };
    let written = world.log.write_replay(&begun, u64::from(generation)).await?;
    ensure!(matches!(written, JobWritten::Stored(_)), "{written:?}");
    Ok(generation)
}

/// Puts a routing of a replay on record.
async fn route(
    world: &World,
    stored: &StoredEvent,
    generation: u32,
    targets: &[EndpointId],
) -> Result<()> {
    let routed = EventRouted {
        event: stored.event.id,
        tenant: stored.event.tenant.clone(),
        event_sequence: stored.sequence,
        config_revision: 1,
        generation,
        targets: targets.to_vec(),
        skipped: Vec::new(),
        held: Vec::new(),
        fed: Vec::new(),
        part: 0,
        parts: 1,
    };
    let record = Record {
        recorded_at: Timestamp::EPOCH,
        trace: TraceContext::default(),
        fact: Fact::EventRouted(routed),
    };
    world.log.publisher().routed(&[record]).await?.stored().await?;
    Ok(())
}

/// The end of a delivery.
pub(crate) fn ended(
    stored: &StoredEvent,
    endpoint: EndpointId,
    generation: u32,
    conclusion: Conclusion,
) -> Record {
    let delivery = delivery_of(stored, endpoint, generation);
    let reason = ConclusionReason::Outcome;
    let ended = DeliveryConcluded { delivery, conclusion, attempts: 1, reason };
    let (recorded_at, trace) = (SystemClock.now(), TraceContext::default());
    Record { recorded_at, trace, fact: Fact::DeliveryConcluded(ended) }
}

pub(crate) async fn publish(world: &World, count: usize) -> Result<Vec<EventId>> {
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        events.push(world.publish("a").await?);
    }
    Ok(events)
}

pub(crate) fn again(
    events: &[EventId],
    endpoint: EndpointId,
    generation: u32,
) -> BTreeSet<DeliveryId> {
    events.iter().map(|event| DeliveryId::of(*event, endpoint, generation)).collect()
}

#[tokio::test]
async fn what_an_interrupted_replay_put_on_record_is_delivered() -> Result<()> {
    let world = World::new().await?;
    let first = world.create(&["a"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    let events = publish(&world, 3).await?;
    world.routings(&events).await?;
    let mut queues = world.queues().await?;
    let mut expected: BTreeSet<_> =
        events.iter().flat_map(|event| deliveries(*event, [&first])).collect();
    queues.take(&expected).await?;
    fan_out.stop().await?;

    let (late, gone) = (world.create(&["a"]).await?, world.create(&["a"]).await?);
    let (late, of_gone) = (late.endpoint.id, gone.endpoint.id);
    let missing = replay("acme", range(Which::Missing, None))?;
    let generation = begin(&world, &missing).await?;
    for event in &events[..2] {
        route(&world, &world.stored(*event).await?, generation, &[late, of_gone]).await?;
    }
    // What it was to get is on record all the same, and has to come to an end.
    world.delete(gone).await?;
    let fan_out = world.start().await?;
    let jobs = Jobs::of(&world).await?;
    expected.extend(again(&events, late, generation));
    expected.extend(again(&events[..2], of_gone, generation));
    queues.take(&expected).await?;
    assert_eq!(jobs.done(missing.id).await, 5);
    fan_out.stop().await
}

#[tokio::test]
async fn what_a_cancelled_replay_put_on_record_is_delivered_and_no_more() -> Result<()> {
    let world = World::new().await?;
    let endpoint = world.create(&["a"]).await?.endpoint.id;
    let events = publish(&world, 3).await?;
    // Whoever ran it was killed before the tasks were written, and a person cancels it.
    let all = replay("acme", range(Which::All, None))?;
    let generation = begin(&world, &all).await?;
    for event in &events[..2] {
        route(&world, &world.stored(*event).await?, generation, &[endpoint]).await?;
    }
    let jobs = Jobs::of(&world).await?;
    jobs.view.confirm().await?;
    let found = jobs.view.read(|jobs| jobs.replay(all.id).cloned()).context("a replay")?;
    let cancelled = found.replay.cancelled(SystemClock.now());
    world.log.write_replay(&cancelled, found.revision).await?;
    // One that had not begun has nothing on record.
    let other = replay("acme", range(Which::All, None))?;
    let untouched = u64::from(ask(&world, &other).await?);
    let other = other.cancelled(SystemClock.now());
    assert!(!other.wants_a_runner());
    world.log.write_replay(&other, untouched).await?;

    let fan_out = world.start().await?;
    let mut expected: BTreeSet<_> =
        events.iter().flat_map(|event| deliveries(*event, [&endpoint])).collect();
    expected.extend(again(&events[..2], endpoint, generation));
    world.queues().await?.take(&expected).await?;
    let done = jobs.until(all.id, |replay| !replay.wants_a_runner()).await;
    assert_eq!((done.state, done.progress.made), (JobState::Cancelled, 2));
    let one_more = replay("acme", range(Which::All, None))?;
    ask(&world, &one_more).await?;
    assert_eq!(jobs.done(one_more.id).await, 3);
    assert_eq!(jobs.find(all.id).map(|replay| replay.progress.made), Some(2), "and no more");
    fan_out.stop().await
}

#[tokio::test]
async fn what_was_accepted_and_is_not_routed_yet_is_not_missing() -> Result<()> {
    let world = World::with(|settings| settings.ack_wait = PATIENCE * 5).await?;
    let endpoint = world.create(&["a"]).await?.endpoint.id;
    let other = world.create_of("other", &["a"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    let mut queues = world.queues().await?;
    let known = world.publish_of("other", "a").await?;
    let mut expected = deliveries(known, [&other]);
    queues.take(&expected).await?;
    fan_out.stop().await?;

    // Another process has them in hand.
    let events = publish(&world, 3).await?;
    let mut reader = world.log.read_events().await?;
    let mut in_hand = Vec::new();
    while in_hand.len() < events.len() {
        in_hand.extend(reader.next_batch(8).await?);
    }
    let missing = replay("acme", range(Which::Missing, Some(endpoint)))?;
    ask(&world, &missing).await?;
    let fan_out = world.start().await?;
    let jobs = Jobs::of(&world).await?;
    jobs.until(missing.id, |replay| replay.generation > 0).await;
    // By then the first one has had its turn several times.
    for _ in 0..5 {
        let all = replay("other", range(Which::All, Some(other)))?;
        let generation = ask(&world, &all).await?;
        assert_eq!(jobs.done(all.id).await, 1);
        expected.extend(again(&[known], other, generation));
    }
    let waits = jobs.find(missing.id).context("a replay")?;
    assert_eq!((waits.state, waits.progress.made), (JobState::Running, 0));
    for unsettled in in_hand {
        unsettled.settler.redeliver(Duration::ZERO).await;
    }
    drop(reader);
    assert_eq!(jobs.done(missing.id).await, 0, "all of them are delivered as they are");
    expected.extend(events.iter().flat_map(|event| deliveries(*event, [&endpoint])));
    queues.take(&expected).await?;
    fan_out.stop().await
}

#[tokio::test]
async fn a_replay_goes_on_when_what_it_makes_again_was_attempted_before() -> Result<()> {
    let world = World::new().await?;
    let mut endpoints = Vec::new();
    for _ in 0..6 {
        endpoints.push(world.create(&["a"]).await?.endpoint.id);
    }
    let events = publish(&world, 70).await?;
    let all = replay("acme", range(Which::All, None))?;
    let generation = begin(&world, &all).await?;
    // Its tasks were stored, and dispatchers were faster than it.
    let mut facts = Vec::new();
    for event in &events[..64] {
        let stored = world.stored(*event).await?;
        let to = |to: &EndpointId| ended(&stored, *to, generation, Conclusion::Delivered);
        facts.extend(endpoints.iter().map(to));
    }
    let shard = Shard::from_index(0);
    let claim = world.log.claim(shard, Column::Attempts, "test", SystemClock.now());
    let mut writer = claim.await?;
    for batch in facts.chunks(256) {
        writer.append(batch).await?;
    }
    let fan_out = world.start().await?;
    let jobs = Jobs::of(&world).await?;
    assert_eq!(jobs.done(all.id).await, 6 * 70);
    fan_out.stop().await
}

#[tokio::test]
async fn replays_that_wait_for_their_endpoints_stop_no_others() -> Result<()> {
    let world = World::new().await?;
    for _ in 0..5 {
        world.create(&["a"]).await?;
    }
    publish(&world, 70).await?;
    let mut waiting = Vec::new();
    for _ in 0..6 {
        let slow = replay("acme", range(Which::All, None))?;
        ask(&world, &slow).await?;
        waiting.push(slow.id);
    }
    let other = world.create_of("other", &["a"]).await?.endpoint.id;
    let event = world.publish_of("other", "a").await?;
    let fan_out = world.start().await?;
    let jobs = Jobs::of(&world).await?;
    // Nobody takes what they have made: as much as is enough for a turn.
    for job in &waiting {
        jobs.until(*job, |replay| replay.progress.made == 5 * 52).await;
    }
    let all = replay("other", range(Which::All, Some(other)))?;
    ask(&world, &all).await?;
    assert_eq!(jobs.done(all.id).await, 1);
    let sequence = world.stored(event).await?.sequence;
    let past = Past { event, event_sequence: sequence, endpoint: other };
    let only = replay("other", Scope::Only(vec![past]))?;
    ask(&world, &only).await?;
    assert_eq!(jobs.done(only.id).await, 1);
    for job in &waiting {
        let waits = jobs.find(*job).context("a replay")?;
        assert_eq!((waits.state, waits.progress.made), (JobState::Running, 5 * 52));
    }
    fan_out.stop().await
}

#[tokio::test]
async fn an_event_that_nobody_can_read_is_left_out() -> Result<()> {
    let world = World::new().await?;
    let endpoint = world.create(&["a"]).await?.endpoint.id;
    let event = world.publish("a").await?;
    let event_sequence = world.nats.put("fanfare.events.acme.a", b"no event").await?;
    let unreadable =
        Past { event: EventId::new(SystemClock.now(), [1; 10]), event_sequence, endpoint };
    let event_sequence = world.stored(event).await?.sequence;
    let only = Scope::Only(vec![unreadable, Past { event, event_sequence, endpoint }]);
    let only = replay("acme", only)?;
    ask(&world, &only).await?;
    let fan_out = world.start().await?;
    let jobs = Jobs::of(&world).await?;
    assert_eq!(jobs.done(only.id).await, 1);
    fan_out.stop().await
}

#[tokio::test]
async fn a_replay_that_can_never_be_done_fails_and_says_why() -> Result<()> {
    let world = World::new().await?;
    let (there, gone) = (world.create(&["a"]).await?, world.create(&["a"]).await?);
    let (there, of_gone) = (there.endpoint.id, gone.endpoint.id);
    let event = world.publish("a").await?;
    let event_sequence = world.stored(event).await?.sequence;
    world.delete(gone).await?;
    let past = |event_sequence, endpoint| Past { event, event_sequence, endpoint };
    let long_ago = Scope::Range(Range {
        endpoint: None,
        since: Timestamp::EPOCH,
        until: Timestamp::from_millis(1),
        types: Vec::new(),
        which: Which::All,
    });
    let fan_out = world.start().await?;
    let jobs = Jobs::of(&world).await?;
    for (scope, expected) in [
        (range(Which::All, Some(of_gone)), "endpoint_deleted"),
        (range(Which::Missing, Some(of_gone)), "endpoint_deleted"),
        (Scope::Only(vec![past(event_sequence, of_gone)]), "endpoint_deleted"),
        (Scope::Only(vec![past(event_sequence + 1, there)]), "events_gone"),
        (long_ago, "events_gone"),
    ] {
        let never = replay("acme", scope)?;
        ask(&world, &never).await?;
        let ended = jobs.until(never.id, Replay::is_over).await;
        let failed = JobState::Failed(String::from(expected));
        assert_eq!((ended.state, ended.progress.made), (failed, 0), "{:?}", ended.scope);
    }
    // Where one of its endpoints is there, it goes on.
    let only = Scope::Only(vec![past(event_sequence, of_gone), past(event_sequence, there)]);
    let some = replay("acme", only)?;
    ask(&world, &some).await?;
    assert_eq!(jobs.done(some.id).await, 2);
    fan_out.stop().await
}
