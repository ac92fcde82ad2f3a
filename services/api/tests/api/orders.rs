//! What is answered to who wants a delivery tried now.

use std::time::Duration;

use anyhow::{Result, ensure};
use fanfare_domain::{
    BreakerState, EndpointId, Fact, Health, Timestamp,
    fact::{DeferReason, DeliveryDeferred, DeliveryParked, EventRouted},
};
use fanfare_event_log::Column;
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::delivery_of;
use reqwest::StatusCode;
use serde_json::json;

use crate::{
    log::publish,
    lookups::{failed, put, record, routing},
    support::{Answer, World},
};

/// Routes an event to an endpoint; returns the path of its delivery.
async fn routed(world: &World, of: impl FnOnce(EventRouted) -> EventRouted) -> Result<String> {
    let stored = publish(world, &"acme".parse()?).await?;
    let routed = of(routing(&stored));
    let endpoints = [&routed.targets, &routed.fed, &routed.held];
    let endpoint = endpoints.into_iter().flatten().next().copied();
    put(world, routed).await?;
    let id = delivery_of(&stored, endpoint.expect("one endpoint"), 0).id;
    Ok(format!("/v1/tenants/acme/deliveries/{id}"))
}

async fn retry(world: &World, path: &str) -> Result<Answer> {
    world.post(&format!("{path}/retry"), json!({})).await
}

/// Has an endpoint's dispatcher say how the endpoint does, while a delivery is asked to be tried.
async fn retry_beside(
    world: &World,
    endpoint: EndpointId,
    (path, health): (&str, Health),
) -> Result<Answer> {
    let mut questions = world.log.health_questions(world.log.shards().of(endpoint)).await?;
    // A server that answers this knows that somebody listens.
    world.log.journal_last().await?;
    let answer = async {
        let question = questions.next().await.expect("the log is open");
        question.answer(&health).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = retry(world, path) => answer,
        () = answer => unreachable!("it is pending"),
    }
}

#[tokio::test]
async fn what_is_not_about_to_be_tried_is_not_said_to_be() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let endpoint: EndpointId = world.endpoint("acme").await?.parse()?;

    // A task brings it, or the endpoint's feed: also what a task brought may be the feed's by now.
    let by_task = routed(&world, |it| EventRouted { targets: vec![endpoint], ..it }).await?;
    let by_feed = routed(&world, |it| EventRouted { fed: vec![endpoint], ..it }).await?;
    // Its alarm clock is over; a feed that has it instead has not come to it.
    let put_off = put_off(&world, endpoint, SystemClock.now()).await?;
    let (free, open) = (Health::unburdened(4), BreakerState::Open);
    let now = SystemClock.now();
    let later = now.saturating_add(Duration::from_hours(1));
    for path in [&by_task, &by_feed, &put_off] {
        let refused = retry(&world, path).await?;
        assert_eq!(refused.code(), "delivery_behind_others", "{refused:?}");
        for (health, why) in [
            (Health { breaker: open, ..free }, "keeps failing"),
            (Health { quiet_until: Some(later), ..free }, "asked for nothing"),
        ] {
            let refused = retry_beside(&world, endpoint, (path, health)).await?;
            assert_eq!(refused.code(), "delivery_behind_others", "{refused:?}");
            ensure!(refused.text("detail").contains(why), "{refused:?}");
        }
        let taken = retry_beside(&world, endpoint, (path, free)).await?;
        let outcome = taken.text("outcome");
        assert_eq!((taken.status, &*outcome), (StatusCode::ACCEPTED, "under_way"));
    }
    // Where others come first, it can come before them.
    for path in [&by_task, &by_feed, &put_off] {
        let taken = retry_beside(&world, endpoint, (path, Health { held: 3, ..free })).await?;
        assert_eq!(taken.text("outcome"), "accepted", "{taken:?}");
    }
    assert_eq!(world.nats.messages("FANFARE_COMMANDS").await?, 3);
    Ok(())
}

