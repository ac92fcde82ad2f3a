//! How an endpoint did lately.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};
use fanfare_delivery_log::{Attempts, Latency, State as Standing, Statistics};
use fanfare_domain::{EndpointId, Fault};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::{InTenant, Reads},
    error::{ApiError, Code},
    extract::{Params, PathId},
};

/// For which time.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatisticsQuery {
    /// How far back to look.
    #[serde(default)]
    window: Window,
}

/// A time that ends now.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
pub(crate) enum Window {
    /// The last hour.
    #[serde(rename = "1h")]
    Hour,
    /// The last 24 hours.
    #[default]
    #[serde(rename = "24h")]
    Day,
    /// The last seven days.
    #[serde(rename = "7d")]
    Week,
}

/// How an endpoint did lately.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Statistics)]
pub(crate) struct StatisticsView {
    /// For which time.
    window: Window,
    /// When that began: at a full minute.
    #[schema(format = DateTime)]
    since: String,
    /// How the deliveries of events accepted since then stand.
    deliveries: DeliveryCounts,
    /// The share of those delivered among those that were delivered, exhausted or refused; `null`
    /// if there are none.
    #[schema(required, example = 0.98)]
    success_rate: Option<f64>,
    /// The attempts begun since then.
    attempts: AttemptCounts,
    /// How long these took; `null` if there are none.
    #[schema(required)]
    latency_ms: Option<LatencyView>,
}

/// How many deliveries stand how.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryCounts {
    /// No attempt was made yet.
    pending: u64,
    /// An attempt failed, and another one is to come.
    retrying: u64,
    /// They wait for the endpoint to be resumed.
    parked: u64,
    /// The endpoint was paused, and skips what comes meanwhile.
    skipped: u64,
    /// The endpoint accepted them.
    delivered: u64,
    /// Every attempt failed, or their time ran out.
    exhausted: u64,
    /// The endpoint answered with a status that is final.
    refused: u64,
    /// They were cancelled.
    cancelled: u64,
}

/// What came of how many attempts.
#[derive(Debug, Serialize, ToSchema)]
struct AttemptCounts {
    /// All of them.
    total: u64,
    /// The endpoint answered with a status that the profile counts as success.
    accepted: u64,
    /// The endpoint answered with any other status.
    refused: u64,
    /// No answer came.
    failed: u64,
    /// How many were answered with each status.
    #[schema(example = json!({"200": 97, "503": 2}))]
    by_status: BTreeMap<u16, u64>,
    /// How many got no answer for each reason.
    #[schema(example = json!({"timed_out": 1}))]
    by_fault: BTreeMap<&'static str, u64>,
}

/// How long attempts took, in milliseconds: that many per cent of them took no longer. From 32 ms on
/// it is rounded up by less than a sixteenth.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Latency)]
struct LatencyView {
    p50: u64,
    p95: u64,
    p99: u64,
}

/// Counts how an endpoint did lately: its deliveries, its attempts, and how long these took.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/statistics", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        StatisticsQuery,
    ),
    responses((status = 200, body = StatisticsView)),
)]
pub(crate) async fn get_endpoint_statistics(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<EndpointId>,
    Params(query): Params<StatisticsQuery>,
) -> Result<Json<StatisticsView>, ApiError> {
    let known = app.directory.read(|directory| directory.endpoint(access.id(), id));
    known.ok_or(Code::EndpointNotFound)?;
    let since = app.now().saturating_sub(query.window.length());
    let found = app.delivery_log().await?.statistics(id, since).await?;
    Ok(Json(StatisticsView::of(&found, query.window)))
}

impl Window {
    const fn length(self) -> Duration {
        match self {
            Self::Hour => Duration::from_hours(1),
            Self::Day => Duration::from_hours(24),
            Self::Week => Duration::from_hours(7 * 24),
        }
    }
}

impl StatisticsView {
    fn of(found: &Statistics, window: Window) -> Self {
        let deliveries = DeliveryCounts::of(found);
        Self {
            window,
            since: found.since.to_string(),
            success_rate: deliveries.success_rate(),
            deliveries,
            attempts: AttemptCounts::of(&found.attempts),
            latency_ms: found.attempts.latency.map(LatencyView::of),
        }
    }
}

impl DeliveryCounts {
    fn of(found: &Statistics) -> Self {
        let count = |state| found.deliveries.get(&state).copied().unwrap_or(0);
        Self {
            pending: count(Standing::Pending),
            retrying: count(Standing::Retrying),
            parked: count(Standing::Parked),
            skipped: count(Standing::Skipped),
            delivered: count(Standing::Delivered),
            exhausted: count(Standing::Exhausted),
            refused: count(Standing::Refused),
            cancelled: count(Standing::Cancelled),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn success_rate(&self) -> Option<f64> {
        let ended = self.delivered + self.exhausted + self.refused;
        (ended > 0).then(|| self.delivered as f64 / ended as f64)
    }
}

impl AttemptCounts {
    fn of(attempts: &Attempts) -> Self {
        let fault = |(fault, count): (&Fault, &u64)| (fault.as_str(), *count);
        Self {
            total: attempts.total(),
            accepted: attempts.accepted,
            refused: attempts.refused,
            failed: attempts.failed,
            by_status: attempts.statuses.clone(),
            by_fault: attempts.faults.iter().map(fault).collect(),
        }
    }
}

impl LatencyView {
    fn of(latency: Latency) -> Self {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { p50: millis(latency.p50), p95: millis(latency.p95), p99: millis(latency.p99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_those_that_have_ended_by_attempts() {
        let mut found = Statistics::default();
        let rate = |found: &Statistics| StatisticsView::of(found, Window::Hour).success_rate;
        found.deliveries.insert(Standing::Cancelled, 9);
        found.deliveries.insert(Standing::Retrying, 9);
        assert_eq!(rate(&found), None);
        found.deliveries.insert(Standing::Exhausted, 1);
        assert_eq!(rate(&found), Some(0.0));
        found.deliveries.insert(Standing::Delivered, 3);
        assert_eq!(rate(&found), Some(0.75));
    }
}
