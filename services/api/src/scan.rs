//! Reading the journal for one request: bounded in messages and in time, see [`Budget`].
//!
//! How a delivery stands is asked of [`crate::lookup`], which reads here what the delivery log cannot
//! say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use fanfare_delivery_log::{Changes, Place as Folded};
use fanfare_domain::{
    DeliveryId, EndpointId, EventId, Fact, Record, TenantId, Timestamp,
    fact::{Edition, EventRouted},
};
use fanfare_event_log::{
    EventLog, JournalBatch, JournalReader,
    journal::{From, JournalFilter},
};
use tokio::time::Instant;

use crate::error::{ApiError, Code};

/// How far the clocks of two servers may be apart: an id's time and the journal's come from two
/// streams, which can have different leaders.
pub(crate) const SKEW: Duration = Duration::from_secs(10);
/// How many messages one request may read.
pub(crate) const BATCHES_MAX: usize = 20_000;
/// How long one request may read.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How long after the fact by which a delivery stands as it does there may be one that changes
/// nothing in that: what plans an attempt and what comes of it are written by two processes.
const AFTERTHOUGHT: Duration = Duration::from_mins(1);

/// How much one request may still read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    batches: usize,
    end: Instant,
}

/// A part of the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Where it begins.
    pub(crate) from: From,
    /// The last sequence of it.
    pub(crate) last: u64,
}

/// The routing that made a delivery.
#[derive(Debug)]
pub(crate) struct Routing {
    /// Where it is on record: the delivery's other facts come after it.
    pub(crate) place: Place,
    /// When it was stored.
    pub(crate) stored_at: Timestamp,
    /// Where it is delivered.
    pub(crate) endpoint: EndpointId,
    /// The fact.
    pub(crate) record: Record,
}

/// The endpoints of an event.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundEvent {
    /// Each endpoint that wanted it, and whether it is delivered there, or was skipped.
    pub(crate) endpoints: BTreeMap<EndpointId, Routed>,
    /// Its sequence in EVENTS.
    pub(crate) event_sequence: u64,
}

/// How much of an event's routing was seen, which may be in several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seen {
    /// Nothing.
    Nothing,
    /// Some of it, and not its end: it is under way.
    Beginning,
    /// Its end: what is missing came before.
    End,
    /// All of it.
    All,
}

/// What an event's routing says of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// It is delivered.
    Target,
    /// The endpoint was paused, and skips what comes meanwhile.
    Skipped,
    /// The endpoint was paused, and gets it when it is resumed.
    Held,
}

/// The place of a fact: a message of the journal, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The message's sequence.
    pub(crate) sequence: u64,
    /// The fact's index in the message.
    pub(crate) index: usize,
}

/// Some of a delivery's facts.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The facts, in order.
    pub(crate) found: Vec<(Place, Record)>,
    /// Where to read on; `None` if all were read.
    pub(crate) next: Option<Place>,
}

/// What is known of a delivery whose facts are listed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing {
    /// The delivery.
    pub(crate) delivery: DeliveryId,
    /// The first fact that is wanted; all if there is none.
    pub(crate) start: Option<Place>,
    /// The sequence of the fact by which it stands as it does, and when that was recorded.
    pub(crate) stands_by: (u64, Timestamp),
    /// How many facts are wanted at most.
    pub(crate) limit: usize,
}

impl Budget {
    /// Begins to count.
    pub(crate) fn start(batches: usize) -> Self {
        Self { batches, end: Instant::now() + TIME_MAX }
    }

    /// Counts one message; false if none may be read any more.
    fn spend(&mut self) -> bool {
        let left = self.batches.checked_sub(1);
        self.batches = left.unwrap_or(0);
        left.is_some() && Instant::now() < self.end
    }

    fn spend_or_fail(&mut self) -> Result<(), ApiError> {
        if self.spend() { Ok(()) } else { Err(Code::JournalTooLong.into()) }
    }
}

/// Finds the routing of a tenant's delivery. Another tenant's is not found.
pub(crate) async fn routing(
    log: &EventLog,
    (tenant, id): (&TenantId, DeliveryId),
    span: Span,
    budget: &mut Budget,
) -> Result<Option<Routing>, ApiError> {
    let mut reading = Reading::start(log, JournalFilter::Routed, span).await?;
    while let Some(JournalBatch { sequence, stored_at, column: _, facts }) = reading.next().await? {
        for (index, record) in facts.into_iter().enumerate() {
            if let Some(endpoint) = in_routing(&record, tenant, id) {
                let place = Place { sequence, index };
                return Ok(Some(Routing { place, stored_at, endpoint, record }));
            }
        }
        budget.spend_or_fail()?;
    }
    Ok(None)
}

