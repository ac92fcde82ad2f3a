//! HTTP: connections, and what is the same for every request.

mod patience;
mod peers;

use std::{io, net::SocketAddr, num::NonZeroU32, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use fanfare_domain::TenantId;
use fanfare_service::{Joined as _, traces::requests};
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{
    Instrument as _, Span, debug, error,
    field::{Empty, display},
    info_span, warn,
};

use self::{
    patience::Patience,
    peers::{Peers, Seat},
};
use crate::{
    app::App,
    error::{ApiError, Code},
    live::Cut,
    openapi,
    rates::{self, Peer},
    repeat, routes, trust,
    visit::{Visit, time_for},
};

/// How many connections there may be at once; more wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 4_096;
/// How long the head of a request may take to arrive, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a caller may take nothing of an answer.
const TAKING: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long to wait after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an unknown method is called, by the semantic conventions.
const OTHER: &str = "_OTHER";

/// Returns everything that is served.
pub(crate) fn router(app: App) -> Router {
    let document = openapi::document();
    let document = async move || ([(header::CONTENT_TYPE, "application/json")], document);
    let (operations, _) = routes::router().split_for_parts();
    operations
        .route("/openapi.json", get(document))
        .fallback(async || ApiError::from(Code::NotFound))
        .method_not_allowed_fallback(async || ApiError::from(Code::MethodNotAllowed))
        .layer(middleware::from_fn_with_state(app.clone(), repeat::once))
        .layer(middleware::from_fn_with_state(app.clone(), rates::limited))
        .layer(middleware::from_fn_with_state(app.clone(), frame))
        .with_state(app)
}

/// Bounds a request in time, traces and counts it, and sets what every answer has.
async fn frame(State(app): State<App>, request: Request, next: Next) -> Response {
    let (span, mut request) = traced(&app, request);
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    // Its body's room is kept until there is an answer.
    let visit = Visit::begin(time_for(route));
    request.extensions_mut().insert(visit.clone());
    let (began, until) = (visit.began, visit.until);
    let answered = span.clone();
    async move {
        let answer = tokio::time::timeout_at(until, next.run(request)).await;
        let mut response =
            answer.unwrap_or_else(|_elapsed| ApiError::from(Code::TimedOut).into_response());
        harden(response.headers_mut());
        note_answer(&answered, response.status());
        debug!(status = response.status().as_u16(), "answered");
        app.counters.note(response.status(), began.elapsed());
        response
    }
    .instrument(span)
    .await
}

/// Answers are data, whatever callers and endpoints have put into them: no browser is to guess a type,
/// show them as a page or within another one, keep them, or hand them to another site. What is a page
/// says otherwise itself.
const HARDENING: [(HeaderName, &str); 7] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("x-permitted-cross-domain-policies"), "none"),
];

fn harden(headers: &mut HeaderMap) {
    for (name, value) in HARDENING {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Makes the span of a request, by the semantic conventions for HTTP servers, and puts it in place of
/// the one that the request came from: what is asked next because of it is below it.
fn traced(app: &App, mut request: Request) -> (Span, Request) {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let method = known(request.method());
    if !is_of_interest(route) {
        let method = method.unwrap_or(OTHER);
        return (info_span!("request", http.request.method = method, http.route = route), request);
    }
    let span = info_span!(
        target: requests::TARGET,
        "request",
        otel.name = [method.unwrap_or("HTTP"), route.unwrap_or_default()].join(" "),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method.unwrap_or(OTHER),
        http.route = route,
        http.response.status_code = Empty,
        trace_id = Empty,
        // Of the path, once it is known that there is one and that the caller may see it.
        tenant_id = Empty,
    );
    if app.traces.is_on() {
        // The convention asks for `url.path` too. People put secrets into paths by mistake, and the
        // route tells what was asked for.
        // A proxy in front may be asked over TLS; we are not.
        requests::describe(&span, "url.scheme", "http");
    }
    let named = trust::judge(app, request.headers());
    requests::link_to(&span, &named.linked);
    let context = requests::continue_from(&span, named.continued);
    if let Some(trace_id) = context.trace_id() {
        span.record("trace_id", trace_id);
    }
    let headers = request.headers_mut();
    let said = [("traceparent", context.traceparent), ("tracestate", context.tracestate)];
    for (name, value) in said {
        match HeaderValue::try_from(value) {
            Ok(value) if !value.is_empty() => drop(headers.insert(name, value)),
            Ok(_) | Err(_) => drop(headers.remove(name)),
        }
    }
    (span, request)
}

/// Tells whether anybody wants a trace of a request: not where those ask who look after the process,
/// every few seconds, and not where there is nothing, for which anybody asks.
fn is_of_interest(route: Option<&str>) -> bool {
    !matches!(route, None | Some("/healthz" | "/readyz" | "/metrics"))
}

/// Returns a method by name. Whoever asks may call another one whatever they like, at any length.
fn known(method: &Method) -> Option<&'static str> {
    let known = [
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::CONNECT, "CONNECT"),
        (Method::TRACE, "TRACE"),
    ];
    known.iter().find(|(other, _)| other == method).map(|(_, name)| *name)
}

