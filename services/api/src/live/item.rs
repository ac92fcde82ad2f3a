//! What is told of deliveries as it happens: the journal's facts, without what is long in them.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fanfare_domain::{
    DeliveryId, DeliveryRef, EndpointId, EventId, EventType, Fact, Record, TenantId, Timestamp,
    TypePattern, fact::EventRouted,
};
use fanfare_event_log::JournalBatch;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    routes::deliveries::{state::DeliveryState, view::OutcomeName},
    scan::{Place, Routed, endpoints},
};

/// About how many bytes an item has beside itself: the type of its event.
const TEXT_BYTES: usize = 32;

/// What one message of the journal says that is of use to anybody who watches.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its sequence in JOURNAL.
    pub(super) sequence: u64,
    /// What it says, in order.
    pub(super) items: Vec<Item>,
    _weight: Weight,
}

/// How many bytes something takes, which are counted together with others' until it is dropped.
#[derive(Debug, Default)]
struct Weight {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// One thing that happened to a delivery.
#[derive(Debug)]
pub(super) struct Item {
    /// Its number among all that the message of the journal says, whoever it is told to.
    pub(super) index: usize,
    /// Whose delivery it is.
    pub(super) tenant: TenantId,
    /// The event's sequence in EVENTS.
    pub(super) event_sequence: u64,
    /// Where it is delivered.
    pub(super) endpoint: EndpointId,
    delivery: Option<DeliveryId>,
    event: EventId,
    event_type: Option<EventType>,
    generation: u32,
    at: Timestamp,
    what: What,
}

/// What happened.
#[derive(Debug)]
struct What {
    fact: FactName,
    /// How the delivery stands then; not known of an attempt that ends it: its conclusion follows.
    state: Option<DeliveryState>,
    attempt: Option<u32>,
    outcome: Option<OutcomeName>,
    status: Option<u16>,
    fault: Option<&'static str>,
    duration_ms: Option<u64>,
    next_attempt_at: Option<Timestamp>,
    reason: Option<&'static str>,
}

/// What is wanted of a tenant's.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// To this endpoint.
    pub(crate) endpoint: Option<EndpointId>,
    /// After which the delivery stands like one of these; any if there are none.
    pub(crate) states: Vec<DeliveryState>,
    /// Of this type.
    pub(crate) event_type: Option<EventType>,
    /// Of types that this chooses.
    pub(crate) pattern: Option<TypePattern>,
}

/// One thing that happened to a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LiveDelivery)]
pub(crate) struct LiveView {
    /// What happened.
    fact: FactName,
    /// When it was recorded.
    #[schema(format = DateTime)]
    at: String,
    /// The delivery; `null` if there is none, because its endpoint skips what comes.
    #[schema(required, example = "dlv_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    delivery_id: Option<String>,
    /// What is delivered.
    event_id: String,
    /// Where it is delivered.
    endpoint_id: String,
    /// The event's type; `null` with `event_routed`, which does not say it.
    #[schema(required, example = "invoice.paid")]
    event_type: Option<String>,
    /// 0 for the delivery that the event's acceptance caused; counts replays.
    generation: u32,
    /// How the delivery stands then; `null` after an attempt that was the last one, whose conclusion
    /// follows.
    #[schema(required)]
    state: Option<DeliveryState>,
    /// The number of the attempt that it is about; with `delivery_concluded`, how many were made.
    #[schema(required)]
    attempt: Option<u32>,
    /// What came of the attempt.
    #[schema(required)]
    outcome: Option<OutcomeName>,
    /// The status that the endpoint answered with.
    #[schema(required)]
    status: Option<u16>,
    /// Why no answer came.
    #[schema(required, example = "timed_out")]
    fault: Option<&'static str>,
    /// How long the attempt took, in milliseconds.
    #[schema(required)]
    duration_ms: Option<u64>,
    /// When the next attempt is due, if there is one to come.
    #[schema(required, format = DateTime)]
    next_attempt_at: Option<String>,
    /// Why it was put off, or ended.
    #[schema(required, example = "attempts_spent")]
    reason: Option<&'static str>,
}

/// What can happen to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LiveFact)]
pub(crate) enum FactName {
    /// Its event was matched with its endpoint.
    EventRouted,
    /// One HTTP request was made, or could not be.
    AttemptMade,
    /// It was put off without an attempt.
    DeliveryDeferred,
    /// It waits for its endpoint to be resumed.
    DeliveryParked,
    /// A later attempt was given its time.
    RetryScheduled,
    /// It ended.
    DeliveryConcluded,
}

impl Batch {
    /// Takes what some tenants are told out of a message of the journal.
    pub(super) fn of(batch: &JournalBatch, is_wanted: impl Fn(&TenantId) -> bool) -> Self {
        let (mut items, mut index) = (Vec::new(), 0);
        for record in &batch.facts {
            if let Fact::EventRouted(routed) = &record.fact {
                for (endpoint, how) in endpoints(routed) {
                    if is_wanted(&routed.tenant) {
                        items.push(Item::routed(
                            index,
                            record.recorded_at,
                            routed,
                            (endpoint, how),
                        ));
                    }
                    index += 1;
                }
            } else if let Some(delivery) = record.fact.delivery() {
                if is_wanted(&delivery.tenant) {
                    items.extend(Item::of(index, record, delivery));
                }
                index += 1;
            }
        }
        Self { sequence: batch.sequence, items, _weight: Weight::default() }
    }

