//! Endpoints that are fed: their events are left to their shard's owner.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_domain::{
    EndpointId, Feed,
    feed::{Phase, Reason},
};
use fanfare_event_log::feeds::Written;
use fanfare_service::{Clock as _, SystemClock};

use crate::support::World;

/// Writes an endpoint's feed over a revision; returns the new one.
pub(crate) async fn write(
    world: &World,
    (endpoint, from): (EndpointId, u64),
    phase: Phase,
    revision: u64,
) -> Result<u64> {
    let feed = Feed {
        tenant: "acme".parse()?,
        endpoint,
        from,
        phase,
        reason: Reason::Backlog,
        opened_at: SystemClock.now(),
        next: from,
        blocked: Vec::new(),
        past: Vec::new(),
        ended: Vec::new(),
        ended_since: 0,
        taken_over: Vec::new(),
    };
    let shard = world.log.shards().of(endpoint);
    match world.log.write_feed(shard, &feed, revision).await? {
        Written::Stored(revision) => Ok(revision),
        Written::Conflict { .. } => anyhow::bail!("nobody else writes"),
    }
}

#[tokio::test]
async fn what_a_feed_covers_is_on_record_and_makes_no_task() -> Result<()> {
    let world = World::new().await?;
    let fed = world.create(&[">"]).await?.endpoint.id;
    let other = world.create(&[">"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    let before = world.routing(world.publish("a").await?).await?;
    assert_eq!((before.targets.len(), before.fed.len()), (2, 0));
    let from = before.event_sequence + 1;
    let mut hints = world.log.feed_hints(world.log.shards().of(fed)).await?;
    // A server that answers this knows that somebody listens.
    world.log.journal_last().await?;
    let revision = write(&world, (fed, from), Phase::Open, 0).await?;
    // The first feed of all is heard of by and by: until then, its owner drops the tasks.
    let inside = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let routed = world.routing(world.publish("a").await?).await?;
            if !routed.fed.is_empty() {
                return anyhow::Ok(routed);
            }
        }
    });
    let inside = inside.await.context("nothing is left to the feed")??;
    assert_eq!((&*inside.targets, &*inside.fed), (&[other][..], &[fed][..]));
    let hint = tokio::time::timeout(Duration::from_secs(10), hints.next()).await?;
    assert_eq!(hint.context("a hint")?, [(fed, inside.event_sequence)]);
    // What is acknowledged from now on holds for everything that is published after it.
    let revision = write(&world, (fed, from), Phase::Closing, revision).await?;
    let closing = world.routing(world.publish("a").await?).await?;
    assert_eq!((closing.targets.len(), closing.fed.len()), (2, 0));
    let (until, at) = (world.log.events_last().await?, SystemClock.now());
    write(&world, (fed, from), Phase::Closed { until, at }, revision).await?;
    let after = world.routing(world.publish("a").await?).await?;
    assert_eq!((after.targets.len(), after.fed.len()), (2, 0));
    fan_out.stop().await
}
