//! Alarms that do not go off: the servers can lose sight of one for ever.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use fanfare_domain::{
    Feed,
    feed::{Blocked, Phase, PutOff, Reason},
};
use fanfare_event_log::{Headers, InboxMessage, PublishError, feeds::Written};
use fanfare_testkit::{NatsServer, wait_until};

use crate::support::{World, from_now, now, trace};

#[tokio::test]
async fn a_missing_alarm_is_made_again_from_its_fact() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start_with(|settings| settings.sweep_grace = SHORT_GRACE).await?;
    let due_at = from_now(Duration::from_secs(6));
    world.fail(1, due_at).await?;
    world.fail(2, due_at).await?;
    scheduler.alarms(2).await;
    // Somebody purges its subject.
    world.log.schedules().cancel(world.shard, world.delivery(1).id).await?;
    let other = world.take_due().await?;
    assert_eq!(other.delivery.id, world.delivery(2).id);
    world.succeed(2).await?;
    let rescued = world.take_due().await?;
    assert_eq!((rescued.delivery.id, rescued.attempt), (world.delivery(1).id, 2));
    assert_eq!(rescued.trace, trace());
    scheduler.rescues(1).await;
    assert_eq!(scheduler.counters.rescues.get(), 1);
    world.succeed(1).await?;
    scheduler.stop().await
}

#[tokio::test]
async fn a_stuck_alarm_is_set_again() -> Result<()> {
    let mut world = World::on(NatsServer::start_with_store(16 << 20).await?).await?;
    let scheduler = world.start_with(|settings| settings.sweep_grace = GRACE).await?;
    // Most of it beforehand, so that the rest does not take long.
    for _ in 0..10 {
        put(&world, LARGE).await?;
    }
    let due_at = from_now(Duration::from_secs(8));
    world.fail(1, due_at).await?;
    scheduler.alarms(1).await;
    fill(&world).await?;
    assert!(now() < due_at, "the store was filled too late");
    wait_until("the alarm to have failed to go off", async || {
        let failed_at = due_at.saturating_add(Duration::from_secs(1));
        if now() > failed_at { Ok(()) } else { Err(now()) }
    })
    .await;
    empty(&world).await?;
    // There is room again, an alarm that is set now goes off, and the first does not.
    world.fail(2, from_now(Duration::from_millis(500))).await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(2).id);
    let still_set = world.log.schedules().get(world.shard, world.delivery(1).id).await?;
    assert!(still_set.is_some(), "the alarm is not stuck");
    assert_eq!(scheduler.counters.rescues.get(), 0);
    world.succeed(2).await?;
    let rescued = world.take_due().await?;
    assert_eq!((rescued.delivery.id, rescued.attempt), (world.delivery(1).id, 2));
    scheduler.rescues(1).await;
    assert_eq!(scheduler.counters.rescues.get(), 1);
    scheduler.stop().await
}

#[tokio::test]
async fn what_waits_in_the_due_queue_is_left_alone() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start_with(|settings| settings.sweep_grace = SHORT_GRACE).await?;
    world.fail(1, from_now(Duration::from_millis(100))).await?;
    let slow = world.next_due().await?;
    // By the time at which this one falls due, the first has been overdue for long.
    world.fail(2, from_now(Duration::from_secs(8))).await?;
    let other = world.take_due().await?;
    assert_eq!(other.delivery.id, world.delivery(2).id, "the first was set again");
    assert_eq!(scheduler.counters.rescues.get(), 0);
    slow.settler.settle().await;
    scheduler.stop().await
}

#[tokio::test]
async fn a_first_attempt_that_a_feed_makes_is_left_to_it() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start_with(|settings| settings.sweep_grace = SHORT_GRACE).await?;
    let until = from_now(Duration::from_secs(2));
    world.record(vec![world.deferred(1, 1, until), world.deferred(2, 1, until)]).await?;
    let endpoint = world.endpoint.id;
    let feed = Feed {
        tenant: world.endpoint.tenant.clone(),
        endpoint,
        from: 3,
        phase: Phase::Open,
        reason: Reason::Backlog,
        opened_at: now(),
        next: 3,
        blocked: vec![Blocked { key: Feed::GIVEN_UP, by: 0, waiting: vec![1] }],
        past: Vec::new(),
        ended: Vec::new(),
        ended_since: 0,
        taken_over: vec![PutOff { sequence: 1, until }],
    };
    let Written::Stored(revision) = world.log.write_feed(world.shard, &feed, 0).await? else {
        bail!("somebody else has written a feed");
    };
    // The dispatcher passes over what the feed makes; the other one gets lost.
    for _ in 0..2 {
        world.take_due().await?;
    }
    // Both are looked at together.
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(2).id);
    scheduler.rescues(1).await;
    assert_eq!(scheduler.counters.rescues.get(), 1);
    let made = world.attempt(2, 1, 200, None);
    world.record(vec![made]).await?;
    // Without the feed nobody would make it.
    world.log.remove_feed(world.shard, endpoint, revision).await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(1).id);
    scheduler.stop().await
}

/// Long enough for what a test does between, also where the machine stands still for a while.
const SHORT_GRACE: Duration = Duration::from_secs(4);

/// Long enough for the store to be emptied again before the sweeper looks.
const GRACE: Duration = Duration::from_secs(8);

/// The size of a large message, in bytes.
const LARGE: usize = 900 << 10;

/// Fills the store, with large messages first and small ones last.
async fn fill(world: &World) -> Result<()> {
    for bytes in [LARGE, 100 << 10, 10 << 10, 1 << 10, 1] {
        while put(world, bytes).await? {}
    }
    Ok(())
}

/// Stores a message of a size. Returns whether there was room.
async fn put(world: &World, bytes: usize) -> Result<bool> {
    let message = InboxMessage {
        tenant: String::from("acme"),
        event_type: String::from("filler"),
        headers: Headers::new(Vec::new()),
        payload: Bytes::from(vec![b'x'; bytes]),
    };
    match world.log.publisher().inbox(&message).await?.stored().await {
        Ok(_) => Ok(true),
        Err(PublishError::Full { .. }) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// Takes out again what [`fill`] put in.
async fn empty(world: &World) -> Result<()> {
    let mut inbox = world.log.read_inbox().await?;
    while world.nats.messages("FANFARE_INBOX").await? > 0 {
        // Those of the batch before may not be gone yet, and then nothing comes.
        let batch = inbox.next_batch(64);
        if let Ok(batch) = tokio::time::timeout(Duration::from_millis(500), batch).await {
            for message in batch? {
                message.settle().await;
            }
        }
    }
    Ok(())
}
