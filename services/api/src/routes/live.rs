//! Deliveries as they happen, as server-sent events.

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;

use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::Params,
    live::{self, Cut, Filter, LiveView},
    routes::deliveries::{
        search::{parsed, types},
        state::DeliveryState,
    },
    scan::Place,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Which deliveries of a tenant.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LiveQuery {
    /// To this endpoint.
    endpoint: Option<String>,
    /// What brings a delivery into this state, or one of several with commas between them.
    #[param(example = "exhausted,refused")]
    state: Option<String>,
    /// Of this type, or one that a pattern chooses: `*` for a word, a last `>` for the rest. That an
    /// event was routed is left out then: the fact does not say the type.
    #[serde(rename = "type")]
    #[param(rename = "type", example = "invoice.*")]
    event_type: Option<String>,
}

/// Tells what happens to a tenant's deliveries, as it happens, until the caller hangs up.
///
/// The answer is a stream of server-sent events, each with a `LiveDelivery` as its data. Its id is its
/// place: whoever comes back with the last id as `Last-Event-ID` gets all that happened since, and
/// nothing twice, unless that is more than a stream is for: a place that is gone, or lies 100,000
/// messages of the journal back, is refused (`place_gone`). Every ten seconds at least there is a comment, with
/// an id too. Before the service ends a stream it sends an event `end`, with a `reason`: `slow` for a
/// caller who does not take what there is, `long` where there is more to catch up on, `interrupted` if
/// it stops, after all of which one can come back; and `unauthorized` once the caller's key does not
/// work any more, some seconds after that. Deleted endpoints do not appear. 16 streams of a tenant
/// and 256 in all can be open in each process; 8 of the tenant's by one of its keys, and 4 by the portal
/// links of one user.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/live", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "Go on behind this place"),
        LiveQuery,
    ),
    responses((status = 200, body = LiveView, content_type = "text/event-stream")),
)]
pub(crate) async fn watch_deliveries(
    State(app): State<App>,
    access: InTenant<Reads>,
    Params(query): Params<LiveQuery>,
    Extension(cut): Extension<Cut>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (event_type, pattern) = types(query.event_type.as_deref())?;
    let filter = Filter {
        endpoint: parsed("endpoint", query.endpoint.as_deref())?,
        states: states(query.state.as_deref())?,
        event_type,
        pattern,
    };
    if let Some(endpoint) = filter.endpoint {
        let known = app.directory.read(|directory| directory.endpoint(access.id(), endpoint));
        known.ok_or(Code::EndpointNotFound)?;
    }
    let begin = live::Begin {
        tenant: access.id().clone(),
        hidden: access.tenant.value.expunge.as_ref().map_or(0, |expunge| expunge.through),
        filter,
        after: place(&headers)?,
        caller: access.caller,
        cut,
    };
    let body = live::open(&app, begin).await?;
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (X_ACCEL_BUFFERING, "no")];
    Ok((kind, body).into_response())
}

/// Tells proxies that know it not to gather what they pass on.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

fn place(headers: &HeaderMap) -> Result<Option<Place>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|why| ApiError::value("Last-Event-ID", why))?;
    text.parse().map(Some).map_err(|why| ApiError::value("Last-Event-ID", why))
}

fn states(text: Option<&str>) -> Result<Vec<DeliveryState>, ApiError> {
    let mut states = Vec::new();
    for name in text.iter().flat_map(|text| text.split(',')) {
        let unknown = || ApiError::value("state", "it is one of the states of deliveries");
        states.push(DeliveryState::from_name(name.trim()).ok_or_else(unknown)?);
    }
    Ok(states)
}
