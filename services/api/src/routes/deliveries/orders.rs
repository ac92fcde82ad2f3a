//! What can be asked for a delivery: to end it, or to make its next attempt now. The owner of its
//! shard carries that out.

use axum::{Json, extract::State, http::StatusCode};
use fanfare_domain::{
    Command, CommandId, DeliveryId, DeliveryRef, Fact, TraceContext,
    command::{Aim, Order},
};
use fanfare_service::random_bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::{FACTS_MAX, find, permit, state::DeliveryView};
use crate::{
    app::App,
    caller::{InTenant, Writes},
    error::{ApiError, Code},
    extract::PathId,
    scan::{self, Budget, FoundDelivery},
};

/// What became of what was asked for.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Taken {
    /// It is stored, and will be done within a moment.
    Accepted,
    /// There is nothing to do: the next attempt is due, and under way or as good as.
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

/// A delivery, and all that a command has to know of it.
pub(crate) struct Aimed {
    /// As it is shown.
    pub(crate) view: DeliveryView,
    /// As a command names it.
    pub(crate) aim: Aim,
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

/// Makes the next attempt of a delivery now, in place of the one that it waits for.
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
    if !view.waits(app.now()) {
        return Ok(taken(&access, view, (Taken::UnderWay, None)));
    }
    send(&app, &access, view, Order::RetryNow(Box::new(aim))).await
}

/// Finds a delivery that has not ended.
async fn open(app: &App, access: &InTenant<Writes>, id: DeliveryId) -> Result<Aimed, ApiError> {
    let aimed = aim(app, access, id).await?;
    if aimed.view.has_ended() {
        let detail = format!(
            "it is {}: POST /v1/tenants/{}/deliveries/{id}/replay makes a new delivery of its event",
            aimed.view.state_name(),
            access.id(),
        );
        return Err(ApiError::detailed(Code::DeliveryConcluded, detail));
    }
    Ok(aimed)
}

/// Finds a delivery, with how it stands.
pub(crate) async fn aim(
    app: &App,
    access: &InTenant<Writes>,
    id: DeliveryId,
) -> Result<Aimed, ApiError> {
    let _permit = permit(app, access.id()).await?;
    let mut budget = Budget::start();
    // Whatever happens while we look comes after this.
    let journal_sequence = app.log.journal_last().await?;
    let found = find(app, access, id, &mut budget).await?;
    let facts = scan::facts(&app.log, &found, None, FACTS_MAX, &mut budget).await?;
    if facts.next.is_some() {
        return Err(Code::JournalTooLong.into());
    }
    let mut view = DeliveryView::routed(access.id(), &found);
    let (mut known, mut attempt, mut trace) = (None, 1, TraceContext::default());
    for (_, record) in &facts.found {
        view.apply(&record.fact);
        attempt = next_attempt(&record.fact).unwrap_or(attempt);
        known = record.fact.delivery().or(known);
        trace.clone_from(&record.trace);
    }
    let untouched = known.is_none();
    let delivery = match known {
        Some(known) => known.clone(),
        None => named(app, access, &found).await?,
    };
    Ok(Aimed { view, aim: Aim { delivery, attempt, untouched, journal_sequence, trace } })
}

/// Names a delivery of which nothing but its routing is on record.
async fn named(
    app: &App,
    access: &InTenant<Writes>,
    found: &FoundDelivery,
) -> Result<DeliveryRef, ApiError> {
    let stored = app.log.event(found.event_sequence).await?;
    let stored = stored.filter(|stored| stored.event.id == found.event);
    let stored = stored.ok_or(Code::EventNotFound)?;
    Ok(DeliveryRef {
        id: found.id,
        tenant: access.id().clone(),
        event: found.event,
        event_sequence: found.event_sequence,
        event_type: stored.event.event_type.clone(),
        endpoint: found.endpoint,
        generation: found.generation,
        accepted_at: if found.generation == 0 { stored.accepted_at } else { found.routed_at },
    })
}

fn next_attempt(fact: &Fact) -> Option<u32> {
    match fact {
        Fact::AttemptMade(made) => Some(made.attempt.saturating_add(1)),
        Fact::RetryScheduled(scheduled) => Some(scheduled.attempt),
        Fact::DeliveryDeferred(deferred) => Some(deferred.attempt),
        Fact::DeliveryParked(parked) => Some(parked.attempt),
        Fact::DeliveryConcluded(_)
        | Fact::ShardClaimed(_)
        | Fact::ShardReleased(_)
        | Fact::EventRouted(_) => None,
    }
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
