//! A delivery is found however much has happened since: by the delivery log, and by the journal behind
//! what that has.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use fanfare_domain::{
    Conclusion, DeliveryId, DeliveryRef, EndpointId, EventId, Fact, Outcome, Record, StoredEvent,
    TraceContext,
    fact::{AttemptMade, ConclusionReason, DeliveryConcluded, EventRouted, RetryScheduled},
};
use fanfare_event_log::{Column, JournalWriter};
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use fanfare_testkit::delivery_of;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    log::publish,
    support::{Answer, Api, World},
};

/// How many messages a request reads here, and how many there are between.
const READ_MAX: usize = 60;
const BETWEEN: usize = 3 * READ_MAX;

pub(crate) fn record(fact: Fact) -> Record {
    Record { recorded_at: SystemClock.now(), trace: TraceContext::default(), fact }
}

/// A routing to nobody yet.
pub(crate) fn routing(stored: &StoredEvent) -> EventRouted {
    EventRouted {
        event: stored.event.id,
        tenant: stored.event.tenant.clone(),
        event_sequence: stored.sequence,
        config_revision: 1,
        generation: 0,
        targets: Vec::new(),
        skipped: Vec::new(),
        held: Vec::new(),
        fed: Vec::new(),
        part: 0,
        parts: 1,
    }
}

pub(crate) async fn put(world: &World, routed: EventRouted) -> Result<()> {
    let record = record(Fact::EventRouted(routed));
    world.log.publisher().routed(&[record]).await?.stored().await?;
    Ok(())
}

pub(crate) fn failed(delivery: &DeliveryRef) -> Fact {
    let now = SystemClock.now();
    Fact::AttemptMade(Box::new(AttemptMade {
        delivery: delivery.clone(),
        attempt: 1,
        started_at: now,
        duration: Duration::from_millis(12),
        timing: fanfare_domain::fact::Timing::default(),
        outcome: Outcome::Refused { status: 500, retry_after: None },
        detail: String::new(),
        config_revision: 1,
        url: Arc::from("https://example.com/hook"),
        signature: String::from("abc"),
        response_headers: Vec::new(),
        response_body: "".into(),
        response_truncated: false,
        retry_at: Some(now.saturating_add(Duration::from_hours(1))),
        batch: None,
        trace_sampled: None,
    }))
}

fn ended(delivery: &DeliveryRef, conclusion: Conclusion) -> Fact {
    Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: delivery.clone(),
        conclusion,
        attempts: 1,
        reason: ConclusionReason::AttemptsSpent,
    })
}

/// A tenant with an endpoint, and who writes about it.
struct Scene {
    world: World,
    endpoint: EndpointId,
    writer: JournalWriter,
}

impl Scene {
    async fn set() -> Result<Self> {
        let world = World::new().await?;
        world.tenant("acme", "kryptos").await?;
        let endpoint: EndpointId = world.endpoint("acme").await?.parse()?;
        let shard = world.log.shards().of(endpoint);
        let now = SystemClock.now();
        let writer = world.log.claim(shard, Column::Attempts, "test", now).await?;
        Ok(Self { world, endpoint, writer })
    }

    async fn write(&mut self, facts: impl IntoIterator<Item = Fact>) -> Result<()> {
        let records: Vec<Record> = facts.into_iter().map(record).collect();
        self.writer.append(&records).await?;
        Ok(())
    }

    /// Publishes and routes an event, and has its delivery's first attempt fail.
    async fn waiting(&mut self) -> Result<DeliveryRef> {
        let stored = publish(&self.world, &"acme".parse()?).await?;
        put(&self.world, EventRouted { targets: vec![self.endpoint], ..routing(&stored) }).await?;
        let delivery = delivery_of(&stored, self.endpoint, 0);
        self.write([failed(&delivery)]).await?;
        Ok(delivery)
    }

