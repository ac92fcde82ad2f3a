//! `ConfigRecord`: what CONFIG holds.

mod endpoint;
mod packed;

use std::sync::Arc;

use bytes::Bytes;
use fanfare_domain::{
    ApiKey, Change, Entity, KeyId, Tenant, TenantId, Timestamp,
    config::{EventTypeEntry, ProfileSource, Validation},
    tenant::{Expunge, ExpungeStage, UnknownTypes},
};

use crate::{
    choice::Choice,
    encode::{self, Fields, Sink},
    error::DecodeError,
    parse,
    wire::{self, config_record},
};

pub use packed::PackedEndpoint;

/// Writes a change of configuration.
pub fn encode_change(change: &Change) -> Bytes {
    let bytes = change.to_bytes();
    encode::debug_assert_readable(|| decode_change(bytes.clone()));
    bytes
}

/// Reads a change of configuration.
///
/// An entity of a kind that this version does not know is an error for which
/// [`DecodeError::is_from_newer_version`] holds.
pub fn decode_change(bytes: Bytes) -> Result<Change, DecodeError> {
    use config_record::Entity as Kind;

    let wire: wire::ConfigRecord = parse::message(bytes, "ConfigRecord")?;
    let entity = match wire.entity {
        Some(Kind::Tenant(wire)) => Entity::Tenant(Arc::new(tenant(wire)?)),
        Some(Kind::Endpoint(wire)) => Entity::Endpoint(Arc::new(endpoint::decode(wire)?)),
        Some(Kind::EventType(wire)) => Entity::EventType(Arc::new(event_type(wire)?)),
        Some(Kind::Profile(wire)) => {
            let wire::Profile { name, toml } = wire;
            Entity::Profile(Arc::new(ProfileSource { name, toml }))
        }
        Some(Kind::ApiKey(wire)) => Entity::ApiKey(Arc::new(api_key(wire)?)),
        None => return Err(DecodeError::UnknownBody { field: "ConfigRecord.entity".into() }),
    };
    Ok(Change {
        entity,
        deleted: wire.deleted,
        actor: wire.actor,
        reason: wire.reason,
        trace: parse::trace(wire.traceparent, wire.tracestate),
    })
}

fn tenant(wire: wire::Tenant) -> Result<Tenant, DecodeError> {
    Ok(Tenant {
        id: parse::tenant(&wire.tenant, "Tenant.tenant")?,
        name: wire.name,
        profile: wire.profile,
        created_at: Timestamp::from_nanos(wire.created_at_ns),
        rate_limit: wire.rate_limit.map(endpoint::rate_limit).transpose()?,
        unknown_types: Choice::from_wire_or_default(wire.unknown_types, "Tenant.unknown_types")?,
        plan: Some(wire.plan).filter(|plan| !plan.is_empty()),
        endpoints_max: wire
            .endpoints_max
            .map(|count| parse::positive(count, "Tenant.endpoints_max"))
            .transpose()?,
        expunge: wire.expunge.map(expunge),
    })
}

fn expunge(wire: wire::Expunge) -> Expunge {
    let stage = match (parse::time(wire.finished_at_ns), wire.earlier) {
        (None, _) => ExpungeStage::Running,
        (Some(at), false) => ExpungeStage::Finished(at),
        (Some(at), true) => ExpungeStage::Earlier(at),
    };
    Expunge {
        stage,
        through: wire.through,
        begun_at: Timestamp::from_nanos(wire.begun_at_ns),
        removed: wire.removed.into_iter().map(|it| (it.kind, it.count)).collect(),
    }
}

fn event_type(wire: wire::EventType) -> Result<EventTypeEntry, DecodeError> {
    let tenant = Some(&wire.tenant).filter(|text| !text.is_empty());
    let tenant = tenant.map(|text| parse::tenant(text, "EventType.tenant"));
    Ok(EventTypeEntry {
        tenant: tenant.transpose()?,
        event_type: parse::event_type(&wire.event_type, "EventType.event_type")?,
        description: wire.description,
        schema: wire.schema,
        example: wire.example,
        validation: Choice::from_wire_or_default(wire.validation, "EventType.validation")?,
    })
}

