//! Reading facts, with every invariant of theirs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    BreakerMemory, DeliveryId, EndpointId, EventId, Fact, Fault, Outcome, Record, Timestamp,
    WindowMemory,
    fact::{
        AttemptMade, DeliveryConcluded, DeliveryDeferred, DeliveryParked, EventRouted, InFlight,
        LimitState, RetryScheduled, ShardClaimed, ShardReleased, Timing,
    },
};

use crate::{
    choice::Choice,
    error::DecodeError,
    parse,
    task::{Names, delivery, in_batch},
    wire::{self, attempt_made, fact::Body},
};

/// Reads a batch of facts, in their order. What an answer's head and body held are slices of the
/// input.
///
/// One unreadable fact makes the batch unreadable, and the error says which: facts of a batch
/// belong together, and a fold must not go on past one that it does not know. For a fact that a
/// newer version wrote, [`DecodeError::is_from_newer_version`] holds.
pub fn decode_journal(bytes: Bytes) -> Result<Vec<Record>, DecodeError> {
    let wire: wire::JournalRecord = parse::message(bytes, "JournalRecord")?;
    if wire.facts.is_empty() {
        return Err(DecodeError::Missing { field: "JournalRecord.facts".into() });
    }
    let (mut names, mut records) = (Names::default(), Vec::with_capacity(wire.facts.len()));
    for (index, fact) in wire.facts.into_iter().enumerate() {
        let read = record(fact, &mut names, records.last());
        records.push(read.map_err(|error| error.in_fact(index))?);
    }
    Ok(records)
}

/// Reads a fact, which may stand behind another one.
pub(super) fn record(
    wire: wire::Fact,
    names: &mut Names,
    before: Option<&Record>,
) -> Result<Record, DecodeError> {
    let fact = match wire.body {
        Some(Body::ShardClaimed(wire)) => Fact::ShardClaimed(shard_claimed(wire)?),
        Some(Body::AttemptMade(wire)) => Fact::AttemptMade(Box::new(attempt_made(wire, names)?)),
        Some(Body::DeliveryDeferred(wire)) => {
            Fact::DeliveryDeferred(delivery_deferred(wire, names)?)
        }
        Some(Body::DeliveryParked(wire)) => Fact::DeliveryParked(delivery_parked(wire, names)?),
        Some(Body::DeliveryConcluded(wire)) => {
            Fact::DeliveryConcluded(delivery_concluded(wire, names)?)
        }
        Some(Body::RetryScheduled(wire)) => Fact::RetryScheduled(retry_scheduled(wire, names)?),
        Some(Body::EventRouted(wire)) => Fact::EventRouted(event_routed(&wire, names)?),
        Some(Body::ShardReleased(wire)) => Fact::ShardReleased(Box::new(shard_released(&wire)?)),
        Some(Body::AttemptConcluded(how)) => {
            return attempt_concluded(how, wire.recorded_at_ns, before);
        }
        None => return Err(DecodeError::UnknownBody { field: "Fact.body".into() }),
    };
    Ok(Record {
        recorded_at: Timestamp::from_nanos(wire.recorded_at_ns),
        trace: parse::trace(wire.traceparent, wire.tracestate),
        fact,
    })
}

fn shard_claimed(wire: wire::ShardClaimed) -> Result<ShardClaimed, DecodeError> {
    Ok(ShardClaimed {
        shard: parse::shard(wire.shard, "ShardClaimed.shard")?,
        epoch: wire.epoch,
        owner: wire.owner,
    })
}

fn shard_released(wire: &wire::ShardReleased) -> Result<ShardReleased, DecodeError> {
    if wire.part >= wire.parts {
        return Err(parse::out_of_range(wire.part, "ShardReleased.part"));
    }
    Ok(ShardReleased {
        shard: parse::shard(wire.shard, "ShardReleased.shard")?,
        epoch: wire.epoch,
        limits_since: Timestamp::from_nanos(wire.limits_since_ns),
        in_flight: wire.in_flight.iter().map(in_flight).collect::<Result<_, _>>()?,
        limits: wire.limits.iter().map(limit_state).collect::<Result<_, _>>()?,
        part: wire.part,
        parts: wire.parts,
    })
}

