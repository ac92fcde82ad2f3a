//! What one fan-out has of a limit, and which portion it takes next. Pure.

use std::time::Duration;

use fanfare_domain::{Timestamp, gcra::Gcra};
use fanfare_event_log::Portion;

use crate::routes::Limit;

/// How much of a limit is taken at once.
const AHEAD: Duration = Duration::from_millis(500);

/// The cells that are ours.
#[derive(Debug)]
pub(super) struct Share {
    cells: Option<(Limit, Gcra)>,
    /// Up to which theoretical arrival time they are.
    end: Timestamp,
}

impl Share {
    /// None.
    pub(super) const fn none() -> Self {
        Self { cells: None, end: Timestamp::EPOCH }
    }

    /// Forgets cells of another limit.
    pub(super) fn apply(&mut self, limit: Limit) {
        if self.cells.as_ref().is_none_or(|(of, _)| *of != limit) {
            let cells = Gcra::new(&limit.rate, Timestamp::EPOCH);
            *self = Self { cells: Some((limit, cells)), end: Timestamp::EPOCH };
        }
    }

    /// Gives out cells until there are `count`, as far as ours reach: the time of each is when it
    /// may be used.
    pub(super) fn give(&mut self, times: &mut Vec<Timestamp>, count: usize, now: Timestamp) {
        let Some((limit, cells)) = &mut self.cells else { return };
        while times.len() < count {
            let at = cells.earliest().max(now);
            let behind = cells.arrival().max(at).saturating_add(limit.rate.interval());
            if behind > self.end {
                return;
            }
            let free = cells.take(at);
            debug_assert!(free, "a cell is free at its own time");
            times.push(at);
        }
    }

    /// Adds a portion to what is ours; or goes on with it alone, if others have what is between.
    pub(super) fn extend(&mut self, portion: Portion) {
        let Some((_, cells)) = &mut self.cells else { return };
        if portion.from != self.end {
            cells.set_arrival(portion.from);
        }
        self.end = portion.to;
    }

