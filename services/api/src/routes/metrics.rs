//! What the process counts, for operators.

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use fanfare_service::METRICS_TYPE;

use crate::{app::App, caller::Watcher};

/// Tells what this process counts, in the text format of Prometheus. For an operator's key.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(app): State<App>, _watcher: Watcher) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], app.metrics.text()).into_response()
}
