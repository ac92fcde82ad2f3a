//! What all lanes of a shard hold, in numbers.

use std::time::Duration;

use fanfare_domain::Timestamp;

use super::{Lanes, Phase};

/// What the lanes of a shard hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Endpoints of which something is known.
    pub(crate) lanes: usize,
    /// Those with something in flight.
    pub(crate) busy: usize,
    /// Those that asked to be left alone.
    pub(crate) quiet: usize,
    /// By breaker: closed, open, half open.
    pub(crate) breakers: [usize; 3],
    /// First attempts that wait, and retries.
    pub(crate) queued: [usize; 2],
    /// How long the oldest attempt waits that nothing of its endpoint's holds back.
    pub(crate) past_due: Duration,
}

impl<T> Lanes<T> {
    /// Looks at every lane.
    pub(crate) fn levels(&self, now: Timestamp) -> Levels {
        let mut levels = Levels { lanes: self.by_endpoint.len(), ..Levels::default() };
        for lane in self.by_endpoint.values() {
            let health = lane.health(now);
            levels.busy += usize::from(health.in_flight > 0);
            levels.quiet += usize::from(health.quiet_until.is_some());
            let [closed, open, half_open] = &mut levels.breakers;
            *match health.breaker {
                Phase::Closed => closed,
                Phase::Open => open,
                Phase::Recovering => half_open,
            } += 1;
            let [firsts, retries] = &mut levels.queued;
            *firsts += health.firsts;
            *retries += health.retries;
            let waits = lane.line.as_ref().and_then(|_| lane.waits_since());
            let waits = waits.map(|since| now.since(since)).unwrap_or_default();
            levels.past_due = levels.past_due.max(waits);
        }
        levels
    }
}
