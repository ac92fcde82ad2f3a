//! What is on record about suspect events: their routing is taken from there, never made again.
//!
//! A suspect event was handed out before, or stored before this process connected: an earlier
//! process may have recorded its routing and written some of its tasks. After a stop of fan-out
//! everything that waits is suspect, so the record is read once and in step with the events, not
//! once per batch. Whoever lets a suspect event wait asks once more when its turn has come, about
//! what was put on record since: see [`waiting`].

pub(crate) mod waiting;

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{EndpointId, EventId, Record, StoredEvent, Timestamp, fact::Edition};
use fanfare_event_log::{
    EventLog, JournalBatch, JournalReader, ReadError,
    journal::{From, JournalFilter},
};

use crate::routing::{GENERATION, routed};

/// How far the clocks of two servers may be apart: EVENTS and JOURNAL can have different leaders.
const SKEW: Duration = Duration::from_mins(1);

/// An event that was handed out to be routed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect<'a> {
    /// The event.
    pub(crate) event: &'a StoredEvent,
    /// When EVENTS stored it.
    pub(crate) stored_at: Timestamp,
}

/// A routing that is on record, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnRecord {
    /// The endpoints that get a task, in order.
    pub(crate) targets: Vec<EndpointId>,
    /// The sequence in JOURNAL of its first part.
    pub(crate) sequence: u64,
}

/// What is on record about suspect events.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Their routings, by the events' ids.
    pub(crate) on_record: BTreeMap<EventId, OnRecord>,
    /// Up to where JOURNAL was read.
    pub(crate) looked_to: u64,
}

/// Looks up suspect events, reading on from where the last look-up ended.
pub(crate) struct Lookup {
    log: EventLog,
    reading: Option<Reading>,
}

struct Reading {
    reader: JournalReader,
    since: Timestamp,
    recorded: Recorded,
}

impl Lookup {
    /// Makes a look-up that has read nothing.
    pub(crate) fn new(log: EventLog) -> Self {
        Self { log, reading: None }
    }

    /// Returns the routings of these events that are on record by now.
    pub(crate) async fn find(&mut self, suspects: &[Suspect<'_>]) -> Result<Found, ReadError> {
        let oldest = suspects.iter().map(|suspect| suspect.stored_at).min();
        let first = suspects.iter().map(|suspect| suspect.event.sequence).min();
        let (Some(oldest), Some(first)) = (oldest, first) else {
            // Nothing is suspect any more, and what is routed meanwhile need not be read.
            self.reading = None;
            return Ok(Found::default());
        };
        let last = self.log.journal_last().await?;
        let mut reading = match self.reading.take().filter(|reading| reading.covers(oldest, first))
        {
            Some(reading) => reading,
            None => Reading::start(&self.log, oldest.saturating_sub(SKEW)).await?,
        };
        reading.recorded.forget_below(first);
        while let Some(batch) = reading.reader.next_until(last).await? {
            reading.recorded.note(&batch);
        }
        let find = |suspect: &Suspect<'_>| {
            let found = reading.recorded.routing(suspect.event)?;
            Some((suspect.event.event.id, found))
        };
        let on_record = suspects.iter().filter_map(find).collect();
        self.reading = Some(reading);
        Ok(Found { on_record, looked_to: last })
    }
}

impl Reading {
    async fn start(log: &EventLog, since: Timestamp) -> Result<Self, ReadError> {
        let reader = log.journal(JournalFilter::Routed, From::Time(since)).await?;
        Ok(Self { reader, since, recorded: Recorded::default() })
    }

    fn covers(&self, stored_at: Timestamp, sequence: u64) -> bool {
        self.since <= stored_at && self.recorded.from <= sequence
    }
}

/// The routings of the events from a sequence on, as far as the journal was read.
#[derive(Debug, Default)]
struct Recorded {
    events: BTreeMap<(u64, EventId), BTreeMap<Edition, BTreeMap<u32, Part>>>,
    /// Events below this sequence are not kept.
    from: u64,
}

#[derive(Debug)]
struct Part {
    targets: Vec<EndpointId>,
    sequence: u64,
}

impl Recorded {
    fn note(&mut self, batch: &JournalBatch) {
        for record in &batch.facts {
            self.note_one(batch.sequence, record);
        }
    }

    fn note_one(&mut self, sequence: u64, record: &Record) {
        let Some(routed) = routed(record) else { return };
        if routed.generation != GENERATION || routed.event_sequence < self.from {
            return;
        }
        let edition = routed.edition(record.recorded_at);
        let editions = self.events.entry((routed.event_sequence, routed.event)).or_default();
        let part = || Part { targets: routed.targets.clone(), sequence };
        editions.entry(edition).or_default().entry(routed.part).or_insert_with(part);
    }

    /// Returns the first edition that is whole: tasks are only written once it is.
    fn routing(&self, stored: &StoredEvent) -> Option<OnRecord> {
        let editions = self.events.get(&(stored.sequence, stored.event.id))?;
        let whole = |(edition, parts): (&Edition, &BTreeMap<u32, Part>)| {
            let sequence = parts.values().map(|part| part.sequence).min()?;
            let mut targets: Vec<EndpointId> =
                parts.values().flat_map(|part| part.targets.iter().copied()).collect();
            targets.sort_unstable();
            edition.is_whole(parts.len()).then_some(OnRecord { targets, sequence })
        };
        editions.iter().filter_map(whole).min_by_key(|found| found.sequence)
    }

