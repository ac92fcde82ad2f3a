//! Replays: new deliveries of past events. They are kept as jobs, which fan-out does.

mod view;

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State, http::StatusCode};
use fanfare_delivery_log::{DeliveryRow, State as Standing};
use fanfare_domain::{
    DeliveryId, EndpointId, JobId, Replay, TenantId, Timestamp, TypePattern,
    job::{JobState, Past, Progress, Range, Scope},
};
use fanfare_event_log::{JobWritten, StoredReplay};
use fanfare_service::random_bytes;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::{InTenant, Reads, Writes},
    error::{ApiError, Code},
    extract::{Body, OptionalBody, Params, PathId},
    lookup,
    page::{Page, Paging},
    routes::deliveries::{self, state::DeliveryView},
};

use view::{ReplayView, WhichName};

/// How often a cancellation is tried while the replay comes on at the same time.
const TRIES_MAX: usize = 32;
/// The most replays of a tenant that are not over.
const RUNNING_MAX: usize = 20;
/// The most patterns of event types.
const TYPES_MAX: usize = 100;

/// What to replay of a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewReplay {
    /// The first instant (RFC 3339): events accepted from then on.
    #[schema(format = DateTime)]
    since: String,
    /// The last instant; now if left out.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// Only events of these types: patterns. Of all that the endpoints want if left out.
    #[serde(default)]
    event_types: Vec<String>,
    /// Which of them.
    #[serde(default)]
    which: WhichName,
}

/// What to replay to an endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointReplay {
    /// The first instant (RFC 3339): events accepted from then on.
    #[schema(format = DateTime)]
    since: String,
    /// The last instant; now if left out.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// Which of them.
    #[serde(default)]
    which: WhichName,
}

/// What is to be sent again: particular deliveries, or all dead letters of an endpoint.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redrive {
    /// Up to 1,000 deliveries, each of which has ended and was not delivered, however it ended.
    #[serde(default)]
    deliveries: Vec<String>,
    /// All dead letters of this endpoint: the deliveries that are exhausted, as the list of dead
    /// letters has them. What was refused or cancelled is left out.
    endpoint_id: Option<String>,
}

/// Makes a new delivery of a delivery's event to its endpoint. It has an id of its own, and its
/// attempts are counted anew.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/deliveries/{delivery}/replay", tag = "replays",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("delivery" = String, Path, description = "The delivery's id"),
    ),
    responses((status = 202, body = ReplayView)),
)]
pub(crate) async fn replay_delivery(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<DeliveryId>,
) -> Result<(StatusCode, Json<ReplayView>), ApiError> {
    let row = deliveries::find(&app, &access, id).await?;
    if !DeliveryView::of(&row).has_ended() {
        let detail = "it has not ended: retry it, or cancel it first";
        return Err(ApiError::detailed(Code::DeliveryUnderWay, detail));
    }
    create(&app, &access, Scope::Only(vec![past(&row)])).await
}

/// Makes new deliveries to an endpoint of events of a time.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/replay", tag = "replays",
    request_body = EndpointReplay,
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
    ),
    responses((status = 202, body = ReplayView)),
)]
pub(crate) async fn replay_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    Body(new): Body<EndpointReplay>,
) -> Result<(StatusCode, Json<ReplayView>), ApiError> {
    let found = app.directory.read(|directory| directory.endpoint(access.id(), id));
    found.ok_or(Code::EndpointNotFound)?;
    let EndpointReplay { since, until, which } = new;
    let (since, until) = times(&app, &since, until.as_deref())?;
    let (endpoint, types, which) = (Some(id), Vec::new(), which.into());
    create(&app, &access, Scope::Range(Range { endpoint, since, until, types, which })).await
}

/// Makes new deliveries of events of a time, to all endpoints of the tenant.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/replays", tag = "replays", request_body = NewReplay,
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 202, body = ReplayView)),
)]
pub(crate) async fn create_replay(
    State(app): State<App>,
    access: InTenant<Writes>,
    Body(new): Body<NewReplay>,
) -> Result<(StatusCode, Json<ReplayView>), ApiError> {
    let NewReplay { since, until, event_types, which } = new;
    let (since, until) = times(&app, &since, until.as_deref())?;
    if event_types.len() > TYPES_MAX {
        return Err(ApiError::value("event_types", format_args!("{TYPES_MAX} at most")));
    }
    let types = event_types
        .iter()
        .map(|text| text.parse::<TypePattern>().map_err(|why| ApiError::value("event_types", why)));
    let (endpoint, types, which) = (None, types.collect::<Result<_, _>>()?, which.into());
    create(&app, &access, Scope::Range(Range { endpoint, since, until, types, which })).await
}

