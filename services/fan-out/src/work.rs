//! Writes what was decided: routed facts, then tasks, and only then lets the events go.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{
    EndpointId, EventId, Record, Shard, ShardCount, StoredEvent, TenantId, Timestamp,
    fact::EventRouted,
};
use fanfare_event_log::{EventLog, PublishError, Settler, Stored};
use fanfare_service::Histogram;
use futures_util::{
    FutureExt as _,
    stream::{FuturesOrdered, FuturesUnordered, StreamExt as _},
};
use tracing::{debug, trace};

use crate::{
    allowances::{Allowances, Reserved, Times},
    counters::Counters,
    outlet::{Outlet, Written},
    recorded::OnRecord,
    routes::{Limit, Matches},
    routing,
    spans::{Routed, Spans},
    together::{Message, Together},
};

/// Writes batches. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Work {
    log: EventLog,
    outlet: Outlet,
    allowances: Arc<Allowances>,
    shards: ShardCount,
    tasks_max: usize,
    counters: Arc<Counters>,
    /// How many endpoints events have.
    width: Histogram,
    spans: Spans,
}

/// Events whose endpoints are decided.
pub(crate) struct Batch {
    /// The events, in the order of EVENTS.
    pub(crate) items: Vec<Item>,
    /// The revision of CONFIG that they were matched against.
    pub(crate) config_revision: u64,
    /// When that was.
    pub(crate) routed_at: Timestamp,
}

/// One event of a batch.
pub(crate) struct Item {
    /// The event.
    pub(crate) event: StoredEvent,
    /// Lets the event go.
    pub(crate) settler: Settler,
    /// Whom it is for.
    pub(crate) routing: Routing,
    /// If somebody else may have routed it: up to where JOURNAL says nothing of that.
    pub(crate) suspect: Option<u64>,
    /// The rate limit of its tenant.
    pub(crate) limit: Option<Limit>,
}

/// Whom an event is for.
pub(crate) enum Routing {
    /// As decided just now; to be put on record.
    New(Matches),
    /// As decided earlier; some of its tasks may be stored.
    OnRecord(OnRecord),
}

/// An event whose routing is on record.
struct Recorded {
    event: StoredEvent,
    settler: Settler,
    targets: Vec<EndpointId>,
    /// How many endpoints get it from their feed.
    fed: usize,
    limit: Option<Limit>,
    /// The times that the limit keeps for the targets.
    times: Option<Arc<[Timestamp]>>,
    journal_sequence: u64,
    routed_at: Timestamp,
}

/// Why a batch is let go of before its end.
struct GivenUp;

impl Work {
    /// Writes through an outlet, up to `tasks_max` tasks at once.
    pub(crate) fn new(
        log: EventLog,
        outlet: Outlet,
        allowances: Allowances,
        tasks_max: usize,
        (counters, width, spans): (Arc<Counters>, Histogram, Spans),
    ) -> Self {
        let (shards, allowances) = (log.shards(), Arc::new(allowances));
        Self { log, outlet, allowances, shards, tasks_max, counters, width, spans }
    }

    /// Writes a batch and settles its events. Returns early if the service stops while a stream is
    /// full; what is not settled then is handed out again.
    pub(crate) async fn write(self, batch: Batch) -> anyhow::Result<()> {
        let fed = self.fed(&batch);
        let recorded = match self.record(batch).await.context("record routings")? {
            Ok(recorded) => recorded,
            Err(GivenUp) => return Ok(()),
        };
        for (shard, fed) in fed {
            self.log.hint_feeds(shard, &fed).await;
        }
        let limited = |event: &Recorded| {
            event.limit.is_some() && !(event.targets.is_empty() && event.fed == 0)
        };
        let (limited, free): (Vec<_>, Vec<_>) = recorded.into_iter().partition(limited);
        // Those without a limit wait for nobody's.
        self.write_tasks(free).await.context("write tasks")?;
        self.write_limited(limited).await.context("write tasks of limited tenants")
    }

    /// Writes the tasks of events whose tenants have limits; hands the events back for a while if
    /// what the limits allow cannot be reserved now.
    async fn write_limited(&self, mut recorded: Vec<Recorded>) -> Result<(), PublishError> {
        if recorded.is_empty() {
            return Ok(());
        }
        for event in &mut recorded {
            let lately = event.limit.and_then(|limit| self.allowances.lately(event.id(), limit));
            event.times = lately.filter(|times| times.len() == event.targets.len());
        }
        match self.allowances.reserve(wanted(&recorded)).await? {
            Reserved::Times(times) => {
                self.give(&mut recorded, times);
                self.write_tasks(recorded).await
            }
            Reserved::Not { again } => {
                self.counters.count_handed_back(recorded.len());
                debug!(events = recorded.len(), "the limits of tenants are out of reach");
                hand_back(recorded.into_iter().map(|event| event.settler), again).await;
                Ok(())
            }
        }
    }

