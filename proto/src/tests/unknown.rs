//! What a newer version wrote: extra fields are passed over, facts and values never.

use bytes::Bytes;
use fanfare_domain::Record;
use prost::Message as _;

use super::samples::{self, Sample};
use crate::{
    DecodeError, Field, decode_change, decode_journal, decode_journal_briefly, encode_journal, wire,
};

/// Field 500 as a number, a text, eight bytes and four bytes.
const EXTRA: &[u8] = b"\xa0\x1f\x07\
    \xa2\x1f\x03new\
    \xa1\x1f\x01\x02\x03\x04\x05\x06\x07\x08\
    \xa5\x1f\x01\x02\x03\x04";

/// A length-delimited field with up to 127 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

fn batch(facts: Vec<wire::Fact>) -> Bytes {
    wire::JournalRecord { facts }.encode_to_vec().into()
}

fn generated(record: &Record) -> wire::Fact {
    let batch = encode_journal(std::slice::from_ref(record));
    wire::JournalRecord::decode(batch).unwrap().facts.remove(0)
}

#[test]
fn extra_fields_are_passed_over() {
    for (_, sample) in samples::all() {
        let extended = Bytes::from([&sample.encode(), EXTRA].concat());
        if let Sample::Event(event) = &sample {
            let stored = crate::decode_event(extended.clone(), 1, event.occurred_at).unwrap();
            assert_eq!(stored.event.as_ref(), event);
        }
        sample.assert_decodes_from(extended);
    }
}

#[test]
fn extra_fields_inside_a_fact_are_passed_over() {
    let record = samples::shard_claimed();
    let fact = generated(&record).encode_to_vec();
    let batch = Bytes::from(field(1, &[&fact, EXTRA].concat()));
    assert_eq!(decode_journal(batch).unwrap(), [record]);
}

#[test]
fn a_fact_of_an_unknown_kind_stops_its_batch() {
    let known = samples::attempt_refused();
    let unknown = field(1, &field(15, b"\x08\x01"));
    let batch = Bytes::from([&encode_journal(&[known.clone(), known])[..], &unknown].concat());
    let error = decode_journal(batch).unwrap_err();
    assert!(error.is_from_newer_version());
    let expected = Field { name: "Fact.body", fact: Some(2) };
    assert!(matches!(error, DecodeError::UnknownBody { field } if field == expected), "{error}");
}

#[test]
fn an_end_without_its_attempt_is_no_fact() {
    let how = wire::AttemptConcluded { conclusion: 1, reason: 1 };
    let end =
        wire::Fact { body: Some(wire::fact::Body::AttemptConcluded(how)), ..wire::Fact::default() };
    let other = generated(&samples::shard_claimed());
    for (facts, at) in [(vec![end.clone()], 0), (vec![other, end], 1)] {
        for error in [decode_journal(batch(facts.clone())), decode_journal_briefly(batch(facts))] {
            let expected = Field { name: "AttemptConcluded.attempt", fact: Some(at) };
            let error = error.unwrap_err();
            assert!(
                matches!(error, DecodeError::Missing { field } if field == expected),
                "{error}"
            );
        }
    }
}

#[test]
fn an_end_of_an_unknown_kind_stops_its_batch() {
    let attempt = generated(&samples::attempt_refused());
    for (conclusion, reason, name) in
        [(99, 1, "AttemptConcluded.conclusion"), (1, 99, "AttemptConcluded.reason")]
    {
        let how = wire::AttemptConcluded { conclusion, reason };
        let end = wire::Fact {
            body: Some(wire::fact::Body::AttemptConcluded(how)),
            ..wire::Fact::default()
        };
        let facts = vec![attempt.clone(), end];
        for error in [decode_journal(batch(facts.clone())), decode_journal_briefly(batch(facts))] {
            let error = error.unwrap_err();
            assert!(error.is_from_newer_version(), "{error}");
            let expected = Field { name, fact: Some(1) };
            let is_it = matches!(error, DecodeError::UnknownValue { field, value: 99 } if field == expected);
            assert!(is_it, "{name}");
        }
    }
}

#[test]
fn an_unknown_outcome_stops_its_batch() {
    let mut fact = generated(&samples::attempt_refused());
    let Some(wire::fact::Body::AttemptMade(made)) = &mut fact.body else {
        unreachable!("the sample is an attempt");
    };
    made.outcome = None;
    let error = decode_journal(batch(vec![fact])).unwrap_err();
    assert!(error.is_from_newer_version());
    let expected = Field { name: "AttemptMade.outcome", fact: Some(0) };
    assert!(matches!(error, DecodeError::UnknownBody { field } if field == expected), "{error}");
}

#[test]
fn an_unknown_fault_stops_its_batch() {
    let mut fact = generated(&samples::attempt_refused());
    let Some(wire::fact::Body::AttemptMade(made)) = &mut fact.body else {
        unreachable!("the sample is an attempt");
    };
    made.outcome = Some(wire::attempt_made::Outcome::Fault(99));
    let error = decode_journal(batch(vec![fact])).unwrap_err();
    assert!(error.is_from_newer_version());
    assert!(matches!(error, DecodeError::UnknownValue { value: 99, .. }), "{error}");
}

#[test]
fn an_entity_of_an_unknown_kind_is_said_to_be_newer() {
    let record = [field(2, b"key_1"), field(15, b"\x08\x01")].concat();
    let error = decode_change(record.into()).unwrap_err();
    assert!(error.is_from_newer_version());
    let expected = Field { name: "ConfigRecord.entity", fact: None };
    assert!(matches!(error, DecodeError::UnknownBody { field } if field == expected), "{error}");
}

#[test]
fn a_policy_with_an_unknown_field_is_said_to_be_newer() {
    for (policy, newer) in [(r#"{"unheard": 1}"#, true), (r#"{"delays":"#, false), ("?", false)] {
        let endpoint = wire::Endpoint { retry_policy: policy.into(), ..endpoint() };
        let entity = Some(wire::config_record::Entity::Endpoint(endpoint));
        let record = wire::ConfigRecord { entity, ..wire::ConfigRecord::default() };
        let error = decode_change(record.encode_to_vec().into()).unwrap_err();
        assert_eq!(error.is_from_newer_version(), newer, "{policy} {error}");
    }
}

fn endpoint() -> wire::Endpoint {
    let change = samples::all().into_iter().find(|(name, _)| *name == "config-endpoint").unwrap().1;
    let record = wire::ConfigRecord::decode(change.encode()).unwrap();
    let Some(wire::config_record::Entity::Endpoint(endpoint)) = record.entity else {
        unreachable!("the sample is an endpoint");
    };
    endpoint
}
