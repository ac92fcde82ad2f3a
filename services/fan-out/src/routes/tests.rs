//! The index against looking at every version of every endpoint.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use fanfare_domain::{
    EndpointState, PauseMode, Tenant, TraceContext, TypePattern,
    endpoint::{DisableReason, RatePeriod},
};
use proptest::prelude::*;

use super::*;

const TYPES: [&str; 6] = ["a", "a.b", "a.c", "b.a.c", "a.b.c", "c.c"];
const PATTERNS: [&str; 10] = ["a", "a.b", "a.*", "a.>", ">", "*", "*.c", "*.b.>", "b.*.c", "never"];
const TENANTS: [&str; 2] = ["acme", "other"];

/// One change: whose endpoint, which, what it becomes, and how long after the change before.
#[derive(Clone, Debug)]
struct Step {
    tenant: usize,
    endpoint: u8,
    state: Option<EndpointState>,
    filters: Vec<usize>,
    after: u64,
}

fn state() -> impl Strategy<Value = Option<EndpointState>> {
    prop_oneof![
        3 => Just(Some(EndpointState::Active)),
        1 => Just(Some(EndpointState::Paused(PauseMode::Skip))),
        1 => Just(Some(EndpointState::Paused(PauseMode::Hold))),
        1 => Just(Some(EndpointState::Disabled(DisableReason::ByHand))),
        1 => Just(None),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let filters = prop::collection::vec(0..PATTERNS.len(), 1..4);
    (0..TENANTS.len(), 0..4_u8, state(), filters, 0..30_u64).prop_map(
        |(tenant, endpoint, state, filters, after)| Step {
            tenant,
            endpoint,
            state,
            filters,
            after,
        },
    )
}

fn id(step: &Step) -> EndpointId {
    let tenant = u8::try_from(step.tenant).unwrap();
    EndpointId::new(Timestamp::EPOCH, [tenant * 16 + step.endpoint; 10])
}

fn change(step: &Step) -> Change {
    let filters = step.filters.iter().map(|index| PATTERNS[*index].parse().unwrap()).collect();
    let endpoint = Endpoint {
        id: id(step),
        tenant: TENANTS[step.tenant].parse().unwrap(),
        url: String::from("https://example.com/"),
        name: String::new(),
        description: String::new(),
        filters,
        condition: None,
        secrets: Vec::new(),
        headers: BTreeMap::new(),
        state: step.state.unwrap_or(EndpointState::Active),
        retry: None,
        timeout: None,
        concurrency: None,
        rate_limit: None,
        ordering: fanfare_domain::endpoint::Ordering::None,
        batch: None,
        cancelled_before: None,
        trace_context: None,
        security: fanfare_domain::endpoint::Security::default(),
        metadata: BTreeMap::new(),
        created_at: Timestamp::EPOCH,
        updated_at: Timestamp::EPOCH,
    };
    Change {
        entity: Entity::Endpoint(Arc::new(endpoint)),
        deleted: step.state.is_none(),
        actor: String::new(),
        reason: String::new(),
        trace: TraceContext::default(),
    }
}

/// Endpoints that have these conditions, and want everything else.
pub(crate) fn asking(conditions: &[String]) -> Matches {
    let mut routes = Routes::default();
    for (condition, endpoint) in conditions.iter().zip(0..) {
        let everything = vec![PATTERNS.iter().position(|pattern| *pattern == ">").unwrap()];
        let state = Some(EndpointState::Active);
        let step = Step { tenant: 0, endpoint, state, filters: everything, after: 0 };
        let mut change = change(&step);
        if let Entity::Endpoint(endpoint) = &mut change.entity {
            Arc::make_mut(endpoint).condition = Some(condition.clone());
        }
        routes.apply(u64::from(endpoint) + 1, hour(1), &change);
    }
    routes.of(&TENANTS[0].parse().unwrap(), &TYPES[0].parse().unwrap(), hour(2))
}

fn hour(hour: u64) -> Timestamp {
    Timestamp::EPOCH.saturating_add(Duration::from_hours(hour))
}

/// Hours at which the steps take effect.
fn hours(steps: &[Step]) -> Vec<u64> {
    let add = |now: &mut u64, step: &Step| {
        *now += step.after;
        Some(*now)
    };
    steps.iter().scan(1_000, add).collect()
}

/// Looks at every version of every endpoint.
fn brute_force(steps: &[Step], tenant: usize, event_type: &str, accepted: u64) -> Matches {
    let event_type: EventType = event_type.parse().unwrap();
    let mut in_effect: BTreeMap<EndpointId, &Step> = BTreeMap::new();
    for (step, at) in steps.iter().zip(hours(steps)) {
        if at <= accepted && step.tenant == tenant {
            in_effect.insert(id(step), step);
        }
    }
    let mut matches = Matches::default();
    for (endpoint, step) in in_effect {
        let pattern = |index: &usize| PATTERNS[*index].parse::<TypePattern>().unwrap();
        if !step.filters.iter().any(|index| pattern(index).matches(&event_type)) {
            continue;
        }
        match step.state {
            Some(EndpointState::Active | EndpointState::Paused(PauseMode::Hold)) => {
                matches.targets.push(endpoint);
            }
            Some(EndpointState::Paused(PauseMode::Skip)) => matches.skipped.push(endpoint),
            Some(EndpointState::Disabled(_)) | None => {}
        }
    }
    matches
}

fn folded(steps: &[Step], oldest_in_hand: u64) -> Routes {
    let mut routes = Routes::default();
    routes.set_oldest_in_hand(hour(oldest_in_hand));
    for ((step, at), revision) in steps.iter().zip(hours(steps)).zip(1..) {
        routes.apply(revision, hour(at), &change(step));
    }
    routes
}

proptest! {
    #[test]
    fn the_index_finds_what_looking_at_everything_finds(
        steps in prop::collection::vec(step(), 0..40),
        oldest_in_hand in 1_000..1_600_u64,
        older in 0..24_u64,
    ) {
        let routes = folded(&steps, oldest_in_hand);
        let last = hours(&steps).last().copied().unwrap_or(1_000).max(oldest_in_hand);
        let accept_times = [oldest_in_hand - older, oldest_in_hand, last, last + 1];
        for accepted in accept_times.into_iter().chain(hours(&steps)) {
            if accepted + 24 < oldest_in_hand {
                continue;
            }
            for (tenant, name) in TENANTS.iter().enumerate() {
                for event_type in TYPES {
                    let found = routes.of(
                        &name.parse().unwrap(),
                        &event_type.parse().unwrap(),
                        hour(accepted),
                    );
                    prop_assert_eq!(found, brute_force(&steps, tenant, event_type, accepted));
                }
            }
        }
    }

    #[test]
    fn what_is_long_over_is_forgotten(steps in prop::collection::vec(step(), 0..40)) {
        let mut steps = steps;
        for (tenant, endpoint) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)] {
            steps.push(Step { tenant, endpoint, state: None, filters: vec![0], after: 0 });
        }
        let mut routes = folded(&steps, 0);
        routes.set_oldest_in_hand(hour(1_000_000));
        routes.apply(100, hour(1_000_000), &Change {
            entity: Entity::Profile(Arc::new(fanfare_domain::config::ProfileSource {
                name: String::from("any"),
                toml: String::new(),
            })),
            ..change(&steps[0])
        });
        prop_assert!(routes.tenants.is_empty(), "{routes:?}");
        prop_assert!(routes.replaced.is_empty());
        prop_assert_eq!(routes.revision(), 100);
    }
}

