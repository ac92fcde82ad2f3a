//! How much a process holds in memory: deliveries of tasks, deliveries that are due, and bytes of
//! events, each with a limit of its own, over all shards.
//!
//! What does not fit is not taken. A delivery counts from when it is taken until its facts are on
//! record; an event's data counts once for all deliveries of its task. The data of an event that
//! is read again for a due delivery counts too, but is not refused: the requests in flight limit
//! it. No shard can take it all: each holds less than twice what it leaves free.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// How many deliveries a shard may hold whatever the others hold, if there is room.
const SHARD_MIN: usize = 64;

/// The limits of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Deliveries of tasks, and due ones each.
    pub(crate) deliveries: usize,
    /// Bytes of events.
    pub(crate) bytes: usize,
}

/// What a delivery came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A task: a first attempt.
    Task,
    /// A due message.
    Due,
}

/// What is held at a moment, for gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Deliveries of tasks.
    pub(crate) tasks: usize,
    /// Deliveries that were due.
    pub(crate) due: usize,
    /// Bytes of events.
    pub(crate) bytes: usize,
}

/// The memory of a process.
#[derive(Debug)]
pub(crate) struct Memory {
    limits: Limits,
    held: Mutex<Held>,
}

/// The part of the memory that one shard uses.
#[derive(Debug)]
pub(crate) struct Ration {
    memory: Arc<Memory>,
    tasks: Arc<AtomicUsize>,
    due: Arc<AtomicUsize>,
}

/// The room of one delivery.
#[derive(Debug)]
pub(crate) struct Place {
    memory: Arc<Memory>,
    source: Source,
    shard: Arc<AtomicUsize>,
}

/// The room of an event.
#[derive(Debug)]
pub(crate) struct Bytes {
    memory: Arc<Memory>,
    count: usize,
}

impl Memory {
    /// Nothing is held yet.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, held: Mutex::default() })
    }

    /// What is held.
    pub(crate) fn held(&self) -> Held {
        *self.lock()
    }

    /// What may be held.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The part of one shard, which holds nothing yet.
    pub(crate) fn ration(self: &Arc<Self>) -> Ration {
        Ration { memory: Arc::clone(self), tasks: Arc::default(), due: Arc::default() }
    }

    /// Counts an event that is in memory already.
    pub(crate) fn count(self: &Arc<Self>, count: usize) -> Bytes {
        self.lock().bytes += count;
        Bytes { memory: Arc::clone(self), count }
    }

    /// How many more bytes of events there is room for.
    pub(crate) fn room_bytes(&self) -> usize {
        self.limits.bytes.saturating_sub(self.held().bytes)
    }

    /// How full it is, in eighths.
    pub(crate) fn fullness(&self) -> usize {
        let (held, limits) = (self.held(), self.limits);
        let deliveries = held.tasks.max(held.due) * 8 / limits.deliveries.max(1);
        let bytes = held.bytes.saturating_mul(8) / limits.bytes.max(1);
        deliveries.max(bytes).min(8)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Counters that a panic left behind are whole: each change is one addition.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self, source: Source, held: &Held, mine: usize) -> usize {
        if held.bytes >= self.limits.bytes {
            return 0;
        }
        let all = match source {
            Source::Task => held.tasks,
            Source::Due => held.due,
        };
        let free = self.limits.deliveries.saturating_sub(all);
        let share = free.saturating_mul(2).max(SHARD_MIN).saturating_sub(mine);
        free.min(share)
    }
}

impl Ration {
    /// How many more deliveries the shard may take.
    pub(crate) fn room(&self, source: Source) -> usize {
        let mine = self.counter(source).load(Relaxed);
        self.memory.room(source, &self.memory.lock(), mine)
    }

