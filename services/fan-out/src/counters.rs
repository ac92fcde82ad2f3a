//! What fan-out has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start of the process. All only grow.
#[derive(Debug, Default)]
pub struct Counters {
    conditions_asked: AtomicU64,
    conditions_failed: AtomicU64,
}

impl Counters {
    /// How many times an endpoint's condition was asked about an event.
    pub fn conditions_asked(&self) -> u64 {
        self.conditions_asked.load(Ordering::Relaxed)
    }

    /// How many times it gave no answer, which counts as if it did not hold.
    pub fn conditions_failed(&self) -> u64 {
        self.conditions_failed.load(Ordering::Relaxed)
    }

    pub(crate) fn count_asked(&self) {
        self.conditions_asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts, and returns how many there are.
    pub(crate) fn count_failed(&self) -> u64 {
        self.conditions_failed.fetch_add(1, Ordering::Relaxed) + 1
    }
}
