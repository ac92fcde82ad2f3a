//! Things that are configured, as they are shown in the audit.
//!
//! A sealed value shows as the first bytes of its nonce, which is drawn anew with each sealing: so
//! one can see that a secret was changed, and nothing of it. Keys show without their hash.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use fanfare_domain::{
    ApiKey, Endpoint, EndpointState, Entity, PauseMode, Role, Tenant,
    config::{EventTypeEntry, ProfileSource},
    endpoint::{
        Authentication, Certificate, Consent, DisableReason, RateLimit, RatePeriod, Secret, Tls,
    },
    seal::Sealed,
    tenant::{Expunge, ExpungeStage, UnknownTypes},
};
use serde_json::{Value, json};

/// How many bytes of a nonce are shown.
const NONCE_BYTES: usize = 4;

/// Shows a thing; instead of a tenant that is removed with all that was kept for it, that it is.
pub(super) fn of(entity: &Entity, deleted: bool) -> Value {
    match entity {
        Entity::Tenant(it) => {
            let removal = it.expunge.as_ref().filter(|_| deleted).and_then(removal);
            removal.unwrap_or_else(|| tenant(it))
        }
        Entity::Endpoint(it) => endpoint(it),
        Entity::EventType(it) => event_type(it),
        Entity::Profile(it) => profile(it),
        Entity::ApiKey(it) => key(it),
    }
}

fn tenant(tenant: &Tenant) -> Value {
    json!({
        "id": tenant.id.as_str(),
        "name": tenant.name,
        "profile": tenant.profile,
        "rate_limit": tenant.rate_limit.map(rate_limit),
        "unknown_event_types": match tenant.unknown_types {
            UnknownTypes::Allowed => "allow",
            UnknownTypes::Refused => "refuse",
        },
        "created_at": tenant.created_at.to_string(),
    })
}

fn removal(expunge: &Expunge) -> Option<Value> {
    let (state, finished_at) = match expunge.stage {
        ExpungeStage::Running => ("running", None),
        ExpungeStage::Finished(at) => ("finished", Some(at.to_string())),
        ExpungeStage::Earlier(_) => return None,
    };
    let (begun_at, removed) = (expunge.begun_at.to_string(), &expunge.removed);
    Some(json!({"expunge": {
        "state": state, "begun_at": begun_at, "finished_at": finished_at, "removed": removed,
    }}))
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let (state, pause_mode, disabled_reason) = state(endpoint.state);
    let headers = endpoint.headers.iter().map(|(name, value)| (name.as_str(), sealed(value)));
    let headers: BTreeMap<&str, String> = headers.collect();
    let batch = endpoint.batch.map(|batch| {
        json!({"max_events": batch.max_events.get(), "max_wait_ms": millis(batch.max_wait)})
    });
    json!({
        "id": endpoint.id.to_string(),
        "tenant_id": endpoint.tenant.as_str(),
        "url": endpoint.url,
        "name": endpoint.name,
        "description": endpoint.description,
        "event_types": endpoint.filters.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "filter": endpoint.condition,
        "state": state,
        "pause_mode": pause_mode,
        "disabled_reason": disabled_reason,
        "headers": headers,
        "retry": endpoint.retry,
        "timeout_ms": endpoint.timeout.map(millis),
        "concurrency": endpoint.concurrency,
        "rate_limit": endpoint.rate_limit.map(rate_limit),
        "ordering": endpoint.ordering.as_str(),
        "batch": batch,
        "trace_context": endpoint.trace_context,
        "authentication": endpoint.security.authentication.as_ref().map(authentication),
        "tls": endpoint.security.tls.as_ref().map(tls),
        "validation": endpoint.security.validation.as_ref().map(validation),
        "metadata": endpoint.metadata,
        "secrets": endpoint.secrets.iter().map(secret).collect::<Vec<_>>(),
        "created_at": endpoint.created_at.to_string(),
        "updated_at": endpoint.updated_at.to_string(),
    })
}

