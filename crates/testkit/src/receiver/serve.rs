//! Accepts connections, and does to each request what the rules say.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Behaviour, Received, Receiver, Reply, Shared,
    body::AnswerBody,
    wire::{Cut, Wire},
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What is done with requests, by path; `None` stands for every other path.
#[derive(Debug, Default)]
pub(super) struct Rules(Mutex<BTreeMap<Option<String>, Rule>>);

#[derive(Debug, Default)]
struct Rule {
    behaviour: Behaviour,
    used: usize,
}

/// What is known of a connection.
#[derive(Clone)]
struct Link {
    number: u64,
    peer: SocketAddr,
    cut: Arc<Cut>,
}

impl Rules {
    pub(super) fn set(&self, path: Option<&str>, behaviour: Behaviour) {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rules.insert(path.map(String::from), Rule { behaviour, used: 0 });
    }

    fn choose(&self, request: &Received) -> (Duration, Behaviour) {
        let path = request.path.split('?').next().map(String::from);
        let (behaviour, earlier) = {
            let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let key = if rules.contains_key(&path) { path } else { None };
            let rule = rules.entry(key).or_default();
            rule.used += 1;
            (rule.behaviour.clone(), rule.used - 1)
        };
        behaviour.settle(request, earlier)
    }
}

/// Serves connections until it is dropped, and them with it.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let link = Link { number: shared.records.connect(), peer, cut: Arc::default() };
                    connections.spawn(connection(stream, tls.clone(), link, Arc::clone(&shared)));
                }
                // The other side was gone before it was accepted, or there are no descriptors.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, link: Link, shared: Arc<Shared>) {
    stream.set_nodelay(true).ok();
    let wire = Wire::new(stream, Arc::clone(&link.cut));
    match tls {
        None => requests(wire, link, shared).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(wire)).await {
                requests(stream, link, shared).await;
            }
        }
    }
}

async fn requests<S>(stream: S, link: Link, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = |request| answer(request, link.clone(), Arc::clone(&shared));
    let server = auto::Builder::new(TokioExecutor::new());
    let serving = server.serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::select! {
        // How a connection ends is the client's business: a test sees it there.
        _ = serving => {}
        () = link.cut.told() => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    link: Link,
    shared: Arc<Shared>,
) -> Result<Response<AnswerBody>, Infallible> {
    let _in_flight = shared.records.begin();
    let request = receive(request, &link).await;
    let (request, (delay, mut behaviour)) =
        shared.records.add(request, |request| shared.rules.choose(request));
    if !delay.is_zero() {
        sleep(delay).await;
    }
    while let Behaviour::Behind(gate, then) = behaviour {
        gate.opened().await;
        behaviour = *then;
    }
    Ok(match behaviour {
        Behaviour::Reply(reply) => respond(reply),
        Behaviour::Echo => echo(&request),
        Behaviour::Drip(status, every) => with_body(status, AnswerBody::drip(every)),
        Behaviour::Endless(status) => with_body(status, AnswerBody::Endless),
        Behaviour::ResetMidBody(status) => with_body(status, AnswerBody::broken(link.cut)),
        Behaviour::ResetBeforeHead => {
            link.cut.now();
            future::pending().await
        }
        Behaviour::Silent => future::pending().await,
        Behaviour::After(..)
        | Behaviour::Behind(..)
        | Behaviour::InOrder(_)
        | Behaviour::Ask(_) => {
            with_body(500, AnswerBody::whole(Bytes::from_static(b"unsettled behaviour")))
        }
    })
}

async fn receive(request: Request<Incoming>, link: &Link) -> Received {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, Receiver::BODY_BYTES_MAX).collect().await;
    Received {
        number: 0,
        method: head.method,
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body: body.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
        at: Instant::now(),
        connection: link.number,
        peer: link.peer,
        version: head.version,
    }
}

fn respond(reply: Reply) -> Response<AnswerBody> {
    let mut response = with_body(reply.status, AnswerBody::whole(reply.body));
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn echo(request: &Received) -> Response<AnswerBody> {
    let mut response = with_body(200, AnswerBody::whole(request.body.clone()));
    if let Some(kind) = request.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    response
}

fn with_body(status: u16, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
