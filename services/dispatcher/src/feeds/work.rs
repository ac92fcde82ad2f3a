//! What feeds ask of the servers, beside the shard's own work, and what comes of it.

use std::{cell::OnceCell, collections::BTreeSet, sync::Arc};

use anyhow::Result;
use fanfare_domain::{
    Condition, EndpointId, Fact, Feed, Shard, StoredEvent, TenantId,
    condition::Subject,
    fact::{ConclusionReason, DeliveryConcluded},
    history::{Choice, Standing},
};
use fanfare_event_log::{
    Column, JournalFilter, PublishError, ReadError,
    feeds::{Reach, Written},
    journal::From,
};
use tokio::task::{JoinError, JoinSet, spawn_blocking};

use crate::attempt::Desk;

/// How many feeds of a shard are read at once, and how many written.
const READS_MAX: usize = 8;
const WRITES_MAX: usize = 8;

/// The bytes of events after which no more are read at once.
const BYTES_MAX: usize = 1 << 20;

/// What came of it.
#[derive(Debug)]
pub(crate) enum Done {
    /// Events in order.
    Read(Read),
    /// Single events, each with its sequence; nothing for those that are gone.
    Singles(EndpointId, Vec<(u64, Option<StoredEvent>)>),
    /// The first event of a feed from a sequence on, by who knows best.
    First(EndpointId, u64, Option<u64>),
    /// What a person ended of a feed, by the journal.
    Ended(EndpointId, BTreeSet<u64>),
    /// The feed that was to be written, and how that ended; nothing if it was refused.
    Wrote(Box<Feed>, Option<Written>),
    /// How a removal ended; nothing if it was refused.
    Removed(EndpointId, Option<Written>),
}

/// Events in order.
#[derive(Debug)]
pub(crate) struct Read {
    /// Whose.
    pub(crate) endpoint: EndpointId,
    /// Where it began.
    pub(crate) from: u64,
    /// Those that the endpoint wants.
    pub(crate) events: Vec<StoredEvent>,
    /// Where to go on.
    pub(crate) next: u64,
    /// Up to where there is nothing more, if there is not.
    pub(crate) looked_to: Option<u64>,
}

/// What is under way.
pub(crate) struct Work {
    desk: Arc<Desk>,
    shard: Shard,
    under_way: JoinSet<Result<Done, ReadError>>,
    reads: usize,
    writes: usize,
}

impl Work {
    /// Nothing is under way.
    pub(crate) fn new(desk: Arc<Desk>, shard: Shard) -> Self {
        Self { desk, shard, under_way: JoinSet::new(), reads: 0, writes: 0 }
    }

    /// Whether more may be read at once.
    pub(crate) fn may_read(&self) -> bool {
        self.reads < READS_MAX
    }

    /// Whether more may be written at once.
    pub(crate) fn may_write(&self) -> bool {
        self.writes < WRITES_MAX
    }

    /// Reads up to `count` events of a feed from a sequence on, and none beyond `limit`.
    pub(crate) fn read(
        &mut self,
        (endpoint, tenant): (EndpointId, TenantId),
        from: u64,
        limit: u64,
        count: usize,
    ) {
        self.reads += 1;
        let desk = Arc::clone(&self.desk);
        self.under_way.spawn(async move {
            let patterns = desk.patterns(endpoint);
            let reach = Reach { tenant, patterns, from, count, bytes: BYTES_MAX };
            let mut batch = desk.log().read_feed(&reach).await?;
            // Whatever was acknowledged before these events were accepted is in the view then.
            desk.view_confirmed().await;
            let mut next = batch.next;
            let inside = batch.events.partition_point(|event| event.sequence <= limit);
            let is_cut = inside < batch.events.len();
            if let Some(beyond) = batch.events.get(inside) {
                next = beyond.sequence;
            }
            batch.events.truncate(inside);
            let looked_to = (is_cut || !batch.more).then_some(limit);
            let choose = |event: StoredEvent| (desk.choose(endpoint, &event), event);
            let events = wanted(batch.events.into_iter().map(choose).collect()).await?;
            Ok(Done::Read(Read { endpoint, from, events, next, looked_to }))
        });
    }

    /// Reads single events.
    pub(crate) fn read_singles(&mut self, endpoint: EndpointId, sequences: Vec<u64>) {
        self.reads += 1;
        let log = self.desk.log().clone();
        self.under_way.spawn(async move {
            let mut events = Vec::with_capacity(sequences.len());
            for sequence in sequences {
                events.push((sequence, log.event(sequence).await?));
            }
            Ok(Done::Singles(endpoint, events))
        });
    }

    /// Asks for the first event of a feed from a sequence on.
    pub(crate) fn find_first(&mut self, (endpoint, tenant): (EndpointId, TenantId), from: u64) {
        self.reads += 1;
        let desk = Arc::clone(&self.desk);
        self.under_way.spawn(async move {
            let patterns = desk.patterns(endpoint);
            let first = desk.log().first_event(&tenant, &patterns, from).await?;
            Ok(Done::First(endpoint, from, first))
        });
    }

