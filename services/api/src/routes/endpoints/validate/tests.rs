//! What endpoints allow, and when they have to be asked.

use fanfare_domain::{DeliveryId, DeliveryRef, Fact, Fault, TraceContext, fact::Timing};
use serde_json::json;

use super::{
    super::{
        draft::NewEndpoint,
        tests::{Bench, new, patch},
    },
    *,
};

const ORIGIN: &str = "events.example.com";

fn created(bench: &Bench) -> Endpoint {
    let validation = Some(ValidationName::CloudEvents);
    bench.create(NewEndpoint { validation, ..new() }).unwrap().0
}

#[test]
fn who_has_to_allow_it_is_held_until_it_has_and_again_when_it_moves() {
    let bench = Bench::new("standard-webhooks");
    let endpoint = created(&bench);
    assert_eq!(endpoint.state, HOLD);
    assert!(endpoint.security.is_pending());
    let now = endpoint.updated_at;
    let allowed = allow(&endpoint, NonZeroU32::new(120), now);
    assert_eq!(allowed.state, EndpointState::Active);
    assert!(!allowed.security.is_pending());
    let renamed = bench.patch(&allowed, &patch(json!({"name": "x"}))).unwrap();
    assert_eq!((renamed.state, renamed.security), (allowed.state, allowed.security.clone()));
    let same = json!({"url": endpoint.url, "validation": "cloudevents"});
    assert!(!bench.patch(&allowed, &patch(same)).unwrap().security.is_pending());
    let moved = patch(json!({"url": "https://example.com/elsewhere"}));
    let moved = bench.patch(&allowed, &moved).unwrap();
    assert_eq!((moved.state, moved.security.validation), (HOLD, Some(Consent::default())));
    let without = bench.patch(&moved, &patch(json!({"validation": null}))).unwrap();
    assert_eq!((without.state, without.security.validation), (HOLD, None));
}

#[test]
fn being_allowed_wakes_nobody_whom_a_person_stopped() {
    let endpoint = created(&Bench::new("standard-webhooks"));
    let skip = EndpointState::Paused(PauseMode::Skip);
    let stopped = Endpoint { state: skip, ..endpoint.clone() };
    assert_eq!(allow(&stopped, None, endpoint.updated_at).state, skip);
    // One that was allowed before, and paused since.
    let again = allow(&endpoint, None, endpoint.updated_at);
    let paused = Endpoint { state: HOLD, ..again };
    assert_eq!(allow(&paused, None, endpoint.updated_at).state, HOLD);
}

fn answered(outcome: Outcome, headers: &[(&str, &str)]) -> Record {
    let now = Timestamp::from_millis(1);
    let (event, endpoint) = (EventId::new(now, [1; 10]), EndpointId::new(now, [2; 10]));
    let header = |(name, value): &(&str, &str)| {
        (String::from(*name), Bytes::copy_from_slice(value.as_bytes()))
    };
    let delivery = DeliveryRef {
        id: DeliveryId::of(event, endpoint, 0),
        event,
        endpoint,
        tenant: "acme".parse().unwrap(),
        event_type: "a".parse().unwrap(),
        event_sequence: 1,
        accepted_at: now,
        generation: 0,
    };
    let made = AttemptMade {
        delivery,
        attempt: 1,
        started_at: now,
        duration: std::time::Duration::ZERO,
        timing: Timing::default(),
        outcome,
        detail: String::from("why"),
        config_revision: 1,
        url: "https://example.com/".into(),
        signature: String::new(),
        response_headers: headers.iter().map(header).collect(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_at: None,
        batch: None,
        trace_sampled: None,
    };
    let fact = Fact::AttemptMade(Box::new(made));
    Record { recorded_at: now, trace: TraceContext::default(), fact }
}

#[test]
fn an_answer_allows_what_it_says() {
    let accepted = || Outcome::Accepted { status: 200 };
    let origin = |origin: &'static str| ("webhook-allowed-origin", origin);
    let rate = |rate: &'static str| ("webhook-allowed-rate", rate);
    for (headers, expected) in [
        (vec![origin(ORIGIN)], Ok(None)),
        (vec![origin("*"), rate("*")], Ok(None)),
        (vec![origin("EVENTS.example.com"), rate("120")], Ok(NonZeroU32::new(120))),
        (vec![origin(ORIGIN), rate("10001")], Ok(None)),
        (vec![origin(ORIGIN), rate("0")], Err(())),
        (vec![origin(ORIGIN), rate("many")], Err(())),
        (vec![origin("example.com")], Err(())),
        (vec![rate("120")], Err(())),
        (vec![], Err(())),
    ] {
        let told = allowance(&answered(accepted(), &headers), ORIGIN).map_err(drop);
        assert_eq!(told, expected, "{headers:?}");
    }
    let refused = Outcome::Refused { status: 405, retry_after: None };
    for outcome in [refused, Outcome::Failed(Fault::TimedOut)] {
        assert!(allowance(&answered(outcome, &[origin("*")]), ORIGIN).is_err());
    }
}
