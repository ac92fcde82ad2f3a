//! What an owner tells of an endpoint.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_domain::{BreakerState, Fact, Health};
use fanfare_testkit::receiver::Behaviour;

use crate::world::World;

const LONG: Duration = Duration::from_secs(30);

/// Asks until an endpoint does as it is expected to.
pub(crate) async fn becomes(world: &World, expected: impl Fn(&Health) -> bool) -> Result<Health> {
    let asking = async {
        loop {
            match world.log.health(world.endpoint.id, LONG).await {
                Some(health) if expected(&health) => return health,
                Some(_) | None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(LONG, asking).await.context("it never does as expected")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_keeps_failing_is_told_from_one_that_does_not() -> Result<()> {
    let world = World::new().await?;
    assert_eq!(world.log.health(world.endpoint.id, LONG).await, None, "nobody knows it");
    let dispatcher = world.run().await?;
    let unused = becomes(&world, |_| true).await?;
    assert_eq!(unused, Health::unburdened(16));

    world.receiver.answer(Behaviour::status(500));
    for number in 0..10 {
        world.send(number).await?;
    }
    let open = becomes(&world, |health| health.breaker == BreakerState::Open).await?;
    assert!(open.since.is_some());
    // What comes now is held, and neither in flight nor put off.
    for number in 10..13 {
        world.send(number).await?;
    }
    let held = becomes(&world, |health| health.held == 3 && health.in_flight == 0).await?;
    assert_eq!((held.breaker, held.since), (BreakerState::Open, open.since));
    dispatcher.stop().await
}

/// Has the endpoint fail until first attempts are held from it, and all of that is on record.
async fn fail(world: &World) -> Result<Health> {
    world.receiver.answer(Behaviour::status(503));
    let mut deliveries = Vec::new();
    for number in 0..10 {
        deliveries.push(world.delivery(&world.send(number).await?.event).id);
    }
    // A request is in flight no more before its fact is acknowledged: a crash in between loses it.
    for delivery in deliveries {
        world.story(delivery).await?;
    }
    becomes(world, |health| health.breaker == BreakerState::Open && health.in_flight == 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_knows_what_speaks_against_an_endpoint() -> Result<()> {
    let world = World::new().await?;
    let first = world.run().await?;
    let open = fail(&world).await?;
    assert!(open.window < 16, "{open:?}");
    first.stop().await?;
    let second = world.run().await?;
    let known = becomes(&world, |_| true).await?;
    assert_eq!(known, open);
    let task = world.send(10).await?;
    let story = world.story(task.targets[0].delivery).await?;
    let [Fact::AttemptMade(made), ..] = story.as_slice() else { panic!("{story:?}") };
    let held = made.started_at.since(open.since.context("a time")?);
    assert!(held >= Duration::from_secs(10), "it was the probe: {held:?}");
    second.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_death_the_next_owner_knows_which_endpoints_kept_failing() -> Result<()> {
    let world = World::new().await?;
    let first = world.run().await?;
    fail(&world).await?;
    first.crash().await;
    let second = world.run().await?;
    let known = becomes(&world, |_| true).await?;
    assert_eq!(known.breaker, BreakerState::Open, "{known:?}");
    second.stop().await
}
