//! Whether a first attempt is about to be made, can be made now in place of others, or what it waits
//! for: an answer of `under_way` must not mean hours.
//!
//! First attempts wait in many places: in a lane for some moments, for an alarm clock, or for their
//! endpoint's feed, which takes over what others have waited for. Which of these it is, only the
//! endpoint's dispatcher knows; it does what it is asked to wherever it finds the delivery.

use std::time::Duration;

use fanfare_domain::{
    BreakerState, EndpointId, EndpointState, Health, TenantId, Timestamp, endpoint::Ordering,
};

use crate::{
    app::App,
    caller::{InTenant, Writes},
    error::{ApiError, Code},
};

/// How long the endpoint's dispatcher may take to say how it does.
const HEALTH_WAIT: Duration = Duration::from_secs(1);

/// What keeps an endpoint from taking one more first attempt at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Nobody says how it does.
    NoAnswer,
    /// First attempts are held until one is answered well.
    Breaker,
    /// It asked to be left alone.
    Quiet(Timestamp),
    /// Those before it come first.
    Ordered,
    /// So many others wait for their turn.
    Others(u32),
}

/// What is to be done about a first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Have it made now.
    Order,
    /// It is about to be made.
    Nothing,
    /// It waits for this, and has to.
    Refuse(Obstacle),
}

/// Refuses what cannot be tried because its endpoint is paused.
pub(super) fn unless_paused(
    app: &App,
    access: &InTenant<Writes>,
    endpoint: EndpointId,
) -> Result<(), ApiError> {
    let found = app.directory.read(|directory| directory.endpoint(access.id(), endpoint));
    if found.is_some_and(|found| matches!(found.value.state, EndpointState::Paused(_))) {
        let detail = "the delivery waits for its endpoint to be resumed";
        return Err(ApiError::detailed(Code::EndpointPaused, detail));
    }
    Ok(())
}

/// Finds out what keeps an endpoint from taking one more first attempt at once.
pub(super) async fn obstacle(
    app: &App,
    access: &InTenant<Writes>,
    endpoint: EndpointId,
) -> Option<Obstacle> {
    let found = app.directory.read(|directory| directory.endpoint(access.id(), endpoint));
    let ordering = found.map_or(Ordering::None, |found| found.value.ordering);
    let health = app.log.health(endpoint, HEALTH_WAIT).await;
    Obstacle::of(ordering, health.as_ref(), app.now())
}

/// Decides about a first attempt, or an attempt that was parked. `waits` says that its time has not
/// come.
pub(super) const fn step(obstacle: Option<Obstacle>, (waits, is_parked): (bool, bool)) -> Step {
    match obstacle {
        Some(Obstacle::Others(_)) if !is_parked => Step::Order,
        // It does not wait for its turn, and a command waits for a dispatcher.
        None | Some(Obstacle::NoAnswer | Obstacle::Ordered) if waits => Step::Order,
        None => Step::Nothing,
        Some(obstacle) => Step::Refuse(obstacle),
    }
}

impl Obstacle {
    fn of(ordering: Ordering, health: Option<&Health>, now: Timestamp) -> Option<Self> {
        let Some(health) = health else { return Some(Self::NoAnswer) };
        if health.breaker == BreakerState::Open {
            return Some(Self::Breaker);
        }
        if let Some(until) = health.quiet_until.filter(|until| *until > now) {
            return Some(Self::Quiet(until));
        }
        if ordering != Ordering::None {
            return Some(Self::Ordered);
        }
        let is_free = health.held == 0 && health.in_flight < u32::from(health.window);
        (!is_free).then_some(Self::Others(health.held))
    }

    /// The refusal.
    pub(super) fn refused(self, tenant: &TenantId, endpoint: EndpointId) -> ApiError {
        let why = match self {
            Self::NoAnswer => String::from("no dispatcher answers for the endpoint at the moment"),
            Self::Breaker => String::from(
                "the endpoint keeps failing, and first attempts wait until one is answered well",
            ),
            Self::Quiet(until) => {
                format!("the endpoint asked for nothing to be sent before {until}")
            }
            Self::Ordered => String::from(
                "the endpoint takes its events in order, and those before it come first",
            ),
            Self::Others(held) => format!("{held} others wait for the endpoint's turn"),
        };
        let instead = format!("POST /v1/tenants/{tenant}/endpoints/{endpoint}/test");
        let detail = format!("{why}; {instead} tries the endpoint at once");
        ApiError::detailed(Code::DeliveryBehindOthers, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_endpoint_with_room_is_about_to_be_tried() {
        let now = Timestamp::from_millis(1_000);
        let free = Health::unburdened(8);
        let (before, later) = (Timestamp::from_millis(500), Timestamp::from_millis(2_000));
        let half_open = BreakerState::HalfOpen;
        for (ordering, health, obstacle) in [
            (Ordering::None, Some(free), None),
            (Ordering::None, Some(Health { in_flight: 7, ..free }), None),
            (Ordering::None, Some(Health { breaker: half_open, ..free }), None),
            (Ordering::None, Some(Health { quiet_until: Some(before), ..free }), None),
            (Ordering::None, Some(Health { in_flight: 8, ..free }), Some(Obstacle::Others(0))),
            (Ordering::None, Some(Health { held: 1, ..free }), Some(Obstacle::Others(1))),
            (
                Ordering::None,
                Some(Health { breaker: BreakerState::Open, ..free }),
                Some(Obstacle::Breaker),
            ),
            (
                Ordering::None,
                Some(Health { quiet_until: Some(later), ..free }),
                Some(Obstacle::Quiet(later)),
            ),
            (Ordering::All, Some(free), Some(Obstacle::Ordered)),
            (Ordering::None, None, Some(Obstacle::NoAnswer)),
        ] {
            let found = Obstacle::of(ordering, health.as_ref(), now);
            assert_eq!(found, obstacle, "{ordering:?} {health:?}");
        }
    }

    #[test]
    fn what_waits_for_its_turn_or_its_time_only_comes_before_others() {
        let refused = |obstacle| Step::Refuse(obstacle);
        let quiet = Obstacle::Quiet(Timestamp::from_millis(1));
        for (obstacle, now, later, parked) in [
            (None, Step::Nothing, Step::Order, Step::Nothing),
            (Some(Obstacle::Others(3)), Step::Order, Step::Order, refused(Obstacle::Others(3))),
            (
                Some(Obstacle::NoAnswer),
                refused(Obstacle::NoAnswer),
                Step::Order,
                refused(Obstacle::NoAnswer),
            ),
            (
                Some(Obstacle::Ordered),
                refused(Obstacle::Ordered),
                Step::Order,
                refused(Obstacle::Ordered),
            ),
            (
                Some(Obstacle::Breaker),
                refused(Obstacle::Breaker),
                refused(Obstacle::Breaker),
                refused(Obstacle::Breaker),
            ),
            (Some(quiet), refused(quiet), refused(quiet), refused(quiet)),
        ] {
            let found = [(false, false), (true, false), (false, true)];
            let found = found.map(|standing| step(obstacle, standing));
            assert_eq!(found, [now, later, parked], "{obstacle:?}");
        }
    }
}
