//! Sending a sample event to an endpoint, once, to see what it answers.

use std::{collections::BTreeMap, time::Duration};

use anyhow::anyhow;
use axum::{Json, body::Bytes, extract::State};
use fanfare_domain::{
    Attempt, DeliveryId, Endpoint, EndpointId, Event, EventId, EventType, Fact, Record, Rendered,
    TenantId,
    json::{self, Limits},
    profile::Profile,
};
use fanfare_event_log::trials::NotTried;
use fanfare_service::random_bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::{InTenant, Writes},
    directory::Directory,
    error::{ApiError, Code},
    extract::{Body, PathId},
    routes::deliveries::{request::said_headers, view::FactView},
};

/// Where samples are sent.
pub(crate) const PATH: &str = "/v1/tenants/{tenant}/endpoints/{endpoint}/test";

/// How much longer the dispatcher may take than the endpoint: it makes sure first that it may send.
const BESIDE: Duration = Duration::from_secs(4);
/// How long a request may take here: longer than the longest time-out that an endpoint can have, with
/// the time in which a dispatcher is waited for.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(80);

/// The data of a sample whose type has no example in a catalogue.
const SAMPLE: &str = r#"{"test":true,"message":"This is a test event."}"#;

/// What instead of the values of an endpoint's own headers is shown.
const HIDDEN: &str = "***";

/// A sample to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    /// What kind of thing happened: dot-separated words.
    #[schema(example = "invoice.paid")]
    event_type: String,
    /// What happened: any JSON value; the catalogue's example of the type if left out, or a
    /// sentence that says that it is a test.
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<Box<RawValue>>,
}

/// A request as it was sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SentRequest)]
pub(crate) struct Sent {
    /// Always POST.
    method: &'static str,
    /// Where it went.
    url: String,
    /// Its headers, by name in lower case; those of the endpoint's own without their values.
    headers: BTreeMap<String, String>,
    /// Its body.
    body: String,
}

/// What an endpoint answered to a sample.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tried {
    /// The request.
    request: Sent,
    /// What came of it, as it would be on record for a delivery.
    attempt: FactView,
}

/// Sends a sample event to an endpoint, once, and shows what it answers. The request is made and
/// signed as any other, and may take as long; it counts for nothing, and nothing about it is kept.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/test", tag = "endpoints",
    request_body = Sample,
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
    ),
    responses((status = 200, body = Tried)),
)]
pub(crate) async fn test_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    Body(sample): Body<Sample>,
) -> Result<Json<Tried>, ApiError> {
    let found = app.directory.read(|directory| directory.endpoint(access.id(), id));
    let endpoint = found.ok_or(Code::EndpointNotFound)?.value;
    let event_type: EventType =
        sample.event_type.parse().map_err(|why| ApiError::value("event_type", why))?;
    let data = match sample.data {
        Some(data) => String::from(data.get()),
        None => app.directory.read(|it: &Directory| example(it, access.id(), &event_type)),
    };
    json::check(data.as_bytes(), &Limits::default()).map_err(|why| ApiError::value("data", why))?;
    let now = app.now();
    let event = Event {
        id: EventId::new(now, random_bytes()),
        tenant: access.id().clone(),
        event_type,
        occurred_at: now,
        accepted_at: Some(now),
        config_revision: None,
        data: Bytes::from(data),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: access.caller.trace.clone(),
    };
    let profile = app.profile(&access.tenant.value.profile)?;
    // What the profile cannot carry is refused here, and not by an endpoint.
    let rendered = Rendered::new(profile, &event).map_err(|why| ApiError::value("data", why))?;
    access.caller.begins_to_write();
    let time = patience(&endpoint, profile);
    let record = app.log.try_endpoint(id, &event, time).await.map_err(not_tried)?;
    let request = sent(&rendered, (&event, &endpoint), &record)?;
    let attempt = FactView::of(0, &record);
    let attempt = attempt.ok_or_else(|| ApiError::Internal(anyhow!("an attempt is no fact")))?;
    Ok(Json(Tried { request, attempt }))
}

/// How long the dispatcher may take: as long as the endpoint may, and somewhat longer.
pub(super) fn patience(endpoint: &Endpoint, profile: &Profile) -> Duration {
    endpoint.timeout.unwrap_or(profile.attempt.timeout) + BESIDE
}

/// The data of a sample.
fn example(directory: &Directory, tenant: &TenantId, event_type: &EventType) -> String {
    let own = directory.event_type(Some(tenant), event_type);
    let entry = own.or_else(|| directory.event_type(None, event_type));
    let example = entry.map(|entry| entry.value.example.clone());
    example.filter(|text| !text.is_empty()).unwrap_or_else(|| String::from(SAMPLE))
}

fn sent(
    rendered: &Rendered,
    (event, endpoint): (&Event, &Endpoint),
    record: &Record,
) -> Result<Sent, ApiError> {
    let Fact::AttemptMade(made) = &record.fact else {
        return Err(ApiError::Internal(anyhow!("an attempt is none")));
    };
    let delivery = DeliveryId::of(event.id, endpoint.id, 0);
    let attempt = Attempt { delivery, number: made.attempt, at: made.started_at };
    let request = rendered.request_as_sent(&made.signature, &attempt);
    let shown = endpoint.security.authentication.is_some().then(|| String::from("authorization"));
    let own = endpoint.headers.keys().cloned().chain(shown);
    let own = own.map(|name| (name, String::from(HIDDEN)));
    let built =
        request.headers.iter().map(|(name, value)| (String::from(&**name), value.to_string()));
    let said = made
        .trace_sampled
        .map(|sampled| event.trace.of_attempt(event.id, (delivery, 0), (made.attempt, sampled)));
    let traced = said.into_iter().flat_map(said_headers);
    let traced = traced.map(|(name, value)| (String::from(name), value));
    Ok(Sent {
        method: "POST",
        url: String::from(&*made.url),
        headers: own.chain(built).chain(traced).collect(),
        body: String::from_utf8_lossy(&request.body).into_owned(),
    })
}

pub(super) fn not_tried(error: NotTried) -> ApiError {
    match error {
        NotTried::Refused(reason) => match reason.as_str() {
            "endpoint_paused" => Code::EndpointPaused.into(),
            "endpoint_disabled" => Code::EndpointDisabled.into(),
            "endpoint_deleted" => Code::EndpointNotFound.into(),
            _ => ApiError::Unavailable(anyhow!("an endpoint was not tried: {reason}")),
        },
        NotTried::Unanswered => ApiError::Unavailable(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_take_longer_than_the_most_patient_endpoint() {
        /// How long an owner of the shard is waited for, and the caller is looked up.
        const BEFORE: Duration = Duration::from_secs(10);
        assert!(Profile::TIMEOUT_MAX + BESIDE + BEFORE < REQUEST_TIMEOUT);
    }
}
