//! Publishing many events with one request: each is taken or refused by itself.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
};
use fanfare_event_log::{
    InboxMessage,
    topology::header::{TRACEPARENT, TRACESTATE},
};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{NewEvent, TIMEOUT, message, publish};
use crate::{
    app::App,
    caller::{InTenant, Publishes},
    error::{ApiError, Code, Problem},
    extract,
    repeat::LeavesKeyFree,
    shares::Holder,
    visit::Visit,
};

/// Where batches are published.
pub(crate) const PATH: &str = "/v1/tenants/{tenant}/events/batch";
/// The largest body, in bytes.
pub(crate) const BYTES_MAX: usize = 4 << 20;
/// The most events of a batch.
const EVENTS_MAX: usize = 1_000;
/// How many events are on their way to ingest at once.
const IN_FLIGHT_MAX: usize = 64;
/// How long all of them may take together, from the request's head on: less than any request, so that
/// what became of each is told.
const DEADLINE: Duration = Duration::from_secs(25);

/// Events to be published.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventBatch {
    /// The events, up to 1,000.
    #[schema(value_type = Vec<NewEvent>, min_items = 1, max_items = 1_000)]
    events: Vec<Box<RawValue>>,
}

/// What became of the events of a batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventResults {
    /// What became of each, in the order of the request.
    data: Vec<EventResult>,
    /// How many were accepted, now or before.
    accepted: usize,
}

/// What became of one event.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventResult {
    /// The status that it would have been answered with by itself: 202 if it is accepted.
    #[schema(example = 202)]
    status: u16,
    /// Identifies the event; `null` if it is not accepted.
    #[schema(required, example = "evt_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: Option<String>,
    /// Whether it was accepted before, under the same idempotency key; `null` if it is not
    /// accepted.
    #[schema(required)]
    duplicate: Option<bool>,
    /// Why it is not accepted; `null` if it is.
    #[schema(required)]
    problem: Option<Problem>,
}

/// An event that can be sent, and its place in the batch.
type Placed = (usize, InboxMessage);

/// Publishes up to 1,000 events. Each is accepted or refused by itself, and those that are accepted
/// are stored once this is answered.
///
/// Events of the batch with the same ordering key are accepted in the order of the batch; the
/// others side by side. An event that could not be passed on keeps those behind it back that have
/// the same ordering key. The body has up to 4 MiB.
///
/// With an `Idempotency-Key` the answer is kept once an event was accepted: what was not can be sent
/// again under another key. If none was, the same request can be repeated under this one.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/events/batch", tag = "events", request_body = EventBatch,
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("traceparent" = Option<String>, Header,
            description = "The trace that the events belong to"),
    ),
    responses((status = 200, body = EventResults)),
)]
pub(crate) async fn publish_events(
    State(app): State<App>,
    access: InTenant<Publishes>,
    headers: HeaderMap,
    request: Request,
) -> Result<(Option<Extension<LeavesKeyFree>>, Json<EventResults>), ApiError> {
    let deadline = Visit::of(request.extensions()).began + DEADLINE;
    let EventBatch { events } = extract::json(request, &app, BYTES_MAX).await?;
    if !(1..=EVENTS_MAX).contains(&events.len()) {
        let why = format!("{} are not 1 to {EVENTS_MAX}", events.len());
        return Err(ApiError::value("events", why));
    }
    let _permit = app.batches.take(&Holder::Tenant(access.id().clone()), 1, deadline).await?;
    let headers = traced(&headers);
    let (mut lines, mut results) = (Lines::default(), Vec::new());
    for (place, event) in events.iter().enumerate() {
        match read(access.id().as_str(), &headers, event) {
            Ok((key, message)) => lines.push(key, (place, message)),
            Err(refused) => results.push((place, EventResult::refused(refused))),
        }
    }
    access.caller.begins_to_write();
    let mut sent = stream::iter(lines.0)
        .map(|line| publish_line(&app, line, deadline))
        .buffer_unordered(IN_FLIGHT_MAX);
    while let Some(line) = sent.next().await {
        results.extend(line);
    }
    results.sort_unstable_by_key(|(place, _)| *place);
    let data: Vec<_> = results.into_iter().map(|(_, result)| result).collect();
    let accepted = data.iter().filter(|result| result.id.is_some()).count();
    let free = leaves_key_free(&data).then_some(Extension(LeavesKeyFree));
    Ok((free, Json(EventResults { data, accepted })))
}