/// Sends dead letters again: makes new deliveries of particular deliveries that failed, or of all that
/// are exhausted of an endpoint.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/dead-letters/redrive", tag = "replays",
    request_body = Redrive,
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 202, body = ReplayView)),
)]
pub(crate) async fn redrive_dead_letters(
    State(app): State<App>,
    access: InTenant<Writes>,
    OptionalBody(redrive): OptionalBody<Redrive>,
) -> Result<(StatusCode, Json<ReplayView>), ApiError> {
    let Redrive { deliveries, endpoint_id } = redrive;
    match (deliveries.is_empty(), endpoint_id) {
        (false, None) => {
            let past = failed(&app, &access, &deliveries).await?;
            create(&app, &access, Scope::Only(past)).await
        }
        (true, Some(endpoint)) => {
            let endpoint: EndpointId =
                endpoint.parse().map_err(|why| ApiError::value("endpoint_id", why))?;
            let found = app.directory.read(|directory| directory.endpoint(access.id(), endpoint));
            found.ok_or(Code::EndpointNotFound)?;
            let (since, until, which) = (Timestamp::EPOCH, app.now(), WhichName::Exhausted.into());
            let (endpoint, types) = (Some(endpoint), Vec::new());
            let range = Range { endpoint, since, until, types, which };
            create(&app, &access, Scope::Range(range)).await
        }
        (_, _) => {
            Err(ApiError::value("deliveries", "name deliveries, or an endpoint_id, and not both"))
        }
    }
}

/// Lists a tenant's replays, the oldest first.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/replays", tag = "replays",
    params(("tenant" = String, Path, description = "The tenant's id"), Paging),
    responses((status = 200, body = Page<ReplayView>)),
)]
pub(crate) async fn list_replays(
    State(app): State<App>,
    access: InTenant<Reads>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<ReplayView>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<JobId>()?);
    app.jobs.confirm().await?;
    let found: Vec<_> = app.jobs.read(|jobs| {
        let all = jobs.of_tenant(access.id());
        let all = all.filter(|it| !access.hides_replay(it.replay.created_at));
        let rest = all.filter(|it| after.is_none_or(|after| it.replay.id > after));
        rest.take(limit + 1).cloned().collect()
    });
    let page = Page::of(
        found,
        limit,
        |stored| stored.replay.id,
        |stored| ReplayView::of(&stored.replay, stored.generation()),
    );
    Ok(Json(page))
}

/// Shows a replay, and how far it is.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/replays/{replay}", tag = "replays",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("replay" = String, Path, description = "The replay's id"),
    ),
    responses((status = 200, body = ReplayView)),
)]
pub(crate) async fn get_replay(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<JobId>,
) -> Result<Json<ReplayView>, ApiError> {
    app.jobs.confirm().await?;
    let stored = find(&app, &access, id)?;
    Ok(Json(ReplayView::of(&stored.replay, stored.generation())))
}

/// Cancels a replay: it makes no more deliveries. Those that it has made go on.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/replays/{replay}/cancel", tag = "replays",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("replay" = String, Path, description = "The replay's id"),
    ),
    responses((status = 200, body = ReplayView)),
)]
pub(crate) async fn cancel_replay(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<JobId>,
) -> Result<Json<ReplayView>, ApiError> {
    cancel(&app, &access, id).await.map(Json)
}

async fn cancel(app: &App, access: &InTenant<Writes>, id: JobId) -> Result<ReplayView, ApiError> {
    for _ in 0..TRIES_MAX {
        app.jobs.confirm().await?;
        let stored = find(app, access, id)?;
        let generation = stored.generation();
        if stored.replay.is_over() {
            return Ok(ReplayView::of(&stored.replay, generation));
        }
        let replay = Replay { generation, ..stored.replay.cancelled(app.now()) };
        access.caller.begins_to_write();
        match app.log.write_replay(&replay, stored.revision).await? {
            JobWritten::Stored(_) => return Ok(ReplayView::of(&replay, generation)),
            JobWritten::Conflict => {}
            JobWritten::Gone => return Err(Code::ReplayNotFound.into()),
        }
    }
    Err(Code::ChangedMeanwhile.into())
}

/// Finds a replay of the tenant.
fn find<P>(app: &App, access: &InTenant<P>, id: JobId) -> Result<StoredReplay, ApiError> {
    let stored = app.jobs.read(|jobs| jobs.replay(id).cloned());
    let stored = stored.filter(|stored| stored.replay.tenant == *access.id());
    let shown = stored.filter(|stored| !access.hides_replay(stored.replay.created_at));
    shown.ok_or_else(|| Code::ReplayNotFound.into())
}

