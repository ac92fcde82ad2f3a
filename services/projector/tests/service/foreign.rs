//! Tables of another installation are left alone, and nothing ends for that.

use anyhow::{Context as _, Result};
use fanfare_delivery_log::StoreError;
use fanfare_projector::{Rebuilt, Whose};
use fanfare_service::{Clock as _, SystemClock};

use crate::support::World;

/// What the projector counts when it cannot go on.
const FAILURES: &str = "fanfare_projector_failures_total";

/// Tries to make a log anew that is another's; returns why it is not.
fn refusal(rebuilt: Result<Rebuilt>) -> Result<StoreError> {
    let error = rebuilt.err().context("it is refused")?;
    let cause = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(StoreError::Foreign) => Some(StoreError::Foreign),
        Some(_) | None => None,
    });
    cause.with_context(|| format!("another cause: {error:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_installation_are_waited_for_until_they_are_taken_over() -> Result<()> {
    let mut other = World::new().await?;
    let database = other.file("delivery-log.sqlite");
    other.deliver().await?;
    let projector = other.start(&database).await?;
    let theirs = other.caught_up(&database).await?;
    projector.stop().await?;
    let mut world = World::new().await?;
    world.deliver().await?;
    world.deliver().await?;
    let projector = world.start(&database).await?;
    projector.tells(FAILURES).await;
    let (settings, now) = (world.settings(&database)?, SystemClock.now());
    refusal(fanfare_projector::rebuild(&settings, Whose::Ours, now, |_| ()).await)?;
    // It runs on, and nothing was written or dropped.
    assert_eq!(other.caught_up(&database).await?, theirs);
    fanfare_projector::rebuild(&settings, Whose::Anybodys, now, |_| ()).await?;
    world.deliver().await?;
    assert_eq!(world.caught_up(&database).await?.deliveries.len(), 3);
    projector.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_were_replaced_are_other_streams() -> Result<()> {
    let mut world = World::new().await?;
    let database = world.file("delivery-log.sqlite");
    for _ in 0..3 {
        world.deliver().await?;
    }
    let projector = world.start(&database).await?;
    let before = world.caught_up(&database).await?;
    projector.stop().await?;
    let inbox = String::from(world.log.inbox_identity());
    world.replace_streams().await?;
    assert_eq!(world.log.inbox_identity(), inbox, "the same installation");
    // As many as there were: nobody could tell by the numbers.
    for _ in 0..3 {
        world.deliver().await?;
    }
    let projector = world.start(&database).await?;
    projector.tells(FAILURES).await;
    assert_eq!(world.caught_up(&database).await?, before, "nothing is folded into it");
    let (settings, now) = (world.settings(&database)?, SystemClock.now());
    refusal(fanfare_projector::rebuild(&settings, Whose::Ours, now, |_| ()).await)?;
    fanfare_projector::rebuild(&settings, Whose::Anybodys, now, |_| ()).await?;
    world.deliver().await?;
    let after = world.caught_up(&database).await?;
    assert_eq!(after.deliveries.len(), 4);
    let known = |row| before.deliveries.contains(row);
    assert!(!after.deliveries.iter().any(known), "only what the streams have");
    projector.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_end_before_what_was_folded_are_complained_of() -> Result<()> {
    let mut world = World::new().await?;
    let database = world.file("delivery-log.sqlite");
    for _ in 0..3 {
        world.deliver().await?;
    }
    let projector = world.start(&database).await?;
    let before = world.caught_up(&database).await?;
    projector.stop().await?;
    // As if the journal had been longer, before it was restored from a backup.
    let store = world.open(&database).await?;
    let progress = store.progress().await?;
    let beyond = fanfare_delivery_log::Progress { journal: progress.journal + 9, ..progress };
    store.apply(fanfare_delivery_log::Changes::default(), progress, beyond).await?;
    let projector = world.start(&database).await?;
    projector.tells(FAILURES).await;
    assert_eq!(store.progress().await?, beyond, "it waits for a person");
    let (settings, now) = (world.settings(&database)?, SystemClock.now());
    fanfare_projector::rebuild(&settings, Whose::Ours, now, |_| ()).await?;
    assert_eq!(world.caught_up(&database).await?, before);
    world.deliver().await?;
    assert_eq!(world.caught_up(&database).await?.deliveries.len(), 4);
    projector.stop().await
}
