//! How many retries may be in flight at once: as many as the machine bears without being late.
//!
//! A thousand retries that come due together are no harm to their endpoints, which have their caps,
//! but to everybody else on the machine: where processors are short, a first attempt waits behind
//! every request that is being worked on. So retries begin with few at once, become more as long
//! as the runtime keeps time, and fewer as soon as it does not (additive increase, multiplicative
//! decrease). First attempts are not held back, nor are retries to slow endpoints, which take up
//! permits and no processor.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::permits::Permits;

/// How often it is looked whether the runtime keeps time, while there are retries.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How late a timer may be: some of that is its grain.
const LATE_AFTER: Duration = Duration::from_millis(3);

/// Of how many permits retries always have one.
const LEAST_SHARE: usize = 32;

/// The limit on fast retries in flight, as it follows from how late the runtime is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strain {
    least: usize,
    most: usize,
    limit: usize,
}

impl Strain {
    /// Begins with the least, for a process with `most` permits.
    pub(crate) fn new(most: usize) -> Self {
        let least = (most / LEAST_SHARE).max(4).min(most);
        Self { least, most, limit: least }
    }

    /// How many retries may be in flight.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Learns how late a timer was while so many retries were in flight.
    pub(crate) fn learn(&mut self, late: Duration, in_flight: usize) {
        let wanted = if late > LATE_AFTER {
            self.limit * 3 / 4
        } else if in_flight >= self.limit {
            self.limit + (self.limit / 16).max(1)
        } else if in_flight < self.limit / 2 {
            // What was borne once says little of later.
            self.limit - (self.limit / 16).max(1)
        } else {
            self.limit
        };
        self.limit = wanted.clamp(self.least, self.most);
    }
}

/// Goes by how late the runtime is, for as long as it is polled.
pub(crate) async fn watch(permits: Arc<Permits>) -> Infallible {
    let mut strain = Strain::new(permits.max());
    permits.limit_retries(strain.limit());
    loop {
        // An idle process sleeps.
        permits.retried(strain.least).await;
        let asleep = Instant::now();
        sleep(LOOK_EVERY).await;
        let late = asleep.elapsed().saturating_sub(LOOK_EVERY);
        strain.learn(late, permits.retries());
        permits.limit_retries(strain.limit());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON_TIME: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_millis(8);

    #[test]
    fn retries_begin_with_few_and_become_more_while_the_runtime_keeps_time() {
        let mut strain = Strain::new(512);
        assert_eq!(strain.limit(), 16);
        for _ in 0..200 {
            strain.learn(ON_TIME, strain.limit());
        }
        assert_eq!(strain.limit(), 512);
    }

    #[test]
    fn a_late_runtime_has_fewer_retries_but_never_none() {
        let mut strain = Strain::new(512);
        for _ in 0..60 {
            strain.learn(ON_TIME, strain.limit());
        }
        let before = strain.limit();
        strain.learn(LATE, before);
        assert_eq!(strain.limit(), before * 3 / 4);
        for _ in 0..60 {
            strain.learn(LATE, strain.limit());
        }
        assert_eq!(strain.limit(), 16);
        assert_eq!(Strain::new(2).limit(), 2);
    }

    #[test]
    fn a_limit_that_is_not_used_is_forgotten() {
        let mut strain = Strain::new(512);
        for _ in 0..200 {
            strain.learn(ON_TIME, strain.limit());
        }
        strain.learn(ON_TIME, 300);
        assert_eq!(strain.limit(), 512, "used by more than half");
        for _ in 0..200 {
            strain.learn(ON_TIME, 3);
        }
        assert_eq!(strain.limit(), 16);
    }
}
