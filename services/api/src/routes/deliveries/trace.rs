//! Where a delivery stands in traces: ids to look for in whatever keeps them.

use axum::{Json, extract::State};
use fanfare_domain::{DeliveryId, SpanId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{find, permit};
use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::ApiError,
    extract::PathId,
    scan::{Budget, FoundDelivery},
};

/// Where a delivery stands in traces. Its spans are there if its trace is sampled, or an attempt
/// failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryTrace {
    /// The trace: 32 hexadecimal digits.
    #[schema(example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: String,
    /// The span of the delivery, above those of its attempts: 16 hexadecimal digits.
    #[schema(example = "b7ad6b7169203331")]
    span_id: String,
    /// The delivery.
    delivery_id: String,
    /// What is delivered.
    event_id: String,
    /// Where it is delivered.
    endpoint_id: String,
    /// 0 for the delivery that the event's acceptance caused; counts replays, each of which has a
    /// trace of its own.
    generation: u32,
    /// When the event was accepted, in whole milliseconds.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// When the event was matched with its endpoints.
    #[schema(format = DateTime)]
    routed_at: String,
}

/// Shows where a delivery stands in traces.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/deliveries/{delivery}/trace", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("delivery" = String, Path, description = "The delivery's id"),
    ),
    responses((status = 200, body = DeliveryTrace)),
)]
pub(crate) async fn get_trace_of_delivery(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<DeliveryId>,
) -> Result<Json<DeliveryTrace>, ApiError> {
    let _permit = permit(&app, access.id()).await?;
    let found = find(&app, &access, id, &mut Budget::start()).await?;
    Ok(Json(DeliveryTrace::of(&found)))
}

impl DeliveryTrace {
    fn of(found: &FoundDelivery) -> Self {
        Self {
            trace_id: found.trace.to_string(),
            span_id: SpanId::delivery(found.id).to_string(),
            delivery_id: found.id.to_string(),
            event_id: found.event.to_string(),
            endpoint_id: found.endpoint.to_string(),
            generation: found.generation,
            accepted_at: found.event.time().to_string(),
            routed_at: found.routed_at.to_string(),
        }
    }
}
