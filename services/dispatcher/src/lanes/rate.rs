//! How many requests to one endpoint may be begun in a time: GCRA.
//!
//! Two clocks run for one limit. The *gate* is asked when a request is begun, and is what keeps
//! the limit. The *plan* is asked when a delivery arrives, and says when its turn at the gate will
//! be: each arrival takes a cell, so that what has to wait for long is spread and comes back one
//! by one. What comes back at its cell does not ask the plan again.
//!
//! Both are numbers: the theoretical arrival time of the next request, which a hand-over can
//! carry to another process.

use std::time::Duration;

use fanfare_domain::{Timestamp, endpoint::RateLimit, gcra::Gcra};

/// How long a delivery waits in its lane for its turn; longer waits are put off.
pub(crate) const STAY: Duration = Duration::from_secs(2);

/// How far ahead cells are reserved: within the time for which the ledger remembers who has one.
pub(crate) const RESERVED_AHEAD: Duration = Duration::from_mins(8);

/// The longest time for which anything is put off.
const AHEAD_MAX: Duration = Duration::from_hours(24);

/// The state of a limit, for a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateState {
    /// The gate's theoretical arrival time.
    pub(crate) gate: Timestamp,
    /// The plan's.
    pub(crate) plan: Timestamp,
}

/// The turn that an arrival gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It may wait in its lane.
    Soon,
    /// It is put off until then, and that time is kept for it.
    Reserved(Timestamp),
    /// It is put off until then, and asks again.
    Later(Timestamp),
}

/// The limit of one endpoint.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: RateLimit,
    gate: Gcra,
    plan: Gcra,
    /// The last time that was named to one that has no cell.
    far: Timestamp,
}

impl Limiter {
    /// Begins a limit where another left it.
    pub(crate) fn new(limit: RateLimit, state: RateState) -> Self {
        let (gate, plan) = (Gcra::new(&limit, state.gate), Gcra::new(&limit, state.plan));
        Self { limit, gate, plan, far: Timestamp::EPOCH }
    }

    /// The state of a limit whose burst is used up: what a new owner begins with when it does not
    /// know what the one before has sent.
    pub(crate) fn spent(limit: &RateLimit, now: Timestamp) -> RateState {
        let full = now.saturating_add(Gcra::tolerance(limit));
        RateState { gate: full, plan: full }
    }

    /// Changes the limit. What was begun counts on; nobody waits longer than the new limit says.
    pub(crate) fn change(&mut self, limit: RateLimit, now: Timestamp) {
        if limit == self.limit {
            return;
        }
        let spent = Self::spent(&limit, now).gate.saturating_add(limit.interval());
        let gate = self.gate.arrival().min(spent);
        *self = Self::new(limit, RateState { gate, plan: gate });
    }

    /// Gives an arrival its turn.
    pub(crate) fn plan(&mut self, now: Timestamp) -> Turn {
        let cell = self.plan.earliest().max(now);
        if cell > now.saturating_add(RESERVED_AHEAD) {
            let next = self.far.max(cell).saturating_add(self.limit.interval());
            self.far = next.min(now.saturating_add(AHEAD_MAX));
            return Turn::Later(self.far);
        }
        let taken = self.plan.take(cell);
        debug_assert!(taken, "a cell is free at its own time");
        if cell <= now.saturating_add(STAY) { Turn::Soon } else { Turn::Reserved(cell) }
    }

    /// When the next request may be begun.
    pub(crate) fn opens_at(&mut self, now: Timestamp) -> Timestamp {
        // No request leaves the gate closed for longer than this: only a clock that was set back.
        let latest = Self::spent(&self.limit, now).gate.saturating_add(self.limit.interval());
        if self.gate.arrival() > latest {
            self.gate.set_arrival(latest);
        }
        self.gate.earliest()
    }

