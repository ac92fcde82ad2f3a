//! What is answered to who wants a delivery tried now.

use anyhow::{Result, ensure};
use fanfare_domain::{
    BreakerState, EndpointId, Fact, Health,
    fact::{DeliveryParked, EventRouted},
};
use fanfare_event_log::Column;
use fanfare_service::{Clock as _, SystemClock};
use reqwest::StatusCode;
use serde_json::json;

use crate::{
    log::publish,
    lookups::{delivery, failed, put, record, routing},
    support::{Answer, World},
};

/// Routes an event to an endpoint; returns the path of its delivery.
async fn routed(world: &World, of: impl FnOnce(EventRouted) -> EventRouted) -> Result<String> {
    let stored = publish(world, &"acme".parse()?).await?;
    let routed = of(routing(&stored));
    let endpoints = [&routed.targets, &routed.fed, &routed.held];
    let endpoint = endpoints.into_iter().flatten().next().copied();
    put(world, routed).await?;
    let id = delivery(&stored, endpoint.expect("one endpoint"), 0).id;
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

    // A task brings it: that is now.
    let path = routed(&world, |it| EventRouted { targets: vec![endpoint], ..it }).await?;
    let taken = retry(&world, &path).await?;
    assert_eq!((taken.status, taken.text("outcome")), (StatusCode::ACCEPTED, "under_way".into()));

    // The endpoint's feed brings it: that depends on the endpoint.
    let path = routed(&world, |it| EventRouted { fed: vec![endpoint], ..it }).await?;
    let refused = retry(&world, &path).await?;
    assert_eq!(refused.code(), "delivery_behind_others", "{refused:?}");
    let (free, open) = (Health::unburdened(4), BreakerState::Open);
    for (health, why) in [
        (Health { breaker: open, ..free }, "keeps failing"),
        (Health { held: 3, ..free }, "3 others"),
    ] {
        let refused = retry_beside(&world, endpoint, (&path, health)).await?;
        assert_eq!(refused.code(), "delivery_behind_others", "{refused:?}");
        ensure!(refused.text("detail").contains(why), "{refused:?}");
    }
    let taken = retry_beside(&world, endpoint, (&path, free)).await?;
    assert_eq!(taken.text("outcome"), "under_way");
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
    let tried = delivery(&stored, endpoint, 0);
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
