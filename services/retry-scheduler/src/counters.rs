//! What the service counts, for metrics and for tests.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_domain::Shard;

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
    /// Deliveries above whose failed attempts no spans were made afterwards.
    pub spans_left_out: Count,
    /// Deliveries that wait for their time, at this moment.
    pub waiting: Count,
    /// Deliveries that wait for their endpoint to be resumed, at this moment.
    pub parked: Count,
    levels: Mutex<BTreeMap<Shard, Levels>>,
}

/// A number that several tasks may look at.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

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

/// What a shard has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Deliveries that wait for their time.
    pub(crate) waiting: usize,
    /// Deliveries that wait for their endpoint.
    pub(crate) parked: usize,
    /// Facts, alarms and notices on their way.
    pub(crate) under_way: usize,
    /// How many may be.
    pub(crate) under_way_max: usize,
    /// How long ago the oldest alarm should have gone off, if that is longer than the grace.
    pub(crate) past_due: Duration,
}

/// One shard's part in the numbers that go up and down. Dropped, it takes its part away.
#[derive(Debug)]
pub(crate) struct Gauges {
    counters: Arc<Counters>,
    shard: Shard,
    said: Levels,
}

impl Gauges {
    /// Begins with nothing.
    pub(crate) fn of(counters: &Arc<Counters>, shard: Shard) -> Self {
        Self { counters: Arc::clone(counters), shard, said: Levels::default() }
    }

    /// Says what the shard has to do.
    pub(crate) fn set(&mut self, levels: Levels) {
        self.count(levels);
        self.counters.lock().insert(self.shard, levels);
    }

    fn count(&mut self, levels: Levels) {
        self.counters.waiting.replace(self.said.waiting, levels.waiting);
        self.counters.parked.replace(self.said.parked, levels.parked);
        self.said = levels;
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.count(Levels::default());
        self.counters.lock().remove(&self.shard);
    }
}

impl Counters {
    /// How many shards the process has.
    pub(crate) fn shards(&self) -> usize {
        self.lock().len()
    }

    /// What all shards have together.
    pub(crate) fn sum(&self, of: impl Fn(&Levels) -> usize) -> usize {
        self.lock().values().map(of).sum()
    }

    /// How long ago the oldest alarm of any shard should have gone off.
    pub(crate) fn past_due(&self) -> Duration {
        self.lock().values().map(|levels| levels.past_due).max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Shard, Levels>> {
        // Each entry is written as a whole.
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up_and_are_forgotten() {
        let counters = Arc::new(Counters::default());
        let mut gauges = [1, 2].map(|shard| Gauges::of(&counters, Shard::from_index(shard)));
        let levels = |waiting, parked, seconds| Levels {
            waiting,
            parked,
            past_due: Duration::from_secs(seconds),
            ..Levels::default()
        };
        gauges[0].set(levels(9, 1, 3));
        gauges[1].set(levels(2, 0, 7));
        gauges[0].set(levels(5, 1, 3));
        assert_eq!((counters.waiting.get(), counters.parked.get()), (7, 1));
        assert_eq!((counters.shards(), counters.sum(|it| it.waiting)), (2, 7));
        assert_eq!(counters.past_due(), Duration::from_secs(7));
        drop(gauges);
        assert_eq!((counters.waiting.get(), counters.parked.get()), (0, 0));
        assert_eq!((counters.shards(), counters.past_due()), (0, Duration::ZERO));
    }
}
