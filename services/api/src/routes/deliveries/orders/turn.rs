//! Whether a delivery that its endpoint's feed brings is about to be tried, and if not, what it waits
//! for: an answer of `under_way` must not mean hours.

use std::time::Duration;

use fanfare_domain::{
    BreakerState, EndpointId, EndpointState, Health, Timestamp, endpoint::Ordering,
};

use crate::{
    app::App,
    caller::{InTenant, Writes},
    error::{ApiError, Code},
};

/// How long the endpoint's dispatcher may take to say how it does.
const HEALTH_WAIT: Duration = Duration::from_secs(1);

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

/// Tells whether an endpoint takes its events in order: then its feed brings them all.
pub(super) fn is_ordered(app: &App, access: &InTenant<Writes>, endpoint: EndpointId) -> bool {
    let found = app.directory.read(|directory| directory.endpoint(access.id(), endpoint));
    found.is_some_and(|found| found.value.ordering != Ordering::None)
}

/// Refuses what has to wait for others, or for its endpoint to answer again.
pub(super) async fn has_come(
    app: &App,
    access: &InTenant<Writes>,
    endpoint: EndpointId,
) -> Result<(), ApiError> {
    let found = app.directory.read(|directory| directory.endpoint(access.id(), endpoint));
    let ordering = found.map_or(Ordering::None, |found| found.value.ordering);
    let health = app.log.health(endpoint, HEALTH_WAIT).await;
    match obstacle(ordering, health.as_ref(), app.now()) {
        Some(why) => Err(ApiError::detailed(
            Code::DeliveryBehindOthers,
            format!(
                "{why}; POST /v1/tenants/{}/endpoints/{endpoint}/test tries the endpoint at once",
                access.id()
            ),
        )),
        None => Ok(()),
    }
}

/// What keeps an endpoint from taking one more first attempt now.
fn obstacle(ordering: Ordering, health: Option<&Health>, now: Timestamp) -> Option<String> {
    let Some(health) = health else {
        return Some(String::from("no dispatcher answers for the endpoint at the moment"));
    };
    if health.breaker == BreakerState::Open {
        return Some(String::from(
            "the endpoint keeps failing, and first attempts wait until one is answered well",
        ));
    }
    if let Some(until) = health.quiet_until.filter(|until| *until > now) {
        return Some(format!("the endpoint asked for nothing to be sent before {until}"));
    }
    if ordering != Ordering::None {
        return Some(String::from(
            "the endpoint takes its events in order, and those before it come first",
        ));
    }
    if health.held > 0 || health.in_flight >= u32::from(health.window) {
        return Some(format!("{} others wait for the endpoint's turn", health.held));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_endpoint_with_room_is_about_to_be_tried() {
        let now = Timestamp::from_millis(1_000);
        let free = Health::unburdened(8);
        let later = Some(Timestamp::from_millis(2_000));
        let before = Some(Timestamp::from_millis(500));
        for (ordering, health, is_free) in [
            (Ordering::None, Some(free), true),
            (Ordering::None, Some(Health { in_flight: 7, ..free }), true),
            (Ordering::None, Some(Health { breaker: BreakerState::HalfOpen, ..free }), true),
            (Ordering::None, Some(Health { quiet_until: before, ..free }), true),
            (Ordering::None, Some(Health { in_flight: 8, ..free }), false),
            (Ordering::None, Some(Health { held: 1, ..free }), false),
            (Ordering::None, Some(Health { breaker: BreakerState::Open, ..free }), false),
            (Ordering::None, Some(Health { quiet_until: later, ..free }), false),
            (Ordering::All, Some(free), false),
            (Ordering::None, None, false),
        ] {
            let why = obstacle(ordering, health.as_ref(), now);
            assert_eq!(why.is_none(), is_free, "{ordering:?} {health:?}: {why:?}");
        }
    }
}
