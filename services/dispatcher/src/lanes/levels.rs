//! What all lanes of a shard hold, in numbers.

use std::time::Duration;

use fanfare_domain::Timestamp;

use super::{Lanes, Phase};
use crate::permits::Standing;

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
    /// How long the oldest attempt waits that nothing of its endpoint's holds back, by how its lane is
    /// thought of, in the order of [`Standing::ALL`].
    pub(crate) past_due: [Duration; Standing::ALL.len()],
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
            let Some(line) = &lane.line else { continue };
            let waits = lane.waits_since().map(|since| now.since(since)).unwrap_or_default();
            if let Some(longest) = levels.past_due.get_mut(line.standing.index()) {
                *longest = waits.max(*longest);
            }
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{EndpointId, endpoint::Ordering};

    use super::*;
    use crate::{
        lanes::{Arrival, Kind, Load, Rules},
        permits::Permits,
    };

    #[test]
    fn what_waits_for_slow_endpoints_is_told_apart() {
        let rules = Rules {
            concurrency: 16,
            rate: None,
            breaker: false,
            batch: None,
            ordering: Ordering::None,
        };
        let (door, then) = (Permits::new(1).door(), Timestamp::from_millis(1_000_000));
        let mut lanes = Lanes::new(then);
        for number in 0..9 {
            let endpoint = EndpointId::from_bytes([number % 2; 16]);
            let (kind, load) = (Kind::First, Load::default());
            let arrival = Arrival { endpoint, kind, has_turn: false, load, item: number };
            assert!(lanes.queue(arrival, rules, then).is_none());
        }
        // The only permit is one lane's, whose answer is overdue then.
        let _held = lanes.start(|_| rules, &door, then).unwrap();
        let after = |seconds| then.saturating_add(Duration::from_secs(seconds));
        let [new, proven, slow] = lanes.levels(after(1)).past_due;
        assert_eq!((new, proven, slow), (Duration::from_secs(1), Duration::ZERO, Duration::ZERO));
        assert!(lanes.tidy(&door, after(3)).is_empty());
        assert_eq!(lanes.levels(after(3)).past_due, [3, 0, 3].map(Duration::from_secs));
    }
}
