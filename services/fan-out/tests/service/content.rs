//! Endpoints that look at the content of events.

use anyhow::Result;
use fanfare_domain::{EndpointState, PauseMode, feed::Phase};

use crate::{
    fed,
    support::{World, deliveries},
};

#[tokio::test]
async fn the_content_decides_once_the_type_has_matched() -> Result<()> {
    let world = World::new().await?;
    let large = world.create_asking(&["invoice.*"], "data.amount > 100").await?.endpoint.id;
    let every = world.create(&["invoice.*"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    let mut expected = std::collections::BTreeSet::new();
    for (event_type, data, mut targets) in [
        ("invoice.paid", r#"{"amount":150}"#, vec![large, every]),
        ("invoice.paid", r#"{"amount":100}"#, vec![every]),
        ("invoice.sent", r#"{"amount":100.5}"#, vec![large, every]),
        ("order.paid", r#"{"amount":150}"#, vec![]),
    ] {
        let event = world.publish_data(event_type, data).await?;
        let mut routed = world.routing(event).await?.targets;
        // Ids that are made within the same millisecond are in no order.
        routed.sort_unstable();
        targets.sort_unstable();
        assert_eq!(routed, targets, "{event_type} {data}");
        expected.extend(deliveries(event, &targets));
    }
    world.queues().await?.take(&expected).await?;
    assert_eq!(fan_out.counters.conditions_failed(), 0);
    assert_eq!(fan_out.counters.conditions_asked(), 3, "only what the type chose is asked");
    fan_out.stop().await
}

#[tokio::test]
async fn a_condition_without_an_answer_is_no_match_and_counted() -> Result<()> {
    let world = World::new().await?;
    world.create_asking(&[">"], "data.amount > 100").await?;
    let every = world.create(&[">"]).await?.endpoint.id;
    let fan_out = world.start().await?;
    for data in ["{}", r#"{"amount":"many"}"#, "1", r#"{"amount":"\ud800"}"#] {
        let event = world.publish_data("a", data).await?;
        assert_eq!(world.routing(event).await?.targets, [every], "{data}");
    }
    assert_eq!(fan_out.counters.conditions_failed(), 4);
    fan_out.stop().await
}

#[tokio::test]
async fn nobody_is_asked_where_no_endpoint_asks() -> Result<()> {
    let world = World::new().await?;
    world.create(&[">"]).await?;
    world.create_asking(&["other"], "true").await?;
    let fan_out = world.start().await?;
    world.routing(world.publish("a").await?).await?;
    assert_eq!(fan_out.counters.conditions_asked(), 0);
    fan_out.stop().await
}

#[tokio::test]
async fn the_decision_is_on_record_for_those_that_skip_or_are_fed() -> Result<()> {
    let world = World::new().await?;
    let mut skipping = world.create_asking(&[">"], "data.n == 1").await?;
    world.set(&mut skipping, EndpointState::Paused(PauseMode::Skip)).await?;
    let fed = world.create_asking(&[">"], "data.n == 1").await?.endpoint.id;
    fed::write(&world, (fed, 1), Phase::Open, 0).await?;
    let fan_out = world.start().await?;
    let wanted = world.routing(world.publish_data("a", r#"{"n":1}"#).await?).await?;
    assert_eq!((&*wanted.skipped, &*wanted.fed), (&[skipping.endpoint.id][..], &[fed][..]));
    let other = world.routing(world.publish_data("a", r#"{"n":2}"#).await?).await?;
    assert_eq!((other.skipped.len(), other.fed.len(), other.targets.len()), (0, 0, 0));
    fan_out.stop().await
}

#[tokio::test]
async fn an_event_is_judged_by_the_condition_of_its_time() -> Result<()> {
    let world = World::new().await?;
    let mut endpoint = world.create_asking(&[">"], "data.n == 1").await?;
    let id = endpoint.endpoint.id;
    let before = world.publish_data("a", r#"{"n":1}"#).await?;
    world.ask(&mut endpoint, "data.n == 2").await?;
    let after = world.publish_data("a", r#"{"n":1}"#).await?;
    // Both are routed when the endpoint asks something else already.
    let fan_out = world.start().await?;
    assert_eq!(world.routing(before).await?.targets, [id]);
    assert!(world.routing(after).await?.targets.is_empty());
    fan_out.stop().await
}
