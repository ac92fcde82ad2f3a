//! How far an attempt is, for those who have to know whether its request can still be stopped.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

use fanfare_domain::Timestamp;

/// Nothing is being sent.
const IDLE: u64 = 0;

/// Nothing may be sent any more.
const CLOSED: u64 = u64::MAX;

/// Whether a request is being sent, and by when it ends. Shared by the attempt, and the shard's
/// worker that may give the shard away meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    /// Notes that a request is about to be sent; tells whether it may be.
    pub(crate) fn begin(&self, ends_by: Timestamp) -> bool {
        let ends_by = ends_by.as_nanos().clamp(IDLE + 1, CLOSED - 1);
        let begun = self.0.fetch_update(AcqRel, Acquire, |it| (it != CLOSED).then_some(ends_by));
        begun.is_ok()
    }

    /// Notes that it was not sent; tells whether it may be tried again.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.fetch_update(AcqRel, Acquire, |it| (it != CLOSED).then_some(IDLE)).is_ok()
    }

    /// Lets no request begin from now on; returns by when the one ends that was begun.
    pub(crate) fn close(&self) -> Option<Timestamp> {
        match self.0.swap(CLOSED, AcqRel) {
            IDLE | CLOSED => None,
            ends_by => Some(Timestamp::from_nanos(ends_by)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_runs_on_and_nothing_begins_after_the_end() {
        let at = Timestamp::from_millis(5);
        let (idle, begun, withdrawn) =
            (Progress::default(), Progress::default(), Progress::default());
        assert!(begun.begin(at) && withdrawn.begin(at) && withdrawn.withdraw());
        assert_eq!([&idle, &begun, &withdrawn].map(Progress::close), [None, Some(at), None]);
        assert_eq!(begun.close(), None);
        assert!(!idle.begin(at) && !begun.withdraw() && !withdrawn.begin(at));
    }
}