    /// Has much happen to others, in the journal of the shard and in that of routings.
    async fn traffic(&mut self) -> Result<()> {
        let stored = publish(&self.world, &"acme".parse()?).await?;
        let publisher = self.world.log.publisher();
        let mut pending = Vec::new();
        for number in 0..BETWEEN {
            let other = EndpointId::new(SystemClock.now(), random_bytes());
            let generation = u32::try_from(number)? + 1_000;
            let routed = EventRouted { targets: vec![other], generation, ..routing(&stored) };
            pending.push(publisher.routed(&[record(Fact::EventRouted(routed))]).await?);
            self.write([failed(&delivery_of(&stored, self.endpoint, generation))]).await?;
        }
        for one in pending {
            one.stored().await?;
        }
        Ok(())
    }
}

async fn get(api: &Api, world: &World, path: &str) -> Result<Answer> {
    let path = format!("/v1/tenants/acme/{path}");
    api.call(Method::GET, &path, Some(&world.operator), Value::Null).await
}

async fn post(api: &Api, world: &World, path: &str, body: Value) -> Result<Answer> {
    let path = format!("/v1/tenants/acme/{path}");
    api.call(Method::POST, &path, Some(&world.operator), body).await
}

#[tokio::test]
async fn a_delivery_is_shown_and_commanded_after_whatever_traffic() -> Result<()> {
    let mut scene = Scene::set().await?;
    let (waits, dies, dead) =
        (scene.waiting().await?, scene.waiting().await?, scene.waiting().await?);
    scene.write([ended(&dead, Conclusion::Exhausted)]).await?;
    scene.traffic().await?;
    scene.world.fold_journal().await?;
    // What the delivery log has not folded: an end, and a plan.
    scene.write([ended(&dies, Conclusion::Exhausted)]).await?;
    let shard = scene.world.log.shards().of(scene.endpoint);
    let now = SystemClock.now();
    let mut plans = scene.world.log.claim(shard, Column::Plans, "test", now).await?;
    let due_at = now.saturating_add(Duration::from_hours(2));
    let scheduled = RetryScheduled {
        delivery: waits.clone(),
        attempt: 2,
        due_at,
        cause_sequence: 1,
        batch: None,
    };
    plans.append(&[record(Fact::RetryScheduled(scheduled))]).await?;

    let (world, api) = (&scene.world, scene.world.another_reading(READ_MAX, None).await?);
    let shown = get(&api, world, &format!("deliveries/{}", waits.id)).await?;
    assert_eq!((shown.status, shown.text("state")), (StatusCode::OK, "retrying".into()));
    assert_eq!(shown.text("next_attempt_at"), due_at.to_string());
    for id in [dies.id, dead.id] {
        let shown = get(&api, world, &format!("deliveries/{id}")).await?;
        assert_eq!(
            (shown.text("state"), shown.text("reason")),
            ("exhausted".into(), "attempts_spent".into())
        );
    }
    for what in ["retry", "cancel"] {
        let taken =
            post(&api, world, &format!("deliveries/{}/{what}", waits.id), json!({})).await?;
        assert_eq!(
            (taken.status, taken.text("outcome")),
            (StatusCode::ACCEPTED, "accepted".into())
        );
        let refused =
            post(&api, world, &format!("deliveries/{}/{what}", dies.id), json!({})).await?;
        assert_eq!(refused.code(), "delivery_concluded");
    }
    let replayed = post(&api, world, &format!("deliveries/{}/replay", dead.id), json!({})).await?;
    assert_eq!(replayed.status, StatusCode::ACCEPTED, "{replayed:?}");
    let ids = json!({ "deliveries": [dies.id.to_string(), dead.id.to_string()] });
    let redriven = post(&api, world, "dead-letters/redrive", ids).await?;
    assert_eq!(redriven.status, StatusCode::ACCEPTED, "{redriven:?}");
    assert_eq!(redriven.body["delivery_ids"].as_array().map(Vec::len), Some(2));
    let open = json!({ "deliveries": [waits.id.to_string()] });
    let refused = post(&api, world, "dead-letters/redrive", open).await?;
    assert_eq!(refused.code(), "delivery_under_way");
    let trace = get(&api, world, &format!("deliveries/{}/trace", waits.id)).await?;
    assert_eq!(trace.status, StatusCode::OK, "{trace:?}");
    api.stop().await
}