fn in_flight(wire: &wire::InFlight) -> Result<InFlight, DecodeError> {
    Ok(InFlight {
        delivery: parse::id(&wire.delivery_id, "InFlight.delivery_id", DeliveryId::from_bytes)?,
        attempt: parse::ordinal(wire.attempt, "InFlight.attempt")?,
        endpoint: parse::id(&wire.endpoint_id, "InFlight.endpoint_id", EndpointId::from_bytes)?,
        ends_by: Timestamp::from_nanos(wire.ends_by_ns),
        request: match &*wire.request {
            [] => parse::id(&wire.delivery_id, "InFlight.delivery_id", DeliveryId::from_bytes)?,
            request => parse::id(request, "InFlight.request", DeliveryId::from_bytes)?,
        },
    })
}

fn limit_state(wire: &wire::LimitState) -> Result<LimitState, DecodeError> {
    Ok(LimitState {
        endpoint: parse::id(&wire.endpoint_id, "LimitState.endpoint_id", EndpointId::from_bytes)?,
        gate: Timestamp::from_nanos(wire.gate_ns),
        plan: Timestamp::from_nanos(wire.plan_ns),
        quiet_until: parse::time(wire.quiet_until_ns),
        breaker: wire.breaker.as_ref().map(breaker).transpose()?,
        window: wire.window.as_ref().map(window),
    })
}

fn breaker(wire: &wire::BreakerMemory) -> Result<BreakerMemory, DecodeError> {
    Ok(BreakerMemory {
        state: Choice::from_wire(wire.phase, "BreakerMemory.phase")?,
        since: Timestamp::from_nanos(wire.since_ns),
        run: wire.run,
        wait: Duration::from_nanos(wire.wait_ns),
        probe_at: Timestamp::from_nanos(wire.probe_at_ns),
    })
}

fn window(wire: &wire::WindowMemory) -> WindowMemory {
    let stepped_at = Timestamp::from_nanos(wire.stepped_at_ns);
    WindowMemory { size: wire.size, slow_start: wire.slow_start, stepped_at }
}

fn attempt_made(wire: wire::AttemptMade, names: &mut Names) -> Result<AttemptMade, DecodeError> {
    let headers = wire.response_headers.into_iter();
    Ok(AttemptMade {
        delivery: delivery(wire.delivery, names, "AttemptMade.delivery")?,
        attempt: parse::ordinal(wire.attempt, "AttemptMade.attempt")?,
        started_at: Timestamp::from_nanos(wire.started_at_ns),
        duration: Duration::from_nanos(wire.duration_ns),
        timing: timing(wire.connect_ns, wire.first_byte_ns),
        outcome: outcome(wire.outcome)?,
        detail: wire.detail,
        config_revision: wire.config_revision,
        url: Arc::from(wire.url),
        signature: wire.signature,
        response_headers: headers.map(|header| (header.name, header.value)).collect(),
        response_body: wire.response_body,
        response_truncated: wire.response_truncated,
        retry_at: parse::time(wire.retry_at_ns),
        batch: in_batch(wire.batch)?,
        trace_sampled: wire.trace_sampled,
    })
}

pub(super) fn timing(connect_ns: u64, first_byte_ns: u64) -> Timing {
    let after = |nanos| (nanos > 0).then(|| Duration::from_nanos(nanos));
    Timing { connect: after(connect_ns), first_byte: after(first_byte_ns) }
}

fn outcome(wire: Option<attempt_made::Outcome>) -> Result<Outcome, DecodeError> {
    match wire {
        Some(attempt_made::Outcome::Accepted(wire)) => {
            Ok(Outcome::Accepted { status: parse::small(wire.status, "Accepted.status")? })
        }
        Some(attempt_made::Outcome::Refused(wire)) => Ok(Outcome::Refused {
            status: parse::small(wire.status, "Refused.status")?,
            retry_after: parse::time(wire.retry_after_ns),
        }),
        Some(attempt_made::Outcome::Fault(number)) => {
            Fault::from_wire(number, "AttemptMade.fault").map(Outcome::Failed)
        }
        None => Err(DecodeError::UnknownBody { field: "AttemptMade.outcome".into() }),
    }
}

