//! What is written for a replay: the same as for an event that was just accepted, routed facts first
//! and then tasks, with the replay's generation.

use std::collections::BTreeMap;

use anyhow::Context as _;
use fanfare_domain::{
    DeliveryId, EndpointId, Fact, Record, Replay, Shard, ShardCount, StoredEvent, Target, Task,
    Timestamp,
};
use fanfare_event_log::PublishError;
use tokio::time::sleep;

use super::Desk;
use crate::{
    allowances::Reserved,
    outlet::Written,
    routes::{Matches, Routes},
    routing,
    together::Together,
};

/// An event that is to be delivered again.
#[derive(Debug)]
pub(super) struct Given {
    /// The event.
    pub(super) event: StoredEvent,
    /// Whom to.
    pub(super) targets: Vec<EndpointId>,
}

impl Desk {
    /// Writes facts and tasks; returns whether all of them are stored, which they are unless the
    /// service stops.
    pub(super) async fn write(
        &self,
        (replay, generation): (&Replay, u32),
        given: &[Given],
    ) -> anyhow::Result<bool> {
        if given.is_empty() {
            return Ok(true);
        }
        // What is on record is to become tasks, so all that these take is at hand before.
        let Some(times) = self.times(replay, given).await.context("ask the tenant's limit")? else {
            return Ok(false);
        };
        let now = self.clock.now();
        let revision = self.routes.read(Routes::revision);
        let facts = given.iter().flat_map(|given| facts(given, generation, revision, now));
        for message in routing::messages(facts.collect()) {
            if self.outlet.routed(&message).await.context("record routings")? == Written::GivenUp {
                return Ok(false);
            }
        }
        let refers_to = (generation, replay.progress.journal_sequence);
        let span =
            |given: &Given| self.spans.routed(&given.event, (&given.targets, 0), (generation, now));
        let spans: Vec<_> = given.iter().filter_map(span).collect();
        let mut together = Together::default();
        let mut messages = Vec::new();
        for (shard, task) in tasks(given, times, (refers_to, self.log.shards()), now) {
            messages.extend(together.add(shard, 0, task));
        }
        for message in messages.into_iter().chain(together.rest()) {
            let written = self.outlet.tasks(message.shard, &message.tasks).await;
            if written.context("write tasks")? == Written::GivenUp {
                return Ok(false);
            }
        }
        for span in spans {
            self.spans.written(Some(span));
        }
        self.counters.count_replayed(given.iter().map(|given| given.targets.len()).sum());
        Ok(true)
    }

    /// The times that the tenant's limit keeps for the deliveries, none without a limit; `None` if
    /// the service stops.
    async fn times(
        &self,
        replay: &Replay,
        given: &[Given],
    ) -> Result<Option<Vec<Timestamp>>, PublishError> {
        let tenant = &replay.tenant;
        let Some(limit) = self.routes.read(|routes: &Routes| routes.limit(tenant)) else {
            return Ok(Some(Vec::new()));
        };
        let count = given.iter().map(|given| given.targets.len()).sum();
        loop {
            let wanted = BTreeMap::from([(tenant.clone(), (limit, count))]);
            match self.allowances.reserve(wanted).await? {
                Reserved::Times(mut times) => {
                    return Ok(Some(times.remove(tenant).unwrap_or_default().collect()));
                }
                Reserved::Not { again } if again.is_zero() => return Ok(None),
                Reserved::Not { again } => sleep(again).await,
            }
        }
    }
}

fn facts(given: &Given, generation: u32, revision: u64, now: Timestamp) -> Vec<Record> {
    let matches = Matches { targets: given.targets.clone(), ..Matches::default() };
    let mut facts = routing::facts(&given.event, &matches, revision, now);
    for record in &mut facts {
        if let Fact::EventRouted(routed) = &mut record.fact {
            routed.generation = generation;
        }
    }
    facts
}

/// The tasks of events; what has no time of its own may be delivered at once. Deliveries count as
/// accepted now.
fn tasks(
    given: &[Given],
    times: Vec<Timestamp>,
    ((generation, journal_sequence), shards): ((u32, u64), ShardCount),
    now: Timestamp,
) -> Vec<(Shard, Task)> {
    let mut times = times.into_iter();
    let mut tasks = Vec::new();
    for Given { event, targets } in given {
        let mut by_shard: BTreeMap<Shard, Vec<Target>> = BTreeMap::new();
        for endpoint in targets {
            let delivery = DeliveryId::of(event.event.id, *endpoint, generation);
            let target = Target { delivery, endpoint: *endpoint, not_before: times.next() };
            by_shard.entry(shards.of(*endpoint)).or_default().push(target);
        }
        for (shard, targets) in by_shard {
            for targets in targets.chunks(Task::TARGETS_MAX) {
                let event = StoredEvent { accepted_at: now, ..event.clone() };
                let targets = targets.to_vec();
                tasks.push((shard, Task { event, targets, generation, journal_sequence }));
            }
        }
    }
    tasks
}
