//! Many spans that are told of at once, such as those of an event for thousands of endpoints.
//!
//! They take one place in the queue and are made by the exporter, so that whoever tells of them does
//! not spend the time, and others' spans find room. How many may wait to be made is bounded: what
//! they are made from is in memory. So whoever makes a series puts into it what its spans say, and
//! nothing that is larger.

use std::sync::{Arc, atomic::Ordering};

use fanfare_domain::trace::span::Span;

use super::Counts;

/// How many spans may wait to be made, of all series together, for each place in the queue. One
/// series may be longer.
const WAITING_FOR_EACH_PLACE: usize = 4;

/// How many spans may wait to be made, where the queue has so many places.
pub(super) const fn waiting_max(places: usize) -> usize {
    places.saturating_mul(WAITING_FOR_EACH_PLACE)
}

/// Spans that are made one after the other.
pub(super) struct Series {
    counts: Arc<Counts>,
    /// How many are counted as waiting.
    waiting: usize,
    spans: Box<dyn Iterator<Item = Span> + Send>,
}

impl Series {
    /// Tells whether so many more may wait, where the queue has so many places.
    pub(super) fn has_room(counts: &Counts, more: usize, places: usize) -> bool {
        let waiting = counts.in_series.load(Ordering::Relaxed);
        waiting == 0 || waiting.saturating_add(more) <= waiting_max(places)
    }

    /// Makes a series of so many spans.
    pub(super) fn new(
        counts: Arc<Counts>,
        count: usize,
        spans: Box<dyn Iterator<Item = Span> + Send>,
    ) -> Self {
        counts.in_series.fetch_add(count, Ordering::Relaxed);
        Self { counts, waiting: count, spans }
    }
}

impl Iterator for Series {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let span = self.spans.next()?;
        if self.waiting > 0 {
            self.waiting -= 1;
            self.counts.in_series.fetch_sub(1, Ordering::Relaxed);
        }
        Some(span)
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.counts.in_series.fetch_sub(self.waiting, Ordering::Relaxed);
    }
}
