//! Where a delivery stands in traces: ids to look for in whatever keeps them.

use axum::{Json, extract::State};
use fanfare_delivery_log::DeliveryRow;
use fanfare_domain::{DeliveryId, Place, SpanId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::find;
use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::PathId,
    lookup,
    scan::{self, Budget},
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
    /// When the event was matched with its endpoints; `null` if that was so long after its
    /// acceptance, or after the replay was asked for, that it is not looked for.
    #[schema(required, format = DateTime)]
    routed_at: Option<String>,
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
    let row = find(&app, &access, id).await?;
    let fact = lookup::fact(&app, &row).await?;
    let context = if let Some((record, _)) = &fact {
        record.trace.clone()
    } else {
        let stored = app.log.event(row.event_sequence).await?;
        let stored = stored.filter(|stored| stored.event.id == row.event);
        stored.ok_or(Code::EventNotFound)?.event.trace.clone()
    };
    let routed_at = match fact.filter(|_| row.standing.is_routed_only()) {
        Some((_, stored_at)) => Some(stored_at),
        None => routed_at(&app, &access, &row).await?,
    };
    let place = Place::of(row.event, &context, row.generation);
    Ok(Json(DeliveryTrace::of(&row, place, routed_at)))
}

/// Looks for the routing of a delivery about which more is on record.
async fn routed_at(
    app: &App,
    access: &InTenant<Reads>,
    row: &DeliveryRow,
) -> Result<Option<Timestamp>, ApiError> {
    let span = lookup::span_of(app, row).await?;
    let _permit = lookup::permit(app, access.id()).await?;
    let mut budget = Budget::start(app.journal_read_max);
    match scan::routing(&app.log, (access.id(), row.id), span, &mut budget).await {
        Ok(found) => Ok(found.map(|routing| routing.stored_at)),
        Err(error) if error.code() == Code::JournalTooLong => Ok(None),
        Err(error) => Err(error),
    }
}

impl DeliveryTrace {
    fn of(row: &DeliveryRow, place: Place, routed_at: Option<Timestamp>) -> Self {
        Self {
            trace_id: place.trace.to_string(),
            span_id: SpanId::delivery(row.id).to_string(),
            delivery_id: row.id.to_string(),
            event_id: row.event.to_string(),
            endpoint_id: row.endpoint.to_string(),
            generation: row.generation,
            accepted_at: row.event.time().to_string(),
            routed_at: routed_at.map(|at| at.to_string()),
        }
    }
}
