//! Endpoints, the largest entity.

mod security;

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    Endpoint, EndpointId, Timestamp,
    endpoint::{Batching, Ordering, RateLimit, Secret, Security},
    retry::Policy,
    seal::Sealed,
};

use crate::{
    choice::Choice,
    encode::{self, Fields, Sink, TextEntry},
    error::DecodeError,
    parse, wire,
};

/// Reads an endpoint.
pub(super) fn decode(wire: wire::Endpoint) -> Result<Endpoint, DecodeError> {
    let filters = wire.filters.iter().map(|text| parse::syntax(text, "Endpoint.filters"));
    let concurrency = wire.concurrency.map(|count| parse::small(count, "Endpoint.concurrency"));
    Ok(Endpoint {
        id: parse::id(&wire.endpoint_id, "Endpoint.endpoint_id", EndpointId::from_bytes)?,
        tenant: parse::tenant(&wire.tenant, "Endpoint.tenant")?,
        url: wire.url,
        name: wire.name,
        description: wire.description,
        filters: filters.collect::<Result<_, _>>()?,
        condition: wire.condition,
        secrets: wire.secrets.into_iter().map(secret).collect::<Result<_, _>>()?,
        headers: headers(wire.headers),
        state: Choice::from_wire(wire.state, "Endpoint.state")?,
        retry: read_policy(&wire.retry_policy)?,
        timeout: wire.timeout_ns.map(Duration::from_nanos),
        concurrency: concurrency.transpose()?,
        rate_limit: wire.rate_limit.map(rate_limit).transpose()?,
        ordering: Choice::from_wire_or_default(wire.ordering, "Endpoint.ordering")?,
        batch: wire.batch.map(batching).transpose()?,
        cancelled_before: parse::time(wire.cancelled_before_ns),
        trace_context: wire.trace_context,
        security: security::decode(wire.security.map(|boxed| *boxed))?,
        metadata: wire.metadata,
        created_at: Timestamp::from_nanos(wire.created_at_ns),
        updated_at: Timestamp::from_nanos(wire.updated_at_ns),
    })
}

pub(super) fn rate_limit(wire: wire::RateLimit) -> Result<RateLimit, DecodeError> {
    Ok(RateLimit {
        requests: parse::positive(wire.requests, "RateLimit.requests")?,
        per: Choice::from_wire(wire.per, "RateLimit.per")?,
        burst: parse::positive(wire.burst, "RateLimit.burst")?,
    })
}

fn batching(wire: wire::Batching) -> Result<Batching, DecodeError> {
    const FIELD: &str = "Batching.max_events";
    let max_events = NonZeroU16::new(parse::small(wire.max_events, FIELD)?);
    Ok(Batching {
        max_events: max_events.ok_or_else(|| parse::out_of_range(wire.max_events, FIELD))?,
        max_wait: Duration::from_nanos(wire.max_wait_ns),
    })
}

fn secret(wire: wire::Secret) -> Result<Secret, DecodeError> {
    Ok(Secret {
        sealed: sealed(parse::required(wire.sealed, "Secret.sealed")?),
        created_at: Timestamp::from_nanos(wire.created_at_ns),
        expires_at: parse::time(wire.expires_at_ns),
    })
}

fn headers(wire: BTreeMap<String, wire::Sealed>) -> BTreeMap<String, Sealed> {
    wire.into_iter().map(|(name, value)| (name, sealed(value))).collect()
}

fn sealed(wire: wire::Sealed) -> Sealed {
    // A slice would keep the whole message alive, and what arrived with it, for as long as anybody
    // keeps the secret.
    let bytes = Bytes::copy_from_slice(&wire.nonce_and_ciphertext);
    Sealed { key_id: wire.key_id, bytes }
}

/// Writes a policy as JSON, in its own form: only the domain knows what it is made of.
fn write_policy(policy: Option<&Policy>) -> String {
    policy.map_or_else(String::new, |policy| {
        serde_json::to_string(policy)
            .expect("a policy is made of what JSON has: numbers, text, lists and named fields")
    })
}

fn read_policy(text: &str) -> Result<Option<Policy>, DecodeError> {
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text).map(Some).map_err(|cause| {
        let field = "Endpoint.retry_policy".into();
        if cause.is_data() {
            DecodeError::UnknownPolicy { field, cause }
        } else {
            DecodeError::Syntax { field, cause: Box::new(cause) }
        }
    })
}

impl Fields for Endpoint {
    fn write(&self, out: &mut impl Sink) {
        let Self {
            id,
            tenant,
            url,
            name,
            description,
            filters,
            condition,
            secrets,
            headers,
            state,
            retry,
            timeout,
            concurrency,
            rate_limit,
            ordering,
            batch,
            cancelled_before,
            trace_context,
            security,
            metadata,
            created_at,
            updated_at,
        } = self;
        out.bytes(1, id.as_bytes());
        out.text(2, tenant.as_str());
        out.text(3, url);
        out.text(4, name);
        out.text(5, description);
        for pattern in filters {
            out.some_bytes(6, pattern.as_str().as_bytes());
        }
        for secret in secrets {
            out.message(7, secret);
        }
        for (name, value) in headers {
            out.message(8, &SealedEntry(name, value));
        }
        out.uint(9, state.to_wire());
        out.text(10, &write_policy(retry.as_ref()));
        if let Some(timeout) = timeout {
            out.some_uint(11, encode::nanos(*timeout));
        }
        if let Some(concurrency) = concurrency {
            out.some_uint(12, u64::from(*concurrency));
        }
        for (key, value) in metadata {
            out.message(13, &TextEntry(key, value));
        }
        out.time(14, *created_at);
        out.time(15, *updated_at);
        if let Some(rate_limit) = rate_limit {
            out.message(16, rate_limit);
        }
        if let Some(batch) = batch {
            out.message(17, batch);
        }
        match ordering {
            Ordering::None => {}
            Ordering::Key | Ordering::All => out.uint(18, ordering.to_wire()),
        }
        out.some_text(19, condition.as_deref());
        out.some_time(20, *cancelled_before);
        if let Some(trace_context) = trace_context {
            out.some_uint(21, u64::from(*trace_context));
        }
        if *security != Security::default() {
            out.message(22, security);
        }
    }
}

impl Fields for RateLimit {
    fn write(&self, out: &mut impl Sink) {
        let Self { requests, per, burst } = self;
        out.uint(1, u64::from(requests.get()));
        out.uint(2, per.to_wire());
        out.uint(3, u64::from(burst.get()));
    }
}

impl Fields for Batching {
    fn write(&self, out: &mut impl Sink) {
        let Self { max_events, max_wait } = self;
        out.uint(1, u64::from(max_events.get()));
        out.uint(2, encode::nanos(*max_wait));
    }
}

impl Fields for Secret {
    fn write(&self, out: &mut impl Sink) {
        let Self { sealed, created_at, expires_at } = self;
        out.message(1, sealed);
        out.time(2, *created_at);
        out.some_time(3, *expires_at);
    }
}

impl Fields for Sealed {
    fn write(&self, out: &mut impl Sink) {
        let Self { key_id, bytes } = self;
        out.text(1, key_id);
        out.bytes(2, bytes);
    }
}

/// An entry of a map of sealed values.
struct SealedEntry<'a>(&'a str, &'a Sealed);

impl Fields for SealedEntry<'_> {
    fn write(&self, out: &mut impl Sink) {
        let Self(key, value) = self;
        out.text(1, key);
        out.message(2, *value);
    }
}
