//! From the fact to the due queue.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use fanfare_domain::{Conclusion, Fact};
use fanfare_event_log::{Column, JournalFilter, journal::From};
use fanfare_testkit::wait_until;

use crate::support::{World, from_now, now, trace};

#[tokio::test]
async fn a_failed_attempt_falls_due_at_its_time_and_not_before() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start().await?;
    let due_at = from_now(Duration::from_secs(2));
    let cause = world.fail(1, due_at).await?;
    let due = world.next_due().await?;
    assert!(due.position.stored_at >= due_at, "{} is before {due_at}", due.position.stored_at);
    assert!(now() < due_at.saturating_add(Duration::from_secs(5)), "far too late");
    let retry = due.record;
    assert_eq!((retry.delivery.id, retry.attempt), (world.delivery(1).id, 2));
    assert_eq!((retry.due_at, &retry.trace), (due_at, &trace()));
    due.settler.settle().await;
    world.succeed(1).await?;
    let plans = plans(&world, 1).await?;
    let [Fact::RetryScheduled(plan)] = plans.as_slice() else { panic!("{plans:?}") };
    assert_eq!((plan.attempt, plan.due_at, plan.cause_sequence), (2, due_at, cause));
    let fact = world.log.journal_batch(retry.journal_sequence).await?.expect("the plan's");
    assert_eq!(fact.facts[0].fact, plans[0], "it refers to the fact that gave it its time");
    assert_eq!(scheduler.counters.rescues.get(), 0);
    scheduler.stop().await
}

#[tokio::test]
async fn a_deferred_attempt_keeps_its_number_however_often_it_is_put_off() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start().await?;
    for _ in 0..3 {
        let until = from_now(Duration::from_millis(300));
        world.record(vec![world.deferred(1, 1, until)]).await?;
        let due = world.take_due().await?;
        assert_eq!((due.attempt, due.due_at), (1, until));
    }
    assert_eq!(scheduler.counters.rescues.get(), 0);
    scheduler.stop().await
}

#[tokio::test]
async fn what_gathers_is_written_in_batches_and_each_retry_falls_due_once() -> Result<()> {
    let mut world = World::new().await?;
    let soon = from_now(Duration::from_secs(1));
    let facts = (0..=255).map(|number| world.attempt(number, 1, 500, Some(soon))).collect();
    world.record(facts).await?;
    let scheduler = world.start().await?;
    let mut seen = BTreeSet::new();
    while seen.len() < 256 {
        assert!(seen.insert(world.take_due().await?.delivery.id), "the same delivery twice");
    }
    assert_eq!(plans(&world, 256).await?.len(), 256);
    scheduler.plans(256).await;
    assert_eq!(scheduler.counters.plans.get(), 256);
    assert_eq!(scheduler.counters.rescues.get(), 0);
    scheduler.stop().await
}

#[tokio::test]
async fn a_cancelled_delivery_never_falls_due() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start().await?;
    world.fail(1, from_now(Duration::from_hours(1))).await?;
    scheduler.alarms(1).await;
    let clocks = world.log.schedules();
    assert!(clocks.get(world.shard, world.delivery(1).id).await?.is_some());
    world.record(vec![world.concluded(1, Conclusion::Cancelled)]).await?;
    wait_until("the alarm to be cancelled", async || {
        let set = clocks.get(world.shard, world.delivery(1).id).await;
        if matches!(set, Ok(None)) { Ok(()) } else { Err(set) }
    })
    .await;
    scheduler.stop().await
}

#[tokio::test]
async fn a_shard_that_another_claimed_is_claimed_back() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start().await?;
    world.fail(1, from_now(Duration::from_hours(1))).await?;
    scheduler.alarms(1).await;
    world.log.claim(world.shard, Column::Plans, "another", now()).await?;
    world.fail(2, from_now(Duration::from_hours(1))).await?;
    scheduler.alarms(2).await;
    // Everything else went on, and nothing was done twice.
    assert_eq!(scheduler.counters.plans.get(), 2);
    scheduler.stop().await
}

/// Returns the facts of the shard's plans, once there are that many.
pub(crate) async fn plans(world: &World, count: usize) -> Result<Vec<Fact>> {
    let filter = JournalFilter::Column(world.shard, Column::Plans);
    let mut reader = world.log.journal(filter, From::Sequence(1)).await?;
    let mut plans = Vec::new();
    while plans.len() < count {
        let batch = reader.next().await?;
        assert!(batch.facts.len() <= 256);
        let facts = batch.facts.into_iter().map(|record| record.fact);
        plans.extend(facts.filter(|fact| matches!(fact, Fact::RetryScheduled(_))));
    }
    Ok(plans)
}
