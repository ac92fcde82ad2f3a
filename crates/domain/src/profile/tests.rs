//! What profiles promise, and what is no profile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::*;
use crate::{
    Event, EventId, Fault, TraceContext,
    body::BodyError,
    retry::{Delays, RetryOn},
};

/// An event of tenant `acme` from 2023-11-14T22:13:20.120Z.
pub(crate) fn event(event_type: &str, data: &str) -> Event {
    let occurred_at = Timestamp::from_millis(1_700_000_000_120);
    Event {
        id: EventId::new(occurred_at, [0xab; 10]),
        tenant: "acme".parse().unwrap(),
        event_type: event_type.parse().unwrap(),
        occurred_at,
        accepted_at: None,
        config_revision: None,
        data: data.to_owned().into(),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    }
}

fn profile(name: &str) -> Arc<Profile> {
    Arc::clone(Profiles::built_in().get(name).unwrap())
}

const KRYPTOS: &str = include_str!("../../../../deploy/profiles/kryptos.toml");

fn changed(from: &str, to: &str) -> Result<Profile, ProfileError> {
    assert!(KRYPTOS.contains(from), "{from}");
    Profile::parse(&KRYPTOS.replacen(from, to, 1))
}

#[test]
fn every_profile_built_in_is_read_and_has_its_files_name() {
    let names: Vec<_> = Profiles::built_in().iter().map(|profile| profile.name.clone()).collect();
    assert_eq!(names, ["killb", "kryptos", "kyberaccess", "standard-webhooks"]);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/profiles");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, names.iter().map(|name| format!("{name}.toml")).collect::<Vec<_>>());
    assert!(Profiles::built_in().get(Profile::DEFAULT).is_some());
}

#[test]
fn the_schedules_are_those_of_the_providers() {
    let hours = |hours: u64| Duration::from_hours(hours);
    let minutes = |minutes: u64| Duration::from_mins(minutes);
    let seconds = Duration::from_secs;
    for (name, timeout, jitter, delays) in [
        (
            "standard-webhooks",
            15,
            100,
            vec![
                seconds(5),
                minutes(5),
                minutes(30),
                hours(2),
                hours(5),
                hours(10),
                hours(14),
                hours(20),
                hours(24),
            ],
        ),
        ("kryptos", 10, 0, vec![seconds(30), minutes(2)]),
        ("killb", 5, 0, vec![minutes(1), minutes(5), minutes(15), hours(1), hours(6)]),
        ("kyberaccess", 30, 0, vec![minutes(1), minutes(5), minutes(30), hours(2), hours(12)]),
    ] {
        let profile = profile(name);
        assert_eq!(profile.attempt.timeout, seconds(timeout), "{name}");
        assert_eq!(profile.retry.jitter, jitter, "{name}");
        let waits: Vec<_> =
            (1..=99).map_while(|attempt| profile.retry.delays.after(attempt)).collect();
        assert_eq!(waits, delays, "{name}");
    }
    assert!(matches!(profile("kryptos").retry.delays, Delays::Exponential { .. }));
}

#[test]
fn the_rules_are_those_of_the_providers() {
    let one = |name, https, active_max: Option<u32>, breaker, pause, history| {
        let profile = profile(name);
        assert_eq!(profile.endpoint.https, https, "{name}");
        assert_eq!(profile.endpoint.active_max.map(NonZeroU32::get), active_max, "{name}");
        assert_eq!(profile.health.breaker, breaker, "{name}");
        assert_eq!(profile.pause, pause, "{name}");
        assert_eq!(profile.history, history, "{name}");
    };
    let (keep, delete) = (HistoryRule::Keep, HistoryRule::Delete);
    let (hold, skip) = (PauseMode::Hold, PauseMode::Skip);
    let required = HttpsRule::Required;
    // Five arguments are the limit for functions, not for tables.
    one("standard-webhooks", HttpsRule::Optional, None, Breaker::On, hold, keep);
    one("kryptos", required, None, Breaker::Off, hold, keep);
    one("killb", required, Some(1), Breaker::Off, hold, keep);
    one("kyberaccess", required, None, Breaker::Off, skip, delete);
    assert_eq!(profile("kyberaccess").health.auto_disable_after.map(NonZeroU32::get), Some(100));
    assert_eq!(profile("standard-webhooks").health.slow_down, StatusSet::of(&[429, 502, 504]));
    assert_eq!(profile("standard-webhooks").retry.gone, StatusSet::of(&[410]));
    assert_eq!(profile("kryptos").retry.retry_on, RetryOn::Listed);
    assert_eq!(profile("kryptos").retry.listed, StatusSet::of(&[429, 500, 502, 503, 504]));
}