    /// Which endpoints have an event of the batch left to their feed, and the last one.
    fn fed(&self, batch: &Batch) -> BTreeMap<Shard, Vec<(EndpointId, u64)>> {
        let mut last = BTreeMap::new();
        for item in &batch.items {
            let Routing::New(matches) = &item.routing else { continue };
            // In the order of EVENTS.
            last.extend(matches.fed.iter().map(|endpoint| (*endpoint, item.event.sequence)));
        }
        let mut by_shard: BTreeMap<Shard, Vec<(EndpointId, u64)>> = BTreeMap::new();
        for (endpoint, sequence) in last {
            by_shard.entry(self.shards.of(endpoint)).or_default().push((endpoint, sequence));
        }
        by_shard
    }

    /// Puts every new routing on record. Where a routing of the same events is on record already,
    /// that one counts.
    async fn record(&self, batch: Batch) -> anyhow::Result<Result<Vec<Recorded>, GivenUp>> {
        let facts = |item: &Item| match &item.routing {
            Routing::New(matches) => {
                routing::facts(&item.event, matches, batch.config_revision, batch.routed_at)
            }
            Routing::OnRecord(_) => Vec::new(),
        };
        let messages = routing::messages(batch.items.iter().flat_map(facts).collect());
        debug!(messages = messages.len(), "recording routings");
        let mut writes = FuturesOrdered::new();
        for facts in messages {
            writes.push_back(self.clone().write_facts(facts));
        }
        let mut on_record = BTreeMap::new();
        while let Some(written) = writes.next().await {
            let Some((facts, sequence)) = written? else {
                let settlers = batch.items.into_iter().map(|item| item.settler);
                hand_back(settlers, Duration::ZERO).await;
                return Ok(Err(GivenUp));
            };
            for routed in facts.iter().filter_map(routing::routed) {
                note(&mut on_record, routed, sequence);
            }
        }
        for item in &batch.items {
            match &item.routing {
                Routing::New(matches) => self.counters.count_routed(matches, &self.width),
                Routing::OnRecord(_) => self.counters.count_repeated(),
            }
        }
        let routed_at = batch.routed_at;
        let recorded = |item: Item| Recorded::of(item, &on_record, routed_at);
        let recorded: Option<Vec<_>> = batch.items.into_iter().map(recorded).collect();
        recorded.context("a routing that was recorded is not on record").map(Ok)
    }

    /// Gives events the times that their tenants' limits keep for them.
    fn give(&self, recorded: &mut [Recorded], mut times: Times) {
        for event in recorded.iter_mut().filter(|event| event.times.is_none()) {
            let kept = times.get_mut(&event.event.event.tenant);
            let (Some(limit), Some(kept)) = (event.limit, kept) else { continue };
            let given: Arc<[_]> = kept.take(event.targets.len()).collect();
            self.allowances.keep(event.id(), limit, Arc::clone(&given));
            event.times = Some(given);
        }
    }

    async fn write_tasks(&self, recorded: Vec<Recorded>) -> Result<(), PublishError> {
        let mut open: BTreeMap<usize, Open> = BTreeMap::new();
        let mut writes = FuturesUnordered::new();
        let mut together = Together::default();
        for (index, event) in recorded.into_iter().enumerate() {
            let targets = event.timed();
            let tasks = routing::tasks(&event.event, targets, event.journal_sequence, self.shards);
            let about = (routing::GENERATION, event.routed_at);
            let span = self.spans.routed(&event.event, (&event.targets, event.fed), about);
            trace!(event_id = %event.event.event.id, tasks = tasks.len(), "writing tasks");
            if tasks.len() == 0 {
                event.settler.settle().await;
                self.spans.written(span);
                continue;
            }
            open.insert(index, Open { tasks: tasks.len(), settler: event.settler, span });
            for (shard, task) in tasks {
                let Some(message) = together.add(shard, index, task) else { continue };
                if writes.len() >= self.tasks_max
                    && let Some(done) = writes.next().await
                {
                    self.settle(&mut open, done).await?;
                }
                writes.push(self.clone().write_message(message));
                // What is written is polled, so that it is on its way while the rest is made.
                while let Some(Some(done)) = writes.next().now_or_never() {
                    self.settle(&mut open, done).await?;
                }
            }
        }
        for message in together.rest() {
            if writes.len() >= self.tasks_max
                && let Some(done) = writes.next().await
            {
                self.settle(&mut open, done).await?;
            }
            writes.push(self.clone().write_message(message));
        }
        while let Some(done) = writes.next().await {
            self.settle(&mut open, done).await?;
        }
        let given_up = open.into_values().map(|event| event.settler);
        hand_back(given_up, Duration::ZERO).await;
        Ok(())
    }

