//! The benchmark's receiver, a process of its own: answers 200 to every POST, counts them, and
//! reads how long they took from the time that the producer wrote into the data.
//!
//! The same receiver serves the system and the floors, so that its cost is the same in all.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_service::{Clock, SystemClock};
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, task::JoinSet};

use crate::output::Output;

/// What stands before the producer's time, in nanoseconds since the epoch, in the event's data.
pub(crate) const SENT_AT: &str = "\"sent_at\":";

/// The longest time that is told from longer ones: five minutes, in microseconds.
const MICROS_MAX: u64 = 300_000_000;

/// What the receiver counted since it was last reset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// How many requests came.
    pub(crate) requests: u64,
    /// How many of them carried a time.
    pub(crate) timed: u64,
    /// Half of them took no longer than this, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99 % of them took no longer than this, in milliseconds.
    pub(crate) p99_ms: f64,
    /// 99.9 % of them took no longer than this, in milliseconds.
    pub(crate) p999_ms: f64,
}

#[derive(Debug)]
struct State {
    requests: AtomicU64,
    timing: AtomicBool,
    micros: Mutex<Histogram<u64>>,
}

/// Serves until the process is ended. Prints the address it listens at.
pub(crate) async fn serve(output: Output) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let address: SocketAddr = listener.local_addr()?;
    output.line(&address.to_string());
    let state = Arc::new(State {
        requests: AtomicU64::new(0),
        timing: AtomicBool::new(false),
        micros: Mutex::new(
            Histogram::new_with_bounds(1, MICROS_MAX, 3).context("make a histogram")?,
        ),
    });
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true)?;
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            // A connection that breaks is the other side's business.
            let _ended = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::POST {
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        if let Ok(body) = body {
            state.received(&body);
        }
        return Ok(Response::new(Full::default()));
    }
    let text = match request.uri().path() {
        "/reset" => state.reset(),
        "/time" => {
            state.timing.store(true, Ordering::Relaxed);
            String::new()
        }
        _ => serde_json::to_string(&state.counted()).unwrap_or_default(),
    };
    Ok(Response::new(Full::new(Bytes::from(text))))
}

impl State {
    fn received(&self, body: &[u8]) {
        if self.timing.load(Ordering::Relaxed)
            && let Some(sent_at) = sent_at(body)
        {
            let micros = SystemClock.now().as_nanos().saturating_sub(sent_at) / 1_000;
            let mut histogram = self.micros.lock().unwrap_or_else(PoisonError::into_inner);
            histogram.saturating_record(micros.max(1));
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn reset(&self) -> String {
        self.requests.store(0, Ordering::Relaxed);
        self.timing.store(false, Ordering::Relaxed);
        self.micros.lock().unwrap_or_else(PoisonError::into_inner).reset();
        String::new()
    }

    fn counted(&self) -> Counted {
        let histogram = self.micros.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = |quantile| {
            let micros = u32::try_from(histogram.value_at_quantile(quantile)).unwrap_or(u32::MAX);
            f64::from(micros) / 1_000.0
        };
        Counted {
            requests: self.requests.load(Ordering::Relaxed),
            timed: histogram.len(),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            p999_ms: millis(0.999),
        }
    }
}

fn sent_at(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once(SENT_AT)?;
    let end = rest.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producers_time_is_found_in_the_body() {
        assert_eq!(sent_at(br#"{"data":{"sent_at":17,"x":1}}"#), Some(17));
        assert_eq!(sent_at(br#"{"data":{}}"#), None);
    }
}
