//! What people ask for a delivery is done once: it is ended, or its next attempt is made now; also
//! where the dispatcher dies in between.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{Conclusion, DeliveryId, EndpointId, Fact, fact::ConclusionReason};
use fanfare_testkit::{wait_at_most, wait_until};
use serde_json::{Value, json};

use crate::support::{
    Answer, EAGER, Expected, Hooks, Options, Route, Scene, Service,
    api::{Made, Refused},
    checker::{History, fold},
    evidence,
    scene::TENANT,
};

/// How long everything may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sets a scene with an endpoint that refuses every first attempt, waits an hour then, and takes the
/// second. Publishes so many events, and waits until all of them wait.
async fn waiting(path: &str, count: usize) -> Result<(Scene, Made, Vec<DeliveryId>)> {
    refusing(1, path, count).await
}

/// The same with an endpoint that takes nothing before so many attempts.
async fn refusing(
    refusals: usize,
    path: &str,
    count: usize,
) -> Result<(Scene, Made, Vec<DeliveryId>)> {
    let hooks = Hooks::answering(move |_, earlier| {
        Answer::Status(if earlier < refusals { 500 } else { 200 })
    });
    let options = Options { profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    let made = scene.subscribe(path, &[">"], &["1h"]).await?;
    let planned =
        (0..count).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    let ids = wait_until("all deliveries to wait", async || {
        let histories = histories(&scene).await.map_err(|error| format!("{error:#}"))?;
        let waiting = histories.iter().filter(|(_, one)| !one.plans.is_empty());
        let ids: Vec<_> = waiting.map(|(id, _)| *id).collect();
        if ids.len() == count { Ok(ids) } else { Err(format!("{} of {count}", ids.len())) }
    })
    .await;
    Ok((scene, made, ids))
}

async fn histories(scene: &Scene) -> Result<BTreeMap<DeliveryId, History>> {
    Ok(fold(&evidence::journal(&scene.log).await?))
}

/// Waits until deliveries have ended, and checks that each has attempts without a gap and one end.
async fn ended(scene: &Scene, wanted: &[DeliveryId]) -> Result<BTreeMap<DeliveryId, History>> {
    let found = wait_at_most(PATIENCE, "deliveries to end", async || {
        let found = histories(scene).await.map_err(|error| format!("{error:#}"))?;
        let has_ended =
            |id: &&DeliveryId| found.get(*id).is_some_and(|history| history.conclusion().is_some());
        let open = wanted.iter().filter(|id| !has_ended(id)).count();
        if open == 0 { Ok(found) } else { Err(format!("{open} of {} are open", wanted.len())) }
    })
    .await;
    for (id, history) in &found {
        let numbers: Vec<u32> = history.attempts.iter().map(|made| made.attempt).collect();
        let expected: Vec<u32> = (1..).take(numbers.len()).collect();
        ensure!(numbers == expected, "{id} has attempts {numbers:?}");
        ensure!(history.conclusions.len() <= 1, "{id} ended more than once: {history:?}");
    }
    Ok(found)
}

async fn ask(scene: &Scene, delivery: DeliveryId, what: &str) -> Result<Value> {
    let path = format!("/v1/tenants/{TENANT}/deliveries/{delivery}/{what}");
    scene.api().post(&path, &json!({})).await
}

fn end_of(found: &BTreeMap<DeliveryId, History>, id: DeliveryId) -> Result<(Conclusion, usize)> {
    let history = found.get(&id).context("a delivery")?;
    let concluded = history.conclusion().context("an end")?;
    if concluded.conclusion == Conclusion::Cancelled {
        ensure!(concluded.reason == ConclusionReason::ByHand, "{concluded:?}");
    }
    Ok((concluded.conclusion, history.attempts.len()))
}

fn attempts(found: &BTreeMap<DeliveryId, History>, id: DeliveryId) -> usize {
    found.get(&id).map_or(0, |history| history.attempts.len())
}

/// Waits until so many attempts of each delivery are on record.
async fn tried(scene: &Scene, ids: &[DeliveryId], wanted: &[usize]) {
    wait_until("attempts to be on record", async || {
        let found = histories(scene).await.map_err(|error| format!("{error:#}"))?;
        let tried: Vec<usize> = ids.iter().map(|id| attempts(&found, *id)).collect();
        if tried == wanted { Ok(()) } else { Err(format!("{tried:?}")) }
    })
    .await;
}

/// Waits until so many events are routed to an endpoint; returns their deliveries in order.
async fn routed(scene: &Scene, endpoint: &Made, count: usize) -> Result<Vec<DeliveryId>> {
    let endpoint: EndpointId = endpoint.id.parse().context("an endpoint's id")?;
    let found = wait_until("events to be routed", async || {
        let batches = evidence::journal(&scene.log).await.map_err(|error| format!("{error:#}"))?;
        let mut found = BTreeMap::new();
        for record in batches.iter().flat_map(|batch| &batch.facts) {
            let Fact::EventRouted(routed) = &record.fact else { continue };
            if routed.targets.contains(&endpoint) || routed.fed.contains(&endpoint) {
                let id = DeliveryId::of(routed.event, endpoint, routed.generation);
                found.insert(routed.event_sequence, id);
            }
        }
        if found.len() == count { Ok(found) } else { Err(format!("{} of {count}", found.len())) }
    });
    Ok(found.await.into_values().collect())
}

/// Publishes until a paused endpoint is fed; returns how many events it took: a dispatcher that has
/// not heard of the pause delivers what comes, or has it wait for its turn.
async fn fed(scene: &mut Scene, endpoint: &Made) -> Result<usize> {
    let endpoint: EndpointId = endpoint.id.parse().context("an endpoint's id")?;
    let shard = scene.log.shards().of(endpoint);
    let mut count = 0;
    wait_until("a feed to be opened", async || {
        if matches!(scene.log.feed(shard, endpoint).await, Ok(Some(_))) {
            return Ok(count);
        }
        if scene.hooks.count() == count {
            let planned = scene.plan("a.b", Route::Inbox).map_err(|error| format!("{error:#}"))?;
            scene.publish(vec![planned]).await.map_err(|error| format!("{error:#}"))?;
            count += 1;
        }
        Err(format!("{count} were published"))
    })
    .await;
    Ok(count)
}

/// No alarm clock is set for a delivery.
async fn check_no_alarm(scene: &Scene, endpoint: &Made, ids: &[DeliveryId]) -> Result<()> {
    let endpoint: EndpointId = endpoint.id.parse().context("an endpoint's id")?;
    let (shard, schedules) = (scene.log.shards().of(endpoint), scene.log.schedules());
    for id in ids {
        wait_until("an alarm clock to be stopped", async || {
            match schedules.get(shard, *id).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_delivery_is_cancelled_or_tried_at_once() -> Result<()> {
    let (scene, endpoint, ids) = waiting("/one", 6).await?;
    for id in &ids[..2] {
        let taken = ask(&scene, *id, "cancel").await?;
        ensure!(taken["outcome"] == "accepted", "{taken}");
    }
    for id in &ids[2..4] {
        let taken = ask(&scene, *id, "retry").await?;
        ensure!(taken["outcome"] == "accepted", "{taken}");
    }
    let found = ended(&scene, &ids[..4]).await?;
    for id in &ids[..2] {
        assert_eq!(end_of(&found, *id)?, (Conclusion::Cancelled, 1));
    }
    for id in &ids[2..4] {
        assert_eq!(end_of(&found, *id)?, (Conclusion::Delivered, 2));
    }
    for id in &ids[4..] {
        assert!(found[id].conclusion().is_none(), "nobody asked for anything");
    }
    check_no_alarm(&scene, &endpoint, &ids[..4]).await?;
    for what in ["cancel", "retry"] {
        let refused = ask(&scene, ids[0], what).await.unwrap_err();
        let refused = refused.downcast_ref::<Refused>().context("a refusal")?;
        assert_eq!((refused.status, refused.code()), (409, "delivery_concluded"));
    }
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_in_flight_ends_with_its_attempt() -> Result<()> {
    let hooks = Hooks::answering(|_, _| Answer::Late(500, Duration::from_secs(8)));
    let options = Options { profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    let mut slow = scene.endpoint("/slow", &[">"], &["1h"]);
    slow["timeout_ms"] = json!(30_000);
    let slow = scene.api().endpoint(TENANT, &slow).await?;
    scene.note("/slow", &[">"], &slow, &["1h"])?;
    let planned = vec![scene.plan("a.b", Route::Inbox)?];
    scene.publish(planned).await?;
    scene.hooks_have(1).await;
    let event = scene.hooks.seen()[0].event.context("an event's id")?;
    let path = format!("/v1/tenants/{TENANT}/events/{event}/deliveries");
    let listed = scene.api().get(&path).await?;
    let id: DeliveryId = listed["data"][0]["id"].as_str().context("an id")?.parse()?;
    let taken = ask(&scene, id, "retry").await?;
    ensure!(taken["outcome"] == "under_way", "{taken}");
    ask(&scene, id, "cancel").await?;
    let found = ended(&scene, &[id]).await?;
    assert_eq!(end_of(&found, id)?, (Conclusion::Cancelled, 1));
    assert_eq!(scene.hooks.count(), 1);
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_deliveries_of_an_endpoint_are_cancelled_and_of_no_other() -> Result<()> {
    let (mut scene, endpoint, ids) = waiting("/one", 300).await?;
    let other = scene.subscribe("/other", &["c.d"], &["1h"]).await?;
    let planned = vec![scene.plan("c.d", Route::Inbox)?];
    scene.publish(planned).await?;
    scene.hooks_have(302).await;
    // Asked for again and again, it is done all the same.
    for _ in 0..4 {
        scene.api().act(TENANT, &endpoint.id, "cancel-deliveries", &json!({})).await?;
    }
    let found = ended(&scene, &ids).await?;
    for id in &ids {
        assert_eq!(end_of(&found, *id)?, (Conclusion::Cancelled, 1));
    }
    let others = found.values().filter(|it| it.delivery.endpoint.to_string() == other.id);
    assert_eq!(others.filter(|it| it.conclusion().is_none()).count(), 1);
    // What comes later is delivered.
    let planned = vec![scene.plan("e.f", Route::Inbox)?];
    scene.publish(planned).await?;
    scene.hooks_have(303).await;
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_cancelled_is_not_sent_again_with_the_dead_letters() -> Result<()> {
    let (scene, endpoint, ids) = refusing(2, "/one", 4).await?;
    for (id, what) in ids.iter().zip(["cancel", "cancel", "retry"]) {
        ask(&scene, *id, what).await?;
    }
    let found = ended(&scene, &ids[..3]).await?;
    assert_eq!(end_of(&found, ids[2])?, (Conclusion::Exhausted, 2));
    let event = found.get(&ids[2]).context("the dead letter")?.delivery.event;
    let path = format!("/v1/tenants/{TENANT}/dead-letters/redrive");
    let redrive = scene.api().post(&path, &json!({ "endpoint_id": endpoint.id })).await?;
    ensure!(redrive["which"] == "exhausted", "{redrive}");
    let generation = u32::try_from(redrive["generation"].as_u64().context("a generation")?)?;
    let again = DeliveryId::of(event, endpoint.id.parse()?, generation);
    let found = ended(&scene, &[again]).await?;
    assert_eq!(end_of(&found, again)?, (Conclusion::Delivered, 1));
    let path = format!(
        "/v1/tenants/{TENANT}/replays/{}",
        redrive["id"].as_str().context("the replay's id")?
    );
    let done = wait_until("the replay to be done", async || {
        let replay = scene.api().get(&path).await.map_err(|error| format!("{error:#}"))?;
        if replay["state"] == "done" { Ok(replay) } else { Err(replay.to_string()) }
    });
    assert_eq!(done.await["made"], 1);
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_dispatcher_forgets_no_command_and_does_none_twice() -> Result<()> {
    let (mut scene, endpoint, ids) = waiting("/one", 24).await?;
    let (cancelled, retried) = ids.split_at(12);
    for round in 0..3 {
        for index in 0..4 {
            ask(&scene, cancelled[4 * round + index], "cancel").await?;
            ask(&scene, retried[4 * round + index], "retry").await?;
            // The rest is asked for while there is none.
            if index == round {
                scene.installation.kill(Service::Dispatcher).await?;
            }
        }
        scene.installation.start_service(Service::Dispatcher).await?;
    }
    let found = ended(&scene, &ids).await?;
    for id in cancelled {
        assert_eq!(end_of(&found, *id)?, (Conclusion::Cancelled, 1), "{id}");
    }
    for id in retried {
        assert_eq!(end_of(&found, *id)?, (Conclusion::Delivered, 2), "{id}");
    }
    check_no_alarm(&scene, &endpoint, &ids).await?;
    let requests = scene.hooks.count();
    let least = ids.len() + retried.len();
    ensure!((least..=least + 3 * retried.len()).contains(&requests), "{requests} requests");
    scene.finish(Expected::Turmoil).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_paused_or_an_ordered_endpoint_is_cancelled_at_once() -> Result<()> {
    let hooks = Hooks::answering(|request, _| {
        Answer::Status(if request.path == "/ordered" { 500 } else { 200 })
    });
    let options = Options { profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    let held = scene.subscribe("/held", &["a.*"], &[]).await?;
    let mut ordered = scene.endpoint("/ordered", &["b.*"], &["1h"]);
    ordered["ordering"] = json!("all");
    let ordered = scene.api().endpoint(TENANT, &ordered).await?;
    scene.api().act(TENANT, &held.id, "pause", &json!({ "mode": "hold" })).await?;
    let before = fed(&mut scene, &held).await?;
    for event_type in ["a.b", "b.c"] {
        let planned = (0..6).map(|_| scene.plan(event_type, Route::Inbox));
        let planned = planned.collect::<Result<Vec<_>>>()?;
        scene.publish(planned).await?;
    }
    let all_of_held = routed(&scene, &held, before + 6).await?;
    let (of_held, of_ordered) = (&all_of_held[before..], routed(&scene, &ordered, 6).await?);
    // The last of those before is parked.
    scene.hooks_have(before).await;

    for (id, code) in [(of_held[3], "endpoint_paused"), (of_ordered[3], "delivery_behind_others")] {
        let refused = ask(&scene, id, "retry").await.unwrap_err();
        let refused = refused.downcast_ref::<Refused>().context("a refusal")?;
        assert_eq!((refused.status, refused.code()), (409, code));
    }
    for id in of_held[..3].iter().chain(&of_ordered[1..3]) {
        ask(&scene, *id, "cancel").await?;
    }
    for ids in [&of_held[..3], &of_ordered[1..3]] {
        let found = ended(&scene, ids).await?;
        for id in ids {
            assert_eq!(end_of(&found, *id)?, (Conclusion::Cancelled, 0));
        }
    }
    assert_eq!(scene.hooks.count(), before);
    // What is on record is not made again.
    tried(&scene, &of_ordered, &[1, 0, 0, 0, 0, 0]).await;
    scene.installation.kill(Service::Dispatcher).await?;
    scene.installation.start_service(Service::Dispatcher).await?;

    // The next in order is the first that was not cancelled.
    ask(&scene, of_ordered[0], "cancel").await?;
    let found = ended(&scene, &of_ordered[..3]).await?;
    assert_eq!(end_of(&found, of_ordered[0])?, (Conclusion::Cancelled, 1));
    scene.hooks_have(before + 1).await;
    scene.api().act(TENANT, &held.id, "resume", &json!({})).await?;
    let found = ended(&scene, &all_of_held).await?;
    for id in &of_held[3..] {
        assert_eq!(end_of(&found, *id)?, (Conclusion::Delivered, 1));
    }
    tried(&scene, &of_ordered, &[1, 0, 0, 1, 0, 0]).await;
    assert_eq!(scene.hooks.seen_at("/held").len(), before + 3);
    scene.finish(Expected::Turmoil).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_backlog_is_tried_at_once_and_delivered_once() -> Result<()> {
    const EVENTS: usize = 80;
    let hooks = Hooks::answering(|_, _| Answer::Late(200, Duration::from_millis(250)));
    let options = Options { profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    let mut slow = scene.endpoint("/slow", &["a.*"], &[]);
    slow["concurrency"] = json!(1);
    let slow = scene.api().endpoint(TENANT, &slow).await?;
    scene.note("/slow", &["a.*"], &slow, &[])?;
    scene.api().act(TENANT, &slow.id, "pause", &json!({ "mode": "hold" })).await?;
    let events = fed(&mut scene, &slow).await? + EVENTS;
    let planned = (0..EVENTS).map(|_| scene.plan("a.b", Route::Inbox));
    let planned = planned.collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    let ids = routed(&scene, &slow, events).await?;
    scene.api().act(TENANT, &slow.id, "resume", &json!({})).await?;
    scene.hooks_have(scene.hooks.count() + 2).await;
    let last = *ids.last().context("there are some")?;
    let taken = ask(&scene, last, "retry").await?;
    ensure!(taken["outcome"] == "accepted", "{taken}");
    let found = ended(&scene, &[last]).await?;
    assert_eq!(end_of(&found, last)?, (Conclusion::Delivered, 1));
    let tried = scene.hooks.count();
    ensure!(tried < events - 10, "it came before others: {tried} were tried");
    scene.concluded(PATIENCE).await?;
    assert_eq!(scene.hooks.count(), events, "each came once");
    scene.finish(Expected::Calm).await
}
