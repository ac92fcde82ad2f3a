//! Lists of deliveries, from the delivery log: it is a moment behind what happens.

use std::str::FromStr;

use axum::{Json, extract::State};
use fanfare_delivery_log::{Cursor, DeliveryRow, Filter, Listed, State as Standing};
use fanfare_domain::{EndpointId, Outcome, TenantId, Timestamp, TypePattern, profile::Profile};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::state::DeliveryView;
use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::{Params, PathId},
    limits,
    page::{Page, Paging, cursor},
};

/// The longest text that is searched for, in bytes.
const SEARCH_BYTES_MAX: usize = 256;

/// Which deliveries of a tenant.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveryQuery {
    /// To this endpoint.
    endpoint: Option<String>,
    /// In this state, or one of several with commas between them.
    #[param(example = "exhausted,refused")]
    state: Option<String>,
    /// Of this type, or one that a pattern chooses: `*` for a word, a last `>` for the rest.
    #[serde(rename = "type")]
    #[param(rename = "type", example = "invoice.*")]
    event_type: Option<String>,
    /// Of events accepted at that time (RFC 3339) or later, give or take some milliseconds.
    since: Option<String>,
    /// Of events accepted before that time (RFC 3339), give or take some milliseconds.
    until: Option<String>,
    /// Of this event.
    event: Option<String>,
    /// What a person typed: an id of an event or a delivery, the beginning of an event's id, or a
    /// part of a type.
    search: Option<String>,
    /// How many things to answer with at most.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which deliveries of an endpoint.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfEndpointQuery {
    /// In this state, or one of several with commas between them.
    #[param(example = "exhausted,refused")]
    state: Option<String>,
    /// Of this type, or one that a pattern chooses: `*` for a word, a last `>` for the rest.
    #[serde(rename = "type")]
    #[param(rename = "type", example = "invoice.*")]
    event_type: Option<String>,
    /// Of events accepted at that time (RFC 3339) or later, give or take some milliseconds.
    since: Option<String>,
    /// Of events accepted before that time (RFC 3339), give or take some milliseconds.
    until: Option<String>,
    /// What a person typed: an id of an event or a delivery, the beginning of an event's id, or a
    /// part of a type.
    search: Option<String>,
    /// How many things to answer with at most.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which dead letters of a tenant.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeadLetterQuery {
    /// To this endpoint.
    endpoint: Option<String>,
    /// Of this type, or one that a pattern chooses: `*` for a word, a last `>` for the rest.
    #[serde(rename = "type")]
    #[param(rename = "type", example = "invoice.*")]
    event_type: Option<String>,
    /// Of events accepted at that time (RFC 3339) or later, give or take some milliseconds.
    since: Option<String>,
    /// Of events accepted before that time (RFC 3339), give or take some milliseconds.
    until: Option<String>,
    /// What a person typed: an id of an event or a delivery, the beginning of an event's id, or a
    /// part of a type.
    search: Option<String>,
    /// How many things to answer with at most.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A delivery in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedDelivery {
    #[serde(flatten)]
    delivery: DeliveryView,
    /// The event's type; `null` if it is not known yet.
    #[schema(required, example = "invoice.paid")]
    event_type: Option<String>,
    /// When the event was accepted; `null` if that is not known yet.
    #[schema(required, format = DateTime)]
    accepted_at: Option<String>,
    /// Since when it stands so.
    #[schema(format = DateTime)]
    since: String,
    /// The status of its last attempt: what the endpoint answered, or what the profile shows for a
    /// time-out; `null` if there is none.
    #[schema(required)]
    last_status: Option<u16>,
    /// Why its last attempt got no answer; `null` if it did, or if none was made.
    #[schema(required, example = "timed_out")]
    last_fault: Option<&'static str>,
}

