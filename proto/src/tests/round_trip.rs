//! What is written reads back, is what the schema says, and is copied no more than it must be.

use std::ops::Range;

use bytes::Bytes;
use fanfare_domain::{
    Conclusion, Fact, Outcome, Record, Timestamp,
    fact::{ConclusionReason, DeliveryConcluded},
};
use proptest::{collection::vec, prelude::*};
use prost::Message;

use super::{arbitrary, samples};
use crate::{
    PackedEndpoint, decode_change, decode_event, decode_feed, decode_feed_hint, decode_inbox,
    decode_journal, decode_journal_briefly, decode_retry_due, decode_snapshot, decode_tasks,
    encode_change, encode_event, encode_facts, encode_feed, encode_feed_hint, encode_inbox,
    encode_journal, encode_retry_due, encode_snapshot, encode_tasks, encoded_len, task_length,
    wire,
};

/// Fails if the bytes have a field that the schema does not have, or lack one's proper form:
/// the generated type would not write them like that.
fn assert_canonical<M: Message + Default>(bytes: &Bytes) -> Result<(), TestCaseError> {
    let generated = M::decode(bytes.clone()).unwrap();
    prop_assert_eq!(generated.encode_to_vec(), bytes.to_vec());
    Ok(())
}

proptest! {
    #[test]
    fn an_event_reads_back(event in arbitrary::event(), sequence: u64, stored_at: u64) {
        let stored_at = Timestamp::from_nanos(stored_at);
        let bytes = encode_event(&event);
        let stored = decode_event(bytes.clone(), sequence, stored_at).unwrap();
        prop_assert_eq!(stored.event.as_ref(), &event);
        prop_assert_eq!(stored.sequence, sequence);
        prop_assert_eq!(stored.accepted_at, event.accepted_at.unwrap_or(stored_at));
        prop_assert_eq!(&stored.envelope, &bytes);
        assert_canonical::<wire::EventEnvelope>(&bytes)?;
    }

    #[test]
    fn tasks_read_back(tasks in vec(arbitrary::task(), 1..4)) {
        let bytes = encode_tasks(&tasks);
        prop_assert_eq!(&decode_tasks(bytes.clone()).unwrap(), &tasks);
        prop_assert_eq!(tasks.iter().map(task_length).sum::<usize>(), bytes.len());
        assert_canonical::<wire::DeliveryTasks>(&bytes)?;
    }

    #[test]
    fn a_retry_reads_back(retry in arbitrary::retry_due()) {
        let bytes = encode_retry_due(&retry);
        prop_assert_eq!(&decode_retry_due(bytes.clone()).unwrap(), &retry);
        assert_canonical::<wire::RetryDue>(&bytes)?;
    }

    #[test]
    fn a_batch_reads_back_and_is_as_long_as_its_facts(
        records in vec(arbitrary::record(), 1..8),
    ) {
        let bytes = encode_journal(&records);
        prop_assert_eq!(records.iter().map(encoded_len).sum::<usize>(), bytes.len());
        prop_assert_eq!(&decode_journal(bytes.clone()).unwrap(), &records);
        assert_canonical::<wire::JournalRecord>(&bytes)?;
    }

    #[test]
    fn what_an_attempt_led_to_is_written_in_fewer_bytes_behind_it(
        records in vec(arbitrary::record(), 1..8),
        recorded_at: u64,
    ) {
        let with_end = |it: &Record| [Some(it.clone()), end_of(it, recorded_at)];
        let with_ends: Vec<Record> = records.iter().flat_map(with_end).flatten().collect();
        let bytes = encode_journal(&with_ends);
        let length: usize = with_ends.iter().map(encoded_len).sum();
        prop_assert!(bytes.len() < length || with_ends.len() == records.len());
        prop_assert_eq!(&decode_journal(bytes.clone()).unwrap(), &with_ends);
        prop_assert_eq!(&decode_journal_briefly(bytes.clone()).unwrap(), &briefly(with_ends));
        assert_canonical::<wire::JournalRecord>(&bytes)?;
    }

    #[test]
    fn a_batch_read_briefly_lacks_what_was_sent_and_answered(
        records in vec(arbitrary::record(), 1..8),
    ) {
        let bytes = encode_journal(&records);
        prop_assert_eq!(&decode_journal_briefly(bytes).unwrap(), &briefly(records));
    }

    #[test]
    fn a_damaged_batch_that_can_be_read_reads_the_same_briefly(
        records in vec(arbitrary::record(), 1..4),
        at in any::<prop::sample::Index>(),
        value: u8,
    ) {
        let mut bytes = encode_journal(&records).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let bytes = Bytes::from(bytes);
        if let Ok(records) = decode_journal(bytes.clone()) {
            prop_assert_eq!(decode_journal_briefly(bytes).unwrap(), briefly(records));
        }
    }

    #[test]
    fn a_change_reads_back(change in arbitrary::change()) {
        let bytes = encode_change(&change);
        prop_assert_eq!(&decode_change(bytes.clone()).unwrap(), &change);
        assert_canonical::<wire::ConfigRecord>(&bytes)?;
        if let fanfare_domain::Entity::Endpoint(endpoint) = &change.entity {
            prop_assert_eq!(&PackedEndpoint::pack(endpoint).unpack(), &**endpoint);
        }
    }

    #[test]
    fn an_inbox_event_reads_back(event in arbitrary::inbox()) {
        let bytes = encode_inbox(&event);
        prop_assert_eq!(&decode_inbox(bytes.clone()).unwrap(), &event);
        assert_canonical::<wire::InboxEvent>(&bytes)?;
    }

    #[test]
    fn a_snapshot_reads_back(snapshot in arbitrary::snapshot()) {
        let bytes = encode_snapshot(&snapshot);
        prop_assert_eq!(&decode_snapshot(bytes.clone()).unwrap(), &snapshot);
        assert_canonical::<wire::Snapshot>(&bytes)?;
    }

    #[test]
    fn a_feed_reads_back(feed in arbitrary::feed()) {
        let bytes = encode_feed(&feed);
        prop_assert_eq!(&decode_feed(bytes.clone()).unwrap(), &feed);
        assert_canonical::<wire::Feed>(&bytes)?;
    }

    #[test]
    fn a_hint_reads_back(hint in arbitrary::hint()) {
        let bytes = encode_feed_hint(&hint);
        prop_assert_eq!(&decode_feed_hint(bytes.clone()).unwrap(), &hint);
        assert_canonical::<wire::FeedHint>(&bytes)?;
    }

    #[test]
    fn damaged_bytes_do_no_harm(
        place in any::<prop::sample::Index>(),
        byte: u8,
        length in any::<prop::sample::Index>(),
    ) {
        for (_, sample) in samples::all() {
            let mut bytes = sample.encode().to_vec();
            *place.get_mut(&mut bytes) = byte;
            bytes.truncate(length.index(bytes.len() + 1));
            samples::decode_as_everything(&Bytes::from(bytes));
        }
    }

    #[test]
    fn chance_does_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        samples::decode_as_everything(&Bytes::from(bytes));
    }
}

