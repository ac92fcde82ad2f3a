//! Requests as they were sent, and how sure it is that they are shown so.

use std::sync::Arc;

use fanfare_delivery_log::{
    AttemptRow, DeliveryRow, Store, as_sent, batch_as_sent, is_signed_by, trace_as_sent,
};
use fanfare_domain::{
    DeliveryId, Endpoint, EndpointId, Entity, Event, Request, Signer, TraceContext,
    endpoint::{header_owner, secret_owner},
    profile::Profile,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, error::ApiError};

/// Headers of an endpoint's own whose values are no secrets.
const PLAIN: [&str; 6] =
    ["accept", "accept-language", "cache-control", "content-language", "from", "user-agent"];

/// What stands for a value that is not shown.
const HIDDEN: &str = "***";

/// What was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SentRequest {
    /// How sure it is that this is what was sent.
    fidelity: Fidelity,
    /// The method.
    #[schema(example = "POST")]
    method: &'static str,
    /// The URL.
    url: String,
    /// The head; names in lower case.
    headers: Vec<SentHeader>,
    /// The body; `null` if it cannot be shown.
    #[schema(required)]
    body: Option<String>,
}

/// A header that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SentHeader {
    /// Its name, in lower case.
    name: String,
    /// Its value; `***` if it is not shown.
    value: String,
    /// Whether the value is not shown, because it may be a secret.
    hidden: bool,
}

/// How sure it is that a request is shown as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fidelity {
    /// The endpoint's secret of then gives this very request the signature that is on record.
    Verified,
    /// The endpoint's secret of then is not known any more, so that nobody can tell.
    Unverified,
    /// It has another signature than the one on record: the profile has been changed since. This is
    /// how it would be sent now.
    Changed,
    /// It was a batch, of which not all deliveries are on record.
    Incomplete,
    /// The event is no longer in the log: there is no body, and headers made from it are missing.
    EventGone,
    /// None was sent: it could not be made.
    NotSent,
}

/// Rebuilds the request of an attempt.
pub(super) async fn sent(
    app: &App,
    store: &Store,
    profile: &Arc<Profile>,
    (delivery, attempt): (&DeliveryRow, &AttemptRow),
) -> Result<SentRequest, ApiError> {
    let endpoint = endpoint_then(app, delivery.endpoint, attempt.config_revision).await?;
    let mut shown = SentRequest {
        fidelity: Fidelity::NotSent,
        method: "POST",
        url: attempt.url.clone(),
        headers: endpoint.as_deref().map_or_else(Vec::new, |it| own_headers(app, it)),
        body: None,
    };
    if attempt.signature.is_empty() {
        return Ok(shown);
    }
    let (events, trace) = match events(app, store, (delivery, attempt)).await? {
        Found::All { events, trace } => (events, trace),
        Found::Gone => return Ok(shown.without_body(Fidelity::EventGone)),
        Found::NotAll => return Ok(shown.without_body(Fidelity::Incomplete)),
    };
    let rebuilt = match (attempt.batch, events.as_slice()) {
        (None, [(event, _)]) => as_sent(profile, attempt, event).map(Some),
        (None, _) => Ok(None),
        (Some(_), events) => batch_as_sent(profile, attempt, events),
    };
    let request = match rebuilt {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(shown.without_body(Fidelity::Incomplete)),
        // The profile took the data then.
        Err(_refused) => return Ok(shown.without_body(Fidelity::Changed)),
    };
    let signer = endpoint.as_deref().and_then(|it| signer_then(app, profile, it, attempt));
    shown.fidelity = match signer.map(|signer| is_signed_by(&signer, profile, attempt, &events)) {
        None => Fidelity::Unverified,
        Some(Ok(true)) => Fidelity::Verified,
        Some(Ok(false) | Err(_)) => Fidelity::Changed,
    };
    shown.fill(request);
    shown.headers.extend(trace.into_iter().flat_map(trace_headers));
    Ok(shown)
}

/// The events of a request.
enum Found {
    /// In the order in which they were in it, and what it said of its trace.
    All { events: Vec<(Arc<Event>, DeliveryId)>, trace: Option<TraceContext> },
    /// One of them is no longer in the log.
    Gone,
    /// Not all of its deliveries are on record.
    NotAll,
}

