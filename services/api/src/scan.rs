//! Finding deliveries in the journal itself, as long as there is no delivery log to ask.
//!
//! ```text
//! id ─▶ its time ─▶ routed facts from then on ─▶ event and endpoint ─▶ shard ─▶ that shard's facts
//! ```
//!
//! Ids carry the time of their event, so that a look-up begins there. How far it may read is
//! bounded in messages and in time: see [`Budget`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use fanfare_domain::{
    Conclusion, DeliveryId, DeliveryRef, EndpointId, EventId, Fact, Record, TenantId, Timestamp,
    TraceId,
    fact::{DeliveryConcluded, EventRouted},
};
use fanfare_event_log::{
    EventLog, JournalBatch, JournalReader,
    journal::{From, JournalFilter},
};
use tokio::time::Instant;

use crate::error::{ApiError, Code};

/// How far the clocks of two servers may be apart: an id's time and the journal's come from two
/// streams, which can have different leaders.
const SKEW: Duration = Duration::from_secs(10);
/// How many messages one request may read.
const BATCHES_MAX: usize = 20_000;
/// How long one request may read.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How much one request may still read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    batches: usize,
    end: Instant,
}

/// A delivery, as its event's routing has it.
#[derive(Clone, Debug)]
pub(crate) struct FoundDelivery {
    /// Identifies the delivery.
    pub(crate) id: DeliveryId,
    /// What is delivered.
    pub(crate) event: EventId,
    /// Its sequence in EVENTS.
    pub(crate) event_sequence: u64,
    /// Where it is delivered.
    pub(crate) endpoint: EndpointId,
    /// 0 for the delivery that the event's acceptance caused; counts replays.
    pub(crate) generation: u32,
    /// What the event's routing says of the endpoint.
    pub(crate) routed: Routed,
    /// The sequence of the routed fact: the delivery's other facts come after it.
    pub(crate) sequence: u64,
    /// When it was routed.
    pub(crate) routed_at: Timestamp,
    /// The trace that it is in.
    pub(crate) trace: TraceId,
}

/// The endpoints of an event.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundEvent {
    /// Each endpoint that wanted it, and whether it is delivered there, or was skipped.
    pub(crate) endpoints: BTreeMap<EndpointId, Routed>,
    /// Its sequence in EVENTS.
    pub(crate) event_sequence: u64,
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

impl Budget {
    /// Begins to count.
    pub(crate) fn start() -> Self {
        Self { batches: BATCHES_MAX, end: Instant::now() + TIME_MAX }
    }

    /// Counts one message; false if none may be read any more.
    fn spend(&mut self) -> bool {
        let left = self.batches.checked_sub(1);
        self.batches = left.unwrap_or(0);
        left.is_some() && Instant::now() < self.end
    }
}

/// Finds a tenant's delivery. Another tenant's is not found.
pub(crate) async fn delivery(
    log: &EventLog,
    tenant: &TenantId,
    id: DeliveryId,
    budget: &mut Budget,
) -> Result<Option<FoundDelivery>, ApiError> {
    let mut reading = Reading::routed(log, id.time()).await?;
    while let Some(batch) = reading.next().await? {
        let mut records = batch.facts.iter();
        let place = (batch.sequence, batch.stored_at);
        if let Some(found) = records.find_map(|record| in_routing(place, record, tenant, id)) {
            return Ok(Some(found));
        }
        if !budget.spend() {
            return Err(Code::JournalTooLong.into());
        }
    }
    Ok(None)
}

/// Finds conclusions of a tenant's deliveries, the last one of each. What has not ended, or is
/// another tenant's, is not found.
pub(crate) async fn conclusions(
    log: &EventLog,
    tenant: &TenantId,
    wanted: &BTreeSet<DeliveryId>,
    budget: &mut Budget,
) -> Result<BTreeMap<DeliveryId, (DeliveryRef, Conclusion)>, ApiError> {
    let mut found = BTreeMap::new();
    let Some(first) = wanted.first() else { return Ok(found) };
    let from = From::Time(first.time().saturating_sub(SKEW));
    let mut reading = Reading::start(log, JournalFilter::Deliveries, from).await?;
    while found.len() < wanted.len()
        && let Some(batch) = reading.next().await?
    {
        for record in batch.facts {
            if let Fact::DeliveryConcluded(concluded) = record.fact
                && concluded.delivery.tenant == *tenant
                && wanted.contains(&concluded.delivery.id)
            {
                let DeliveryConcluded { delivery, conclusion, .. } = concluded;
                found.insert(delivery.id, (delivery, conclusion));
            }
        }
        if !budget.spend() {
            return Err(Code::JournalTooLong.into());
        }
    }
    Ok(found)
}

