//! Every refusal with a message that earns it, and what becomes of those that are admitted.

use std::collections::BTreeMap;

use fanfare_domain::InboxEvent;
use fanfare_event_log::{Headers, inbox::encode_protobuf};
use proptest::prelude::*;

use super::{
    metadata::{ATTRIBUTES_MAX, NAME_BYTES_MAX, ORDERING_KEY_BYTES_MAX, VALUE_BYTES_MAX},
    *,
};
use crate::directory::tests::directory;

const DATA_MAX: usize = 1_000;

/// A message for a tenant on the default profile.
pub(super) fn message(headers: &[(&str, &str)], payload: impl AsRef<[u8]>) -> InboxMessage {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    InboxMessage {
        tenant: String::from("acme"),
        event_type: String::from("invoice.paid"),
        headers: Headers::new(headers.iter().map(pair).collect()),
        payload: Bytes::copy_from_slice(payload.as_ref()),
    }
}

/// Judges a message where `acme` is on the default profile, `js` and `bank` on others, and `lost`
/// on one that does not exist.
pub(super) fn judged(message: &InboxMessage) -> Result<Draft, Rejection> {
    let profiles = [
        ("acme", "standard-webhooks"),
        ("js", "kyberaccess"),
        ("bank", "killb"),
        ("lost", "no-such-profile"),
    ];
    let limits = Limits { bytes_max: DATA_MAX, depth_max: 5 };
    let rules = Rules { limits, profiles: Profiles::built_in() };
    admit(message, &directory(&profiles), &rules).map(|(draft, _)| draft)
}

pub(super) fn reason(message: &InboxMessage) -> Result<Draft, Reason> {
    judged(message).map_err(|rejection| rejection.reason)
}

fn of_tenant(tenant: &str, event_type: &str, payload: &str) -> InboxMessage {
    InboxMessage {
        tenant: tenant.to_owned(),
        event_type: event_type.to_owned(),
        ..message(&[], payload)
    }
}

#[test]
fn plain_json_is_carried_byte_for_byte() {
    let payload = " {\"b\": 1.50,\n \"a\":\"\\u00e9\\ud800\"} ";
    let draft = judged(&message(&[], payload)).unwrap();
    assert_eq!(draft.data, payload.as_bytes());
    assert_eq!(draft.metadata, Metadata::default());
    assert_eq!((draft.tenant.as_str(), draft.event_type.as_str()), ("acme", "invoice.paid"));
}

#[test]
fn any_json_value_is_data() {
    for payload in ["null", "0", "\"\"", "[]", "true", "{}"] {
        assert!(judged(&message(&[], payload)).is_ok(), "{payload}");
    }
}

#[test]
fn data_that_is_not_json_is_refused() {
    let deep = format!("{}1{}", "[".repeat(6), "]".repeat(6));
    let large = format!("\"{}\"", "x".repeat(DATA_MAX));
    let huge = "1".repeat(DATA_MAX + ENVELOPE_BYTES_MAX + 1);
    for (payload, expected) in [
        (&b""[..], Reason::InvalidJson),
        (b"{", Reason::InvalidJson),
        (b"{} {}", Reason::InvalidJson),
        (b"{'a':1}", Reason::InvalidJson),
        (b"NaN", Reason::InvalidJson),
        (b"\"\xff\"", Reason::InvalidUtf8),
        (b"\"\xed\xa0\x80\"", Reason::InvalidUtf8),
        (b"\xef\xbb\xbf{}", Reason::InvalidJson),
        (b"{\"a\":1,\"a\":2}", Reason::DuplicateKey),
        (b"{\"a\":1,\"\\u0061\":2}", Reason::DuplicateKey),
        (deep.as_bytes(), Reason::TooDeep),
        (large.as_bytes(), Reason::TooLarge),
        (huge.as_bytes(), Reason::TooLarge),
    ] {
        let shown = String::from_utf8_lossy(payload.get(..20).unwrap_or(payload));
        assert_eq!(reason(&message(&[], payload)), Err(expected), "{shown}");
    }
}

#[test]
fn nesting_as_deep_as_json_allows_does_not_overflow_the_stack() {
    let limits = Limits { bytes_max: usize::MAX / 2, depth_max: 5 };
    let rules = Rules { limits, profiles: Profiles::built_in() };
    let deep = message(&[], "[".repeat(1_000_000));
    let refused = admit(&deep, &directory(&[("acme", "standard-webhooks")]), &rules);
    assert_eq!(refused.unwrap_err().reason, Reason::InvalidJson);
    let closed = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let refused =
        admit(&message(&[], closed), &directory(&[("acme", "standard-webhooks")]), &rules);
    assert_eq!(refused.unwrap_err().reason, Reason::TooDeep);
}

