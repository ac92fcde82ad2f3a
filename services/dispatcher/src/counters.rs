//! What the dispatcher has done and holds, in numbers.
//!
//! What was done is counted once it is on record, a batch of facts at a time: an addition for each
//! fact. What a shard holds it says once a second.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fanfare_domain::{
    Conclusion, Fact, Fault, Outcome, Record, Shard,
    fact::{AttemptMade, DeferReason},
};
use fanfare_service::Histogram;

use crate::{lanes::Levels, permits::Standing};

/// What came of attempts: first what endpoints answered, then [`Fault::ALL`].
const ANSWERS: [&str; 7] = [
    "accepted",
    "refused_1xx",
    "refused_2xx",
    "refused_3xx",
    "refused_4xx",
    "refused_429",
    "refused_5xx",
];
const CLASSES: usize = ANSWERS.len() + Fault::ALL.len();

const CONCLUSIONS: [Conclusion; 4] =
    [Conclusion::Delivered, Conclusion::Exhausted, Conclusion::Refused, Conclusion::Cancelled];

/// Counts since the start of the process, and what its shards hold.
pub(crate) struct Counters {
    attempts: [AtomicU64; CLASSES],
    conclusions: [AtomicU64; CONCLUSIONS.len()],
    deferrals: [AtomicU64; DeferReason::ALL.len()],
    parked: AtomicU64,
    pub(crate) times: Times,
    held: Mutex<BTreeMap<Shard, ShardLevels>>,
}

/// How long things take.
pub(crate) struct Times {
    /// From an event's acceptance to the first attempt of a delivery.
    pub(crate) first_attempt: Histogram,
    /// From an event's acceptance to the end of a delivery.
    pub(crate) conclusion: Histogram,
    /// From the beginning of an attempt to its answer.
    pub(crate) attempt: Histogram,
}

/// What a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardLevels {
    /// In its lanes.
    pub(crate) lanes: Levels,
    /// Waiting for the time that a tenant's rate limit keeps.
    pub(crate) early: usize,
    /// Tasks and due messages that are not settled.
    pub(crate) unsettled: [usize; 2],
    /// Deliveries whose facts wait to be written.
    pub(crate) unrecorded: usize,
    /// Endpoints that are fed.
    pub(crate) feeds: usize,
}

/// A shard's word about what it holds. Taken back when it is dropped.
pub(crate) struct Gauges {
    counters: Arc<Counters>,
    shard: Shard,
}

impl Counters {
    /// Nothing is counted yet.
    pub(crate) fn new(times: Times) -> Arc<Self> {
        Arc::new(Self {
            attempts: [const { AtomicU64::new(0) }; CLASSES],
            conclusions: [const { AtomicU64::new(0) }; CONCLUSIONS.len()],
            deferrals: [const { AtomicU64::new(0) }; DeferReason::ALL.len()],
            parked: AtomicU64::new(0),
            times,
            held: Mutex::default(),
        })
    }

    /// Counts facts that are on record.
    pub(crate) fn note(&self, records: &[Record]) {
        for record in records {
            match &record.fact {
                Fact::AttemptMade(made) => self.note_attempt(made),
                Fact::DeliveryConcluded(end) => {
                    let at = CONCLUSIONS.iter().position(|it| *it == end.conclusion);
                    count(&self.conclusions, at);
                    self.times.conclusion.time(record.recorded_at.since(end.delivery.accepted_at));
                }
                Fact::DeliveryDeferred(deferred) => {
                    let at = DeferReason::ALL.iter().position(|it| *it == deferred.reason);
                    count(&self.deferrals, at);
                }
                Fact::DeliveryParked(_) => {
                    self.parked.fetch_add(1, Relaxed);
                }
                Fact::ShardClaimed(_)
                | Fact::ShardReleased(_)
                | Fact::RetryScheduled(_)
                | Fact::EventRouted(_) => {}
            }
        }
    }

    fn note_attempt(&self, made: &AttemptMade) {
        count(&self.attempts, Some(class(&made.outcome)));
        self.times.attempt.time(made.duration);
        if made.attempt == 1 {
            self.times.first_attempt.time(made.started_at.since(made.delivery.accepted_at));
        }
    }

