//! How an endpoint does at a moment, as the process knows that sends to it.

use std::time::Duration;

use crate::Timestamp;

/// What the owner of an endpoint's shard knows of it. Kept in memory only; what the breaker and the
/// window have come to goes from owner to owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether first attempts pass.
    pub breaker: BreakerState,
    /// Since when; `None` if that never changed as far as the owner knows.
    pub since: Option<Timestamp>,
    /// How many requests may be in flight at present: the endpoint's own limit, or less if it seems
    /// to bear less.
    pub window: u16,
    /// How many are.
    pub in_flight: u32,
    /// How many deliveries wait in the owner's memory. Those that are put off are not among them.
    pub held: u32,
    /// Until when it is left alone because it asked for that; `None` if it did not.
    pub quiet_until: Option<Timestamp>,
}

/// Whether first attempts pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They do.
    Closed,
    /// They are held, until a retry or a probe succeeds.
    Open,
    /// They pass again, few at a time.
    HalfOpen,
}

/// What a breaker has come to, as it is handed to the next owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerMemory {
    /// Whether first attempts pass.
    pub state: BreakerState,
    /// Since when; the epoch if that never changed.
    pub since: Timestamp,
    /// Failures in a row while it is closed, successes while it is half open.
    pub run: u32,
    /// How long it waits for a retry before a first attempt is let through.
    pub wait: Duration,
    /// When a first attempt is let through, while it is open.
    pub probe_at: Timestamp,
}

/// How many requests an endpoint seemed to bear, as it is handed to the next owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowMemory {
    /// In thousandths of a request.
    pub size: u32,
    /// Whether it doubles with each round trip.
    pub slow_start: bool,
    /// When it last became smaller, or began anew.
    pub stepped_at: Timestamp,
}

impl BreakerState {
    /// Every state, in the order of declaration.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];
}

impl Health {
    /// An endpoint that nothing speaks against.
    pub const fn unburdened(window: u16) -> Self {
        Self {
            breaker: BreakerState::Closed,
            since: None,
            window,
            in_flight: 0,
            held: 0,
            quiet_until: None,
        }
    }
}
