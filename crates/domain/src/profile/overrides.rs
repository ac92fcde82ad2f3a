//! What an endpoint may have instead of what its profile says.

use std::time::Duration;

use super::Profile;
use crate::retry::{Delays, Policy, span};

/// How far an endpoint's own retry policy and time-out may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideRules {
    /// How many retries a policy may have; `None` for as many as any.
    #[serde(default)]
    pub retries_max: Option<u32>,
    /// How long an attempt may take; `None` for as long as any.
    #[serde(default, deserialize_with = "some_span")]
    pub timeout_max: Option<Duration>,
}

/// An endpoint cannot have that instead of what its profile says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideRefused {
    /// The profile allows fewer retries.
    #[error("with the profile {profile} there are at most {max} retries, not {retries}")]
    Retries {
        /// The profile.
        profile: String,
        /// How many there are to be.
        retries: u32,
        /// How many there may be.
        max: u32,
    },
    /// The profile allows less time.
    #[error("with the profile {profile} an attempt takes {max:?} at most, not {timeout:?}")]
    Timeout {
        /// The profile.
        profile: String,
        /// How long it is to take.
        timeout: Duration,
        /// How long it may take.
        max: Duration,
    },
    /// The time-out is none that an endpoint of any profile can have.
    #[error("a time-out is {min:?} to {max:?}", min = Profile::TIMEOUT_MIN, max = Profile::TIMEOUT_MAX)]
    TimeoutOutOfBounds,
    /// The endpoint would be asked again without a pause.
    #[error("a wait is at least {min:?}", min = Profile::DELAY_MIN)]
    TooSoon,
    /// The event would be gone before.
    #[error("all waits together are at most {max} days", max = Profile::HORIZON_MAX.as_secs() / 86_400)]
    TooLate,
}

impl OverrideRefused {
    /// Tells whether another profile would allow it.
    pub const fn is_by_profile(&self) -> bool {
        match self {
            Self::Retries { .. } | Self::Timeout { .. } => true,
            Self::TimeoutOutOfBounds | Self::TooSoon | Self::TooLate => false,
        }
    }
}

impl Profile {
    /// The shortest wait of an endpoint's own retry policy.
    pub const DELAY_MIN: Duration = Duration::from_millis(10);
    /// The longest time that the waits of an endpoint's own retry policy may add up to: that of which
    /// events are kept, as a rule.
    pub const HORIZON_MAX: Duration = Duration::from_hours(30 * 24);

    /// Checks a retry policy that an endpoint is to have instead of the profile's.
    pub fn admit_retry(&self, policy: &Policy) -> Result<(), OverrideRefused> {
        let retries = policy.delays.retries();
        if let Some(max) = self.overrides.retries_max.filter(|max| retries > *max) {
            return Err(OverrideRefused::Retries { profile: self.name.clone(), retries, max });
        }
        if shortest(&policy.delays).is_some_and(|wait| wait < Self::DELAY_MIN) {
            return Err(OverrideRefused::TooSoon);
        }
        if policy.horizon() > Self::HORIZON_MAX {
            return Err(OverrideRefused::TooLate);
        }
        Ok(())
    }

    /// Checks a time-out that an endpoint is to have instead of the profile's.
    pub fn admit_timeout(&self, timeout: Duration) -> Result<(), OverrideRefused> {
        if !(Self::TIMEOUT_MIN..=Self::TIMEOUT_MAX).contains(&timeout) {
            return Err(OverrideRefused::TimeoutOutOfBounds);
        }
        match self.overrides.timeout_max.filter(|max| timeout > *max) {
            Some(max) => Err(OverrideRefused::Timeout { profile: self.name.clone(), timeout, max }),
            None => Ok(()),
        }
    }
}

fn shortest(delays: &Delays) -> Option<Duration> {
    (1..=delays.retries()).filter_map(|attempt| delays.after(attempt)).min()
}

fn some_span<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<Duration>, D::Error> {
    span::deserialize(source).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profiles;

    fn profile(name: &str) -> Profile {
        Profile::clone(Profiles::built_in().get(name).unwrap())
    }

    fn policy(delays: &[u64]) -> Policy {
        Policy::from_delays(delays.iter().map(|millis| Duration::from_millis(*millis)).collect())
    }

    #[test]
    fn a_schedule_that_is_promised_is_not_made_longer_by_an_endpoint() {
        for (name, max) in [("kryptos", 2), ("killb", 5), ("kyberaccess", 5)] {
            let profile = profile(name);
            let own = profile.retry.delays.retries();
            assert_eq!((own, profile.overrides.retries_max), (max, Some(max)), "{name}");
            let fewest = vec![1_000; max as usize];
            assert_eq!(profile.admit_retry(&policy(&fewest)), Ok(()), "{name}");
            assert_eq!(profile.admit_retry(&policy(&[])), Ok(()), "{name}");
            let more = vec![1_000; max as usize + 1];
            let refused = profile.admit_retry(&policy(&more)).unwrap_err();
            assert!(refused.is_by_profile(), "{name}: {refused}");
        }
        let any = profile("standard-webhooks");
        assert_eq!(any.admit_retry(&policy(&[1_000; Delays::RETRIES_MAX])), Ok(()));
    }

    #[test]
    fn a_time_that_is_promised_is_not_made_longer_by_an_endpoint() {
        for (name, seconds) in [("kryptos", 10), ("killb", 5), ("kyberaccess", 30)] {
            let profile = profile(name);
            let max = Duration::from_secs(seconds);
            assert_eq!((profile.attempt.timeout, profile.overrides.timeout_max), (max, Some(max)));
            assert_eq!(profile.admit_timeout(max), Ok(()), "{name}");
            let refused = profile.admit_timeout(max + Duration::from_millis(1)).unwrap_err();
            assert!(refused.is_by_profile(), "{name}: {refused}");
        }
        assert_eq!(profile("standard-webhooks").admit_timeout(Profile::TIMEOUT_MAX), Ok(()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_every_profile() {
        for profile in ["standard-webhooks", "kryptos", "killb", "kyberaccess"].map(profile) {
            let (min, max) = (Profile::TIMEOUT_MIN, Profile::TIMEOUT_MAX);
            for timeout in [min / 2, max * 2] {
                let refused = profile.admit_timeout(timeout);
                assert_eq!(refused, Err(OverrideRefused::TimeoutOutOfBounds), "{}", profile.name);
            }
            let soon = profile.admit_retry(&policy(&[1_000, 9]));
            assert_eq!(soon, Err(OverrideRefused::TooSoon), "{}", profile.name);
        }
        let week = 7 * 86_400_000;
        let profile = profile("standard-webhooks");
        assert_eq!(profile.admit_retry(&policy(&[week; 4])), Ok(()));
        assert_eq!(profile.admit_retry(&policy(&[week; 5])), Err(OverrideRefused::TooLate));
    }
}
