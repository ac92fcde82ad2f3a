//! What cannot be is refused, under the name of its field.

use bytes::Bytes;
use fanfare_domain::{Task, Timestamp};
use prost::Message;

use super::samples::{self, Sample};
use crate::{
    DecodeError, decode_change, decode_event, decode_inbox, decode_journal, decode_retry_due,
    decode_snapshot, decode_tasks,
    wire::{self, attempt_made::Outcome, config_record::Entity, fact::Body},
};

/// Reads the sample of that name as its generated message, changes it, and writes it again.
fn altered<M: Message + Default>(name: &str, alter: impl FnOnce(&mut M)) -> Bytes {
    let samples = samples::all();
    let (_, sample): &(_, Sample) = samples.iter().find(|(known, _)| *known == name).unwrap();
    let mut message = M::decode(sample.encode()).unwrap();
    alter(&mut message);
    message.encode_to_vec().into()
}

/// Returns what was wrong and where: the variant, the field, and which fact.
fn found(error: &DecodeError) -> (&'static str, &'static str, Option<usize>) {
    let (what, field) = match error {
        DecodeError::Malformed { message, .. } => return ("malformed", message, None),
        DecodeError::Missing { field } => ("missing", field),
        DecodeError::Length { field, .. } => ("length", field),
        DecodeError::Syntax { field, .. } => ("syntax", field),
        DecodeError::OutOfRange { field, .. } => ("range", field),
        DecodeError::UnknownValue { field, .. } => ("value", field),
        DecodeError::UnknownPolicy { field, .. } => ("policy", field),
        DecodeError::UnknownBody { field } => ("body", field),
    };
    (what, field.name, field.fact)
}

fn event(alter: impl FnOnce(&mut wire::EventEnvelope)) -> (&'static str, &'static str) {
    let bytes = altered("event", alter);
    let (what, field, _) = found(&decode_event(bytes, 1, Timestamp::EPOCH).unwrap_err());
    (what, field)
}

fn task(alter: impl FnOnce(&mut wire::DeliveryTask)) -> (&'static str, &'static str) {
    let bytes = altered::<wire::DeliveryTasks>("tasks", |tasks| alter(&mut tasks.tasks[1]));
    let (what, field, _) = found(&decode_tasks(bytes).unwrap_err());
    (what, field)
}

fn retry(alter: impl FnOnce(&mut wire::RetryDue)) -> (&'static str, &'static str) {
    let (what, field, _) = found(&decode_retry_due(altered("retry-due", alter)).unwrap_err());
    (what, field)
}

fn change(name: &str, alter: impl FnOnce(&mut Entity)) -> (&'static str, &'static str) {
    let bytes = altered::<wire::ConfigRecord>(name, |record| {
        alter(record.entity.as_mut().unwrap());
    });
    let (what, field, _) = found(&decode_change(bytes).unwrap_err());
    (what, field)
}

/// Alters the last fact of a batch.
fn fact(name: &str, alter: impl FnOnce(&mut Body)) -> (&'static str, &'static str, Option<usize>) {
    let bytes = altered::<wire::JournalRecord>(name, |record| {
        alter(record.facts.last_mut().unwrap().body.as_mut().unwrap());
    });
    found(&decode_journal(bytes).unwrap_err())
}

/// Alters the one kind of body or entity that a test is about.
macro_rules! of {
    ($variant:path, $inner:ident => $alter:expr) => {
        |body: &mut _| {
            let $variant($inner) = body else { unreachable!("the sample is of another kind") };
            $alter
        }
    };
}

#[test]
fn events_are_checked() {
    let short = Bytes::from_static(&[1; 15]);
    assert_eq!(event(|event| event.event_id = short), ("length", "EventEnvelope.event_id"));
    assert_eq!(event(|event| event.event_id.clear()), ("length", "EventEnvelope.event_id"));
    assert_eq!(event(|event| event.tenant = "a.b".into()), ("syntax", "EventEnvelope.tenant"));
    assert_eq!(event(|event| event.event_type.clear()), ("syntax", "EventEnvelope.event_type"));
}