#[test]
fn the_catalogues_are_those_of_the_providers() {
    for (name, count, first) in [
        ("standard-webhooks", 0, None),
        ("kryptos", 4, Some("integration.created")),
        ("killb", 15, Some("RAMP.CREATE")),
        ("kyberaccess", 21, Some("visitor.checked_in")),
    ] {
        let catalogue = &profile(name).event_types.catalogue;
        assert_eq!(catalogue.len(), count, "{name}");
        assert_eq!(catalogue.first().map(|entry| entry.event_type.as_str()), first, "{name}");
    }
}

#[test]
fn the_plans_are_those_of_the_provider() {
    let get = |limit: Option<NonZeroU32>| limit.map(NonZeroU32::get);
    let limits: Vec<_> = profile("kyberaccess")
        .plans
        .iter()
        .map(|plan| (get(plan.endpoints_max), get(plan.events_per_second_max)))
        .collect();
    assert_eq!(limits, [(Some(3), Some(10)), (Some(10), Some(50)), (None, Some(200))]);
}

#[test]
fn killb_needs_a_type_and_an_action() {
    let killb = profile("killb");
    assert_eq!(killb.admit_type(&"RAMP.UPDATE".parse().unwrap()), Ok(()));
    for bad in ["RAMP", "RAMP.UPDATE.NOW"] {
        assert!(killb.admit_type(&bad.parse().unwrap()).is_err(), "{bad}");
    }
    assert_eq!(profile("kryptos").admit_type(&"a".parse().unwrap()), Ok(()));
}

#[test]
fn answers_are_judged_by_the_profile() {
    for name in ["standard-webhooks", "kryptos", "killb", "kyberaccess"] {
        let profile = profile(name);
        for status in [200, 201, 202, 204, 205, 299] {
            assert_eq!(profile.outcome_of(status, None), Outcome::Accepted { status });
        }
        for status in [100, 199, 301, 304, 307, 400, 410, 429, 500, 599, 600, 999] {
            let refused = Outcome::Refused { status, retry_after: None };
            assert_eq!(profile.outcome_of(status, None), refused);
        }
    }
}

#[test]
fn a_time_out_shows_as_408_where_the_provider_says_so() {
    let timed_out = Outcome::Failed(Fault::TimedOut);
    assert_eq!(profile("kyberaccess").shown_status(&timed_out), Some(408));
    assert_eq!(profile("killb").shown_status(&timed_out), None);
    let lost = Outcome::Failed(Fault::ConnectionLost);
    assert_eq!(profile("kyberaccess").shown_status(&lost), None);
    assert_eq!(profile("killb").shown_status(&Outcome::Accepted { status: 204 }), Some(204));
}

#[test]
fn data_is_admitted_by_what_the_profile_can_carry() {
    let limits = Limits::default();
    let (exact, javascript) = (profile("standard-webhooks"), profile("kyberaccess"));
    for data in ["{}", " 1 ", r#"{"a":0.10,"b":-0,"c":1e3}"#, r#""\ud800""#] {
        assert_eq!(exact.admit_data(data.as_bytes(), &limits), Ok(()), "{data}");
        assert_eq!(javascript.admit_data(data.as_bytes(), &limits), Ok(()), "{data}");
    }
    for data in ["12345678901234567890", "1e400", "[0.1000000000000000000001]", "1e-400"] {
        assert_eq!(exact.admit_data(data.as_bytes(), &limits), Ok(()), "{data}");
        let refused = javascript.admit_data(data.as_bytes(), &limits);
        assert!(matches!(refused, Err(DataRefused::Number(_))), "{data}");
    }
    for data in ["", "{", "{\"a\":1,\"a\":2}", "nul", "{'a':1}", "1 1"] {
        for profile in [&exact, &javascript] {
            let refused = profile.admit_data(data.as_bytes(), &limits);
            assert!(matches!(refused, Err(DataRefused::Json(_))), "{data}");
        }
    }
}

#[test]
fn an_operators_profile_stands_beside_those_built_in() {
    let mut profiles = Profiles::built_in();
    let own = Arc::new(changed("name = \"kryptos\"", "name = \"own\"").unwrap());
    profiles.insert(Arc::clone(&own)).unwrap();
    assert_eq!(profiles.get("own"), Some(&own));
    assert!(profiles.insert(profile("kryptos")).is_err());
    profiles.remove("own");
    profiles.remove("kryptos");
    assert_eq!(profiles, Profiles::built_in());
    assert!(profiles.get("kryptos").is_some());
}

