//! How an endpoint does at the moment.

use fanfare_domain::{BreakerState, Health};
use serde::Serialize;
use utoipa::ToSchema;

/// How an endpoint does, as the dispatcher knows that sends to it. It is kept in memory: after a
/// restart, or when another dispatcher takes over, it begins anew.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointHealth)]
pub(crate) struct HealthView {
    /// Whether first attempts are made.
    state: BreakerName,
    /// Since when that is so; `null` if it has never been otherwise, as far as is known.
    #[schema(required, format = DateTime)]
    since: Option<String>,
    /// How many requests may be in flight at present: less than its `concurrency` if it seems to
    /// bear less.
    window: u16,
    /// How many requests are in flight.
    in_flight: u32,
    /// How many deliveries wait for their turn. Those that were put off to a later time are not
    /// among them.
    held: u32,
    /// Until when nothing is sent because it asked for that with `Retry-After`; `null` if it did
    /// not.
    #[schema(required, format = DateTime)]
    quiet_until: Option<String>,
}

/// What the circuit breaker of an endpoint does.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BreakerState)]
enum BreakerName {
    /// First attempts are made.
    Closed,
    /// The endpoint keeps failing: first attempts wait until a retry or a probe succeeds.
    Open,
    /// The endpoint has begun to answer: first attempts are made again, few at a time.
    HalfOpen,
}

impl From<Health> for HealthView {
    fn from(health: Health) -> Self {
        let Health { breaker, since, window, in_flight, held, quiet_until } = health;
        let state = match breaker {
            BreakerState::Closed => BreakerName::Closed,
            BreakerState::Open => BreakerName::Open,
            BreakerState::HalfOpen => BreakerName::HalfOpen,
        };
        let text = |at: fanfare_domain::Timestamp| at.to_string();
        let (since, quiet_until) = (since.map(text), quiet_until.map(text));
        Self { state, since, window, in_flight, held, quiet_until }
    }
}
