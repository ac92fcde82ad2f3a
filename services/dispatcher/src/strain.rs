//! How fast late attempts are begun, retries above all: as fast as nobody's fresh ones come later
//! for it.
//!
//! A thousand retries that come due together are no harm to their endpoints, which have their caps,
//! but to everybody else: a first attempt waits where processors or servers are short, behind all
//! that is being done for the retries. So what is watched is the harm itself: how long events take
//! from their acceptance until they arrive here as tasks, compared with what is usual, and whether
//! the runtime keeps time. Late attempts begin slowly, become faster as long as neither shows a delay,
//! and slower as soon as one does (additive increase, multiplicative decrease). Fresh ones are not
//! held back, nor are those to slow endpoints, which are few a second by themselves.

use std::{
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_domain::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use crate::permits::Permits;

/// How often the pace is set, while there are late attempts.
const TICK: Duration = Duration::from_millis(10);

/// How late a timer may be: some of that is its grain.
const LATE_AFTER: Duration = Duration::from_millis(3);

/// How much longer than twice the usual time events may take to arrive.
const ARRIVAL_LATE_AFTER: Duration = Duration::from_millis(3);

/// In what time what is usual follows arrivals that take longer: it falls at once.
const USUAL_INERTIA: Duration = Duration::from_secs(20);
/// The most of that time that one arrival counts for.
const USUAL_STEP_MAX: Duration = Duration::from_millis(100);

/// How many late attempts begin in a tick at least, and at most.
const LEAST: usize = 8;
const MOST: usize = 1_024;

/// After what time without any they begin slowly again.
const FORGOTTEN_AFTER: Duration = Duration::from_millis(500);

/// The pace of late attempts, as it follows from what was late.
#[derive(Clone, Copy, Debug)]
struct Strain {
    pace: usize,
}

/// What is known of how long events take to arrive.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// What is usual, and when it was last learned of.
    usual: Option<(Duration, Timestamp)>,
    /// Whether one was late since it was last asked.
    late: bool,
}

impl Strain {
    /// Begins slowly.
    const fn new() -> Self {
        Self { pace: LEAST }
    }

    /// Learns whether anything was late in a tick, and how many of its turns were not used.
    fn learn(&mut self, is_late: bool, left: usize) {
        let wanted = if is_late {
            self.pace * 3 / 4
        } else if left == 0 {
            self.pace + (self.pace / 16).max(1)
        } else {
            self.pace
        };
        self.pace = wanted.clamp(LEAST, MOST);
    }
}

impl Arrivals {
    /// Notes how long an event took that arrives now. The clocks may be apart: what is compared is
    /// with its like.
    pub(crate) fn note(&self, took: Duration, now: Timestamp) {
        let mut known = self.lock();
        let (usual, at) = known.usual.unwrap_or((took, now));
        let step = now.since(at).min(USUAL_STEP_MAX);
        let more = took.saturating_sub(usual).mul_f64(step.div_duration_f64(USUAL_INERTIA));
        known.usual = Some((took.min(usual.saturating_add(more)), now));
        known.late |= took > (usual * 2).saturating_add(ARRIVAL_LATE_AFTER);
    }

    /// Tells whether an event was late since the last call.
    fn were_late(&self) -> bool {
        std::mem::take(&mut self.lock().late)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // What a panic left behind is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets the pace for as long as it is polled.
pub(crate) async fn watch(permits: &Permits, arrivals: &Arrivals) -> Infallible {
    let mut strain = Strain::new();
    loop {
        let asleep = Instant::now();
        sleep(TICK).await;
        let late = asleep.elapsed().saturating_sub(TICK);
        let left = permits.refill_turns(strain.pace);
        strain.learn(late > LATE_AFTER || arrivals.were_late(), left);
        // An idle process sleeps, and what was borne once says little of later.
        if left > 0 && timeout(FORGOTTEN_AFTER, permits.late()).await.is_err() {
            strain = Strain::new();
            permits.refill_turns(strain.pace);
            permits.late().await;
            // What was late before was not because of these.
            arrivals.were_late();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        lanes::Urgency,
        permits::{Door, Share, Standing},
    };

    const ON_TIME: bool = false;
    const LATE: bool = true;

    #[test]
    fn retries_begin_slowly_and_become_faster_while_nothing_is_late() {
        let mut strain = Strain::new();
        assert_eq!(strain.pace, LEAST);
        strain.learn(ON_TIME, 1);
        assert_eq!(strain.pace, LEAST, "nobody wants more");
        for _ in 0..200 {
            strain.learn(ON_TIME, 0);
        }
        assert_eq!(strain.pace, MOST);
    }

    #[test]
    fn what_is_late_makes_retries_slower_but_never_stops_them() {
        let mut strain = Strain { pace: 400 };
        strain.learn(LATE, 0);
        assert_eq!(strain.pace, 300);
        for _ in 0..60 {
            strain.learn(LATE, 0);
        }
        assert_eq!(strain.pace, LEAST);
    }

    #[test]
    fn what_events_usually_take_is_not_late() {
        let arrivals = Arrivals::default();
        let mut now = Timestamp::from_millis(1_000);
        let mut late = |took, count| {
            for _ in 0..count {
                now = now.saturating_add(Duration::from_millis(10));
                arrivals.note(Duration::from_millis(took), now);
            }
            arrivals.were_late()
        };
        // Servers that sync every write take ten milliseconds, and now and then twice that.
        assert!([10, 8, 17, 11, 9, 18].iter().all(|took| !late(*took, 1)));
        assert!(late(24, 1));
        assert!(!late(10, 1), "it is told once");
        // Faster ones are known as such at once, and slower ones after a while.
        assert!(!late(1, 1));
        assert!(late(8, 1));
        assert!(late(8, 500));
        late(8, 2_000);
        assert!(!late(8, 1));
    }

    /// Begins as many retries as there are turns for, and ends them at once.
    fn storm(lanes: &[(Door, Share)]) -> usize {
        let take =
            |(door, share): &(Door, Share)| door.take(share, Duration::ZERO, Urgency::Late).ok();
        lanes.iter().filter_map(take).count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_storm_begins_slowly_again() {
        let permits = Permits::new(256);
        let arrivals = Arrivals::default();
        let lanes: Vec<_> = (0..300)
            .map(|_| {
                let (door, share) = (Arc::clone(&permits).door(), Share::new());
                door.judge(&share, Standing::Proven);
                (door, share)
            })
            .collect();
        // How many begin in the time of so many ticks.
        let begun = async |ticks| {
            let mut count = 0;
            for _ in 0..ticks * 2 {
                sleep(TICK / 2).await;
                count += storm(&lanes);
            }
            count
        };
        let act = async {
            sleep(TICK).await;
            let slow = begun(4).await;
            assert!((1..=5 * (LEAST + 4)).contains(&slow), "{slow}");
            begun(100).await;
            let fast = begun(4).await;
            assert!(fast > 20 * slow, "{fast}");
            sleep(FORGOTTEN_AFTER / 4).await;
            assert!(begun(4).await >= fast / 2, "a pause is not the end");
            sleep(FORGOTTEN_AFTER * 2).await;
            let slow = begun(4).await;
            assert!((1..=5 * (LEAST + 4)).contains(&slow), "{slow}");
        };
        tokio::select! {
            () = act => {}
            never = watch(&permits, &arrivals) => match never {},
        }
    }
}
