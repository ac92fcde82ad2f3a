//! Deliveries, as the journal has them.
//!
//! One delivery is explained by the journal itself, read from the time that the id carries: that has
//! what was acknowledged a moment ago. Lists over many come from the delivery log: see [`search`].

pub(crate) mod attempts;
pub(crate) mod orders;
pub(crate) mod request;
pub(crate) mod search;
pub(crate) mod state;
pub(crate) mod trace;
pub(crate) mod view;

use axum::{Json, extract::State};
use fanfare_domain::{DeliveryId, EndpointId, EventId, TenantId};
use tokio::time::{Duration, Instant};

use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::{Params, PathId},
    page::{Page, Paging, cursor},
    scan::{self, Budget, FoundDelivery, Place},
    shares::{Holder, Share},
};

use state::DeliveryView;
use view::{DeliveryOfEvent, FactView};

/// How many facts of one delivery are read to find out its state; it has two per attempt.
const FACTS_MAX: usize = 10_000;
/// How long a request waits until it may read the journal.
const PERMIT_WAIT: Duration = Duration::from_secs(10);

/// Lists what became of an event for each endpoint that wanted it.
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
    let _permit = permit(&app, access.id()).await?;
    let mut budget = Budget::start();
    let found = scan::event(&app.log, access.id(), id, &mut budget).await?;
    let found = found.filter(|found| !access.hides(found.event_sequence));
    let endpoints = found.ok_or(Code::EventNotFound)?.endpoints.into_iter();
    let endpoints = endpoints.filter(|(endpoint, _)| !app.is_erased(*endpoint));
    let rest = endpoints.filter(|(endpoint, _)| after.is_none_or(|after| *endpoint > after));
    let page = Page::of(
        rest.take(limit + 1).collect(),
        limit,
        |(endpoint, _)| *endpoint,
        |(endpoint, routed)| DeliveryOfEvent::of(id, *endpoint, *routed),
    );
    Ok(Json(page))
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
    let _permit = permit(&app, access.id()).await?;
    let mut budget = Budget::start();
    let found = find(&app, &access, id, &mut budget).await?;
    let facts = scan::facts(&app.log, &found, None, FACTS_MAX, &mut budget).await?;
    if facts.next.is_some() {
        return Err(Code::JournalTooLong.into());
    }
    let mut view = DeliveryView::routed(access.id(), &found);
    for (_, record) in &facts.found {
        view.apply(&record.fact);
    }
    Ok(Json(view))
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
    let (limit, from) = (paging.limit()?, paging.after::<Place>()?);
    let _permit = permit(&app, access.id()).await?;
    let mut budget = Budget::start();
    let found = find(&app, &access, id, &mut budget).await?;
    let facts = scan::facts(&app.log, &found, from, limit, &mut budget).await?;
    let show = |(place, record): &(Place, _)| FactView::of(place.sequence, record);
    let data = facts.found.iter().filter_map(show).collect();
    Ok(Json(Page { data, next_cursor: facts.next.as_ref().map(cursor) }))
}

async fn find<P>(
    app: &App,
    access: &InTenant<P>,
    id: DeliveryId,
    budget: &mut Budget,
) -> Result<FoundDelivery, ApiError> {
    let found = scan::delivery(&app.log, access.id(), id, budget).await?;
    let is_shown = |found: &FoundDelivery| {
        !app.is_erased(found.endpoint) && !access.hides(found.event_sequence)
    };
    found.filter(is_shown).ok_or_else(|| Code::DeliveryNotFound.into())
}

/// Waits until the journal may be read: a few requests at once, so that they do not starve what
/// else the service does, and not all of them about one tenant.
pub(crate) async fn permit(app: &App, tenant: &TenantId) -> Result<Share, ApiError> {
    let until = Instant::now() + PERMIT_WAIT;
    app.scans.take(&Holder::Tenant(tenant.clone()), 1, until).await
}
