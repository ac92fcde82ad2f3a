//! What the service counts, for metrics and for tests.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What the service counts since it was started. Shared; reading it costs nothing.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches of the journal that were folded in.
    pub batches: Count,
    /// Attempts that were given their time.
    pub plans: Count,
    /// Alarm clocks that were set.
    pub alarms: Count,
    /// Alarm clocks that had not gone off and were set again. 0 in normal runs.
    pub rescues: Count,
    /// Alarm clocks that were stopped.
    pub cancels: Count,
    /// Exhausted deliveries that operators were told of.
    pub exhausted: Count,
    /// Endpoints that were disabled.
    pub disabled: Count,
    /// Deliveries that wait for their time, at this moment.
    pub waiting: Count,
    /// Deliveries that wait for their endpoint to be resumed, at this moment.
    pub parked: Count,
}

/// A number that several tasks may look at.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// A number under the name that it has in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its name; those that end in `_total` only grow.
    pub name: &'static str,
    /// What it is, for people.
    pub help: &'static str,
    /// The number.
    pub value: u64,
}

impl Count {
    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn replace(&self, before: usize, after: usize) {
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.0.fetch_add(number(after).wrapping_sub(number(before)), Ordering::Relaxed);
    }
}

/// One shard's part in the numbers that go up and down. Dropped, it takes its part away.
#[derive(Debug)]
pub(crate) struct Gauges {
    counters: Arc<Counters>,
    waiting: usize,
    parked: usize,
}

impl Gauges {
    /// Begins with nothing.
    pub(crate) fn of(counters: &Arc<Counters>) -> Self {
        Self { counters: Arc::clone(counters), waiting: 0, parked: 0 }
    }

    /// Says how many of the shard's deliveries wait, for their time and for their endpoints.
    pub(crate) fn set(&mut self, waiting: usize, parked: usize) {
        self.counters.waiting.replace(self.waiting, waiting);
        self.counters.parked.replace(self.parked, parked);
        (self.waiting, self.parked) = (waiting, parked);
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

impl Counters {
    /// Returns every number under its name.
    pub fn samples(&self) -> [Sample; 9] {
        let sample = |name, help, count: &Count| Sample { name, help, value: count.get() };
        [
            sample(
                "fanfare_retry_scheduler_batches_total",
                "Batches of the journal that were folded in.",
                &self.batches,
            ),
            sample(
                "fanfare_retry_scheduler_plans_total",
                "Attempts that were given their time.",
                &self.plans,
            ),
            sample(
                "fanfare_retry_scheduler_alarms_total",
                "Scheduled messages that were stored.",
                &self.alarms,
            ),
            sample(
                "fanfare_retry_scheduler_rescues_total",
                "Scheduled messages that had not fired and were published again.",
                &self.rescues,
            ),
            sample(
                "fanfare_retry_scheduler_cancels_total",
                "Scheduled messages that were cancelled.",
                &self.cancels,
            ),
            sample(
                "fanfare_retry_scheduler_exhausted_total",
                "Exhausted deliveries that operators were told of.",
                &self.exhausted,
            ),
            sample(
                "fanfare_retry_scheduler_disabled_total",
                "Endpoints that were disabled.",
                &self.disabled,
            ),
            sample(
                "fanfare_retry_scheduler_waiting",
                "Deliveries that wait for their time.",
                &self.waiting,
            ),
            sample(
                "fanfare_retry_scheduler_parked",
                "Deliveries that wait for their endpoint to be resumed.",
                &self.parked,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_number_has_a_name_of_its_own() {
        let counters = Counters::default();
        counters.rescues.add(2);
        let counters = Arc::new(counters);
        let mut gauges = [Gauges::of(&counters), Gauges::of(&counters)];
        gauges[0].set(9, 1);
        gauges[1].set(2, 0);
        gauges[0].set(5, 1);
        let samples = counters.samples();
        let names: BTreeSet<_> = samples.iter().map(|sample| sample.name).collect();
        assert_eq!(names.len(), samples.len());
        let value = |name: &str| samples.iter().find(|it| it.name.ends_with(name)).unwrap().value;
        assert_eq!((value("_rescues_total"), value("_waiting"), value("_plans_total")), (2, 7, 0));
        drop(gauges);
        assert_eq!((counters.waiting.get(), counters.parked.get()), (0, 0));
    }
}
