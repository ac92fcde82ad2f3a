//! Tenants' rate limits.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_domain::{EventId, feed::Phase};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::NatsServer;
use tokio::time::timeout;

use crate::{
    fed::write,
    support::{Queues, World, deliveries},
};

/// Where it is written down what is given out of the limits.
const GIVEN: &str = "KV_FANFARE_allowances";

#[tokio::test]
async fn a_limit_that_cannot_be_written_down_holds_only_its_own_events_back() -> Result<()> {
    waits_without(async |nats| nats.set_bytes_max(GIVEN, 1).await).await
}

#[tokio::test]
async fn a_limit_that_is_away_holds_only_its_own_events_back() -> Result<()> {
    waits_without(async |nats| nats.delete_stream(GIVEN).await).await
}

/// Takes the limits away; tries that others' events go on, that the service stops, and that
/// nothing is lost.
async fn waits_without(take_away: impl AsyncFn(&NatsServer) -> Result<()>) -> Result<()> {
    let world = World::new().await?;
    world.limit(Some(1_000), 0).await?;
    let limited = world.create(&["a"]).await?.endpoint.id;
    let free = world.create_of("other", &["a"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    take_away(&world.nats).await?;
    let mut queues = world.queues().await?;
    let held = world.publish("a").await?;
    let mut expected = deliveries(world.publish_of("other", "a").await?, [&free]);
    queues.take(&expected).await?;
    // It waits, so that more can come; and goes on, with those who have no limit.
    world.routing(held).await?;
    expected.extend(deliveries(world.publish_of("other", "a").await?, [&free]));
    queues.take(&expected).await?;
    timeout(Duration::from_secs(5), fan_out.stop()).await.context("it stops at once")??;

    // It puts right what was taken away.
    let fan_out = world.start().await?;
    expected.extend(deliveries(held, [&limited]));
    queues.take(&expected).await?;
    fan_out.stop().await
}

#[tokio::test]
async fn a_limit_that_is_removed_and_set_again_begins_anew() -> Result<()> {
    let world = World::new().await?;
    let revision = world.limit(Some(1), 0).await?;
    let mut endpoints = Vec::new();
    for _ in 0..100 {
        endpoints.push(world.create(&["a"]).await?.endpoint.id);
    }
    let soon = world.create(&["b"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    let mut queues = world.queues().await?;
    let large = world.publish("a").await?;
    let mut expected = deliveries(large, &endpoints);
    queues.take(&expected).await?;
    let waits = wait(&queues, large);
    assert!(waits > Duration::from_secs(80), "{waits:?}");

    let revision = world.limit(None, revision).await?;
    world.limit(Some(1), revision).await?;
    let small = world.publish("b").await?;
    expected.extend(deliveries(small, [&soon]));
    queues.take(&expected).await?;
    let waits = wait(&queues, small);
    assert!(waits < Duration::from_secs(2), "{waits:?}");
    fan_out.stop().await
}

#[tokio::test]
async fn what_is_fed_counts_too() -> Result<()> {
    let world = World::new().await?;
    world.limit(Some(1), 0).await?;
    for _ in 0..20 {
        let fed = world.create(&["a"]).await?.endpoint.id;
        write(&world, (fed, 1), Phase::Open, 0).await?;
    }
    let other = world.create(&["a"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    let mut queues = world.queues().await?;
    let first = world.publish("a").await?;
    let mut expected = deliveries(first, [&other]);
    queues.take(&expected).await?;
    let second = world.publish("a").await?;
    expected.extend(deliveries(second, [&other]));
    queues.take(&expected).await?;
    let waits = wait(&queues, second);
    assert!(waits > Duration::from_secs(15), "{waits:?}");
    fan_out.stop().await
}

/// For how long the last delivery of an event has to wait.
fn wait(queues: &Queues, event: EventId) -> Duration {
    let tasks = queues.tasks.iter().map(|(_, task)| task);
    let targets = tasks.filter(|task| task.event.event.id == event).flat_map(|task| &task.targets);
    let latest = targets.filter_map(|target| target.not_before).max();
    latest.map_or(Duration::ZERO, |latest| latest.since(SystemClock.now()))
}
