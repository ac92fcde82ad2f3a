//! What fan-out has done, in numbers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fanfare_service::Histogram;

use crate::routes::Matches;

/// Counts since the start of the process. All only grow but for the batches, the events whose filters
/// take long, and what replays have.
#[derive(Debug, Default)]
pub struct Counters {
    events: AtomicU64,
    repeated: AtomicU64,
    deliveries: AtomicU64,
    skipped: AtomicU64,
    fed: AtomicU64,
    replayed: AtomicU64,
    handed_back: AtomicU64,
    batches: AtomicUsize,
    costly: AtomicUsize,
    replays: AtomicUsize,
    surveyed: AtomicUsize,
    conditions_asked: AtomicU64,
    conditions_failed: AtomicU64,
}

impl Counters {
    /// How many events were routed.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// How many events came again whose routing was on record.
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// How many deliveries there were, by the way in which they go to their endpoints: a task, a
    /// feed, a task of a replay, or nothing because the endpoint was paused to skip.
    pub fn deliveries(&self) -> [(&'static str, u64); 4] {
        [
            ("task", &self.deliveries),
            ("feed", &self.fed),
            ("replay", &self.replayed),
            ("skipped", &self.skipped),
        ]
        .map(|(way, count)| (way, count.load(Ordering::Relaxed)))
    }

    /// How many events were handed back because the limits of their tenants were out of reach.
    pub fn handed_back(&self) -> u64 {
        self.handed_back.load(Ordering::Relaxed)
    }

    /// How many batches are being written at this moment.
    pub fn batches(&self) -> usize {
        self.batches.load(Ordering::Relaxed)
    }

    pub(crate) fn set_batches(&self, count: usize) {
        self.batches.store(count, Ordering::Relaxed);
    }

    /// How many events wait for their tenant's turn or have it, because their filters take long.
    pub fn costly(&self) -> usize {
        self.costly.load(Ordering::Relaxed)
    }

    pub(crate) fn set_costly(&self, count: usize) {
        self.costly.store(count, Ordering::Relaxed);
    }

    /// How many replays this process runs, and how many deliveries it remembers for them.
    pub(crate) fn replays(&self) -> (usize, usize) {
        (self.replays.load(Ordering::Relaxed), self.surveyed.load(Ordering::Relaxed))
    }

    pub(crate) fn set_replays(&self, count: usize, surveyed: usize) {
        self.replays.store(count, Ordering::Relaxed);
        self.surveyed.store(surveyed, Ordering::Relaxed);
    }

    /// Counts deliveries that a replay has made.
    pub(crate) fn count_replayed(&self, deliveries: usize) {
        let deliveries = u64::try_from(deliveries).unwrap_or(u64::MAX);
        self.replayed.fetch_add(deliveries, Ordering::Relaxed);
    }

    /// Counts an event whose routing was just put on record.
    pub(crate) fn count_routed(&self, matches: &Matches, width: &Histogram) {
        let add = |all: &AtomicU64, more: usize| {
            all.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed)
        };
        add(&self.events, 1);
        add(&self.deliveries, matches.targets.len());
        add(&self.skipped, matches.skipped.len());
        add(&self.fed, matches.fed.len());
        width.count(matches.targets.len() + matches.fed.len());
    }

    pub(crate) fn count_repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_handed_back(&self, events: usize) {
        self.handed_back.fetch_add(u64::try_from(events).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

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
