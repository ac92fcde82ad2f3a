//! Reading facts without what was sent and answered, for folds that need what was decided only.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    DeliveryId, DeliveryRef, EndpointId, EventId, Fact, Outcome, Record, Timestamp,
    fact::AttemptMade,
};
use prost::{Message, Oneof};

use super::decode;
use crate::{
    error::DecodeError,
    parse,
    task::{Names, in_batch},
    wire,
};

/// Reads a batch of facts like [`decode_journal`](super::decode_journal), but for what was sent and
/// answered in attempts that were accepted: these come without their URL, signature, and the
/// answer's head and body. Most facts are about such attempts, and most of their bytes are that.
///
/// What is passed over is not checked: a batch that is damaged there is read.
pub fn decode_journal_briefly(bytes: Bytes) -> Result<Vec<Record>, DecodeError> {
    let wire: Facts = parse::message(bytes, "JournalRecord")?;
    if wire.facts.is_empty() {
        return Err(DecodeError::Missing { field: "JournalRecord.facts".into() });
    }
    let (mut names, mut records) = (Names::default(), Vec::with_capacity(wire.facts.len()));
    for (index, fact) in wire.facts.into_iter().enumerate() {
        let read = match record(&fact, &mut names, records.last()) {
            Some(record) => Ok(record),
            // It is told there what it is, or what is wrong with it.
            None => parse::message(fact, "Fact")
                .and_then(|fact| decode::record(fact, &mut names, records.last())),
        };
        records.push(read.map_err(|error| error.in_fact(index))?);
    }
    Ok(records)
}

// The same messages as in journal.proto, with text as slices of the input, and without the fields
// that are passed over.

