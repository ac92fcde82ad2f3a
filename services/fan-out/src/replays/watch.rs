//! How much of each replay is on its way: what was made and was not attempted yet. So a replay is as
//! fast as each of its endpoints, and what is slow or held back waits in EVENTS, where it costs nothing. One
//! reader of the journal watches for all replays, and only while there is something to wait for.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fanfare_domain::{DeliveryId, EndpointId, Fact, JobId, chain};
use fanfare_event_log::{EventLog, JournalFilter, JournalReader, ReadError, journal::From};
use tokio::{sync::Notify, time::sleep};
use tracing::error;

use super::{
    REST,
    pace::{Way, Whose},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    open: Mutex<Open>,
    /// Something was added.
    added: Notify,
    /// Something was attempted that was waited for.
    moved: Notify,
}

/// What is on its way. Pure.
#[derive(Debug, Default)]
struct Open {
    deliveries: BTreeMap<DeliveryId, (JobId, EndpointId)>,
    ways: BTreeMap<JobId, Way>,
    /// The sequence behind which the journal has to be read, again if need be.
    begin: Option<u64>,
}

/// How to go on reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Not at all: nothing is waited for.
    Not,
    /// From behind this sequence on.
    Behind(u64),
    /// Where it stands.
    On,
}

impl Watch {
    /// Adds what is about to be made, before it is. Facts about it lie behind `since` in the
    /// journal. What is made again may have been attempted before: then the journal is read again.
    pub(super) fn add(
        &self,
        job: (JobId, Whose),
        made: impl Iterator<Item = (DeliveryId, EndpointId)>,
        (since, is_repeat): (u64, bool),
    ) {
        self.open().add(job, made, (since, is_repeat));
        self.added.notify_one();
    }

    /// Waits for nothing more of a job.
    pub(super) fn forget(&self, job: JobId) {
        self.open().forget(job);
    }

    /// Looks at what of a job is on its way.
    pub(super) fn look<R>(&self, job: JobId, look: impl FnOnce(&Way) -> R) -> R {
        self.open().look(job, look)
    }

    /// Waits until something was attempted. Cancel safe.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Reads the journal, for ever. What goes wrong is told, and tried again.
    pub(super) async fn follow(&self, log: &EventLog) {
        let (mut reader, mut at) = (None, 0);
        loop {
            if let Err(failed) = self.read(log, &mut reader, &mut at).await {
                error!(error = chain(&failed), "what replays have made cannot be watched");
                reader = None;
                self.open().read_again(at);
                sleep(REST).await;
            }
        }
    }

    async fn read(
        &self,
        log: &EventLog,
        reader: &mut Option<JournalReader>,
        at: &mut u64,
    ) -> Result<(), ReadError> {
        let reading = self.open().reading(reader.is_some());
        match reading {
            Reading::Not => *reader = None,
            Reading::Behind(sequence) => {
                *at = sequence;
                let from = From::Sequence(sequence.saturating_add(1));
                *reader = Some(log.journal(JournalFilter::Deliveries, from).await?.brief());
            }
            Reading::On => {}
        }
        let Some(reader) = reader else {
            self.added.notified().await;
            return Ok(());
        };
        tokio::select! {
            batch = reader.next() => {
                let batch = batch?;
                *at = batch.sequence;
                self.note(batch.facts.iter().map(|record| &record.fact));
            }
            () = self.added.notified() => {}
        }
        Ok(())
    }

