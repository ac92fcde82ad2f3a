//! What is on record about recent deliveries, so that a message handed out twice makes no
//! second attempt.
//!
//! A fold over the shard's facts. It covers at least a window of journal time; what is older
//! can no longer be handed out again, because its messages were settled long before.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use fanfare_domain::{DeliveryId, Fact, Timestamp, fact::DeferReason};
use foldhash::HashMap;

use crate::{feeds::Known, lanes::RESERVED_AHEAD};

/// How long a message waits that came before the fact that it follows from, and at most one that
/// came before its time.
const EARLY_WAIT: Duration = Duration::from_secs(1);
const EARLY_WAIT_MAX: Duration = Duration::from_mins(1);

/// By how much a message may be early: clocks are that far apart.
const CLOCKS_APART: Duration = Duration::from_secs(1);

/// What the ledger says to an attempt that a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is to be made. It counts as live from now on.
    Make,
    /// It is being made, or waits in its lane. The message is left alone: it is settled by the
    /// one before, or handed out again.
    Live,
    /// Its consequences are on record: the message is settled.
    OnRecord,
    /// As [`Self::Make`], and the endpoint's rate limit has kept this time for it.
    Turn,
    /// The attempt before it is still live, or this one was put off beyond now: the message is
    /// to come again after this time.
    Early(Duration),
}

/// How far the facts say that a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The attempt of this number is the next that may be made.
    Next(u32, Wait),
    /// It ended.
    Concluded,
}

/// What is known of how far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing.
    Unknown,
    /// The number of its next attempt.
    Next(u32),
    /// It ended.
    Concluded,
}

/// How the next attempt was put off. In whole seconds: there are millions of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// It was not.
    None,
    /// Until that second.
    Until(u32),
    /// Until that second, and the endpoint's rate limit has kept it.
    Turn(u32),
}

/// The most deliveries of a run: as many as make a table full whose size is a power of two, so that
/// none of its room is left over.
const RUN_MAX: usize = 65_536 / 8 * 7;

/// How many runs the window is cut into at least.
const RUNS: u32 = 4;

/// See the module.
///
/// What is on record is kept in runs, and a run is dropped as a whole once those after it cover the
/// window. What is live has no fact yet, so no age.
#[derive(Debug)]
pub(crate) struct Ledger {
    window: Duration,
    entries_max: usize,
    /// The attempts that were asked for.
    live: HashMap<DeliveryId, u32>,
    /// Those before [`Self::youngest`], the oldest first.
    older: VecDeque<Run>,
    youngest: Run,
}

/// What is on record from a place in the journal on, until the next run begins.
#[derive(Debug)]
struct Run {
    from: Place,
    /// None of its deliveries has a larger id. Ids begin with the time of their event, so that new
    /// ones are not looked for in old runs.
    largest: DeliveryId,
    entries: HashMap<DeliveryId, Progress>,
}

/// A place in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The sequence of a batch.
    pub(crate) sequence: u64,
    /// When that batch was recorded.
    pub(crate) at: Timestamp,
}

impl Ledger {
    /// Makes a ledger that is about to fold the journal from a place on, remembers for `window`
    /// of journal time at least, and holds at most twice `entries_max` deliveries.
    pub(crate) fn new(window: Duration, entries_max: usize, from: Place) -> Self {
        Self {
            window,
            entries_max,
            live: HashMap::default(),
            older: VecDeque::new(),
            youngest: Run::new(from),
        }
    }

    /// Returns the place from which on everything is remembered. About what lies before it the
    /// ledger knows nothing, and the journal has to be asked.
    pub(crate) fn covers_from(&self) -> Place {
        self.older.front().unwrap_or(&self.youngest).from
    }

    /// Tells whether anything is known of a delivery.
    pub(crate) fn knows(&self, delivery: DeliveryId) -> bool {
        self.live.contains_key(&delivery) || self.get(delivery).is_some()
    }

    /// Tells whether an attempt of the delivery was asked for and has no fact yet.
    pub(crate) fn is_live(&self, delivery: DeliveryId) -> bool {
        self.live.contains_key(&delivery)
    }

    /// How far a delivery has come, as far as it is on record.
    pub(crate) fn standing(&self, delivery: DeliveryId) -> Standing {
        match self.get(delivery) {
            None => Standing::Unknown,
            Some(Progress::Next(next, _)) => Standing::Next(next),
            Some(Progress::Concluded) => Standing::Concluded,
        }
    }

    /// What is known of a delivery, for a feed.
    pub(crate) fn known(&self, delivery: DeliveryId) -> Known {
        if self.is_live(delivery) {
            return Known::Live;
        }
        match self.get(delivery) {
            None => Known::Nothing,
            Some(Progress::Next(1, Wait::Until(_) | Wait::Turn(_))) => Known::PutOff,
            Some(Progress::Next(..)) => Known::Begun,
            Some(Progress::Concluded) => Known::Concluded,
        }
    }