#[tokio::test]
async fn the_deliveries_of_events_and_replays_are_found_after_whatever_traffic() -> Result<()> {
    let mut scene = Scene::set().await?;
    let first = scene.waiting().await?;
    let stored = scene.world.log.event(first.event_sequence).await?.expect("it is there");
    let nobodys = publish(&scene.world, &"acme".parse()?).await?;
    put(&scene.world, routing(&nobodys)).await?;
    scene.traffic().await?;
    let (folded, fresh) =
        (delivery_of(&stored, scene.endpoint, 7), delivery_of(&stored, scene.endpoint, 8));
    for (generation, is_last) in [(7, false), (8, true)] {
        let targets = vec![scene.endpoint];
        put(&scene.world, EventRouted { generation, targets, ..routing(&stored) }).await?;
        if !is_last {
            scene.world.fold_journal().await?;
        }
    }
    scene.world.fold_event(&nobodys).await?;
    let late = publish(&scene.world, &"acme".parse()?).await?;
    put(&scene.world, EventRouted { held: vec![scene.endpoint], ..routing(&late) }).await?;

    let (world, api) = (&scene.world, scene.world.another_reading(READ_MAX, None).await?);
    for replayed in [folded, fresh] {
        let shown = get(&api, world, &format!("deliveries/{}", replayed.id)).await?;
        assert_eq!((shown.status, shown.text("state")), (StatusCode::OK, "pending".into()));
        assert_eq!(shown.body["generation"], replayed.generation);
    }
    for (event, routing) in [(stored.event.id, "delivery"), (late.event.id, "held")] {
        let listed = get(&api, world, &format!("events/{event}/deliveries")).await?;
        let shown: Vec<_> = listed.data().iter().map(|one| &one["routing"]).collect();
        assert_eq!(shown, [routing], "{listed:?}");
    }
    let listed = get(&api, world, &format!("events/{}/deliveries", nobodys.event.id)).await?;
    assert_eq!((listed.status, listed.data()), (StatusCode::OK, &[][..]), "{listed:?}");
    let nobody = EventId::new(SystemClock.now(), random_bytes());
    let unknown = [
        format!("events/{nobody}/deliveries"),
        format!("deliveries/{}", DeliveryId::of(nobody, scene.endpoint, 0)),
    ];
    for path in unknown {
        assert_eq!(get(&api, world, &path).await?.status, StatusCode::NOT_FOUND, "{path}");
    }
    api.stop().await
}