/// Lists a tenant's deliveries, newest event first. A page can have fewer than `limit`, or none, and
/// still give the next one.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/deliveries", tag = "deliveries",
    params(("tenant" = String, Path, description = "The tenant's id"), DeliveryQuery),
    responses((status = 200, body = Page<ListedDelivery>)),
)]
pub(crate) async fn list_deliveries(
    State(app): State<App>,
    access: InTenant<Reads>,
    Params(query): Params<DeliveryQuery>,
) -> Result<Json<Page<ListedDelivery>>, ApiError> {
    let mut wanted = Wanted::of(access.id());
    wanted.endpoint(query.endpoint.as_deref())?;
    wanted.states(query.state.as_deref())?;
    wanted.event_type(query.event_type.as_deref())?;
    wanted.filter.event = parsed("event", query.event.as_deref())?;
    wanted.times((query.since.as_deref(), query.until.as_deref()))?;
    wanted.search(query.search)?;
    page(&app, &access, &wanted.filter, &Paging::new(query.limit, query.cursor)).await
}

/// Lists the deliveries to an endpoint, newest event first. A page can have fewer than `limit`, or
/// none, and still give the next one.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/deliveries", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        OfEndpointQuery,
    ),
    responses((status = 200, body = Page<ListedDelivery>)),
)]
pub(crate) async fn list_deliveries_of_endpoint(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(endpoint): PathId<EndpointId>,
    Params(query): Params<OfEndpointQuery>,
) -> Result<Json<Page<ListedDelivery>>, ApiError> {
    let known = app.directory.read(|directory| directory.endpoint(access.id(), endpoint));
    known.ok_or(Code::EndpointNotFound)?;
    let mut wanted = Wanted::of(access.id());
    wanted.filter.endpoint = Some(endpoint);
    wanted.states(query.state.as_deref())?;
    wanted.event_type(query.event_type.as_deref())?;
    wanted.times((query.since.as_deref(), query.until.as_deref()))?;
    wanted.search(query.search)?;
    page(&app, &access, &wanted.filter, &Paging::new(query.limit, query.cursor)).await
}

/// Lists a tenant's dead letters, newest event first: the deliveries that are exhausted, because
/// every attempt failed or their time ran out. A page can have fewer than `limit`, or none, and still
/// give the next one.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/dead-letters", tag = "deliveries",
    params(("tenant" = String, Path, description = "The tenant's id"), DeadLetterQuery),
    responses((status = 200, body = Page<ListedDelivery>)),
)]
pub(crate) async fn list_dead_letters(
    State(app): State<App>,
    access: InTenant<Reads>,
    Params(query): Params<DeadLetterQuery>,
) -> Result<Json<Page<ListedDelivery>>, ApiError> {
    let mut wanted = Wanted::of(access.id());
    wanted.filter.states = [Standing::Exhausted].into();
    wanted.endpoint(query.endpoint.as_deref())?;
    wanted.event_type(query.event_type.as_deref())?;
    wanted.times((query.since.as_deref(), query.until.as_deref()))?;
    wanted.search(query.search)?;
    page(&app, &access, &wanted.filter, &Paging::new(query.limit, query.cursor)).await
}

async fn page(
    app: &App,
    access: &InTenant<Reads>,
    filter: &Filter,
    paging: &Paging,
) -> Result<Json<Page<ListedDelivery>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<Cursor>()?);
    let profile = app.profile(&access.tenant.value.profile)?;
    let found = app.delivery_log().await?.deliveries(filter, after, limit).await?;
    // The log forgets what was deleted a moment after the deletion.
    let is_gone =
        |row: &DeliveryRow| app.is_erased(row.endpoint) || access.hides(row.event_sequence);
    let rows = found.rows.iter().filter(|row| !is_gone(&row.delivery));
    let data = rows.map(|row| ListedDelivery::of(row, profile)).collect();
    Ok(Json(Page { data, next_cursor: found.next.as_ref().map(cursor) }))
}

impl ListedDelivery {
    fn of(row: &Listed, profile: &Profile) -> Self {
        let origin = row.delivery.origin.as_ref();
        let fault = match &row.last {
            Some(Outcome::Failed(fault)) => Some(fault.as_str()),
            Some(Outcome::Accepted { .. } | Outcome::Refused { .. }) | None => None,
        };
        Self {
            delivery: DeliveryView::of(&row.delivery),
            event_type: origin.map(|origin| String::from(origin.event_type.as_str())),
            accepted_at: origin.map(|origin| origin.accepted_at.to_string()),
            since: row.delivery.standing.since.to_string(),
            last_status: row.last.as_ref().and_then(|last| profile.shown_status(last)),
            last_fault: fault,
        }
    }
}

