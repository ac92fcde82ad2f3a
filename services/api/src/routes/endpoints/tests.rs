//! What a caller sends against what is kept.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use fanfare_domain::{
    EndpointState, PauseMode, UrlPolicy,
    endpoint::{header_owner, secret_owner},
    profile::Profiles,
    seal::{Clear, Keyring},
};

use super::{
    draft::{EndpointPatch, Maker, NewEndpoint, SECRETS_MAX, SecretWish},
    view::{BatchView, RateLimitView},
    *,
};
use crate::url_rules::{Https, UrlRules};

/// Some day in 2026, in seconds.
const NOON: u64 = 1_780_000_000;
const LONG_SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(super) struct Bench {
    pub(super) profile: Arc<Profile>,
    urls: UrlRules,
    pub(super) keyring: Keyring,
    drawn: Cell<u8>,
}

impl Bench {
    pub(super) fn new(profile: &str) -> Self {
        Self {
            profile: Arc::clone(Profiles::built_in().get(profile).unwrap()),
            urls: UrlRules { https: Https::Always, policy: UrlPolicy::default() },
            keyring: Keyring::parse(&"ab".repeat(32)).unwrap(),
            drawn: Cell::new(0),
        }
    }

    pub(super) fn maker(&self, second: u64) -> Maker<'_> {
        let now = Timestamp::from_millis((NOON + second) * 1_000);
        Maker { profile: &self.profile, urls: &self.urls, keyring: &self.keyring, now }
    }

    pub(super) fn chance(&self) -> impl Fn() -> [u8; 56] + '_ {
        || {
            self.drawn.set(self.drawn.get() + 1);
            [self.drawn.get(); 56]
        }
    }

    pub(super) fn create(&self, new: NewEndpoint) -> Result<(Endpoint, Clear), ApiError> {
        let id = EndpointId::new(Timestamp::EPOCH, [7; 10]);
        self.maker(1).create(new, id, "acme".parse().unwrap(), self.chance())
    }

    pub(super) fn patch(
        &self,
        endpoint: &Endpoint,
        patch: &EndpointPatch,
    ) -> Result<Endpoint, ApiError> {
        match self.maker(2).patch(endpoint, patch, self.chance())? {
            Edited::Changed(next) => Ok(next),
            Edited::Unchanged => Ok(endpoint.clone()),
        }
    }
}

pub(super) fn new() -> NewEndpoint {
    NewEndpoint {
        url: String::from("https://example.com/hook"),
        event_types: vec![String::from("a.b")],
        ..NewEndpoint::default()
    }
}

pub(super) fn patch(json: serde_json::Value) -> EndpointPatch {
    serde_json::from_value(json).unwrap()
}

pub(super) fn field(result: Result<(Endpoint, Clear), ApiError>) -> String {
    match result {
        Err(ApiError::Value { field, .. }) => field,
        other => panic!("{:?}", other.map(|(endpoint, _)| endpoint)),
    }
}

#[test]
fn secrets_and_headers_are_sealed_for_their_endpoint() {
    let bench = Bench::new("standard-webhooks");
    let headers = BTreeMap::from([(String::from("X-Token"), String::from("t0k3n"))]);
    let (endpoint, secret) = bench.create(NewEndpoint { headers, ..new() }).unwrap();
    assert!(secret.expose().starts_with("whsec_"));
    let sealed = &endpoint.secrets[0].sealed;
    let opened = bench.keyring.open(&secret_owner(endpoint.id), sealed).unwrap();
    assert_eq!(opened, secret);
    let header = &endpoint.headers["x-token"];
    let opened = bench.keyring.open(&header_owner(endpoint.id, "x-token"), header).unwrap();
    assert_eq!(opened.expose(), "t0k3n");
    assert_ne!(sealed.bytes[..24], header.bytes[..24], "no nonce is used twice");
    let shown =
        serde_json::to_string(&EndpointView::of(&endpoint, &bench.profile, endpoint.created_at));
    let shown = shown.unwrap();
    assert!(!shown.contains("t0k3n") && !shown.contains("whsec_"), "{shown}");
    assert!(shown.contains("x-token"));
}