#[test]
fn tasks_are_checked() {
    assert_eq!(task(|task| task.targets.clear()), ("range", "DeliveryTask.targets"));
    let many = |task: &mut wire::DeliveryTask| {
        task.targets = vec![task.targets[0].clone(); Task::TARGETS_MAX + 1];
    };
    assert_eq!(task(many), ("range", "DeliveryTask.targets"));
    assert_eq!(
        task(|task| task.targets[1].delivery_id.truncate(1)),
        ("length", "Target.delivery_id")
    );
    assert_eq!(task(|task| task.targets[1].endpoint_id.clear()), ("length", "Target.endpoint_id"));
    assert_eq!(task(|task| task.envelope.clear()), ("length", "EventEnvelope.event_id"));
    assert_eq!(task(|task| task.envelope.truncate(40)), ("malformed", "EventEnvelope"));
}

#[test]
fn retries_are_checked() {
    fn delivery(retry: &mut wire::RetryDue) -> &mut wire::DeliveryRef {
        retry.delivery.as_mut().unwrap()
    }
    assert_eq!(retry(|retry| retry.attempt = 0), ("range", "RetryDue.attempt"));
    assert_eq!(retry(|retry| retry.delivery = None), ("missing", "RetryDue.delivery"));
    let batch = |batch_id: &[u8], size| wire::InBatch { batch_id: batch_id.to_vec().into(), size };
    let too_short = retry(|retry| retry.batch = Some(batch(&[0; 15], 1)));
    assert_eq!(too_short, ("length", "InBatch.batch_id"));
    assert_eq!(retry(|retry| retry.batch = Some(batch(&[0; 16], 0))), ("range", "InBatch.size"));
    for (field, alter) in [
        ("DeliveryRef.delivery_id", (|of| of.delivery_id.clear()) as fn(&mut wire::DeliveryRef)),
        ("DeliveryRef.event_id", |of| of.event_id.clear()),
        ("DeliveryRef.endpoint_id", |of| of.endpoint_id.clear()),
    ] {
        assert_eq!(retry(|retry| alter(delivery(retry))), ("length", field));
    }
    for (field, alter) in [
        ("DeliveryRef.tenant", (|of| of.tenant.clear()) as fn(&mut wire::DeliveryRef)),
        ("DeliveryRef.event_type", |of| of.event_type.push('.')),
    ] {
        assert_eq!(retry(|retry| alter(delivery(retry))), ("syntax", field));
    }
}

#[test]
fn facts_are_checked() {
    let claimed = of!(Body::ShardClaimed, claimed => claimed.shard = 256);
    assert_eq!(fact("journal-shard-claimed", claimed), ("range", "ShardClaimed.shard", Some(0)));
    let parked = of!(Body::DeliveryParked, parked => parked.attempt = 0);
    assert_eq!(
        fact("journal-delivery-parked", parked),
        ("range", "DeliveryParked.attempt", Some(0))
    );
    let scheduled = of!(Body::RetryScheduled, scheduled => scheduled.attempt = 0);
    assert_eq!(
        fact("journal-retry-scheduled", scheduled),
        ("range", "RetryScheduled.attempt", Some(0))
    );
}

#[test]
fn attempts_are_checked() {
    let attempt = |alter: fn(&mut wire::AttemptMade)| {
        let alter = of!(Body::AttemptMade, made => alter(made));
        let (what, field, at) = fact("journal-attempts-failed", alter);
        assert_eq!(at, Some(8), "the last of the sample's nine");
        (what, field)
    };
    let accepted = Outcome::Accepted(wire::Accepted { status: 65_536 });
    let refused = Outcome::Refused(wire::Refused { status: 65_536, retry_after_ns: None });
    assert_eq!(attempt(|of| of.attempt = 0), ("range", "AttemptMade.attempt"));
    assert_eq!(attempt(|of| of.delivery = None), ("missing", "AttemptMade.delivery"));
    for (outcome, expected) in [
        (accepted, ("range", "Accepted.status", Some(0))),
        (refused, ("range", "Refused.status", Some(0))),
        (Outcome::Fault(0), ("missing", "AttemptMade.fault", Some(0))),
    ] {
        let alter = of!(Body::AttemptMade, made => made.outcome = Some(outcome));
        assert_eq!(fact("journal-attempt-accepted", alter), expected);
    }
}

