//! Events, from the delivery log; their data from EVENTS.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use fanfare_delivery_log::{Cursor, EventFilter, EventRow};
use fanfare_domain::{EventId, StoredEvent};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::{Params, PathId},
    page::{Page, Paging, cursor},
    routes::deliveries::search::{searched, time, types},
};

/// Which events of a tenant.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventQuery {
    /// Of this type, or one that a pattern chooses: `*` for a word, a last `>` for the rest.
    #[serde(rename = "type")]
    #[param(rename = "type", example = "invoice.*")]
    event_type: Option<String>,
    /// Accepted at that time (RFC 3339) or later, give or take some milliseconds.
    since: Option<String>,
    /// Accepted before that time (RFC 3339), give or take some milliseconds.
    until: Option<String>,
    /// What a person typed: an event's id or its beginning, or a part of a type.
    search: Option<String>,
    /// How many things to answer with at most.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// An event, without its data.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView {
    /// Identifies the event.
    #[schema(example = "evt_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: String,
    /// Whose it is.
    tenant_id: String,
    /// What kind of thing happened.
    #[serde(rename = "type")]
    #[schema(example = "invoice.paid")]
    event_type: String,
    /// When it was accepted.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// When it happened, by the producer.
    #[schema(format = DateTime)]
    occurred_at: String,
    /// How many bytes its data has.
    data_bytes: u64,
    /// The key of those that keep their order; `null` if it has none.
    #[schema(required)]
    ordering_key: Option<String>,
    /// The trace that it belongs to: 32 hexadecimal digits; `null` if there is none.
    #[schema(required)]
    trace_id: Option<String>,
    /// Its sequence in EVENTS.
    sequence: u64,
}

/// An event with its data.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventWithData {
    #[serde(flatten)]
    event: EventView,
    /// Whether the event log still has it. If not, it has aged out: there are neither data nor
    /// attributes, and it cannot be delivered again.
    available: bool,
    /// What happened, byte for byte as the producer sent it; `null` also if it is not available.
    #[schema(value_type = serde_json::Value)]
    data: Option<Box<RawValue>>,
    /// Short facts about the event beside its data.
    attributes: BTreeMap<String, String>,
    /// The producer's idempotency key; `null` if it gave none.
    #[schema(required)]
    idempotency_key: Option<String>,
}

/// Lists a tenant's events, newest first.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/events", tag = "events",
    params(("tenant" = String, Path, description = "The tenant's id"), EventQuery),
    responses((status = 200, body = Page<EventView>)),
)]
pub(crate) async fn list_events(
    State(app): State<App>,
    access: InTenant<Reads>,
    Params(query): Params<EventQuery>,
) -> Result<Json<Page<EventView>>, ApiError> {
    let (event_type, pattern) = types(query.event_type.as_deref())?;
    let filter = EventFilter {
        event_type,
        pattern,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
        text: searched(query.search)?,
        ..EventFilter::of(access.id().clone())
    };
    let paging = Paging::new(query.limit, query.cursor);
    let (limit, after) = (paging.limit()?, paging.after::<Cursor>()?);
    let found = app.delivery_log().await?.events(&filter, after, limit).await?;
    let shown = found.rows.iter().filter(|row| !access.hides(row.sequence));
    let data = shown.map(EventView::of).collect();
    Ok(Json(Page { data, next_cursor: found.next.as_ref().map(cursor) }))
}

/// Shows an event with its data, as long as the event log has that.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/events/{event}", tag = "events",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("event" = String, Path, description = "The event's id"),
    ),
    responses((status = 200, body = EventWithData)),
)]
pub(crate) async fn get_event(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<EventId>,
) -> Result<Json<EventWithData>, ApiError> {
    let row = app.delivery_log().await?.event(access.id(), id).await?;
    let row = row.filter(|row| !access.hides(row.sequence)).ok_or(Code::EventNotFound)?;
    let stored = app.log.event(row.sequence).await?.filter(|stored| stored.event.id == row.id);
    Ok(Json(EventWithData::of(&row, stored.as_ref())))
}

impl EventView {
    fn of(row: &EventRow) -> Self {
        Self {
            id: row.id.to_string(),
            tenant_id: row.tenant.to_string(),
            event_type: String::from(row.event_type.as_str()),
            accepted_at: row.accepted_at.to_string(),
            occurred_at: row.occurred_at.to_string(),
            data_bytes: row.data_bytes,
            ordering_key: row.ordering_key.clone(),
            trace_id: row.trace_id.clone(),
            sequence: row.sequence,
        }
    }
}

impl EventWithData {
    fn of(row: &EventRow, stored: Option<&StoredEvent>) -> Self {
        let event = stored.map(|stored| &stored.event);
        let data = event.and_then(|event| {
            let text = String::from_utf8(event.data.to_vec()).ok()?;
            RawValue::from_string(text).ok()
        });
        Self {
            event: EventView::of(row),
            available: event.is_some(),
            data,
            attributes: event.map(|event| event.attributes.clone()).unwrap_or_default(),
            idempotency_key: event.and_then(|event| event.idempotency_key.clone()),
        }
    }
}
