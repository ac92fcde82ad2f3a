//! Events for many endpoints.

use std::collections::BTreeMap;

use anyhow::Result;
use fanfare_domain::{Shard, Task, fact::EventRouted};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::support::{World, deliveries};

#[tokio::test]
async fn an_event_for_2500_endpoints_is_three_facts_and_as_few_tasks_as_can_be() -> Result<()> {
    let world = World::new().await?;
    let creations = stream::iter(0..2_500).map(|_| world.create(&["a"]));
    let endpoints: Vec<_> = creations.buffer_unordered(64).try_collect().await?;
    let endpoints: Vec<_> =
        endpoints.into_iter().map(|configured| configured.endpoint.id).collect();
    let fan_out = world.start().await?;
    let event = world.publish("a").await?;
    let facts = world.routings(&[event]).await?.remove(&event).unwrap_or_default();
    let parts: Vec<_> = facts.iter().map(|fact| (fact.part, fact.parts)).collect();
    assert_eq!(parts, [(0, 3), (1, 3), (2, 3)]);
    assert!(facts.iter().all(|fact| fact.targets.len() <= EventRouted::TARGETS_MAX));

    let mut queues = world.queues().await?;
    queues.take(&deliveries(event, &endpoints)).await?;
    fan_out.stop().await?;
    let mut of_shard: BTreeMap<Shard, usize> = BTreeMap::new();
    for endpoint in &endpoints {
        *of_shard.entry(world.log.shards().of(*endpoint)).or_default() += 1;
    }
    let needed: usize = of_shard.values().map(|count| count.div_ceil(Task::TARGETS_MAX)).sum();
    assert_eq!(queues.tasks.len(), needed);
    for (shard, task) in &queues.tasks {
        let own = |endpoint| world.log.shards().of(endpoint) == *shard;
        assert!(task.targets.iter().all(|target| own(target.endpoint)));
        assert_eq!(task.event.event.id, event);
    }
    Ok(())
}
