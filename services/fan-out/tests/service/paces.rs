//! The endpoints of one replay: each goes on at its own pace.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Conclusion, EndpointId, EventId, Record, Shard, StoredEvent,
    job::{Past, Scope, Which},
};
use fanfare_event_log::{Column, JournalWriter};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::wait_at_most;

use crate::{
    replays::{Jobs, again, ask, ended, publish, range, replay},
    support::{World, deliveries},
};

/// How long a replay may take.
const PATIENCE: Duration = Duration::from_mins(2);

const EVENTS: usize = 320;

/// Endpoints, and events that were on record before the replay.
struct Stage {
    world: World,
    endpoints: Vec<EndpointId>,
    events: Vec<EventId>,
    writer: JournalWriter,
}

impl Stage {
    async fn set() -> Result<Self> {
        let world = World::new().await?;
        let mut endpoints = Vec::new();
        for _ in 0..3 {
            endpoints.push(world.create(&["a"]).await?.endpoint.id);
        }
        let events = publish(&world, EVENTS).await?;
        let shard = Shard::from_index(0);
        let writer = world.log.claim(shard, Column::Attempts, "test", SystemClock.now()).await?;
        Ok(Self { world, endpoints, events, writer })
    }

    /// Puts an end on record.
    async fn end(&mut self, ends: &[Record]) -> Result<()> {
        for batch in ends.chunks(256) {
            self.writer.append(batch).await?;
        }
        Ok(())
    }

    /// How many deliveries of a replay were made for an endpoint.
    async fn made(&self, generation: u32, endpoint: EndpointId) -> Result<usize> {
        let routed = self.world.routed().await?;
        let of = routed.iter().filter(|routed| routed.generation == generation);
        let events: BTreeSet<_> =
            of.filter(|routed| routed.targets.contains(&endpoint)).map(|it| it.event).collect();
        Ok(events.len())
    }

    /// Waits until more was made of a replay for some endpoints than is known.
    async fn more(
        &self,
        generation: u32,
        endpoints: &[EndpointId],
        known: &BTreeSet<(u64, EndpointId)>,
    ) -> Vec<(u64, EndpointId)> {
        wait_at_most(PATIENCE, "more of the replay", async || {
            let routed = self.world.routed().await.map_err(|error| format!("{error:#}"))?;
            let of = routed.iter().filter(|routed| routed.generation == generation);
            let made = of.flat_map(|it| it.targets.iter().map(|to| (it.event_sequence, *to)));
            let more = made.filter(|made| endpoints.contains(&made.1) && !known.contains(made));
            let more: Vec<_> = more.collect();
            if more.is_empty() { Err(format!("{} were made", known.len())) } else { Ok(more) }
        })
        .await
    }

    /// Ends what a replay makes for some endpoints, as it is made, until they have everything.
    async fn serve(&mut self, generation: u32, endpoints: &[EndpointId]) -> Result<()> {
        let mut served = BTreeSet::new();
        while served.len() < endpoints.len() * EVENTS {
            let more = self.more(generation, endpoints, &served).await;
            let mut ends = Vec::new();
            for (sequence, to) in more {
                if served.insert((sequence, to)) {
                    let stored = self.world.log.event(sequence).await?.context("an event")?;
                    ends.push(ended(&stored, to, generation, Conclusion::Delivered));
                }
            }
            self.end(&ends).await?;
        }
        Ok(())
    }

    /// The events, as fan-out reads them.
    async fn stored(&self) -> Result<Vec<StoredEvent>> {
        let mut stored = Vec::with_capacity(EVENTS);
        for sequence in (1..).take(EVENTS) {
            stored.push(self.world.log.event(sequence).await?.context("an event")?);
        }
        Ok(stored)
    }

    /// Replays everything to everybody while the last endpoint takes nothing.
    async fn check(mut self, scope: Scope) -> Result<()> {
        let asked = replay("acme", scope)?;
        let generation = ask(&self.world, &asked).await?;
        let fan_out = self.world.start().await?;
        let [fast @ .., slow] = &*self.endpoints.clone() else { unreachable!("there are three") };
        self.serve(generation, fast).await?;
        let jobs = Jobs::of(&self.world).await?;
        jobs.until(asked.id, |stands| stands.behind.keys().eq([slow])).await;
        let made = self.made(generation, *slow).await?;
        assert!(made < EVENTS, "it has nothing on its way for who takes nothing: {made}");
        fan_out.crash().await;

        let fan_out = self.world.start().await?;
        self.serve(generation, &[*slow]).await?;
        assert_eq!(jobs.done(asked.id).await, u64::try_from(3 * EVENTS)?);
        let mut queues = self.world.queues().await?;
        let mut expected = BTreeSet::new();
        for event in &self.events {
            expected.extend(deliveries(*event, &self.endpoints));
        }
        for endpoint in &self.endpoints {
            expected.extend(again(&self.events, *endpoint, generation));
        }
        queues.take(&expected).await?;
        fan_out.stop().await
    }
}

#[tokio::test]
async fn who_takes_nothing_of_a_time_keeps_no_other_waiting() -> Result<()> {
    Stage::set().await?.check(range(Which::All, None)).await
}

#[tokio::test]
async fn who_takes_nothing_of_what_failed_keeps_no_other_waiting() -> Result<()> {
    let mut stage = Stage::set().await?;
    let mut ends = Vec::new();
    for stored in stage.stored().await? {
        ends.extend(stage.endpoints.iter().map(|to| ended(&stored, *to, 0, Conclusion::Exhausted)));
    }
    stage.end(&ends).await?;
    stage.check(range(Which::Failed, None)).await
}

#[tokio::test]
async fn who_takes_nothing_of_a_list_keeps_no_other_waiting() -> Result<()> {
    let stage = Stage::set().await?;
    let mut list = Vec::new();
    for stored in stage.stored().await? {
        let (event, event_sequence) = (stored.event.id, stored.sequence);
        let past = |to: &EndpointId| Past { event, event_sequence, endpoint: *to };
        list.extend(stage.endpoints.iter().map(past));
    }
    stage.check(Scope::Only(list)).await
}