fn delivery_deferred(
    wire: wire::DeliveryDeferred,
    names: &mut Names,
) -> Result<DeliveryDeferred, DecodeError> {
    Ok(DeliveryDeferred {
        delivery: delivery(wire.delivery, names, "DeliveryDeferred.delivery")?,
        attempt: parse::ordinal(wire.attempt, "DeliveryDeferred.attempt")?,
        until: Timestamp::from_nanos(wire.until_ns),
        reason: Choice::from_wire(wire.reason, "DeliveryDeferred.reason")?,
        batch: in_batch(wire.batch)?,
    })
}

fn delivery_parked(
    wire: wire::DeliveryParked,
    names: &mut Names,
) -> Result<DeliveryParked, DecodeError> {
    Ok(DeliveryParked {
        delivery: delivery(wire.delivery, names, "DeliveryParked.delivery")?,
        attempt: parse::ordinal(wire.attempt, "DeliveryParked.attempt")?,
    })
}

fn delivery_concluded(
    wire: wire::DeliveryConcluded,
    names: &mut Names,
) -> Result<DeliveryConcluded, DecodeError> {
    Ok(DeliveryConcluded {
        delivery: delivery(wire.delivery, names, "DeliveryConcluded.delivery")?,
        conclusion: Choice::from_wire(wire.conclusion, "DeliveryConcluded.conclusion")?,
        attempts: wire.attempts,
        reason: Choice::from_wire(wire.reason, "DeliveryConcluded.reason")?,
    })
}

pub(super) fn attempt_concluded(
    wire: wire::AttemptConcluded,
    recorded_at_ns: u64,
    before: Option<&Record>,
) -> Result<Record, DecodeError> {
    let attempt = before.and_then(|before| Some((before.fact.attempt_made()?, &before.trace)));
    let (made, trace) = parse::required(attempt, "AttemptConcluded.attempt")?;
    let fact = Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: made.delivery.clone(),
        conclusion: Choice::from_wire(wire.conclusion, "AttemptConcluded.conclusion")?,
        attempts: made.attempt,
        reason: Choice::from_wire(wire.reason, "AttemptConcluded.reason")?,
    });
    let recorded_at = Timestamp::from_nanos(recorded_at_ns);
    Ok(Record { recorded_at, trace: trace.clone(), fact })
}

fn retry_scheduled(
    wire: wire::RetryScheduled,
    names: &mut Names,
) -> Result<RetryScheduled, DecodeError> {
    Ok(RetryScheduled {
        delivery: delivery(wire.delivery, names, "RetryScheduled.delivery")?,
        attempt: parse::ordinal(wire.attempt, "RetryScheduled.attempt")?,
        due_at: Timestamp::from_nanos(wire.due_at_ns),
        cause_sequence: wire.cause_sequence,
        batch: in_batch(wire.batch)?,
    })
}

fn event_routed(wire: &wire::EventRouted, names: &mut Names) -> Result<EventRouted, DecodeError> {
    if wire.part >= wire.parts {
        return Err(parse::out_of_range(wire.part, "EventRouted.part"));
    }
    Ok(EventRouted {
        event: parse::id(&wire.event_id, "EventRouted.event_id", EventId::from_bytes)?,
        tenant: names.tenant(&wire.tenant, "EventRouted.tenant")?,
        event_sequence: wire.event_sequence,
        config_revision: wire.config_revision,
        generation: wire.generation,
        targets: endpoints(&wire.target_ids, "EventRouted.target_ids")?,
        skipped: endpoints(&wire.skipped_ids, "EventRouted.skipped_ids")?,
        held: endpoints(&wire.held_ids, "EventRouted.held_ids")?,
        fed: endpoints(&wire.fed_ids, "EventRouted.fed_ids")?,
        part: wire.part,
        parts: wire.parts,
    })
}

fn endpoints(ids: &[Bytes], field: &'static str) -> Result<Vec<EndpointId>, DecodeError> {
    ids.iter().map(|id| parse::id(id, field, EndpointId::from_bytes)).collect()
}
