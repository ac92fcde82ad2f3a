//! What producers publish: plain JSON, `CloudEvents` in both forms and in batches, protobuf.
//!
//! An input is headers, one in a line, an empty line, and the payload. What is admitted keeps to all
//! limits, is stored and read as the same, and is the same event when a structured `CloudEvent` is
//! sent in the binary form. What is refused is so for a reason that has a name.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_domain::{
    Event, Profiles, Rendered,
    json::{Json, Limits},
};
use fanfare_event_log::{Headers, InboxMessage};
use fanfare_ingest::fuzzing::{Refusal, admit};
use fanfare_proto::{decode_event, encode_event};
use serde_json::{Value, value::RawValue};

use crate::sample::AT;

/// The longest payload that is looked at.
const BYTES_MAX: usize = 16 * 1_024;

/// Reads an input as a message, for a tenant on each of two profiles.
pub fn run(input: &[u8]) {
    let (headers, payload) = apart(input);
    if payload.len() > BYTES_MAX {
        return;
    }
    for profile in ["standard-webhooks", "kyberaccess"] {
        let message = message(headers.clone(), payload);
        match admit(&message, profile, AT) {
            Ok(event) => {
                admitted(&event, profile);
                in_binary_form(&message, profile, &event);
            }
            Err(refusal) => refused(&message, &refusal),
        }
    }
}

/// Takes headers off the beginning.
fn apart(input: &[u8]) -> (Vec<(String, String)>, &[u8]) {
    let mut headers = Vec::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((String::from(name), String::from(value.trim_start_matches(' '))));
        if headers.len() == 64 {
            break;
        }
    }
    (headers, rest)
}

fn message(headers: Vec<(String, String)>, payload: &[u8]) -> InboxMessage {
    InboxMessage {
        tenant: String::from("acme"),
        event_type: String::from("invoice.paid"),
        headers: Headers::new(headers),
        payload: Bytes::copy_from_slice(payload),
    }
}

fn admitted(event: &Event, profile: &str) {
    let is_plain = |text: &str| !text.contains(char::is_control);
    let is_key = |key: &Option<String>| {
        key.as_ref().is_none_or(|key| (1..=256).contains(&key.len()) && is_plain(key))
    };
    assert!(is_key(&event.ordering_key) && is_key(&event.idempotency_key), "{event:?}");
    assert!(event.attributes.len() <= 32, "{event:?}");
    for (name, value) in &event.attributes {
        assert!((1..=64).contains(&name.len()) && name.to_ascii_lowercase() == *name, "{name}");
        assert!(value.len() <= 1_024 && is_plain(value), "{name}: {value:?}");
    }
    assert_eq!((event.tenant.as_str(), event.event_type.as_str()), ("acme", "invoice.paid"));
    Json::parse(&event.data).expect("data is JSON").check(Limits::DEPTH_MAX).expect("and plain");
    let stored = decode_event(encode_event(event), 1, AT).expect("an event can be stored");
    assert_eq!(*stored.event, *event, "it is stored as another");
    let profiles = Profiles::built_in();
    let profile = profiles.get(profile).expect("it is built in");
    Rendered::new(profile, event).expect("what is admitted can be sent");
}

fn refused(message: &InboxMessage, refusal: &Refusal) {
    let Refusal { name, code, detail } = refusal;
    assert!(!name.is_empty() && *name != "internal_error", "{refusal:?}");
    assert!([400, 413, 415, 422].contains(code), "{refusal:?}");
    assert!(detail.chars().count() <= 300 && !detail.contains(char::is_control), "{refusal:?}");
    let headers = &message.headers;
    let is_batch = headers.get("content-type").is_some_and(|media| {
        media.trim().to_ascii_lowercase().starts_with("application/cloudevents-batch")
    });
    if is_batch && headers.get("ce-specversion").is_none() && count(headers, "content-type") == 1 {
        assert_eq!(*name, "unsupported_content_type", "{refusal:?}");
    }
}

fn count(headers: &Headers, name: &str) -> usize {
    headers.pairs().iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).count()
}

/// A structured `CloudEvent` is the same event in the binary form.
fn in_binary_form(message: &InboxMessage, profile: &str, event: &Event) {
    let of = |name: &str| message.headers.get(name).unwrap_or_default().trim().to_ascii_lowercase();
    let is_structured = of("content-type").starts_with("application/cloudevents");
    if !is_structured || message.headers.get("ce-specversion").is_some() {
        return;
    }
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(&message.payload).expect("a structured one is an object");
    let mut headers: Vec<(String, String)> = message.headers.pairs().to_vec();
    headers.retain(|(name, _)| {
        let name = name.to_ascii_lowercase();
        !name.starts_with("ce-") && name != "content-type"
    });
    for (name, raw) in members.iter().filter(|(name, _)| *name != "data") {
        // Numbers and truth values are kept as they are written.
        let text =
            match serde_json::from_str::<Value>(raw.get()).expect("an attribute was read before") {
                Value::Null => continue,
                Value::String(text) => text,
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    String::from(raw.get())
                }
            };
        headers.push((format!("Ce-{name}"), encoded(&text)));
    }
    let binary = admit(&self::message(headers, &event.data), profile, AT);
    assert_eq!(binary.as_ref(), Ok(event), "the binary form is another event");
}

/// Percent-encodes a header's value as the binding for HTTP says, and more than it asks for.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b':' => {
            String::from(char::from(byte))
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