#[test]
fn a_subject_that_names_no_tenant_or_type_is_refused() {
    for (tenant, event_type, expected) in [
        ("nobody", "a", Reason::UnknownTenant),
        ("", "a", Reason::UnknownTenant),
        ("a b", "a", Reason::UnknownTenant),
        ("$JS", "a", Reason::UnknownTenant),
        ("ACME", "a", Reason::UnknownTenant),
        ("lost", "a", Reason::UnknownProfile),
        ("acme", "", Reason::MalformedType),
        ("acme", "invoice..paid", Reason::MalformedType),
        ("acme", "rechnung.bezählt", Reason::MalformedType),
        ("acme", "*", Reason::MalformedType),
        ("acme", &"a".repeat(129), Reason::MalformedType),
        ("bank", "RAMP", Reason::TypeNotRepresentable),
        ("bank", "RAMP.UPDATE.TWICE", Reason::TypeNotRepresentable),
    ] {
        let refused = reason(&of_tenant(tenant, event_type, "{}"));
        assert_eq!(refused, Err(expected), "{tenant} {event_type}");
    }
}

#[test]
fn a_number_is_refused_only_where_the_profile_cannot_carry_it() {
    let exact = "{\"n\":12345678901234567890}";
    assert!(judged(&of_tenant("acme", "a", exact)).is_ok());
    assert_eq!(reason(&of_tenant("js", "a", exact)), Err(Reason::NumberNotRepresentable));
    assert!(judged(&of_tenant("js", "a", "{\"n\":0.10}")).is_ok());
}

#[test]
fn headers_say_what_the_data_does_not() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let draft = judged(&message(
        &[
            ("content-type", "application/json"),
            ("fanfare-occurred-at", "2026-11-22T06:15:03.5Z"),
            ("Fanfare-Ordering-Key", "order/7"),
            ("FANFARE-IDEMPOTENCY-KEY", "k 1"),
            ("Fanfare-Attribute-Region", "eu"),
            ("traceparent", parent),
            ("tracestate", "a=b"),
            ("X-Unknown", "ignored"),
        ],
        "{}",
    ));
    let metadata = draft.unwrap().metadata;
    assert_eq!(metadata.occurred_at, Timestamp::parse("2026-11-22T06:15:03.5Z"));
    assert_eq!(metadata.ordering_key.as_deref(), Some("order/7"));
    assert_eq!(metadata.idempotency_key.as_deref(), Some("k 1"));
    assert_eq!(metadata.attributes.get("region").map(String::as_str), Some("eu"));
    assert_eq!(metadata.attributes.len(), 1);
    assert_eq!((&*metadata.trace.traceparent, &*metadata.trace.tracestate), (parent, "a=b"));
}

#[test]
fn malformed_headers_are_refused() {
    let long_name = format!("Fanfare-Attribute-{}", "n".repeat(NAME_BYTES_MAX + 1));
    let long_value = "v".repeat(VALUE_BYTES_MAX + 1);
    let long_key = "k".repeat(257);
    let long_order = "o".repeat(ORDERING_KEY_BYTES_MAX + 1);
    for headers in [
        &[("Fanfare-Occurred-At", "yesterday")][..],
        &[("Fanfare-Occurred-At", "1969-12-31T23:59:59Z")],
        &[("Fanfare-Idempotency-Key", "")],
        &[("Fanfare-Idempotency-Key", &long_key)],
        &[("Fanfare-Idempotency-Key", "a\u{7}b")],
        &[("Fanfare-Idempotency-Key", "a"), ("fanfare-idempotency-key", "b")],
        &[("Fanfare-Ordering-Key", &long_order)],
        &[("Fanfare-Ordering-Key", "\t")],
        &[("Fanfare-Attribute-", "v")],
        &[("Fanfare-Attribute-a b", "v")],
        &[("Fanfare-Attribute-é", "v")],
        &[(&long_name, "v")],
        &[("Fanfare-Attribute-a", &long_value)],
        &[("Fanfare-Attribute-a", "x\u{0}")],
        &[("Fanfare-Attribute-a", "1"), ("Fanfare-Attribute-A", "2")],
        &[("Content-Type", "application/json"), ("content-type", "application/protobuf")],
    ] {
        assert_eq!(reason(&message(headers, "{}")), Err(Reason::MalformedHeader), "{headers:?}");
    }
}

