//! What can be asked for a delivery: to end it, or to make its next attempt now. The owner of its
//! shard carries that out.

mod turn;

use axum::{Json, extract::State, http::StatusCode};
use fanfare_delivery_log::DeliveryRow;
use fanfare_domain::{
    Command, CommandId, DeliveryId, DeliveryRef, Record, Timestamp,
    command::{Aim, Order},
};
use fanfare_service::random_bytes;
use serde::Serialize;
use utoipa::ToSchema;

use self::turn::Step;
use super::{find, state::DeliveryView};
use crate::{
    app::App,
    caller::{InTenant, Writes},
    error::{ApiError, Code},
    extract::PathId,
    lookup,
};

/// What became of what was asked for.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Taken {
    /// It is stored, and will be done within a moment.
    Accepted,
    /// There is nothing to do: the next attempt is due, and nothing but its turn is between it and the
    /// endpoint.
    UnderWay,
}

/// What was asked for is taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ordered {
    /// What became of it.
    outcome: Taken,
    /// Identifies the command; `null` if there was nothing to do.
    #[schema(required)]
    command_id: Option<String>,
    /// Where to look what came of it: the path of the delivery.
    look_at: String,
    /// The delivery as it stood before.
    delivery: DeliveryView,
}

/// A delivery that has not ended, and all that a command has to know of it.
struct Aimed {
    /// As it is shown.
    view: DeliveryView,
    /// As a command names it.
    aim: Aim,
}

/// Ends a delivery without another attempt. One that is in flight ends with its outcome: delivered
/// if the endpoint accepts it, and cancelled if not.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/deliveries/{delivery}/cancel", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("delivery" = String, Path, description = "The delivery's id"),
    ),
    responses((status = 202, body = Ordered)),
)]
pub(crate) async fn cancel_delivery(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<DeliveryId>,
) -> Result<(StatusCode, Json<Ordered>), ApiError> {
    let Aimed { view, aim } = open(&app, &access, id).await?;
    send(&app, &access, view, Order::Cancel(Box::new(aim))).await
}

/// Makes the next attempt of a delivery now, in place of the one that it waits for, and before others
/// that wait for their first. An attempt that waits for something else than its time or its turn is
/// not brought forward: while the endpoint is paused (`endpoint_paused`), or holds first attempts
/// back, or takes its events in order (`delivery_behind_others`; the detail says why).
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/deliveries/{delivery}/retry", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("delivery" = String, Path, description = "The delivery's id"),
    ),
    responses((status = 202, body = Ordered)),
)]
pub(crate) async fn retry_delivery(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<DeliveryId>,
) -> Result<(StatusCode, Json<Ordered>), ApiError> {
    let Aimed { view, aim } = open(&app, &access, id).await?;
    let endpoint = aim.delivery.endpoint;
    turn::unless_paused(&app, &access, endpoint)?;
    let waits = view.waits(app.now());
    let step = if aim.attempt == 1 || view.is_parked() {
        let obstacle = turn::obstacle(&app, &access, endpoint).await;
        turn::step(obstacle, (waits, view.is_parked()))
    } else if waits {
        Step::Order
    } else {
        Step::Nothing
    };
    match step {
        Step::Order => send(&app, &access, view, Order::RetryNow(Box::new(aim))).await,
        Step::Nothing => Ok(taken(&access, view, (Taken::UnderWay, None))),
        Step::Refuse(obstacle) => Err(obstacle.refused(access.id(), endpoint)),
    }
}

/// Finds a delivery that has not ended.
async fn open(app: &App, access: &InTenant<Writes>, id: DeliveryId) -> Result<Aimed, ApiError> {
    // Whatever happens while we look comes after this.
    let journal_sequence = app.log.journal_last().await?;
    let row = find(app, access, id).await?;
    let view = DeliveryView::of(&row);
    if view.has_ended() {
        let detail = format!(
            "it is {}: POST /v1/tenants/{}/deliveries/{id}/replay makes a new delivery of its event",
            view.state_name(),
            access.id(),
        );
        return Err(ApiError::detailed(Code::DeliveryConcluded, detail));
    }
    let fact = lookup::fact(app, &row).await?;
    let trace = fact.as_ref().map(|(record, _)| record.trace.clone()).unwrap_or_default();
    let aim = Aim {
        delivery: named(app, &row, fact).await?,
        attempt: row.attempts.saturating_add(1),
        untouched: row.standing.is_routed_only(),
        journal_sequence,
        trace,
    };
    Ok(Aimed { view, aim })
}

/// Names a delivery as the facts about it do; if its event's routing is all that is on record, as
/// they will.
async fn named(
    app: &App,
    row: &DeliveryRow,
    fact: Option<(Record, Timestamp)>,
) -> Result<DeliveryRef, ApiError> {
    if let Some(known) = fact.as_ref().and_then(|(record, _)| record.fact.delivery()) {
        return Ok(known.clone());
    }
    let made_at = fact.map_or(row.standing.since, |(_, stored_at)| stored_at);
    let stored = app.log.event(row.event_sequence).await?;
    let stored = stored.filter(|stored| stored.event.id == row.event);
    let stored = stored.ok_or(Code::EventNotFound)?;
    Ok(DeliveryRef {
        id: row.id,
        tenant: row.tenant.clone(),
        event: row.event,
        event_sequence: row.event_sequence,
        event_type: stored.event.event_type.clone(),
        endpoint: row.endpoint,
        generation: row.generation,
        accepted_at: if row.generation == 0 { stored.accepted_at } else { made_at },
    })
}

async fn send(
    app: &App,
    access: &InTenant<Writes>,
    view: DeliveryView,
    order: Order,
) -> Result<(StatusCode, Json<Ordered>), ApiError> {
    let endpoint = match &order {
        Order::Cancel(aim) | Order::RetryNow(aim) => aim.delivery.endpoint,
        Order::CancelAll { tenant: _, endpoint } => *endpoint,
    };
    let command = command(app, access, order);
    let pending = app.publisher.command(app.log.shards().of(endpoint), &command).await?;
    pending.stored().await?;
    Ok(taken(access, view, (Taken::Accepted, Some(command.id))))
}

/// Makes a command.
pub(crate) fn command(app: &App, access: &InTenant<Writes>, order: Order) -> Command {
    access.caller.begins_to_write();
    let asked_at = app.now();
    let id = CommandId::new(asked_at, random_bytes());
    Command { id, asked_at, actor: access.caller.actor(), order }
}

fn taken(
    access: &InTenant<Writes>,
    delivery: DeliveryView,
    (outcome, command): (Taken, Option<CommandId>),
) -> (StatusCode, Json<Ordered>) {
    let look_at = format!("/v1/tenants/{}/deliveries/{}", access.id(), delivery.id());
    let command_id = command.map(|id| id.to_string());
    (StatusCode::ACCEPTED, Json(Ordered { outcome, command_id, look_at, delivery }))
}