fn range_of(bytes: &[u8]) -> Range<*const u8> {
    bytes.as_ptr_range()
}

fn lies_within(inner: &[u8], outer: &[u8]) -> bool {
    let (inner, outer) = (range_of(inner), range_of(outer));
    !inner.is_empty() && outer.start <= inner.start && inner.end <= outer.end
}

/// The end of a delivery by an attempt, if it is one.
fn end_of(record: &Record, recorded_at: u64) -> Option<Record> {
    let made = record.fact.attempt_made()?;
    let fact = Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: made.delivery.clone(),
        conclusion: Conclusion::Exhausted,
        attempts: made.attempt,
        reason: ConclusionReason::AttemptsSpent,
    });
    let recorded_at = Timestamp::from_nanos(recorded_at);
    Some(Record { recorded_at, trace: record.trace.clone(), fact })
}

#[test]
fn what_does_not_follow_from_the_attempt_before_is_written_in_full() {
    let attempt = samples::attempt_refused();
    let made = attempt.fact.attempt_made().unwrap();
    let end = end_of(&attempt, 7).unwrap();
    let Fact::DeliveryConcluded(concluded) = &end.fact else { unreachable!("it is one") };
    let with = |concluded| Record { fact: Fact::DeliveryConcluded(concluded), ..end.clone() };
    let endpoint = fanfare_domain::EndpointId::from_bytes([3; 16]);
    let delivery = fanfare_domain::DeliveryRef { endpoint, ..made.delivery.clone() };
    for other in [
        with(DeliveryConcluded { attempts: made.attempt + 1, ..concluded.clone() }),
        with(DeliveryConcluded { delivery, ..concluded.clone() }),
        Record { trace: fanfare_domain::TraceContext::default(), ..end.clone() },
    ] {
        let records = [attempt.clone(), other];
        let bytes = encode_journal(&records);
        assert_eq!(records.iter().map(encoded_len).sum::<usize>(), bytes.len());
        assert_eq!(decode_journal(bytes).unwrap(), records);
    }
    // Something else stands between them, or nobody promises to know the short form.
    let records = [attempt.clone(), samples::shard_claimed(), end.clone()];
    for (records, bytes) in [
        (&records[..], encode_journal(&records)),
        (&[attempt.clone(), end.clone()], encode_facts(&[attempt, end])),
    ] {
        assert_eq!(records.iter().map(encoded_len).sum::<usize>(), bytes.len());
        assert_eq!(decode_journal(bytes).unwrap(), records);
    }
}

