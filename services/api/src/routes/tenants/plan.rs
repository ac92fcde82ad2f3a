//! What a plan of a profile comes to for a tenant: its limits, taken once.

use std::num::NonZeroU32;

use fanfare_domain::{
    Tenant,
    endpoint::{RateLimit, RatePeriod},
    profile::{Plan, Profile},
};

use crate::{error::ApiError, extract::Patched, routes::endpoints::RateLimitView};

/// The most endpoints that a limit can allow.
const ENDPOINTS_MAX: u32 = 1_000_000;

/// The limits of a tenant, and the plan that they were taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) plan: Option<String>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) endpoints_max: Option<NonZeroU32>,
}

impl Limits {
    /// Returns the limits of one of a profile's plans; none without a plan.
    pub(super) fn of_plan(profile: &Profile, name: Option<String>) -> Result<Self, ApiError> {
        let Some(name) = name else { return Ok(Self::default()) };
        let plan = profile.plans.iter().find(|plan| plan.name == name);
        let plan = plan.ok_or_else(|| unknown(profile))?;
        Ok(Self {
            plan: Some(name),
            rate_limit: rate_limit(plan),
            endpoints_max: plan.endpoints_max,
        })
    }

    /// Puts limits that a caller gave in the place of the plan's.
    pub(super) fn replace(
        &mut self,
        rate_limit: Option<&RateLimitView>,
        count: Option<u32>,
    ) -> Result<(), ApiError> {
        if let Some(limit) = rate_limit {
            self.rate_limit = Some(limit.admit()?);
        }
        if let Some(count) = count {
            self.endpoints_max = Some(endpoints_max(count)?);
        }
        Ok(())
    }
}

/// Changes a tenant's plan as a patch says. A tenant that changes its profile keeps its plan where
/// the new profile has one of this name, and has to choose otherwise.
pub(super) fn apply(
    next: &mut Tenant,
    before: &Tenant,
    patch: &Patched<String>,
    profile: &Profile,
) -> Result<(), ApiError> {
    let name = match patch {
        Patched::Absent if next.profile == before.profile || next.plan.is_none() => return Ok(()),
        Patched::Absent => next.plan.take(),
        Patched::Null => None,
        Patched::Value(name) => Some(name.clone()),
    };
    let Limits { plan, rate_limit, endpoints_max } = Limits::of_plan(profile, name)?;
    next.plan = plan;
    next.rate_limit = rate_limit;
    next.endpoints_max = endpoints_max;
    Ok(())
}

/// Admits how many endpoints a tenant may have.
pub(super) fn endpoints_max(count: u32) -> Result<NonZeroU32, ApiError> {
    NonZeroU32::new(count)
        .filter(|count| count.get() <= ENDPOINTS_MAX)
        .ok_or_else(|| ApiError::value("endpoints_max", format!("it is 1 to {ENDPOINTS_MAX}")))
}

/// Deliveries beyond a plan's events per second are spread out, evenly.
fn rate_limit(plan: &Plan) -> Option<RateLimit> {
    let most = NonZeroU32::new(RateLimit::REQUESTS_MAX)?;
    let requests = plan.events_per_second_max?.min(most);
    Some(RateLimit { requests, per: RatePeriod::Second, burst: NonZeroU32::MIN })
}

fn unknown(profile: &Profile) -> ApiError {
    let names: Vec<&str> = profile.plans.iter().map(|plan| plan.name.as_str()).collect();
    let name = &profile.name;
    if names.is_empty() {
        return ApiError::value("plan", format!("the profile {name} has no plans"));
    }
    ApiError::value("plan", format!("of the profile {name} it is one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{Timestamp, profile::Profile, tenant::UnknownTypes};

    use super::*;

    fn kyberaccess() -> Profile {
        Profile::parse(include_str!("../../../../../deploy/profiles/kyberaccess.toml")).unwrap()
    }

    fn tenant(limits: Limits) -> Tenant {
        let Limits { plan, rate_limit, endpoints_max } = limits;
        Tenant {
            id: "acme".parse().unwrap(),
            name: String::new(),
            profile: String::from("kyberaccess"),
            rate_limit,
            plan,
            endpoints_max,
            unknown_types: UnknownTypes::Allowed,
            created_at: Timestamp::EPOCH,
            expunge: None,
        }
    }

    #[test]
    fn the_plans_of_kyberaccess_are_3_10_and_any_number_of_endpoints_at_10_50_and_200_a_second() {
        let profile = kyberaccess();
        for (name, endpoints, per_second) in
            [("starter", Some(3), 10), ("professional", Some(10), 50), ("enterprise", None, 200)]
        {
            let limits = Limits::of_plan(&profile, Some(String::from(name))).unwrap();
            assert_eq!(limits.endpoints_max.map(NonZeroU32::get), endpoints, "{name}");
            let rate = limits.rate_limit.unwrap();
            assert_eq!((rate.requests.get(), rate.per), (per_second, RatePeriod::Second), "{name}");
        }
        assert!(Limits::of_plan(&profile, Some(String::from("gold"))).is_err());
    }

    #[test]
    fn a_plan_is_taken_changed_and_given_up() {
        let profile = kyberaccess();
        let starter = Limits::of_plan(&profile, Some(String::from("starter"))).unwrap();
        let before = tenant(starter);
        let patched = |patch| {
            let mut next = before.clone();
            apply(&mut next, &before, &patch, &profile).unwrap();
            (next.plan, next.endpoints_max.map(NonZeroU32::get), next.rate_limit.is_some())
        };
        assert_eq!(patched(Patched::Absent), (Some(String::from("starter")), Some(3), true));
        assert_eq!(patched(Patched::Null), (None, None, false));
        let other = Patched::Value(String::from("enterprise"));
        assert_eq!(patched(other), (Some(String::from("enterprise")), None, true));
    }

    #[test]
    fn another_profile_needs_another_plan() {
        let starter = Limits::of_plan(&kyberaccess(), Some(String::from("starter"))).unwrap();
        let before = tenant(starter);
        let kryptos = include_str!("../../../../../deploy/profiles/kryptos.toml");
        let kryptos = Profile::parse(kryptos).unwrap();
        let mut next = Tenant { profile: String::from("kryptos"), ..before.clone() };
        assert!(apply(&mut next.clone(), &before, &Patched::Absent, &kryptos).is_err());
        apply(&mut next, &before, &Patched::Null, &kryptos).unwrap();
        assert_eq!(next.plan, None);
    }
}
