//! What is on record about recent deliveries, so that a message handed out twice makes no
//! second attempt.
//!
//! A fold over the shard's facts. It covers at least a window of journal time; what is older
//! can no longer be handed out again, because its messages were settled long before.

#[cfg(test)]
mod tests;

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
