//! Questions to the owner of a shard: how does an endpoint do?
//!
//! ```text
//! request  <prefix>.owner.<shard>.health    the payload is the endpoint's id as text
//! answer   JSON                             see `Wire`
//! ```
//!
//! Plain messages, so that an operator may ask as well. A question that is not answered is not
//! repeated: what it asks for changes by the moment.

use std::time::Duration;

use async_nats::{
    Client, Subject, Subscriber,
    client::{Request, RequestErrorKind},
};
use fanfare_domain::{BreakerState, EndpointId, Health, Shard, Timestamp};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{EventLog, ReadError, Topology};

/// The questions to the owner of a shard.
pub struct HealthQuestions {
    topology: Topology,
    client: Client,
    messages: Subscriber,
}

/// A question that came.
pub struct HealthQuestion {
    /// Which endpoint it is about.
    pub endpoint: EndpointId,
    client: Client,
    reply: Subject,
}

/// An answer.
#[derive(Debug, Deserialize, Serialize)]
struct Wire {
    state: WireState,
    /// In milliseconds since the epoch, as below.
    since_ms: Option<u64>,
    window: u16,
    in_flight: u32,
    held: u32,
    quiet_until_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum WireState {
    Closed,
    Open,
    HalfOpen,
}

impl EventLog {
    /// Takes questions about the endpoints of a shard, from the moment on at which the server has
    /// heard of it: it is told when this returns, and has not answered.
    pub async fn health_questions(&self, shard: Shard) -> Result<HealthQuestions, ReadError> {
        let subject = self.topology().owner_health(shard);
        let client = self.inner.client.clone();
        let refused = |source: async_nats::Error| crate::cas::refused(&subject, source);
        let messages = client.subscribe(subject.clone()).await.map_err(|e| refused(e.into()))?;
        client.flush().await.map_err(|error| refused(error.into()))?;
        Ok(HealthQuestions { topology: self.topology().clone(), client, messages })
    }

    /// Asks the owner of an endpoint's shard how the endpoint does; `None` if nobody answers within
    /// the time.
    pub async fn health(&self, endpoint: EndpointId, time: Duration) -> Option<Health> {
        let subject = self.topology().owner_health(self.shards().of(endpoint));
        let request = Request::new().payload(endpoint.to_string().into()).timeout(Some(time));
        match self.inner.client.send_request(subject, request).await {
            Ok(answer) => {
                let read = serde_json::from_slice::<Wire>(&answer.payload);
                read.map(|wire| wire.health())
                    .inspect_err(|error| debug!(%error, "an endpoint's health cannot be read"))
                    .ok()
            }
            Err(error) if error.kind() == RequestErrorKind::NoResponders => None,
            Err(error) => {
                debug!(endpoint_id = %endpoint, %error, "nobody said how an endpoint does");
                None
            }
        }
    }
}

impl HealthQuestions {
    /// Waits for a question; `None` once the log is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<HealthQuestion> {
        loop {
            let message = self.messages.next().await?;
            let text = std::str::from_utf8(&message.payload).unwrap_or_default();
            let reply = message.reply.filter(|reply| self.topology.may_answer(reply));
            if let (Some(reply), Ok(endpoint)) = (reply, text.parse()) {
                return Some(HealthQuestion { endpoint, client: self.client.clone(), reply });
            }
        }
    }
}

impl HealthQuestion {
    /// Answers. Queued, not waited for.
    pub async fn answer(self, health: &Health) {
        let Ok(answer) = serde_json::to_vec(&Wire::of(health)) else { return };
        if let Err(error) = self.client.publish(self.reply, answer.into()).await {
            debug!(%error, "a question was not answered");
        }
    }
}

impl Wire {
    fn of(health: &Health) -> Self {
        let Health { breaker, since, window, in_flight, held, quiet_until } = *health;
        let state = match breaker {
            BreakerState::Closed => WireState::Closed,
            BreakerState::Open => WireState::Open,
            BreakerState::HalfOpen => WireState::HalfOpen,
        };
        let (since_ms, quiet_until_ms) =
            (since.map(Timestamp::as_millis), quiet_until.map(Timestamp::as_millis));
        Self { state, since_ms, window, in_flight, held, quiet_until_ms }
    }

    fn health(&self) -> Health {
        let breaker = match self.state {
            WireState::Closed => BreakerState::Closed,
            WireState::Open => BreakerState::Open,
            WireState::HalfOpen => BreakerState::HalfOpen,
        };
        Health {
            breaker,
            since: self.since_ms.map(Timestamp::from_millis),
            window: self.window,
            in_flight: self.in_flight,
            held: self.held,
            quiet_until: self.quiet_until_ms.map(Timestamp::from_millis),
        }
    }
}
