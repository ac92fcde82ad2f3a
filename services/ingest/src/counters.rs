//! What ingest has done, in numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::admit::Reason;

/// Counts since the start of the process, which only grow, and what is in hand.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    duplicates: AtomicU64,
    unavailable: AtomicU64,
    reported: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    reads_inbox: AtomicBool,
    batches: AtomicUsize,
    requests: AtomicUsize,
    request_bytes: AtomicU64,
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

    /// Whether it is this process that reads INBOX.
    pub fn reads_inbox(&self) -> bool {
        self.reads_inbox.load(Ordering::Relaxed)
    }

    /// How many batches of INBOX are being written.
    pub fn batches(&self) -> usize {
        self.batches.load(Ordering::Relaxed)
    }

    /// How many requests are in hand, and their bytes.
    pub fn requests(&self) -> (usize, u64) {
        (self.requests.load(Ordering::Relaxed), self.request_bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn set_reads_inbox(&self, reads: bool) {
        self.reads_inbox.store(reads, Ordering::Relaxed);
    }

    pub(crate) fn set_batches(&self, count: usize) {
        self.batches.store(count, Ordering::Relaxed);
    }

    pub(crate) fn set_requests(&self, count: usize, bytes: u64) {
        self.requests.store(count, Ordering::Relaxed);
        self.request_bytes.store(bytes, Ordering::Relaxed);
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
