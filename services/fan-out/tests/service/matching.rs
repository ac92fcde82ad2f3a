//! Which endpoints an event goes to.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::support::{World, deliveries};

#[tokio::test]
async fn wildcards_choose_what_they_say() -> Result<()> {
    let world = World::new().await?;
    let fan_out = world.start().await?;
    let exact = world.create(&["invoice.paid"]).await?.endpoint.id;
    let one = world.create(&["invoice.*"]).await?.endpoint.id;
    let rest = world.create(&["invoice.>", "order.paid"]).await?.endpoint.id;
    let every = world.create(&[">"]).await?.endpoint.id;
    let mut expected = BTreeSet::new();
    for (event_type, mut wanted) in [
        ("invoice.paid", vec![exact, one, rest, every]),
        ("invoice.sent", vec![one, rest, every]),
        ("invoice.paid.late", vec![rest, every]),
        ("order.paid", vec![rest, every]),
        ("invoice", vec![every]),
    ] {
        wanted.sort_unstable();
        let event = world.publish(event_type).await?;
        assert_eq!(world.routing(event).await?.targets, wanted, "{event_type}");
        expected.extend(deliveries(event, &wanted));
    }
    world.queues().await?.take(&expected).await?;
    fan_out.stop().await
}

#[tokio::test]
async fn an_event_that_nobody_wants_is_on_record_and_makes_no_task() -> Result<()> {
    let world = World::new().await?;
    let fan_out = world.start().await?;
    world.create(&["other"]).await?;
    let event = world.publish("wanted.by.nobody").await?;
    let routed = world.routing(event).await?;
    assert_eq!((routed.targets.len(), routed.skipped.len(), routed.parts), (0, 0, 1));
    assert!(routed.config_revision > 0);
    fan_out.stop().await?;
    assert_eq!(world.tasks_stored().await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_endpoint_gets_every_event_published_after_its_creation() -> Result<()> {
    let world = World::new().await?;
    let fan_out = world.start().await?;
    let mut expected = BTreeSet::new();
    let mut events = Vec::new();
    for number in 0..200 {
        let event_type = format!("n{number}");
        let endpoint = world.create(&[&event_type]).await?.endpoint.id;
        let event = world.publish(&event_type).await?;
        expected.extend(deliveries(event, [&endpoint]));
        events.push((event, endpoint));
    }
    let ids: Vec<_> = events.iter().map(|(event, _)| *event).collect();
    let routings = world.routings(&ids).await?;
    for (event, endpoint) in events {
        assert_eq!(routings[&event][0].targets, [endpoint]);
    }
    world.queues().await?.take(&expected).await?;
    fan_out.stop().await
}

#[tokio::test]
async fn several_processes_share_the_work_and_make_no_task_twice() -> Result<()> {
    let world = World::new().await?;
    let endpoint = world.create(&[">"]).await?.endpoint.id;
    let (one, other) = (world.start().await?, world.start().await?);
    let mut expected = BTreeSet::new();
    for _ in 0..100 {
        let event = world.publish("a").await?;
        expected.extend(deliveries(event, [&endpoint]));
    }
    let mut queues = world.queues().await?;
    queues.take(&expected).await?;
    one.stop().await?;
    other.stop().await?;
    assert_eq!(queues.tasks.len(), 100);
    Ok(())
}
