//! What a load balancer asks.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;

/// Whether the process is of use.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub(crate) struct HealthView {
    /// False once a task has failed: the process is about to end.
    live: bool,
    /// Whether requests should be sent here.
    ready: bool,
    /// What has to hold for the process to be ready.
    conditions: Vec<ConditionView>,
}

/// One thing that has to hold for a process to be ready.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Condition)]
pub(crate) struct ConditionView {
    /// Its name.
    #[schema(example = "api/directory")]
    name: String,
    /// Whether it holds.
    met: bool,
}

/// Tells whether the process works at all.
#[utoipa::path(
    get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, body = HealthView), (status = 503, body = HealthView)),
)]
pub(crate) async fn live(State(app): State<App>) -> Response {
    let view = view(&app);
    answer(view.live, view)
}

/// Tells whether requests should be sent here.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = HealthView), (status = 503, body = HealthView)),
)]
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let view = view(&app);
    answer(view.ready, view)
}

fn view(app: &App) -> HealthView {
    let report = app.health.report();
    let connected = app.log.is_connected();
    // Why a condition does not hold may name hosts and errors: that is for the log.
    let own = ConditionView { name: String::from("api/log"), met: connected };
    let others = report.conditions.into_iter();
    let others = others.map(|other| ConditionView { name: other.name, met: other.unmet.is_none() });
    let conditions = others.chain([own]).collect();
    HealthView { live: report.live, ready: report.ready && connected, conditions }
}

fn answer(good: bool, view: HealthView) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(view)).into_response()
}