    fn note<'a>(&self, facts: impl Iterator<Item = &'a Fact>) {
        let mut open = self.open();
        let begun = facts.filter_map(begun).filter(|id| open.begun(*id)).count();
        if begun > 0 {
            self.moved.notify_one();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn add(
        &mut self,
        (job, whose): (JobId, Whose),
        made: impl Iterator<Item = (DeliveryId, EndpointId)>,
        (since, is_repeat): (u64, bool),
    ) {
        if is_repeat || self.deliveries.is_empty() {
            self.read_again(since);
        }
        let way = self.ways.entry(job).or_default();
        way.turn(whose);
        for (delivery, endpoint) in made {
            if self.deliveries.insert(delivery, (job, endpoint)).is_none() {
                way.add(endpoint);
            }
        }
    }

    fn read_again(&mut self, since: u64) {
        self.begin = Some(self.begin.map_or(since, |begin| begin.min(since)));
    }

    fn reading(&mut self, is_reading: bool) -> Reading {
        if self.deliveries.is_empty() {
            self.begin = None;
            return Reading::Not;
        }
        match self.begin.take() {
            Some(begin) => Reading::Behind(begin),
            None if is_reading => Reading::On,
            None => Reading::Not,
        }
    }

    fn begun(&mut self, delivery: DeliveryId) -> bool {
        let Some((job, endpoint)) = self.deliveries.remove(&delivery) else { return false };
        if let Some(way) = self.ways.get_mut(&job) {
            way.begun(endpoint);
        }
        true
    }

    fn forget(&mut self, job: JobId) {
        if self.ways.remove(&job).is_some() {
            self.deliveries.retain(|_, (of, _)| *of != job);
        }
    }

    fn look<R>(&self, job: JobId, look: impl FnOnce(&Way) -> R) -> R {
        look(self.ways.get(&job).unwrap_or(&Way::default()))
    }
}

/// The delivery that a fact says the first attempt of was made, or is not to be waited for.
fn begun(fact: &Fact) -> Option<DeliveryId> {
    match fact {
        Fact::AttemptMade(made) => Some(made.delivery.id),
        Fact::DeliveryParked(parked) => Some(parked.delivery.id),
        Fact::DeliveryConcluded(concluded) => Some(concluded.delivery.id),
        // It still waits for its first attempt.
        Fact::DeliveryDeferred(_)
        | Fact::RetryScheduled(_)
        | Fact::ShardClaimed(_)
        | Fact::ShardReleased(_)
        | Fact::EventRouted(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{EventId, Timestamp};

    use super::*;

    fn job(n: u8) -> JobId {
        JobId::new(Timestamp::EPOCH, [n; 10])
    }

    fn deliveries(generation: u32, count: u64) -> impl Iterator<Item = (DeliveryId, EndpointId)> {
        let endpoint = EndpointId::from_bytes([1; 16]);
        (0..count).map(move |n| {
            let event = EventId::new(Timestamp::from_millis(n), [1; 10]);
            (DeliveryId::of(event, endpoint, generation), endpoint)
        })
    }

    fn has_room(open: &Open, job: JobId) -> bool {
        open.look(job, |way| way.has_room(Whose::Most, &BTreeMap::new()))
    }

    #[test]
    fn a_job_has_room_again_when_its_own_deliveries_were_attempted() {
        let mut open = Open::default();
        let most = |n| (job(n), Whose::Most);
        open.add(most(1), deliveries(1, 256), (10, false));
        open.add(most(2), deliveries(2, 255), (20, false));
        assert_eq!([1, 2, 3].map(|n| has_room(&open, job(n))), [false, true, true]);
        // The same ones once more are no more.
        open.add(most(2), deliveries(2, 255), (20, true));
        assert!(has_room(&open, job(2)));
        assert!(deliveries(2, 1).all(|(id, _)| open.begun(id)));
        assert!(!has_room(&open, job(1)));
        assert!(deliveries(1, 1).all(|(id, _)| open.begun(id)));
        assert!(deliveries(1, 1).all(|(id, _)| !open.begun(id)));
        assert!(has_room(&open, job(1)));
        open.forget(job(1));
        assert!(deliveries(1, 2).all(|(id, _)| !open.begun(id)));
    }

    #[test]
    fn the_journal_is_read_from_before_what_is_waited_for() {
        let mut open = Open::default();
        let most = |n| (job(n), Whose::Most);
        assert_eq!(open.reading(false), Reading::Not);
        open.add(most(1), deliveries(1, 9), (10, false));
        assert_eq!(open.reading(false), Reading::Behind(10));
        open.add(most(2), deliveries(2, 9), (20, false));
        assert_eq!(open.reading(true), Reading::On);
        // It was made before, and attempted maybe.
        open.add(most(3), deliveries(3, 9), (5, true));
        assert_eq!(open.reading(true), Reading::Behind(5));
        for n in 1..=3 {
            open.forget(job(n));
        }
        assert_eq!(open.reading(true), Reading::Not);
        open.add(most(1), deliveries(1, 9), (30, false));
        assert_eq!(open.reading(true), Reading::Behind(30));
    }
}