#[test]
fn deferrals_and_conclusions_are_checked() {
    let deferred = |alter: fn(&mut wire::DeliveryDeferred)| {
        fact("journal-deliveries-deferred", of!(Body::DeliveryDeferred, it => alter(it)))
    };
    assert_eq!(deferred(|of| of.attempt = 0), ("range", "DeliveryDeferred.attempt", Some(1)));
    assert_eq!(deferred(|of| of.reason = 0), ("missing", "DeliveryDeferred.reason", Some(1)));
    assert_eq!(deferred(|of| of.reason = 99), ("value", "DeliveryDeferred.reason", Some(1)));
    let concluded = |alter: fn(&mut wire::DeliveryConcluded)| {
        fact("journal-deliveries-concluded", of!(Body::DeliveryConcluded, it => alter(it)))
    };
    let last = Some(7);
    assert_eq!(concluded(|of| of.conclusion = 5), ("value", "DeliveryConcluded.conclusion", last));
    assert_eq!(concluded(|of| of.reason = -1), ("value", "DeliveryConcluded.reason", last));
}

#[test]
fn routings_are_checked() {
    let routed = |alter: fn(&mut wire::EventRouted)| {
        let (what, field, _) =
            fact("journal-event-routed", of!(Body::EventRouted, it => alter(it)));
        (what, field)
    };
    assert_eq!(routed(|of| of.part = of.parts), ("range", "EventRouted.part"));
    assert_eq!(routed(|of| of.event_id.clear()), ("length", "EventRouted.event_id"));
    assert_eq!(routed(|of| of.target_ids[1].clear()), ("length", "EventRouted.target_ids"));
    assert_eq!(routed(|of| of.skipped_ids[0].clear()), ("length", "EventRouted.skipped_ids"));
    assert_eq!(routed(|of| of.held_ids[0].clear()), ("length", "EventRouted.held_ids"));
    assert_eq!(routed(|of| of.tenant.push('*')), ("syntax", "EventRouted.tenant"));
}

#[test]
fn configuration_is_checked() {
    let endpoint = |alter: fn(&mut wire::Endpoint)| {
        change("config-endpoint", of!(Entity::Endpoint, it => alter(it)))
    };
    assert_eq!(endpoint(|of| of.endpoint_id.clear()), ("length", "Endpoint.endpoint_id"));
    assert_eq!(endpoint(|of| of.tenant.clear()), ("syntax", "Endpoint.tenant"));
    assert_eq!(endpoint(|of| of.filters[0].clear()), ("syntax", "Endpoint.filters"));
    assert_eq!(endpoint(|of| of.secrets[0].sealed = None), ("missing", "Secret.sealed"));
    assert_eq!(endpoint(|of| of.state = 0), ("missing", "Endpoint.state"));
    assert_eq!(endpoint(|of| of.state = 7), ("value", "Endpoint.state"));
    assert_eq!(endpoint(|of| of.concurrency = Some(65_536)), ("range", "Endpoint.concurrency"));
    assert_eq!(endpoint(|of| of.retry_policy.insert(0, '{')), ("syntax", "Endpoint.retry_policy"));
    let limited = |alter: fn(&mut wire::RateLimit)| {
        let limit = of!(Entity::Endpoint, of => alter(of.rate_limit.as_mut().unwrap()));
        change("config-endpoint-rate-limit", limit)
    };
    assert_eq!(limited(|of| of.requests = 0), ("range", "RateLimit.requests"));
    assert_eq!(limited(|of| of.per = 0), ("missing", "RateLimit.per"));
    assert_eq!(limited(|of| of.burst = 0), ("range", "RateLimit.burst"));
    let batching = |alter: fn(&mut wire::Batching)| {
        let batching = of!(Entity::Endpoint, of => alter(of.batch.as_mut().unwrap()));
        change("config-endpoint-batch", batching)
    };
    assert_eq!(batching(|of| of.max_events = 0), ("range", "Batching.max_events"));
    assert_eq!(batching(|of| of.max_events = 65_536), ("range", "Batching.max_events"));
    let key = |alter: fn(&mut wire::ApiKey)| {
        change("config-key-read", of!(Entity::ApiKey, it => alter(it)))
    };
    assert_eq!(key(|of| of.key_id.clear()), ("length", "ApiKey.key_id"));
    assert_eq!(key(|of| of.sha256.truncate(31)), ("length", "ApiKey.sha256"));
    assert_eq!(key(|of| of.role = 4), ("value", "ApiKey.role"));
    assert_eq!(key(|of| of.tenant = Some(String::new())), ("syntax", "ApiKey.tenant"));
    let tenant = of!(Entity::Tenant, of => of.tenant.clear());
    assert_eq!(change("config-tenant", tenant), ("syntax", "Tenant.tenant"));
    let entry = of!(Entity::EventType, of => of.event_type.push('*'));
    assert_eq!(change("config-event-type", entry), ("syntax", "EventType.event_type"));
}

