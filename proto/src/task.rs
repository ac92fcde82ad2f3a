//! `DeliveryTasks` and `RetryDue`: what the dispatcher's queues hold; and `DeliveryRef`, which the
//! journal holds too.

use bytes::Bytes;
use fanfare_domain::{
    BatchId, DeliveryId, DeliveryRef, EndpointId, EventId, EventType, RetryDue, StoredEvent,
    Target, Task, TenantId, Timestamp, fact::InBatch,
};

use crate::{
    encode::{self, Fields, Sink},
    error::DecodeError,
    event::decode_event,
    parse, wire,
};

/// The tasks of one message.
struct Tasks<'a>(&'a [Task]);

/// Writes tasks, at least one. The envelopes are copied once, as they are; a task's trace is its
/// event's.
pub fn encode_tasks(tasks: &[Task]) -> Bytes {
    let bytes = Tasks(tasks).to_bytes();
    encode::debug_assert_readable(|| decode_tasks(bytes.clone()));
    bytes
}

/// Returns how many bytes a task takes in a message of tasks.
pub fn task_length(task: &Task) -> usize {
    Tasks(std::slice::from_ref(task)).length()
}

/// Reads tasks, also one that an earlier version wrote by itself. Envelopes and data are slices of
/// the input.
pub fn decode_tasks(bytes: Bytes) -> Result<Vec<Task>, DecodeError> {
    let wire: wire::DeliveryTasks = parse::message(bytes.clone(), "DeliveryTasks")?;
    if wire.tasks.is_empty() {
        let alone: wire::DeliveryTask = parse::message(bytes, "DeliveryTask")?;
        return Ok(vec![task(alone)?]);
    }
    wire.tasks.into_iter().map(task).collect()
}

fn task(wire: wire::DeliveryTask) -> Result<Task, DecodeError> {
    if wire.targets.is_empty() || wire.targets.len() > Task::TARGETS_MAX {
        return Err(parse::out_of_range(wire.targets.len(), "DeliveryTask.targets"));
    }
    let accepted_at = Timestamp::from_nanos(wire.accepted_at_ns);
    let mut event = decode_event(wire.envelope, wire.event_sequence, accepted_at)?;
    if wire.generation > 0 {
        // What a replay made counts from then, whatever the envelope says.
        event.accepted_at = accepted_at;
    }
    Ok(Task {
        event,
        targets: wire.targets.iter().map(target).collect::<Result<_, _>>()?,
        generation: wire.generation,
        journal_sequence: wire.journal_sequence,
    })
}

/// Writes a later attempt of a delivery.
pub fn encode_retry_due(retry: &RetryDue) -> Bytes {
    let bytes = retry.to_bytes();
    encode::debug_assert_readable(|| decode_retry_due(bytes.clone()));
    bytes
}

/// Reads a later attempt of a delivery.
pub fn decode_retry_due(bytes: Bytes) -> Result<RetryDue, DecodeError> {
    let wire: wire::RetryDue = parse::message(bytes, "RetryDue")?;
    Ok(RetryDue {
        delivery: delivery(wire.delivery, &mut Names::default(), "RetryDue.delivery")?,
        attempt: parse::ordinal(wire.attempt, "RetryDue.attempt")?,
        due_at: Timestamp::from_nanos(wire.due_at_ns),
        journal_sequence: wire.journal_sequence,
        trace: parse::trace(wire.traceparent, wire.tracestate),
        batch: in_batch(wire.batch)?,
    })
}

/// Reads the batch that a delivery was part of, if it was.
pub(crate) fn in_batch(wire: Option<wire::InBatch>) -> Result<Option<InBatch>, DecodeError> {
    let Some(wire) = wire else { return Ok(None) };
    Ok(Some(InBatch {
        id: parse::id(&wire.batch_id, "InBatch.batch_id", BatchId::from_bytes)?,
        size: parse::ordinal(wire.size, "InBatch.size")?,
    }))
}

/// The names that were read last. Records that lie side by side are often about one tenant and one
/// type of event, and then each name is checked and kept once.
#[derive(Default)]
pub(crate) struct Names {
    tenant: Option<TenantId>,
    event_type: Option<EventType>,
}

