//! The delivery log made anew is the same.

use std::pin::pin;

use anyhow::Result;
use fanfare_projector::Whose;
use fanfare_service::{Clock as _, SystemClock};

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_made_anew_is_the_same_and_says_how_far_it_is() -> Result<()> {
    let mut world = World::new().await?;
    let database = world.file("delivery-log.sqlite");
    let projector = world.start(&database).await?;
    for _ in 0..12 {
        world.deliver().await?;
    }
    let before = world.caught_up(&database).await?;
    projector.stop().await?;
    let mut shown = Vec::new();
    let settings = world.settings(&database)?;
    let now = SystemClock.now();
    let rebuilt = fanfare_projector::rebuild(&settings, Whose::Ours, now, |it| shown.push(it));
    let rebuilt = rebuilt.await?;
    assert_eq!(rebuilt.progress.events, 12);
    assert!(shown.is_sorted_by_key(|folded| folded.done), "{shown:?}");
    let last = shown.last().copied().unwrap_or_default();
    assert_eq!(last.done, last.of, "{shown:?}");
    assert!(shown.len() > 12, "in portions: {shown:?}");
    assert_eq!(world.caught_up(&database).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_made_anew_while_a_projector_runs() -> Result<()> {
    let mut world = World::new().await?;
    let database = world.file("delivery-log.sqlite");
    let projector = world.start(&database).await?;
    for _ in 0..12 {
        world.deliver().await?;
    }
    let before = world.caught_up(&database).await?;
    let settings = world.settings(&database)?;
    fanfare_projector::rebuild(&settings, Whose::Ours, SystemClock.now(), |_| ()).await?;
    assert_eq!(world.caught_up(&database).await?, before);
    world.deliver().await?;
    let after = world.caught_up(&database).await?;
    assert_eq!(after.deliveries.len(), 13);
    projector.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_where_the_streams_ended_when_it_began_whatever_comes_meanwhile() -> Result<()> {
    let mut world = World::new().await?;
    let database = world.file("delivery-log.sqlite");
    for _ in 0..10 {
        world.deliver().await?;
    }
    let (settings, now) = (world.settings(&database)?, SystemClock.now());
    let (mut ends, mut came) = (0, 0);
    let rebuilt = {
        let show = |folded: fanfare_projector::Folded| ends = folded.of;
        let mut rebuild = pin!(fanfare_projector::rebuild(&settings, Whose::Ours, now, show));
        loop {
            tokio::select! {
                rebuilt = &mut rebuild => break rebuilt?,
                delivered = world.deliver() => came += usize::from(delivered.is_ok()),
            }
        }
    };
    let progress = rebuilt.progress;
    assert_eq!(progress.events + progress.journal + progress.config, ends);
    assert!(came > 0, "some came meanwhile");
    let projector = world.start(&database).await?;
    // The rest is the projector's.
    assert!(world.caught_up(&database).await?.deliveries.len() >= 10 + came);
    projector.stop().await
}