/// Finds deliveries that ended and were not delivered, and refuses others.
async fn failed(
    app: &App,
    access: &InTenant<Writes>,
    deliveries: &[String],
) -> Result<Vec<Past>, ApiError> {
    if deliveries.len() > Replay::ONLY_MAX {
        return Err(ApiError::value("deliveries", format_args!("{} at most", Replay::ONLY_MAX)));
    }
    let ids = deliveries.iter().map(|text| text.parse::<DeliveryId>());
    let ids: Vec<_> =
        ids.collect::<Result<_, _>>().map_err(|why| ApiError::value("deliveries", why))?;
    let wanted: BTreeSet<DeliveryId> = ids.iter().copied().collect();
    let found = lookup::ended(app, access.id(), &wanted).await?;
    let mut rows = Vec::with_capacity(wanted.len());
    for id in wanted {
        let shown = found.get(&id).filter(|row| !access.hides(row.event_sequence));
        let Some(row) = shown else {
            let detail = format!("{id} is not one that has ended");
            return Err(ApiError::detailed(Code::DeliveryUnderWay, detail));
        };
        if row.standing.state == Standing::Delivered {
            let detail = format!("{id} did not fail: it was delivered");
            return Err(ApiError::detailed(Code::DeliveryConcluded, detail));
        }
        rows.push(row);
    }
    // Those of one event go together.
    rows.sort_unstable_by_key(|row| (row.event_sequence, row.endpoint));
    let mut all: Vec<Past> = rows.into_iter().map(past).collect();
    all.dedup();
    Ok(all)
}

/// What a replay makes anew.
fn past(row: &DeliveryRow) -> Past {
    Past { event: row.event, event_sequence: row.event_sequence, endpoint: row.endpoint }
}

/// Reads a time from its first to its last instant.
fn times(app: &App, since: &str, until: Option<&str>) -> Result<(Timestamp, Timestamp), ApiError> {
    let read = |field: &'static str, text: &str| {
        Timestamp::parse(text).ok_or_else(|| ApiError::value(field, "it is not RFC 3339"))
    };
    let (since, now) = (read("since", since)?, app.now());
    let until = until.map(|text| read("until", text)).transpose()?;
    let until = until.unwrap_or(now).min(now);
    if since > until {
        return Err(ApiError::value("since", "it lies after the end"));
    }
    Ok((since, until))
}

async fn create(
    app: &App,
    access: &InTenant<Writes>,
    scope: Scope,
) -> Result<(StatusCode, Json<ReplayView>), ApiError> {
    app.jobs.confirm().await?;
    if running_before(app, access.id(), u32::MAX) >= RUNNING_MAX {
        return Err(Code::ReplaysLimit.into());
    }
    let created_at = app.now();
    let replay = Replay {
        id: JobId::new(created_at, random_bytes()),
        tenant: access.id().clone(),
        actor: access.caller.actor(),
        reason: access.caller.reason.clone(),
        created_at,
        scope,
        generation: 0,
        state: JobState::Running,
        progress: Progress { updated_at: created_at, ..Progress::default() },
        behind: BTreeMap::new(),
    };
    access.caller.begins_to_write();
    match app.log.write_replay(&replay, 0).await? {
        JobWritten::Stored(revision) => {
            unless_deleted(app, access, &replay, revision).await?;
            let generation = u32::try_from(revision).unwrap_or(u32::MAX);
            app.jobs.confirm().await?;
            // Of those that were asked for at the same time, those are too many that JOBS has later.
            if running_before(app, access.id(), generation) >= RUNNING_MAX {
                cancel(app, access, replay.id).await?;
                return Err(Code::ReplaysLimit.into());
            }
            Ok((StatusCode::ACCEPTED, Json(ReplayView::of(&replay, generation))))
        }
        JobWritten::Conflict | JobWritten::Gone => Err(Code::ChangedMeanwhile.into()),
    }
}

/// Cancels what was made, if the tenant was deleted meanwhile.
async fn unless_deleted(
    app: &App,
    access: &InTenant<Writes>,
    replay: &Replay,
    revision: u64,
) -> Result<(), ApiError> {
    app.confirm().await?;
    if access.is_there(app) {
        return Ok(());
    }
    let progress = Progress { updated_at: app.now(), ..replay.progress };
    let replay = Replay { state: JobState::Cancelled, progress, ..replay.clone() };
    // If somebody else has changed it, that was the tenant's removal.
    app.log.write_replay(&replay, revision).await?;
    Err(Code::TenantNotFound.into())
}

/// How many replays of a tenant are under way that were asked for before one.
fn running_before(app: &App, tenant: &TenantId, generation: u32) -> usize {
    let counts =
        |stored: &&StoredReplay| !stored.replay.is_over() && stored.generation() < generation;
    app.jobs.read(|jobs| jobs.of_tenant(tenant).filter(counts).count())
}