/// Finds what `wanted` takes from a routing, whosever it is.
pub(crate) async fn anybodys<T>(
    log: &EventLog,
    wanted: impl Fn(&EventRouted) -> Option<T> + Send,
    span: Span,
    budget: &mut Budget,
) -> Result<Option<T>, ApiError> {
    let mut reading = Reading::start(log, JournalFilter::Routed, span).await?;
    while let Some(batch) = reading.next().await? {
        if let Some(found) = batch.facts.iter().filter_map(routed_fact).find_map(&wanted) {
            return Ok(Some(found));
        }
        budget.spend_or_fail()?;
    }
    Ok(None)
}

/// Folds the facts about a delivery, up to its end.
pub(crate) async fn fold(
    log: &EventLog,
    (endpoint, id): (EndpointId, DeliveryId),
    span: Span,
    (changes, budget): (&mut Changes, &mut Budget),
) -> Result<(), ApiError> {
    let filter = JournalFilter::Shard(log.shards().of(endpoint));
    let mut reading = Reading::start(log, filter, span).await?;
    while let Some(batch) = reading.next().await? {
        for (index, record) in batch.facts.iter().enumerate() {
            if record.fact.delivery().is_some_and(|own| own.id == id) {
                changes.record(Folded::of(batch.sequence, index), record);
                if matches!(record.fact, Fact::DeliveryConcluded(_)) {
                    return Ok(());
                }
            }
        }
        budget.spend_or_fail()?;
    }
    Ok(())
}

/// Folds the ends of a tenant's deliveries. What has not ended, or is another tenant's, is passed
/// over.
pub(crate) async fn ends(
    log: &EventLog,
    (tenant, wanted): (&TenantId, &BTreeSet<DeliveryId>),
    span: Span,
    (changes, budget): (&mut Changes, &mut Budget),
) -> Result<(), ApiError> {
    let mut missing = wanted.clone();
    let mut reading = Reading::start(log, JournalFilter::Deliveries, span).await?;
    while !missing.is_empty()
        && let Some(batch) = reading.next().await?
    {
        for (index, record) in batch.facts.iter().enumerate() {
            if let Fact::DeliveryConcluded(concluded) = &record.fact
                && concluded.delivery.tenant == *tenant
                && wanted.contains(&concluded.delivery.id)
            {
                changes.record(Folded::of(batch.sequence, index), record);
                missing.remove(&concluded.delivery.id);
            }
        }
        budget.spend_or_fail()?;
    }
    Ok(())
}

/// Returns where a tenant's delivery goes, if the fact is the routing that made it.
fn in_routing(record: &Record, tenant: &TenantId, id: DeliveryId) -> Option<EndpointId> {
    let routed = routed_fact(record).filter(|routed| routed.tenant == *tenant)?;
    endpoint_of(routed, id)
}

/// Returns where a delivery goes, if the routing made it.
pub(crate) fn endpoint_of(routed: &EventRouted, id: DeliveryId) -> Option<EndpointId> {
    // The time is compared first: it spares a hash for each endpoint of every other event.
    if routed.event.time() != id.time() {
        return None;
    }
    let (event, generation) = (routed.event, routed.generation);
    let mut endpoints = endpoints(routed).map(|(endpoint, _)| endpoint);
    endpoints.find(|endpoint| DeliveryId::of(event, *endpoint, generation) == id)
}

/// Adds what becomes of a tenant's event at the endpoints that wanted it. Returns how much of its
/// routing was there.
pub(crate) async fn event(
    log: &EventLog,
    (tenant, id): (&TenantId, EventId),
    span: Span,
    (found, budget): (&mut FoundEvent, &mut Budget),
) -> Result<Seen, ApiError> {
    let mut reading = Reading::start(log, JournalFilter::Routed, span).await?;
    let mut parts: BTreeMap<Edition, BTreeSet<u32>> = BTreeMap::new();
    let mut seen = Seen::Nothing;
    while let Some(batch) = reading.next().await? {
        let ours = |record| {
            let routed: &EventRouted = routed_fact(record)?;
            let is_its = routed.event == id && routed.tenant == *tenant && routed.generation == 0;
            is_its.then(|| (routed, routed.edition(record.recorded_at)))
        };
        for (routed, edition) in batch.facts.iter().filter_map(ours) {
            // With no endpoints it is found all the same.
            found.event_sequence = routed.event_sequence;
            found.endpoints.extend(endpoints(routed));
            let parts = parts.entry(edition).or_default();
            parts.insert(routed.part);
            if edition.is_whole(parts.len()) {
                return Ok(Seen::All);
            }
            let is_last = routed.part.saturating_add(1) >= routed.parts;
            seen = seen.max(if is_last { Seen::End } else { Seen::Beginning });
        }
        budget.spend_or_fail()?;
    }
    Ok(seen)
}