/// Events in lines: one line for each ordering key, and for each event without one.
#[derive(Default)]
struct Lines(Vec<Vec<Placed>>, BTreeMap<String, usize>);

impl Lines {
    fn push(&mut self, key: Option<String>, event: Placed) {
        let new = self.0.len();
        let line = key.map_or(new, |key| *self.1.entry(key).or_insert(new));
        match self.0.get_mut(line) {
            Some(line) => line.push(event),
            None => self.0.push(vec![event]),
        }
    }
}

impl EventResult {
    fn refused(refused: ApiError) -> Self {
        refused.log();
        let status = refused.code().status().as_u16();
        Self { status, id: None, duplicate: None, problem: Some(refused.problem()) }
    }
}

/// Tells whether no event was taken, for sure, and a repeat may fare better.
fn leaves_key_free(results: &[EventResult]) -> bool {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE.as_u16();
    results.iter().any(|result| result.status == unavailable)
        && results.iter().all(|result| result.status == unavailable || result.status / 100 == 4)
}

/// Returns what of a request's headers counts for each event.
fn traced(headers: &HeaderMap) -> HeaderMap {
    let names = [TRACEPARENT, TRACESTATE];
    let pair = |name: &'static str| {
        let value = headers.get(name)?.clone();
        Some((axum::http::HeaderName::from_static(name), value))
    };
    names.into_iter().filter_map(pair).collect()
}

fn read(
    tenant: &str,
    headers: &HeaderMap,
    event: &RawValue,
) -> Result<(Option<String>, InboxMessage), ApiError> {
    let event: NewEvent = extract::parse(event.get().as_bytes())?;
    let key = event.ordering_key.clone();
    Ok((key, message(tenant, headers, event)?))
}

/// Publishes events one after the other. After one that could not be passed on, none is.
async fn publish_line(
    app: &App,
    line: Vec<Placed>,
    deadline: Instant,
) -> Vec<(usize, EventResult)> {
    let mut results = Vec::with_capacity(line.len());
    let mut broken = false;
    for (place, message) in line {
        let left = deadline.saturating_duration_since(Instant::now());
        let published = if broken || left.is_zero() {
            Err(Code::Unavailable.into())
        } else {
            publish(app, &message, TIMEOUT.min(left)).await
        };
        broken |= published.as_ref().is_err_and(|why| why.code().status().is_server_error());
        let result = match published {
            Ok(accepted) => EventResult {
                status: StatusCode::ACCEPTED.as_u16(),
                id: Some(accepted.id),
                duplicate: Some(accepted.duplicate),
                problem: None,
            },
            Err(refused) => EventResult::refused(refused),
        };
        results.push((place, result));
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::REQUEST_TIMEOUT;

    #[test]
    fn a_key_is_left_free_only_by_a_batch_of_which_surely_nothing_was_taken() {
        let results = |statuses: &[u16]| -> Vec<EventResult> {
            let of = |status: &u16| EventResult {
                status: *status,
                id: None,
                duplicate: None,
                problem: None,
            };
            statuses.iter().map(of).collect()
        };
        for (statuses, free) in [
            (&[503, 503][..], true),
            (&[503, 422], true),
            (&[422, 400], false),
            (&[503, 202], false),
            (&[503, 504], false),
            (&[503, 500], false),
            (&[202], false),
        ] {
            assert_eq!(leaves_key_free(&results(statuses)), free, "{statuses:?}");
        }
    }

    #[test]
    fn what_became_of_a_batch_is_told_before_its_request_is_cut_off() {
        assert!(DEADLINE + Duration::from_secs(4) < REQUEST_TIMEOUT);
    }

    #[test]
    fn events_of_a_key_stand_in_line_and_the_others_side_by_side() {
        let event = |key: Option<&str>| {
            let json = serde_json::json!({"type": "a", "data": 1, "ordering_key": key});
            let raw: Box<RawValue> = serde_json::from_str(&json.to_string()).unwrap();
            read("acme", &HeaderMap::new(), &raw).unwrap()
        };
        let mut lines = Lines::default();
        for (place, key) in [Some("a"), None, Some("b"), Some("a"), None].into_iter().enumerate() {
            let (key, message) = event(key);
            lines.push(key, (place, message));
        }
        let places = |line: &Vec<Placed>| line.iter().map(|(place, _)| *place).collect::<Vec<_>>();
        let places: Vec<_> = lines.0.iter().map(places).collect();
        assert_eq!(places, [vec![0, 3], vec![1], vec![2], vec![4]]);
    }
}
