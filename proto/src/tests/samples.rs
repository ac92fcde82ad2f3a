//! One value of each kind of record, with every field set and every enum value in use. The
//! golden records are these values as version 1 wrote them.

mod command;
mod config;
mod feed;
mod journal;

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_domain::{
    BatchId, Change, Command, DeliveryId, DeliveryRef, EndpointId, Event, EventId, Feed,
    InboxEvent, Record, Replay, RetryDue, Shard, Target, Task, Timestamp, TraceContext,
    fact::InBatch,
};

use crate::{
    AgendaEntry, DecodeError, EndpointHealth, Snapshot, decode_change, decode_command,
    decode_event, decode_feed, decode_inbox, decode_journal, decode_replay, decode_retry_due,
    decode_snapshot, decode_tasks, encode_change, encode_command, encode_event, encode_feed,
    encode_inbox, encode_journal, encode_replay, encode_retry_due, encode_snapshot, encode_tasks,
};

pub(super) use config::endpoint_change;
pub(super) use journal::{attempt_refused, shard_claimed};

/// When EVENTS stored the sample event.
const STORED_AT: Timestamp = Timestamp::from_nanos(1_795_330_503_200_000_007);

/// A record's value.
#[derive(Debug)]
pub(super) enum Sample {
    Event(Event),
    Tasks(Vec<Task>),
    RetryDue(RetryDue),
    Journal(Vec<Record>),
    Change(Change),
    Inbox(InboxEvent),
    Snapshot(Snapshot),
    Feed(Feed),
    Command(Command),
    Replay(Replay),
}

impl Sample {
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Self::Event(event) => encode_event(event),
            Self::Tasks(tasks) => encode_tasks(tasks),
            Self::RetryDue(retry) => encode_retry_due(retry),
            Self::Journal(records) => encode_journal(records),
            Self::Change(change) => encode_change(change),
            Self::Inbox(event) => encode_inbox(event),
            Self::Snapshot(snapshot) => encode_snapshot(snapshot),
            Self::Feed(feed) => encode_feed(feed),
            Self::Command(command) => encode_command(command),
            Self::Replay(replay) => encode_replay(replay),
        }
    }

    /// Fails unless the bytes are this value.
    pub(super) fn assert_decodes_from(&self, bytes: Bytes) {
        match self {
            Self::Event(event) => {
                let stored = decode_event(bytes.clone(), 7, STORED_AT).unwrap();
                assert_eq!(stored.event.as_ref(), event);
                assert_eq!(stored.envelope, bytes);
            }
            Self::Tasks(tasks) => {
                let mut read = decode_tasks(bytes).unwrap();
                for (read, task) in read.iter_mut().zip(tasks) {
                    // A later version may write another envelope of the same event.
                    read.event.envelope = task.event.envelope.clone();
                }
                assert_eq!(&read, tasks);
            }
            Self::RetryDue(retry) => assert_eq!(&decode_retry_due(bytes).unwrap(), retry),
            Self::Journal(records) => assert_eq!(&decode_journal(bytes).unwrap(), records),
            Self::Change(change) => assert_eq!(&decode_change(bytes).unwrap(), change),
            Self::Inbox(event) => assert_eq!(&decode_inbox(bytes).unwrap(), event),
            Self::Snapshot(snapshot) => assert_eq!(&decode_snapshot(bytes).unwrap(), snapshot),
            Self::Feed(feed) => assert_eq!(&decode_feed(bytes).unwrap(), feed),
            Self::Command(command) => assert_eq!(&decode_command(bytes).unwrap(), command),
            Self::Replay(replay) => assert_eq!(&decode_replay(bytes).unwrap(), replay),
        }
    }
}