fn one(state: Option<EndpointState>, after: u64) -> Step {
    Step { tenant: 0, endpoint: 0, state, filters: vec![0], after }
}

fn is_target(routes: &Routes, accepted: Timestamp) -> bool {
    let matches = routes.of(&TENANTS[0].parse().unwrap(), &"a".parse().unwrap(), accepted);
    !matches.targets.is_empty()
}

#[test]
fn a_version_is_in_effect_from_the_very_nanosecond_of_its_storing() {
    let skipped = one(Some(EndpointState::Paused(PauseMode::Skip)), 1);
    let routes = folded(&[one(Some(EndpointState::Active), 0), skipped], 1_000);
    let paused_at = hour(1_001);
    assert!(!is_target(&routes, paused_at));
    assert!(is_target(&routes, paused_at.saturating_sub(Duration::from_nanos(1))));
}

#[test]
fn an_event_older_than_memory_is_routed_by_the_oldest_version_that_is_known() {
    let steps = [
        one(Some(EndpointState::Active), 0),
        one(Some(EndpointState::Paused(PauseMode::Skip)), 1),
        one(Some(EndpointState::Active), 1),
    ];
    let routes = folded(&[&steps[..], &[one(None, 2_000)]].concat(), 2_500);
    assert!(is_target(&routes, hour(1_001)), "skipped then, but that is forgotten");
    assert!(!is_target(&routes, hour(999)), "before the endpoint was there");
}

#[test]
fn a_change_that_does_not_touch_routing_makes_no_version() {
    let active = one(Some(EndpointState::Active), 1);
    let routes = folded(&[active.clone(), active.clone(), active], 0);
    assert!(routes.replaced.is_empty());
}

#[test]
fn only_the_tenants_own_endpoints_are_found() {
    let routes = folded(&[one(Some(EndpointState::Active), 0)], 1_000);
    let other = routes.of(&"other".parse().unwrap(), &"a".parse().unwrap(), hour(2_000));
    assert_eq!(other, Matches::default());
}

#[test]
fn a_limit_is_of_the_revision_that_set_it() {
    let tenant = |name: &str, requests: Option<u32>, deleted| {
        let rate =
            |requests| RateLimit { requests, per: RatePeriod::Second, burst: NonZeroU32::MIN };
        let tenant = Tenant {
            id: TENANTS[0].parse().unwrap(),
            name: String::from(name),
            profile: String::new(),
            rate_limit: requests.and_then(NonZeroU32::new).map(rate),
            unknown_types: fanfare_domain::tenant::UnknownTypes::Allowed,
            plan: None,
            endpoints_max: None,
            created_at: Timestamp::EPOCH,
            expunge: None,
        };
        Change { entity: Entity::Tenant(Arc::new(tenant)), deleted, ..change(&one(None, 0)) }
    };
    let steps = [
        (tenant("", Some(5), false), Some(1)),
        (tenant("renamed", Some(5), false), Some(1)),
        (tenant("renamed", Some(6), false), Some(3)),
        (tenant("renamed", None, false), None),
        (tenant("renamed", Some(6), false), Some(5)),
        (tenant("renamed", Some(6), true), None),
        (tenant("renamed", Some(6), false), Some(7)),
    ];
    let mut routes = Routes::default();
    for ((change, set_by), revision) in steps.into_iter().zip(1..) {
        routes.apply(revision, hour(revision), &change);
        let limit = routes.limit(&TENANTS[0].parse().unwrap());
        assert_eq!(limit.map(|limit| limit.revision), set_by, "after {revision}");
    }
}
