//! Whatever the projector is in the middle of when it is killed, nothing is lost or repeated.

use anyhow::Result;
use fanfare_delivery_log::{Database, State, Store};
use fanfare_testkit::{Postgres, wait_until};

use crate::support::{Content, World};

/// How often it is killed.
const KILLS: usize = 12;
/// How many deliveries there are each time.
const DELIVERIES: usize = 4;

/// Every delivery is there, with its end and both attempts.
fn whole(content: &Content, deliveries: usize) {
    assert_eq!(content.events.len(), deliveries);
    assert_eq!(content.deliveries.len(), deliveries);
    assert_eq!(content.attempts.len(), 2 * deliveries);
    let (of_deliveries, of_attempts) = content.statistics.values().fold((0, 0), |sums, one| {
        (sums.0 + one.deliveries.values().sum::<u64>(), sums.1 + one.attempts.total())
    });
    let deliveries = u64::try_from(deliveries).expect("a small number");
    assert_eq!((of_deliveries, of_attempts), (deliveries, 2 * deliveries));
    for row in &content.deliveries {
        assert_eq!(row.delivery.standing.state, State::Delivered, "{row:?}");
        assert_eq!(row.delivery.attempts, 2);
        assert_eq!(row.last.as_ref().and_then(fanfare_domain::Outcome::status), Some(200));
        assert!(row.delivery.origin.is_some(), "{row:?}");
    }
}

/// Kills it with facts in its hands that it is about to write; with PostgreSQL in the middle of the
/// transaction, when some rows are written. Each time it has folded on from the last kill before.
async fn kill_again_and_again(world: &mut World, database: &str) -> Result<()> {
    let tables = Database::new(&database.parse()?)?;
    let store = Store::of(&tables);
    for _ in 0..KILLS {
        let projector = world.start(database).await?;
        world.caught_up(database).await?;
        let mut held = tables.hold_up().await?;
        for _ in 0..DELIVERIES {
            world.deliver().await?;
        }
        projector.tells("fanfare_projector_lag_seconds").await;
        if database.starts_with("postgres") {
            wait_until("it to wait in the middle of a transaction", async || {
                match held.holds_somebody().await {
                    Ok(true) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
        let before = store.progress().await?;
        assert!(before.journal < world.log.journal_last().await?, "{before:?}");
        projector.crash().await;
        drop(held);
        assert_eq!(store.progress().await?, before, "nothing of it is written");
    }
    tables.close().await;
    let projector = world.start(database).await?;
    let content = world.caught_up(database).await?;
    projector.stop().await?;
    whole(&content, DELIVERIES * KILLS);
    let other = world.file("in-one-go.sqlite");
    let projector = world.start(&other).await?;
    let expected = world.caught_up(&other).await?;
    projector.stop().await?;
    assert_eq!(content, expected, "as if it had never been killed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_projector_loses_and_repeats_nothing_on_sqlite() -> Result<()> {
    let mut world = World::new().await?;
    let database = world.file("delivery-log.sqlite");
    kill_again_and_again(&mut world, &database).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_projector_loses_and_repeats_nothing_on_postgresql() -> Result<()> {
    let Some(postgres) = Postgres::start("a_killed_projector_loses_and_repeats_nothing").await?
    else {
        return Ok(());
    };
    let mut world = World::new().await?;
    kill_again_and_again(&mut world, &postgres.url()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_projectors_on_one_database_do_each_other_no_harm() -> Result<()> {
    let mut world = World::new().await?;
    let database = world.file("delivery-log.sqlite");
    let (one, other) = (world.start(&database).await?, world.start(&database).await?);
    for _ in 0..20 {
        world.deliver().await?;
    }
    whole(&world.caught_up(&database).await?, 20);
    one.stop().await?;
    world.deliver().await?;
    whole(&world.caught_up(&database).await?, 21);
    other.stop().await
}
