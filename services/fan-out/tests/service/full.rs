//! A queue that is full holds events back, and drops none.

use std::collections::BTreeSet;

use anyhow::Result;
use fanfare_domain::Task;
use fanfare_testkit::wait_until;

use crate::support::{World, deliveries};

#[tokio::test]
async fn a_full_queue_holds_events_back_until_there_is_room() -> Result<()> {
    // What goes into EVENTS once goes into DELIVERIES four times, once for each shard.
    let world = World::with(|settings| settings.stream_bytes_max = Some(600_000)).await?;
    let mut endpoints = Vec::new();
    let mut shards = BTreeSet::new();
    while shards.len() < 4 {
        let endpoint = world.create(&["a"]).await?.endpoint.id;
        shards.insert(world.log.shards().of(endpoint));
        endpoints.push(endpoint);
    }
    let data = format!("\"{}\"", "x".repeat(4_000));
    let mut expected = BTreeSet::new();
    let fan_out = world.start().await?;
    for _ in 0..100 {
        let event = world.publish_data("a", &data).await?;
        expected.extend(deliveries(event, &endpoints));
    }
    // It stops promptly although it waits for room, and what it waited with is handed out again.
    wait_until("the queue to be full", async || match world.bytes_of_tasks().await {
        // The next message may be as large as tasks that travel together can be.
        Ok(stored) if stored > 600_000 - Task::TOGETHER_BYTES_MAX => Ok(()),
        other => Err(other.map_err(|error| error.to_string())),
    })
    .await;
    fan_out.stop().await?;
    let (stored, all) = (world.bytes_of_tasks().await?, 400 * data.len());
    assert!(stored < all, "there was room for all: {stored}");

    let fan_out = world.start().await?;
    world.queues().await?.take(&expected).await?;
    fan_out.stop().await
}
