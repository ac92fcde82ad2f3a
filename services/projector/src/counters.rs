//! What the projector has done, in numbers.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use fanfare_delivery_log::Progress;
use fanfare_domain::Timestamp;
use fanfare_service::{Clock, Metric, Metrics, metrics::as_f64};

use crate::folding::Limits;

/// Counts since the start of the process, and how far the fold is.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    written: AtomicU64,
    portions: AtomicU64,
    failures: AtomicU64,
    /// Facts, events and rows of the transaction under way, or of the last one.
    portion: AtomicU64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How far the tables are, once that is known.
    progress: Option<Progress>,
    /// Since when something is not in the tables that should be.
    behind_since: Option<Timestamp>,
}

impl Counters {
    /// Notes how far the tables are at the beginning.
    pub(crate) fn begin(&self, progress: Progress) {
        self.lock().progress = Some(progress);
    }

    /// Notes that there is so much to write in one transaction.
    pub(crate) fn note_portion(&self, count: usize) {
        self.portion.store(u64::try_from(count).unwrap_or(u64::MAX), Relaxed);
    }

    /// Notes that there is something to write, which was stored at that time.
    pub(crate) fn note_read(&self, oldest: Option<Timestamp>) {
        let mut state = self.lock();
        state.behind_since = state.behind_since.or(oldest);
    }

    /// Notes that it was written, so many facts and events, and how far the tables are.
    pub(crate) fn note_written(&self, count: usize, progress: Progress) {
        self.written.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Relaxed);
        self.portions.fetch_add(1, Relaxed);
        *self.lock() = State { progress: Some(progress), behind_since: None };
    }

    /// Notes that it was waited for something to write, and nothing came: all is in the tables.
    pub(crate) fn note_idle(&self) {
        self.lock().behind_since = None;
    }

    /// Notes that the database or the streams refused something.
    pub(crate) fn note_failure(&self, now: Timestamp) {
        self.failures.fetch_add(1, Relaxed);
        self.note_read(Some(now));
    }

    /// Notes that another projector writes: what is behind is not ours to tell.
    pub(crate) fn stand_by(&self) {
        self.note_portion(0);
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is counted: its name, what it counts, what it means, and where it is.
type Counted = (&'static str, &'static str, &'static str, fn(&Counters) -> &AtomicU64);

/// Has everything read.
pub(crate) fn register(
    metrics: &Metrics,
    counters: &Arc<Counters>,
    (clock, limits): (Arc<dyn Clock>, Limits),
) {
    portions(metrics, counters, limits);
    let counted: [Counted; 3] = [
        (
            "fanfare.projector.written",
            "{record}",
            "Facts and events that were written to the delivery log.",
            |it| &it.written,
        ),
        (
            "fanfare.projector.transactions",
            "{transaction}",
            "Transactions in which they were written.",
            |it| &it.portions,
        ),
        (
            "fanfare.projector.failures",
            "{failure}",
            "Times that the database could not be written to.",
            |it| &it.failures,
        ),
    ];
    for (name, unit, help, of) in counted {
        let all = Arc::clone(counters);
        metrics.counter(Metric::new(name, unit, help), move || of(&all).load(Relaxed));
    }
    let all = Arc::clone(counters);
    metrics.family(
        Metric::new(
            "fanfare.projector.sequence",
            "",
            "The sequence of a stream up to which the delivery log has it.",
        ),
        move |tell| {
            let Some(Progress { events, journal, config }) = all.lock().progress else { return };
            let folded = [("EVENTS", events), ("JOURNAL", journal), ("CONFIG", config)];
            for (stream, sequence) in folded {
                let sequence = as_f64(usize::try_from(sequence).unwrap_or(usize::MAX));
                tell(&[("stream", stream)], sequence);
            }
        },
    );
    let all = Arc::clone(counters);
    metrics.gauge(
        Metric::new(
            "fanfare.projector.lag",
            "s",
            "How old the oldest fact or event is that the delivery log should have by now.",
        ),
        move || {
            let since = all.lock().behind_since;
            since.map(|since| clock.now().since(since)).unwrap_or_default().as_secs_f64()
        },
    );
}

/// How full transactions are.
fn portions(metrics: &Metrics, counters: &Arc<Counters>, limits: Limits) {
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.projector.portion",
            "{record}",
            "Facts and events, or rows if they are more, of the transaction under way or of the \
             last one.",
        ),
        move || usize::try_from(all.portion.load(Relaxed)).unwrap_or(usize::MAX),
    );
    metrics.level(
        Metric::new(
            "fanfare.projector.portion.limit",
            "{record}",
            "How many make a transaction full (batch_max); the rest is read later. The last fact may \
             go beyond it.",
        ),
        move || limits.count,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_grows_old() {
        let counters = Counters::default();
        let [first, second] = [1, 2].map(Timestamp::from_millis);
        let behind = || counters.lock().behind_since;
        counters.note_read(None);
        assert_eq!(behind(), None);
        counters.note_read(Some(first));
        counters.note_failure(second);
        assert_eq!(behind(), Some(first), "the oldest counts");
        counters.note_written(3, Progress { events: 1, journal: 2, config: 0 });
        assert_eq!(behind(), None);
        counters.note_failure(second);
        assert_eq!(behind(), Some(second));
        counters.begin(Progress { events: 1, journal: 2, config: 0 });
        assert_eq!(behind(), Some(second), "nobody knows yet whether there is something to write");
        counters.note_idle();
        assert_eq!(behind(), None, "there is nothing");
        counters.note_failure(second);
        counters.stand_by();
        assert_eq!((behind(), counters.lock().progress), (None, None));
        assert_eq!(counters.failures.load(Relaxed), 3);
    }
}
