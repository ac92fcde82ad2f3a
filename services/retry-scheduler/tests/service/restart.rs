//! Stopping, crashing, and taking over.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{Conclusion, Fact, Record, TraceContext, fact::RetryScheduled};
use fanfare_event_log::{Column, snapshot::Snapshot};
use fanfare_testkit::wait_until;
use tokio::time::timeout;

use crate::support::{World, from_now, now};

const SNAPSHOTS: &str = "retry-scheduler";

#[tokio::test]
async fn a_restart_goes_on_from_the_snapshot() -> Result<()> {
    let mut world = World::new().await?;
    let first = world.start().await?;
    let due_at = from_now(Duration::from_secs(3));
    let cause = world.fail(1, due_at).await?;
    first.alarms(1).await;
    first.stop().await?;
    let snapshot = world.log.snapshot(SNAPSHOTS, world.shard).await?.expect("one was written");
    assert!(snapshot.sequence >= cause, "it covers the attempt");
    let second = world.start().await?;
    let due = world.take_due().await?;
    assert_eq!((due.attempt, due.due_at), (2, due_at));
    assert_eq!(second.counters.alarms.get(), 0, "the alarm was known to be set");
    world.succeed(1).await?;
    world.fail(2, from_now(Duration::from_millis(200))).await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(2).id, "nothing in between");
    assert_eq!((rescues(&second), second.counters.plans.get()), (0, 1));
    second.stop().await
}

#[tokio::test]
async fn a_crash_between_cause_and_fact_loses_nothing() -> Result<()> {
    let mut world = World::new().await?;
    let first = world.start().await?;
    first.crash().await;
    world.fail(1, from_now(Duration::from_millis(100))).await?;
    let second = world.start().await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(1).id);
    assert_eq!(rescues(&second), 0);
    second.stop().await
}

#[tokio::test]
async fn a_crash_between_fact_and_alarm_loses_nothing() -> Result<()> {
    let mut world = World::new().await?;
    let due_at = from_now(Duration::from_millis(100));
    let cause_sequence = world.fail(1, due_at).await?;
    // An earlier run wrote the fact and died.
    let plan = RetryScheduled {
        delivery: world.delivery(1),
        attempt: 2,
        due_at,
        cause_sequence,
        batch: None,
    };
    let mut writer = world.log.claim(world.shard, Column::Plans, "earlier", now()).await?;
    let (recorded_at, trace) = (now(), TraceContext::default());
    let fact = Fact::RetryScheduled(plan);
    writer.append(&[Record { recorded_at, trace, fact }]).await?;
    let scheduler = world.start().await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(1).id);
    scheduler.alarms(1).await;
    let counters = &scheduler.counters;
    assert_eq!((counters.plans.get(), counters.alarms.get(), counters.rescues.get()), (0, 1, 0));
    scheduler.stop().await
}

/// Hours later nobody may remember that the delivery has ended.
#[tokio::test]
async fn an_alarm_that_became_pointless_while_nobody_looked_is_stopped() -> Result<()> {
    let mut world = World::new().await?;
    let first = world.start().await?;
    for number in 1..=3 {
        world.fail(number, from_now(Duration::from_hours(1))).await?;
    }
    first.alarms(3).await;
    first.stop().await?;
    world.succeed(1).await?;
    world.record(vec![world.concluded(2, Conclusion::Cancelled)]).await?;
    let second = world.start().await?;
    let clocks = world.log.schedules();
    wait_until("the alarms to be stopped", async || {
        let mut set = Vec::new();
        for number in 1..=3 {
            set.push(
                clocks.get(world.shard, world.delivery(number).id).await.map(|it| it.is_some()),
            );
        }
        if matches!(set[..], [Ok(false), Ok(false), Ok(true)]) { Ok(()) } else { Err(set) }
    })
    .await;
    assert_eq!(rescues(&second), 0);
    second.stop().await
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_ignored() -> Result<()> {
    let mut world = World::new().await?;
    let sequence = world.fail(1, from_now(Duration::from_millis(100))).await?;
    let state = "FFRS of another version".into();
    world.log.put_snapshot(SNAPSHOTS, world.shard, &Snapshot { sequence, state }).await?;
    let scheduler = world.start().await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(1).id);
    scheduler.stop().await
}

