//! CloudEvents in both modes become the same events, and malformed ones are refused.

use bytes::Bytes;
use fanfare_domain::Timestamp;

use super::super::tests::{judged, message, reason};
use super::*;

const STRUCTURED: [(&str, &str); 1] =
    [("Content-Type", "application/cloudevents+json; charset=utf-8")];

fn structured(members: &str) -> fanfare_event_log::InboxMessage {
    let required = r#""specversion":"1.0","id":"1","source":"/s","type":"com.acme.paid""#;
    message(&STRUCTURED, format!("{{{required}{members}}}"))
}

fn binary<'a>(headers: &[(&'a str, &'a str)], payload: &str) -> fanfare_event_log::InboxMessage {
    let required = [
        ("Ce-Specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "com.acme.paid"),
    ];
    message(&[&required, headers].concat(), payload)
}

#[test]
fn both_modes_become_the_same_event() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let from_structured = judged(&structured(&format!(
        r#","time":"2026-11-22T06:15:03Z","subject":"inv 7","partitionkey":"p","priority":3,
           "traceparent":"{parent}","datacontenttype":"application/json","dataschema":null,
           "data":{{"total": 1.50}}"#
    )))
    .unwrap();
    let from_binary = judged(&binary(
        &[
            ("ce-time", "2026-11-22T06:15:03Z"),
            ("ce-subject", "inv%207"),
            ("ce-partitionkey", "p"),
            ("ce-priority", "3"),
            ("ce-traceparent", parent),
            ("Content-Type", "application/json"),
        ],
        r#"{"total": 1.50}"#,
    ))
    .unwrap();
    assert_eq!(from_structured, from_binary);
    let metadata = from_binary.metadata;
    assert_eq!(from_binary.data, r#"{"total": 1.50}"#);
    assert_eq!(metadata.occurred_at, Timestamp::parse("2026-11-22T06:15:03Z"));
    assert_eq!(metadata.idempotency_key.as_deref(), Some("/s 1"));
    assert_eq!(metadata.ordering_key.as_deref(), Some("p"));
    assert_eq!(metadata.trace.traceparent, parent);
    let attributes: Vec<_> =
        metadata.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        attributes,
        [
            ("ce-id", "1"),
            ("ce-partitionkey", "p"),
            ("ce-priority", "3"),
            ("ce-source", "/s"),
            ("ce-subject", "inv 7"),
            ("ce-type", "com.acme.paid"),
        ]
    );
}

#[test]
fn the_subjects_type_counts_and_is_not_repeated() {
    let same = r#"{"specversion":"1.0","id":"1","source":"/s","type":"invoice.paid"}"#;
    let draft = judged(&message(&STRUCTURED, same)).unwrap();
    assert_eq!(draft.event_type.as_str(), "invoice.paid");
    assert!(!draft.metadata.attributes.contains_key("ce-type"));
}

#[test]
fn an_event_without_data_carries_null() {
    assert_eq!(judged(&structured("")).unwrap().data, "null");
    assert_eq!(judged(&structured(r#","data":null"#)).unwrap().data, "null");
    assert_eq!(judged(&binary(&[], "")).unwrap().data, "null");
}

#[test]
fn a_key_of_ones_own_counts_more_than_id_and_source() {
    let draft = judged(&binary(&[("Fanfare-Idempotency-Key", "own")], "1")).unwrap();
    assert_eq!(draft.metadata.idempotency_key.as_deref(), Some("own"));
}

#[test]
fn different_ids_and_sources_never_make_the_same_key() {
    let long = "s".repeat(300);
    let keys = [
        key("/s", "1"),
        key("/s", "1 1"),
        key("/s 1", "1"),
        key("/s 1 1", ""),
        key(&long, "1"),
        key(&long, "2"),
    ];
    for (index, one) in keys.iter().enumerate() {
        assert!(is_key(one, IdempotencyKeys::LENGTH_MAX), "{one}");
        assert!(!keys.iter().skip(index + 1).any(|other| one == other), "{one}");
    }
}

#[test]
fn malformed_events_are_refused() {
    for members in [
        r#","time":"noon""#,
        r#","Upper":"x""#,
        r#","with_underscore":"x""#,
        r#","list":[]"#,
        r#","object":{}"#,
    ] {
        assert_eq!(reason(&structured(members)), Err(Reason::MalformedCloudEvent), "{members}");
    }
    for payload in [
        "[]",
        "{}",
        r#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#,
        r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#,
        r#"{"specversion":"1.0","source":"/s","type":"t"}"#,
        r#"{"specversion":"1.0","id":"1","type":"t"}"#,
        r#"{"specversion":"1.0","id":"1","source":"/s"}"#,
        r#"{"specversion":"1.0","id":null,"source":"/s","type":"t"}"#,
    ] {
        let refused = reason(&message(&STRUCTURED, payload));
        assert_eq!(refused, Err(Reason::MalformedCloudEvent), "{payload}");
    }
    for header in
        [("ce-time", "noon"), ("ce-with-dash", "x"), ("ce-", "x"), ("ce-a", "%zz"), ("CE-ID", "2")]
    {
        let refused = reason(&binary(&[header], "1"));
        assert_eq!(refused, Err(Reason::MalformedCloudEvent), "{header:?}");
    }
}

#[test]
fn data_that_is_not_json_is_refused() {
    for members in [
        r#","data_base64":"AA==""#,
        r#","datacontenttype":"text/plain","data":"x""#,
        r#","datacontenttype":"application/xml","data":"<x/>""#,
    ] {
        assert_eq!(reason(&structured(members)), Err(Reason::UnsupportedContentType), "{members}");
    }
    for headers in [
        [("ce-datacontenttype", "text/plain"), ("Content-Type", "application/json")],
        [("Content-Type", "application/protobuf"), ("ce-a", "1")],
        [("Content-Type", "application/cloudevents+json"), ("ce-a", "1")],
    ] {
        let refused = reason(&binary(&headers, "1"));
        assert_eq!(refused, Err(Reason::UnsupportedContentType), "{headers:?}");
    }
    assert_eq!(reason(&binary(&[], "{")), Err(Reason::InvalidJson));
    let batch = [("Content-Type", "application/cloudevents-batch+json")];
    assert_eq!(reason(&message(&batch, "[]")), Err(Reason::UnsupportedContentType));
}

#[test]
fn the_data_of_a_structured_event_keeps_to_the_same_limits() {
    let at_the_limit = format!(r#","data":{}1{}"#, "[".repeat(5), "]".repeat(5));
    assert!(judged(&structured(&at_the_limit)).is_ok());
    let too_deep = format!(r#","data":{}1{}"#, "[".repeat(6), "]".repeat(6));
    assert_eq!(reason(&structured(&too_deep)), Err(Reason::TooDeep));
    let too_large = format!(r#","data":"{}""#, "x".repeat(1_000));
    assert_eq!(reason(&structured(&too_large)), Err(Reason::TooLarge));
    assert_eq!(reason(&structured(r#","data":{"a":1,"a":2}"#)), Err(Reason::DuplicateKey));
    assert_eq!(reason(&structured(r#","id":"2""#)), Err(Reason::DuplicateKey));
    let text = Bytes::from_static(b"\xff");
    assert_eq!(reason(&message(&STRUCTURED, text)), Err(Reason::InvalidUtf8));
}
