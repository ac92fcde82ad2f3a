//! Deliveries: how one stands, and what happened to it.
//!
//! Both are as of the moment of the request, see [`crate::lookup`]. Lists over many come from the
//! delivery log alone: see [`search`].

pub(crate) mod attempts;
pub(crate) mod orders;
pub(crate) mod request;
pub(crate) mod search;
pub(crate) mod state;
pub(crate) mod trace;
pub(crate) mod view;

use axum::{Json, extract::State};
use fanfare_delivery_log::DeliveryRow;
use fanfare_domain::{DeliveryId, EndpointId, EventId};
use fanfare_event_log::journal::From;

use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::{Params, PathId},
    lookup,
    page::{Page, Paging, cursor},
    scan::{self, Budget, Listing, Place, Span},
};

use state::DeliveryView;
use view::{DeliveryOfEvent, FactView};

/// Lists what became of an event for each endpoint that wanted it. A page can have fewer than
/// `limit`, or none, and still give the next one.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/events/{event}/deliveries", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("event" = String, Path, description = "The event's id"),
        Paging,
    ),
    responses((status = 200, body = Page<DeliveryOfEvent>)),
)]
pub(crate) async fn list_deliveries_of_event(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<EventId>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<DeliveryOfEvent>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<EndpointId>()?);
    let found = lookup::event(&app, access.id(), id, (after, limit + 1)).await?;
    let found = found.filter(|found| !access.hides(found.event_sequence));
    let endpoints = found.ok_or(Code::EventNotFound)?.endpoints.into_iter();
    let rest = endpoints.filter(|(endpoint, _)| after.is_none_or(|after| *endpoint > after));
    let mut some: Vec<_> = rest.take(limit + 1).collect();
    let has_more = some.len() > limit;
    some.truncate(limit);
    let last = some.last().map(|(endpoint, _)| cursor(endpoint));
    some.retain(|(endpoint, _)| !app.is_erased(*endpoint));
    let show = |(endpoint, routed): &(EndpointId, _)| DeliveryOfEvent::of(id, *endpoint, *routed);
    let data = some.iter().map(show).collect();
    Ok(Json(Page { data, next_cursor: last.filter(|_| has_more) }))
}

/// Shows how a delivery stands.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/deliveries/{delivery}", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("delivery" = String, Path, description = "The delivery's id"),
    ),
    responses((status = 200, body = DeliveryView)),
)]
pub(crate) async fn get_delivery(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<DeliveryId>,
) -> Result<Json<DeliveryView>, ApiError> {
    let row = find(&app, &access, id).await?;
    Ok(Json(DeliveryView::of(&row)))
}

/// Lists the facts about a delivery, in the order in which they happened. A page can have fewer
/// than `limit`, or none, and still give the next one.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/deliveries/{delivery}/facts", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("delivery" = String, Path, description = "The delivery's id"),
        Paging,
    ),
    responses((status = 200, body = Page<FactView>)),
)]
pub(crate) async fn list_facts_of_delivery(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<DeliveryId>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<FactView>>, ApiError> {
    let (limit, start) = (paging.limit()?, paging.after::<Place>()?);
    let row = find(&app, &access, id).await?;
    let mut span = lookup::span_of(&app, &row).await?;
    if let Some(start) = start {
        span = Span { from: From::Sequence(start.sequence), ..span };
    }
    let (sequence, _) = row.standing.fact().parts();
    let stands_by = (sequence, row.standing.since);
    let listing = Listing { delivery: id, start, stands_by, limit };
    let _permit = lookup::permit(&app, access.id()).await?;
    let mut budget = Budget::start(app.journal_read_max);
    let facts = scan::facts(&app.log, row.endpoint, listing, (span, &mut budget)).await?;
    let show = |(place, record): &(Place, _)| FactView::of(place.sequence, record);
    let data = facts.found.iter().filter_map(show).collect();
    Ok(Json(Page { data, next_cursor: facts.next.as_ref().map(cursor) }))
}

/// Finds a delivery, as it stands at this moment.
pub(crate) async fn find<P>(
    app: &App,
    access: &InTenant<P>,
    id: DeliveryId,
) -> Result<DeliveryRow, ApiError> {
    let found = lookup::delivery(app, access.id(), id).await?;
    let is_shown =
        |row: &DeliveryRow| !app.is_erased(row.endpoint) && !access.hides(row.event_sequence);
    found.filter(is_shown).ok_or_else(|| Code::DeliveryNotFound.into())
}
