//! Ending all that is to be delivered to an endpoint.

use axum::{Json, extract::State, http::StatusCode};
use fanfare_domain::{Endpoint, EndpointId, command::Order};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    app::{App, Edited},
    caller::{InTenant, Writes},
    directory::Directory,
    error::{ApiError, Code},
    etag::IfMatch,
    extract::PathId,
    routes::deliveries::orders::command,
};

/// All of an endpoint's deliveries are being ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AllCancelled {
    /// Identifies the command.
    command_id: String,
    /// Deliveries of events accepted before this end.
    #[schema(format = DateTime)]
    before: String,
}

/// Ends every delivery to an endpoint whose event was accepted until now, without another attempt.
/// None of them is begun from then on; that each has ended is on record within a moment, or once
/// its turn would have come.
///
/// This may be asked for five times at once for an endpoint, and then once a second.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/cancel-deliveries", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
    ),
    responses((status = 202, body = AllCancelled)),
)]
pub(crate) async fn cancel_deliveries(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
) -> Result<(StatusCode, Json<AllCancelled>), ApiError> {
    app.paces.cancels.admit(format!("{}/{id}", access.id()), Instant::now())?;
    let mut command =
        command(&app, &access, Order::CancelAll { tenant: access.id().clone(), endpoint: id });
    let edit = |endpoint: &Endpoint| {
        let cancelled_before = Some(app.now());
        Ok(Edited::Changed(Endpoint { cancelled_before, ..endpoint.clone() }))
    };
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    let edited = app.edit(&access.caller, &IfMatch::Absent, find, edit).await?;
    let endpoint = edited.ok_or(Code::EndpointNotFound)?.value;
    command.asked_at = endpoint.cancelled_before.unwrap_or(command.asked_at);
    let pending = app.publisher.command(app.log.shards().of(id), &command).await?;
    pending.stored().await?;
    let (command_id, before) = (command.id.to_string(), command.asked_at.to_string());
    Ok((StatusCode::ACCEPTED, Json(AllCancelled { command_id, before })))
}
