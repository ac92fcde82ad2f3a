//! Takes events, decides whom they are for, and keeps a few batches on their way to the log.
//!
//! ```text
//! next_batch ─▶ catch up ─▶ look up suspects ─▶ match ─▶ ask conditions ─▶ work
//!               └───────── one batch at a time ───────┘ └──── several at once ────┘
//! ```
//!
//! Events whose conditions take long are none of these batches: see [`crate::costly`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{Event, EventId, StoredEvent, feed::Cover};
use fanfare_event_log::{ConfigView, Feeds, FeedsView, ReadError, Reader, Settler, Unsettled};
use fanfare_service::Joined as _;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span};

use crate::{
    conditions::Apart,
    costly::{Costly, Tools},
    counters::Counters,
    recorded::{Found, Lookup, OnRecord, Suspect},
    routes::{Matches, Routes},
    work::{Batch, Item, Routing},
};

/// The most events of one batch: as many facts as one message of the journal takes.
const EVENTS_MAX: usize = 256;

/// Routes events until the service stops.
pub(crate) struct Intake {
    parts: Parts,
    /// What waits for its conditions.
    costly: Costly,
}

/// What an [`Intake`] is made of.
pub(crate) struct Parts {
    /// Finds what is on record about suspect events.
    pub(crate) lookup: Lookup,
    /// What asks, and what writes what was decided.
    pub(crate) tools: Tools,
    /// Counts.
    pub(crate) counters: Arc<Counters>,
    /// How many batches may be written at once.
    pub(crate) batches_max: usize,
    /// After what time an unsettled event is handed out again.
    pub(crate) ack_wait: Duration,
    /// Ends the taking of events.
    pub(crate) stop: CancellationToken,
}

impl Intake {
    /// Puts the parts together. Must be called inside a Tokio runtime.
    pub(crate) fn new(parts: Parts) -> Self {
        let costly = Costly::new(parts.tools.clone(), parts.ack_wait);
        Self { parts, costly }
    }

    /// Routes what the reader hands out. Once `stop` is cancelled, finishes what is being written.
    pub(crate) async fn run(mut self, mut events: Reader<StoredEvent>) -> anyhow::Result<()> {
        let stop = self.parts.stop.clone();
        let mut under_way = JoinSet::new();
        loop {
            self.parts.counters.set_batches(under_way.len());
            self.parts.counters.set_costly(self.costly.len());
            let has_room = under_way.len() < self.parts.batches_max;
            let taken = tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = under_way.join_next() => {
                    self.costly.add(finish(done)?);
                    continue;
                }
                next = self.costly.next() => {
                    self.costly.go_on(next?).await;
                    continue;
                }
                taken = events.next_batch(EVENTS_MAX), if has_room => taken.context("next events")?,
            };
            let span = debug_span!("route", events = taken.len());
            let routing = self.route(taken).instrument(span.clone());
            // Confirming waits for servers that are away.
            let Some(routed) = stop.run_until_cancelled(routing).await else { break };
            let (items, config_revision) = routed?;
            let Apart { ready, light, costly } = Apart::of(items);
            self.costly.leave_out(&ready);
            self.costly.add(costly);
            for items in [ready, light].into_iter().filter(|items| !items.is_empty()) {
                let writing = writing(self.parts.tools.clone(), items, config_revision);
                under_way.spawn(writing.instrument(span.clone()));
            }
        }
        events.stop().await;
        while let Some(done) = under_way.join_next().await {
            self.costly.add(finish(done)?);
        }
        self.costly.stop().await
    }

    /// Decides on a batch. Cancel safe: what is dropped is handed out again.
    async fn route(
        &mut self,
        taken: Vec<Unsettled<StoredEvent>>,
    ) -> anyhow::Result<(Vec<Item>, u64)> {
        // Whatever was acknowledged before these events were accepted is in the routes after this.
        let Tools { routes, feeds, .. } = &self.parts.tools;
        let events = taken.iter().map(|taken| &*taken.record.event);
        let confirmed = tokio::try_join!(caught_up(routes, events), confirmed(feeds));
        let ((), feeds) = confirmed.context("confirm the configuration and the feeds")?;
        let suspects: Vec<Suspect<'_>> = taken.iter().filter_map(suspect).collect();
        let found = self.parts.lookup.find(&suspects).await.context("look up suspect events")?;
        let Found { on_record, looked_to } = found;
        debug!(suspects = suspects.len(), on_record = on_record.len(), "looked up suspect events");
        let accepted = taken.iter().map(|taken| taken.record.accepted_at);
        let oldest = accepted.chain(self.costly.oldest()).min();
        let taken = taken.into_iter().map(|taken| Taken {
            suspect: taken.position.suspect.then_some(looked_to),
            event: taken.record,
            settler: taken.settler,
        });
        let taken = taken.collect();
        let decide = |routes: &Routes| {
            if let Some(oldest) = oldest {
                routes.set_oldest_in_hand(oldest);
            }
            decide_by((routes, feeds), taken, &on_record)
        };
        Ok(routes.read(decide))
    }
}

