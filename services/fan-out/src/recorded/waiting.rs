//! Suspect events that wait for their turn: somebody else may put a routing of them on record meanwhile,
//! who had them before and was held up. What is read of the journal is kept of these alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use fanfare_domain::{EventId, StoredEvent};
use fanfare_event_log::{
    EventLog, ReadError,
    journal::{From, JournalFilter},
};

use super::{OnRecord, Recorded};
use crate::routing::routed;

/// See the module. Cheap to clone; clones are the same.
#[derive(Clone)]
pub(crate) struct Waiting {
    log: EventLog,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those that wait, by their sequences; each with the sequence of JOURNAL up to which its facts are
    /// noted.
    events: BTreeMap<u64, (EventId, u64)>,
    recorded: Recorded,
}

impl Waiting {
    /// Nothing waits.
    pub(crate) fn new(log: EventLog) -> Self {
        Self { log, known: Arc::default() }
    }

    /// Has an event wait about which JOURNAL says nothing up to a sequence.
    pub(crate) fn add(&self, event: &StoredEvent, looked_to: u64) {
        self.with(|known| known.events.insert(event.sequence, (event.event.id, looked_to)));
    }

    /// Events wait no more.
    pub(crate) fn remove(&self, sequences: &[u64]) {
        self.with(|known| {
            for sequence in sequences {
                if let Some((id, _)) = known.events.remove(sequence) {
                    known.recorded.forget(*sequence, id);
                }
            }
        });
    }

    /// Returns the routings of some events, as far as they wait here and are on record by now.
    pub(crate) async fn find(
        &self,
        events: &[StoredEvent],
    ) -> Result<BTreeMap<EventId, OnRecord>, ReadError> {
        let of = |event: &StoredEvent| event.sequence;
        let sequences: Vec<u64> = events.iter().map(of).collect();
        let Some(noted_to) = self.with(|known| known.noted_to(&sequences)) else {
            return Ok(BTreeMap::new());
        };
        let last = self.log.journal_last().await?;
        if last > noted_to {
            let from = From::Sequence(noted_to.saturating_add(1));
            let mut reader = self.log.journal(JournalFilter::Routed, from).await?;
            while let Some(batch) = reader.next_until(last).await? {
                self.with(|known| {
                    for record in &batch.facts {
                        let Some(fact) = routed(record) else { continue };
                        let waits = known.events.get(&fact.event_sequence);
                        if waits.is_some_and(|(id, _)| *id == fact.event) {
                            known.recorded.note_one(batch.sequence, record);
                        }
                    }
                });
            }
        }
        Ok(self.with(|known| {
            known.reach(noted_to, last);
            let recorded = &known.recorded;
            let find = |event: &StoredEvent| Some((event.event.id, recorded.routing(event)?));
            events.iter().filter_map(find).collect()
        }))
    }

    fn with<R>(&self, act: impl FnOnce(&mut Known) -> R) -> R {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    /// Up to where the facts about all of some events are noted; `None` if none of them waits.
    fn noted_to(&self, sequences: &[u64]) -> Option<u64> {
        sequences.iter().filter_map(|it| self.events.get(it)).map(|(_, noted_to)| *noted_to).min()
    }

    /// Notes that all facts between two sequences of JOURNAL are noted.
    fn reach(&mut self, from: u64, to: u64) {
        for (_, noted_to) in self.events.values_mut() {
            if *noted_to >= from {
                *noted_to = to.max(*noted_to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::Timestamp;

    use super::*;

    #[test]
    fn what_was_added_while_it_was_read_is_read_for_itself() {
        let mut known = Known::default();
        let id = EventId::new(Timestamp::EPOCH, [1; 10]);
        for (sequence, noted_to) in [(1, 10), (2, 20)] {
            known.events.insert(sequence, (id, noted_to));
        }
        assert_eq!(known.noted_to(&[2, 1, 7]), Some(10));
        assert_eq!(known.noted_to(&[7]), None);
        // Handed out to somebody who has looked less far.
        known.events.insert(3, (id, 5));
        known.reach(10, 30);
        let noted = [1, 2, 3].map(|sequence| known.noted_to(&[sequence]));
        assert_eq!(noted, [Some(30), Some(30), Some(5)]);
    }
}