#[tokio::test]
async fn a_second_process_takes_its_share_and_all_of_it_in_the_end() -> Result<()> {
    let mut world = World::new().await?;
    let first = world.start().await?;
    world.fail(1, from_now(Duration::from_hours(1))).await?;
    first.alarms(1).await;
    let second = world.start().await?;
    let shards = usize::from(world.log.shards().get());
    world.owned(&[shards / 2, shards / 2]).await;
    world.fail(2, from_now(Duration::from_hours(1))).await?;
    wait_until("one of them to set the alarm", async || {
        let set = first.counters.alarms.get() + second.counters.alarms.get();
        if set >= 2 { Ok(()) } else { Err(set) }
    })
    .await;
    first.stop().await?;
    world.owned(&[shards]).await;
    world.fail(3, from_now(Duration::from_millis(100))).await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(3).id);
    assert_eq!(rescues(&second), 0);
    let waiting = &second.counters.waiting;
    wait_until("the second to know of all that waits", async || {
        if waiting.get() == 3 { Ok(()) } else { Err(waiting.get()) }
    })
    .await;
    second.stop().await
}

#[tokio::test]
async fn a_crashed_process_is_followed_by_the_one_beside_it() -> Result<()> {
    let mut world = World::new().await?;
    let first = world.start().await?;
    let second = world.start().await?;
    let shards = usize::from(world.log.shards().get());
    world.owned(&[shards / 2, shards / 2]).await;
    first.crash().await;
    world.fail(1, from_now(Duration::from_millis(100))).await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(1).id);
    world.owned(&[shards]).await;
    second.stop().await
}

#[tokio::test]
async fn the_state_is_saved_while_the_service_runs() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start().await?;
    let cause = world.fail(1, from_now(Duration::from_secs(4))).await?;
    wait_until("a snapshot of the attempt", async || {
        let snapshot = world.log.snapshot(SNAPSHOTS, world.shard).await;
        match snapshot {
            Ok(Some(snapshot)) if snapshot.sequence > cause => Ok(()),
            other => Err(other),
        }
    })
    .await;
    scheduler.crash().await;
    let second = world.start().await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(1).id);
    assert_eq!(rescues(&second), 0);
    second.stop().await
}

#[tokio::test]
async fn crashes_at_any_point_lose_nothing() -> Result<()> {
    let mut world = World::new().await?;
    let mut wanted = BTreeSet::new();
    for (round, alarms) in (0_u8..).zip([0, 1, 17]) {
        let scheduler = world.start().await?;
        let due_at = from_now(Duration::from_secs(2));
        for number in (0..50).map(|number| round * 50 + number) {
            world.fail(number, due_at).await?;
            wanted.insert(world.delivery(number).id);
        }
        // With some alarms set, some facts written, and some not.
        scheduler.alarms(alarms).await;
        scheduler.crash().await;
    }
    let last = world.start().await?;
    while !wanted.is_empty() {
        let due = world.next_due().await?;
        wanted.remove(&due.record.delivery.id);
        let facts = vec![world.attempt_of(&due.record, 200)];
        world.record(facts).await?;
        due.settler.settle().await;
    }
    assert_eq!(rescues(&last), 0);
    last.stop().await
}

#[tokio::test]
async fn a_stop_while_it_takes_over_does_not_wait_for_frozen_servers() -> Result<()> {
    let mut world = World::new().await?;
    world.fail(1, from_now(Duration::from_millis(100))).await?;
    // Frozen while it takes the role, claims shards, reads snapshots, or catches up.
    for moments in [0, 20, 60] {
        let scheduler = world.start().await?;
        for _ in 0..moments {
            tokio::task::yield_now().await;
        }
        world.nats.server().suspend()?;
        let stopped = timeout(Duration::from_secs(15), scheduler.stop()).await;
        world.nats.server().resume()?;
        stopped.context("it does not stop")??;
    }
    let last = world.start().await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(1).id);
    assert_eq!(rescues(&last), 0);
    last.stop().await
}

fn rescues(scheduler: &crate::support::Scheduler) -> u64 {
    scheduler.counters.rescues.get()
}
