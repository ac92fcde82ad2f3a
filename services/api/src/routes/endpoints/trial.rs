//! Trying a filter on an event that is made up: would it be wanted, and why not.

use std::collections::BTreeMap;

use anyhow::anyhow;
use axum::{Json, extract::State};
use fanfare_domain::{
    Condition, EndpointId, EventType, TypePattern,
    condition::{Failed, Subject},
    json::{self, Limits},
};
use fanfare_service::Joined as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{task::spawn_blocking, time::Instant};
use utoipa::ToSchema;

use super::draft::{filter, patterns};
use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::{Body, PathId},
};

/// An event to try a filter on. It is not published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SampleEvent {
    /// What kind of thing happened: dot-separated words.
    #[serde(rename = "type")]
    #[schema(example = "invoice.paid")]
    event_type: String,
    /// What happened: any JSON value.
    #[schema(value_type = serde_json::Value, example = json!({"amount": 150}))]
    data: Box<RawValue>,
    /// Short facts about the event beside its data, with names in lower case.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// A filter that no endpoint has yet, and an event to try it on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterTrial {
    /// Which event types are wanted, as the tenant's profile writes them; all if left out.
    event_types: Option<Vec<String>>,
    /// Which events of these types are wanted: an expression; all if left out.
    #[schema(example = "data.amount > 100")]
    filter: Option<String>,
    /// The event.
    event: SampleEvent,
}

/// What a filter says of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FilterVerdict {
    /// Whether the event would be delivered to an endpoint that is active.
    matches: bool,
    /// Whether its type is wanted.
    type_matches: bool,
    /// Whether its content is; `null` if nobody asks, or if the filter gives no answer, which
    /// counts as false.
    #[schema(required)]
    filter_matches: Option<bool>,
    /// Why it does not match, for people; `null` if it does.
    #[schema(required, example = "there is no `amount`: ask with has(…) whether it is there")]
    reason: Option<String>,
}

/// Tries an endpoint's filter on an event. Whether the endpoint is paused or disabled does not count.
///
/// A key may have 20 filters tried at once and 10 a second.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/filter/test", tag = "endpoints",
    request_body = SampleEvent,
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
    ),
    responses((status = 200, body = FilterVerdict)),
)]
pub(crate) async fn test_endpoint_filter(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<EndpointId>,
    Body(event): Body<SampleEvent>,
) -> Result<Json<FilterVerdict>, ApiError> {
    app.paces.trials.admit(access.caller.scope(), Instant::now())?;
    let found = app.directory.read(|directory| directory.endpoint(access.id(), id));
    let endpoint = found.ok_or(Code::EndpointNotFound)?.value;
    let condition = endpoint.condition.clone();
    decide(endpoint.filters.clone(), condition, event).await.map(Json)
}

/// Tries a filter that no endpoint has on an event.
///
/// A key may have 20 filters tried at once and 10 a second.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/filter/test", tag = "endpoints",
    request_body = FilterTrial,
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 200, body = FilterVerdict)),
)]
pub(crate) async fn test_filter(
    State(app): State<App>,
    access: InTenant<Reads>,
    Body(trial): Body<FilterTrial>,
) -> Result<Json<FilterVerdict>, ApiError> {
    app.paces.trials.admit(access.caller.scope(), Instant::now())?;
    let profile = app.profile(&access.tenant.value.profile)?;
    let filters = match &trial.event_types {
        Some(event_types) => patterns(profile, event_types)?,
        None => Vec::from([">".parse().map_err(|why| ApiError::value("event_types", why))?]),
    };
    let condition = trial.filter.as_deref().map(filter).transpose()?;
    decide(filters, condition, trial.event).await.map(Json)
}

async fn decide(
    filters: Vec<TypePattern>,
    condition: Option<String>,
    event: SampleEvent,
) -> Result<FilterVerdict, ApiError> {
    let event_type: EventType =
        event.event_type.parse().map_err(|why| ApiError::value("type", why))?;
    json::check(event.data.get().as_bytes(), &Limits::default())
        .map_err(|why| ApiError::value("data", why))?;
    let type_matches = filters.iter().any(|pattern| pattern.matches(&event_type));
    let judged = match condition {
        Some(text) => Some(judge(text, event).await?),
        None => None,
    };
    Ok(verdict(type_matches, judged))
}

/// Asks a condition, beside the runtime: that takes time.
async fn judge(text: String, event: SampleEvent) -> Result<Result<bool, Failed>, ApiError> {
    let judge = move || {
        let SampleEvent { event_type, data, attributes } = event;
        let subject = Subject::new(&event_type, &attributes, data.get().as_bytes());
        Condition::stored(&text).judge(&subject)
    };
    spawn_blocking(judge).await.joined().map_err(|error| ApiError::Internal(anyhow!(error)))
}

fn verdict(type_matches: bool, judged: Option<Result<bool, Failed>>) -> FilterVerdict {
    let of_filter = match &judged {
        None | Some(Ok(true)) => None,
        Some(Ok(false)) => Some(String::from("the filter gives false")),
        Some(Err(failed)) => Some(failed.to_string()),
    };
    let of_type = (!type_matches).then(|| String::from("the type is not wanted"));
    FilterVerdict {
        matches: type_matches && of_filter.is_none(),
        type_matches,
        filter_matches: judged.and_then(Result::ok),
        reason: of_type.or(of_filter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_says_why_not() {
        let missing = || Some(Err(Failed::Missing(String::from("amount"))));
        for (type_matches, judged, matches, reason) in [
            (true, None, true, None),
            (true, Some(Ok(true)), true, None),
            (true, Some(Ok(false)), false, Some("the filter")),
            (true, missing(), false, Some("there is no `amount`")),
            (false, None, false, Some("the type")),
            (false, missing(), false, Some("the type")),
        ] {
            let verdict = verdict(type_matches, judged);
            assert_eq!(verdict.matches, matches);
            let told = verdict.reason.unwrap_or_default();
            assert!(told.starts_with(reason.unwrap_or_default()), "{told}");
            assert_eq!(told.is_empty(), reason.is_none());
        }
    }
}
