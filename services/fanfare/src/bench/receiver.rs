//! The benchmark's receiver, a process of its own: answers every POST as its path says, and keeps
//! when it came and how long after the time that the producer wrote into the data.
//!
//! The same receiver serves the system and the floors, so that its cost is the same in all. What
//! it saw is asked for with GET.

mod behaviour;
mod tally;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, combinators::BoxBody};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

pub(crate) use self::tally::Order;
use self::{
    behaviour::{Behaviour, Decision},
    tally::Tally,
};
use crate::output::Output;

/// What stands before the producer's time, in nanoseconds since the epoch, in the event's data.
pub(crate) const SENT_AT: &str = "\"sent_at\":";
/// What stands before the event's number.
pub(crate) const NUMBER: &str = "\"number\":";
/// What stands before the time at which the event is wanted, in milliseconds since the epoch.
pub(crate) const DUE: &str = "\"due\":";

type Answer = Response<Either<Full<Bytes>, BoxBody<Bytes, Infallible>>>;

/// Serves until the process is ended. Prints the address it listens at.
pub(crate) async fn serve(output: Output) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let address: SocketAddr = listener.local_addr()?;
    output.line(&address.to_string());
    let tally = Arc::new(Tally::new());
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true)?;
        let tally = Arc::clone(&tally);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&tally), request));
            // A connection that breaks is the other side's business.
            let _ended = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(tally: Arc<Tally>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    if request.method() != Method::POST {
        let text = tally.control(request.uri().path());
        return Ok(Response::new(Either::Left(Full::new(Bytes::from(text)))));
    }
    let behaviour = Behaviour::of(request.uri().path());
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let Ok(body) = body else { return Ok(plain(StatusCode::BAD_REQUEST)) };
    Ok(match tally.received(&behaviour, &body) {
        Decision::Answer(status) => plain(status),
        Decision::AnswerAfter(wait) => {
            tokio::time::sleep(wait).await;
            plain(StatusCode::OK)
        }
        Decision::Refuse { status, retry_at } => {
            let mut answer = plain(status);
            if let Ok(date) = http::HeaderValue::from_str(&behaviour::http_date(retry_at)) {
                answer.headers_mut().insert(http::header::RETRY_AFTER, date);
            }
            answer
        }
        Decision::Never => std::future::pending().await,
        Decision::Drip => Response::new(Either::Right(behaviour::drip())),
    })
}

fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}
