//! Endpoints that take several events in a request.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    BatchId, Conclusion, DeliveryId, EndpointId, EndpointState, Fact, Outcome, PauseMode,
    endpoint::Batching,
    fact::{AttemptMade, ConclusionReason, InBatch},
    profile::Profiles,
    seal::Clear,
};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::receiver::{Behaviour, Gate, Received};
use serde_json::Value;

use crate::{
    conclusion,
    hand_over::{claimed, facts},
    world::{SECRET, World},
};

const LONG: Duration = Duration::from_secs(30);

/// How long a batch may wait for company: longer than the machine may stand still.
const WAIT: Duration = Duration::from_secs(5);

/// How long it takes to set the alarm clocks of a batch, which are to go off together.
const SOON: Duration = Duration::from_secs(4);

async fn world(max_events: u16, max_wait: Duration) -> Result<World> {
    let mut world = World::new().await?;
    let max_events = NonZeroU16::new(max_events).context("not zero")?;
    world.endpoint.batch = Some(Batching { max_events, max_wait });
    world.endpoint.concurrency = Some(1);
    world.put_endpoint(false).await?;
    Ok(world)
}

/// The ids of a request's events, in its order.
fn ids(request: &Received) -> Result<Vec<String>> {
    let elements: Vec<Value> = serde_json::from_slice(&request.body).context("an array")?;
    let id = |element: &Value| element["id"].as_str().map(String::from).context("an id");
    elements.iter().map(id).collect()
}