/// A filter, put together from what a query says.
struct Wanted {
    filter: Filter,
}

impl Wanted {
    fn of(tenant: &TenantId) -> Self {
        Self { filter: Filter::of(tenant.clone()) }
    }

    fn endpoint(&mut self, text: Option<&str>) -> Result<(), ApiError> {
        self.filter.endpoint = parsed("endpoint", text)?;
        Ok(())
    }

    fn states(&mut self, text: Option<&str>) -> Result<(), ApiError> {
        for name in text.iter().flat_map(|text| text.split(',')) {
            let unknown = || ApiError::value("state", "it is one of the states of deliveries");
            let state = Standing::from_name(name.trim()).ok_or_else(unknown)?;
            self.filter.states.insert(state);
        }
        Ok(())
    }

    fn event_type(&mut self, text: Option<&str>) -> Result<(), ApiError> {
        let types = types(text)?;
        (self.filter.event_type, self.filter.pattern) = types;
        Ok(())
    }

    fn times(&mut self, (since, until): (Option<&str>, Option<&str>)) -> Result<(), ApiError> {
        self.filter.since = time("since", since)?;
        self.filter.until = time("until", until)?;
        Ok(())
    }

    fn search(&mut self, text: Option<String>) -> Result<(), ApiError> {
        self.filter.text = searched(text)?;
        Ok(())
    }
}

/// Reads a type, or a pattern if it has wildcards.
pub(crate) fn types(
    text: Option<&str>,
) -> Result<(Option<fanfare_domain::EventType>, Option<TypePattern>), ApiError> {
    match text {
        Some(text) if text.contains(['*', '>']) => {
            let pattern: TypePattern = text.parse().map_err(|why| ApiError::value("type", why))?;
            Ok((None, Some(pattern)))
        }
        text => Ok((parsed("type", text)?, None)),
    }
}

/// Reads a time.
pub(crate) fn time(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    let malformed = || ApiError::value(name, "it is not a time as of RFC 3339");
    text.map(|text| Timestamp::parse(text).ok_or_else(malformed)).transpose()
}

/// Checks what is searched for. Nothing but blanks is nothing.
pub(crate) fn searched(text: Option<String>) -> Result<Option<String>, ApiError> {
    let text = text.filter(|text| !text.trim().is_empty());
    if let Some(text) = &text {
        limits::line("search", text, SEARCH_BYTES_MAX)?;
    }
    Ok(text)
}

/// Reads a value of a form.
pub(crate) fn parsed<T>(name: &str, text: Option<&str>) -> Result<Option<T>, ApiError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.map(|text| text.parse().map_err(|why| ApiError::value(name, why))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_says_is_checked() {
        let mut wanted = Wanted::of(&"acme".parse().unwrap());
        wanted.states(Some("exhausted, refused,exhausted")).unwrap();
        assert_eq!(wanted.filter.states, [Standing::Exhausted, Standing::Refused].into());
        let code = |refused: Result<(), ApiError>| refused.unwrap_err().code();
        assert_eq!(code(wanted.states(Some("done"))), Code::ValueInvalid);
        assert_eq!(code(wanted.endpoint(Some("evt_1"))), Code::ValueInvalid);
        assert_eq!(code(wanted.event_type(Some("a..b"))), Code::ValueInvalid);
        assert_eq!(code(wanted.event_type(Some("a.>.b"))), Code::ValueInvalid);
        assert_eq!(code(wanted.times((Some("soon"), None))), Code::ValueInvalid);
        assert_eq!(code(wanted.search(Some("x".repeat(257)))), Code::ValueInvalid);
        wanted.search(Some(String::from("  "))).unwrap();
        assert_eq!(wanted.filter.text, None);
    }

    #[test]
    fn a_type_with_wildcards_is_a_pattern() {
        for (text, exact, pattern) in [
            (None, false, false),
            (Some("a.b"), true, false),
            (Some("a.*"), false, true),
            (Some(">"), false, true),
        ] {
            let (event_type, found) = types(text).unwrap();
            assert_eq!((event_type.is_some(), found.is_some()), (exact, pattern), "{text:?}");
        }
    }
}