/// Reads facts of a delivery from a place on. With a place to read on at, there may be more: the
/// limit was reached, or the budget spent.
pub(crate) async fn facts(
    log: &EventLog,
    endpoint: EndpointId,
    listing: Listing,
    (span, budget): (Span, &mut Budget),
) -> Result<Facts, ApiError> {
    let Listing { delivery, start, stands_by: (stands_by, since), limit } = listing;
    let filter = JournalFilter::Shard(log.shards().of(endpoint));
    let mut reading = Reading::start(log, filter, span).await?;
    let mut facts = Facts::default();
    while let Some(batch) = reading.next().await? {
        let sequence = batch.sequence;
        if sequence > stands_by && batch.stored_at > since.saturating_add(AFTERTHOUGHT) {
            return Ok(facts);
        }
        for (index, record) in batch.facts.into_iter().enumerate() {
            let place = Place { sequence, index };
            let is_before = start.is_some_and(|start| place < start);
            if is_before || record.fact.delivery().is_none_or(|own| own.id != delivery) {
                continue;
            }
            if facts.found.len() == limit {
                facts.next = Some(place);
                return Ok(facts);
            }
            let concluded = matches!(record.fact, Fact::DeliveryConcluded(_));
            facts.found.push((place, record));
            if concluded {
                return Ok(facts);
            }
        }
        if !budget.spend() {
            facts.next = Some(Place { sequence: sequence + 1, index: 0 });
            return Ok(facts);
        }
    }
    Ok(facts)
}

/// A part of the journal, under a filter.
struct Reading {
    reader: JournalReader,
    last: u64,
}

impl Reading {
    async fn start(log: &EventLog, filter: JournalFilter, span: Span) -> Result<Self, ApiError> {
        let Span { from, last } = span;
        Ok(Self { reader: log.journal(filter, from).await?, last })
    }

    async fn next(&mut self) -> Result<Option<JournalBatch>, ApiError> {
        Ok(self.reader.next_until(self.last).await?)
    }
}

impl FoundEvent {
    /// Adds what becomes of it at an endpoint.
    pub(crate) fn add(&mut self, endpoint: EndpointId, routed: Routed, event_sequence: u64) {
        self.event_sequence = event_sequence;
        self.endpoints.insert(endpoint, routed);
    }
}

/// The endpoints of a routing, each with what it says of it.
pub(crate) fn endpoints(routed: &EventRouted) -> impl Iterator<Item = (EndpointId, Routed)> {
    [
        (&routed.targets, Routed::Target),
        (&routed.fed, Routed::Target),
        (&routed.held, Routed::Held),
        (&routed.skipped, Routed::Skipped),
    ]
    .into_iter()
    .flat_map(|(endpoints, what)| endpoints.iter().map(move |endpoint| (*endpoint, what)))
}

/// Writes what a cursor holds: `<sequence>.<index>`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.sequence, self.index)
    }
}

/// Text that is not a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the journal")]
pub(crate) struct MalformedPlace;

impl FromStr for Place {
    type Err = MalformedPlace;

    fn from_str(text: &str) -> Result<Self, MalformedPlace> {
        let (sequence, index) = text.split_once('.').ok_or(MalformedPlace)?;
        let sequence = sequence.parse().map_err(|_| MalformedPlace)?;
        Ok(Self { sequence, index: index.parse().map_err(|_| MalformedPlace)? })
    }
}

/// The routing that a record is, if it is one.
pub(crate) fn routed_fact(record: &Record) -> Option<&EventRouted> {
    match &record.fact {
        Fact::EventRouted(routed) => Some(routed),
        Fact::ShardClaimed(_)
        | Fact::ShardReleased(_)
        | Fact::AttemptMade(_)
        | Fact::DeliveryDeferred(_)
        | Fact::DeliveryParked(_)
        | Fact::DeliveryConcluded(_)
        | Fact::RetryScheduled(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::TraceContext;

    use super::*;

    fn routed(event: EventId, targets: Vec<EndpointId>) -> Record {
        let fact = Fact::EventRouted(EventRouted {
            event,
            tenant: "acme".parse().unwrap(),
            event_sequence: 1,
            config_revision: 1,
            generation: 0,
            targets,
            skipped: Vec::new(),
            held: Vec::new(),
            fed: Vec::new(),
            part: 0,
            parts: 1,
        });
        Record { recorded_at: Timestamp::EPOCH, trace: TraceContext::default(), fact }
    }

    #[test]
    fn a_delivery_is_found_for_its_own_tenant_only() {
        let event = EventId::new(Timestamp::from_millis(5), [1; 10]);
        let endpoints: Vec<EndpointId> =
            (1..4).map(|number| EndpointId::new(Timestamp::EPOCH, [number; 10])).collect();
        let id = DeliveryId::of(event, endpoints[1], 0);
        let routing = routed(event, endpoints.clone());
        let of = |tenant: &str, id| in_routing(&routing, &tenant.parse().unwrap(), id);
        assert_eq!(of("acme", id), Some(endpoints[1]));
        assert_eq!(of("other", id), None);
        assert_eq!(of("acme", DeliveryId::of(event, endpoints[1], 1)), None);
    }

    #[test]
    fn a_place_reads_back() {
        let place = Place { sequence: 12, index: 3 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in ["", "1", "1.", ".1", "a.b", "1.2.3"] {
            assert_eq!(bad.parse::<Place>(), Err(MalformedPlace), "{bad}");
        }
    }
}
