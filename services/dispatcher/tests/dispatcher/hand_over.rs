//! What goes from one dispatcher to the next.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use fanfare_domain::{
    Conclusion, DeliveryId, Fact, Record, TraceContext,
    fact::{ConclusionReason, InFlight, ShardReleased},
};
use fanfare_event_log::{
    Column,
    journal::{From, JournalFilter},
};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::{
    receiver::{Behaviour, Gate},
    wait_until,
};

use crate::{conclusion, world::World};

/// Longer than a dispatcher waits for requests before it gives its shards away.
const SLOW: Duration = Duration::from_secs(2);

/// Waits until the receiver has got so many requests.
async fn received(world: &World, count: usize) -> Result<()> {
    world.receiver.wait_for(count, Duration::from_secs(30)).await?;
    Ok(())
}

/// Every fact of the endpoint's shard, with its sequence.
pub(crate) async fn facts(world: &World) -> Result<Vec<Fact>> {
    let shard = world.log.shards().of(world.endpoint.id);
    let last = world.log.journal_last().await?;
    let filter = JournalFilter::Column(shard, Column::Attempts);
    let mut reader = world.log.journal(filter, From::Sequence(1)).await?;
    let mut facts = Vec::new();
    while let Some(batch) = reader.next_until(last).await? {
        facts.extend(batch.facts.into_iter().map(|record| record.fact));
    }
    Ok(facts)
}

/// Waits until the last claim of the shard is of that epoch.
pub(crate) async fn claimed(world: &World, epoch: u64) {
    wait_until("the shard to be claimed", async || {
        let facts = facts(world).await.unwrap_or_default();
        let epoch_of = |fact: &Fact| {
            if let Fact::ShardClaimed(claimed) = fact { Some(claimed.epoch) } else { None }
        };
        let last = facts.iter().rev().find_map(epoch_of);
        if last == Some(epoch) { Ok(()) } else { Err(last) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_runs_on_is_recorded_by_the_next_owner() -> Result<()> {
    let (world, gate) = (World::new().await?, Gate::default());
    world.receiver.answer(Behaviour::status(200).behind(&gate));
    let first = world.run().await?;
    let task = world.send(1).await?;
    received(&world, 1).await?;
    let stopping = first.stop();
    let next = async {
        let second = world.run().await?;
        claimed(&world, 2).await;
        gate.open();
        anyhow::Ok(second)
    };
    let (stopped, second) = tokio::join!(stopping, next);
    stopped?;
    let story = world.story(task.targets[0].delivery).await?;
    let expected = (Conclusion::Delivered, ConclusionReason::Outcome, 1);
    assert_eq!(conclusion(&story), Some(expected));
    let facts = facts(&world).await?;
    let place = |wanted: fn(&Fact) -> bool| facts.iter().position(wanted);
    let places = [
        place(|fact| matches!(fact, Fact::ShardReleased(it) if it.in_flight.len() == 1)),
        place(|fact| matches!(fact, Fact::ShardClaimed(it) if it.epoch == 2)),
        place(|fact| matches!(fact, Fact::AttemptMade(_))),
    ];
    assert!(places[0].is_some() && places.is_sorted(), "{places:?} of {facts:?}");
    // What comes after it is served, and nothing was sent twice.
    let sentinel = world.send(2).await?;
    world.story(sentinel.targets[0].delivery).await?;
    assert_eq!(world.receiver.count(), 2);
    second?.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_ends_with_nobody_after_it_records_what_runs_on() -> Result<()> {
    let world = World::new().await?;
    world.receiver.answer(Behaviour::status(200).after(SLOW));
    let first = world.run().await?;
    let task = world.send(1).await?;
    received(&world, 1).await?;
    first.stop().await?;
    let story = world.story(task.targets[0].delivery).await?;
    let expected = (Conclusion::Delivered, ConclusionReason::Outcome, 1);
    assert_eq!(conclusion(&story), Some(expected));
    let second = world.run().await?;
    let sentinel = world.send(2).await?;
    world.story(sentinel.targets[0].delivery).await?;
    assert_eq!(world.receiver.count(), 2);
    second.stop().await
}

/// Writes facts as an owner that is gone.
pub(crate) async fn write_as_before(world: &World, facts: Vec<Fact>) -> Result<()> {
    let now = SystemClock.now();
    let shard = world.log.shards().of(world.endpoint.id);
    let mut writer = world.log.claim(shard, Column::Attempts, "before", now).await?;
    let record = |fact| Record { recorded_at: now, trace: TraceContext::default(), fact };
    let records: Vec<_> = facts.into_iter().map(record).collect();
    if !records.is_empty() {
        writer.append(&records).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_left_and_never_reported_is_made_after_its_time() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.concurrency = Some(1);
    world.put_endpoint(false).await?;
    let left = world.send(1).await?;
    let (delivery, endpoint) = (left.targets[0].delivery, world.endpoint.id);
    let ends_by = SystemClock.now().saturating_add(Duration::from_secs(2));
    let released = ShardReleased {
        shard: world.log.shards().of(endpoint),
        epoch: 1,
        limits_since: fanfare_domain::Timestamp::EPOCH,
        in_flight: vec![InFlight { delivery, attempt: 1, endpoint, ends_by, request: delivery }],
        limits: Vec::new(),
        part: 0,
        parts: 1,
    };
    write_as_before(&world, vec![Fact::ShardReleased(Box::new(released))]).await?;
    // The only slot is taken by what runs on, also for others.
    let other = world.send(2).await?;
    let dispatcher = world.run().await?;
    for task in [&left, &other] {
        let story = world.story(task.targets[0].delivery).await?;
        let [Fact::AttemptMade(made), ..] = story.as_slice() else { panic!("{story:?}") };
        assert!(made.started_at >= ends_by, "{made:?}");
    }
    assert_eq!(world.receiver.count(), 2);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_death_a_cap_counts_what_the_dead_may_have_in_flight() -> Result<()> {
    let mut world = World::new().await?;
    let timeout = Duration::from_secs(6);
    world.endpoint.concurrency = Some(2);
    world.endpoint.timeout = Some(timeout);
    world.put_endpoint(false).await?;
    let waiting = [world.send(1).await?, world.send(2).await?];
    // The clocks of a task's stream and of the dispatcher are the same here.
    write_as_before(&world, Vec::new()).await?;
    let begun = SystemClock.now();
    let dispatcher = world.run().await?;
    let mut starts = BTreeMap::<DeliveryId, Duration>::new();
    for task in &waiting {
        let story = world.story(task.targets[0].delivery).await?;
        let [Fact::AttemptMade(made), ..] = story.as_slice() else { panic!("{story:?}") };
        starts.insert(made.delivery.id, made.started_at.since(begun));
    }
    // 2.3 s of it were over when the shard was claimed.
    let soonest = timeout.saturating_sub(Duration::from_millis(2_300));
    assert!(starts.values().all(|waited| *waited >= soonest), "{starts:?}");
    let later = world.send(3).await?;
    let story = world.story(later.targets[0].delivery).await?;
    let [Fact::AttemptMade(made), ..] = story.as_slice() else { panic!("{story:?}") };
    assert!(made.started_at.since(made.delivery.accepted_at) < soonest, "{made:?}");
    dispatcher.stop().await
}
