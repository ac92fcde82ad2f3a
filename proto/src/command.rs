//! `Command`: what COMMANDS holds.

use bytes::Bytes;
use fanfare_domain::{
    Command, CommandId, EndpointId, TenantId, Timestamp,
    command::{Aim, Order},
};

use crate::{
    encode::{self, Fields, Sink},
    error::DecodeError,
    parse,
    task::{Names, delivery},
    wire,
};

/// Writes a command.
pub fn encode_command(command: &Command) -> Bytes {
    let bytes = command.to_bytes();
    encode::debug_assert_readable(|| decode_command(bytes.clone()));
    bytes
}

/// Reads a command.
pub fn decode_command(bytes: Bytes) -> Result<Command, DecodeError> {
    let wire: wire::Command = parse::message(bytes, "Command")?;
    Ok(Command {
        id: parse::id(&wire.command_id, "Command.command_id", CommandId::from_bytes)?,
        asked_at: Timestamp::from_nanos(wire.asked_at_ns),
        actor: wire.actor,
        order: order(wire.order)?,
    })
}

fn order(wire: Option<wire::command::Order>) -> Result<Order, DecodeError> {
    let Some(wire) = wire else {
        return Err(DecodeError::UnknownBody { field: "Command.order".into() });
    };
    Ok(match wire {
        wire::command::Order::Cancel(wire) => Order::Cancel(Box::new(aim(wire)?)),
        wire::command::Order::RetryNow(wire) => Order::RetryNow(Box::new(aim(wire)?)),
        wire::command::Order::CancelAll(wire) => Order::CancelAll {
            tenant: parse::tenant(&wire.tenant, "EndpointAim.tenant")?,
            endpoint: parse::id(
                &wire.endpoint_id,
                "EndpointAim.endpoint_id",
                EndpointId::from_bytes,
            )?,
        },
    })
}

fn aim(wire: wire::Aim) -> Result<Aim, DecodeError> {
    Ok(Aim {
        delivery: delivery(wire.delivery, &mut Names::default(), "Aim.delivery")?,
        attempt: parse::ordinal(wire.attempt, "Aim.attempt")?,
        untouched: wire.untouched,
        journal_sequence: wire.journal_sequence,
        trace: parse::trace(wire.traceparent, wire.tracestate),
    })
}

impl Fields for Command {
    fn write(&self, out: &mut impl Sink) {
        let Self { id, asked_at, actor, order } = self;
        out.bytes(1, id.as_bytes());
        out.time(2, *asked_at);
        out.text(3, actor);
        match order {
            Order::Cancel(aim) => out.message(4, &**aim),
            Order::RetryNow(aim) => out.message(5, &**aim),
            Order::CancelAll { tenant, endpoint } => {
                out.message(6, &EndpointAim { tenant, endpoint: *endpoint });
            }
        }
    }
}

impl Fields for Aim {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, attempt, untouched, journal_sequence, trace } = self;
        out.message(1, delivery);
        out.uint(2, u64::from(*attempt));
        out.uint(3, *journal_sequence);
        out.trace(4, trace);
        out.uint(6, u64::from(*untouched));
    }
}

struct EndpointAim<'a> {
    tenant: &'a TenantId,
    endpoint: EndpointId,
}

impl Fields for EndpointAim<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.text(1, self.tenant.as_str());
        out.bytes(2, self.endpoint.as_bytes());
    }
}
