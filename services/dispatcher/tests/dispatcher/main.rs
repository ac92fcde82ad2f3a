//! The dispatcher alone, against a real nats-server and a real receiver.

mod batches;
mod commands;
mod hand_over;
mod health;
mod lanes;
mod metrics;
mod world;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Conclusion, EndpointState, Fact, Fault, Outcome, PauseMode, RetryDue, Target,
    fact::ConclusionReason, seal::Clear,
};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::receiver::Behaviour;

use world::{SECRET, World};

fn conclusion(story: &[Fact]) -> Option<(Conclusion, ConclusionReason, u32)> {
    match story.last() {
        Some(Fact::DeliveryConcluded(end)) => Some((end.conclusion, end.reason, end.attempts)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_sent_signed_and_recorded() -> Result<()> {
    let world = World::new().await?;
    let dispatcher = world.run().await?;
    let task = world.send(1).await?;
    let story = world.story(task.targets[0].delivery).await?;
    let expected = (Conclusion::Delivered, ConclusionReason::Outcome, 1);
    assert_eq!(conclusion(&story), Some(expected));
    let requests = world.receiver.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("webhook-id"), Some(task.event.event.id.to_string().as_str()));
    let profiles = fanfare_domain::profile::Profiles::built_in();
    let profile = profiles.get("standard-webhooks").context("built in")?;
    let verified = profile.verify(
        &Clear::new(String::from(SECRET)),
        |name| requests[0].header(name),
        &requests[0].body,
    );
    assert_eq!(verified, Ok(()));
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_record_is_never_attempted_again() -> Result<()> {
    let world = World::new().await?;
    let dispatcher = world.run().await?;
    let task = world.send(1).await?;
    world.story(task.targets[0].delivery).await?;
    dispatcher.stop().await?;
    // A repeat outside the duplicate window: same deliveries, another message.
    let mut repeat = task.clone();
    let second = world.send(2).await?;
    repeat.targets.push(Target { delivery: second.targets[0].delivery, ..repeat.targets[0] });
    let shard = world.log.shards().of(world.endpoint.id);
    world.log.publisher().tasks(shard, std::slice::from_ref(&repeat)).await?.stored().await?;
    let dispatcher = world.run().await?;
    let sentinel = world.send(3).await?;
    world.story(second.targets[0].delivery).await?;
    world.story(sentinel.targets[0].delivery).await?;
    let ids: BTreeSet<_> = world
        .receiver
        .requests()
        .iter()
        .filter_map(|request| request.header("webhook-id").map(String::from))
        .collect();
    let expected = [&task, &second, &sentinel].map(|task| task.event.event.id.to_string());
    assert_eq!(ids, BTreeSet::from(expected));
    assert_eq!(world.receiver.count(), 3);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_attempt_asks_for_a_retry_and_the_last_one_exhausts() -> Result<()> {
    let world = World::new().await?;
    world.receiver.answer(Behaviour::status(500));
    let dispatcher = world.run().await?;
    let task = world.send(1).await?;
    let story = world.story(task.targets[0].delivery).await?;
    let [Fact::AttemptMade(made)] = story.as_slice() else { panic!("{story:?}") };
    assert_eq!(made.outcome, Outcome::Refused { status: 500, retry_after: None });
    let due_at = made.retry_at.context("a retry is asked for")?;
    assert!(due_at >= made.started_at.saturating_add(Duration::from_hours(1)));
    let retry = RetryDue {
        delivery: made.delivery.clone(),
        attempt: 2,
        due_at: SystemClock.now(),
        journal_sequence: 1,
        trace: fanfare_domain::TraceContext::default(),
        batch: None,
    };
    let shard = world.log.shards().of(world.endpoint.id);
    world.log.schedules().put(shard, &retry).await?.stored().await?;
    let story = world.story_after(task.targets[0].delivery, 1).await?;
    let expected = (Conclusion::Exhausted, ConclusionReason::AttemptsSpent, 2);
    assert_eq!(conclusion(&story), Some(expected));
    assert_eq!(world.receiver.count(), 2);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoints_state_decides_at_the_last_moment() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.state = EndpointState::Paused(PauseMode::Hold);
    world.put_endpoint(false).await?;
    // It is fed from the first delivery on that is parked; the other gets tasks.
    let paused = world.add_endpoint(2, "/paused").await?;
    let dispatcher = world.run().await?;
    let held = world.send_to(paused, 1).await?;
    let story = world.story(held.targets[0].delivery).await?;
    assert!(matches!(story.as_slice(), [Fact::DeliveryParked(parked)] if parked.attempt == 1));
    world.endpoint.state = EndpointState::Paused(PauseMode::Skip);
    world.put_endpoint(false).await?;
    let skipped = world.send(2).await?;
    let story = world.story(skipped.targets[0].delivery).await?;
    let expected = (Conclusion::Cancelled, ConclusionReason::EndpointPaused, 0);
    assert_eq!(conclusion(&story), Some(expected));
    world.put_endpoint(true).await?;
    let deleted = world.send(3).await?;
    let story = world.story(deleted.targets[0].delivery).await?;
    let expected = (Conclusion::Cancelled, ConclusionReason::EndpointDeleted, 0);
    assert_eq!(conclusion(&story), Some(expected));
    assert_eq!(world.receiver.count(), 0);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_address_is_an_attempt_that_sent_nothing() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.url = String::from("http://10.0.0.1/hook");
    world.put_endpoint(false).await?;
    let dispatcher = world.run().await?;
    let task = world.send(1).await?;
    let story = world.story(task.targets[0].delivery).await?;
    let [Fact::AttemptMade(made)] = story.as_slice() else { panic!("{story:?}") };
    assert_eq!(made.outcome, Outcome::Failed(Fault::AddressForbidden));
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_installation_are_refused_before_they_use_up_attempts() -> Result<()> {
    let world = World::new().await?;
    let task = world.send(1).await?;
    let ours = std::fs::read(&world.key_file)?;
    std::fs::write(&world.key_file, "cd".repeat(32))?;
    let refused = world.run().await.err().context("it starts with foreign keys")?;
    let said = format!("{refused:#}");
    assert!(said.contains(&world.endpoint.id.to_string()) && said.contains("Restore"), "{said}");
    std::fs::write(&world.key_file, ours)?;
    let dispatcher = world.run().await?;
    let story = world.story(task.targets[0].delivery).await?;
    assert_eq!(conclusion(&story), Some((Conclusion::Delivered, ConclusionReason::Outcome, 1)));
    dispatcher.stop().await
}