/// Routes an event to an endpoint and puts its first attempt off; returns the path of its delivery.
async fn put_off(world: &World, endpoint: EndpointId, until: Timestamp) -> Result<String> {
    let stored = publish(world, &"acme".parse()?).await?;
    put(world, EventRouted { targets: vec![endpoint], ..routing(&stored) }).await?;
    let (delivery, reason) = (delivery_of(&stored, endpoint, 0), DeferReason::LaneFull);
    let path = format!("/v1/tenants/acme/deliveries/{}", delivery.id);
    let deferred = DeliveryDeferred { delivery, attempt: 1, until, reason, batch: None };
    let (shard, now) = (world.log.shards().of(endpoint), SystemClock.now());
    let mut writer = world.log.claim(shard, Column::Attempts, "test", now).await?;
    writer.append(&[record(Fact::DeliveryDeferred(deferred))]).await?;
    Ok(path)
}

#[tokio::test]
async fn a_first_attempt_that_is_put_off_is_held_back_by_what_holds_back_all() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let endpoint: EndpointId = world.endpoint("acme").await?.parse()?;
    let later = SystemClock.now().saturating_add(Duration::from_hours(1));
    let path = put_off(&world, endpoint, later).await?;
    let free = Health::unburdened(4);
    let broken = Health { breaker: BreakerState::Open, ..free };
    let refused = retry_beside(&world, endpoint, (&path, broken)).await?;
    assert_eq!(refused.code(), "delivery_behind_others", "{refused:?}");
    let taken = retry_beside(&world, endpoint, (&path, free)).await?;
    assert_eq!(taken.text("outcome"), "accepted", "{taken:?}");
    Ok(())
}

#[tokio::test]
async fn what_waits_for_a_paused_endpoint_is_not_tried() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let endpoint: EndpointId = world.endpoint("acme").await?.parse()?;
    let held = routed(&world, |it| EventRouted { held: vec![endpoint], ..it }).await?;
    let stored = publish(&world, &"acme".parse()?).await?;
    put(&world, EventRouted { targets: vec![endpoint], ..routing(&stored) }).await?;
    let tried = delivery_of(&stored, endpoint, 0);
    let path = format!("/v1/tenants/acme/deliveries/{}", tried.id);
    let (shard, now) = (world.log.shards().of(endpoint), SystemClock.now());
    let mut writer = world.log.claim(shard, Column::Attempts, "test", now).await?;
    writer.append(&[record(failed(&tried))]).await?;
    let pause = format!("/v1/tenants/acme/endpoints/{endpoint}/pause");
    assert_eq!(world.post(&pause, json!({ "mode": "hold" })).await?.status, StatusCode::OK);
    for path in [&held, &path] {
        assert_eq!(retry(&world, path).await?.code(), "endpoint_paused");
    }
    let parked = DeliveryParked { delivery: tried, attempt: 2 };
    writer.append(&[record(Fact::DeliveryParked(parked))]).await?;
    assert_eq!(world.get(&path).await?.text("state"), "parked");
    assert_eq!(retry(&world, &path).await?.code(), "endpoint_paused");

    // Once it is resumed, they come in their turn.
    let resume = format!("/v1/tenants/acme/endpoints/{endpoint}/resume");
    assert_eq!(world.post(&resume, json!({})).await?.status, StatusCode::OK);
    for path in [&held, &path] {
        assert_eq!(retry(&world, path).await?.code(), "delivery_behind_others");
    }
    Ok(())
}

#[tokio::test]
async fn all_dead_letters_of_an_endpoint_are_no_more_than_those() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let endpoint = world.endpoint("acme").await?;
    let redrive = json!({ "endpoint_id": endpoint });
    let made = world.post("/v1/tenants/acme/dead-letters/redrive", redrive).await?;
    assert_eq!((made.status, made.text("which")), (StatusCode::ACCEPTED, "exhausted".into()));
    for which in ["exhausted", "failed", "all", "missing"] {
        let path = format!("/v1/tenants/acme/endpoints/{endpoint}/replay");
        let body = json!({ "since": "2026-01-01T00:00:00Z", "which": which });
        assert_eq!(world.post(&path, body).await?.text("which"), which);
    }
    Ok(())
}