    /// Counts a request that is begun; tells whether it was allowed.
    pub(crate) fn begin(&mut self, now: Timestamp) -> bool {
        self.gate.take(now)
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> RateState {
        RateState { gate: self.gate.arrival(), plan: self.plan.arrival() }
    }

    /// Tells whether a fresh limit would say the same.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        let RateState { gate, plan } = self.state();
        gate <= now && plan <= now
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use fanfare_domain::{endpoint::RatePeriod, gcra::CLUMP};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn limit(requests: u32, per: RatePeriod, burst: u32) -> RateLimit {
        let count = |count| NonZeroU32::new(count).unwrap();
        RateLimit { requests: count(requests), per, burst: count(burst) }
    }

    fn fresh(limit: RateLimit) -> Limiter {
        Limiter::new(limit, RateState { gate: Timestamp::EPOCH, plan: Timestamp::EPOCH })
    }

    fn ten() -> RateLimit {
        limit(10, RatePeriod::Second, 1)
    }

    fn after(millis: u64) -> Timestamp {
        NOW.saturating_add(Duration::from_millis(millis))
    }

    #[test]
    fn ten_per_second_is_one_each_100_ms() {
        let mut limiter = fresh(ten());
        let begun = (0..30_000).filter(|millis| limiter.begin(after(*millis))).count();
        assert_eq!(begun, 300);
    }

    #[test]
    fn a_late_timer_costs_little() {
        let mut limiter = fresh(limit(500, RatePeriod::Second, 1));
        let mut begun = 0;
        // Looked at each 3 ms, which is more than the interval of 2 ms.
        for millis in (0..30_000).step_by(3) {
            while limiter.begin(after(millis)) {
                begun += 1;
            }
        }
        assert!((14_990..=15_010).contains(&begun), "{begun}");
    }

    #[test]
    fn a_thousand_that_wait_are_spread_over_a_hundred_seconds() {
        let mut limiter = fresh(ten());
        let turns: Vec<_> = (0..1_000).map(|_| limiter.plan(NOW)).collect();
        assert!(turns[..21].iter().all(|turn| *turn == Turn::Soon));
        for (which, turn) in turns.iter().enumerate().skip(21) {
            assert_eq!(*turn, Turn::Reserved(after(which as u64 * 100)));
        }
    }

    #[test]
    fn what_lies_too_far_ahead_has_no_cell_and_is_spread_all_the_same() {
        let mut limiter = fresh(limit(1, RatePeriod::Minute, 1));
        let turns: Vec<_> = (0..20).map(|_| limiter.plan(NOW)).collect();
        assert_eq!(turns[8], Turn::Reserved(after(480_000)));
        assert_eq!(turns[9], Turn::Later(after(600_000)));
        assert_eq!(turns[10], Turn::Later(after(660_000)));
        let last = (0..5_000).map(|_| limiter.plan(NOW)).last();
        assert_eq!(last, Some(Turn::Later(NOW.saturating_add(AHEAD_MAX))));
    }

    #[test]
    fn a_faster_limit_is_in_force_at_once() {
        let mut limiter = fresh(limit(1, RatePeriod::Minute, 1));
        assert!(limiter.begin(NOW) && !limiter.begin(after(100)));
        limiter.change(ten(), after(100));
        assert!(!limiter.begin(after(150)) && limiter.begin(after(200)));
        assert_eq!(limiter.plan(after(200)), Turn::Soon);
    }

    #[test]
    fn a_new_owner_goes_on_where_the_old_one_stood() {
        let mut old = fresh(ten());
        assert!(old.begin(NOW));
        let mut new = Limiter::new(ten(), old.state());
        assert!(!new.begin(after(99)) && new.begin(after(100)));
        let burst = limit(10, RatePeriod::Second, 5);
        let mut blind = Limiter::new(burst, Limiter::spent(&burst, NOW));
        assert!(blind.begin(NOW) && !blind.begin(NOW) && blind.begin(after(100)));
    }

    proptest! {
        /// Over any stretch: no more than the burst and what the rate allows.
        #[test]
        fn the_limit_holds_over_every_window(
            requests in 1_u32..200,
            burst in 1_u32..20,
            steps in prop::collection::vec(0_u64..400, 1..300),
        ) {
            let limit = limit(requests, RatePeriod::Second, burst);
            let mut limiter = fresh(limit);
            let (mut now, mut begun) = (NOW, Vec::new());
            for step in steps {
                now = now.saturating_add(Duration::from_millis(step));
                while limiter.begin(now) {
                    begun.push(now);
                }
            }
            let clump = CLUMP.as_nanos().div_ceil(limit.interval().as_nanos());
            let burst = burst.max(u32::try_from(clump).unwrap());
            for (first, from) in begun.iter().enumerate() {
                for (count, to) in (1..).zip(&begun[first..]) {
                    let allowed = to.since(*from).as_secs_f64() * f64::from(requests);
                    prop_assert!(f64::from(count) <= f64::from(burst) + allowed + 1e-3, "{count}");
                }
            }
        }

        /// Whoever keeps to the plan is never stopped at the gate.
        #[test]
        fn the_plan_fits_through_the_gate(arrivals in prop::collection::vec(0_u64..300, 1..200)) {
            let mut limiter = fresh(ten());
            let (mut now, mut turns) = (NOW, Vec::new());
            for step in arrivals {
                now = now.saturating_add(Duration::from_millis(step));
                let cell = limiter.plan.earliest().max(now);
                prop_assert!(!matches!(limiter.plan(now), Turn::Later(_)));
                turns.push(cell);
            }
            for at in turns {
                prop_assert!(limiter.begin(at));
            }
        }
    }
}
