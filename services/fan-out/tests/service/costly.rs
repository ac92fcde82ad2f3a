//! Endpoints whose filters take long.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{EndpointId, EventId};
use fanfare_testkit::wait_until;
use tokio::time::timeout;

use crate::{
    restart::record,
    support::{World, deliveries},
};

/// How many events the tenant with the costly filters publishes, and how many filters it has.
const EVENTS: usize = 40;
const FILTERS: usize = 16;

/// How many of them may be routed before an event that nobody asks about, which comes later.
const BEFORE_MAX: usize = EVENTS / 2;

/// Filters that take some millions of steps each, about data that looks harmless.
async fn create_costly(world: &World) -> Result<Vec<EndpointId>> {
    let mut endpoints = Vec::new();
    for than in 0..FILTERS {
        let filter = format!("data.list.all(it, it < 9 || it > {than})");
        endpoints.push(world.create_asking(&["costly"], &filter).await?.endpoint.id);
    }
    endpoints.sort_unstable();
    Ok(endpoints)
}

fn costly_data() -> String {
    format!("{{\"list\":[{}]}}", vec!["7"; 20_000].join(","))
}

#[tokio::test]
async fn costly_filters_of_a_tenant_hold_nobody_else_up() -> Result<()> {
    let world = World::new().await?;
    let costly = create_costly(&world).await?;
    let plain = world.create_of("other", &["a"]).await?.endpoint.id;
    let filtered = world.create_with("other", &["a"], Some("data.n == 1")).await?.endpoint.id;
    let fan_out = world.start().await?;
    let mut asked = Vec::new();
    for _ in 0..EVENTS {
        asked.push(world.publish_data("costly", &costly_data()).await?);
    }
    wait_until("some of them to wait for their turn", async || {
        let costly = fan_out.counters.costly();
        (costly > 4).then_some(()).ok_or(costly)
    })
    .await;
    // Some may be through already, where the machine stood still for a while.
    let already = world.routed().await?.len();
    let others = world.publish_data_of("other", "a", r#"{"n":1}"#).await?;
    let (mut targets, mut expected) = (world.routing(others).await?.targets, [plain, filtered]);
    targets.sort_unstable();
    expected.sort_unstable();
    assert_eq!(targets, expected);
    let order: Vec<EventId> = world.routed().await?.iter().map(|fact| fact.event).collect();
    let before = order.iter().position(|event| *event == others).context("it is routed")?;
    let before = before.saturating_sub(already);
    assert!(before <= BEFORE_MAX, "{before} costly ones were routed before: {order:?}");
    // What is decided is right all the same.
    let first = *asked.first().context("some are published")?;
    let mut targets = world.routing(first).await?.targets;
    targets.sort_unstable();
    assert_eq!(targets, costly);
    timeout(Duration::from_mins(1), fan_out.stop()).await.context("it stops")?
}

#[tokio::test]
async fn what_waits_for_its_filters_is_routed_once_also_after_a_stop() -> Result<()> {
    let world = World::with(|settings| settings.ack_wait = Duration::from_secs(3)).await?;
    // Much data, and little to be asked about it.
    let data = format!("{{\"n\":1,\"text\":\"{}\"}}", "x".repeat(100_000));
    let wants = world.create_asking(&["large"], "data.n == 1").await?.endpoint.id;
    world.create_asking(&["large"], "data.n == 2").await?;
    let mut events = Vec::new();
    let mut expected = std::collections::BTreeSet::new();
    for round in 0..3 {
        let fan_out = world.start().await?;
        for _ in 0..20 {
            let event = world.publish_data("large", &data).await?;
            expected.extend(deliveries(event, [&wants]));
            events.push(event);
        }
        if round < 2 {
            fan_out.stop().await?;
        } else {
            let routed = world.routings(&events).await?;
            let targets: BTreeMap<EventId, Vec<Vec<EndpointId>>> = routed
                .into_iter()
                .map(|(event, facts)| (event, facts.into_iter().map(|it| it.targets).collect()))
                .collect();
            assert!(targets.values().all(|facts| *facts == [vec![wants]]), "{targets:?}");
            world.queues().await?.take(&expected).await?;
            fan_out.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_was_put_on_record_while_it_waited_counts() -> Result<()> {
    let world = World::new().await?;
    let costly = create_costly(&world).await?;
    let mut events = Vec::new();
    // They were there before anybody read them: an earlier process may have had them.
    for _ in 0..EVENTS {
        events.push(world.publish_data("costly", &costly_data()).await?);
    }
    let fan_out = world.start().await?;
    wait_until("some of them to wait for their turn", async || {
        let costly = fan_out.counters.costly();
        (costly > EVENTS / 2).then_some(()).ok_or(costly)
    })
    .await;
    let (last, only) = (*events.last().context("some are published")?, costly[3]);
    let sequence = record(&world, last, &[only]).await?;
    let facts = world.routings(&events).await?;
    let targets: Vec<_> = facts[&last].iter().map(|fact| fact.targets.clone()).collect();
    assert_eq!(targets, [vec![only]], "it is routed once");
    let mut expected = deliveries(last, [&only]);
    for event in events.iter().filter(|event| **event != last) {
        expected.extend(deliveries(*event, &costly));
    }
    let mut queues = world.queues().await?;
    queues.take(&expected).await?;
    let of_last = queues.tasks.iter().filter(|(_, task)| task.event.event.id == last);
    let places: Vec<u64> = of_last.map(|(_, task)| task.journal_sequence).collect();
    assert_eq!(places, [sequence], "its task refers to what is on record");
    timeout(Duration::from_mins(1), fan_out.stop()).await.context("it stops")?
}
