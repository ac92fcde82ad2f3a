//! What is older than the retention is forgotten, and stays so.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use fanfare_domain::Timestamp;
use fanfare_service::{Clock, SystemClock};
use fanfare_testkit::wait_until;

use crate::support::World;

/// The machine's clock, two days ahead.
#[derive(Debug)]
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().saturating_add(Duration::from_hours(48))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_the_retention_is_forgotten() -> Result<()> {
    let mut world = World::new().await?;
    let database = world.file("delivery-log.sqlite");
    for _ in 0..5 {
        world.deliver().await?;
    }
    let projector = world.start(&database).await?;
    assert_eq!(world.caught_up(&database).await?.deliveries.len(), 5);
    projector.stop().await?;
    let projector = world.start_by(&database, Arc::new(Ahead)).await?;
    wait_until("everything to be forgotten", async || {
        let content = world.caught_up(&database).await.map_err(|error| format!("{error:#}"))?;
        let left = (content.events.len(), content.deliveries.len(), content.attempts.len());
        if left == (0, 0, 0) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    world.deliver().await?;
    assert_eq!(world.caught_up(&database).await?.deliveries.len(), 0, "it is as old");
    projector.stop().await
}
