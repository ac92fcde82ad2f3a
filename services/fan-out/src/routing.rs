//! What is written for a routed event: facts first, then tasks. Pure.

use std::collections::BTreeMap;

use fanfare_domain::{
    DeliveryId, EndpointId, Fact, Record, Shard, ShardCount, StoredEvent, Target, Task, Timestamp,
    fact::EventRouted,
};
use fanfare_event_log::{JournalWriter, record_length};

use crate::routes::Matches;

/// The deliveries that an event's acceptance causes; replays count from 1.
pub(crate) const GENERATION: u32 = 0;

/// Returns the facts that put an event's routing on record: one, unless it has more endpoints
/// than go into one fact. An event that nobody wants has one too.
pub(crate) fn facts(
    stored: &StoredEvent,
    matches: &Matches,
    config_revision: u64,
    now: Timestamp,
) -> Vec<Record> {
    let every: Vec<Wanted> = Wanted::all(matches).collect();
    let mut chunks: Vec<&[Wanted]> = every.chunks(EventRouted::TARGETS_MAX).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let parts = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    let event = &stored.event;
    let fact = |(part, chunk): (u32, &[Wanted])| EventRouted {
        event: event.id,
        tenant: event.tenant.clone(),
        event_sequence: stored.sequence,
        config_revision,
        generation: GENERATION,
        targets: chunk.iter().filter_map(Wanted::target).collect(),
        skipped: chunk.iter().filter_map(Wanted::skipped).collect(),
        held: Vec::new(),
        fed: chunk.iter().filter_map(Wanted::fed).collect(),
        part,
        parts,
    };
    let record = |routed| Record {
        recorded_at: now,
        trace: event.trace.clone(),
        fact: Fact::EventRouted(routed),
    };
    (0..parts).zip(chunks).map(fact).map(record).collect()
}

/// Puts facts into as few messages as the journal's limits allow, in order.
pub(crate) fn messages(facts: Vec<Record>) -> Vec<Vec<Record>> {
    let mut messages: Vec<Vec<Record>> = Vec::new();
    let mut bytes = 0;
    for fact in facts {
        let size = record_length(&fact);
        match messages.last_mut() {
            Some(last)
                if last.len() < JournalWriter::FACTS_MAX
                    && bytes + size <= JournalWriter::BYTES_MAX =>
            {
                bytes += size;
                last.push(fact);
            }
            Some(_) | None => {
                bytes = size;
                messages.push(vec![fact]);
            }
        }
    }
    messages
}

/// Returns an event's tasks: for each shard as few as its targets fit into. The same targets give
/// the same tasks, and so the same ids, whatever the times at which they may be delivered.
///
/// Each is made when it is asked for, and shards take turns: while the last ones are made, the
/// first ones are on their way, to all who deliver.
pub(crate) fn tasks(
    stored: &StoredEvent,
    targets: Vec<(EndpointId, Option<Timestamp>)>,
    journal_sequence: u64,
    shards: ShardCount,
) -> impl ExactSizeIterator<Item = (Shard, Task)> {
    let mut by_shard: BTreeMap<Shard, Vec<_>> = BTreeMap::new();
    for (endpoint, not_before) in targets {
        by_shard.entry(shards.of(endpoint)).or_default().push((endpoint, not_before));
    }
    let mut chunks = Vec::new();
    for (shard, endpoints) in &by_shard {
        let numbered = endpoints.chunks(Task::TARGETS_MAX).enumerate();
        chunks.extend(numbered.map(|(number, chunk)| (number, *shard, chunk.to_vec())));
    }
    chunks.sort_unstable_by_key(|(number, shard, _)| (*number, *shard));
    let target = |(endpoint, not_before)| {
        let delivery = DeliveryId::of(stored.event.id, endpoint, GENERATION);
        Target { delivery, endpoint, not_before }
    };
    chunks.into_iter().map(move |(_, shard, endpoints)| {
        let targets = endpoints.into_iter().map(target).collect();
        let task =
            Task { event: stored.clone(), targets, generation: GENERATION, journal_sequence };
        (shard, task)
    })
}

