//! Endpoints that have to allow us to send before we do (CloudEvents, HTTP 1.1 Web Hooks for Event
//! Delivery, section 4).
//!
//! Until an endpoint has allowed it, it is paused and what it would get is held; so it is again when
//! its URL changes. Nothing but being allowed makes it active.

use std::{collections::BTreeMap, num::NonZeroU32};

use axum::{body::Bytes, extract::State};
use fanfare_domain::{
    Endpoint, EndpointId, EndpointState, Event, EventId, EventType, Outcome, PauseMode, Record,
    Timestamp,
    endpoint::{Consent, RateLimit},
    fact::AttemptMade,
};
use fanfare_service::random_bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    edit_active,
    sample::{not_tried, patience},
    tagged,
    view::EndpointView,
};
use crate::{
    app::{App, Edited},
    caller::{InTenant, Writes},
    directory::Directory,
    error::{ApiError, Code},
    etag::IfMatch,
    extract::{Patched, PathId},
    reply::Tagged,
    settings::Origin,
};

/// Where endpoints are asked.
pub(crate) const PATH: &str = "/v1/tenants/{tenant}/endpoints/{endpoint}/validate";

const HOLD: EndpointState = EndpointState::Paused(PauseMode::Hold);

/// How an endpoint has to allow us to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = EndpointValidation)]
pub(crate) enum ValidationName {
    /// By its answer to OPTIONS with `WebHook-Request-Origin` (CloudEvents).
    CloudEvents,
}

/// What an endpoint has allowed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Allowed)]
pub(crate) struct AllowedView {
    /// When it did; `null` for not yet.
    #[schema(required, format = DateTime)]
    at: Option<String>,
    /// How many requests a minute it allows; `null` for any number.
    #[schema(required)]
    requests_per_minute: Option<u32>,
}

impl AllowedView {
    pub(super) fn of(validation: &Consent) -> Self {
        let at = validation.allowed_at.map(|at| at.to_string());
        Self { at, requests_per_minute: validation.rate.map(NonZeroU32::get) }
    }
}

/// Refuses what no endpoint could allow: sending in nobody's name.
pub(super) fn check(app: &App, wanted: Option<ValidationName>) -> Result<(), ApiError> {
    match (wanted, &app.webhook_origin) {
        (Some(ValidationName::CloudEvents), None) => {
            let why = "the operator has not said in whose name (webhook_origin of the api)";
            Err(ApiError::value("validation", why))
        }
        (None | Some(ValidationName::CloudEvents), _) => Ok(()),
    }
}

/// Has an endpoint not be sent to before it allows that.
pub(super) fn begin(endpoint: &mut Endpoint) {
    endpoint.security.validation = Some(Consent::default());
    if endpoint.state == EndpointState::Active {
        endpoint.state = HOLD;
    }
}

/// Changes whether an endpoint has to allow it, and has one with another URL do so anew.
pub(super) fn patch(next: &mut Endpoint, before: &Endpoint, patch: &Patched<ValidationName>) {
    match patch {
        Patched::Null => next.security.validation = None,
        Patched::Value(ValidationName::CloudEvents) if next.security.validation.is_none() => {
            begin(next);
        }
        Patched::Value(ValidationName::CloudEvents) | Patched::Absent => {}
    }
    if next.security.validation.is_some() && next.url != before.url {
        begin(next);
    }
}

/// Asks an endpoint whether we may send to it, and makes it active if it allows that: OPTIONS with
/// `WebHook-Request-Origin`, and `WebHook-Request-Rate` if it has a rate limit. It allows it with a
/// status of success and a `WebHook-Allowed-Origin` that names us, or `*`; a `WebHook-Allowed-Rate`
/// bounds its rate limit.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/validate", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
    ),
    responses((status = 200, body = EndpointView, headers(("ETag")))),
)]
pub(crate) async fn validate_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
) -> Result<Tagged<EndpointView>, ApiError> {
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    let asked = app.directory.read(find).ok_or(Code::EndpointNotFound)?.value;
    if asked.security.validation.is_none() {
        return Err(ApiError::value("validation", "the endpoint has not to allow anything"));
    }
    check(&app, Some(ValidationName::CloudEvents))?;
    let origin = app.webhook_origin.as_ref().map_or("", Origin::as_str);
    let profile = app.profile(&access.tenant.value.profile)?;
    access.caller.begins_to_write();
    let (event, time) = (stand_in(&app, &access)?, patience(&asked, profile));
    let record = app.log.shake_hands(id, &event, origin, time).await.map_err(not_tried)?;
    let rate = allowance(&record, origin)
        .map_err(|why| ApiError::detailed(Code::ValidationRefused, why))?;
    let edit = |current: &Endpoint| {
        if current.url != asked.url || current.security.validation.is_none() {
            return Err(Code::ChangedMeanwhile.into());
        }
        Ok(Edited::Changed(allow(current, rate, app.now())))
    };
    let edited = edit_active(&app, (&access, id), &IfMatch::Absent, edit).await?;
    tagged(&app, &access, edited)
}

/// Notes what an endpoint has allowed. Who was held back only for that is sent to.
fn allow(endpoint: &Endpoint, rate: Option<NonZeroU32>, now: Timestamp) -> Endpoint {
    let mut next = endpoint.clone();
    if endpoint.security.is_pending() && endpoint.state == HOLD {
        next.state = EndpointState::Active;
    }
    next.security.validation = Some(Consent { allowed_at: Some(now), rate });
    next.updated_at = now;
    next
}

/// The event of a question that carries none: whoever asks has to say whose endpoint it is.
fn stand_in(app: &App, access: &InTenant<Writes>) -> Result<Event, ApiError> {
    let now = app.now();
    let event_type: EventType =
        "validation".parse().map_err(|why| ApiError::value("event_type", why))?;
    Ok(Event {
        id: EventId::new(now, random_bytes()),
        tenant: access.id().clone(),
        event_type,
        occurred_at: now,
        accepted_at: Some(now),
        config_revision: None,
        data: Bytes::from_static(b"{}"),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: access.caller.trace.clone(),
    })
}

/// Reads how many requests a minute an answer allows, any number for `None`; or why it does not allow
/// to send.
fn allowance(record: &Record, origin: &str) -> Result<Option<NonZeroU32>, String> {
    let made = record.fact.attempt_made().ok_or("the endpoint was not asked")?;
    let status = match &made.outcome {
        Outcome::Failed(fault) => return Err(format!("{fault}: {}", made.detail)),
        Outcome::Accepted { status } | Outcome::Refused { status, .. } => *status,
    };
    if !(200..300).contains(&status) {
        return Err(format!("the endpoint answered {status}"));
    }
    let allowed = header(made, "webhook-allowed-origin");
    if !allowed.is_some_and(|it| it == "*" || it.eq_ignore_ascii_case(origin)) {
        return Err(format!("the answer has no WebHook-Allowed-Origin that names {origin}"));
    }
    match header(made, "webhook-allowed-rate") {
        None | Some("*") => Ok(None),
        Some(text) => match text.parse::<NonZeroU32>() {
            Ok(rate) if rate.get() <= RateLimit::REQUESTS_MAX => Ok(Some(rate)),
            // More than we would ever send.
            Ok(_) => Ok(None),
            Err(_) => Err(String::from("WebHook-Allowed-Rate of the answer is no number")),
        },
    }
}

fn header<'a>(made: &'a AttemptMade, name: &str) -> Option<&'a str> {
    let found = made.response_headers.iter().find(|(own, _)| own == name)?;
    std::str::from_utf8(&found.1).ok().map(str::trim)
}

#[cfg(test)]
mod tests;
