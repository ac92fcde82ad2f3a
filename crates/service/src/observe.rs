//! A small HTTP server for those who watch the process: `/metrics`, `/healthz`, `/readyz`.
//!
//! It asks for no key, so it listens only where an operator says, and never beside what others
//! reach. It takes few connections, and answers nothing but these three.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{Context, Health, Metrics};

/// How many connections there may be at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_mins(2);
/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The media type of the text format of Prometheus.
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is told.
#[derive(Clone)]
struct Watched {
    metrics: Metrics,
    health: Health,
}

impl Context {
    /// Answers those who watch the process, at this address, until everything else has ended.
    /// Returns the address, for a port that was left open.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on.
    pub async fn observe(&mut self, listen: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let watched = Watched { metrics: self.metrics().clone(), health: self.health() };
        let stop = self.support_stop();
        self.spawn_support("observing", async move {
            serve(listener, watched, stop).await;
            Ok(())
        });
        info!(%address, "metrics and health can be read");
        Ok(address)
    }
}

async fn serve(listener: TcpListener, watched: Watched, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_ended) = connections.join_next() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                connections.spawn(connection(stream, watched.clone(), stop.clone(), permit));
            }
            Err(cause) => {
                warn!(%cause, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Takes a connection once there is room for it. Cancel safe.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _peer) = listener.accept().await?;
    Ok((stream, permit))
}

async fn connection(
    stream: TcpStream,
    watched: Watched,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = watched.answer(request.method(), request.uri().path());
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(cause) = ended {
        debug!(%cause, "a connection broke off");
    }
}

impl Watched {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/metrics" => plain(StatusCode::OK, METRICS_TYPE, self.metrics.text()),
            "/healthz" => self.state(|live, _| live),
            "/readyz" => self.state(|_, ready| ready),
            _ => plain(StatusCode::NOT_FOUND, "text/plain", String::new()),
        }
    }

    /// Says what the API says of itself: names of conditions, and not why they do not hold.
    fn state(&self, is_good: impl Fn(bool, bool) -> bool) -> Response<Full<Bytes>> {
        let report = self.health.report();
        let good = is_good(report.live, report.ready);
        let conditions = report.conditions.iter().map(
            |condition| serde_json::json!({"name": condition.name, "met": condition.unmet.is_none()}),
        );
        let body = serde_json::json!({
            "live": report.live,
            "ready": report.ready,
            "conditions": conditions.collect::<Vec<_>>(),
        });
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        plain(status, "application/json", body.to_string())
    }
}

fn plain(status: StatusCode, media: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn body(response: Response<Full<Bytes>>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn health_is_told_without_reasons() {
        let watched = Watched { metrics: Metrics::default(), health: Health::default() };
        let condition = watched.health.condition(String::from("a/log"));
        condition.not_ready("10.0.0.5 refuses");
        assert_eq!(watched.answer(&Method::GET, "/healthz").status(), StatusCode::OK);
        let ready = watched.answer(&Method::GET, "/readyz");
        assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
        let said = body(ready).await;
        assert!(said.contains("\"a/log\"") && !said.contains("10.0.0.5"), "{said}");
    }

    #[test]
    fn nothing_else_is_answered() {
        let watched = Watched { metrics: Metrics::default(), health: Health::default() };
        for (method, path, status) in [
            (Method::GET, "/", StatusCode::NOT_FOUND),
            (Method::GET, "/metrics/", StatusCode::NOT_FOUND),
            (Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED),
        ] {
            assert_eq!(watched.answer(&method, path).status(), status, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn the_metrics_of_a_context_are_served_until_all_else_has_ended() {
        let mut context = Context::new("some");
        let address = context.observe(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
        assert!(said.contains("version=0.0.4") && said.contains("fanfare_build_info{"), "{said}");
        context.stop().cancel();
        context.run_until_cancelled(Duration::from_secs(1)).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "it has ended");
    }
}
