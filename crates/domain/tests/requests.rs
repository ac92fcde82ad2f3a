//! Whole requests of the four profiles, as receivers get them.
//!
//! The signatures are checked with the receiver's own recipe, over what was sent, and against
//! values computed by other programs.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::{collections::BTreeMap, sync::Arc};

use fanfare_domain::{
    Attempt, Batch, DeliveryId, Event, EventId, Profile, Profiles, Rendered, Request, Signer,
    Timestamp, TraceContext, body::DataRefused, json::Limits, seal::Clear,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use sha2::Sha256;

/// 2023-11-14T22:13:20.120Z.
const OCCURRED: Timestamp = Timestamp::from_millis(1_700_000_000_120);
/// 2023-11-14T22:15:00.007Z.
const ATTEMPTED: Timestamp = Timestamp::from_millis(1_700_000_100_007);
const DATA: &str =
    "{ \"id\": \"r/1\", \"amount\": 98.50,\n \"10\": [1e3, -0], \"2\": \"\\u00e9\\/\" }";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLDER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn profile(name: &str) -> Arc<Profile> {
    Arc::clone(Profiles::built_in().get(name).unwrap())
}

fn event(event_type: &str, data: &str) -> Event {
    Event {
        id: EventId::new(OCCURRED, [0xab; 10]),
        tenant: "acme".parse().unwrap(),
        event_type: event_type.parse().unwrap(),
        occurred_at: OCCURRED,
        accepted_at: None,
        config_revision: None,
        data: data.to_owned().into(),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    }
}

fn attempt(number: u32) -> Attempt {
    let delivery = DeliveryId::new(OCCURRED, [0xcd; 10]);
    Attempt { delivery, number, at: ATTEMPTED }
}

fn signer(profile: &Profile, secrets: &[&str]) -> Signer {
    let secrets: Vec<_> = secrets.iter().map(|text| Clear::new(String::from(*text))).collect();
    Signer::new(profile, &secrets).unwrap()
}

fn request(name: &str, event_type: &str, secrets: &[&str], number: u32) -> Request {
    let profile = profile(name);
    let rendered = Rendered::new(&profile, &event(event_type, DATA)).unwrap();
    rendered.request(&signer(&profile, secrets), &attempt(number))
}

/// The request as one text: headers, an empty line, the body.
fn shown(request: &Request) -> String {
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let headers = headers.concat();
    format!("{headers}\n{}", std::str::from_utf8(&request.body).unwrap())
}

fn hmac(key: &str, content: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(content);
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}

#[test]
fn a_standard_webhooks_request_is_complete() {
    let request = request("standard-webhooks", "ramp.update", &[WHSEC, OLDER], 2);
    assert_eq!(
        shown(&request),
        "content-type: application/json\n\
         webhook-id: evt_065wzsb8f2ntqaxbnentqaxbnc\n\
         webhook-timestamp: 1700000100\n\
         webhook-signature: v1,4OjvTExMxL2nAW5mVd+CBx97KUogme3MZU5Xcc7a5eI= \
         v1,2MPHq4mBAfWNhZmAtqYAhJodJUEQOvc9mLpQ/FsS/Yc=\n\
         \n\
         {\"type\":\"ramp.update\",\"timestamp\":\"2023-11-14T22:13:20.120Z\",\
         \"data\":{\"id\":\"r/1\",\"amount\":98.50,\"10\":[1e3,-0],\"2\":\"\\u00e9\\/\"}}"
    );
}

#[test]
fn the_official_library_accepts_each_secret_of_a_rotation() {
    let request = request("standard-webhooks", "ramp.update", &[WHSEC, OLDER], 1);
    let id = request.header("webhook-id").unwrap();
    let timestamp = request.header("webhook-timestamp").unwrap().parse().unwrap();
    let signatures: Vec<_> = request.signature().split(' ').collect();
    let expected: Vec<_> = [WHSEC, OLDER]
        .map(|secret| {
            let verifier = standardwebhooks::Webhook::new(secret).unwrap();
            verifier.sign(id, timestamp, &request.body).unwrap()
        })
        .into();
    assert_eq!(signatures, expected);
}

#[test]
fn a_batch_is_complete_and_the_official_library_accepts_it() {
    let profile = profile("standard-webhooks");
    let event = event("ramp.update", DATA);
    let mut batch = Batch::new(&profile, 2, ATTEMPTED).unwrap();
    for number in [0xcd, 0xce] {
        batch.add(&event, DeliveryId::new(OCCURRED, [number; 10])).unwrap();
    }
    let request = batch.request(&signer(&profile, &[WHSEC, OLDER])).unwrap();
    let element = "{\"id\":\"evt_065wzsb8f2ntqaxbnentqaxbnc\",\"type\":\"ramp.update\",\
                   \"timestamp\":\"2023-11-14T22:13:20.120Z\",\
                   \"data\":{\"id\":\"r/1\",\"amount\":98.50,\"10\":[1e3,-0],\"2\":\"\\u00e9\\/\"}}";
    assert_eq!(std::str::from_utf8(&request.body), Ok(&*format!("[{element},{element}]")));
    let id = request.header("webhook-id").unwrap();
    assert!(id.starts_with("bat_"), "{id}");
    let verifiers = [WHSEC, OLDER].map(|secret| standardwebhooks::Webhook::new(secret).unwrap());
    let expected: Vec<_> =
        verifiers.iter().map(|it| it.sign(id, 1_700_000_100, &request.body).unwrap()).collect();
    assert_eq!(request.signature(), expected.join(" "));
}

#[test]
fn a_kryptos_request_is_complete() {
    let request = request("kryptos", "integration.updated", &[SECRET, "older"], 2);
    assert_eq!(
        shown(&request),
        "content-type: application/json\n\
         x-webhook-event: integration.updated\n\
         x-webhook-id: dlv_065wzsb8f36wvkedsq6wvkedsm\n\
         x-webhook-timestamp: 2023-11-14T22:15:00.007Z\n\
         x-webhook-signature: ce547be34fb159a976e4b6fed9cf010264a75ec4f9454799ce0c0ab0625b07e6\n\
         \n\
         {\"id\":\"evt_065wzsb8f2ntqaxbnentqaxbnc\",\"event\":\"integration.updated\",\
         \"timestamp\":\"2023-11-14T22:13:20.120Z\",\
         \"data\":{\"id\":\"r/1\",\"amount\":98.50,\"10\":[1e3,-0],\"2\":\"\\u00e9\\/\"}}"
    );
    assert_eq!(request.signature(), hmac(SECRET, &request.body));
}

#[test]
fn a_killb_request_is_complete() {
    let request = request("killb", "RAMP.UPDATE", &[SECRET], 1);
    assert_eq!(
        shown(&request),
        "content-type: application/json\n\
         x-signature-sha256: 66cd06782e03f753b8f1804d71173f853f47646121d6e9ae27af62231910a54c\n\
         \n\
         {\"id\":\"018bcfe5-6878-8bab-abab-abababababab\",\"event\":\"RAMP\",\"action\":\"UPDATE\",\
         \"data\":{\"id\":\"r/1\",\"amount\":98.50,\"10\":[1e3,-0],\"2\":\"\\u00e9\\/\"},\
         \"createdAt\":\"2023-11-14T22:13:20.120Z\",\"updatedAt\":\"2023-11-14T22:13:20.120Z\",\
         \"attempts\":0}"
    );
    assert_eq!(request.signature(), hmac(SECRET, &request.body));
}

#[test]
fn killbs_attempts_differ_in_their_number_and_signature_only() {
    let [first, last] = [1, 6].map(|number| request("killb", "RAMP.UPDATE", &[SECRET], number));
    assert_ne!(first.signature(), last.signature());
    assert_eq!(last.signature(), hmac(SECRET, &last.body));
    let text = |request: &Request| String::from_utf8(request.body.to_vec()).unwrap();
    assert!(text(&last).ends_with("\"attempts\":5}"));
    assert_eq!(text(&first), text(&last).replace("\"attempts\":5}", "\"attempts\":0}"));
}

#[test]
fn a_kyberaccess_request_is_complete() {
    let request = request("kyberaccess", "visitor.checked_in", &[SECRET], 3);
    assert_eq!(
        shown(&request),
        "content-type: application/json\n\
         x-kyberaccess-event: visitor.checked_in\n\
         x-kyberaccess-delivery: dlv_065wzsb8f36wvkedsq6wvkedsm\n\
         x-kyberaccess-timestamp: 1700000100\n\
         x-kyberaccess-signature: sha256=d7034bbdae7d355fb3c2955eec9f6dc99816821ff4e5531d5a417162bde677e4\n\
         \n\
         {\"id\":\"evt_065wzsb8f2ntqaxbnentqaxbnc\",\"event\":\"visitor.checked_in\",\
         \"timestamp\":\"2023-11-14T22:13:20.120Z\",\
         \"data\":{\"2\":\"é/\",\"10\":[1000,0],\"id\":\"r/1\",\"amount\":98.5},\
         \"account_id\":\"acme\"}"
    );
    let content = [b"1700000100.", &request.body[..]].concat();
    assert_eq!(request.signature(), format!("sha256={}", hmac(SECRET, &content)));
}

#[test]
fn a_body_is_not_copied_where_the_profile_allows() {
    for (name, event_type, shared) in [
        ("standard-webhooks", "a.b", true),
        ("kryptos", "a.b", true),
        ("killb", "A.B", false),
        ("kyberaccess", "a.b", true),
    ] {
        let rendered = Rendered::new(&profile(name), &event(event_type, DATA)).unwrap();
        assert_eq!(rendered.has_shared_body(), shared, "{name}");
        let [one, other] = [1, 2].map(|number| rendered.body(&attempt(number)));
        assert_eq!(one.as_ptr() == other.as_ptr(), shared, "{name}");
    }
}

#[test]
fn a_request_can_be_shown_again_from_its_record() {
    for (name, event_type) in [("standard-webhooks", "a.b"), ("killb", "A.B")] {
        let profile = profile(name);
        let secret = if name == "killb" { SECRET } else { WHSEC };
        let rendered = Rendered::new(&profile, &event(event_type, DATA)).unwrap();
        let sent = rendered.request(&signer(&profile, &[secret]), &attempt(4));
        assert_eq!(rendered.request_as_sent(sent.signature(), &attempt(4)), sent);
    }
}

#[test]
fn a_number_that_javascript_would_change_is_never_sent() {
    let refused = Rendered::new(&profile("kyberaccess"), &event("a.b", "12345678901234567890"));
    assert!(matches!(refused, Err(DataRefused::Number(_))));
    assert!(Rendered::new(&profile("kryptos"), &event("a.b", "12345678901234567890")).is_ok());
}

/// Data of all sorts, much of it inadmissible.
fn any_data() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        r#""([a-z]|\\u[dD][8-9a-f]00|\\"){0,8}""#,
        r#"\{"[ab1]":1,"[ab1]":[2.50]\}"#,
        "[\\[\\]{}\",:0-9]{0,10}",
    ]
}

proptest! {
    #[test]
    fn what_was_admitted_is_always_rendered_and_signed(data in any_data()) {
        for name in ["standard-webhooks", "kryptos", "killb", "kyberaccess"] {
            let profile = profile(name);
            if profile.admit_data(data.as_bytes(), &Limits::default()).is_err() {
                continue;
            }
            let rendered = Rendered::new(&profile, &event("A.B", &data)).unwrap();
            let secret = if name == "standard-webhooks" { WHSEC } else { SECRET };
            let request = rendered.request(&signer(&profile, &[secret]), &attempt(1));
            prop_assert!(fanfare_domain::json::Json::parse(&request.body).is_ok());
            for (name, value) in &request.headers {
                prop_assert!(!value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                prop_assert_eq!(name.to_ascii_lowercase(), &**name);
            }
        }
    }
}
