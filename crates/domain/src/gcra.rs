//! GCRA: how many of something may be begun in a time, evenly spread over it.

use std::{
    cell::Cell as Slot,
    num::NonZeroU32,
    ops::Add,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};

use crate::{Timestamp, endpoint::RateLimit};

/// Timers are a millisecond or two late. Limits with shorter intervals let through what is due
/// within this, or lateness would make them slower than they say.
pub const CLUMP: Duration = Duration::from_millis(20);

/// A limit, with its state in a number: the theoretical arrival time of the next cell.
#[derive(Debug)]
pub struct Gcra {
    limiter: RateLimiter<NotKeyed, Arrival, Dial, NoOpMiddleware<Instant>>,
    arrival: Arrival,
    tolerance: Duration,
}

impl Gcra {
    /// Goes on from a theoretical arrival time.
    pub fn new(limit: &RateLimit, arrival: Timestamp) -> Self {
        let (quota, tolerance) = Self::quota(limit);
        let arrival = Arrival(Arc::new(AtomicU64::new(arrival.as_nanos())));
        // The limiter counts from the time at which it is made: the epoch.
        let limiter = RateLimiter::new(quota, arrival.clone(), Dial(Slot::new(Instant(0))));
        Self { limiter, arrival, tolerance }
    }

    /// By how much cells may be early: what makes the burst.
    pub fn tolerance(limit: &RateLimit) -> Duration {
        Self::quota(limit).1
    }

    fn quota(limit: &RateLimit) -> (Quota, Duration) {
        let interval = limit.interval().max(Duration::from_nanos(1));
        let clump = CLUMP.as_nanos().div_ceil(interval.as_nanos());
        let clump = u32::try_from(clump).ok().and_then(NonZeroU32::new);
        let burst = clump.map_or(limit.burst, |clump| clump.max(limit.burst));
        let quota = Quota::with_period(interval).expect("the interval is not zero");
        (quota.allow_burst(burst), interval * (burst.get() - 1))
    }

    /// The theoretical arrival time of the next cell.
    pub fn arrival(&self) -> Timestamp {
        Timestamp::from_nanos(self.arrival.0.load(Relaxed))
    }

    /// Sets it.
    pub fn set_arrival(&mut self, arrival: Timestamp) {
        self.arrival.0.store(arrival.as_nanos(), Relaxed);
    }

    /// When the next cell is free.
    pub fn earliest(&self) -> Timestamp {
        self.arrival().saturating_sub(self.tolerance)
    }

    /// Takes a cell at a time; tells whether one was free.
    pub fn take(&mut self, now: Timestamp) -> bool {
        self.limiter.clock().0.set(Instant(now.as_nanos()));
        self.limiter.check().is_ok()
    }
}

/// The theoretical arrival time, in nanoseconds since the epoch. Never used by two at once.
#[derive(Clone, Debug)]
struct Arrival(Arc<AtomicU64>);

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &Self::Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, next) = decide(Some(Nanos::from(self.0.load(Relaxed))))?;
        self.0.store(next.as_u64(), Relaxed);
        Ok(outcome)
    }
}

/// A clock that shows what it is set to.
#[derive(Clone, Debug)]
struct Dial(Slot<Instant>);

impl Clock for Dial {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.get()
    }
}

/// Nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Instant(u64);

impl Add<Nanos> for Instant {
    type Output = Self;

    fn add(self, later: Nanos) -> Self {
        Self(self.0.saturating_add(later.as_u64()))
    }
}

impl Reference for Instant {
    fn duration_since(&self, earlier: Self) -> Nanos {
        Nanos::from(self.0.saturating_sub(earlier.0))
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.saturating_sub(duration.as_u64()))
    }
}