    /// Writes one message of facts; returns what is on record, and its sequence.
    async fn write_facts(self, facts: Vec<Record>) -> anyhow::Result<Option<(Vec<Record>, u64)>> {
        match self.outlet.routed(&facts).await? {
            Written::GivenUp => Ok(None),
            Written::Stored(Stored { sequence, duplicate: false }) => Ok(Some((facts, sequence))),
            Written::Stored(Stored { sequence, duplicate: true }) => {
                let first = self.log.journal_batch(sequence).await?;
                Ok(Some((first.map_or(facts, |batch| batch.facts), sequence)))
            }
        }
    }

    /// Notes that tasks are stored, and settles the events whose last ones they were. What was given
    /// up keeps its events open.
    async fn settle(
        &self,
        open: &mut BTreeMap<usize, Open>,
        done: Done,
    ) -> Result<(), PublishError> {
        let (events, written) = done;
        match written? {
            Written::Stored(_) => {}
            Written::GivenUp => return Ok(()),
        }
        for index in events {
            let Some(event) = open.get_mut(&index) else { continue };
            event.tasks -= 1;
            if event.tasks == 0
                && let Some(event) = open.remove(&index)
            {
                event.settler.settle().await;
                self.spans.written(event.span);
            }
        }
        Ok(())
    }

    async fn write_message(self, message: Message) -> Done {
        let Message { shard, tasks, events } = message;
        (events, self.outlet.tasks(shard, &tasks).await)
    }
}

/// What came of writing one message: the indices of the events that its tasks are of, one for each
/// task.
type Done = (Vec<usize>, Result<Written, PublishError>);

/// An event some of whose tasks are not stored yet.
struct Open {
    tasks: usize,
    settler: Settler,
    span: Option<Box<Routed>>,
}

/// How much of each tenant's limit events need. What a feed sends counts too, though nothing keeps
/// it to its time: it goes when its endpoint takes it.
fn wanted(recorded: &[Recorded]) -> BTreeMap<TenantId, (Limit, usize)> {
    let mut wanted = BTreeMap::new();
    for event in recorded {
        if let (Some(limit), None) = (event.limit, &event.times) {
            let tenant = event.event.event.tenant.clone();
            wanted.entry(tenant).or_insert((limit, 0)).1 += event.targets.len() + event.fed;
        }
    }
    wanted
}

/// Asks for events to be handed out again, after a while.
async fn hand_back(settlers: impl Iterator<Item = Settler>, after: Duration) {
    for settler in settlers {
        settler.redeliver(after).await;
    }
}

/// Adds one part of an event's routing to the parts before it.
fn note(on_record: &mut BTreeMap<EventId, OnRecord>, routed: &EventRouted, sequence: u64) {
    let found =
        on_record.entry(routed.event).or_insert_with(|| OnRecord { targets: Vec::new(), sequence });
    found.sequence = found.sequence.min(sequence);
    found.targets.extend(&routed.targets);
}

impl Recorded {
    fn id(&self) -> EventId {
        self.event.event.id
    }

    /// The targets, with their times.
    fn timed(&self) -> Vec<(EndpointId, Option<Timestamp>)> {
        let mut times = self.times.iter().flat_map(|times| times.iter().copied());
        self.targets.iter().map(|endpoint| (*endpoint, times.next())).collect()
    }

    fn of(
        item: Item,
        on_record: &BTreeMap<EventId, OnRecord>,
        routed_at: Timestamp,
    ) -> Option<Self> {
        let fed = match &item.routing {
            Routing::New(matches) => matches.fed.len(),
            Routing::OnRecord(_) => 0,
        };
        let OnRecord { mut targets, sequence } = match item.routing {
            // An event can be in a batch twice, if it was handed out again meanwhile.
            Routing::New(_) => on_record.get(&item.event.event.id)?.clone(),
            Routing::OnRecord(found) => found,
        };
        targets.sort_unstable();
        targets.dedup();
        let Item { event, settler, limit, .. } = item;
        let (times, journal_sequence) = (None, sequence);
        Some(Self { event, settler, targets, fed, limit, times, journal_sequence, routed_at })
    }
}
