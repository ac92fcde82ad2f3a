//! A database that is away is waited for, and caught up with.

use anyhow::Result;
use fanfare_testkit::Postgres;

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_away_is_caught_up_with() -> Result<()> {
    let Some(mut postgres) = Postgres::start("a_database_that_was_away_is_caught_up_with").await?
    else {
        return Ok(());
    };
    let database = postgres.url();
    let mut world = World::new().await?;
    postgres.stop();
    let projector = world.start(&database).await?;
    // It runs although there is no database, and nothing that delivers notices.
    for _ in 0..5 {
        world.deliver().await?;
    }
    postgres.restart().await?;
    assert_eq!(world.caught_up(&database).await?.deliveries.len(), 5);
    postgres.stop();
    for _ in 0..5 {
        world.deliver().await?;
    }
    postgres.restart().await?;
    let content = world.caught_up(&database).await?;
    assert_eq!((content.deliveries.len(), content.attempts.len()), (10, 20));
    projector.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_misses_nothing_is_not_behind_once_its_database_is_back() -> Result<()> {
    let what = "a_log_that_misses_nothing_is_not_behind_once_its_database_is_back";
    let Some(mut postgres) = Postgres::start(what).await? else { return Ok(()) };
    let database = postgres.url();
    let mut world = World::new().await?;
    let projector = world.start(&database).await?;
    world.deliver().await?;
    world.caught_up(&database).await?;
    projector.stop().await?;
    postgres.stop();
    let projector = world.start(&database).await?;
    projector.tells("fanfare_projector_lag_seconds").await;
    postgres.restart().await?;
    // Nothing comes that would be written.
    projector.tells_zero("fanfare_projector_lag_seconds").await;
    projector.stop().await
}
