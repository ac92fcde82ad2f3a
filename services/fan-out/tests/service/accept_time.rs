//! What an endpoint was when an event was accepted decides, not what it is when it is routed.

use std::time::Duration;

use anyhow::Result;
use fanfare_domain::{EndpointState, PauseMode, endpoint::DisableReason};
use fanfare_testkit::Overheard;

use crate::support::World;

/// What the leader of CONFIG is asked for its last message.
const QUESTION: &str = "$JS.API.STREAM.MSG.GET.FANFARE_CONFIG";

#[tokio::test]
async fn states_count_as_they_were_when_the_event_was_accepted() -> Result<()> {
    let world = World::new().await?;
    let before = world.publish_early("a", Duration::from_mins(1)).await?;
    let mut endpoint = world.create(&["a"]).await?;
    let id = endpoint.endpoint.id;
    let mut events = vec![(before, None, false)];
    for (state, target, skipped) in [
        (EndpointState::Active, Some(id), false),
        (EndpointState::Paused(PauseMode::Skip), None, true),
        (EndpointState::Paused(PauseMode::Hold), Some(id), false),
        (EndpointState::Disabled(DisableReason::ByHand), None, false),
        (EndpointState::Active, Some(id), false),
    ] {
        world.set(&mut endpoint, state).await?;
        events.push((world.publish("a").await?, target, skipped));
    }
    world.delete(endpoint).await?;
    events.push((world.publish("a").await?, None, false));

    let fan_out = world.start().await?;
    let ids: Vec<_> = events.iter().map(|(event, ..)| *event).collect();
    let routings = world.routings(&ids).await?;
    for (place, (event, target, skipped)) in events.into_iter().enumerate() {
        let [routed] = routings[&event].as_slice() else { panic!("{routings:?}") };
        assert_eq!(routed.targets, Vec::from_iter(target), "event {place}");
        assert_eq!(routed.skipped, Vec::from_iter(skipped.then_some(id)), "event {place}");
    }
    fan_out.stop().await
}

#[tokio::test]
async fn filters_count_as_they_were_when_the_event_was_accepted() -> Result<()> {
    let world = World::new().await?;
    let mut endpoint = world.create(&["a"]).await?;
    let (a_before, b_before) = (world.publish("a").await?, world.publish("b").await?);
    endpoint.endpoint.filters = vec!["b".parse()?];
    world.set(&mut endpoint, EndpointState::Active).await?;
    let (a_after, b_after) = (world.publish("a").await?, world.publish("b").await?);

    let fan_out = world.start().await?;
    let routings = world.routings(&[a_before, b_before, a_after, b_after]).await?;
    let wanted = |event| !routings[&event][0].targets.is_empty();
    assert_eq!([a_before, b_before, a_after, b_after].map(wanted), [true, false, false, true]);
    fan_out.stop().await
}

#[tokio::test]
async fn an_event_that_seems_a_second_older_than_the_endpoint_is_for_it() -> Result<()> {
    let world = World::new().await?;
    let fan_out = world.start().await?;
    let endpoint = world.create(&["a"]).await?;
    // Published after the creation was acknowledged, and stamped by a clock that is behind.
    let event = world.publish_early("a", Duration::from_secs(1)).await?;
    assert_eq!(world.routing(event).await?.targets, [endpoint.endpoint.id]);
    fan_out.stop().await
}

#[tokio::test]
async fn the_servers_are_not_asked_about_what_the_acceptance_of_an_event_saw() -> Result<()> {
    let world = World::new().await?;
    let fan_out = world.start().await?;
    let endpoint = world.create(&["a"]).await?;
    let id = endpoint.endpoint.id;
    // An event that does not say has it asked, so that the routes are known to be there.
    world.routing(world.publish("a").await?).await?;
    let mut questions = Overheard::on(world.nats.url(), QUESTION).await?;
    let seen = world.routing(world.publish_seen("a", endpoint.revision).await?).await?;
    assert_eq!(seen.targets, [id]);
    assert_eq!(questions.all().await?, Vec::<String>::new());
    let unsaid = world.routing(world.publish("a").await?).await?;
    assert_eq!(unsaid.targets, [id]);
    assert!(!questions.all().await?.is_empty());
    // Nothing says that it will come by itself.
    let ahead = world.publish_seen("a", endpoint.revision + 1).await?;
    assert_eq!(world.routing(ahead).await?.targets, [id]);
    assert!(!questions.all().await?.is_empty());
    fan_out.stop().await
}
