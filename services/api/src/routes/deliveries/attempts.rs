//! Attempts, from the delivery log, with the whole request and the answer.

use axum::{Json, extract::State};
use fanfare_delivery_log::{AttemptRow, DeliveryRow, Store};
use fanfare_domain::{DeliveryId, profile::Profile};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    request::{SentRequest, sent},
    view::{HeaderView, InBatchView, OutcomeName, millis},
};
use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::{AttemptNumber, Params, PathId},
    page::{Page, Paging},
};

/// One HTTP request of a delivery, in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct AttemptView {
    /// Counts from 1.
    attempt: u32,
    /// When the request was begun; also the time that it was signed with.
    #[schema(format = DateTime)]
    started_at: String,
    /// From the beginning to the outcome, in milliseconds.
    duration_ms: u64,
    /// How long it took until a connection was made for the request, in milliseconds: name, TCP and
    /// TLS. `null` if it went over one that was there already, or none came about.
    #[schema(required)]
    connect_ms: Option<u64>,
    /// How long it took until the head of the answer was there, in milliseconds; `null` if none came.
    #[schema(required)]
    first_byte_ms: Option<u64>,
    /// What came of it.
    outcome: OutcomeName,
    /// The status that the endpoint answered with, or the one that the tenant's profile shows for a
    /// time-out; `null` if there is neither.
    #[schema(required)]
    status: Option<u16>,
    /// Why no answer came; `null` if one did.
    #[schema(required, example = "timed_out")]
    fault: Option<&'static str>,
    /// More about why it failed, for people; may be empty.
    detail: String,
    /// The revision of the configuration that the request was made with.
    config_revision: u64,
    /// The URL that the request went to.
    url: String,
    /// When the next attempt is due; `null` if there is to be none.
    #[schema(required, format = DateTime)]
    retry_at: Option<String>,
    /// The batch that the request was, if it carried several deliveries; otherwise `null`.
    #[schema(required)]
    batch: Option<InBatchView>,
}

/// One HTTP request of a delivery, whole, and its answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptWithMessages {
    #[serde(flatten)]
    attempt: AttemptView,
    /// The delivery.
    delivery_id: String,
    /// What was delivered.
    event_id: String,
    /// Where it was delivered.
    endpoint_id: String,
    /// What was sent.
    request: SentRequest,
    /// What was answered; `null` if no answer came.
    #[schema(required)]
    response: Option<ResponseView>,
}

/// What an endpoint answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Response)]
pub(crate) struct ResponseView {
    /// The status.
    status: u16,
    /// The head.
    headers: Vec<HeaderView>,
    /// The first 16 KiB of the body; what is not UTF-8 is replaced.
    body: String,
    /// Whether the body was longer, or broke off.
    truncated: bool,
}

/// Lists the attempts of a delivery, first one first.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/deliveries/{delivery}/attempts", tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("delivery" = String, Path, description = "The delivery's id"),
        Paging,
    ),
    responses((status = 200, body = Page<AttemptView>)),
)]
pub(crate) async fn list_attempts(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<DeliveryId>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<AttemptView>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<u32>()?);
    let profile = app.profile(&access.tenant.value.profile)?;
    let (store, delivery) = find(&app, &access, id).await?;
    let found = store.attempts_after(delivery.id, after.unwrap_or(0), limit + 1).await?;
    let show = |row: &AttemptRow| AttemptView::of(row, profile);
    Ok(Json(Page::of(found, limit, |row| row.number, show)))
}

/// Shows an attempt: the whole request as it was sent, and the answer.
///
/// The request is rebuilt from the event, the tenant's profile and the endpoint as it was at that
/// revision; `fidelity` says how sure that is. Of the endpoint's own headers, which may be secrets,
/// only `accept`, `accept-language`, `cache-control`, `content-language`, `from` and `user-agent` show
/// their value. Not shown are `host`, `content-length` and a `user-agent` that the endpoint does not
/// set.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/deliveries/{delivery}/attempts/{attempt}",
    tag = "deliveries",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("delivery" = String, Path, description = "The delivery's id"),
        ("attempt" = u32, Path, description = "The attempt's number, from 1"),
    ),
    responses((status = 200, body = AttemptWithMessages)),
)]
pub(crate) async fn get_attempt(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<DeliveryId>,
    PathId(AttemptNumber(number)): PathId<AttemptNumber>,
) -> Result<Json<AttemptWithMessages>, ApiError> {
    let profile = app.profile(&access.tenant.value.profile)?;
    let (store, delivery) = find(&app, &access, id).await?;
    let row = store.attempt(delivery.id, number).await?.ok_or(Code::AttemptNotFound)?;
    let request = sent(&app, &store, profile, (&delivery, &row)).await?;
    Ok(Json(AttemptWithMessages {
        attempt: AttemptView::of(&row, profile),
        delivery_id: delivery.id.to_string(),
        event_id: delivery.event.to_string(),
        endpoint_id: delivery.endpoint.to_string(),
        request,
        response: ResponseView::of(&row),
    }))
}

async fn find(
    app: &App,
    access: &InTenant<Reads>,
    id: DeliveryId,
) -> Result<(Store, DeliveryRow), ApiError> {
    let store = app.delivery_log().await?;
    let found = store.delivery(access.id(), id).await?;
    let is_gone =
        |row: &DeliveryRow| app.is_erased(row.endpoint) || access.hides(row.event_sequence);
    let found = found.filter(|row| !is_gone(row));
    Ok((store, found.ok_or(Code::DeliveryNotFound)?))
}

impl AttemptView {
    fn of(row: &AttemptRow, profile: &Profile) -> Self {
        let (outcome, fault) = OutcomeName::of(&row.outcome);
        Self {
            attempt: row.number,
            started_at: row.started_at.to_string(),
            duration_ms: row.duration_nanos / 1_000_000,
            connect_ms: row.timing.connect.map(millis),
            first_byte_ms: row.timing.first_byte.map(millis),
            outcome,
            status: profile.shown_status(&row.outcome),
            fault,
            detail: row.detail.clone(),
            config_revision: row.config_revision,
            url: row.url.clone(),
            retry_at: row.retry_at.map(|at| at.to_string()),
            batch: row.batch.map(InBatchView::of),
        }
    }
}

impl ResponseView {
    fn of(row: &AttemptRow) -> Option<Self> {
        Some(Self {
            status: row.outcome.status()?,
            headers: row.response_headers.iter().map(HeaderView::of).collect(),
            body: String::from_utf8_lossy(&row.response_body).into_owned(),
            truncated: row.response_truncated,
        })
    }
}
