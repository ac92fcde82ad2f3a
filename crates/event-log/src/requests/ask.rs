//! The producer's side: for the api, the client and tests.

use std::{str::FromStr as _, time::Duration};

use async_nats::{
    HeaderMap, HeaderName, HeaderValue,
    client::{Request, RequestErrorKind},
    service::NATS_SERVICE_ERROR_CODE,
};
use fanfare_domain::{EventType, TenantId};

use super::{KIND, PublishAnswer};
use crate::{EventLog, read::InboxMessage};

/// Names of headers that begin with this are commands to the servers.
const SERVERS_OWN: &str = "nats-";

/// A request to publish could not be sent, or had no answer.
#[derive(Debug, thiserror::Error)]
pub enum PublishRequestError {
    /// The tenant's id or the event type is malformed, so there is no subject to send it to.
    #[error("the tenant or the event type is malformed")]
    MalformedSubject,
    /// A header cannot be carried: its name or its value holds what it must not.
    #[error("header {name:?} cannot be carried")]
    MalformedHeader {
        /// The header's name.
        name: String,
    },
    /// The message is larger than the servers take.
    #[error("the message is larger than the servers take")]
    TooLarge,
    /// Nobody answered in time. The event may be stored, or be stored yet: repeating the request
    /// is safe only with an idempotency key.
    #[error("nobody answered in time, so it is not known whether the event is stored")]
    TimedOut,
    /// The answer makes no sense. What became of the event is not known.
    #[error("the answer cannot be read")]
    UnreadableAnswer,
    /// The request could not be sent.
    #[error("the request could not be sent")]
    Unsent {
        /// What the client said.
        #[source]
        source: async_nats::Error,
    },
}

impl EventLog {
    /// Asks the ingest service to take an event, and waits for its answer.
    ///
    /// That nobody takes requests at this moment is the answer [`PublishAnswer::Unavailable`].
    /// Headers that are commands to the servers (`Nats-…`) are not sent.
    pub async fn publish_request(
        &self,
        message: &InboxMessage,
        timeout: Duration,
    ) -> Result<PublishAnswer, PublishRequestError> {
        let (Ok(tenant), Ok(event_type)) =
            (message.tenant.parse::<TenantId>(), message.event_type.parse::<EventType>())
        else {
            return Err(PublishRequestError::MalformedSubject);
        };
        let subject = format!("{}.{KIND}.{tenant}.{event_type}", self.topology().prefix());
        let request = Request::new()
            .headers(headers(message)?)
            .payload(message.payload.clone())
            .timeout(Some(timeout));
        let answer = match self.inner.client.send_request(subject, request).await {
            Ok(answer) => answer,
            Err(error) => {
                return match error.kind() {
                    RequestErrorKind::NoResponders => {
                        let detail = String::from("no ingest service is running");
                        Ok(PublishAnswer::Unavailable { detail })
                    }
                    RequestErrorKind::TimedOut => Err(PublishRequestError::TimedOut),
                    RequestErrorKind::MaxPayloadExceeded => Err(PublishRequestError::TooLarge),
                    RequestErrorKind::InvalidSubject => Err(PublishRequestError::MalformedSubject),
                    RequestErrorKind::Other => {
                        Err(PublishRequestError::Unsent { source: error.into() })
                    }
                };
            }
        };
        let code = answer.headers.as_ref().and_then(|headers| headers.get(NATS_SERVICE_ERROR_CODE));
        PublishAnswer::read(code.map(HeaderValue::as_str), &answer.payload)
            .ok_or(PublishRequestError::UnreadableAnswer)
    }
}

fn headers(message: &InboxMessage) -> Result<HeaderMap, PublishRequestError> {
    let mut headers = HeaderMap::new();
    for (name, value) in message.headers.pairs() {
        if name.to_ascii_lowercase().starts_with(SERVERS_OWN) {
            continue;
        }
        let malformed = || PublishRequestError::MalformedHeader { name: name.clone() };
        if name.is_empty() {
            return Err(malformed());
        }
        let carried_name = HeaderName::from_str(name).map_err(|_| malformed())?;
        let carried = HeaderValue::from_str(value).map_err(|_| malformed())?;
        headers.append(carried_name, carried);
    }
    Ok(headers)
}
