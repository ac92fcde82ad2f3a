//! The fold: events and facts in, changes of rows out. Pure.
//!
//! A delivery's row is made by the first fact of any kind that names it. Its standing is the one
//! of the fact with the highest rank: the conclusion above all, then the number of the attempt that
//! a fact is about, then whether that attempt was made, then the place in the journal. Of two
//! routings of an event the first one counts, as in fan-out. An event may be in EVENTS twice, stored
//! again after the time in which the server knows its id: then the lowest sequence counts.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{
    Change, Conclusion, DeliveryId, DeliveryRef, EndpointId, Entity, EventId, Fact, Record,
    StoredEvent, TenantId, Timestamp,
    fact::{AttemptMade, ConclusionReason, DeliveryConcluded, EventRouted},
};

use crate::{
    audit::AuditRow,
    deletion::Deletion,
    expunging::Expunged,
    rows::{AttemptRow, DeliveryRow, EventRow, Origin, Place, Standing, State},
};

/// Above the step of every attempt.
const CONCLUDED: i64 = 1 << 40;

/// What has to change in the tables: at most one row of each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub(crate) events: BTreeMap<EventId, EventRow>,
    pub(crate) deliveries: BTreeMap<DeliveryId, DeliveryRow>,
    pub(crate) attempts: BTreeMap<(DeliveryId, u32), AttemptRow>,
    pub(crate) audit: BTreeMap<u64, AuditRow>,
    pub(crate) deleted: BTreeMap<EndpointId, Deletion>,
    pub(crate) expunged: BTreeMap<TenantId, Expunged>,
}

impl Changes {
    /// Folds an event.
    pub fn event(&mut self, stored: &StoredEvent) {
        let event = &stored.event;
        let row = EventRow {
            id: event.id,
            tenant: event.tenant.clone(),
            event_type: event.event_type.clone(),
            sequence: stored.sequence,
            accepted_at: stored.accepted_at,
            occurred_at: event.occurred_at,
            data_bytes: u64::try_from(event.data.len()).unwrap_or(u64::MAX),
            ordering_key: event.ordering_key.clone(),
            trace_id: event.trace.trace_id().map(String::from),
        };
        self.put_event(row);
    }

    /// Folds a change of the configuration.
    pub fn config(&mut self, revision: u64, stored_at: Timestamp, change: &Change) {
        self.audit.insert(revision, AuditRow::of(revision, stored_at, change));
        if let (Entity::Endpoint(endpoint), true) = (&change.entity, change.deleted) {
            let tenant = endpoint.tenant.clone();
            self.delete(endpoint.id, Deletion { revision, at: stored_at, tenant });
        }
        if let Some((tenant, expunged)) = Expunged::by(revision, change) {
            self.expunge(tenant, expunged);
        }
    }

    /// Tells whether endpoints are among it that were deleted, or tenants that were expunged.
    pub fn has_deletions(&self) -> bool {
        !self.deleted.is_empty() || !self.expunged.is_empty()
    }

    /// Folds the facts of one message of JOURNAL.
    pub fn journal(&mut self, sequence: u64, facts: &[Record]) {
        for (index, record) in facts.iter().enumerate() {
            self.record(Place::of(sequence, index), record);
        }
    }

    /// Folds one fact.
    pub fn record(&mut self, place: Place, record: &Record) {
        let at = record.recorded_at;
        match &record.fact {
            Fact::AttemptMade(made) => {
                let step = step(made.attempt) + 1;
                let next = (State::Retrying, made.retry_at);
                self.stand(&made.delivery, made.attempt, standing((step, place), next, at));
                self.put_attempt(attempt(place, made));
            }
            Fact::DeliveryDeferred(deferred) => {
                let rank = (step(deferred.attempt), place);
                let next = (before(deferred.attempt), Some(deferred.until));
                let standing = standing(rank, next, at);
                self.stand(&deferred.delivery, deferred.attempt.saturating_sub(1), standing);
            }
            Fact::DeliveryParked(parked) => {
                let rank = (step(parked.attempt), place);
                let standing = standing(rank, (State::Parked, None), at);
                self.stand(&parked.delivery, parked.attempt.saturating_sub(1), standing);
            }
            Fact::RetryScheduled(scheduled) => {
                let rank = (step(scheduled.attempt), place);
                // Also a first attempt that was put off gets a time.
                let next = (before(scheduled.attempt), Some(scheduled.due_at));
                let standing = standing(rank, next, at);
                self.stand(&scheduled.delivery, scheduled.attempt.saturating_sub(1), standing);
            }
            Fact::DeliveryConcluded(concluded) => self.conclude(concluded, place, at),
            Fact::EventRouted(routed) => self.route(routed, place, at),
            Fact::ShardClaimed(_) | Fact::ShardReleased(_) => {}
        }
    }

