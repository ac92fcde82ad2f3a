//! The NATS micro service `<prefix>-publish`: producers that want an answer.
//!
//! ```text
//! request  <prefix>.publish.<tenant>.<type>      headers and payload as on INBOX
//! answer   {"id":"evt_…","duplicate":false}      once the event is stored
//!          {"reason":"…","detail":"…"}           with the headers of a micro-service error
//! ```

mod answer;
mod ask;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::{
    HeaderMap,
    service::{
        NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Service, ServiceExt as _, endpoint::Endpoint,
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tracing::debug;

pub use self::{
    answer::{CODE_UNAVAILABLE, PublishAnswer},
    ask::PublishRequestError,
};
use crate::{
    EventLog, ReadError, cas,
    read::InboxMessage,
    topology::{Topology, header},
};

/// The kind of subject that requests are sent to.
const KIND: &str = "publish";

/// Requests to `<prefix>.publish.<tenant>.<type…>`, shared between processes.
pub struct Requests {
    topology: Topology,
    service: Service,
    endpoint: Endpoint,
    refused: Arc<AtomicU64>,
}

/// One request.
pub struct Request {
    /// What was sent.
    pub message: InboxMessage,
    /// Answers it.
    pub reply: Reply,
}

/// The way back to who asked. Dropping it leaves them without an answer.
pub struct Reply {
    request: async_nats::service::Request,
    refused: Arc<AtomicU64>,
}

impl EventLog {
    /// Announces the service (`nats micro list` shows it) and takes its requests. What is sent
    /// after this returns comes.
    pub async fn requests(&self) -> Result<Requests, ReadError> {
        let prefix = self.topology().prefix();
        let name = format!("{prefix}-{KIND}");
        let refused = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&refused);
        let error = |source| cas::refused(&name, source);
        let service = self
            .inner
            .client
            .service_builder()
            .description("Takes events and answers once they are stored")
            .metadata(metadata())
            .queue_group(&name)
            .stats_handler(
                move |_, _| serde_json::json!({ "refused": counted.load(Ordering::Relaxed) }),
            )
            .start(&name, env!("CARGO_PKG_VERSION"))
            .await
            .map_err(error)?;
        let subject = format!("{prefix}.{KIND}.>");
        let endpoint = service.endpoint_builder().name(KIND).add(subject).await.map_err(error)?;
        // Its answer comes after all that was subscribed to before: from here on, requests come.
        let ping = format!("$SRV.PING.{name}.{}", service.info().await.id);
        let answered = self.inner.client.request(ping, Bytes::new()).await;
        answered.map_err(|source| error(source.into()))?;
        Ok(Requests { topology: self.topology().clone(), service, endpoint, refused })
    }
}

impl Requests {
    /// Waits for a request; `None` when the service has stopped. Cancel safe. A request that wants its
    /// answer where a stream might store it is passed over: what is not answered is not accepted.
    ///
    /// Requests that wait here are bounded by the client alone, which drops what is too much
    /// without an answer: take each at once, and refuse it if there are too many.
    pub async fn next(&mut self) -> Option<Request> {
        loop {
            let request = self.endpoint.next().await?;
            let Some(place) = self.topology.tokens(&request.message.subject, KIND) else {
                debug!(subject = %request.message.subject, "a request to a foreign subject");
                continue;
            };
            let sent = &request.message;
            if sent.reply.as_ref().is_some_and(|reply| !self.topology.may_answer(reply)) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                debug!(subject = %sent.subject, "a request whose answer would be stored");
                continue;
            }
            let message = InboxMessage::of(place, sent.headers.as_ref(), sent.payload.clone());
            let refused = Arc::clone(&self.refused);
            return Some(Request { message, reply: Reply { request, refused } });
        }
    }

    /// Stops announcing and taking requests. Those that were taken can still be answered.
    pub async fn stop(self) {
        let Self { service, mut endpoint, .. } = self;
        if let Err(error) = endpoint.stop().await {
            debug!(%error, "the endpoint was gone already");
        }
        if let Err(error) = service.stop().await {
            debug!(%error, "the service was gone already");
        }
    }
}

impl Reply {
    /// Answers. Anything but an acceptance is a micro-service error, with the same in a body.
    ///
    /// Queued, not waited for; who asked without wanting an answer gets none.
    pub async fn send(self, answer: &PublishAnswer) {
        if self.request.message.reply.is_none() {
            return;
        }
        let mut headers = HeaderMap::new();
        if let Some((code, reason)) = answer.refusal() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            headers.insert(NATS_SERVICE_ERROR_CODE, code.to_string());
            headers.insert(NATS_SERVICE_ERROR, reason);
            headers.insert(header::REASON, reason);
        }
        let body = Bytes::from(answer.to_json());
        if let Err(error) = self.request.respond_with_headers(Ok(body), headers).await {
            debug!(%error, "a request was not answered");
        }
    }
}

fn metadata() -> HashMap<String, String> {
    let pairs = [
        ("accepts", "application/json, application/cloudevents+json, application/protobuf"),
        ("answers", "application/json"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
