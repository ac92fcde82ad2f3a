//! Records of the log: what can be read can be written, and is then read as the same.
//!
//! The first byte says which kind of record the others are. Fields that a later version adds change
//! nothing, and no more is written than was counted beforehand. Read briefly, a batch is the same but
//! for what is left out.

use std::fmt::Debug;

use bytes::Bytes;
use fanfare_domain::{Change, Entity, Event, Fact, Outcome, Record, Timestamp, chain};
use fanfare_proto::{
    DecodeError, PackedEndpoint, decode_change, decode_command, decode_event, decode_feed,
    decode_feed_hint, decode_inbox, decode_journal, decode_journal_briefly, decode_replay,
    decode_retry_due, decode_snapshot, decode_tasks, encode_change, encode_command, encode_event,
    encode_facts, encode_feed, encode_feed_hint, encode_inbox, encode_journal, encode_replay,
    encode_retry_due, encode_snapshot, encode_tasks, encoded_len, task_length,
};

/// The longest input that is looked at.
const BYTES_MAX: usize = 64 * 1_024;

/// Field 500 as a number, a text, eight bytes and four bytes.
const LATER: &[u8] = b"\xa0\x1f\x07\xa2\x1f\x03new\xa1\x1f\x01\x02\x03\x04\x05\x06\x07\x08\
    \xa5\x1f\x01\x02\x03\x04";

/// The kinds, by the first byte of an input.
const KINDS: [fn(&Bytes); 11] =
    [event, tasks, retry_due, journal, change, inbox, snapshot, feed, feed_hint, command, replay];

/// Reads a record.
pub fn run(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let kind = KINDS.get(usize::from(*kind) % KINDS.len());
    if let Some(read) = kind.filter(|_| bytes.len() <= BYTES_MAX) {
        read(&Bytes::copy_from_slice(bytes));
    }
}

/// Reads bytes, and returns what is written of it.
fn same<T: Debug + PartialEq>(
    bytes: &Bytes,
    read: impl Fn(Bytes) -> Result<T, DecodeError>,
    write: impl Fn(&T) -> Bytes,
) -> Option<(T, Bytes)> {
    let value = match read(bytes.clone()) {
        Ok(value) => value,
        Err(error) => {
            assert!(!chain(&error).is_empty(), "an error says nothing");
            return None;
        }
    };
    let written = write(&value);
    let again = read(written.clone()).expect("what is written can be read");
    assert_eq!(again, value, "it is read as another");
    assert_eq!(write(&again), written, "it is written otherwise");
    let later = Bytes::from([&written, LATER].concat());
    assert_eq!(read(later).expect("later fields do no harm"), value, "a later field counts");
    Some((value, written))
}

fn event(bytes: &Bytes) {
    let read = |bytes| decode_event(bytes, 7, Timestamp::from_millis(9));
    same(bytes, |bytes| read(bytes).map(|it| Event::clone(&it.event)), encode_event);
    if let Ok(stored) = read(bytes.clone()) {
        assert_eq!(stored.envelope, *bytes, "an envelope is passed on as it was");
        assert_eq!(
            stored.accepted_at,
            stored.event.accepted_at.unwrap_or(Timestamp::from_millis(9))
        );
    }
}

fn tasks(bytes: &Bytes) {
    if let Some((tasks, written)) = same(bytes, decode_tasks, |tasks| encode_tasks(tasks)) {
        assert_eq!(tasks.iter().map(task_length).sum::<usize>(), written.len());
    }
}

fn retry_due(bytes: &Bytes) {
    same(bytes, decode_retry_due, encode_retry_due);
}

fn journal(bytes: &Bytes) {
    same(bytes, decode_journal, |records| encode_facts(records));
    let found = same(bytes, decode_journal, |records| encode_journal(records));
    if let Some((mut records, written)) = found {
        let counted = records.iter().map(encoded_len).sum::<usize>();
        let has_ends = records.iter().any(|it| matches!(it.fact, Fact::DeliveryConcluded(_)));
        assert!(counted == written.len() || (has_ends && counted > written.len()), "{counted}");
        let read = decode_journal_briefly(written).expect("what is written can be read");
        for record in &mut records {
            leave_out(record);
        }
        assert_eq!(read, records, "it is read otherwise briefly");
    }
}

/// Takes out what is passed over in reading briefly.
fn leave_out(record: &mut Record) {
    if let Fact::AttemptMade(made) = &mut record.fact
        && matches!(made.outcome, Outcome::Accepted { .. })
    {
        (made.url, made.signature) = Default::default();
        (made.response_headers, made.response_body) = Default::default();
        made.response_truncated = false;
    }
}

fn change(bytes: &Bytes) {
    let found = same(bytes, decode_change, encode_change);
    if let Some((Change { entity: Entity::Endpoint(endpoint), .. }, _)) = found {
        assert_eq!(PackedEndpoint::pack(&endpoint).unpack(), *endpoint, "packing changes it");
    }
}

fn inbox(bytes: &Bytes) {
    same(bytes, decode_inbox, encode_inbox);
}

fn snapshot(bytes: &Bytes) {
    same(bytes, decode_snapshot, encode_snapshot);
}

fn feed(bytes: &Bytes) {
    same(bytes, decode_feed, encode_feed);
}

fn feed_hint(bytes: &Bytes) {
    same(bytes, decode_feed_hint, |hint| encode_feed_hint(hint));
}

fn command(bytes: &Bytes) {
    same(bytes, decode_command, encode_command);
}

fn replay(bytes: &Bytes) {
    same(bytes, decode_replay, encode_replay);
}