fn in_routing(
    (sequence, routed_at): (u64, Timestamp),
    record: &Record,
    tenant: &TenantId,
    id: DeliveryId,
) -> Option<FoundDelivery> {
    let routed = routed_fact(record)?;
    // The time is compared first: it spares a hash for each endpoint of every other event.
    if routed.event.time() != id.time() || routed.tenant != *tenant {
        return None;
    }
    let (event, generation) = (routed.event, routed.generation);
    let mut endpoints = endpoints(routed);
    let of =
        |(endpoint, _): &(EndpointId, Routed)| DeliveryId::of(event, *endpoint, generation) == id;
    let (endpoint, how) = endpoints.find(of)?;
    Some(FoundDelivery {
        id,
        event,
        event_sequence: routed.event_sequence,
        endpoint,
        generation,
        routed: how,
        sequence,
        routed_at,
        trace: fanfare_domain::Place::of(event, &record.trace, generation).trace,
    })
}

/// Finds the endpoints of a tenant's event, if it has been routed.
pub(crate) async fn event(
    log: &EventLog,
    tenant: &TenantId,
    id: EventId,
    budget: &mut Budget,
) -> Result<Option<FoundEvent>, ApiError> {
    let mut reading = Reading::routed(log, id.time()).await?;
    let (mut found, mut parts) = (FoundEvent::default(), BTreeSet::new());
    while let Some(batch) = reading.next().await? {
        let ours = |routed: &&EventRouted| {
            routed.event == id && routed.tenant == *tenant && routed.generation == 0
        };
        for routed in batch.facts.iter().filter_map(routed_fact).filter(ours) {
            found.add(routed);
            parts.insert(routed.part);
            if u32::try_from(parts.len()).is_ok_and(|count| count >= routed.parts) {
                return Ok(Some(found));
            }
        }
        if !budget.spend() {
            return Err(Code::JournalTooLong.into());
        }
    }
    Ok(None)
}

/// Reads up to `limit` facts of a delivery from a place on. With a place to read on at, there may
/// be more: the limit was reached, or the budget spent.
pub(crate) async fn facts(
    log: &EventLog,
    delivery: &FoundDelivery,
    from: Option<Place>,
    limit: usize,
    budget: &mut Budget,
) -> Result<Facts, ApiError> {
    let start = from.unwrap_or(Place { sequence: delivery.sequence, index: 0 });
    let filter = JournalFilter::Shard(log.shards().of(delivery.endpoint));
    let mut reading = Reading::start(log, filter, From::Sequence(start.sequence)).await?;
    let mut facts = Facts::default();
    while let Some(batch) = reading.next().await? {
        let sequence = batch.sequence;
        for (index, record) in batch.facts.into_iter().enumerate() {
            let place = Place { sequence, index };
            if place < start || record.fact.delivery().is_none_or(|own| own.id != delivery.id) {
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

/// The journal from a place to where it ended when the reading began.
struct Reading {
    reader: JournalReader,
    last: u64,
}

impl Reading {
    async fn routed(log: &EventLog, time: Timestamp) -> Result<Self, ApiError> {
        Self::start(log, JournalFilter::Routed, From::Time(time.saturating_sub(SKEW))).await
    }

    async fn start(log: &EventLog, filter: JournalFilter, from: From) -> Result<Self, ApiError> {
        let last = log.journal_last().await?;
        Ok(Self { reader: log.journal(filter, from).await?, last })
    }

    async fn next(&mut self) -> Result<Option<JournalBatch>, ApiError> {
        Ok(self.reader.next_until(self.last).await?)
    }
}

impl FoundEvent {
    fn add(&mut self, routed: &EventRouted) {
        self.event_sequence = routed.event_sequence;
        self.endpoints.extend(endpoints(routed));
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

fn routed_fact(record: &Record) -> Option<&EventRouted> {
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
        let found =
            in_routing((9, Timestamp::EPOCH), &routing, &"acme".parse().unwrap(), id).unwrap();
        assert_eq!((found.event, found.endpoint, found.sequence), (event, endpoints[1], 9));
        assert_eq!(found.trace.as_bytes(), event.as_bytes());
        assert!(
            in_routing((9, Timestamp::EPOCH), &routing, &"other".parse().unwrap(), id).is_none()
        );
        let replayed = DeliveryId::of(event, endpoints[1], 1);
        assert!(
            in_routing((9, Timestamp::EPOCH), &routing, &"acme".parse().unwrap(), replayed)
                .is_none()
        );
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