#[test]
fn there_are_only_so_many_attributes() {
    let names: Vec<String> =
        (0..=ATTRIBUTES_MAX).map(|n| format!("Fanfare-Attribute-{n}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    assert_eq!(reason(&message(&headers, "{}")), Err(Reason::MalformedHeader));
    assert!(judged(&message(headers.get(1..).unwrap(), "{}")).is_ok());
}

#[test]
fn a_malformed_trace_counts_as_none() {
    let draft = judged(&message(&[("traceparent", "00-0-0-0")], "{}")).unwrap();
    assert!(draft.metadata.trace.is_empty());
}

#[test]
fn other_media_types_are_refused() {
    for media in ["text/plain", "application/xml", "application/json; charset=latin1", "nonsense"] {
        let refused = reason(&message(&[("Content-Type", media)], "{}"));
        assert_eq!(refused, Err(Reason::UnsupportedContentType), "{media}");
    }
}

fn protobuf(event: &InboxEvent, headers: &[(&str, &str)]) -> InboxMessage {
    let media = [("Content-Type", "application/protobuf")];
    message(&[&media, headers].concat(), encode_protobuf(event))
}

#[test]
fn protobuf_says_it_all() {
    let event = InboxEvent {
        data: Bytes::from_static(b"{\"a\":1}"),
        occurred_at: Some(Timestamp::from_millis(5)),
        ordering_key: Some(String::from("o")),
        idempotency_key: Some(String::from("k")),
        attributes: BTreeMap::from([(String::from("Region"), String::from("eu"))]),
        ..InboxEvent::default()
    };
    let draft = judged(&protobuf(&event, &[])).unwrap();
    assert_eq!(draft.data, event.data);
    assert_eq!(draft.metadata.occurred_at, event.occurred_at);
    assert_eq!(draft.metadata.ordering_key, event.ordering_key);
    assert_eq!(draft.metadata.idempotency_key, event.idempotency_key);
    assert_eq!(draft.metadata.attributes.get("region").map(String::as_str), Some("eu"));
    let draft = judged(&protobuf(&event, &[("Fanfare-Ordering-Key", "of the header")])).unwrap();
    assert_eq!(draft.metadata.ordering_key.as_deref(), Some("of the header"));
}

#[test]
fn malformed_protobuf_is_refused() {
    let named = [("Content-Type", "application/x-protobuf")];
    assert_eq!(reason(&message(&named, "{\"a\":1}")), Err(Reason::MalformedProtobuf));
    let empty = InboxEvent::default();
    assert_eq!(reason(&protobuf(&empty, &[])), Err(Reason::InvalidJson));
    let text = InboxEvent { content_type: String::from("text/plain"), ..empty.clone() };
    assert_eq!(reason(&protobuf(&text, &[])), Err(Reason::UnsupportedContentType));
    let key = InboxEvent {
        data: Bytes::from_static(b"1"),
        idempotency_key: Some(String::from("\n")),
        ..empty
    };
    assert_eq!(reason(&protobuf(&key, &[])), Err(Reason::MalformedHeader));
}

proptest! {
    #[test]
    fn no_message_panics(
        tenant in prop_oneof![Just(String::from("acme")), any::<String>()],
        event_type in prop_oneof![Just(String::from("a.b")), any::<String>()],
        headers in prop::collection::vec(
            (
                prop_oneof![
                    Just(String::from("Content-Type")),
                    Just(String::from("ce-specversion")),
                    Just(String::from("ce-id")),
                    Just(String::from("Fanfare-Occurred-At")),
                    "Fanfare-Attribute-.{0,4}",
                    any::<String>(),
                ],
                prop_oneof![
                    Just(String::from("application/cloudevents+json")),
                    Just(String::from("application/protobuf")),
                    Just(String::from("1.0")),
                    any::<String>(),
                ],
            ),
            0..6,
        ),
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[\\[\\]{}\",:0-9a-z\\\\ ]{0,64}".prop_map(String::into_bytes),
        ],
    ) {
        let message =
            InboxMessage { tenant, event_type, headers: Headers::new(headers), payload: payload.into() };
        if let Err(rejection) = judged(&message) {
            prop_assert!(!rejection.detail.contains(['\r', '\n']));
        }
    }
}
