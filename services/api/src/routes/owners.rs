//! Whose something is, for operators who have nothing but its id.

use axum::{Json, extract::State};
use fanfare_domain::{DeliveryId, EventId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::{Operator, Reads},
    error::{ApiError, Code},
    extract::PathId,
    lookup::{self, Wanted},
};

/// Whose a delivery is.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "they are the names that the API has for ids")]
pub(crate) struct DeliveryOwner {
    /// The delivery.
    delivery_id: String,
    /// Whose it is.
    tenant_id: String,
    /// What is delivered.
    event_id: String,
    /// Where it is delivered.
    endpoint_id: String,
}

/// Whose an event is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventOwner {
    /// The event.
    event_id: String,
    /// Whose it is.
    tenant_id: String,
}

/// Tells an operator whose a delivery is.
#[utoipa::path(
    get, path = "/v1/deliveries/{delivery}", tag = "deliveries",
    params(("delivery" = String, Path, description = "The delivery's id")),
    responses((status = 200, body = DeliveryOwner)),
)]
pub(crate) async fn get_owner_of_delivery(
    State(app): State<App>,
    _access: Operator<Reads>,
    PathId(id): PathId<DeliveryId>,
) -> Result<Json<DeliveryOwner>, ApiError> {
    let found = lookup::owner(&app, Wanted::Delivery(id)).await?;
    let (endpoint, found) =
        found.and_then(|found| Some((found.endpoint?, found))).ok_or(Code::DeliveryNotFound)?;
    Ok(Json(DeliveryOwner {
        delivery_id: id.to_string(),
        tenant_id: found.tenant.to_string(),
        event_id: found.event.to_string(),
        endpoint_id: endpoint.to_string(),
    }))
}

/// Tells an operator whose an event is, once it was matched with endpoints.
#[utoipa::path(
    get, path = "/v1/events/{event}", tag = "events",
    params(("event" = String, Path, description = "The event's id")),
    responses((status = 200, body = EventOwner)),
)]
pub(crate) async fn get_owner_of_event(
    State(app): State<App>,
    _access: Operator<Reads>,
    PathId(id): PathId<EventId>,
) -> Result<Json<EventOwner>, ApiError> {
    let found = lookup::owner(&app, Wanted::Event(id)).await?.ok_or(Code::EventNotFound)?;
    let (event_id, tenant_id) = (found.event.to_string(), found.tenant.to_string());
    Ok(Json(EventOwner { event_id, tenant_id }))
}
