//! Profiles' files: whatever is admitted as a profile can send what it admits.
//!
//! An input is a file in TOML.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fanfare_domain::{
    Batch, DeliveryId, Event, Outcome, Profile, Rendered, Request, Signer, Timestamp, chain,
    json::{Json, Limits},
    profile::SecretError,
    retry::{Judged, Verdict},
    seal::Clear,
    verify::Unverified,
};

use crate::{
    input::text,
    sample::{AT, attempt, event},
};

/// The longest file that is looked at.
const BYTES_MAX: usize = 16 * 1_024;

/// Data of events: some profiles do not admit all of it.
const DATA: [&str; 5] = [
    "null",
    r#"{ "id": "r/1", "amount": 98.50, "10": [1e3, -0], "2": "\u00e9\/" }"#,
    "12345678901234567890",
    "\"\u{1f600} \\ud83d\\ude00 <script>\"",
    "[[[[]]],\"\\ud800\"]",
];

/// Reads an input as a profile.
pub fn run(input: &[u8]) {
    let Some(text) = text(input).filter(|text| text.len() <= BYTES_MAX) else { return };
    let profile = match Profile::parse(text) {
        Ok(profile) => Arc::new(profile),
        Err(malformed) => return assert!(!chain(&malformed).is_empty()),
    };
    assert_eq!(Profile::parse(text).as_ref(), Ok(&*profile), "it is read as another");
    let secret = secret(&profile);
    for event_type in ["invoice", "RAMP.UPDATE", "a.b.c"] {
        let event_type = event_type.parse().expect("these are types");
        if profile.admit_type(&event_type).is_err() {
            continue;
        }
        for data in DATA {
            if profile.admit_data(data.as_bytes(), &Limits::default()).is_ok() {
                sent(&profile, &secret, &event(event_type.clone(), data.as_bytes()));
            }
        }
    }
    judged(&profile);
}

/// Whoever makes the secrets of a profile, there is one that it admits.
fn secret(profile: &Profile) -> Clear {
    match profile.generate_secret([0x5a; 32]) {
        Ok(secret) => {
            let checked = profile.check_secret(secret.expose());
            assert!(matches!(checked, Ok(()) | Err(SecretError::ServiceGenerates)), "{checked:?}");
            secret
        }
        Err(refused) => {
            let SecretError::CallerSupplies { min, .. } = refused else {
                unreachable!("the caller makes the secrets: {refused}");
            };
            supplied(profile, min)
        }
    }
}

/// Makes a secret of the least length.
fn supplied(profile: &Profile, min: usize) -> Clear {
    let prefix = &*profile.secret().prefix;
    let texts = ["x".repeat(min), format!("{prefix}{}", BASE64_STANDARD.encode("x".repeat(min)))];
    let admitted = texts.into_iter().find(|text| profile.check_secret(text).is_ok());
    Clear::new(admitted.expect("a secret of the least length is admitted"))
}

/// A request is made, signed, and of the form of one.
fn sent(profile: &Arc<Profile>, secret: &Clear, event: &Event) {
    let signer = Signer::new(profile, [secret]).expect("an admitted secret signs");
    let rendered = Rendered::new(profile, event).expect("admitted data can be sent");
    for number in [1, 64] {
        let attempt = attempt(event, number);
        let request = rendered.request(&signer, &attempt);
        well_formed(&request);
        assert_eq!(rendered.request_as_sent(request.signature(), &attempt), request);
        let verified = profile.verify(secret, |name| request.header(name), &request.body);
        assert!(matches!(verified, Ok(()) | Err(Unverified::NotRebuildable)), "{verified:?}");
    }
    if let Some(mut batch) = Batch::new(profile, 1, AT) {
        for last in [1, 2] {
            batch.add(event, DeliveryId::from_bytes([last; 16])).expect("it can be sent alone");
        }
        let request = batch.request(&signer).expect("there are events in it");
        well_formed(&request);
    }
}

/// Headers can be sent, each once; the body is JSON.
fn well_formed(request: &Request) {
    let mut names = BTreeSet::new();
    for (name, value) in &request.headers {
        let parsed: http::HeaderName = name.parse().expect("a name is one of HTTP's");
        assert_eq!(parsed.as_str(), &**name, "names are in lower case");
        assert!(!["host", "content-length", "transfer-encoding"].contains(&&**name), "{name}");
        http::HeaderValue::from_str(value).expect("a value is one of HTTP's");
        assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name}: {value:?}");
        assert!(names.insert(name), "{name} is there twice");
    }
    assert_eq!(request.header("content-type"), Some("application/json"));
    Json::parse(&request.body).expect("a body is JSON");
}

/// The retry policy comes to an end, and never looks back.
fn judged(profile: &Profile) {
    let outcome = profile.outcome_of(500, Some(AT));
    let shown = profile.shown_status(&outcome);
    assert_eq!(shown, Some(500));
    let give_up_at = Timestamp::from_nanos(u64::MAX);
    for attempt in 1..=80 {
        let judged = Judged {
            delivery: DeliveryId::from_bytes([1; 16]),
            batch: None,
            attempt,
            outcome: &outcome,
            ended_at: AT,
            give_up_at,
        };
        match profile.retry.judge(&judged) {
            Verdict::RetryAt(at) => assert!(at >= AT, "attempt {attempt}"),
            Verdict::Delivered => {
                assert!(matches!(outcome, Outcome::Accepted { .. }));
                return;
            }
            Verdict::GiveUp(_) => return,
        }
    }
    unreachable!("there are never more than 64 retries");
}
