//! The installation's catalogue, which counts for every tenant that has no entry of its own.

use axum::{Json, extract::State, http::StatusCode};
use fanfare_domain::{EventType, Timestamp};

use super::{
    Catalogue, EventTypePatch, EventTypeView, Import, Imported, NewEventType, delete, get, list,
    update,
};
use crate::{
    app::App,
    caller::{Operator, Reads, Writes},
    error::ApiError,
    etag::IfMatch,
    extract::{Body, Params, PathId},
    page::{Page, Paging},
    reply::{Created, Tagged},
};

const EVERYWHERE: Catalogue<'static> =
    Catalogue { tenant: None, since: Timestamp::EPOCH, profile: None };

/// Adds an event type to the installation's catalogue.
#[utoipa::path(
    post, path = "/v1/event-types", tag = "event-types", request_body = NewEventType,
    responses((status = 201, body = EventTypeView, headers(("ETag"), ("Location")))),
)]
pub(crate) async fn create_common_event_type(
    State(app): State<App>,
    access: Operator<Writes>,
    Body(new): Body<NewEventType>,
) -> Result<Created<EventTypeView>, ApiError> {
    let created = EVERYWHERE.create(&app, &access.caller, new).await?;
    Ok(EVERYWHERE.created(&created))
}

/// Lists the installation's event types, in alphabetic order.
#[utoipa::path(
    get, path = "/v1/event-types", tag = "event-types", params(Paging),
    responses((status = 200, body = Page<EventTypeView>)),
)]
pub(crate) async fn list_common_event_types(
    State(app): State<App>,
    _access: Operator<Reads>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<EventTypeView>>, ApiError> {
    list(&app, None, &paging)
}

/// Shows an event type of the installation's catalogue.
#[utoipa::path(
    get, path = "/v1/event-types/{event_type}", tag = "event-types",
    params(("event_type" = String, Path, description = "The event type")),
    responses((status = 200, body = EventTypeView, headers(("ETag")))),
)]
pub(crate) async fn get_common_event_type(
    State(app): State<App>,
    _access: Operator<Reads>,
    PathId(event_type): PathId<EventType>,
) -> Result<Tagged<EventTypeView>, ApiError> {
    get(&app, None, &event_type)
}

/// Changes an event type of the installation's catalogue. It holds for events that ingest takes from
/// then on, also for those that wait in INBOX; what is an event already stays one.
#[utoipa::path(
    patch, path = "/v1/event-types/{event_type}", tag = "event-types",
    request_body = EventTypePatch,
    params(
        ("event_type" = String, Path, description = "The event type"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = EventTypeView, headers(("ETag")))),
)]
pub(crate) async fn update_common_event_type(
    State(app): State<App>,
    access: Operator<Writes>,
    PathId(event_type): PathId<EventType>,
    if_match: IfMatch,
    Body(patch): Body<EventTypePatch>,
) -> Result<Tagged<EventTypeView>, ApiError> {
    update(&app, &access.caller, (None, &event_type), (&if_match, patch)).await
}

/// Takes an event type out of the installation's catalogue.
#[utoipa::path(
    delete, path = "/v1/event-types/{event_type}", tag = "event-types",
    params(
        ("event_type" = String, Path, description = "The event type"),
        ("If-Match" = Option<String>, Header, description = "Delete this version only"),
    ),
    responses((status = 204)),
)]
pub(crate) async fn delete_common_event_type(
    State(app): State<App>,
    access: Operator<Writes>,
    PathId(event_type): PathId<EventType>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    delete(&app, &access.caller, (None, &event_type), &if_match).await
}

/// Adds event types to the installation's catalogue from the `webhooks` of an OpenAPI 3.1 document,
/// or from a profile. Types that are there get what the source has of a description, a schema with
/// its example, and keep the rest.
#[utoipa::path(
    post, path = "/v1/event-type-imports", tag = "event-types", request_body = Import,
    responses((status = 200, body = Imported)),
)]
pub(crate) async fn import_common_event_types(
    State(app): State<App>,
    access: Operator<Writes>,
    Body(import): Body<Import>,
) -> Result<Json<Imported>, ApiError> {
    EVERYWHERE.import(&app, &access.caller, import).await.map(Json)
}