#[test]
fn snapshots_are_checked() {
    let snapshot = |alter: fn(&mut wire::Snapshot)| {
        let (what, field, _) = found(&decode_snapshot(altered("snapshot", alter)).unwrap_err());
        (what, field)
    };
    assert_eq!(snapshot(|of| of.shard = 256), ("range", "Snapshot.shard"));
    assert_eq!(snapshot(|of| of.agenda[1].attempt = 0), ("range", "AgendaEntry.attempt"));
    assert_eq!(
        snapshot(|of| of.agenda[1].delivery_id.clear()),
        ("length", "AgendaEntry.delivery_id")
    );
    assert_eq!(
        snapshot(|of| of.health[0].consecutive_failures = 0),
        ("range", "EndpointHealth.consecutive_failures")
    );
}

#[test]
fn producers_are_told_of_impossible_times() {
    for millis in [-1, i64::MIN, i64::MAX, 1_795_330_503_000_000_000] {
        let bytes = altered::<wire::InboxEvent>("inbox", |event| event.occurred_at_ms = millis);
        let error = decode_inbox(bytes).unwrap_err();
        assert!(
            matches!(error, DecodeError::OutOfRange { field, value }
                if field.name == "InboxEvent.occurred_at_ms" && value == millis),
            "{error}"
        );
    }
}

#[test]
fn what_a_producer_left_empty_counts_as_none() {
    let event = decode_inbox(Bytes::new()).unwrap();
    assert_eq!(event, fanfare_domain::InboxEvent::default());
}

#[test]
fn a_producers_malformed_trace_counts_as_none() {
    let bytes = altered::<wire::InboxEvent>("inbox", |event| event.traceparent.push('x'));
    assert!(decode_inbox(bytes).unwrap().trace.is_empty());
}

#[test]
fn an_empty_message_is_no_record() {
    let errors = samples::decode_as_everything(&Bytes::new());
    let found: Vec<_> = errors.iter().map(|error| found(error).1).collect();
    assert_eq!(
        found,
        [
            "EventEnvelope.event_id",
            "DeliveryTask.targets",
            "RetryDue.delivery",
            "JournalRecord.facts",
            "ConfigRecord.entity",
            "Feed.tenant",
            "Command.command_id",
            "Replay.job_id",
        ]
    );
}

#[test]
fn text_is_no_record() {
    let errors = samples::decode_as_everything(&Bytes::from_static(b"{\"data\": {}}"));
    assert_eq!(errors.len(), 10);
    assert!(errors.iter().all(|error| matches!(error, DecodeError::Malformed { .. })));
    assert!(errors.iter().all(|error| !error.is_from_newer_version()));
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "what is written must be readable")]
fn a_value_that_could_not_be_read_is_caught_when_it_is_written() {
    crate::encode_retry_due(&fanfare_domain::RetryDue { attempt: 0, ..samples::retry_due() });
}