#[derive(Clone, PartialEq, Message)]
struct Facts {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    facts: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct BriefFact {
    #[prost(fixed64, tag = "1")]
    recorded_at_ns: u64,
    #[prost(bytes = "bytes", tag = "2")]
    traceparent: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    tracestate: Bytes,
    #[prost(oneof = "BriefBody", tags = "4, 5, 6, 7, 8, 9, 10, 11, 12")]
    body: Option<BriefBody>,
}

/// All of them, since the last one counts.
#[derive(Clone, PartialEq, Oneof)]
#[expect(clippy::large_enum_variant, reason = "most are the large one, and none is kept")]
enum BriefBody {
    #[prost(bytes = "bytes", tag = "4")]
    ShardClaimed(Bytes),
    #[prost(message, tag = "5")]
    AttemptMade(BriefAttempt),
    #[prost(bytes = "bytes", tag = "6")]
    DeliveryDeferred(Bytes),
    #[prost(bytes = "bytes", tag = "7")]
    DeliveryParked(Bytes),
    #[prost(bytes = "bytes", tag = "8")]
    DeliveryConcluded(Bytes),
    #[prost(bytes = "bytes", tag = "9")]
    RetryScheduled(Bytes),
    #[prost(bytes = "bytes", tag = "10")]
    EventRouted(Bytes),
    #[prost(bytes = "bytes", tag = "11")]
    ShardReleased(Bytes),
    #[prost(message, tag = "12")]
    AttemptConcluded(wire::AttemptConcluded),
}

#[derive(Clone, PartialEq, Message)]
struct BriefAttempt {
    #[prost(message, optional, tag = "1")]
    delivery: Option<BriefDelivery>,
    #[prost(uint32, tag = "2")]
    attempt: u32,
    #[prost(fixed64, tag = "3")]
    started_at_ns: u64,
    #[prost(uint64, tag = "4")]
    duration_ns: u64,
    #[prost(oneof = "BriefOutcome", tags = "5, 6, 7")]
    outcome: Option<BriefOutcome>,
    #[prost(bytes = "bytes", tag = "8")]
    detail: Bytes,
    #[prost(uint64, tag = "9")]
    config_revision: u64,
    #[prost(fixed64, optional, tag = "15")]
    retry_at_ns: Option<u64>,
    #[prost(message, optional, tag = "16")]
    batch: Option<wire::InBatch>,
    #[prost(uint64, tag = "17")]
    connect_ns: u64,
    #[prost(uint64, tag = "18")]
    first_byte_ns: u64,
    #[prost(bool, optional, tag = "19")]
    trace_sampled: Option<bool>,
}

#[derive(Clone, PartialEq, Oneof)]
enum BriefOutcome {
    #[prost(message, tag = "5")]
    Accepted(wire::Accepted),
    #[prost(bytes = "bytes", tag = "6")]
    Refused(Bytes),
    #[prost(int32, tag = "7")]
    Fault(i32),
}

#[derive(Clone, PartialEq, Message)]
struct BriefDelivery {
    #[prost(bytes = "bytes", tag = "1")]
    delivery_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    tenant: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    event_id: Bytes,
    #[prost(uint64, tag = "4")]
    event_sequence: u64,
    #[prost(bytes = "bytes", tag = "5")]
    event_type: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    endpoint_id: Bytes,
    #[prost(uint32, tag = "7")]
    generation: u32,
    #[prost(fixed64, tag = "8")]
    accepted_at_ns: u64,
}

/// Reads a fact if it is of an attempt that was accepted, or of what came of one. None if it is
/// another one, or if anything is wrong with it.
fn record(fact: &Bytes, names: &mut Names, before: Option<&Record>) -> Option<Record> {
    let wire = BriefFact::decode(fact.clone()).ok()?;
    let made = match wire.body? {
        BriefBody::AttemptMade(made) => made,
        BriefBody::AttemptConcluded(how) => {
            return decode::attempt_concluded(how, wire.recorded_at_ns, before).ok();
        }
        BriefBody::ShardClaimed(_)
        | BriefBody::DeliveryDeferred(_)
        | BriefBody::DeliveryParked(_)
        | BriefBody::DeliveryConcluded(_)
        | BriefBody::RetryScheduled(_)
        | BriefBody::EventRouted(_)
        | BriefBody::ShardReleased(_) => return None,
    };
    Some(Record {
        recorded_at: Timestamp::from_nanos(wire.recorded_at_ns),
        trace: parse::trace(text(wire.traceparent)?, text(wire.tracestate)?),
        fact: Fact::AttemptMade(Box::new(attempt(made, names)?)),
    })
}

fn attempt(wire: BriefAttempt, names: &mut Names) -> Option<AttemptMade> {
    let BriefOutcome::Accepted(accepted) = wire.outcome? else { return None };
    let status = parse::small(accepted.status, "Accepted.status").ok()?;
    Some(AttemptMade {
        delivery: delivery(&wire.delivery?, names)?,
        attempt: parse::ordinal(wire.attempt, "AttemptMade.attempt").ok()?,
        started_at: Timestamp::from_nanos(wire.started_at_ns),
        duration: Duration::from_nanos(wire.duration_ns),
        timing: decode::timing(wire.connect_ns, wire.first_byte_ns),
        outcome: Outcome::Accepted { status },
        detail: text(wire.detail)?,
        config_revision: wire.config_revision,
        url: Arc::default(),
        signature: String::new(),
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_at: parse::time(wire.retry_at_ns),
        batch: in_batch(wire.batch).ok()?,
        trace_sampled: wire.trace_sampled,
    })
}

fn delivery(wire: &BriefDelivery, names: &mut Names) -> Option<DeliveryRef> {
    let (tenant, event_type) = (str::from_utf8(&wire.tenant), str::from_utf8(&wire.event_type));
    Some(DeliveryRef {
        id: parse::id(&wire.delivery_id, "delivery_id", DeliveryId::from_bytes).ok()?,
        tenant: names.tenant(tenant.ok()?, "tenant").ok()?,
        event: parse::id(&wire.event_id, "event_id", EventId::from_bytes).ok()?,
        event_sequence: wire.event_sequence,
        event_type: names.event_type(event_type.ok()?, "event_type").ok()?,
        endpoint: parse::id(&wire.endpoint_id, "endpoint_id", EndpointId::from_bytes).ok()?,
        generation: wire.generation,
        accepted_at: Timestamp::from_nanos(wire.accepted_at_ns),
    })
}

fn text(bytes: Bytes) -> Option<String> {
    if bytes.is_empty() { Some(String::new()) } else { String::from_utf8(bytes.into()).ok() }
}
