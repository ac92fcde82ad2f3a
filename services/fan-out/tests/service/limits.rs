//! Tenants' rate limits.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_testkit::NatsServer;
use tokio::time::timeout;

use crate::support::{World, deliveries};

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
