//! Trying an endpoint: one request with a sample event, made by the owner of its shard, and the
//! answer to it. Nothing about it is stored.
//!
//! ```text
//! request  <prefix>.owner.<shard>.try    a header names the endpoint; the payload is an envelope
//! answer   a batch with the one attempt, or a header with the reason for which there is none
//! ```

use std::time::Duration;

use async_nats::{
    Client, HeaderMap, HeaderValue, Message, Subject, Subscriber,
    client::{Request, RequestErrorKind},
};
use bytes::Bytes;
use fanfare_domain::{EndpointId, Event, Fact, Record, Shard, StoredEvent, Timestamp};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::{EventLog, ReadError, Topology, topology::header};

/// How long an owner is waited for, and how long between two tries.
const OWNERLESS: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

/// The trials that the owner of a shard is asked for.
pub struct Trials {
    topology: Topology,
    client: Client,
    messages: Subscriber,
}

/// A trial that is asked for.
pub struct Trial {
    /// Which endpoint is to be tried.
    pub endpoint: EndpointId,
    /// With which event.
    pub event: StoredEvent,
    /// In whose name it is to be asked whether it may be sent to; then it is not sent the event.
    pub handshake: Option<String>,
    client: Client,
    reply: Subject,
}

/// An endpoint was not tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTried {
    /// Its owner did not make the request, for this reason: a stable name.
    #[error("the endpoint is not tried: {0}")]
    Refused(String),
    /// Nobody answered in time.
    #[error("nobody has tried the endpoint in time")]
    Unanswered,
}

impl EventLog {
    /// Takes trials of the endpoints of a shard. What is sent after this returns comes.
    pub async fn trials(&self, shard: Shard) -> Result<Trials, ReadError> {
        let subject = self.topology().owner_try(shard);
        let client = self.inner.client.clone();
        let refused = |source: async_nats::Error| crate::cas::refused(&subject, source);
        let messages = client.subscribe(subject.clone()).await.map_err(|e| refused(e.into()))?;
        client.flush().await.map_err(|error| refused(error.into()))?;
        Ok(Trials { topology: self.topology().clone(), client, messages })
    }

    /// Has an endpoint tried with an event that is not stored; returns the attempt. `time` is for the
    /// answer; an owner is waited for besides, for 5 s at most.
    pub async fn try_endpoint(
        &self,
        endpoint: EndpointId,
        event: &Event,
        time: Duration,
    ) -> Result<Record, NotTried> {
        self.ask_owner(endpoint, event, HeaderMap::new(), time).await
    }

    /// Has an endpoint asked, in the name of an origin, whether it may be sent to; returns what came
    /// of that as an attempt. The event stands for what it may be sent, and is not. `time` is as for
    /// [`Self::try_endpoint`].
    pub async fn shake_hands(
        &self,
        endpoint: EndpointId,
        event: &Event,
        origin: &str,
        time: Duration,
    ) -> Result<Record, NotTried> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HANDSHAKE, origin);
        self.ask_owner(endpoint, event, headers, time).await
    }

    async fn ask_owner(
        &self,
        endpoint: EndpointId,
        event: &Event,
        mut headers: HeaderMap,
        time: Duration,
    ) -> Result<Record, NotTried> {
        headers.insert(header::ENDPOINT, endpoint.to_string());
        let payload = fanfare_proto::encode_event(event);
        let subject = self.topology().owner_try(self.shards().of(endpoint));
        let begun = Instant::now();
        loop {
            let request = Request::new().headers(headers.clone()).payload(payload.clone());
            let request = request.timeout(Some(time));
            match self.inner.client.send_request(subject.clone(), request).await {
                Ok(answer) => return read(answer),
                // The shard is changing hands, or the services are just starting.
                Err(error)
                    if error.kind() == RequestErrorKind::NoResponders
                        && begun.elapsed() < OWNERLESS =>
                {
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    debug!(endpoint_id = %endpoint, %error, "an endpoint was not tried");
                    return Err(NotTried::Unanswered);
                }
            }
        }
    }
}

fn read(answer: Message) -> Result<Record, NotTried> {
    let reason = answer.headers.as_ref().and_then(|headers| headers.get(header::REASON));
    if let Some(reason) = reason {
        return Err(NotTried::Refused(String::from(reason.as_str())));
    }
    let records = fanfare_proto::decode_journal(answer.payload).unwrap_or_default();
    let attempt = |record: &Record| matches!(record.fact, Fact::AttemptMade(_));
    records.into_iter().find(attempt).ok_or(NotTried::Unanswered)
}

impl Trials {
    /// Waits for one; `None` once the log is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Trial> {
        loop {
            let message = self.messages.next().await?;
            let said = |name| message.headers.as_ref().and_then(|headers| headers.get(name));
            let endpoint = said(header::ENDPOINT).map(HeaderValue::as_str);
            let endpoint = endpoint.and_then(|text| text.parse().ok());
            let handshake = said(header::HANDSHAKE).map(|origin| String::from(origin.as_str()));
            let event = fanfare_proto::decode_event(message.payload, 0, Timestamp::EPOCH);
            let reply = message.reply.filter(|reply| self.topology.may_answer(reply));
            if let (Some(reply), Some(endpoint), Ok(event)) = (reply, endpoint, event) {
                let client = self.client.clone();
                return Some(Trial { endpoint, event, handshake, client, reply });
            }
        }
    }
}

impl Trial {
    /// Answers with the attempt. Queued, not waited for.
    pub async fn answer(self, attempt: &Record) {
        let payload = fanfare_proto::encode_facts(std::slice::from_ref(attempt));
        self.say(HeaderMap::new(), payload).await;
    }

    /// Says why there is none: a stable name.
    pub async fn refuse(self, reason: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(header::REASON, reason);
        self.say(headers, Bytes::new()).await;
    }

    async fn say(self, headers: HeaderMap, payload: Bytes) {
        let said = self.client.publish_with_headers(self.reply, headers, payload).await;
        if let Err(error) = said {
            debug!(%error, "a trial was not answered");
        }
    }
}
