//! A collector of OpenTelemetry that takes everything and keeps nothing but its count, in the
//! benchmark's own process, whose processor time is not counted.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinSet, time::interval};

/// An empty message of gRPC: not compressed, of no bytes.
const EMPTY: [u8; 5] = [0; 5];

/// A collector for gRPC. Dropping it ends it, and whatever reads for it.
pub(crate) struct Sink {
    address: String,
    exports: Arc<AtomicU64>,
    scrapes: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Sink {
    /// Starts one.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for telemetry")?;
        let address = format!("http://{}", listener.local_addr()?);
        let (exports, scrapes) = (Arc::<AtomicU64>::default(), Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&exports)));
        Ok(Self { address, exports, scrapes, tasks })
    }

    /// Where it is, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Reads these metrics from now on, as Prometheus does.
    pub(crate) fn scrape(&mut self, url: String, every: Duration) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let scrapes = Arc::clone(&self.scrapes);
        self.tasks.spawn(async move {
            let mut turns = interval(every);
            loop {
                turns.tick().await;
                let Ok(answer) = client.get(&url).send().await else { continue };
                if answer.bytes().await.is_ok() {
                    scrapes.fetch_add(1, Relaxed);
                }
            }
        });
        Ok(())
    }

    /// How many exports it took, of traces and metrics, and how often metrics were read.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.exports.load(Relaxed), self.scrapes.load(Relaxed))
    }
}

async fn serve(listener: TcpListener, exports: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let exports = Arc::clone(&exports);
        connections.spawn(async move {
            let service = service_fn(move |request| take(Arc::clone(&exports), request));
            // A connection that breaks is the other side's business.
            let _ended = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn take(
    exports: Arc<AtomicU64>,
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    if request.into_body().collect().await.is_ok() {
        exports.fetch_add(1, Relaxed);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from_static(&EMPTY));
    let mut answer = Response::new(body.with_trailers(async { Some(Ok(trailers)) }));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(answer)
}
