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