    /// Which portion to take of the limit to have `needed` cells more, by where it stands. It ends
    /// at `latest`, also if there are fewer cells until then; if it ends earlier, they are enough.
    pub(super) fn portion(
        &self,
        needed: usize,
        now: Timestamp,
        latest: Timestamp,
    ) -> impl Fn(Timestamp) -> Portion + Send + use<> {
        let (limit, end) = (self.cells.as_ref().map(|(limit, _)| *limit), self.end);
        let interval = limit.map_or(Duration::ZERO, |limit| limit.rate.interval());
        let needed = interval.saturating_mul(u32::try_from(needed).unwrap_or(u32::MAX));
        move |stands| {
            // What comes next is not ours to waste while others give out cells of the same time.
            // If it is further ahead than that, there is so much to send that it will be used.
            let soon = stands > now && stands <= now.saturating_add(AHEAD);
            let length = if soon && stands != end { needed } else { needed.max(AHEAD) };
            let from = stands.max(now);
            Portion { from, to: from.saturating_add(length).min(latest).max(from) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use fanfare_domain::{
        endpoint::{RateLimit, RatePeriod},
        gcra::CLUMP,
    };
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn limit(requests: u32, burst: u32) -> RateLimit {
        let count = |count| NonZeroU32::new(count).unwrap();
        RateLimit { requests: count(requests), per: RatePeriod::Second, burst: count(burst) }
    }

    fn after(millis: u64) -> Timestamp {
        NOW.saturating_add(Duration::from_millis(millis))
    }

    /// Fan-outs that share one limit.
    struct Crew {
        limit: RateLimit,
        shares: Vec<Share>,
        stands: Timestamp,
        round_trips: usize,
    }

    impl Crew {
        fn new(limit: RateLimit, size: usize) -> Self {
            let shares = (0..size).map(|_| Share::none()).collect();
            Self { limit, shares, stands: Timestamp::EPOCH, round_trips: 0 }
        }

        fn reserve(&mut self, who: usize, count: usize, now: Timestamp) -> Vec<Timestamp> {
            let share = &mut self.shares[who];
            share.apply(Limit { rate: self.limit, revision: 1 });
            let mut times = Vec::new();
            loop {
                share.give(&mut times, count, now);
                if times.len() == count {
                    return times;
                }
                let latest = now.saturating_add(Duration::from_hours(1));
                let portion = share.portion(count - times.len(), now, latest)(self.stands);
                if portion.to >= latest && portion.from == portion.to {
                    return times;
                }
                (self.stands, self.round_trips) = (portion.to, self.round_trips + 1);
                share.extend(portion);
            }
        }
    }

    #[test]
    fn one_alone_asks_twice_a_second_and_loses_nothing() {
        let mut crew = Crew::new(limit(20, 1), 1);
        let mut times = Vec::new();
        for millis in (0..10_000).step_by(10) {
            times.extend(crew.reserve(0, 1, after(millis)));
        }
        assert_eq!(times.len(), 1_000);
        for (number, time) in (0..).zip(&times) {
            assert_eq!(*time, after(number * 50));
        }
        assert!(crew.round_trips <= 101, "{}", crew.round_trips);
    }

    #[test]
    fn below_the_limit_nothing_waits() {
        let mut crew = Crew::new(limit(1_000, 10), 1);
        for millis in 0..10_000 {
            assert_eq!(crew.reserve(0, 1, after(millis)), [after(millis)], "{millis}");
        }
        assert!(crew.round_trips <= 21, "{}", crew.round_trips);
    }

    #[test]
    fn two_that_have_little_to_send_are_never_far_ahead_of_it() {
        let mut crew = Crew::new(limit(20, 1), 2);
        for step in 0..200_u64 {
            let (who, now) = (usize::from(step % 2 == 1), after(step * 250));
            for time in crew.reserve(who, 1, now) {
                assert!(time.since(now) <= AHEAD, "{:?} at {step}", time.since(now));
            }
        }
    }

    #[test]
    fn a_large_event_takes_one_round_trip() {
        let mut crew = Crew::new(limit(20, 1), 1);
        let times = crew.reserve(0, 10_000, NOW);
        assert_eq!((times.len(), crew.round_trips), (10_000, 1));
        assert_eq!(times.last(), Some(&after(9_999 * 50)));
    }

    #[test]
    fn a_limit_never_stands_further_ahead_than_cells_are_taken() {
        let mut crew = Crew::new(limit(1, 1), 2);
        assert_eq!(crew.reserve(0, 5_000, NOW).len(), 3_600);
        assert_eq!(crew.stands, after(3_600_000));
        assert_eq!(crew.reserve(1, 5_000, NOW), []);
        assert_eq!(crew.stands, after(3_600_000));
        assert_eq!(crew.reserve(1, 5_000, after(10_000)).len(), 10);
    }

    proptest! {
        /// Over any stretch, whoever gives them out: no more than the burst and what the rate
        /// allows, also if some die and forget what they have.
        #[test]
        fn together_they_keep_the_limit(
            requests in 1_u32..200,
            burst in 1_u32..10,
            steps in prop::collection::vec((0_usize..3, 0_usize..8, 0_u64..300, 0_u8..10), 1..80),
        ) {
            let limit = limit(requests, burst);
            let mut crew = Crew::new(limit, 3);
            let (mut now, mut times) = (NOW, Vec::new());
            for (who, count, step, fate) in steps {
                now = now.saturating_add(Duration::from_millis(step));
                let given = crew.reserve(who, count, now);
                prop_assert!(given.iter().all(|time| *time >= now));
                times.extend(given);
                if fate == 0 {
                    crew.shares[who] = Share::none();
                }
            }
            times.sort_unstable();
            let clump = CLUMP.as_nanos().div_ceil(limit.interval().as_nanos());
            let burst = burst.max(u32::try_from(clump).unwrap());
            for (first, from) in times.iter().enumerate() {
                for (count, to) in (1..).zip(&times[first..]) {
                    let allowed = to.since(*from).as_secs_f64() * f64::from(requests);
                    prop_assert!(f64::from(count) <= f64::from(burst) + allowed + 1e-3, "{count}");
                }
            }
        }
    }
}