/// Decodes bytes as each kind of record, and returns what failed.
pub(super) fn decode_as_everything(bytes: &Bytes) -> Vec<DecodeError> {
    [
        decode_event(bytes.clone(), 7, STORED_AT).err(),
        decode_tasks(bytes.clone()).err(),
        decode_retry_due(bytes.clone()).err(),
        decode_journal(bytes.clone()).err(),
        decode_change(bytes.clone()).err(),
        decode_inbox(bytes.clone()).err(),
        decode_snapshot(bytes.clone()).err(),
        decode_feed(bytes.clone()).err(),
        decode_command(bytes.clone()).err(),
        decode_replay(bytes.clone()).err(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every sample, under the name of its golden record.
pub(super) fn all() -> Vec<(&'static str, Sample)> {
    let mut samples = vec![
        ("event", Sample::Event(event())),
        ("event-without-optional-fields", Sample::Event(bare_event())),
        // As the first version wrote it: by itself.
        ("task", Sample::Tasks(vec![task()])),
        ("tasks", Sample::Tasks(vec![task(), Task { generation: 1, ..task() }])),
        ("retry-due", Sample::RetryDue(retry_due())),
        ("retry-due-traced", Sample::RetryDue(RetryDue { trace: trace(), ..retry_due() })),
        (
            "retry-due-of-a-batch",
            Sample::RetryDue(RetryDue { batch: Some(in_batch()), ..retry_due() }),
        ),
        ("inbox", Sample::Inbox(inbox())),
        ("snapshot", Sample::Snapshot(snapshot())),
    ];
    samples.extend(journal::all().map(|(name, records)| (name, Sample::Journal(records))));
    samples.extend(config::all().map(|(name, change)| (name, Sample::Change(change))));
    samples.extend(feed::all().map(|(name, feed)| (name, Sample::Feed(feed))));
    samples.extend(command::commands().map(|(name, it)| (name, Sample::Command(it))));
    samples.extend(command::replays().map(|(name, it)| (name, Sample::Replay(it))));
    samples
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    BTreeMap::from(pairs.map(|(key, value)| (String::from(key), String::from(value))))
}

fn event_id() -> EventId {
    EventId::from_bytes([1, 0x9e, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
}

fn endpoint_id(last: u8) -> EndpointId {
    EndpointId::from_bytes([1, 0x9d, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, last])
}

fn delivery_id(last: u8) -> DeliveryId {
    DeliveryId::from_bytes([1, 0x9e, 2, 3, 4, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, last])
}

fn trace() -> TraceContext {
    TraceContext {
        traceparent: String::from("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        tracestate: String::from("vendor=a1"),
    }
}

/// An instant of the day on which all samples happen.
fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(1_795_330_503_000_000_000 + nanos)
}

pub(super) fn event() -> Event {
    Event {
        id: event_id(),
        tenant: "acme".parse().unwrap(),
        event_type: "invoice.paid".parse().unwrap(),
        occurred_at: at(1),
        accepted_at: Some(at(123_456_789)),
        config_revision: None,
        data: Bytes::from_static(br#"{"amount": 98.50, "name": "M\u00fcller & S\u00f6hne"}"#),
        ordering_key: Some(String::from("invoice-17")),
        attributes: texts([("region", "eu"), ("source", "billing")]),
        idempotency_key: Some(String::from("pay-17-1")),
        trace: trace(),
    }
}

fn bare_event() -> Event {
    Event {
        accepted_at: None,
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
        ..event()
    }
}

pub(super) fn task() -> Task {
    Task {
        event: decode_event(encode_event(&event()), 42, STORED_AT).unwrap(),
        targets: vec![
            Target { delivery: delivery_id(1), endpoint: endpoint_id(1), not_before: None },
            Target { delivery: delivery_id(2), endpoint: endpoint_id(2), not_before: None },
        ],
        generation: 3,
        journal_sequence: 1_000,
    }
}

fn delivery() -> DeliveryRef {
    DeliveryRef {
        id: delivery_id(1),
        tenant: "acme".parse().unwrap(),
        event: event_id(),
        event_sequence: 42,
        event_type: "invoice.paid".parse().unwrap(),
        endpoint: endpoint_id(1),
        generation: 3,
        accepted_at: at(123_456_789),
    }
}

pub(super) fn retry_due() -> RetryDue {
    RetryDue {
        delivery: delivery(),
        attempt: 2,
        due_at: at(5_000_000_000),
        journal_sequence: 1_001,
        trace: TraceContext::default(),
        batch: None,
    }
}

fn in_batch() -> InBatch {
    let id = BatchId::from_bytes([1, 0x9e, 2, 3, 4, 5, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    InBatch { id, size: 50 }
}

pub(super) fn inbox() -> InboxEvent {
    InboxEvent {
        data: Bytes::from_static(br#"{"amount":98.5}"#),
        content_type: String::from("application/json"),
        occurred_at: Some(Timestamp::from_millis(1_795_330_503_123)),
        ordering_key: Some(String::from("invoice-17")),
        attributes: texts([("Region", "eu"), ("source", "billing")]),
        idempotency_key: Some(String::from("pay-17-1")),
        trace: trace(),
    }
}

pub(super) fn snapshot() -> Snapshot {
    Snapshot {
        shard: Shard::from_index(255),
        journal_sequence: 1_234,
        taken_at: at(9),
        agenda: vec![
            AgendaEntry {
                delivery: delivery_id(1),
                attempt: 2,
                due_at: at(5_000_000_000),
                journal_sequence: 1_001,
            },
            AgendaEntry {
                delivery: delivery_id(2),
                attempt: 1,
                due_at: at(6_000_000_000),
                journal_sequence: 1_100,
            },
        ],
        health: vec![EndpointHealth {
            endpoint: endpoint_id(1),
            tenant: "acme".parse().unwrap(),
            consecutive_failures: 99,
            first_failure_at: at(0),
            last_failure_at: at(8),
        }],
    }
}
