//! Crashes between the routed fact, the tasks, and the settling of the event.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    DeliveryId, EndpointId, EventId, Fact, Record, Target, Task, Timestamp, TraceContext,
    fact::EventRouted,
};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::wait_until;

use crate::support::{World, deliveries};

/// Records a routing as a process would that crashed right afterwards.
pub(crate) async fn record(world: &World, event: EventId, targets: &[EndpointId]) -> Result<u64> {
    record_part(world, event, targets, (0, 1), Timestamp::EPOCH).await
}

/// Records one part of so many.
async fn record_part(
    world: &World,
    event: EventId,
    targets: &[EndpointId],
    (part, parts): (u32, u32),
    recorded_at: Timestamp,
) -> Result<u64> {
    let stored = world.stored(event).await?;
    let routed = EventRouted {
        event,
        tenant: stored.event.tenant.clone(),
        event_sequence: stored.sequence,
        config_revision: 1,
        generation: 0,
        targets: targets.to_vec(),
        skipped: Vec::new(),
        held: Vec::new(),
        fed: Vec::new(),
        part,
        parts,
    };
    let record =
        Record { recorded_at, trace: TraceContext::default(), fact: Fact::EventRouted(routed) };
    let written = world.log.publisher().routed(&[record]).await?.stored().await?;
    Ok(written.sequence)
}

#[tokio::test]
async fn a_restart_reuses_the_recorded_routing_and_adds_the_missing_tasks() -> Result<()> {
    let world = World::new().await?;
    let mut endpoints = Vec::new();
    for _ in 0..40 {
        endpoints.push(world.create(&["a"]).await?.endpoint.id);
    }
    endpoints.sort_unstable();
    let left_out = endpoints.pop().context("an endpoint")?;
    let event = world.publish("a").await?;
    let sequence = record(&world, event, &endpoints).await?;
    let shard = world.log.shards().of(endpoints[0]);
    let of_shard = endpoints.iter().filter(|endpoint| world.log.shards().of(**endpoint) == shard);
    let targets: Vec<Target> = of_shard
        .map(|endpoint| Target {
            delivery: DeliveryId::of(event, *endpoint, 0),
            endpoint: *endpoint,
            not_before: None,
        })
        .collect();
    let stored = world.stored(event).await?;
    let task = Task { event: stored, targets, generation: 0, journal_sequence: sequence };
    world.log.publisher().tasks(shard, &[task]).await?.stored().await?;

    let fan_out = world.start().await?;
    let mut queues = world.queues().await?;
    queues.take(&deliveries(event, &endpoints)).await?;
    assert!(!queues.deliveries.contains(&DeliveryId::of(event, left_out, 0)));
    assert!(queues.tasks.iter().all(|(_, task)| task.journal_sequence == sequence));
    let after = world.publish("a").await?;
    world.routings(&[after]).await?;
    fan_out.stop().await?;
    assert_eq!(queues.tasks.len(), 4, "one for each shard, and none twice");
    assert_eq!(world.routed().await?.iter().filter(|fact| fact.event == event).count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_routing_is_found_again_after_the_duplicate_window() -> Result<()> {
    let window = Duration::from_millis(100);
    let world = World::with(|settings| settings.duplicate_window = window).await?;
    let endpoint = world.create(&["a"]).await?.endpoint.id;
    let (event, other) = (world.publish("a").await?, world.publish("a").await?);
    record(&world, event, &[endpoint]).await?;
    let over = SystemClock.now().saturating_add(window * 3);
    wait_until("the window to be over", async || match SystemClock.now() {
        now if now > over => Ok(()),
        now => Err(now),
    })
    .await;

    let fan_out = world.start().await?;
    let expected: BTreeSet<_> =
        [event, other].into_iter().flat_map(|event| deliveries(event, [&endpoint])).collect();
    world.queues().await?.take(&expected).await?;
    fan_out.stop().await?;
    let facts = world.routed().await?;
    assert_eq!(facts.iter().map(|fact| fact.event).collect::<Vec<_>>(), [event, other]);
    Ok(())
}

#[tokio::test]
async fn a_routing_in_parts_that_was_made_twice_is_taken_from_one_of_them() -> Result<()> {
    let world = World::new().await?;
    let event = world.publish("a").await?;
    let now = SystemClock.now();
    let endpoints: Vec<_> = (0..7).map(|number| EndpointId::new(now, [number; 10])).collect();
    let (early, late) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
    // Of the first one, a crash left a part. For the second one the first endpoint was fed, so that
    // the others moved up.
    record_part(&world, event, &endpoints[..4], (0, 2), early).await?;
    let first = record_part(&world, event, &endpoints[1..5], (0, 2), late).await?;
    record_part(&world, event, &endpoints[5..], (1, 2), late).await?;

    let fan_out = world.start().await?;
    let mut queues = world.queues().await?;
    queues.take(&deliveries(event, &endpoints[1..])).await?;
    fan_out.stop().await?;
    assert!(queues.tasks.iter().all(|(_, task)| task.journal_sequence == first));
    assert!(!queues.deliveries.contains(&DeliveryId::of(event, endpoints[0], 0)));
    assert_eq!(world.routed().await?.len(), 3, "it is not made a third time");
    Ok(())
}

#[tokio::test]
async fn a_crash_in_the_middle_of_the_work_loses_nothing() -> Result<()> {
    let world = World::with(|settings| settings.ack_wait = Duration::from_secs(1)).await?;
    let mut endpoints = Vec::new();
    for _ in 0..8 {
        endpoints.push(world.create(&["a"]).await?.endpoint.id);
    }
    let mut expected = BTreeSet::new();
    for crash in 0..5 {
        let fan_out = world.start().await?;
        let mut last = None;
        for _ in 0..40 {
            let event = world.publish("a").await?;
            expected.extend(deliveries(event, &endpoints));
            last = Some(event);
        }
        if crash < 4 {
            fan_out.crash().await;
            continue;
        }
        world.routings(&Vec::from_iter(last)).await?;
        let mut queues = world.queues().await?;
        queues.take(&expected).await?;
        fan_out.stop().await?;
        // What is written again may travel in other company, and is for the dispatcher to know
        // again; what it was decided to be is on record once.
        let routed = world.routed().await?;
        let events: BTreeSet<_> = routed.iter().map(|fact| fact.event).collect();
        assert_eq!((routed.len(), events.len()), (5 * 40, 5 * 40));
        for (_, task) in &queues.tasks {
            let of = |target: &Target| DeliveryId::of(task.event.event.id, target.endpoint, 0);
            assert!(task.targets.iter().all(|target| target.delivery == of(target)));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_costs_no_event() -> Result<()> {
    let mut world = World::new().await?;
    let endpoint = world.create(&["a"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    let mut expected = BTreeSet::new();
    for round in 0..3 {
        for _ in 0..50 {
            let event = world.publish("a").await?;
            expected.extend(deliveries(event, [&endpoint]));
        }
        if round < 2 {
            world.nats.server().kill().await?;
            world.nats.server().restart().await?;
        }
    }
    world.queues().await?.take(&expected).await?;
    fan_out.stop().await
}
