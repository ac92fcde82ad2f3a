//! What ingest has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::admit::Reason;

/// Counts since the start of the process. All only grow.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    duplicates: AtomicU64,
    unavailable: AtomicU64,
    reported: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    /// How many events were stored.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many messages and requests repeated an event that was stored before.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// How many requests were answered that they may be repeated later.
    pub fn unavailable(&self) -> u64 {
        self.unavailable.load(Ordering::Relaxed)
    }

    /// How many events were taken though they do not follow the schema of their type.
    pub fn reported(&self) -> u64 {
        self.reported.load(Ordering::Relaxed)
    }

    /// How many messages and requests were refused, by the stable name of the reason.
    pub fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Reason::ALL.into_iter().map(Reason::as_str);
        names.zip(self.rejected.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_duplicate(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_unavailable(&self) {
        self.unavailable.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts, and returns how many there are.
    pub(crate) fn count_reported(&self) -> u64 {
        self.reported.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn count_rejected(&self, reason: Reason) {
        if let Some(count) = self.rejected.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_of_its_own() {
        let counters = Counters::default();
        for reason in Reason::ALL {
            counters.count_rejected(reason);
        }
        assert!(counters.rejected().all(|(_, count)| count == 1));
        assert_eq!(counters.rejected().last(), Some(("internal_error", 1)));
    }
}