    /// Counts what it takes, for as long as somebody holds it.
    pub(super) fn weighed(self, all: &Arc<AtomicUsize>) -> Self {
        let bytes = self.items.len().saturating_mul(size_of::<Item>() + TEXT_BYTES);
        all.fetch_add(bytes, Ordering::AcqRel);
        Self { _weight: Weight { bytes, all: Arc::clone(all) }, ..self }
    }
}

impl Item {
    fn routed(
        index: usize,
        at: Timestamp,
        routed: &EventRouted,
        (endpoint, how): (EndpointId, Routed),
    ) -> Self {
        let id = DeliveryId::of(routed.event, endpoint, routed.generation);
        let (state, delivery) = match how {
            Routed::Target => (DeliveryState::Pending, Some(id)),
            Routed::Held => (DeliveryState::Parked, Some(id)),
            Routed::Skipped => (DeliveryState::Skipped, None),
        };
        Self {
            index,
            tenant: routed.tenant.clone(),
            event_sequence: routed.event_sequence,
            endpoint,
            delivery,
            event: routed.event,
            event_type: None,
            generation: routed.generation,
            at,
            what: What::plain(FactName::EventRouted, Some(state)),
        }
    }

    fn of(index: usize, record: &Record, delivery: &DeliveryRef) -> Option<Self> {
        Some(Self {
            index,
            tenant: delivery.tenant.clone(),
            event_sequence: delivery.event_sequence,
            endpoint: delivery.endpoint,
            delivery: Some(delivery.id),
            event: delivery.event,
            event_type: Some(delivery.event_type.clone()),
            generation: delivery.generation,
            at: record.recorded_at,
            what: What::of(&record.fact)?,
        })
    }

    /// Writes it as a message of the stream, in its place.
    pub(super) fn write(&self, place: Place, out: &mut String) {
        let json = serde_json::to_string(&LiveView::of(self));
        let json = json.expect("texts and numbers are what JSON has");
        let _never_fails = write!(out, "id: {place}\ndata: {json}\n\n");
    }
}

impl What {
    const fn plain(fact: FactName, state: Option<DeliveryState>) -> Self {
        Self {
            fact,
            state,
            attempt: None,
            outcome: None,
            status: None,
            fault: None,
            duration_ms: None,
            next_attempt_at: None,
            reason: None,
        }
    }

    fn of(fact: &Fact) -> Option<Self> {
        Some(match fact {
            Fact::AttemptMade(made) => {
                let (outcome, fault) = OutcomeName::of(&made.outcome);
                let state = made.retry_at.map(|_| DeliveryState::Retrying);
                Self {
                    attempt: Some(made.attempt),
                    outcome: Some(outcome),
                    status: made.outcome.status(),
                    fault,
                    duration_ms: u64::try_from(made.duration.as_millis()).ok(),
                    next_attempt_at: made.retry_at,
                    ..Self::plain(FactName::AttemptMade, state)
                }
            }
            Fact::DeliveryDeferred(deferred) => Self {
                attempt: Some(deferred.attempt),
                next_attempt_at: Some(deferred.until),
                reason: Some(deferred.reason.as_str()),
                ..Self::plain(
                    FactName::DeliveryDeferred,
                    Some(DeliveryState::before(deferred.attempt)),
                )
            },
            Fact::DeliveryParked(parked) => Self {
                attempt: Some(parked.attempt),
                ..Self::plain(FactName::DeliveryParked, Some(DeliveryState::Parked))
            },
            Fact::RetryScheduled(scheduled) => Self {
                attempt: Some(scheduled.attempt),
                next_attempt_at: Some(scheduled.due_at),
                ..Self::plain(
                    FactName::RetryScheduled,
                    Some(DeliveryState::before(scheduled.attempt)),
                )
            },
            Fact::DeliveryConcluded(concluded) => Self {
                attempt: Some(concluded.attempts),
                reason: Some(concluded.reason.as_str()),
                ..Self::plain(FactName::DeliveryConcluded, Some(concluded.conclusion.into()))
            },
            Fact::ShardClaimed(_) | Fact::ShardReleased(_) | Fact::EventRouted(_) => return None,
        })
    }
}

impl Filter {
    /// Tells whether somebody wants to be told of it.
    pub(super) fn wants(&self, item: &Item) -> bool {
        let is_type = |wanted: &EventType| item.event_type.as_ref() == Some(wanted);
        let is_chosen = |pattern: &TypePattern| {
            item.event_type.as_ref().is_some_and(|event_type| pattern.matches(event_type))
        };
        self.endpoint.is_none_or(|endpoint| item.endpoint == endpoint)
            && self.event_type.as_ref().is_none_or(is_type)
            && self.pattern.as_ref().is_none_or(is_chosen)
            && (self.states.is_empty()
                || item.what.state.is_some_and(|state| self.states.contains(&state)))
    }
}

