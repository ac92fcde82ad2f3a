//! What becomes of endpoints, and what their state means for deliveries.

use std::time::Duration;

use anyhow::Result;
use fanfare_domain::{
    Change, EndpointState, Entity, PauseMode, Timestamp, endpoint::DisableReason,
};
use fanfare_event_log::{ConfigFold, ConfigView};
use fanfare_testkit::wait_until;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    support::{World, add_tenant, from_now, now},
    telling::event,
};

/// The last change of the endpoint.
#[derive(Default)]
struct Last(Option<Change>);

impl ConfigFold for Last {
    fn apply(&mut self, _: u64, _: Timestamp, change: &Change) {
        if matches!(change.entity, Entity::Endpoint(_)) {
            self.0 = Some(change.clone());
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled_and_the_operator_gets_an_event() -> Result<()> {
    let mut world = World::new().await?;
    add_tenant(&world.log, "operator").await?;
    let (view, follow) = ConfigView::<Last>::start(&world.log, CancellationToken::new()).await?;
    let mut following = JoinSet::new();
    following.spawn(follow);
    let scheduler = world.start().await?;
    world.record(vec![world.attempt(1, 1, 410, None)]).await?;
    let change = wait_until("the endpoint to be disabled", async || {
        let last = view.read(|last| last.0.clone());
        let Some(Change { entity: Entity::Endpoint(endpoint), .. }) = &last else {
            return Err(None);
        };
        let gone = EndpointState::Disabled(DisableReason::Gone);
        if endpoint.state == gone { Ok(last) } else { Err(Some(endpoint.state)) }
    })
    .await;
    assert_eq!(change.map(|change| change.actor).as_deref(), Some("retry-scheduler"));
    let told = event(&world, 1).await;
    assert_eq!(told.event.event_type.as_str(), "endpoint.disabled");
    let data: serde_json::Value = serde_json::from_slice(&told.event.data)?;
    assert_eq!(data["reason"], "gone");
    assert_eq!(data["endpoint_id"], world.endpoint.id.to_string());
    scheduler.stop().await
}

#[tokio::test]
async fn a_parked_delivery_falls_due_when_its_endpoint_is_resumed() -> Result<()> {
    let mut world = World::new().await?;
    world.put_endpoint(EndpointState::Paused(PauseMode::Hold)).await?;
    let scheduler = world.start().await?;
    world.record(vec![world.parked(1, 3), world.parked(2, 1)]).await?;
    // A sentinel: what is parked has been read and left alone when this one falls due.
    world.fail(3, from_now(Duration::from_millis(100))).await?;
    assert_eq!(world.take_due().await?.delivery.id, world.delivery(3).id);
    world.succeed(3).await?;
    let resumed_at = now();
    world.put_endpoint(EndpointState::Active).await?;
    let mut due = [world.take_due().await?, world.take_due().await?];
    due.sort_by_key(|due| due.attempt);
    let due = due.map(|due| (due.delivery.id, due.attempt));
    assert_eq!(due, [(world.delivery(2).id, 1), (world.delivery(1).id, 3)]);
    assert!(now() < resumed_at.saturating_add(Duration::from_secs(5)), "far too late");
    assert_eq!(scheduler.counters.rescues.get(), 0);
    scheduler.stop().await
}

#[tokio::test]
async fn what_is_parked_stays_so_over_a_restart() -> Result<()> {
    let mut world = World::new().await?;
    world.put_endpoint(EndpointState::Paused(PauseMode::Hold)).await?;
    let first = world.start().await?;
    world.record(vec![world.parked(1, 2)]).await?;
    wait_until("the delivery to be seen", async || {
        let parked = first.counters.parked.get();
        if parked == 1 { Ok(()) } else { Err(parked) }
    })
    .await;
    first.stop().await?;
    world.put_endpoint(EndpointState::Disabled(DisableReason::ByHand)).await?;
    let second = world.start().await?;
    let due = world.take_due().await?;
    assert_eq!((due.delivery.id, due.attempt), (world.delivery(1).id, 2));
    second.stop().await
}