#[test]
fn filters_are_kept_as_patterns_and_shown_as_written() {
    for (profile, written, kept) in
        [("killb", "RAMP", "RAMP.*"), ("kyberaccess", "*", ">"), ("kryptos", "a.b", "a.b")]
    {
        let bench = Bench::new(profile);
        let secret = (profile == "killb").then(|| String::from(LONG_SECRET));
        let event_types = vec![String::from(written)];
        let (endpoint, _) = bench.create(NewEndpoint { event_types, secret, ..new() }).unwrap();
        assert_eq!(endpoint.filters[0].as_str(), kept);
        let view = EndpointView::of(&endpoint, &bench.profile, endpoint.created_at);
        assert_eq!(
            serde_json::to_value(&view).unwrap()["event_types"],
            serde_json::json!([written])
        );
    }
}

#[test]
fn each_profile_keeps_its_own_rules() {
    let none = || NewEndpoint { event_types: Vec::new(), ..new() };
    assert_eq!(field(Bench::new("kryptos").create(none())), "event_types");
    assert!(Bench::new("standard-webhooks").create(none()).is_ok(), "it means everything");
    let with = |secret: &str| NewEndpoint { secret: Some(String::from(secret)), ..new() };
    assert_eq!(field(Bench::new("killb").create(new())), "secret", "the caller must choose one");
    assert_eq!(field(Bench::new("killb").create(with("too short"))), "secret");
    assert!(Bench::new("killb").create(with(LONG_SECRET)).is_ok());
    assert_eq!(field(Bench::new("kyberaccess").create(with(LONG_SECRET))), "secret");
    let headers = BTreeMap::from([(String::from("X-Webhook-Id"), String::from("mine"))]);
    assert_eq!(field(Bench::new("kryptos").create(NewEndpoint { headers, ..new() })), "headers");
}

