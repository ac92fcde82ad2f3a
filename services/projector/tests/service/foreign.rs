//! Tables of another installation are left alone, and nothing ends for that.

use anyhow::Result;
use fanfare_service::{Clock as _, SystemClock};

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_installation_are_waited_for_until_they_are_made_anew() -> Result<()> {
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
    let refusing = world.settings(&database)?;
    // It runs on, and has written nothing by the time that the tables are dropped.
    assert_eq!(other.caught_up(&database).await?, theirs);
    fanfare_projector::rebuild(&refusing, SystemClock.now(), |_| ()).await?;
    world.deliver().await?;
    assert_eq!(world.caught_up(&database).await?.deliveries.len(), 3);
    projector.stop().await
}