/// Returns the fact of a record, if it is that an event was routed.
pub(crate) fn routed(record: &Record) -> Option<&EventRouted> {
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

/// An endpoint that matched.
#[derive(Clone, Copy)]
enum Wanted {
    Target(EndpointId),
    Skipped(EndpointId),
    Fed(EndpointId),
}

impl Wanted {
    fn all(matches: &Matches) -> impl Iterator<Item = Self> {
        let targets = matches.targets.iter().copied().map(Self::Target);
        let skipped = matches.skipped.iter().copied().map(Self::Skipped);
        targets.chain(skipped).chain(matches.fed.iter().copied().map(Self::Fed))
    }

    fn target(&self) -> Option<EndpointId> {
        match self {
            Self::Target(endpoint) => Some(*endpoint),
            Self::Skipped(_) | Self::Fed(_) => None,
        }
    }

    fn skipped(&self) -> Option<EndpointId> {
        match self {
            Self::Skipped(endpoint) => Some(*endpoint),
            Self::Target(_) | Self::Fed(_) => None,
        }
    }

    fn fed(&self) -> Option<EndpointId> {
        match self {
            Self::Fed(endpoint) => Some(*endpoint),
            Self::Target(_) | Self::Skipped(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        iter,
        sync::Arc,
    };

    use fanfare_domain::{Event, EventId, TraceContext};

    use super::*;

    fn event() -> StoredEvent {
        let event = Event {
            id: EventId::new(Timestamp::from_millis(1), [1; 10]),
            tenant: "acme".parse().unwrap(),
            event_type: "a.b".parse().unwrap(),
            occurred_at: Timestamp::EPOCH,
            accepted_at: None,
            config_revision: None,
            data: "1".into(),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        StoredEvent {
            event: Arc::new(event),
            sequence: 7,
            accepted_at: Timestamp::EPOCH,
            envelope: "envelope".into(),
        }
    }

    fn endpoints(numbers: std::ops::Range<u16>) -> Vec<EndpointId> {
        let id = |number: u16| {
            let mut chance = [0; 10];
            chance[..2].copy_from_slice(&number.to_be_bytes());
            EndpointId::new(Timestamp::EPOCH, chance)
        };
        numbers.map(id).collect()
    }

    fn part(record: &Record) -> &EventRouted {
        routed(record).expect("only routed facts are made here")
    }

    #[test]
    fn an_event_that_nobody_wants_is_on_record_too() {
        let facts = facts(&event(), &Matches::default(), 3, Timestamp::EPOCH);
        let [fact] = facts.as_slice() else { panic!("{facts:?}") };
        assert_eq!((part(fact).part, part(fact).parts), (0, 1));
        assert_eq!(part(fact).config_revision, 3);
    }

    #[test]
    fn more_endpoints_than_one_fact_takes_are_split_without_a_loss() {
        let (targets, skipped, fed) =
            (endpoints(0..1_499), endpoints(1_499..2_000), endpoints(2_000..2_500));
        let matches = Matches { targets, skipped, fed, asking: Vec::new() };
        let facts = facts(&event(), &matches, 3, Timestamp::EPOCH);
        assert_eq!(facts.len(), 3);
        let all = |side: fn(&EventRouted) -> &Vec<EndpointId>| {
            facts.iter().flat_map(|fact| side(part(fact)).clone()).collect::<Vec<_>>()
        };
        assert_eq!(all(|fact| &fact.targets), matches.targets);
        assert_eq!(all(|fact| &fact.skipped), matches.skipped);
        assert_eq!(all(|fact| &fact.fed), matches.fed);
        for (number, fact) in (0..).zip(&facts) {
            let fact = part(fact);
            assert_eq!((fact.part, fact.parts), (number, 3));
            let count = fact.targets.len() + fact.skipped.len() + fact.fed.len();
            assert!(count <= EventRouted::TARGETS_MAX);
        }
    }

    #[test]
    fn messages_keep_order_and_limits() {
        let small = facts(&event(), &Matches::default(), 3, Timestamp::EPOCH);
        let large = Matches { targets: endpoints(0..1_000), ..Matches::default() };
        let large = facts(&event(), &large, 4, Timestamp::EPOCH);
        let mut all: Vec<Record> = Vec::new();
        for (record, times) in [(&small[0], 600), (&large[0], 100), (&small[0], 1)] {
            all.extend(iter::repeat_n(record.clone(), times));
        }
        let messages = messages(all.clone());
        assert_eq!(messages.concat(), all);
        assert_eq!(messages[0].len(), JournalWriter::FACTS_MAX);
        for message in &messages {
            let bytes: usize = message.iter().map(record_length).sum();
            assert!(message.len() <= JournalWriter::FACTS_MAX);
            assert!(bytes <= JournalWriter::BYTES_MAX);
        }
    }

    #[test]
    fn tasks_hold_each_target_once_in_its_own_shard() {
        let shards = ShardCount::new(16).unwrap();
        let targets = endpoints(0..2_500);
        let event = event();
        let at_once = targets.iter().map(|endpoint| (*endpoint, None)).collect();
        let tasks: Vec<_> = tasks(&event, at_once, 9, shards).collect();
        let mut seen = BTreeSet::new();
        let mut per_shard: BTreeMap<Shard, usize> = BTreeMap::new();
        for (shard, task) in &tasks {
            assert!((1..=Task::TARGETS_MAX).contains(&task.targets.len()));
            assert_eq!(task.journal_sequence, 9);
            for target in &task.targets {
                assert_eq!(shards.of(target.endpoint), *shard);
                assert_eq!(target.delivery, DeliveryId::of(event.event.id, target.endpoint, 0));
                assert!(seen.insert(target.endpoint));
            }
            *per_shard.entry(*shard).or_default() += task.targets.len();
        }
        assert_eq!(seen, targets.into_iter().collect());
        let needed: usize = per_shard.values().map(|count| count.div_ceil(Task::TARGETS_MAX)).sum();
        assert_eq!(tasks.len(), needed);
        let first: BTreeSet<Shard> = tasks.iter().take(16).map(|(shard, _)| *shard).collect();
        assert_eq!(first.len(), 16, "every shard has something before any has all");
    }
}