impl LiveView {
    fn of(item: &Item) -> Self {
        let what = &item.what;
        Self {
            fact: what.fact,
            at: item.at.to_string(),
            delivery_id: item.delivery.map(|id| id.to_string()),
            event_id: item.event.to_string(),
            endpoint_id: item.endpoint.to_string(),
            event_type: item.event_type.as_ref().map(|it| String::from(it.as_str())),
            generation: item.generation,
            state: what.state,
            attempt: what.attempt,
            outcome: what.outcome,
            status: what.status,
            fault: what.fault,
            duration_ms: what.duration_ms,
            next_attempt_at: what.next_attempt_at.map(|at| at.to_string()),
            reason: what.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{
        Conclusion, TraceContext,
        fact::{ConclusionReason, DeliveryConcluded},
    };

    use super::*;

    fn endpoint(number: u8) -> EndpointId {
        EndpointId::new(Timestamp::EPOCH, [number; 10])
    }

    fn batch() -> JournalBatch {
        let event = EventId::new(Timestamp::EPOCH, [9; 10]);
        let routed = Fact::EventRouted(EventRouted {
            event,
            tenant: "other".parse().unwrap(),
            event_sequence: 1,
            config_revision: 1,
            generation: 0,
            targets: vec![endpoint(1), endpoint(2)],
            skipped: vec![endpoint(3)],
            held: Vec::new(),
            fed: Vec::new(),
            part: 0,
            parts: 1,
        });
        let concluded = Fact::DeliveryConcluded(DeliveryConcluded {
            delivery: DeliveryRef {
                id: DeliveryId::of(event, endpoint(4), 0),
                tenant: "acme".parse().unwrap(),
                event,
                event_sequence: 1,
                event_type: "invoice.paid".parse().unwrap(),
                endpoint: endpoint(4),
                generation: 0,
                accepted_at: Timestamp::EPOCH,
            },
            conclusion: Conclusion::Delivered,
            attempts: 2,
            reason: ConclusionReason::Outcome,
        });
        let record =
            |fact| Record { recorded_at: Timestamp::EPOCH, trace: TraceContext::default(), fact };
        JournalBatch {
            sequence: 7,
            stored_at: Timestamp::EPOCH,
            column: None,
            facts: vec![record(routed), record(concluded)],
        }
    }

    #[test]
    fn a_place_is_the_same_whoever_is_told() {
        let all = Batch::of(&batch(), |_| true);
        let indexes: Vec<usize> = all.items.iter().map(|item| item.index).collect();
        assert_eq!(indexes, [0, 1, 2, 3]);
        let own = Batch::of(&batch(), |tenant| tenant.as_str() == "acme");
        assert_eq!(own.items.iter().map(|item| item.index).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn what_it_takes_counts_while_anybody_holds_it() {
        let all = Arc::default();
        let one = Arc::new(Batch::of(&batch(), |_| true).weighed(&all));
        let held = all.load(Ordering::Acquire);
        assert!(held >= 4 * size_of::<Item>(), "{held}");
        let (other, slow) = (Batch::of(&batch(), |_| true).weighed(&all), Arc::clone(&one));
        assert_eq!(all.load(Ordering::Acquire), 2 * held);
        drop((one, other));
        assert_eq!(all.load(Ordering::Acquire), held);
        drop(slow);
        assert_eq!(all.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_filter_chooses_by_endpoint_state_and_type() {
        let all = Batch::of(&batch(), |_| true);
        let wanted = |filter: Filter| {
            let wanted = all.items.iter().filter(|item| filter.wants(item));
            wanted.map(|item| item.index).collect::<Vec<_>>()
        };
        assert_eq!(wanted(Filter::default()), [0, 1, 2, 3]);
        let one = Filter { endpoint: Some(endpoint(2)), ..Filter::default() };
        assert_eq!(wanted(one), [1]);
        let states = vec![DeliveryState::Delivered, DeliveryState::Skipped];
        assert_eq!(wanted(Filter { states, ..Filter::default() }), [2, 3]);
        let pattern = Some("invoice.*".parse().unwrap());
        assert_eq!(wanted(Filter { pattern, ..Filter::default() }), [3]);
        let event_type = Some("invoice.sent".parse().unwrap());
        assert_eq!(wanted(Filter { event_type, ..Filter::default() }), [] as [usize; 0]);
    }

    #[test]
    fn a_message_has_its_place_and_ends_with_an_empty_line() {
        let all = Batch::of(&batch(), |_| true);
        let mut text = String::new();
        all.items.last().unwrap().write(Place { sequence: 7, index: 3 }, &mut text);
        let json = text.strip_prefix("id: 7.3\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!((&json["state"], &json["attempt"]), (&"delivered".into(), &2.into()));
        assert_eq!(
            (&json["fact"], &json["event_type"]),
            (&"delivery_concluded".into(), &"invoice.paid".into())
        );
    }
}