    /// Counts the first attempt of a delivery as live that a feed is about to make.
    pub(crate) fn feed(&mut self, delivery: DeliveryId) {
        self.live.insert(delivery, 1);
    }

    /// Folds a fact of a batch at that place.
    pub(crate) fn record(&mut self, fact: &Fact, place: Place) {
        let Some((delivery, progress)) = progress(fact, place.at) else { return };
        self.turn(place);
        self.live.remove(&delivery);
        // Facts of one batch may conclude a delivery before its attempt is folded again.
        if self.get(delivery) != Some(Progress::Concluded) {
            self.youngest.insert(delivery, progress);
        }
    }

    /// Folds a fact from before [`Self::covers_from`], read again; what is known is newer.
    /// `wanted` are the deliveries that nothing was known of.
    pub(crate) fn recall(&mut self, fact: &Fact, at: Timestamp, wanted: &BTreeSet<DeliveryId>) {
        let Some((delivery, progress)) = progress(fact, at) else { return };
        if wanted.contains(&delivery) && self.get(delivery) != Some(Progress::Concluded) {
            self.youngest.insert(delivery, progress);
        }
    }

    /// Judges the first attempt of a delivery that a task asks for.
    pub(crate) fn admit_first(&mut self, delivery: DeliveryId) -> Admission {
        if self.is_live(delivery) {
            return Admission::Live;
        }
        match self.get(delivery) {
            None => self.enliven(delivery, 1),
            // Also a deferred first attempt: its scheduled message has it now.
            Some(Progress::Next(..) | Progress::Concluded) => Admission::OnRecord,
        }
    }

    /// Judges an attempt that a due message asks for.
    pub(crate) fn admit_due(
        &mut self,
        delivery: DeliveryId,
        attempt: u32,
        now: Timestamp,
    ) -> Admission {
        match self.live.get(&delivery) {
            Some(live) if attempt > *live => return Admission::Early(EARLY_WAIT),
            Some(_) => return Admission::Live,
            None => {}
        }
        match self.get(delivery) {
            Some(Progress::Next(next, _)) if attempt < next => Admission::OnRecord,
            Some(Progress::Next(next, wait)) if attempt == next => match wait {
                Wait::Until(until) | Wait::Turn(until) if is_ahead(until, now) => {
                    Admission::Early(from_second(until).since(now).min(EARLY_WAIT_MAX))
                }
                Wait::None | Wait::Until(_) => self.enliven(delivery, attempt),
                Wait::Turn(_) => {
                    self.enliven(delivery, attempt);
                    Admission::Turn
                }
            },
            None | Some(Progress::Next(..)) => self.enliven(delivery, attempt),
            Some(Progress::Concluded) => Admission::OnRecord,
        }
    }

    /// Counts an attempt as live that an owner before us began.
    pub(crate) fn hold(&mut self, delivery: DeliveryId, attempt: u32) {
        self.live.insert(delivery, attempt);
    }

    /// Takes back an admission: the attempt was not taken on after all.
    pub(crate) fn withdraw(&mut self, delivery: DeliveryId) {
        self.live.remove(&delivery);
    }

    /// How many deliveries are remembered.
    pub(crate) fn len(&self) -> usize {
        self.live.len() + self.on_record()
    }

    fn enliven(&mut self, delivery: DeliveryId, attempt: u32) -> Admission {
        self.live.insert(delivery, attempt);
        Admission::Make
    }

    fn get(&self, delivery: DeliveryId) -> Option<Progress> {
        let known = self.youngest.get(delivery);
        known.or_else(|| self.older.iter().rev().find_map(|run| run.get(delivery)))
    }

    fn on_record(&self) -> usize {
        let runs = self.older.iter().chain(std::iter::once(&self.youngest));
        runs.map(|run| run.entries.len()).sum()
    }

    /// Begins another run once the youngest is full or has covered its part of the window, and drops
    /// what nobody asks for any more.
    fn turn(&mut self, place: Place) {
        let covered = place.at.since(self.youngest.from.at) >= self.window / RUNS;
        let run_max = self.entries_max.min(RUN_MAX);
        let full = self.youngest.entries.len() >= run_max;
        if !covered && !full {
            return;
        }
        self.older.push_back(std::mem::replace(&mut self.youngest, Run::new(place)));
        let end = place.at.saturating_sub(self.window);
        let mut many = self.on_record();
        while let Some(oldest) = self.older.front() {
            let next = self.older.get(1).unwrap_or(&self.youngest);
            let room = self.entries_max.saturating_mul(2).saturating_sub(run_max);
            if next.from.at > end && many <= room {
                return;
            }
            many -= oldest.entries.len();
            self.older.pop_front();
        }
    }
}

