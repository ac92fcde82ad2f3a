//! How often something may be done that is costly, by each caller or with each thing: so many times at
//! once, then now and then, in this process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::{ApiError, Code};

/// How many callers are remembered before those are forgotten that may do all at once again.
const REMEMBERED_MIN: usize = 1_024;

/// How often a key may have filters tried, and how many at once.
const TRIAL_EVERY: Duration = Duration::from_millis(100);
const TRIALS_AT_ONCE: u32 = 20;

/// How often all of an endpoint's deliveries may be ended, and how often at once.
const CANCEL_EVERY: Duration = Duration::from_secs(1);
const CANCELS_AT_ONCE: u32 = 5;

/// The paces of an api process.
#[derive(Debug)]
pub(crate) struct Paces {
    /// Of trying filters, by key.
    pub(crate) trials: Pace,
    /// Of ending all of an endpoint's deliveries, by endpoint.
    pub(crate) cancels: Pace,
}

impl Paces {
    /// Nothing was done yet.
    pub(crate) const fn new() -> Self {
        let trials = Pace::new(TRIAL_EVERY, TRIALS_AT_ONCE);
        Self { trials, cancels: Pace::new(CANCEL_EVERY, CANCELS_AT_ONCE) }
    }
}

/// A pace for each caller (GCRA).
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    burst: u32,
    /// Until when each has used up its part.
    used: Mutex<BTreeMap<String, Instant>>,
}

impl Pace {
    /// Allows one each `every`, and `burst` at once.
    pub(crate) const fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, used: Mutex::new(BTreeMap::new()) }
    }

    /// Counts one, and refuses it if it comes too soon.
    pub(crate) fn admit(&self, caller: String, now: Instant) -> Result<(), ApiError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= REMEMBERED_MIN {
            used.retain(|_, until| *until > now);
        }
        let until = used.entry(caller).or_insert(now);
        let next = (*until).max(now) + self.every;
        if next > now + self.every * self.burst {
            return Err(Code::TooOften.into());
        }
        *until = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_a_burst_and_then_a_pace() {
        let pace = Pace::new(Duration::from_millis(100), 3);
        let start = Instant::now();
        let count = |caller: &str, at: u64| {
            let at = start + Duration::from_millis(at);
            (0..10).filter(|_| pace.admit(String::from(caller), at).is_ok()).count()
        };
        assert_eq!((count("a", 0), count("b", 0)), (3, 3));
        assert_eq!((count("a", 99), count("a", 100), count("a", 310)), (0, 1, 2));
        assert_eq!(count("a", 100_000), 3);
    }

    #[test]
    fn who_comes_no_more_is_forgotten() {
        let pace = Pace::new(Duration::from_millis(100), 1);
        let start = Instant::now();
        for caller in 0..REMEMBERED_MIN {
            pace.admit(caller.to_string(), start).unwrap();
        }
        pace.admit(String::from("later"), start + Duration::from_secs(1)).unwrap();
        assert_eq!(pace.used.lock().unwrap().len(), 1);
    }
}
