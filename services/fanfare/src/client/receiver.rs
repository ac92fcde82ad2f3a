//! A small HTTP server that stands in for a tenant's: it answers as it is told, and hands over
//! what arrived.

mod plan;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use fanfare_domain::{Profile, Timestamp};
use fanfare_service::{Clock as _, SystemClock};
use http_body_util::{BodyExt as _, Empty};
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use self::plan::Seen;
pub(crate) use self::plan::{Answer, Plan, identity};

/// The longest body that is kept, in bytes.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How many connections there may be at once.
const CONNECTIONS_MAX: usize = 512;
/// How many arrivals may wait to be looked at; then answers wait too.
const ARRIVALS_MAX: usize = 256;

/// A request that arrived, and what it is answered with.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// When its body was complete.
    pub(crate) at: Timestamp,
    /// The method.
    pub(crate) method: hyper::Method,
    /// The path, with its query.
    pub(crate) path: String,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body; the first 4 MiB of a longer one.
    pub(crate) body: Bytes,
    /// How many times it has arrived, this time included.
    pub(crate) attempt: u32,
    /// What it is answered with.
    pub(crate) answer: Answer,
}

/// A running receiver. It ends when dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    arrivals: mpsc::Receiver<Arrival>,
    _tasks: JoinSet<()>,
}

struct Desk {
    profile: Option<Arc<Profile>>,
    plan: Plan,
    seen: Mutex<Seen>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Receiver {
    /// Listens at an address; port 0 takes any free one.
    pub(crate) async fn bind(
        address: SocketAddr,
        plan: Plan,
        profile: Option<Arc<Profile>>,
    ) -> Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("listen at {address}"))?;
        let address = listener.local_addr().context("read the receiver's address")?;
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let seen = Mutex::new(Seen::default());
        let desk = Arc::new(Desk { profile, plan, seen, arrivals: sender });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, desk));
        Ok(Self { address, arrivals, _tasks: tasks })
    }

    /// Returns where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next request. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        // Out of descriptors, or a connection that is gone already: the next one may do.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let desk = Arc::clone(&desk);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&desk), request));
            // A connection that breaks is the other side's business.
            let _ended = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    desk: Arc<Desk>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Empty::new());
    let Some(body) = read(body).await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let identity = identity(desk.profile.as_deref(), &head.headers, &body);
    let attempt = desk.seen.lock().unwrap_or_else(PoisonError::into_inner).count(identity);
    let answer = desk.plan.answer(attempt);
    let arrival = Arrival {
        at: SystemClock.now(),
        method: head.method,
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body,
        attempt,
        answer,
    };
    // Nobody looks any more when the receiver is about to end.
    let _unseen = desk.arrivals.send(arrival).await;
    tokio::time::sleep(answer.delay).await;
    *response.status_mut() = answer.status;
    Ok(response)
}

/// Reads a body to its end; `None` if it breaks off.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            let room = BODY_BYTES_MAX.saturating_sub(kept.len());
            kept.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        }
    }
    Some(kept.freeze())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn what_arrives_is_handed_over_and_answered_as_planned() {
        let plan = Plan { fail: 1, ..Plan::default() };
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut receiver = Receiver::bind(local, plan, None).await.unwrap();
        fanfare_service::install_crypto_provider();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/hook?x=1", receiver.address());
        let post = || client.post(&url).header("webhook-id", "evt_1").body("{}").send();
        let statuses = [post().await.unwrap().status(), post().await.unwrap().status()];
        assert_eq!(statuses.map(|status| status.as_u16()), [500, 200]);
        let (first, second) = (receiver.next().await.unwrap(), receiver.next().await.unwrap());
        assert_eq!((first.attempt, second.attempt), (1, 2));
        assert_eq!((first.path.as_str(), &first.body[..]), ("/hook?x=1", &b"{}"[..]));
    }
}