    /// Takes in other changes, which may be of before, of after, or the same.
    pub fn merge(&mut self, other: Self) {
        let Self { events, deliveries, attempts, audit, deleted, expunged } = other;
        self.audit.extend(audit);
        for (tenant, expunged) in expunged {
            self.expunge(tenant, expunged);
        }
        for (endpoint, deletion) in deleted {
            self.delete(endpoint, deletion);
        }
        for row in events.into_values() {
            self.put_event(row);
        }
        for row in deliveries.into_values() {
            self.put_delivery(row);
        }
        for row in attempts.into_values() {
            self.put_attempt(row);
        }
    }

    /// Returns what they say of a delivery.
    pub fn delivery(&self, id: DeliveryId) -> Option<&DeliveryRow> {
        self.deliveries.get(&id)
    }

    /// Gives deliveries what they have from events that are among the changes.
    pub fn fill(&mut self) {
        let Self { events, deliveries, .. } = self;
        for row in deliveries.values_mut() {
            if let Some(event) = events.get(&row.event) {
                row.learn(event.sequence, Some(event.origin()));
            }
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        let rows = self.events.len() + self.deliveries.len() + self.attempts.len();
        rows + self.audit.len() + self.deleted.len() + self.expunged.len()
    }

    /// Tells whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what is of events before a time, to the millisecond: it was forgotten already.
    pub(crate) fn forget(&mut self, before: Timestamp) {
        let kept = |time: Timestamp| time.as_millis() >= before.as_millis();
        self.events.retain(|id, _| kept(id.time()));
        self.deliveries.retain(|id, _| kept(id.time()));
        self.attempts.retain(|(id, _), _| kept(id.time()));
    }

    /// Drops what is of endpoints that were deleted, and of events accepted by then.
    pub(crate) fn drop_deleted(&mut self, deleted: &BTreeMap<EndpointId, Timestamp>) {
        let kept = |endpoint: EndpointId, id: DeliveryId| {
            deleted.get(&endpoint).is_none_or(|at| id.time().as_millis() > at.as_millis())
        };
        self.deliveries.retain(|id, row| kept(row.endpoint, *id));
        self.attempts.retain(|(id, _), row| kept(row.endpoint, *id));
    }

    /// Drops what is of events of tenants that were expunged. Each attempt comes with its delivery.
    pub(crate) fn drop_expunged(&mut self, expunged: &BTreeMap<TenantId, u64>) {
        if expunged.is_empty() {
            return;
        }
        let is_gone = |tenant: &TenantId, event: u64| {
            expunged.get(tenant).is_some_and(|through| event <= *through)
        };
        self.events.retain(|_, row| !is_gone(&row.tenant, row.sequence));
        self.deliveries.retain(|_, row| !is_gone(&row.tenant, row.event_sequence));
        let Self { deliveries, attempts, .. } = self;
        attempts.retain(|(delivery, _), _| deliveries.contains_key(delivery));
    }

    /// The tenants that events and deliveries are of.
    pub(crate) fn tenants(&self) -> BTreeSet<TenantId> {
        let of_events = self.events.values().map(|row| row.tenant.clone());
        of_events.chain(self.deliveries.values().map(|row| row.tenant.clone())).collect()
    }

    /// The endpoints that deliveries and attempts are of.
    pub(crate) fn endpoints(&self) -> BTreeSet<EndpointId> {
        let of_deliveries = self.deliveries.values().map(|row| row.endpoint);
        of_deliveries.chain(self.attempts.values().map(|row| row.endpoint)).collect()
    }

    fn delete(&mut self, endpoint: EndpointId, deletion: Deletion) {
        match self.deleted.get_mut(&endpoint) {
            Some(known) if known.revision >= deletion.revision => {}
            Some(known) => *known = deletion,
            None => drop(self.deleted.insert(endpoint, deletion)),
        }
    }

    fn expunge(&mut self, tenant: TenantId, expunged: Expunged) {
        let known = self.expunged.entry(tenant).or_insert(expunged);
        if known.revision < expunged.revision {
            *known = expunged;
        }
    }

    fn conclude(&mut self, concluded: &DeliveryConcluded, place: Place, at: Timestamp) {
        let state = match concluded.conclusion {
            Conclusion::Delivered => State::Delivered,
            Conclusion::Exhausted => State::Exhausted,
            Conclusion::Refused => State::Refused,
            Conclusion::Cancelled => State::Cancelled,
        };
        let reason: Option<ConclusionReason> = Some(concluded.reason);
        let standing = Standing { reason, ..standing((CONCLUDED, place), (state, None), at) };
        self.stand(&concluded.delivery, concluded.attempts, standing);
    }

    fn route(&mut self, routed: &EventRouted, place: Place, at: Timestamp) {
        let EventRouted { targets, fed, held, skipped, .. } = routed;
        for (endpoints, state) in [
            (targets, State::Pending),
            (fed, State::Pending),
            (held, State::Parked),
            (skipped, State::Skipped),
        ] {
            for endpoint in endpoints {
                let rank = (0, place.reversed());
                let standing = standing(rank, (state, None), at);
                self.put_delivery(of_routing(routed, *endpoint, standing));
            }
        }
    }

    fn stand(&mut self, delivery: &DeliveryRef, attempts: u32, standing: Standing) {
        let DeliveryRef { id, tenant, event, event_sequence, event_type, endpoint, .. } = delivery;
        let origin = Origin { event_type: event_type.clone(), accepted_at: delivery.accepted_at };
        self.put_delivery(DeliveryRow {
            id: *id,
            tenant: tenant.clone(),
            event: *event,
            event_sequence: *event_sequence,
            endpoint: *endpoint,
            generation: delivery.generation,
            origin: Some(origin),
            attempts,
            standing,
        });
    }

    fn put_event(&mut self, row: EventRow) {
        match self.events.get_mut(&row.id) {
            Some(known) => known.merge(row),
            None => drop(self.events.insert(row.id, row)),
        }
    }

    fn put_delivery(&mut self, row: DeliveryRow) {
        match self.deliveries.get_mut(&row.id) {
            Some(known) => known.merge(row),
            None => drop(self.deliveries.insert(row.id, row)),
        }
    }

    fn put_attempt(&mut self, row: AttemptRow) {
        match self.attempts.get_mut(&(row.delivery, row.number)) {
            Some(known) => known.merge(row),
            None => drop(self.attempts.insert((row.delivery, row.number), row)),
        }
    }
}

/// How a delivery stands that waits for an attempt.
const fn before(attempt: u32) -> State {
    if attempt > 1 { State::Retrying } else { State::Pending }
}

/// The step of what comes before an attempt; that of the attempt itself is one more.
fn step(attempt: u32) -> i64 {
    i64::from(attempt) * 2
}

fn standing(
    (step, place): (i64, Place),
    (state, next_attempt_at): (State, Option<Timestamp>),
    since: Timestamp,
) -> Standing {
    Standing { step, place, state, reason: None, next_attempt_at, since }
}

fn of_routing(routed: &EventRouted, endpoint: EndpointId, standing: Standing) -> DeliveryRow {
    DeliveryRow {
        id: DeliveryId::of(routed.event, endpoint, routed.generation),
        tenant: routed.tenant.clone(),
        event: routed.event,
        event_sequence: routed.event_sequence,
        endpoint,
        generation: routed.generation,
        origin: None,
        attempts: 0,
        standing,
    }
}

/// Returns the row of an attempt whose fact is there.
pub(crate) fn attempt(place: Place, made: &AttemptMade) -> AttemptRow {
    AttemptRow {
        delivery: made.delivery.id,
        number: made.attempt,
        endpoint: made.delivery.endpoint,
        place,
        started_at: made.started_at,
        duration_nanos: u64::try_from(made.duration.as_nanos()).unwrap_or(u64::MAX),
        timing: made.timing,
        outcome: made.outcome.clone(),
        detail: made.detail.clone(),
        config_revision: made.config_revision,
        url: String::from(&*made.url),
        signature: made.signature.clone(),
        response_headers: made.response_headers.clone(),
        response_body: made.response_body.clone(),
        response_truncated: made.response_truncated,
        retry_at: made.retry_at,
        batch: made.batch,
        trace_sampled: made.trace_sampled,
    }
}