/// The attempt that a story tells of.
fn made(story: &[Fact]) -> Result<&AttemptMade> {
    let made = story
        .iter()
        .rev()
        .find_map(|fact| if let Fact::AttemptMade(made) = fact { Some(&**made) } else { None });
    made.with_context(|| format!("{story:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_signed_request_with_a_fact_for_each_event() -> Result<()> {
    let world = world(10, WAIT).await?;
    world.receiver.answer(Behaviour::text(200, "x".repeat(1_000)));
    let mut tasks = Vec::new();
    for number in 0..25 {
        tasks.push(world.send(number).await?);
    }
    let dispatcher = world.run().await?;
    let requests = world.receiver.wait_for(3, LONG).await?;
    let sizes: Vec<usize> =
        requests.iter().map(|request| ids(request).map(|ids| ids.len())).collect::<Result<_>>()?;
    assert_eq!(sizes, [10, 10, 5]);
    let mut expected: BTreeMap<DeliveryId, (String, u32)> = BTreeMap::new();
    let profiles = Profiles::built_in();
    let profile = profiles.get("standard-webhooks").context("built in")?;
    let secret = Clear::new(String::from(SECRET));
    for request in &requests {
        let id = request.header("webhook-id").context("an id")?;
        assert!(id.parse::<BatchId>().is_ok(), "{id}");
        let verified = profile.verify(&secret, |name| request.header(name), &request.body);
        assert_eq!(verified, Ok(()));
        let events = ids(request)?;
        for event in &events {
            let delivery = DeliveryId::of(event.parse()?, world.endpoint.id, 0);
            let size = u32::try_from(events.len())?;
            assert_eq!(expected.insert(delivery, (String::from(id), size)), None, "once");
        }
    }
    let mut whole = 0;
    for task in &tasks {
        let delivery = task.targets[0].delivery;
        let story = world.story(delivery).await?;
        let end = (Conclusion::Delivered, ConclusionReason::Outcome, 1);
        assert_eq!(conclusion(&story), Some(end));
        let made = made(&story)?;
        let batch = made.batch.context("in a batch")?;
        let (id, size) = expected.remove(&delivery).context("it was sent")?;
        assert_eq!((batch.id.to_string(), batch.size), (id, size));
        match made.response_body.len() {
            1_000 => whole += 1,
            length => assert_eq!((length, made.response_truncated), (256, true)),
        }
    }
    assert_eq!(whole, 3, "one of each batch keeps the whole answer");
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_failed_is_sent_again_as_it_was() -> Result<()> {
    let world = world(5, WAIT).await?;
    world.receiver.answer(Behaviour::statuses([500, 200, 200]));
    let mut tasks = Vec::new();
    for number in 0..5 {
        tasks.push(world.send(number).await?);
    }
    let dispatcher = world.run().await?;
    let (mut dues, mut failed) = (Vec::new(), Vec::new());
    for task in &tasks {
        let story = world.story(task.targets[0].delivery).await?;
        let made = made(&story)?.clone();
        assert_eq!(made.outcome, Outcome::Refused { status: 500, retry_after: None });
        dues.push(made.retry_at);
        failed.push((made.delivery, made.batch.context("in a batch")?));
    }
    dues.dedup();
    assert!(matches!(dues.as_slice(), [Some(_)]), "all are due at one time: {dues:?}");
    let due_at = SystemClock.now().saturating_add(SOON);
    for (delivery, batch) in failed {
        world.fall_due(delivery, 2, batch, due_at).await?;
    }
    // One that came meanwhile.
    let other = world.send(9).await?;
    for task in &tasks {
        let story = world.story_after(task.targets[0].delivery, 1).await?;
        let end = (Conclusion::Delivered, ConclusionReason::Outcome, 2);
        assert_eq!(conclusion(&story), Some(end));
    }
    world.story(other.targets[0].delivery).await?;
    let requests = world.receiver.requests();
    assert_eq!(requests.len(), 3);
    let again = requests[1..].iter().find(|request| request.body == requests[0].body);
    let again = again.context("the same body")?;
    assert_eq!(again.header("webhook-id"), requests[0].header("webhook-id"));
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_is_not_in_the_batch() -> Result<()> {
    let mut world = world(10, WAIT).await?;
    let before = world.send(1).await?;
    world.endpoint.state = EndpointState::Paused(PauseMode::Skip);
    world.put_endpoint(false).await?;
    world.endpoint.state = EndpointState::Active;
    world.put_endpoint(false).await?;
    let after = [world.send(2).await?, world.send(3).await?];
    let dispatcher = world.run().await?;
    let story = world.story(before.targets[0].delivery).await?;
    let end = (Conclusion::Cancelled, ConclusionReason::EndpointPaused, 0);
    assert_eq!(conclusion(&story), Some(end));
    for task in &after {
        let story = world.story(task.targets[0].delivery).await?;
        assert_eq!(made(&story)?.batch.map(|batch| batch.size), Some(2));
    }
    let requests = world.receiver.requests();
    let expected = after.each_ref().map(|task| task.event.event.id.to_string());
    assert_eq!(requests.len(), 1);
    assert_eq!(ids(&requests[0])?, expected);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_others_is_cancelled_with_its_endpoint() -> Result<()> {
    let mut world = world(10, Duration::from_mins(1)).await?;
    let dispatcher = world.run().await?;
    let tasks = [world.send(1).await?, world.send(2).await?];
    world.put_endpoint(true).await?;
    for task in &tasks {
        let story = world.story(task.targets[0].delivery).await?;
        let end = (Conclusion::Cancelled, ConclusionReason::EndpointDeleted, 0);
        assert_eq!(conclusion(&story), Some(end));
    }
    assert_eq!(world.receiver.count(), 0);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_a_body_is_sent_in_the_next() -> Result<()> {
    let world = world(10, Duration::ZERO).await?;
    let batch = InBatch { id: BatchId::from_bytes([7; 16]), size: 5 };
    let mut deliveries = Vec::new();
    for number in 0..5 {
        let stored = world.store(number, format!("\"{}\"", "x".repeat(400 << 10))).await?;
        deliveries.push(world.delivery(&stored));
    }
    let due_at = SystemClock.now().saturating_add(SOON);
    for delivery in &deliveries {
        world.fall_due(delivery.clone(), 2, batch, due_at).await?;
    }
    let dispatcher = world.run().await?;
    let mut sizes = BTreeMap::<_, u32>::new();
    for delivery in &deliveries {
        let story = world.story_after(delivery.id, 1).await?;
        let made = made(&story)?;
        assert_eq!((made.attempt, conclusion(&story).is_some()), (2, true));
        *sizes.entry(made.batch.context("in a batch")?).or_default() += 1;
    }
    let told: Vec<_> = sizes.keys().map(|batch| batch.size).collect();
    assert_eq!(told, sizes.values().copied().collect::<Vec<_>>());
    let mut told = told;
    told.sort_unstable();
    assert_eq!(told, [1, 2, 2]);
    assert_eq!(world.receiver.count(), 3);
    assert!(world.receiver.requests().iter().all(|request| request.body.len() <= 1 << 20));
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_runs_on_is_recorded_by_the_next_owner() -> Result<()> {
    let (world, gate) = (world(8, LONG).await?, Gate::default());
    world.receiver.answer(Behaviour::status(200).behind(&gate));
    let first = world.run().await?;
    let mut tasks = Vec::new();
    for number in 0..8 {
        tasks.push(world.send(number).await?);
    }
    world.receiver.wait_for(1, LONG).await?;
    let stopping = first.stop();
    let next = async {
        let second = world.run().await?;
        claimed(&world, 2).await;
        // The only slot is the request's as long as it runs.
        let mut sentinels = Vec::new();
        for number in 8..16 {
            sentinels.push(world.send(number).await?);
        }
        gate.open();
        anyhow::Ok((second, sentinels))
    };
    let (stopped, next) = tokio::join!(stopping, next);
    stopped?;
    let (second, sentinels) = next?;
    for task in &tasks {
        let story = world.story(task.targets[0].delivery).await?;
        let end = (Conclusion::Delivered, ConclusionReason::Outcome, 1);
        assert_eq!(conclusion(&story), Some(end));
        assert_eq!(made(&story)?.batch.map(|batch| batch.size), Some(8));
    }
    for sentinel in sentinels {
        world.story(sentinel.targets[0].delivery).await?;
    }
    assert_eq!(world.receiver.count(), 2, "nothing was sent twice");
    assert_eq!(world.receiver.in_flight_max(), 1);
    let facts = facts(&world).await?;
    let left = facts.iter().find_map(|fact| {
        if let Fact::ShardReleased(released) = fact { Some(&released.in_flight) } else { None }
    });
    let left = left.context("a release")?;
    assert_eq!(left.len(), 8);
    assert!(left.iter().all(|one| one.request == left[0].request), "{left:?}");
    second.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_is_taken_on_by_the_next_owner() -> Result<()> {
    let mut world = world(8, Duration::from_secs(20)).await?;
    let batch = world.endpoint.batch.take();
    let shard = world.log.shards().of(world.endpoint.id);
    let mut beside = world.endpoint.id;
    for number in 10..200 {
        if beside != world.endpoint.id {
            break;
        }
        let id = EndpointId::new(world.endpoint.created_at, [number; 10]);
        if world.log.shards().of(id) == shard {
            beside = world.add_endpoint(number, "/beside").await?;
        }
    }
    world.endpoint.batch = batch;
    let first = world.run().await?;
    let mut tasks = Vec::new();
    for number in 0..4 {
        tasks.push(world.send(number).await?);
    }
    // What comes behind them is sent, so they were taken, and wait for company.
    let sentinel = world.send_to(beside, 99).await?;
    world.story(sentinel.targets[0].delivery).await?;
    first.stop().await?;
    assert_eq!(world.receiver.count(), 1);
    let second = world.run().await?;
    for number in 4..8 {
        tasks.push(world.send(number).await?);
    }
    for task in &tasks {
        let story = world.story(task.targets[0].delivery).await?;
        assert_eq!(made(&story)?.batch.map(|batch| batch.size), Some(8));
    }
    assert_eq!(world.receiver.count(), 2);
    second.stop().await
}
