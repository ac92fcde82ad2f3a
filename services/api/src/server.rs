//! HTTP: connections, and what is the same for every request.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
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
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info_span, warn};

use crate::{
    app::{App, REQUEST_TIMEOUT},
    error::{ApiError, Code},
    live::Cut,
    openapi, repeat, routes,
};

/// How many connections there may be at once; more wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 4_096;
/// How long the head of a request may take to arrive, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long to wait after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        .layer(middleware::from_fn_with_state(app.clone(), frame))
        .with_state(app)
}

/// Bounds a request in time, traces and counts it, and sets what every answer has.
async fn frame(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let span = info_span!("request", method = %request.method(), route);
    async {
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
        let mut response =
            answer.unwrap_or_else(|_elapsed| ApiError::from(Code::TimedOut).into_response());
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        debug!(status = response.status().as_u16(), "answered");
        app.counters.note(response.status(), began.elapsed());
        response
    }
    .instrument(span)
    .await
}

/// Serves until `stop`, then lets the requests in flight finish.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                connections.spawn(connection(stream, router.clone(), stop.clone(), permit));
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

async fn connection(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(cause) = stream.set_nodelay(true) {
        debug!(%cause, "a connection was gone at once");
        return;
    }
    let (inner, cut) = (TowerToHyperService::new(router), CancellationToken::new());
    let closing = cut.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Cut(cut.clone()));
        inner.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
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
    if let Err(cause) = ended {
        error!(%cause, "a connection's task did not end well");
    }
}