    fn forget(&mut self, sequence: u64, event: EventId) {
        self.events.remove(&(sequence, event));
    }

    fn forget_below(&mut self, sequence: u64) {
        if sequence > self.from {
            self.from = sequence;
            let lowest = EventId::from_bytes([0; 16]);
            self.events = self.events.split_off(&(sequence, lowest));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanfare_domain::{Event, Fact, TraceContext, fact::EventRouted};

    use super::*;

    fn event(sequence: u64) -> StoredEvent {
        let event = Event {
            id: EventId::new(Timestamp::from_millis(sequence), [1; 10]),
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
            sequence,
            accepted_at: Timestamp::EPOCH,
            envelope: "".into(),
        }
    }

    fn endpoint(number: u8) -> EndpointId {
        EndpointId::new(Timestamp::EPOCH, [number; 10])
    }

    fn part(event_sequence: u64, revision: u64, part: u32, parts: u32) -> EventRouted {
        EventRouted {
            event: event(event_sequence).event.id,
            tenant: "acme".parse().unwrap(),
            event_sequence,
            config_revision: revision,
            generation: 0,
            targets: vec![endpoint(u8::try_from(10 - part).unwrap())],
            skipped: vec![endpoint(99)],
            held: Vec::new(),
            fed: Vec::new(),
            part,
            parts,
        }
    }

    fn at(recorded_at: Timestamp, routed: EventRouted) -> Record {
        Record { recorded_at, trace: TraceContext::default(), fact: Fact::EventRouted(routed) }
    }

    fn noted(facts: &[(u64, EventRouted)]) -> Recorded {
        let record = |(sequence, routed): &(u64, EventRouted)| {
            (*sequence, at(Timestamp::EPOCH, routed.clone()))
        };
        noted_at(facts.iter().map(record))
    }

    fn noted_at(facts: impl IntoIterator<Item = (u64, Record)>) -> Recorded {
        let mut recorded = Recorded::default();
        for (sequence, record) in facts {
            recorded.note(&JournalBatch {
                sequence,
                stored_at: Timestamp::EPOCH,
                column: None,
                facts: vec![record],
            });
        }
        recorded
    }

    #[test]
    fn parts_are_put_together_and_the_first_one_gives_the_sequence() {
        let recorded = noted(&[(21, part(1, 5, 1, 2)), (20, part(1, 5, 0, 2))]);
        let found = recorded.routing(&event(1)).unwrap();
        assert_eq!(found, OnRecord { targets: vec![endpoint(9), endpoint(10)], sequence: 20 });
    }

    #[test]
    fn a_routing_with_a_part_missing_is_not_on_record() {
        let recorded = noted(&[(20, part(1, 5, 0, 3)), (21, part(1, 5, 2, 3))]);
        assert_eq!(recorded.routing(&event(1)), None);
    }

    #[test]
    fn parts_of_different_editions_do_not_mix() {
        let mixed = noted(&[(20, part(1, 5, 0, 2)), (21, part(1, 6, 1, 2))]);
        assert_eq!(mixed.routing(&event(1)), None);
        let second = noted(&[
            (20, part(1, 5, 0, 2)),
            (21, part(1, 6, 0, 2)),
            (22, part(1, 6, 1, 2)),
            (23, part(1, 4, 0, 1)),
        ]);
        assert_eq!(second.routing(&event(1)).unwrap().sequence, 21);
    }

    #[test]
    fn parts_of_one_revision_that_were_made_at_other_times_do_not_mix() {
        let [first, second] = [1, 2].map(Timestamp::from_millis);
        let cut_off = at(first, part(1, 5, 0, 2));
        let again = |number| {
            // What was in the first part is in the second, and the other way round.
            let targets = part(1, 5, 1 - number, 2).targets;
            at(second, EventRouted { targets, ..part(1, 5, number, 2) })
        };
        let mixed = noted_at([(20, cut_off.clone()), (21, again(1))]);
        assert_eq!(mixed.routing(&event(1)), None);
        let whole = noted_at([(20, cut_off), (21, again(0)), (22, again(1))]);
        let found = whole.routing(&event(1)).unwrap();
        assert_eq!(found, OnRecord { targets: vec![endpoint(9), endpoint(10)], sequence: 21 });
    }

    #[test]
    fn replays_and_events_below_the_first_suspect_are_not_kept() {
        let mut recorded = noted(&[(20, part(1, 5, 0, 1)), (21, part(2, 5, 0, 1))]);
        recorded.forget_below(2);
        recorded.note_one(22, &at(Timestamp::EPOCH, part(1, 5, 0, 1)));
        let replay = EventRouted { generation: 1, ..part(3, 5, 0, 1) };
        recorded.note_one(23, &at(Timestamp::EPOCH, replay));
        assert_eq!(recorded.routing(&event(1)), None);
        assert_eq!(recorded.routing(&event(3)), None);
        assert!(recorded.routing(&event(2)).is_some());
    }
}