#[test]
fn unknown_keys_and_values_are_refused() {
    for (from, to) in [
        ("https = \"required\"", "https = \"required\"\ncolour = 1"),
        ("https = \"required\"", "https = \"maybe\""),
        ("[pause]", "[colour]\n[pause]"),
        ("mode = \"hold\"", "mode = \"wait\""),
        ("\"hmac-sha256\"", "\"hmac-md5\""),
        ("timeout = \"10s\"", "timeout = 10"),
        ("success = [\"2xx\"]", "success = [\"ok\"]"),
        ("[health]", "[health]\nauto_disable_after = 0"),
        ("factor = 4", "factor = 0"),
        ("{ name = \"id\",", "{ name = \"id\", kind = \"x\","),
    ] {
        assert!(matches!(changed(from, to), Err(ProfileError::Toml(_))), "{to}");
    }
}

#[test]
fn mistakes_in_templates_and_names_are_found_at_once() {
    use ProfileError as E;
    let error = |from: &str, to: &str| changed(from, to).map(|_| ()).unwrap_err();
    let value = "value = \"{attempted_at}\"";
    assert!(matches!(error("name = \"kryptos\"", "name = \"a.b\""), E::Name(_)));
    assert!(matches!(
        error("\"{event_id}\" }", "\"{data}-\" }"),
        E::Body(BodyError::DataMisplaced)
    ));
    assert!(matches!(error("\"{event_id}\" }", "\"{nope}\" }"), E::Body(BodyError::Value { .. })));
    assert!(matches!(error(value, "value = \"{body}\""), E::HeaderValue { .. }));
    assert!(matches!(error(value, "value = \"a\\r\\nb\""), E::Header { .. }));
    assert!(matches!(
        error("X-Webhook-Event", "Host"),
        E::Header { cause: HeaderRefused::Reserved { .. }, .. }
    ));
    assert!(matches!(error("X-Webhook-Event", "x webhook"), E::Header { .. }));
    for twice in ["x-webhook-id", "X-WEBHOOK-SIGNATURE"] {
        let cause = error("X-Webhook-Event", twice);
        assert!(matches!(cause, E::Header { cause: HeaderRefused::Twice { .. }, .. }), "{twice}");
    }
}

#[test]
fn secrets_that_look_like_ed25519_secrets_are_refused_where_there_are_such() {
    const STANDARD: &str = include_str!("../../../../deploy/profiles/standard-webhooks.toml");
    let prefix = STANDARD.replace("prefix = \"whsec_\"", "prefix = \"whsk_own_\"");
    assert!(matches!(Profile::parse(&prefix), Err(ProfileError::SecretPrefix)));
    let without = prefix.replace("ed25519_prefix", "# ed25519_prefix");
    assert!(Profile::parse(&without).is_ok_and(|profile| profile.generate_secret([1; 32]).is_ok()));
}

#[test]
fn mistakes_in_signature_secret_and_limits_are_found_at_once() {
    use ProfileError as E;
    let error = |from: &str, to: &str| changed(from, to).map(|_| ()).unwrap_err();
    assert!(matches!(error("content = \"{body}\"", "content = \"{event_id}\""), E::BodyNotSigned));
    assert!(matches!(
        error("content = \"{body}\"", "content = \"{body}{body}\""),
        E::BodyNotSigned
    ));
    assert!(matches!(error("content = \"{body}\"", "content = \"{body\""), E::Content(_)));
    assert!(matches!(
        error("encoding = \"hex\"", "encoding = \"hex\"\nprefix = \"v1 \""),
        E::SignaturePrefix(_)
    ));
    assert!(matches!(error("secrets = \"newest\"", "secrets = \"all\""), E::SignaturesRunTogether));
    for lengths in ["length_min = 0", "length_min = 257", "length_min = 69"] {
        assert!(
            matches!(
                error("length_min = 32\nlength_max = 256", &format!("{lengths}\nlength_max = 256")),
                E::SecretLengths(_)
            ),
            "{lengths}"
        );
    }
    assert!(matches!(error("timeout = \"10s\"", "timeout = \"61s\""), E::Timeout(_)));
    assert!(matches!(error("success = [\"2xx\"]", "success = []"), E::NoSuccess));
    assert!(matches!(
        error("star = \"token\"", "star = \"token\"\ndefault = [\"a b\"]"),
        E::Filter { .. }
    ));
    assert!(matches!(
        error("\"integration.created\"", "\"integration created\""),
        E::EventType { .. }
    ));
    assert!(matches!(error("[event_types]", "[event_types]\ntokens = 3"), E::TypeRefused(_)));
    assert!(matches!(error("'{\"integration_id\":\"int_1\"}'", "'{'"), E::Example { .. }));
}
