//! Takes events, decides whom they are for, and keeps a few batches on their way to the log.
//!
//! ```text
//! next_batch ─▶ confirm the views ─▶ look up suspects ─▶ match ─▶ ask conditions ─▶ work
//!               └───────────── one batch at a time ────────────┘ └──── several at once ────┘
//! ```

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use fanfare_domain::{EventId, StoredEvent, feed::Cover};
use fanfare_event_log::{ConfigView, Feeds, FeedsView, Reader, Unsettled};
use fanfare_service::Clock;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span};

use crate::{
    conditions::{Conditions, apart},
    counters::Counters,
    recorded::{Lookup, OnRecord, Suspect},
    routes::{Matches, Routes},
    work::{Batch, Item, Routing, Work},
};

/// The most events of one batch: as many facts as one message of the journal takes.
const EVENTS_MAX: usize = 256;

/// Routes events until the service stops.
pub(crate) struct Intake(Parts);

/// What an [`Intake`] is made of.
pub(crate) struct Parts {
    /// Tells when facts are recorded.
    pub(crate) clock: Arc<dyn Clock>,
    /// Finds what is on record about suspect events.
    pub(crate) lookup: Lookup,
    /// Whom events are for.
    pub(crate) routes: ConfigView<Routes>,
    /// Who reads events by itself.
    pub(crate) feeds: FeedsView,
    /// Asks what endpoints want to know of events.
    pub(crate) conditions: Conditions,
    /// Writes what was decided.
    pub(crate) work: Work,
    /// Counts.
    pub(crate) counters: Arc<Counters>,
    /// How many batches may be written at once.
    pub(crate) batches_max: usize,
    /// Ends the taking of events.
    pub(crate) stop: CancellationToken,
}

impl Intake {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    /// Routes what the reader hands out. Once `stop` is cancelled, finishes what is being written.
    pub(crate) async fn run(mut self, mut events: Reader<StoredEvent>) -> anyhow::Result<()> {
        let stop = self.0.stop.clone();
        let mut under_way = JoinSet::new();
        loop {
            self.0.counters.set_batches(under_way.len());
            let has_room = under_way.len() < self.0.batches_max;
            let taken = tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = under_way.join_next() => {
                    finish(done)?;
                    continue;
                }
                taken = events.next_batch(EVENTS_MAX), if has_room => taken.context("next events")?,
            };
            let span = debug_span!("route", events = taken.len());
            let routing = self.route(taken).instrument(span.clone());
            // Confirming waits for servers that are away.
            let Some(routed) = stop.run_until_cancelled(routing).await else { break };
            let (items, config_revision) = routed?;
            for items in apart(items) {
                let writing = self.0.writing(items, config_revision);
                under_way.spawn(writing.instrument(span.clone()));
            }
        }
        events.stop().await;
        while let Some(done) = under_way.join_next().await {
            finish(done)?;
        }
        Ok(())
    }

    /// Decides on a batch. Cancel safe: what is dropped is handed out again.
    async fn route(
        &mut self,
        taken: Vec<Unsettled<StoredEvent>>,
    ) -> anyhow::Result<(Vec<Item>, u64)> {
        // Whatever was acknowledged before these events were accepted is in the view after this.
        let confirmed = tokio::try_join!(self.0.routes.confirm(), self.0.feeds.confirm());
        confirmed.context("confirm the configuration and the feeds")?;
        let suspects: Vec<Suspect<'_>> = taken.iter().filter_map(suspect).collect();
        let on_record = self.0.lookup.find(&suspects).await.context("look up suspect events")?;
        debug!(suspects = suspects.len(), on_record = on_record.len(), "looked up suspect events");
        let feeds = &self.0.feeds;
        let decide = |routes: &Routes| feeds.read(|it| decide((routes, it), taken, &on_record));
        Ok(self.0.routes.read(decide))
    }
}

impl Parts {
    /// Asks what is left to ask about some events, and writes what becomes of them.
    fn writing(
        &self,
        items: Vec<Item>,
        config_revision: u64,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let (clock, conditions) = (Arc::clone(&self.clock), self.conditions.clone());
        let work = self.work.clone();
        async move {
            let items = conditions.answer(items).await.context("ask conditions")?;
            work.write(Batch { items, config_revision, routed_at: clock.now() }).await
        }
    }
}

fn suspect(taken: &Unsettled<StoredEvent>) -> Option<Suspect<'_>> {
    let stored_at = taken.position.stored_at;
    taken.position.suspect.then_some(Suspect { event: &taken.record, stored_at })
}

/// Takes each event's routing from the record, or else from the routes and feeds. Pure but for the
/// note of how old the oldest event is.
fn decide(
    (routes, feeds): (&Routes, &Feeds),
    taken: Vec<Unsettled<StoredEvent>>,
    on_record: &BTreeMap<EventId, OnRecord>,
) -> (Vec<Item>, u64) {
    if let Some(oldest) = taken.iter().map(|taken| taken.record.accepted_at).min() {
        routes.set_oldest_in_hand(oldest);
    }
    let item = |taken: Unsettled<StoredEvent>| {
        let recorded = on_record.get(&taken.record.event.id).cloned();
        let routing = recorded
            .map_or_else(|| Routing::New(matches(routes, feeds, &taken.record)), Routing::OnRecord);
        let limit = routes.limit(&taken.record.event.tenant);
        Item { event: taken.record, settler: taken.settler, routing, limit }
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

fn finish(done: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    done.context("a batch panicked")?
}