/// Waits until the routes have every change that was acknowledged before these events were accepted.
///
/// The servers are not asked where the events say which revision that is: ingest asked, after they were
/// accepted. On a cluster the answer may have been that of a server that was cut off; it is not put
/// right here (see [`ConfigView::confirm`]).
async fn caught_up(
    routes: &ConfigView<Routes>,
    events: impl Iterator<Item = &Event>,
) -> Result<(), ReadError> {
    let revisions: Option<Vec<u64>> = events.map(|event| event.config_revision).collect();
    let needed = revisions.map(|revisions| revisions.into_iter().max().unwrap_or_default());
    if let Some(needed) = needed
        && routes.has(needed)?
    {
        return Ok(());
    }
    routes.confirm().await.map(drop)
}

/// Waits until the view has seen which feeds were closed before this call. To be called after
/// events are taken and before they are matched, each time.
///
/// `None` if the view knows of no feed: then the servers are not asked, and nothing may be left to a
/// feed, also to one that is heard of meanwhile. To leave an event to a feed that has ended would lose
/// it; a task for an event that is a feed's is dropped by the feed's owner.
pub(crate) async fn confirmed(feeds: &FeedsView) -> Result<Option<&FeedsView>, ReadError> {
    if feeds.read(Feeds::is_empty) {
        return Ok(None);
    }
    feeds.confirm().await?;
    Ok(Some(feeds))
}

/// [Decides](decide) by what [`confirmed`] returned.
pub(crate) fn decide_by(
    (routes, feeds): (&Routes, Option<&FeedsView>),
    taken: Vec<Taken>,
    on_record: &BTreeMap<EventId, OnRecord>,
) -> (Vec<Item>, u64) {
    match feeds {
        Some(feeds) => feeds.read(|feeds| decide((routes, feeds), taken, on_record)),
        None => decide((routes, &Feeds::default()), taken, on_record),
    }
}

/// Asks what is left to ask about some events, and writes what becomes of them. Returns those whose
/// conditions take long.
async fn writing(
    tools: Tools,
    items: Vec<Item>,
    config_revision: u64,
) -> anyhow::Result<Vec<Item>> {
    let answered = tools.conditions.answer(items).await.context("ask conditions")?;
    let (items, routed_at) = (answered.decided, tools.clock.now());
    if !items.is_empty() {
        tools.work.write(Batch { items, config_revision, routed_at }).await?;
    }
    Ok(answered.left)
}

fn suspect(taken: &Unsettled<StoredEvent>) -> Option<Suspect<'_>> {
    let stored_at = taken.position.stored_at;
    taken.position.suspect.then_some(Suspect { event: &taken.record, stored_at })
}

/// An event that was handed out.
pub(crate) struct Taken {
    pub(crate) event: StoredEvent,
    /// Lets the event go.
    pub(crate) settler: Settler,
    /// As in [`Item::suspect`].
    pub(crate) suspect: Option<u64>,
}

/// Takes each event's routing from the record, or else from the routes and feeds. Pure. Also returns
/// the revision of CONFIG that was asked.
pub(crate) fn decide(
    (routes, feeds): (&Routes, &Feeds),
    taken: Vec<Taken>,
    on_record: &BTreeMap<EventId, OnRecord>,
) -> (Vec<Item>, u64) {
    let item = |Taken { event, settler, suspect }: Taken| {
        let recorded = on_record.get(&event.event.id).cloned();
        let routing = recorded
            .map_or_else(|| Routing::New(matches(routes, feeds, &event)), Routing::OnRecord);
        let limit = routes.limit(&event.event.tenant);
        Item { event, settler, routing, suspect, limit }
    };
    (taken.into_iter().map(item).collect(), routes.revision())
}

fn matches(routes: &Routes, feeds: &Feeds, stored: &StoredEvent) -> Matches {
    let mut matches = routes.of(&stored.event.tenant, &stored.event.event_type, stored.accepted_at);
    if !feeds.is_empty() {
        matches.leave_to(|endpoint| {
            let feed = feeds.of(endpoint).map(|stored| &stored.feed);
            feed.is_some_and(|feed| feed.cover(stored.sequence) == Cover::Inside)
        });
    }
    matches
}

fn finish<T>(done: Result<anyhow::Result<T>, JoinError>) -> anyhow::Result<T> {
    done.joined().context("finish a batch")?
}
