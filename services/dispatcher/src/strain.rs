//! How many retries may be in flight at once: as many as the machine bears without being late.
//!
//! A thousand retries that come due together are no harm to their endpoints, which have their caps,
//! but to everybody else on the machine: where processors are short, a first attempt waits behind
//! every request that is being worked on. So retries begin with few at once, become more as long
//! as the runtime keeps time, and fewer as soon as it does not (additive increase, multiplicative
//! decrease). First attempts are not held back, nor are retries to slow endpoints, which take up
//! permits and no processor.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::permits::Permits;

/// How often it is looked whether the runtime keeps time, while there are retries.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How late a timer may be: some of that is its grain.
const LATE_AFTER: Duration = Duration::from_millis(3);

/// Of how many permits retries always have one.
const LEAST_SHARE: usize = 16;

/// After what time with hardly any retries they begin with few again.
const FORGOTTEN_AFTER: Duration = Duration::from_millis(500);

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
        // An idle process sleeps, and what was borne once says little of later.
        if timeout(FORGOTTEN_AFTER, permits.retried(strain.least)).await.is_err() {
            strain = Strain::new(permits.max());
            permits.limit_retries(strain.limit());
            permits.retried(strain.least).await;
        }
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
    use crate::{
        lanes::Kind,
        permits::{Door, Permit, Share, Standing},
    };

    const ON_TIME: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_millis(8);

    #[test]
    fn retries_begin_with_few_and_become_more_while_the_runtime_keeps_time() {
        let mut strain = Strain::new(512);
        assert_eq!(strain.limit(), 32);
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
        assert_eq!(strain.limit(), 32);
        assert_eq!(Strain::new(2).limit(), 2);
    }

    /// How many retries get a permit, of many lanes that want one.
    fn storm(permits: &Arc<Permits>, lanes: &[(Door, Share)]) -> Vec<Permit> {
        assert!(permits.max() < lanes.len());
        let take = |(door, share): &(Door, Share)| door.take(share, ON_TIME, Kind::Retry).ok();
        lanes.iter().filter_map(take).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_storm_begins_with_few_again() {
        let permits = Permits::new(256);
        let lanes: Vec<_> = (0..300)
            .map(|_| {
                let (door, share) = (permits.door(), Share::new());
                door.judge(&share, Standing::Proven);
                (door, share)
            })
            .collect();
        let act = async {
            sleep(LOOK_EVERY).await;
            let mut held = storm(&permits, &lanes);
            assert_eq!(held.len(), 16);
            for _ in 0..100 {
                sleep(LOOK_EVERY).await;
                held.extend(storm(&permits, &lanes));
            }
            assert!(held.len() > 200, "{}", held.len());
            held.clear();
            sleep(FORGOTTEN_AFTER / 4).await;
            assert!(storm(&permits, &lanes).len() > 200, "a pause is not the end");
            sleep(FORGOTTEN_AFTER * 2).await;
            assert_eq!(storm(&permits, &lanes).len(), 16);
        };
        tokio::select! {
            () = act => {}
            never = watch(Arc::clone(&permits)) => match never {},
        }
    }
}