/// Facts without what was sent and answered in attempts that were accepted.
fn briefly(mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        if let Fact::AttemptMade(made) = &mut record.fact
            && matches!(made.outcome, Outcome::Accepted { .. })
        {
            (made.url, made.signature) = Default::default();
            (made.response_headers, made.response_body) = Default::default();
            made.response_truncated = false;
        }
    }
    records
}

#[test]
fn payloads_are_slices_of_what_was_read() {
    let tasks = encode_tasks(&[samples::task()]);
    let event = decode_tasks(tasks.clone()).unwrap().remove(0).event;
    assert!(lies_within(&event.envelope, &tasks));
    assert!(lies_within(&event.event.data, &tasks));

    let batch = encode_journal(&[samples::attempt_refused()]);
    let records = decode_journal(batch.clone()).unwrap();
    let Fact::AttemptMade(made) = &records[0].fact else {
        unreachable!("the sample is an attempt");
    };
    assert!(lies_within(&made.response_body, &batch));
    assert!(made.response_headers.iter().all(|(_, value)| lies_within(value, &batch)));
}

#[test]
fn what_is_kept_for_long_keeps_nothing_else_alive() {
    let change = encode_change(&samples::endpoint_change());
    let fanfare_domain::Entity::Endpoint(endpoint) = decode_change(change.clone()).unwrap().entity
    else {
        unreachable!("the sample is an endpoint");
    };
    let sealed = endpoint.secrets.iter().map(|secret| &secret.sealed);
    let mut sealed = sealed.chain(endpoint.headers.values()).peekable();
    assert!(sealed.peek().is_some());
    assert!(sealed.all(|sealed| !lies_within(&sealed.bytes, &change)));
}

#[test]
fn a_task_holds_the_envelope_as_it_is_stored() {
    // A field that this version does not know must survive on its way to the dispatcher.
    let envelope = [&encode_event(&samples::event())[..], &[0xa8, 0x1f, 0x07]].concat();
    let envelope = Bytes::from(envelope);
    let mut task = samples::task();
    task.event = decode_event(envelope.clone(), 7, task.event.accepted_at).unwrap();
    let read = decode_tasks(encode_tasks(&[task])).unwrap();
    assert_eq!(read[0].event.envelope, envelope);
}

#[test]
fn commands_and_replays_are_what_the_schema_says() {
    let mut seen = 0;
    for (name, sample) in samples::all() {
        let bytes = sample.encode();
        if name.starts_with("command-") {
            assert_canonical::<wire::Command>(&bytes).unwrap();
        } else if name.starts_with("replay-") {
            assert_canonical::<wire::Replay>(&bytes).unwrap();
        } else {
            continue;
        }
        seen += 1;
    }
    assert_eq!(seen, 10);
}

#[test]
fn a_replay_counts_from_when_it_was_made() {
    let accepted_at = Timestamp::from_millis(5);
    for (generation, is_kept) in [(0, false), (1, true)] {
        let mut task = samples::task();
        task.generation = generation;
        task.event.accepted_at = accepted_at;
        let read = decode_tasks(encode_tasks(&[task])).unwrap();
        assert_eq!(read[0].event.accepted_at == accepted_at, is_kept);
    }
}