fn rate_limit(requests: u32, burst: u32) -> Option<RateLimitView> {
    let json = serde_json::json!({"requests": requests, "per": "minute", "burst": burst});
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_rate_limit_is_set_shown_and_taken_away() {
    let bench = Bench::new("standard-webhooks");
    let without_burst = serde_json::json!({"requests": 10, "per": "second"});
    let limit = serde_json::from_value(without_burst).unwrap();
    let (endpoint, _) = bench.create(NewEndpoint { rate_limit: limit, ..new() }).unwrap();
    let shown = |endpoint: &Endpoint| {
        let view = EndpointView::of(endpoint, &bench.profile, endpoint.created_at);
        serde_json::to_value(&view).unwrap()["rate_limit"].clone()
    };
    let expected = serde_json::json!({"requests": 10, "per": "second", "burst": 1});
    assert_eq!(shown(&endpoint), expected);
    assert_eq!(endpoint.rate_limit.unwrap().interval(), Duration::from_millis(100));
    let more = serde_json::json!({"rate_limit": {"requests": 5, "per": "minute", "burst": 2}});
    let next = bench.patch(&endpoint, &patch(more.clone())).unwrap();
    assert_eq!(shown(&next), more["rate_limit"]);
    let left = bench.patch(&next, &patch(serde_json::json!({"name": "n"}))).unwrap();
    assert_eq!(left.rate_limit, next.rate_limit);
    let none = bench.patch(&next, &patch(serde_json::json!({"rate_limit": null}))).unwrap();
    assert_eq!(shown(&none), serde_json::Value::Null);
}

fn batch(max_events: u16, max_wait_ms: u64) -> Option<BatchView> {
    let json = serde_json::json!({"max_events": max_events, "max_wait_ms": max_wait_ms});
    serde_json::from_value(json).unwrap()
}

#[test]
fn batches_are_set_shown_and_taken_away() {
    let bench = Bench::new("standard-webhooks");
    let (endpoint, _) = bench.create(NewEndpoint { batch: batch(50, 200), ..new() }).unwrap();
    let shown = |endpoint: &Endpoint| {
        let view = EndpointView::of(endpoint, &bench.profile, endpoint.created_at);
        serde_json::to_value(&view).unwrap()["batch"].clone()
    };
    assert_eq!(shown(&endpoint), serde_json::json!({"max_events": 50, "max_wait_ms": 200}));
    let other = serde_json::json!({"batch": {"max_events": 2}});
    let next = bench.patch(&endpoint, &patch(other)).unwrap();
    assert_eq!(shown(&next), serde_json::json!({"max_events": 2, "max_wait_ms": 0}));
    let left = bench.patch(&next, &patch(serde_json::json!({"name": "n"}))).unwrap();
    assert_eq!(left.batch, next.batch);
    let none = bench.patch(&next, &patch(serde_json::json!({"batch": null}))).unwrap();
    assert_eq!(shown(&none), serde_json::Value::Null);
}

#[test]
fn a_profile_whose_requests_carry_one_event_has_no_batches() {
    for profile in ["kryptos", "kyberaccess"] {
        let bench = Bench::new(profile);
        let refused = bench.create(NewEndpoint { batch: batch(50, 200), ..new() }).unwrap_err();
        assert_eq!(refused.code(), Code::BatchUnsupported, "{profile}");
        let (endpoint, _) = bench.create(new()).unwrap();
        let more = patch(serde_json::json!({"batch": {"max_events": 50}}));
        let refused = bench.patch(&endpoint, &more).unwrap_err();
        assert_eq!(refused.code(), Code::BatchUnsupported, "{profile}");
        let none = patch(serde_json::json!({"batch": null}));
        assert_eq!(bench.patch(&endpoint, &none).unwrap(), endpoint);
    }
}

#[test]
fn an_order_is_set_shown_and_changed() {
    let bench = Bench::new("standard-webhooks");
    let (endpoint, _) = bench.create(new()).unwrap();
    let shown = |endpoint: &Endpoint| {
        let view = EndpointView::of(endpoint, &bench.profile, endpoint.created_at);
        serde_json::to_value(&view).unwrap()["ordering"].clone()
    };
    assert_eq!(shown(&endpoint), "none");
    let mut last = endpoint;
    for ordering in ["key", "all", "none"] {
        let change = patch(serde_json::json!({ "ordering": ordering }));
        last = bench.patch(&last, &change).unwrap();
        assert_eq!((shown(&last), last.ordering.as_str()), (ordering.into(), ordering));
    }
    let ordering = serde_json::from_value(serde_json::json!("key")).unwrap();
    let (ordered, _) = bench.create(NewEndpoint { ordering, ..new() }).unwrap();
    assert_eq!(shown(&ordered), "key");
}

#[test]
fn an_endpoint_takes_batches_or_wants_order() {
    let bench = Bench::new("standard-webhooks");
    let key = || serde_json::from_value(serde_json::json!("key")).unwrap();
    let both = NewEndpoint { ordering: key(), batch: batch(50, 200), ..new() };
    assert_eq!(bench.create(both).unwrap_err().code(), Code::BatchAndOrdering);
    let (ordered, _) = bench.create(NewEndpoint { ordering: key(), ..new() }).unwrap();
    let more = patch(serde_json::json!({"batch": {"max_events": 50}}));
    assert_eq!(bench.patch(&ordered, &more).unwrap_err().code(), Code::BatchAndOrdering);
    let (batching, _) = bench.create(NewEndpoint { batch: batch(50, 200), ..new() }).unwrap();
    let more = patch(serde_json::json!({"ordering": "all"}));
    assert_eq!(bench.patch(&batching, &more).unwrap_err().code(), Code::BatchAndOrdering);
    let other = patch(serde_json::json!({"ordering": "all", "batch": null}));
    assert!(bench.patch(&batching, &other).is_ok());
}

#[test]
fn values_out_of_their_limits_are_refused_by_name() {
    let bench = Bench::new("standard-webhooks");
    for (expected, new) in [
        ("name", NewEndpoint { name: "n".repeat(257), ..new() }),
        ("timeout_ms", NewEndpoint { timeout_ms: Some(99), ..new() }),
        ("timeout_ms", NewEndpoint { timeout_ms: Some(60_001), ..new() }),
        ("concurrency", NewEndpoint { concurrency: Some(0), ..new() }),
        ("rate_limit.requests", NewEndpoint { rate_limit: rate_limit(0, 1), ..new() }),
        ("rate_limit.requests", NewEndpoint { rate_limit: rate_limit(10_001, 1), ..new() }),
        ("rate_limit.burst", NewEndpoint { rate_limit: rate_limit(10, 0), ..new() }),
        ("rate_limit.burst", NewEndpoint { rate_limit: rate_limit(10, 1_001), ..new() }),
        ("batch.max_events", NewEndpoint { batch: batch(1, 0), ..new() }),
        ("batch.max_events", NewEndpoint { batch: batch(1_001, 0), ..new() }),
        ("batch.max_wait_ms", NewEndpoint { batch: batch(2, 60_001), ..new() }),
        ("event_types", NewEndpoint { event_types: vec![String::from("a..b")], ..new() }),
        ("metadata", NewEndpoint { metadata: [(String::new(), String::new())].into(), ..new() }),
    ] {
        assert_eq!(field(bench.create(new)), expected);
    }
    let local = NewEndpoint { url: String::from("https://127.0.0.1/"), ..new() };
    assert_eq!(bench.create(local).unwrap_err().code(), Code::UrlAddress);
}

#[test]
fn a_profile_bounds_what_an_endpoint_has_instead_of_it() {
    let own = |retry: serde_json::Value, timeout_ms| NewEndpoint {
        retry: serde_json::from_value(retry).unwrap(),
        timeout_ms,
        ..new()
    };
    let delays = |delays: &[&str]| serde_json::json!({ "delays": { "list": delays } });
    let kryptos = Bench::new("kryptos");
    for beyond in [own(delays(&["1s"; 3]), None), own(serde_json::Value::Null, Some(10_001))] {
        assert_eq!(kryptos.create(beyond).unwrap_err().code(), Code::ProfileForbids);
    }
    let (endpoint, _) = kryptos.create(own(delays(&["1s"; 2]), Some(10_000))).unwrap();
    for beyond in [
        serde_json::json!({ "retry": delays(&["1s"; 3]) }),
        serde_json::json!({ "timeout_ms": 10_001 }),
    ] {
        let refused = kryptos.patch(&endpoint, &patch(beyond)).unwrap_err();
        assert_eq!(refused.code(), Code::ProfileForbids);
    }
    // What an endpoint has since before there were bounds stays until it is changed.
    let before = Endpoint { timeout: Some(Duration::from_mins(1)), ..endpoint };
    let named = kryptos.patch(&before, &patch(serde_json::json!({ "name": "new" }))).unwrap();
    assert_eq!(named.timeout, before.timeout);
    let any = Bench::new("standard-webhooks");
    assert!(any.create(own(delays(&["1s"; 64]), Some(60_000))).is_ok());
    assert_eq!(field(any.create(own(delays(&["0s"]), None))), "retry");
    assert_eq!(field(any.create(own(delays(&["7d"; 5]), None))), "retry");
}

#[test]
fn a_patch_sets_removes_and_leaves() {
    let bench = Bench::new("standard-webhooks");
    let (endpoint, _) = bench
        .create(NewEndpoint {
            headers: [("x-a", "1"), ("x-b", "2")].map(|(k, v)| (k.into(), v.into())).into(),
            metadata: [("a", "1"), ("b", "2")].map(|(k, v)| (k.into(), v.into())).into(),
            timeout_ms: Some(5_000),
            concurrency: Some(4),
            ..new()
        })
        .unwrap();
    let next = bench
        .patch(
            &endpoint,
            &patch(serde_json::json!({
                "name": "new",
                "timeout_ms": null,
                "headers": {"X-A": null, "x-c": "3"},
                "metadata": {"a": null, "c": "3"},
            })),
        )
        .unwrap();
    assert_eq!((next.name.as_str(), next.timeout, next.concurrency), ("new", None, Some(4)));
    assert_eq!(next.headers.keys().collect::<Vec<_>>(), ["x-b", "x-c"]);
    assert_eq!(next.headers["x-b"], endpoint.headers["x-b"]);
    assert_eq!(next.metadata.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(
        (&next.url, &next.filters, &next.secrets),
        (&endpoint.url, &endpoint.filters, &endpoint.secrets)
    );
    assert!(next.updated_at > endpoint.updated_at);
}

#[test]
fn a_patch_that_changes_nothing_makes_no_version() {
    let bench = Bench::new("standard-webhooks");
    let (endpoint, _) = bench.create(new()).unwrap();
    for same in [serde_json::json!({}), serde_json::json!({"url": endpoint.url, "retry": null})] {
        let edited = bench.maker(2).patch(&endpoint, &patch(same), bench.chance()).unwrap();
        assert!(matches!(edited, Edited::Unchanged));
    }
}

#[test]
fn the_limits_on_headers_count_those_that_stay() {
    let bench = Bench::new("standard-webhooks");
    let large = |name: &str| (String::from(name), "v".repeat(4_000));
    let headers = [large("x-a"), large("x-b")].into();
    let (endpoint, _) = bench.create(NewEndpoint { headers, ..new() }).unwrap();
    let more = patch(serde_json::json!({"headers": {"x-c": "v".repeat(4_000)}}));
    assert_eq!(bench.patch(&endpoint, &more).unwrap_err().code(), Code::ValueInvalid);
    let twice = patch(serde_json::json!({"headers": {"x-c": "1", "X-C": "2"}}));
    assert_eq!(bench.patch(&endpoint, &twice).unwrap_err().code(), Code::ValueInvalid);
}

#[test]
fn old_secrets_are_used_until_their_overlap_ends() {
    let bench = Bench::new("kryptos");
    let (endpoint, first) = bench.create(new()).unwrap();
    let hour = Duration::from_hours(1);
    let at = |second: u64| Timestamp::from_millis((NOON + second) * 1_000);
    let (endpoint, second) =
        bench.maker(10).rotate(&endpoint, SecretWish::default(), hour, bench.chance()).unwrap();
    assert_ne!(first, second);
    let ends: Vec<_> = endpoint.secrets.iter().map(|secret| secret.expires_at).collect();
    assert_eq!(ends, [None, Some(at(10).saturating_add(hour))]);
    let (endpoint, _) =
        bench.maker(20).rotate(&endpoint, SecretWish::default(), 2 * hour, bench.chance()).unwrap();
    let ends: Vec<_> = endpoint.secrets.iter().map(|secret| secret.expires_at).collect();
    let (sooner, later) = (at(10).saturating_add(hour), at(20).saturating_add(2 * hour));
    assert_eq!(ends, [None, Some(later), Some(sooner)], "an end is never put off");
    let (endpoint, _) = bench
        .maker(30)
        .rotate(&endpoint, SecretWish::default(), Duration::ZERO, bench.chance())
        .unwrap();
    assert_eq!(endpoint.secrets.len(), 1, "with no overlap only the new one is left");
}

#[test]
fn an_endpoint_has_ten_secrets_at_most() {
    let bench = Bench::new("kryptos");
    let (mut endpoint, _) = bench.create(new()).unwrap();
    for second in 10..40 {
        let hour = Duration::from_hours(1);
        endpoint = bench
            .maker(second)
            .rotate(&endpoint, SecretWish::default(), hour, bench.chance())
            .unwrap()
            .0;
    }
    assert_eq!(endpoint.secrets.len(), SECRETS_MAX);
    let last = Timestamp::from_millis((NOON + 39) * 1_000);
    assert_eq!(endpoint.secrets[0].created_at, last);
}

#[test]
fn a_state_that_stays_makes_no_version() {
    let (endpoint, _) = Bench::new("kryptos").create(new()).unwrap();
    let hold = EndpointState::Paused(PauseMode::Hold);
    let now = Timestamp::from_millis(9_000);
    let Edited::Changed(paused) = with_state(&endpoint, hold, now) else { panic!("unchanged") };
    assert_eq!((paused.state, paused.updated_at), (hold, now));
    assert!(matches!(with_state(&paused, hold, now), Edited::Unchanged));
}