    /// Asks the journal for the events of a feed whose deliveries a person ended.
    pub(crate) fn find_ends(&mut self, endpoint: EndpointId, since: u64) {
        self.reads += 1;
        let (log, shard) = (self.desk.log().clone(), self.shard);
        self.under_way.spawn(async move {
            let filter = JournalFilter::Column(shard, Column::Attempts);
            let last = log.journal_last().await?;
            let mut reader = log.journal(filter, From::Sequence(since)).await?.brief();
            let mut ends = BTreeSet::new();
            while let Some(batch) = reader.next_until(last).await? {
                ends.extend(batch.facts.iter().filter_map(|it| ended_by_hand(endpoint, &it.fact)));
            }
            Ok(Done::Ended(endpoint, ends))
        });
    }

    /// Stores a feed over a revision.
    pub(crate) fn write(&mut self, feed: Feed, revision: u64) {
        self.writes += 1;
        let (log, shard) = (self.desk.log().clone(), self.shard);
        self.under_way.spawn(async move {
            let written = log.write_feed(shard, &feed, revision).await;
            Ok(Done::Wrote(Box::new(feed), tell(written)))
        });
    }

    /// Finds out where a feed ends whose closing is stored, and stores that.
    pub(crate) fn end(&mut self, feed: Feed, revision: u64) {
        self.writes += 1;
        let (desk, shard) = (Arc::clone(&self.desk), self.shard);
        self.under_way.spawn(async move {
            let until = desk.log().events_last().await?.max(feed.from.saturating_sub(1));
            let phase = fanfare_domain::feed::Phase::Closed { until, at: desk.now() };
            let feed = Feed { phase, ..feed };
            let written = desk.log().write_feed(shard, &feed, revision).await;
            Ok(Done::Wrote(Box::new(feed), tell(written)))
        });
    }

    /// Removes a feed over a revision.
    pub(crate) fn remove(&mut self, endpoint: EndpointId, revision: u64) {
        self.writes += 1;
        let (log, shard) = (self.desk.log().clone(), self.shard);
        self.under_way.spawn(async move {
            let written = log.remove_feed(shard, endpoint, revision).await;
            Ok(Done::Removed(endpoint, tell(written)))
        });
    }

    /// Waits until something is done; for ever if nothing is under way. Cancel safe.
    pub(crate) async fn done(&mut self) -> Result<Done, ReadError> {
        let done = match self.under_way.join_next().await {
            None => return std::future::pending().await,
            Some(Ok(done)) => done?,
            Some(Err(error)) => return closed(error),
        };
        match &done {
            Done::Read(_) | Done::Singles(..) | Done::First(..) | Done::Ended(..) => {
                self.reads -= 1;
            }
            Done::Wrote(..) | Done::Removed(..) => self.writes -= 1,
        }
        Ok(done)
    }
}

/// The sequence of the event whose delivery to an endpoint was ended by hand, by a fact.
fn ended_by_hand(endpoint: EndpointId, fact: &Fact) -> Option<u64> {
    let Fact::DeliveryConcluded(DeliveryConcluded { delivery, reason, .. }) = fact else {
        return None;
    };
    let is_its = delivery.endpoint == endpoint && delivery.generation == 0;
    (is_its && *reason == ConclusionReason::ByHand).then_some(delivery.event_sequence)
}

/// Returns the events that are wanted. Where their content decides, that takes time, and is done
/// beside the runtime. Fan-out has told of conditions that give no answer.
async fn wanted(events: Vec<(Choice, StoredEvent)>) -> Result<Vec<StoredEvent>, ReadError> {
    let is_decided = |(choice, _): &(Choice, StoredEvent)| choice.decided().is_some();
    let decide = |(choice, event): (Choice, StoredEvent)| {
        let subject = OnceCell::new();
        let holds = |condition: &Condition| {
            condition.judge(subject.get_or_init(|| Subject::of(&event.event))) == Ok(true)
        };
        (choice.decide(holds) == Standing::Served).then_some(event)
    };
    if events.iter().all(is_decided) {
        return Ok(events.into_iter().filter_map(decide).collect());
    }
    let deciding = spawn_blocking(move || events.into_iter().filter_map(decide).collect());
    deciding.await.or_else(closed)
}

/// Passes a panic on. Only a shutdown of the runtime cancels what is under way, and then nobody
/// waits any more.
fn closed<T>(error: JoinError) -> Result<T, ReadError> {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(ReadError::Closed),
    }
}

/// A refusal is told, and tried again later.
fn tell(written: Result<Written, PublishError>) -> Option<Written> {
    written.inspect_err(|error| tracing::warn!(%error, "a feed could not be stored")).ok()
}