fn authentication(authentication: &Authentication) -> Value {
    match authentication {
        Authentication::Bearer { token } => json!({"type": "bearer", "token": sealed(token)}),
        Authentication::Basic { username, password } => {
            json!({"type": "basic", "username": username, "password": sealed(password)})
        }
        Authentication::OAuth2(it) => json!({
            "type": "oauth2",
            "token_url": it.token_url,
            "client_id": it.client_id,
            "client_secret": sealed(&it.client_secret),
            "scopes": it.scopes,
            "parameters": it.parameters,
            "credentials_in": it.place.as_str(),
        }),
    }
}

fn tls(tls: &Tls) -> Value {
    let client = tls.client.as_ref().map(|client| {
        let chain: Vec<_> = client.chain.iter().map(certificate).collect();
        json!({"chain": chain, "key": sealed(&client.key)})
    });
    let authorities: Vec<_> = tls.authorities.iter().map(certificate).collect();
    json!({"authorities": authorities, "client_certificate": client})
}

fn validation(validation: &Consent) -> Value {
    json!({
        "type": "cloudevents",
        "allowed_at": validation.allowed_at.map(|at| at.to_string()),
        "requests_per_minute": validation.rate,
    })
}

fn certificate(certificate: &Certificate) -> Value {
    json!({
        "subject": certificate.subject,
        "fingerprint_sha256": certificate.fingerprint(),
        "expires_at": certificate.expires_at.to_string(),
    })
}

const fn state(state: EndpointState) -> (&'static str, Option<&'static str>, Option<&'static str>) {
    match state {
        EndpointState::Active => ("active", None, None),
        EndpointState::Paused(PauseMode::Skip) => ("paused", Some("skip"), None),
        EndpointState::Paused(PauseMode::Hold) => ("paused", Some("hold"), None),
        EndpointState::Disabled(DisableReason::ByHand) => ("disabled", None, Some("by_hand")),
        EndpointState::Disabled(DisableReason::Gone) => ("disabled", None, Some("gone")),
        EndpointState::Disabled(DisableReason::Failing) => ("disabled", None, Some("failing")),
    }
}

fn secret(secret: &Secret) -> Value {
    json!({
        "secret": sealed(&secret.sealed),
        "created_at": secret.created_at.to_string(),
        "expires_at": secret.expires_at.map(|end| end.to_string()),
    })
}

fn sealed(sealed: &Sealed) -> String {
    format!("sealed:{}", HEXLOWER.encode(sealed.bytes.get(..NONCE_BYTES).unwrap_or_default()))
}

fn rate_limit(limit: RateLimit) -> Value {
    let per = match limit.per {
        RatePeriod::Second => "second",
        RatePeriod::Minute => "minute",
    };
    json!({"requests": limit.requests.get(), "per": per, "burst": limit.burst.get()})
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn event_type(entry: &EventTypeEntry) -> Value {
    json!({
        "type": entry.event_type.as_str(),
        "tenant_id": entry.tenant.as_ref().map(fanfare_domain::TenantId::as_str),
        "description": entry.description,
        "schema": json_or_null(&entry.schema),
        "example": json_or_null(&entry.example),
        "validation": entry.validation.as_str(),
    })
}

/// Reads what is kept as text. What does not read is shown as it is.
fn json_or_null(text: &str) -> Value {
    match text {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
    }
}

fn profile(profile: &ProfileSource) -> Value {
    json!({"name": profile.name, "toml": profile.toml})
}

fn key(key: &ApiKey) -> Value {
    let role = match key.role {
        Role::Admin => "admin",
        Role::Publish => "publish",
        Role::Read => "read",
    };
    let mut shown = json!({
        "id": key.id.to_string(),
        "name": key.name,
        "tenant_id": key.tenant.as_ref().map(fanfare_domain::TenantId::as_str),
        "role": role,
        "created_at": key.created_at.to_string(),
        "expires_at": key.expires_at.map(|end| end.to_string()),
    });
    if let (Some(limit), Some(members)) = (key.rate_limit, shown.as_object_mut()) {
        members.insert(String::from("rate_limit"), rate_limit(limit));
    }
    shown
}