impl Run {
    fn new(from: Place) -> Self {
        let (largest, entries) = (DeliveryId::from_bytes([0; 16]), HashMap::default());
        Self { from, largest, entries }
    }

    fn get(&self, delivery: DeliveryId) -> Option<Progress> {
        (delivery <= self.largest).then(|| self.entries.get(&delivery).copied()).flatten()
    }

    fn insert(&mut self, delivery: DeliveryId, progress: Progress) {
        self.largest = self.largest.max(delivery);
        self.entries.insert(delivery, progress);
    }
}

/// Tells whether a second lies ahead, by more than clocks and alarm clocks are apart.
fn is_ahead(second: u32, now: Timestamp) -> bool {
    from_second(second) > now.saturating_add(CLOCKS_APART)
}

fn from_second(second: u32) -> Timestamp {
    Timestamp::from_millis(u64::from(second) * 1_000)
}

/// What a fact of that time says of how far its delivery has come.
fn progress(fact: &Fact, at: Timestamp) -> Option<(DeliveryId, Progress)> {
    match fact {
        Fact::AttemptMade(made) => {
            Some((made.delivery.id, Progress::Next(made.attempt + 1, Wait::None)))
        }
        Fact::DeliveryDeferred(deferred) => {
            let second = u32::try_from(deferred.until.as_secs()).unwrap_or(u32::MAX);
            let has_turn = deferred.reason == DeferReason::RateLimit
                && deferred.until.since(at) <= RESERVED_AHEAD;
            let wait = if has_turn { Wait::Turn(second) } else { Wait::Until(second) };
            Some((deferred.delivery.id, Progress::Next(deferred.attempt, wait)))
        }
        Fact::DeliveryParked(parked) => {
            Some((parked.delivery.id, Progress::Next(parked.attempt, Wait::None)))
        }
        Fact::DeliveryConcluded(concluded) => Some((concluded.delivery.id, Progress::Concluded)),
        Fact::ShardClaimed(_)
        | Fact::ShardReleased(_)
        | Fact::RetryScheduled(_)
        | Fact::EventRouted(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{
        Conclusion, DeliveryRef, EndpointId, EventId,
        fact::{ConclusionReason, DeliveryConcluded, DeliveryDeferred},
    };

    use super::*;

    const START: Place = Place { sequence: 1, at: Timestamp::EPOCH };

    fn delivery(n: u8) -> DeliveryRef {
        let event = EventId::from_bytes([n; 16]);
        let endpoint = EndpointId::from_bytes([1; 16]);
        DeliveryRef {
            id: DeliveryId::of(event, endpoint, 0),
            tenant: "acme".parse().unwrap(),
            event,
            event_sequence: 1,
            event_type: "a.b".parse().unwrap(),
            endpoint,
            generation: 0,
            accepted_at: Timestamp::EPOCH,
        }
    }

    fn concluded(n: u8) -> Fact {
        Fact::DeliveryConcluded(DeliveryConcluded {
            delivery: delivery(n),
            conclusion: Conclusion::Delivered,
            attempts: 1,
            reason: ConclusionReason::Outcome,
        })
    }

    fn deferred(n: u8, attempt: u32) -> Fact {
        Fact::DeliveryDeferred(DeliveryDeferred {
            delivery: delivery(n),
            attempt,
            until: Timestamp::EPOCH,
            reason: DeferReason::LaneFull,
            batch: None,
        })
    }

    fn ledger() -> Ledger {
        Ledger::new(Duration::from_mins(10), 1_000, START)
    }

    fn due(ledger: &mut Ledger, attempt: u32) -> Admission {
        ledger.admit_due(delivery(1).id, attempt, Timestamp::EPOCH)
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    fn put_off(reason: DeferReason, until: u64) -> Fact {
        let delivery = delivery(1);
        let (until, batch) = (at(until), None);
        Fact::DeliveryDeferred(DeliveryDeferred { delivery, attempt: 1, until, reason, batch })
    }

    #[test]
    fn a_copy_that_comes_before_its_time_comes_again() {
        let mut ledger = ledger();
        ledger.record(&put_off(DeferReason::LaneFull, 1_100), Place { sequence: 1, at: at(1_000) });
        let id = delivery(1).id;
        let second = Duration::from_secs(1);
        assert_eq!(ledger.admit_due(id, 1, at(1_000)), Admission::Early(60 * second));
        assert_eq!(ledger.admit_due(id, 1, at(1_090)), Admission::Early(10 * second));
        assert_eq!(ledger.admit_due(id, 1, at(1_099)), Admission::Make);
    }

    #[test]
    fn what_the_rate_limit_put_off_has_its_turn() {
        let id = delivery(1).id;
        for (until, expected) in [(1_060, Admission::Turn), (1_600, Admission::Make)] {
            let mut ledger = ledger();
            let place = Place { sequence: 1, at: at(1_000) };
            ledger.record(&put_off(DeferReason::RateLimit, until), place);
            assert_eq!(ledger.admit_due(id, 1, at(until)), expected);
            assert_eq!(ledger.admit_due(id, 1, at(until)), Admission::Live);
        }
    }

    #[test]
    fn a_task_handed_out_twice_makes_one_attempt() {
        let mut ledger = ledger();
        assert_eq!(ledger.admit_first(delivery(1).id), Admission::Make);
        assert_eq!(ledger.admit_first(delivery(1).id), Admission::Live);
        ledger.record(&concluded(1), START);
        assert_eq!(ledger.admit_first(delivery(1).id), Admission::OnRecord);
    }

    #[test]
    fn a_schedule_fired_twice_makes_one_attempt() {
        let mut ledger = ledger();
        ledger.record(&deferred(1, 2), START);
        assert_eq!(ledger.admit_first(delivery(1).id), Admission::OnRecord);
        assert_eq!(due(&mut ledger, 1), Admission::OnRecord);
        assert_eq!(due(&mut ledger, 2), Admission::Make);
        assert_eq!(due(&mut ledger, 2), Admission::Live);
        assert_eq!(due(&mut ledger, 3), Admission::Early(EARLY_WAIT));
        ledger.record(&deferred(1, 3), START);
        assert_eq!(due(&mut ledger, 2), Admission::OnRecord);
    }

    #[test]
    fn what_an_owner_before_began_is_waited_for() {
        let mut ledger = ledger();
        ledger.hold(delivery(1).id, 2);
        assert_eq!(ledger.admit_first(delivery(1).id), Admission::Live);
        assert_eq!(due(&mut ledger, 2), Admission::Live);
        assert_eq!(due(&mut ledger, 3), Admission::Early(EARLY_WAIT));
        ledger.withdraw(delivery(1).id);
        assert_eq!(due(&mut ledger, 2), Admission::Make);
    }

    #[test]
    fn what_is_within_the_window_is_remembered() {
        let mut ledger = ledger();
        let at = |minutes: u64| Place {
            sequence: minutes,
            at: Timestamp::EPOCH.saturating_add(Duration::from_mins(minutes)),
        };
        ledger.record(&concluded(1), at(100));
        ledger.record(&concluded(2), at(109));
        ledger.record(&concluded(3), at(110));
        assert_eq!(ledger.admit_first(delivery(1).id), Admission::OnRecord);
        ledger.record(&concluded(4), at(120));
        assert_eq!(ledger.admit_first(delivery(3).id), Admission::OnRecord);
        ledger.record(&concluded(5), at(140));
        ledger.record(&concluded(6), at(160));
        assert_eq!(ledger.admit_first(delivery(1).id), Admission::Make);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut ledger = Ledger::new(Duration::from_mins(10), 3, START);
        for n in 0..=255 {
            let place = Place { sequence: u64::from(n), at: at(u64::from(n)) };
            ledger.record(&concluded(n), place);
            assert!(ledger.len() <= 6);
            // What it claims to cover, it knows.
            for known in ledger.covers_from().sequence..=u64::from(n) {
                assert!(ledger.knows(delivery(u8::try_from(known).unwrap()).id), "{known} at {n}");
            }
        }
        assert!(ledger.len() >= 3);
    }

    #[test]
    fn what_is_live_is_never_forgotten() {
        let mut ledger = Ledger::new(Duration::from_mins(10), 2, START);
        assert_eq!(ledger.admit_first(delivery(9).id), Admission::Make);
        for n in 0..8 {
            ledger.record(&concluded(n), START);
        }
        assert_eq!(ledger.admit_first(delivery(9).id), Admission::Live);
        assert!(ledger.len() <= 5);
    }

    #[test]
    fn what_was_forgotten_can_be_recalled() {
        let mut ledger = Ledger::new(Duration::from_mins(10), 1, START);
        for n in 1..5 {
            let place = Place { sequence: u64::from(n), at: Timestamp::EPOCH };
            ledger.record(&concluded(n), place);
        }
        assert!(!ledger.knows(delivery(1).id) && ledger.covers_from().sequence > 1);
        let wanted = BTreeSet::from([delivery(1).id]);
        ledger.recall(&concluded(1), Timestamp::EPOCH, &wanted);
        ledger.recall(&deferred(1, 1), Timestamp::EPOCH, &wanted);
        assert_eq!(ledger.admit_first(delivery(1).id), Admission::OnRecord);
    }
}