impl Names {
    /// Reads a tenant's id.
    pub(crate) fn tenant(
        &mut self,
        text: &str,
        field: &'static str,
    ) -> Result<TenantId, DecodeError> {
        if let Some(known) = self.tenant.as_ref().filter(|known| known.as_str() == text) {
            return Ok(known.clone());
        }
        Ok(self.tenant.insert(parse::tenant(text, field)?).clone())
    }

    /// Reads an event's type.
    pub(crate) fn event_type(
        &mut self,
        text: &str,
        field: &'static str,
    ) -> Result<EventType, DecodeError> {
        if let Some(known) = self.event_type.as_ref().filter(|known| known.as_str() == text) {
            return Ok(known.clone());
        }
        Ok(self.event_type.insert(parse::event_type(text, field)?).clone())
    }
}

/// Reads what a delivery is of. `field` is where it stands.
pub(crate) fn delivery(
    wire: Option<wire::DeliveryRef>,
    names: &mut Names,
    field: &'static str,
) -> Result<DeliveryRef, DecodeError> {
    let wire = parse::required(wire, field)?;
    Ok(DeliveryRef {
        id: parse::id(&wire.delivery_id, "DeliveryRef.delivery_id", DeliveryId::from_bytes)?,
        tenant: names.tenant(&wire.tenant, "DeliveryRef.tenant")?,
        event: parse::id(&wire.event_id, "DeliveryRef.event_id", EventId::from_bytes)?,
        event_sequence: wire.event_sequence,
        event_type: names.event_type(&wire.event_type, "DeliveryRef.event_type")?,
        endpoint: parse::id(&wire.endpoint_id, "DeliveryRef.endpoint_id", EndpointId::from_bytes)?,
        generation: wire.generation,
        accepted_at: Timestamp::from_nanos(wire.accepted_at_ns),
    })
}

fn target(wire: &wire::Target) -> Result<Target, DecodeError> {
    Ok(Target {
        delivery: parse::id(&wire.delivery_id, "Target.delivery_id", DeliveryId::from_bytes)?,
        endpoint: parse::id(&wire.endpoint_id, "Target.endpoint_id", EndpointId::from_bytes)?,
        not_before: parse::time(wire.not_before_ns),
    })
}

impl Fields for Tasks<'_> {
    fn write(&self, out: &mut impl Sink) {
        for task in self.0 {
            out.message_with_payload(9, task);
        }
    }
}

impl Fields for Task {
    fn write(&self, out: &mut impl Sink) {
        let Self { event, targets, generation, journal_sequence } = self;
        let StoredEvent { event, sequence, accepted_at, envelope } = event;
        out.bytes(1, envelope);
        out.uint(2, *sequence);
        out.time(3, *accepted_at);
        out.uint(4, u64::from(*generation));
        out.uint(5, *journal_sequence);
        for target in targets {
            out.message(6, target);
        }
        out.trace(7, &event.trace);
    }
}

impl Fields for Target {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, endpoint, not_before } = self;
        out.bytes(1, delivery.as_bytes());
        out.bytes(2, endpoint.as_bytes());
        out.some_time(3, *not_before);
    }
}

impl Fields for RetryDue {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, attempt, due_at, journal_sequence, trace, batch } = self;
        out.message(1, delivery);
        out.uint(2, u64::from(*attempt));
        out.time(3, *due_at);
        out.uint(4, *journal_sequence);
        out.trace(5, trace);
        out.in_batch(7, *batch);
    }
}

impl Fields for InBatch {
    fn write(&self, out: &mut impl Sink) {
        let Self { id, size } = self;
        out.bytes(1, id.as_bytes());
        out.uint(2, u64::from(*size));
    }
}

impl Fields for DeliveryRef {
    fn write(&self, out: &mut impl Sink) {
        let Self {
            id,
            tenant,
            event,
            event_sequence,
            event_type,
            endpoint,
            generation,
            accepted_at,
        } = self;
        out.bytes(1, id.as_bytes());
        out.text(2, tenant.as_str());
        out.bytes(3, event.as_bytes());
        out.uint(4, *event_sequence);
        out.text(5, event_type.as_str());
        out.bytes(6, endpoint.as_bytes());
        out.uint(7, u64::from(*generation));
        out.time(8, *accepted_at);
    }
}
