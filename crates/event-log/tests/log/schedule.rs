//! Alarm clocks.

use std::time::Duration;

use anyhow::Result;
use fanfare_domain::Timestamp;
use tokio::time::timeout;

use crate::support::{SHARD, delivery, log, messages, now, outsider, retry, server};

#[tokio::test]
async fn a_schedule_fires_into_the_due_queue_and_not_early() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut due = log.read_due(SHARD).await?;
    let schedules = log.schedules();
    let due_at = now().saturating_add(Duration::from_secs(3));
    schedules.put(SHARD, &retry(1, due_at, 5)).await?.stored().await?;
    assert_eq!(schedules.oldest_due(SHARD).await?, None);
    let fired = timeout(Duration::from_secs(10), due.next_batch(10)).await??.remove(0);
    assert_eq!(fired.record, retry(1, due_at, 5));
    assert!(fired.position.stored_at >= due_at, "{} is early", fired.position.stored_at);
    assert_eq!(schedules.oldest_due(SHARD).await?, Some(fired.position.stored_at));
    assert_eq!(schedules.get(SHARD, delivery(1).id).await?, None, "it has fired");
    fired.settle().await;
    Ok(())
}

#[tokio::test]
async fn a_schedule_replaces_the_one_before() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut due = log.read_due(SHARD).await?;
    let schedules = log.schedules();
    let far = now().saturating_add(Duration::from_hours(1));
    for journal_sequence in [5, 6] {
        schedules.put(SHARD, &retry(1, far, journal_sequence)).await?.stored().await?;
    }
    assert_eq!(schedules.get(SHARD, delivery(1).id).await?, Some(retry(1, far, 6)));
    let context = outsider(&server).await?;
    assert_eq!(messages(&context, "FANFARE_RETRIES").await?, 1);
    // The same attempt, put forward.
    let soon = now();
    schedules.put(SHARD, &retry(1, soon, 6)).await?.stored().await?;
    let fired = timeout(Duration::from_secs(10), due.next_batch(10)).await??;
    assert_eq!(fired.iter().map(|fired| fired.record.due_at).collect::<Vec<_>>(), [soon]);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_schedule_never_fires() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut due = log.read_due(SHARD).await?;
    let schedules = log.schedules();
    let soon = now().saturating_add(Duration::from_secs(4));
    let later = soon.saturating_add(Duration::from_millis(500));
    schedules.put(SHARD, &retry(1, soon, 5)).await?.stored().await?;
    schedules.put(SHARD, &retry(2, later, 5)).await?.stored().await?;
    schedules.cancel(SHARD, delivery(1).id).await?;
    schedules.cancel(SHARD, delivery(9).id).await?;
    assert_eq!(schedules.get(SHARD, delivery(1).id).await?, None);
    let fired = timeout(Duration::from_secs(10), due.next_batch(10)).await??;
    assert_eq!(
        fired.iter().map(|fired| fired.record.delivery.id).collect::<Vec<_>>(),
        [delivery(2).id]
    );
    Ok(())
}

#[tokio::test]
async fn a_rescue_is_taken_though_nothing_changed() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let schedules = log.schedules();
    let far = now().saturating_add(Duration::from_hours(1));
    let put = schedules.put(SHARD, &retry(1, far, 5)).await?.stored().await?;
    assert!(schedules.put(SHARD, &retry(1, far, 5)).await?.stored().await?.duplicate);
    let rescued = schedules.rescue(SHARD, &retry(1, far, 5)).await?.stored().await?;
    assert!(!rescued.duplicate && rescued.sequence > put.sequence);
    Ok(())
}

#[tokio::test]
async fn a_time_beyond_the_servers_clock_does_not_fire_at_once() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut due = log.read_due(SHARD).await?;
    let schedules = log.schedules();
    let never = Timestamp::from_nanos(u64::MAX);
    schedules.put(SHARD, &retry(1, never, 5)).await?.stored().await?;
    let soon = now().saturating_add(Duration::from_millis(600));
    schedules.put(SHARD, &retry(2, soon, 5)).await?.stored().await?;
    let fired = timeout(Duration::from_secs(10), due.next_batch(10)).await??;
    assert_eq!(
        fired.iter().map(|fired| fired.record.delivery.id).collect::<Vec<_>>(),
        [delivery(2).id]
    );
    assert_eq!(schedules.get(SHARD, delivery(1).id).await?, Some(retry(1, never, 5)));
    Ok(())
}

#[tokio::test]
async fn schedules_survive_a_killed_server() -> Result<()> {
    let mut server = server().await?;
    let log = log(&server).await?;
    let schedules = log.schedules();
    let due_at = now().saturating_add(Duration::from_millis(300));
    schedules.put(SHARD, &retry(1, due_at, 5)).await?.stored().await?;
    server.kill().await?;
    server.restart().await?;
    let mut due = log.read_due(SHARD).await?;
    let fired = timeout(Duration::from_secs(20), due.next_batch(10)).await??.remove(0);
    assert_eq!(fired.record, retry(1, due_at, 5));
    assert!(fired.position.stored_at >= due_at);
    Ok(())
}
