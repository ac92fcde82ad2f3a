//! `Snapshot`: what a retry-scheduler knows of a shard at some point of the journal.

use bytes::Bytes;
use fanfare_domain::{DeliveryId, EndpointId, Shard, TenantId, Timestamp};

use crate::{
    encode::{self, Fields, Sink},
    error::DecodeError,
    parse, wire,
};

/// The fold of a shard's journal up to a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The shard.
    pub shard: Shard,
    /// The last sequence in JOURNAL that is folded in.
    pub journal_sequence: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Deliveries that wait for their time.
    pub agenda: Vec<AgendaEntry>,
    /// Endpoints whose last attempt failed.
    pub health: Vec<EndpointHealth>,
}

/// A delivery that waits for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgendaEntry {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The number of the attempt that waits, from 1.
    pub attempt: u32,
    /// When it is due.
    pub due_at: Timestamp,
    /// The sequence in JOURNAL of the fact that gave it its time.
    pub journal_sequence: u64,
}

/// Failures of an endpoint without a success since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Whose it is.
    pub tenant: TenantId,
    /// How many attempts in a row failed, from 1.
    pub consecutive_failures: u32,
    /// When the first of them was made.
    pub first_failure_at: Timestamp,
    /// When the last of them was made.
    pub last_failure_at: Timestamp,
}

/// Writes a snapshot: some 40 bytes for each entry of the agenda.
pub fn encode_snapshot(snapshot: &Snapshot) -> Bytes {
    let bytes = snapshot.to_bytes();
    encode::debug_assert_readable(|| decode_snapshot(bytes.clone()));
    bytes
}

/// Reads a snapshot.
pub fn decode_snapshot(bytes: Bytes) -> Result<Snapshot, DecodeError> {
    let wire: wire::Snapshot = parse::message(bytes, "Snapshot")?;
    Ok(Snapshot {
        shard: parse::shard(wire.shard, "Snapshot.shard")?,
        journal_sequence: wire.journal_sequence,
        taken_at: Timestamp::from_nanos(wire.taken_at_ns),
        agenda: wire.agenda.iter().map(agenda_entry).collect::<Result<_, _>>()?,
        health: wire.health.iter().map(endpoint_health).collect::<Result<_, _>>()?,
    })
}

fn agenda_entry(wire: &wire::AgendaEntry) -> Result<AgendaEntry, DecodeError> {
    Ok(AgendaEntry {
        delivery: parse::id(&wire.delivery_id, "AgendaEntry.delivery_id", DeliveryId::from_bytes)?,
        attempt: parse::ordinal(wire.attempt, "AgendaEntry.attempt")?,
        due_at: Timestamp::from_nanos(wire.due_at_ns),
        journal_sequence: wire.journal_sequence,
    })
}

fn endpoint_health(wire: &wire::EndpointHealth) -> Result<EndpointHealth, DecodeError> {
    Ok(EndpointHealth {
        endpoint: parse::id(
            &wire.endpoint_id,
            "EndpointHealth.endpoint_id",
            EndpointId::from_bytes,
        )?,
        tenant: parse::tenant(&wire.tenant, "EndpointHealth.tenant")?,
        consecutive_failures: parse::ordinal(
            wire.consecutive_failures,
            "EndpointHealth.consecutive_failures",
        )?,
        first_failure_at: Timestamp::from_nanos(wire.first_failure_at_ns),
        last_failure_at: Timestamp::from_nanos(wire.last_failure_at_ns),
    })
}

impl Fields for Snapshot {
    fn write(&self, out: &mut impl Sink) {
        let Self { shard, journal_sequence, taken_at, agenda, health } = self;
        out.uint(1, u64::from(shard.index()));
        out.uint(2, *journal_sequence);
        out.time(3, *taken_at);
        for entry in agenda {
            out.message(4, entry);
        }
        for endpoint in health {
            out.message(5, endpoint);
        }
    }
}

impl Fields for AgendaEntry {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, attempt, due_at, journal_sequence } = self;
        out.bytes(1, delivery.as_bytes());
        out.uint(2, u64::from(*attempt));
        out.time(3, *due_at);
        out.uint(4, *journal_sequence);
    }
}

impl Fields for EndpointHealth {
    fn write(&self, out: &mut impl Sink) {
        let Self { endpoint, tenant, consecutive_failures, first_failure_at, last_failure_at } =
            self;
        out.bytes(1, endpoint.as_bytes());
        out.text(2, tenant.as_str());
        out.uint(3, u64::from(*consecutive_failures));
        out.time(4, *first_failure_at);
        out.time(5, *last_failure_at);
    }
}