fn api_key(wire: wire::ApiKey) -> Result<ApiKey, DecodeError> {
    let tenant = wire.tenant.map(|text| parse::tenant(&text, "ApiKey.tenant"));
    Ok(ApiKey {
        id: parse::id(&wire.key_id, "ApiKey.key_id", KeyId::from_bytes)?,
        name: wire.name,
        tenant: tenant.transpose()?,
        role: Choice::from_wire(wire.role, "ApiKey.role")?,
        sha256: parse::fixed(&wire.sha256, "ApiKey.sha256")?,
        created_at: Timestamp::from_nanos(wire.created_at_ns),
        expires_at: parse::time(wire.expires_at_ns),
        reveals_secrets: wire.reveals_secrets,
        rate_limit: wire.rate_limit.map(endpoint::rate_limit).transpose()?,
    })
}

impl Fields for Change {
    fn write(&self, out: &mut impl Sink) {
        let Self { entity, deleted, actor, reason, trace } = self;
        out.uint(1, u64::from(*deleted));
        out.text(2, actor);
        out.text(3, reason);
        out.trace(4, trace);
        match entity {
            Entity::Tenant(tenant) => out.message(10, tenant.as_ref()),
            Entity::Endpoint(endpoint) => out.message(11, endpoint.as_ref()),
            Entity::EventType(entry) => out.message(12, entry.as_ref()),
            Entity::Profile(profile) => out.message(13, profile.as_ref()),
            Entity::ApiKey(key) => out.message(14, key.as_ref()),
        }
    }
}

impl Fields for Tenant {
    fn write(&self, out: &mut impl Sink) {
        let Self { id, name, profile, created_at, rate_limit, unknown_types, .. } = self;
        let Self { plan, endpoints_max, expunge, .. } = self;
        out.text(1, id.as_str());
        out.text(2, name);
        out.text(3, profile);
        out.time(4, *created_at);
        if let Some(rate_limit) = rate_limit {
            out.message(5, rate_limit);
        }
        match unknown_types {
            UnknownTypes::Allowed => {}
            UnknownTypes::Refused => out.uint(6, unknown_types.to_wire()),
        }
        out.text(7, plan.as_deref().unwrap_or_default());
        if let Some(count) = endpoints_max {
            out.uint(8, u64::from(count.get()));
        }
        if let Some(expunge) = expunge {
            out.message(20, expunge);
        }
    }
}

impl Fields for Expunge {
    fn write(&self, out: &mut impl Sink) {
        let Self { stage, through, begun_at, removed } = self;
        let (finished_at, is_earlier) = match stage {
            ExpungeStage::Running => (None, false),
            ExpungeStage::Finished(at) => (Some(*at), false),
            ExpungeStage::Earlier(at) => (Some(*at), true),
        };
        out.uint(1, *through);
        out.time(2, *begun_at);
        out.some_time(3, finished_at);
        out.uint(4, u64::from(is_earlier));
        for (kind, count) in removed {
            out.message(5, &Removed { kind, count: *count });
        }
    }
}

/// How many things of a kind were removed.
struct Removed<'a> {
    kind: &'a str,
    count: u64,
}

impl Fields for Removed<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.text(1, self.kind);
        out.uint(2, self.count);
    }
}

impl Fields for EventTypeEntry {
    fn write(&self, out: &mut impl Sink) {
        let Self { tenant, event_type, description, schema, example, validation } = self;
        out.text(1, tenant.as_ref().map_or("", TenantId::as_str));
        out.text(2, event_type.as_str());
        out.text(3, description);
        out.text(4, schema);
        out.text(5, example);
        match validation {
            Validation::Off => {}
            Validation::Report | Validation::Enforce => out.uint(6, validation.to_wire()),
        }
    }
}

impl Fields for ProfileSource {
    fn write(&self, out: &mut impl Sink) {
        let Self { name, toml } = self;
        out.text(1, name);
        out.text(2, toml);
    }
}

impl Fields for ApiKey {
    fn write(&self, out: &mut impl Sink) {
        let Self { id, name, tenant, role, sha256, created_at, expires_at, .. } = self;
        out.bytes(1, id.as_bytes());
        out.text(2, name);
        out.some_text(3, tenant.as_ref().map(TenantId::as_str));
        out.uint(4, role.to_wire());
        out.bytes(5, sha256);
        out.time(6, *created_at);
        out.some_time(7, *expires_at);
        out.uint(8, u64::from(self.reveals_secrets));
        if let Some(rate_limit) = &self.rate_limit {
            out.message(9, rate_limit);
        }
    }
}