    /// Attempts by what came of them.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = ANSWERS.into_iter().chain(Fault::ALL.map(Fault::as_str));
        names.zip(counts(&self.attempts))
    }

    /// Deliveries that have ended, by how.
    pub(crate) fn conclusions(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CONCLUSIONS.map(Conclusion::as_str).into_iter().zip(counts(&self.conclusions))
    }

    /// Attempts that were put off, by why.
    pub(crate) fn deferrals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DeferReason::ALL.map(DeferReason::as_str).into_iter().zip(counts(&self.deferrals))
    }

    /// Deliveries that were parked.
    pub(crate) fn parked(&self) -> u64 {
        self.parked.load(Relaxed)
    }

    /// How many shards the process has.
    pub(crate) fn shards(&self) -> usize {
        self.lock().len()
    }

    /// What all shards hold together.
    pub(crate) fn sum(&self, of: impl Fn(&ShardLevels) -> usize) -> usize {
        self.lock().values().map(of).sum()
    }

    /// How long the longest waits that nothing but this process holds back, by the standing of its lane.
    pub(crate) fn past_due(&self) -> impl Iterator<Item = (Standing, Duration)> {
        let mut longest = [Duration::ZERO; Standing::ALL.len()];
        for levels in self.lock().values() {
            for (longest, waits) in longest.iter_mut().zip(levels.lanes.past_due) {
                *longest = waits.max(*longest);
            }
        }
        Standing::ALL.into_iter().zip(longest)
    }

    /// Lets a shard say what it holds.
    pub(crate) fn gauges(self: &Arc<Self>, shard: Shard) -> Gauges {
        Gauges { counters: Arc::clone(self), shard }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Shard, ShardLevels>> {
        // Each entry is written as a whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gauges {
    /// Says what the shard holds now.
    pub(crate) fn set(&self, levels: ShardLevels) {
        self.counters.lock().insert(self.shard, levels);
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.counters.lock().remove(&self.shard);
    }
}

impl Times {
    /// Nobody reads them.
    #[cfg(test)]
    fn untold() -> Self {
        use fanfare_service::{Metric, Metrics, metrics::SOON};
        let make = |name| Metrics::default().histogram(Metric::new(name, "s", ""), SOON);
        Self { first_attempt: make("a"), conclusion: make("b"), attempt: make("c") }
    }
}

/// The place of an outcome among the classes.
fn class(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Accepted { .. } => 0,
        Outcome::Refused { status, .. } => match status {
            100..200 => 1,
            200..300 => 2,
            300..400 => 3,
            429 => 5,
            400..500 => 4,
            _ => 6,
        },
        Outcome::Failed(fault) => {
            let at = Fault::ALL.iter().position(|it| it == fault);
            ANSWERS.len() + at.unwrap_or_default()
        }
    }
}

fn count(counts: &[AtomicU64], at: Option<usize>) {
    if let Some(count) = at.and_then(|at| counts.get(at)) {
        count.fetch_add(1, Relaxed);
    }
}

fn counts(counts: &[AtomicU64]) -> impl Iterator<Item = u64> {
    counts.iter().map(|count| count.load(Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_class_of_its_own() {
        let counters = Counters::new(Times::untold());
        let refused = |status| Outcome::Refused { status, retry_after: None };
        for (outcome, name) in [
            (Outcome::Accepted { status: 204 }, "accepted"),
            (refused(202), "refused_2xx"),
            (refused(302), "refused_3xx"),
            (refused(429), "refused_429"),
            (refused(410), "refused_4xx"),
            (refused(503), "refused_5xx"),
        ]
        .into_iter()
        .chain(Fault::ALL.map(|fault| (Outcome::Failed(fault), fault.as_str())))
        {
            let before: BTreeMap<_, _> = counters.attempts().collect();
            count(&counters.attempts, Some(class(&outcome)));
            let grown =
                |(class, after): (&'static str, u64)| (after > before[class]).then_some(class);
            let grown: Vec<_> = counters.attempts().filter_map(grown).collect();
            assert_eq!(grown, [name]);
        }
    }

    #[test]
    fn of_all_shards_the_attempt_counts_that_waits_longest_for_each_standing() {
        let counters = Counters::new(Times::untold());
        let gauges = [0, 1].map(|shard| counters.gauges(Shard::from_index(shard)));
        for (gauges, seconds) in gauges.iter().zip([[1, 0, 9], [4, 0, 2]]) {
            let lanes = Levels { past_due: seconds.map(Duration::from_secs), ..Levels::default() };
            gauges.set(ShardLevels { lanes, ..ShardLevels::default() });
        }
        let found: Vec<_> = counters
            .past_due()
            .map(|(standing, waits)| (standing.as_str(), waits.as_secs()))
            .collect();
        assert_eq!(found, [("new", 4), ("proven", 0), ("slow", 9)]);
    }

    #[test]
    fn what_a_shard_holds_is_forgotten_with_it() {
        let counters = Counters::new(Times::untold());
        let gauges = [0, 1].map(|shard| counters.gauges(Shard::from_index(shard)));
        for (gauges, early) in gauges.iter().zip([2, 3]) {
            gauges.set(ShardLevels { early, ..ShardLevels::default() });
        }
        assert_eq!((counters.shards(), counters.sum(|it| it.early)), (2, 5));
        drop(gauges);
        assert_eq!((counters.shards(), counters.sum(|it| it.early)), (0, 0));
    }
}
