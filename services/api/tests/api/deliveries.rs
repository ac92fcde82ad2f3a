//! Deliveries and their facts, out of a journal that the test writes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Result;
use fanfare_domain::{
    BatchId, Conclusion, DeliveryId, DeliveryRef, EndpointId, EventId, Fact, Outcome, Record,
    Timestamp, TraceContext,
    fact::{AttemptMade, ConclusionReason, DeliveryConcluded, EventRouted, InBatch},
};
use fanfare_event_log::Column;
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use serde_json::Value;

use crate::support::World;

fn record(fact: Fact) -> Record {
    Record { recorded_at: SystemClock.now(), trace: TraceContext::default(), fact }
}

/// Puts an event on record, in parts of two endpoints; the last of them skips.
async fn route(world: &World, endpoints: &[EndpointId]) -> Result<EventId> {
    let event = EventId::new(SystemClock.now(), random_bytes());
    let parts: Vec<_> = endpoints.chunks(2).collect();
    for (part, chunk) in parts.iter().enumerate() {
        let last = part + 1 == parts.len();
        let (targets, skipped) =
            if last { chunk.split_at(chunk.len() - 1) } else { (*chunk, &[][..]) };
        let fact = Fact::EventRouted(EventRouted {
            event,
            tenant: "acme".parse()?,
            event_sequence: 1,
            config_revision: 1,
            generation: 0,
            targets: targets.to_vec(),
            skipped: skipped.to_vec(),
            held: Vec::new(),
            fed: Vec::new(),
            part: u32::try_from(part)?,
            parts: u32::try_from(parts.len())?,
        });
        world.log.publisher().routed(&[record(fact)]).await?.stored().await?;
    }
    Ok(event)
}

fn attempt(delivery: &DeliveryRef, attempt: u32, status: u16) -> Fact {
    let outcome = match status {
        200 => Outcome::Accepted { status },
        _ => Outcome::Refused { status, retry_after: None },
    };
    Fact::AttemptMade(Box::new(AttemptMade {
        delivery: delivery.clone(),
        attempt,
        started_at: SystemClock.now(),
        duration: Duration::from_millis(12),
        timing: fanfare_domain::fact::Timing::default(),
        outcome,
        detail: String::new(),
        config_revision: 3,
        url: Arc::from("https://example.com/hook"),
        signature: String::from("v1,abc"),
        response_headers: vec![(String::from("server"), "x".into())],
        response_body: "no\u{fffd}".into(),
        response_truncated: false,
        retry_at: (status != 200).then(|| Timestamp::from_millis(5_000)),
        batch: (attempt == 1).then(|| InBatch { id: BatchId::of([delivery.id]), size: 50 }),
        trace_sampled: None,
    }))
}

fn endpoints() -> Vec<EndpointId> {
    let mut all: Vec<EndpointId> =
        (0..5).map(|_| EndpointId::new(SystemClock.now(), random_bytes())).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn a_delivery_is_explained_by_its_facts() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let endpoints = endpoints();
    let event = route(&world, &endpoints).await?;
    let endpoint = endpoints[0];
    let delivery = DeliveryRef {
        id: DeliveryId::of(event, endpoint, 0),
        tenant: "acme".parse()?,
        event,
        event_sequence: 1,
        event_type: "a".parse()?,
        endpoint,
        generation: 0,
        accepted_at: event.time(),
    };
    let path = format!("/v1/tenants/acme/deliveries/{}", delivery.id);
    assert_eq!(world.get(&path).await?.text("state"), "pending");

    let shard = world.log.shards().of(endpoint);
    let mut writer = world.log.claim(shard, Column::Attempts, "test", SystemClock.now()).await?;
    let other = DeliveryRef { id: DeliveryId::of(event, endpoint, 9), ..delivery.clone() };
    writer.append(&[record(attempt(&delivery, 1, 500)), record(attempt(&other, 1, 200))]).await?;
    let retrying = world.get(&path).await?;
    assert_eq!(retrying.text("state"), "retrying");
    assert_eq!(retrying.text("next_attempt_at"), "1970-01-01T00:00:05.000Z");

    let concluded = Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: delivery.clone(),
        conclusion: Conclusion::Delivered,
        attempts: 2,
        reason: ConclusionReason::Outcome,
    });
    writer.append(&[record(attempt(&delivery, 2, 200)), record(concluded)]).await?;
    let done = world.get(&path).await?;
    assert_eq!((done.text("state"), done.body["attempts"].as_u64()), ("delivered".into(), Some(2)));
    assert_eq!(done.text("endpoint_id"), endpoint.to_string());

    let all = world.get(&format!("{path}/facts")).await?;
    let names: Vec<_> = all.data().iter().map(|fact| fact["fact"].as_str().unwrap()).collect();
    assert_eq!(names, ["attempt_made", "attempt_made", "delivery_concluded"]);
    let first = &all.body["data"][0];
    assert_eq!((first["outcome"].as_str(), first["status"].as_u64()), (Some("refused"), Some(500)));
    assert_eq!(first["response_headers"][0]["name"], "server");
    assert_eq!(first["batch"]["size"], 50);
    assert!(first["batch"]["id"].as_str().is_some_and(|id| id.starts_with("bat_")), "{first}");
    assert_eq!(all.body["data"][1]["batch"], Value::Null);

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{path}/facts?limit=1{cursor}")).await?;
        seen.extend(page.data().to_vec());
        let Value::String(next) = &page.body["next_cursor"] else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, all.data(), "one at a time they are the same");
    Ok(())
}

#[tokio::test]
async fn an_event_lists_what_became_of_it_for_each_endpoint() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let endpoints = endpoints();
    let event = route(&world, &endpoints).await?;
    let path = format!("/v1/tenants/acme/events/{event}/deliveries");
    let all = world.get(&path).await?;
    let data = all.data();
    let shown: BTreeSet<_> = data.iter().map(|one| one["endpoint_id"].as_str().unwrap()).collect();
    assert_eq!(
        shown,
        endpoints
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect()
    );
    let skipped: Vec<_> = data.iter().filter(|one| one["routing"] == "skipped").collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!((&skipped[0]["id"], data[0]["routing"].as_str()), (&Value::Null, Some("delivery")));
    assert_eq!(data[0]["id"], DeliveryId::of(event, endpoints[0], 0).to_string());
    let page = world.get(&format!("{path}?limit=2")).await?;
    let rest = world.get(&format!("{path}?limit=9&cursor={}", page.text("next_cursor"))).await?;
    assert_eq!(rest.body["data"].as_array().map(Vec::len), Some(3));

    let unknown = EventId::new(SystemClock.now(), random_bytes());
    let path = format!("/v1/tenants/acme/events/{unknown}/deliveries");
    assert_eq!(world.get(&path).await?.code(), "event_not_found");
    let unknown = DeliveryId::of(unknown, endpoints[0], 0);
    let path = format!("/v1/tenants/acme/deliveries/{unknown}");
    assert_eq!(world.get(&path).await?.code(), "delivery_not_found");
    Ok(())
}