/// Notes on the span of the request that is being answered which tenant it is about: for the log's lines,
/// and for a collector by the name that spans of events have.
pub(crate) fn note_tenant(app: &App, tenant: &TenantId) {
    let span = Span::current();
    span.record("tenant_id", display(tenant));
    if app.traces.is_on() {
        requests::describe(&span, "fanfare.tenant.id", tenant.to_string());
    }
}

/// Notes on the span of a request how it was answered.
fn note_answer(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        requests::describe(span, "error.type", status.as_str().to_owned());
    }
}

/// How many connections there may be.
pub(crate) struct Room {
    permits: Arc<Semaphore>,
    peers: Peers,
}

/// What a connection holds of that.
struct Place {
    _permit: OwnedSemaphorePermit,
    _seat: Seat,
}

impl Room {
    /// Has a permit for each connection, and so many for each address.
    pub(crate) fn new(permits: Arc<Semaphore>, each_max: NonZeroU32) -> Self {
        Self { permits, peers: Peers::new(each_max) }
    }
}

/// Serves until `stop`, then lets the requests in flight finish.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    room: Room,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = accept(&listener, &room.permits) => accepted,
        };
        let Some((accepted, permit)) = accepted else { break };
        match accepted {
            Ok((stream, peer)) => {
                let Some(seat) = room.peers.sit(peer.ip()) else {
                    debug!("closed a connection: its address has as many as it may");
                    continue;
                };
                let (peer, place) = (Peer(peer.ip()), Place { _permit: permit, _seat: seat });
                connections.spawn(connection((stream, peer), router.clone(), stop.clone(), place));
            }
            Err(cause) => {
                warn!(%cause, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

/// Accepts a connection once there may be one more. Cancel safe.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(io::Result<(TcpStream, SocketAddr)>, OwnedSemaphorePermit)> {
    // The permit is taken once there is a connection, so that permits in use are connections.
    // Nobody else takes any, so it is still there.
    drop(permits.acquire().await.ok()?);
    let accepted = listener.accept().await;
    Some((accepted, Arc::clone(permits).try_acquire_owned().ok()?))
}

async fn connection(
    (stream, peer): (TcpStream, Peer),
    router: Router,
    stop: CancellationToken,
    _place: Place,
) {
    if let Err(cause) = stream.set_nodelay(true) {
        debug!(%cause, "a connection was gone at once");
        return;
    }
    let (inner, cut) = (TowerToHyperService::new(router), CancellationToken::new());
    let closing = cut.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Cut(cut.clone()));
        request.extensions_mut().insert(peer);
        inner.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patience::new(stream, TAKING)), service);
    let mut connection = pin!(connection);
    let serving = async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let Some(ended) = closing.run_until_cancelled(serving).await else {
        debug!("closed a connection whose caller takes nothing");
        return;
    };
    if let Err(cause) = ended {
        debug!(%cause, "a connection broke off");
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(cause) = ended.joined() {
        error!(%cause, "a connection's task did not end well");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_told_of_by_name_only_if_it_is_known() {
        let long = Method::from_bytes("X".repeat(60_000).as_bytes()).unwrap();
        for (method, name) in [
            (Method::GET, Some("GET")),
            (Method::DELETE, Some("DELETE")),
            (Method::from_bytes(b"get").unwrap(), None),
            (long, None),
        ] {
            assert_eq!(known(&method), name);
        }
    }

    #[test]
    fn a_request_is_traced_only_where_there_is_something_to_do() {
        for (route, is_traced) in [
            (Some("/v1/tenants/{tenant}/events"), true),
            (Some("/healthz"), false),
            (Some("/metrics"), false),
            (None, false),
        ] {
            assert_eq!(is_of_interest(route), is_traced, "{route:?}");
        }
    }
}