/// Reads the events of a request.
async fn events(
    app: &App,
    store: &Store,
    (delivery, attempt): (&DeliveryRow, &AttemptRow),
) -> Result<Found, ApiError> {
    let together = match attempt.batch {
        Some(batch) => store.in_batch(batch.id, attempt.number).await?,
        None => vec![delivery.clone()],
    };
    let wanted = attempt.batch.map_or(1, |batch| usize::try_from(batch.size).unwrap_or(usize::MAX));
    let ours = |row: &DeliveryRow| row.tenant == delivery.tenant;
    if together.len() != wanted || !together.iter().all(ours) {
        return Ok(Found::NotAll);
    }
    let mut events = Vec::with_capacity(together.len());
    for row in &together {
        match app.log.event(row.event_sequence).await? {
            Some(stored) if stored.event.id == row.event => events.push((stored.event, row.id)),
            Some(_) | None => return Ok(Found::Gone),
        }
    }
    let generations = together.iter().map(|row| row.generation);
    let told = events.iter().zip(generations);
    let told = told.map(|((event, delivery), generation)| (&**event, (*delivery, generation)));
    let trace = trace_as_sent(attempt, told);
    Ok(Found::All { events, trace })
}

/// Returns an endpoint as it was at a revision, if CONFIG still has that.
async fn endpoint_then(
    app: &App,
    id: EndpointId,
    revision: u64,
) -> Result<Option<Arc<Endpoint>>, ApiError> {
    Ok(match app.log.configured(revision).await?.map(|change| change.entity) {
        Some(Entity::Endpoint(endpoint)) if endpoint.id == id => Some(endpoint),
        Some(
            Entity::Endpoint(_)
            | Entity::Tenant(_)
            | Entity::EventType(_)
            | Entity::Profile(_)
            | Entity::ApiKey(_),
        )
        | None => None,
    })
}

/// Shows the endpoint's own headers, and that requests show who they are from.
fn own_headers(app: &App, endpoint: &Endpoint) -> Vec<SentHeader> {
    let show = |name: &String| {
        let sealed = endpoint.headers.get(name).filter(|_| PLAIN.contains(&name.as_str()));
        let opened = sealed.map(|it| app.keyring.open(&header_owner(endpoint.id, name), it));
        let value = opened.and_then(Result::ok).map(|clear| String::from(clear.expose()));
        let hidden = value.is_none();
        SentHeader { name: name.clone(), value: value.unwrap_or_else(|| HIDDEN.into()), hidden }
    };
    let shown = endpoint.security.authentication.is_some().then(|| SentHeader {
        name: String::from("authorization"),
        value: String::from(HIDDEN),
        hidden: true,
    });
    endpoint.headers.keys().map(show).chain(shown).collect()
}

/// Shows what a request said of its trace.
fn trace_headers(said: TraceContext) -> impl Iterator<Item = SentHeader> {
    said_headers(said).map(|(name, value)| SentHeader {
        name: String::from(name),
        value,
        hidden: false,
    })
}

/// Returns the headers in which a request says where it stands in a trace.
pub(crate) fn said_headers(said: TraceContext) -> impl Iterator<Item = (&'static str, String)> {
    let TraceContext { traceparent, tracestate } = said;
    let headers = [("traceparent", traceparent), ("tracestate", tracestate)];
    headers.into_iter().filter(|(_, value)| !value.is_empty())
}

/// Makes the endpoint's secrets of then ready to sign; `None` if they do not open here.
fn signer_then(
    app: &App,
    profile: &Profile,
    endpoint: &Endpoint,
    attempt: &AttemptRow,
) -> Option<Signer> {
    let owner = secret_owner(endpoint.id);
    let secrets = endpoint
        .live_secrets(attempt.started_at)
        .map(|secret| app.keyring.open(&owner, &secret.sealed))
        .collect::<Result<Vec<_>, _>>();
    Signer::new(profile, &secrets.ok()?).ok()
}

impl SentRequest {
    fn without_body(mut self, fidelity: Fidelity) -> Self {
        self.fidelity = fidelity;
        self
    }

    /// Adds what the profile made of the events. An endpoint's own header never has the name of one.
    fn fill(&mut self, request: Request) {
        let headers = request.headers.into_iter();
        let plain = headers.map(|(name, value)| SentHeader {
            name: String::from(&*name),
            value: String::from(&*value),
            hidden: false,
        });
        self.headers.extend(plain);
        self.body = Some(String::from_utf8_lossy(&request.body).into_owned());
    }
}
