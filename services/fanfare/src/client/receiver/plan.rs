//! What a receiver answers: it may fail the first attempts of each delivery.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fanfare_domain::Profile;
use hyper::{HeaderMap, StatusCode, header::HeaderName};
use serde::Deserialize;

/// How many deliveries are remembered; of the ones before, attempts count from 1 again.
const SEEN_MAX: usize = 10_000;

/// What requests are answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How many attempts of each delivery are answered with 500.
    pub(crate) fail: u32,
    /// What the others are answered with.
    pub(crate) status: StatusCode,
    /// How long every answer is held back.
    pub(crate) delay: Duration,
}

/// What one request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// How long it is held back.
    pub(crate) delay: Duration,
}

/// How often each delivery has arrived.
#[derive(Debug, Default)]
pub(super) struct Seen {
    times: BTreeMap<String, u32>,
    order: VecDeque<String>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { fail: 0, status: StatusCode::OK, delay: Duration::ZERO }
    }
}

impl Plan {
    /// Decides on the answer to an attempt, counted from 1.
    pub(crate) const fn answer(&self, attempt: u32) -> Answer {
        let status =
            if attempt <= self.fail { StatusCode::INTERNAL_SERVER_ERROR } else { self.status };
        Answer { status, delay: self.delay }
    }
}

impl Seen {
    /// Counts one more arrival, and returns how many there were with it.
    pub(super) fn count(&mut self, identity: String) -> u32 {
        if let Some(times) = self.times.get_mut(&identity) {
            *times = times.saturating_add(1);
            return *times;
        }
        if self.order.len() >= SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.times.remove(&oldest);
        }
        self.order.push_back(identity.clone());
        self.times.insert(identity, 1);
        1
    }
}

/// What tells a delivery from others and is the same for all its attempts: the id that the profile
/// puts into a header, else the one in the body, else nothing.
pub(crate) fn identity(profile: Option<&Profile>, headers: &HeaderMap, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        id: String,
    }
    let value = |name: &str| Some(String::from(headers.get(name)?.to_str().ok()?));
    let is_id = |name: &&str| name.ends_with("-id") || name.ends_with("-delivery");
    let in_header = match profile {
        Some(profile) => profile.header_names().find(is_id).and_then(value),
        None => headers.keys().map(HeaderName::as_str).find(is_id).and_then(value),
    };
    let in_body = || serde_json::from_slice::<Body>(body).ok().map(|body| body.id);
    in_header.or_else(in_body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use fanfare_domain::Profiles;

    use super::*;

    #[test]
    fn the_first_attempts_fail_and_then_none() {
        let plan = Plan { fail: 2, status: StatusCode::ACCEPTED, delay: Duration::from_secs(1) };
        let statuses = [1, 2, 3, 4].map(|attempt| plan.answer(attempt).status.as_u16());
        assert_eq!(statuses, [500, 500, 202, 202]);
        assert_eq!(plan.answer(1).delay, Duration::from_secs(1));
        assert_eq!(Plan::default().answer(1).status, StatusCode::OK);
    }

    #[test]
    fn attempts_are_counted_for_each_delivery() {
        let mut seen = Seen::default();
        let counts = ["a", "b", "a", "a", "b"].map(|id| seen.count(String::from(id)));
        assert_eq!(counts, [1, 1, 2, 3, 2]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..=SEEN_MAX {
            seen.count(number.to_string());
        }
        assert_eq!((seen.times.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
        assert_eq!(seen.count(String::from("0")), 1, "the oldest is forgotten");
        assert_eq!(seen.count(SEEN_MAX.to_string()), 2);
    }

    #[test]
    fn a_delivery_is_known_by_what_its_profile_repeats() {
        let profiles = Profiles::built_in();
        for (profile, header, body, expected) in [
            (Some("standard-webhooks"), "webhook-id", "{}", "7"),
            (Some("kryptos"), "x-webhook-id", "{\"id\":\"evt_1\"}", "7"),
            (Some("kyberaccess"), "x-kyberaccess-delivery", "{\"id\":\"evt_1\"}", "7"),
            (Some("killb"), "x-request-id", "{\"id\":\"uuid\"}", "uuid"),
            (None, "x-any-id", "{}", "7"),
            (None, "content-type", "no JSON", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header, "7".parse().unwrap());
            let profile = profile.map(|name| &**profiles.get(name).unwrap());
            assert_eq!(identity(profile, &headers, body.as_bytes()), expected, "{header}");
        }
    }
}
