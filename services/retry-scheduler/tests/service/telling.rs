//! What operators are told of.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use fanfare_domain::{Conclusion, EndpointState, Fact, StoredEvent};
use fanfare_event_log::topology::Stream;
use fanfare_retry_scheduler::Settings;
use fanfare_testkit::wait_until;

use crate::support::{World, add_key, add_tenant, from_now};

/// What the last attempt of a delivery that is exhausted was signed with, and how it was answered.
const SIGNATURE: &str = "v1,bm90IG9uZQ==";
const ANSWER: &str = "no room";

#[tokio::test]
async fn an_exhausted_delivery_is_in_dead_and_the_operator_gets_an_event() -> Result<()> {
    let mut world = World::new().await?;
    add_tenant(&world.log, "operator").await?;
    let scheduler = world.start().await?;
    exhaust(&mut world, 1).await?;
    let event = event(&world, 1).await;
    assert_eq!(event.event.tenant.as_str(), "operator");
    assert_eq!(event.event.event_type.as_str(), "delivery.exhausted");
    let data: serde_json::Value = serde_json::from_slice(&event.event.data)?;
    assert_eq!(data["delivery_id"], world.delivery(1).id.to_string());
    assert_eq!(data["last_attempt"]["status"], 500);
    let [letter] = &dead(&world).await?[..] else { panic!("one letter") };
    let times = |part: &[u8]| letter.windows(part.len()).filter(|window| *window == part).count();
    for part in [world.endpoint.url.as_str(), SIGNATURE, ANSWER] {
        assert_eq!(times(part.as_bytes()), 1, "{part}");
    }
    assert_eq!(times(world.delivery(1).id.as_bytes()), 2, "both facts are whole");
    scheduler.stop().await
}

#[tokio::test]
async fn a_crash_makes_nothing_be_told_twice_and_nothing_be_left_out() -> Result<()> {
    let mut world = World::new().await?;
    add_tenant(&world.log, "operator").await?;
    // Nothing is saved, and the servers know no id again after a crash.
    let forgetful = |settings: &mut Settings| {
        settings.snapshot_interval = Duration::from_hours(1);
        settings.log.duplicate_window = Duration::from_millis(100);
    };
    let first = world.start_with(forgetful).await?;
    exhaust(&mut world, 1).await?;
    let told = event(&world, 1).await;
    first.crash().await;
    exhaust(&mut world, 2).await?;
    let second = world.start_with(forgetful).await?;
    let next = event(&world, 2).await;
    let data: serde_json::Value = serde_json::from_slice(&next.event.data)?;
    assert_eq!(data["delivery_id"], world.delivery(2).id.to_string());
    assert_ne!(told.event.id, next.event.id);
    second.stop().await
}

#[tokio::test]
async fn without_an_operator_there_are_no_operational_events() -> Result<()> {
    let mut world = World::new().await?;
    let scheduler = world.start().await?;
    exhaust(&mut world, 1).await?;
    wait_until("the end to have been told of, or not", async || {
        let told = scheduler.counters.exhausted.get();
        if told == 1 { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(dead(&world).await?.len(), 1);
    add_tenant(&world.log, "operator").await?;
    // A later change, which the second delivery's attempt knows of.
    world.put_endpoint(EndpointState::Active).await?;
    exhaust(&mut world, 2).await?;
    let first = event(&world, 1).await;
    let data: serde_json::Value = serde_json::from_slice(&first.event.data)?;
    assert_eq!(data["delivery_id"], world.delivery(2).id.to_string());
    scheduler.stop().await
}

#[tokio::test]
async fn the_operator_hears_of_a_new_key_and_of_an_endpoint_that_keeps_failing() -> Result<()> {
    let mut world = World::new().await?;
    add_tenant(&world.log, "operator").await?;
    let scheduler = world.start().await?;
    // `standard-webhooks` disables nobody: the tenth failure in a row is told of.
    for attempt in 1..=12 {
        world.record(vec![world.attempt(1, attempt, 500, None)]).await?;
    }
    let told = event(&world, 1).await;
    assert_eq!(told.event.event_type.as_str(), "endpoint.failing");
    let data: serde_json::Value = serde_json::from_slice(&told.event.data)?;
    assert_eq!(data["endpoint_id"], world.endpoint.id.to_string());
    add_key(&world.log).await?;
    let told = event(&world, 2).await;
    assert_eq!(told.event.event_type.as_str(), "key.created", "the row is told of once");
    let data: serde_json::Value = serde_json::from_slice(&told.event.data)?;
    assert_eq!((&data["tenant_id"], &data["role"]), (&"acme".into(), &"admin".into()));
    scheduler.stop().await
}

async fn exhaust(world: &mut World, number: u8) -> Result<()> {
    let mut attempt = world.attempt(number, 2, 500, None);
    if let Fact::AttemptMade(made) = &mut attempt {
        made.signature = String::from(SIGNATURE);
        made.response_body = Bytes::from(ANSWER);
    }
    let facts = vec![attempt, world.concluded(number, Conclusion::Exhausted)];
    world.record(facts).await?;
    // Whatever comes later in the journal is not told of.
    world.fail(number + 100, from_now(Duration::from_hours(1))).await?;
    Ok(())
}

/// Waits for the event at a place in EVENTS.
pub(crate) async fn event(world: &World, sequence: u64) -> StoredEvent {
    wait_until("an event", async || match world.log.event(sequence).await {
        Ok(Some(event)) => Ok(event),
        other => Err(other),
    })
    .await
}

async fn dead(world: &World) -> Result<Vec<Bytes>> {
    let topology = world.log.topology();
    let subject = topology.dead(&world.endpoint.tenant, world.endpoint.id);
    world.nats.stored(&topology.stream(Stream::Dead), &subject).await
}