#[tokio::test]
async fn without_a_delivery_log_the_journal_is_read_as_far_as_it_may() -> Result<()> {
    let mut scene = Scene::set().await?;
    let old = scene.waiting().await?;
    scene.write([ended(&old, Conclusion::Refused)]).await?;
    scene.traffic().await?;
    let fresh = scene.waiting().await?;
    let nowhere = scene.world.file("nowhere.sqlite");
    let (world, path) = (&scene.world, format!("deliveries/{}", fresh.id));

    // There is one, and it has folded nothing yet; there is none.
    for (database, code, hint) in [
        (None, "journal_too_long", "messages behind"),
        (Some(&*nowhere), "delivery_log_unavailable", "the journal is too long"),
    ] {
        let api = world.another_reading(READ_MAX, database).await?;
        for refused in [
            get(&api, world, &path).await?,
            post(&api, world, &format!("{path}/retry"), json!({})).await?,
            post(
                &api,
                world,
                "dead-letters/redrive",
                json!({ "deliveries": [fresh.id.to_string()] }),
            )
            .await?,
        ] {
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
            assert_eq!(refused.code(), code);
            assert!(refused.text("detail").contains(hint), "{refused:?}");
        }
        api.stop().await?;

        let api = world.another_reading(10 * BETWEEN, database).await?;
        assert_eq!(get(&api, world, &path).await?.text("state"), "retrying");
        let taken = post(&api, world, &format!("{path}/cancel"), json!({})).await?;
        assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
        let refused = json!({ "deliveries": [old.id.to_string()] });
        let redriven = post(&api, world, "dead-letters/redrive", refused).await?;
        assert_eq!(redriven.status, StatusCode::ACCEPTED, "{redriven:?}");
        let listed = get(&api, world, &format!("events/{}/deliveries", fresh.event)).await?;
        assert_eq!(listed.data().len(), 1, "{listed:?}");
        api.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_facts_of_an_old_delivery_come_page_by_page() -> Result<()> {
    let mut scene = Scene::set().await?;
    let waits = scene.waiting().await?;
    scene.traffic().await?;
    scene.write([ended(&waits, Conclusion::Exhausted)]).await?;
    scene.world.fold_journal().await?;
    let (world, api) = (&scene.world, scene.world.another_reading(READ_MAX, None).await?);
    let (mut names, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page =
            get(&api, world, &format!("deliveries/{}/facts?limit=9{cursor}", waits.id)).await?;
        names.extend(page.data().iter().map(|fact| fact["fact"].clone()));
        pages += 1;
        let Some(next) = page.next() else { break };
        cursor = next;
    }
    assert_eq!(names, ["attempt_made", "delivery_concluded"]);
    assert!(pages > 2, "{pages} pages: the traffic between is not read at once");
    api.stop().await
}

#[tokio::test]
async fn an_operator_is_told_whose_something_is_by_its_id_alone() -> Result<()> {
    let mut scene = Scene::set().await?;
    let old = scene.waiting().await?;
    scene.traffic().await?;
    scene.world.fold_journal().await?;
    let fresh = scene.waiting().await?;
    let (_, tenants) = scene.world.key(Some("acme"), "admin").await?;
    let nowhere = scene.world.file("nowhere.sqlite");
    let world = &scene.world;
    // What the delivery log has not folded is in the journal; without one, all is.
    for (database, read_max, known) in
        [(None, READ_MAX, vec![&old, &fresh]), (Some(&*nowhere), 10 * BETWEEN, vec![&fresh])]
    {
        let api = world.another_reading(read_max, database).await?;
        let ask =
            async |path: String, key| api.call(Method::GET, &path, Some(key), json!(null)).await;
        for delivery in known {
            let paths = [
                format!("/v1/deliveries/{}", delivery.id),
                format!("/v1/events/{}", delivery.event),
            ];
            let [of_delivery, of_event] = &paths;
            let shown = ask(of_delivery.clone(), &world.operator).await?;
            let expected = json!({
                "delivery_id": delivery.id.to_string(),
                "tenant_id": "acme",
                "event_id": delivery.event.to_string(),
                "endpoint_id": delivery.endpoint.to_string(),
            });
            assert_eq!(shown.body, expected);
            let shown = ask(of_event.clone(), &world.operator).await?;
            assert_eq!(shown.body, json!({"event_id": expected["event_id"], "tenant_id": "acme"}));
            for path in paths {
                assert_eq!(ask(path, &tenants).await?.code(), "forbidden");
            }
        }
        let nobody = EventId::new(SystemClock.now(), random_bytes());
        let delivery = DeliveryId::of(nobody, scene.endpoint, 0);
        for (path, code) in [
            (format!("/v1/events/{nobody}"), "event_not_found"),
            (format!("/v1/deliveries/{delivery}"), "delivery_not_found"),
        ] {
            assert_eq!(ask(path, &world.operator).await?.code(), code);
        }
        api.stop().await?;
    }
    Ok(())
}