    /// Takes room for deliveries, and for the event that they share; `None` if it does not fit.
    ///
    /// What is larger than everything fits if nothing else is there, so that it can be sent at
    /// all.
    pub(crate) fn take(
        &self,
        source: Source,
        deliveries: usize,
        bytes: usize,
    ) -> Option<(Vec<Place>, Bytes)> {
        let counter = self.counter(source);
        let mut held = self.memory.lock();
        let room = self.memory.room(source, &held, counter.load(Relaxed));
        let fits = held.bytes == 0 || held.bytes.saturating_add(bytes) <= self.memory.limits.bytes;
        if deliveries > room || !fits {
            return None;
        }
        held.bytes += bytes;
        match source {
            Source::Task => held.tasks += deliveries,
            Source::Due => held.due += deliveries,
        }
        counter.fetch_add(deliveries, Relaxed);
        let place =
            || Place { memory: Arc::clone(&self.memory), source, shard: Arc::clone(counter) };
        let places = std::iter::repeat_with(place).take(deliveries).collect();
        Some((places, Bytes { memory: Arc::clone(&self.memory), count: bytes }))
    }

    fn counter(&self, source: Source) -> &Arc<AtomicUsize> {
        match source {
            Source::Task => &self.tasks,
            Source::Due => &self.due,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.memory.lock();
        self.shard.fetch_sub(1, Relaxed);
        match self.source {
            Source::Task => held.tasks = held.tasks.saturating_sub(1),
            Source::Due => held.due = held.due.saturating_sub(1),
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        let mut held = self.memory.lock();
        held.bytes = held.bytes.saturating_sub(self.count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memory(deliveries: usize, bytes: usize) -> Arc<Memory> {
        Memory::new(Limits { deliveries, bytes })
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let memory = memory(100, 1_000);
        let ration = memory.ration();
        let first = ration.take(Source::Task, 32, 900).unwrap();
        assert!(ration.take(Source::Task, 1, 101).is_none());
        assert!(ration.take(Source::Task, 69, 0).is_none());
        assert_eq!(memory.held(), Held { tasks: 32, due: 0, bytes: 900 });
        drop(first);
        assert_eq!(memory.held(), Held::default());
        assert!(ration.take(Source::Task, 1, 5_000).is_some(), "alone, it fits");
    }

    #[test]
    fn a_storm_of_due_ones_leaves_the_tasks_their_room() {
        let memory = memory(100, 1_000);
        let ration = memory.ration();
        let mut due = Vec::new();
        while let Some(one) = ration.take(Source::Due, 1, 0) {
            due.push(one);
        }
        assert_eq!(ration.room(Source::Due), 0);
        assert!(ration.room(Source::Task) >= SHARD_MIN);
    }

    #[test]
    fn a_shard_that_is_flooded_leaves_room_to_the_others() {
        let memory = memory(3_000, usize::MAX);
        let (flooded, quiet) = (memory.ration(), memory.ration());
        let held: Vec<_> = std::iter::from_fn(|| flooded.take(Source::Task, 1, 0)).collect();
        assert_eq!(held.len(), 2_000);
        assert_eq!(quiet.room(Source::Task), 1_000);
        assert_eq!(memory.fullness(), 5);
    }

    proptest! {
        #[test]
        fn the_limits_are_never_exceeded(
            steps in prop::collection::vec((any::<bool>(), 0_usize..3, 1_usize..33, 0_usize..400), 0..200),
        ) {
            let memory = memory(256, 1_000);
            let rations = [memory.ration(), memory.ration(), memory.ration()];
            let mut taken = Vec::new();
            for (give, shard, deliveries, bytes) in steps {
                if give {
                    taken.pop();
                } else if let Some(one) = rations[shard].take(Source::Task, deliveries, bytes) {
                    taken.push(one);
                }
                let held = memory.held();
                prop_assert!(held.tasks <= 256 && held.bytes <= 1_000);
                let expected = taken.iter().map(|(places, _)| places.len()).sum::<usize>();
                prop_assert_eq!(held.tasks, expected);
            }
            taken.clear();
            prop_assert_eq!(memory.held(), Held::default());
        }
    }
}
