//! The three ways in: the API, a NATS request, and INBOX.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use fanfare_domain::{EventType, TenantId};
use fanfare_event_log::{
    EventLog, Headers, InboxMessage, PublishAnswer, Publisher, topology::header,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Via;
use crate::{
    cli::Connection,
    client::{
        api::{Api, text},
        connection::Nats,
        nats,
    },
};

/// How long ingest may take to answer a request.
const ANSWER: Duration = Duration::from_secs(20);

/// An event to be sent.
#[derive(Clone, Debug)]
pub(super) struct NewEvent {
    /// Whose event it is.
    pub(super) tenant: TenantId,
    /// What kind of thing happened.
    pub(super) event_type: EventType,
    /// What happened, exactly as it is written.
    pub(super) data: Box<RawValue>,
    /// The producer's name for this event.
    pub(super) idempotency_key: Option<String>,
    /// When it happened.
    pub(super) occurred_at: Option<String>,
    /// What keeps its order.
    pub(super) ordering_key: Option<String>,
    /// Short facts beside the data.
    pub(super) attributes: BTreeMap<String, String>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is an event.
    Event {
        /// Its id.
        id: String,
        /// Whether it was accepted before.
        duplicate: bool,
    },
    /// It is in INBOX, and becomes an event when ingest takes it.
    Inbox {
        /// Its number there.
        sequence: u64,
    },
}

/// A way in.
pub(super) enum Sender {
    Api(Api),
    Requests(EventLog),
    Inbox(EventLog, Publisher),
}

/// The body of a request to the API.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: &'a BTreeMap<String, String>,
}

impl Sender {
    /// Opens a way in.
    pub(super) async fn open(via: Via, connection: &Connection, nats: &Nats) -> Result<Self> {
        Ok(match via {
            Via::Api => Self::Api(connection.open_api()?),
            Via::Nats => Self::Requests(nats::open(&connection.nats_url(nats), nats).await?),
            Via::Inbox => {
                let log = nats::open(&connection.nats_url(nats), nats).await?;
                let publisher = log.publisher();
                Self::Inbox(log, publisher)
            }
        })
    }

    /// How many events may be on their way at once.
    pub(super) const fn in_flight_max(&self) -> usize {
        match self {
            Self::Api(_) => 32,
            Self::Requests(_) => 64,
            Self::Inbox(..) => 256,
        }
    }

    /// Sends an event, and waits until it is known what became of it.
    pub(super) async fn send(&self, event: &NewEvent) -> Result<Answer> {
        match self {
            Self::Api(api) => post(api, event).await,
            Self::Requests(log) => request(log, event).await,
            Self::Inbox(_, publisher) => {
                let pending = publisher.inbox(&message(event)).await.context("publish to INBOX")?;
                let stored = pending.stored().await.context("publish to INBOX")?;
                Ok(Answer::Inbox { sequence: stored.sequence })
            }
        }
    }

    /// Closes it.
    pub(super) async fn close(self) {
        match self {
            Self::Api(_) => {}
            Self::Requests(log) | Self::Inbox(log, _) => log.close().await,
        }
    }
}

async fn post(api: &Api, event: &NewEvent) -> Result<Answer> {
    let body = Body {
        event_type: event.event_type.as_str(),
        data: &event.data,
        occurred_at: event.occurred_at.as_deref(),
        ordering_key: event.ordering_key.as_deref(),
        attributes: &event.attributes,
    };
    let body = to_raw_value(&body).context("write the event")?;
    let key = event.idempotency_key.as_deref().map(|key| ("Idempotency-Key", key));
    let headers: Vec<_> = key.into_iter().collect();
    let path = format!("/v1/tenants/{}/events", event.tenant);
    let answer = api.post_raw(&path, &body, &headers).await?;
    let duplicate = answer.get("duplicate").and_then(serde_json::Value::as_bool).unwrap_or(false);
    Ok(Answer::Event { id: String::from(text(&answer, "id")), duplicate })
}

async fn request(log: &EventLog, event: &NewEvent) -> Result<Answer> {
    match log.publish_request(&message(event), ANSWER).await.context("ask ingest")? {
        PublishAnswer::Accepted { event, duplicate } => {
            Ok(Answer::Event { id: event.to_string(), duplicate })
        }
        PublishAnswer::Refused { reason, detail, .. } => bail!("refused: {detail} [{reason}]"),
        PublishAnswer::Unavailable { detail } => bail!("not at this moment: {detail}"),
    }
}

/// The event as any producer with a NATS client would send it.
fn message(event: &NewEvent) -> InboxMessage {
    let mut pairs = vec![(String::from(header::CONTENT_TYPE), String::from("application/json"))];
    let optional = [
        (header::IDEMPOTENCY_KEY, &event.idempotency_key),
        (header::OCCURRED_AT, &event.occurred_at),
        (header::ORDERING_KEY, &event.ordering_key),
    ];
    for (name, value) in optional {
        pairs.extend(value.clone().map(|value| (String::from(name), value)));
    }
    for (name, value) in &event.attributes {
        pairs.push((format!("{}{name}", header::ATTRIBUTE_PREFIX), value.clone()));
    }
    InboxMessage {
        tenant: event.tenant.to_string(),
        event_type: event.event_type.to_string(),
        headers: Headers::new(pairs),
        payload: bytes::Bytes::from(event.data.get().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> NewEvent {
        NewEvent {
            tenant: "acme".parse().unwrap(),
            event_type: "invoice.paid".parse().unwrap(),
            data: RawValue::from_string(String::from("{\"n\": 1.10}")).unwrap(),
            idempotency_key: Some(String::from("k")),
            occurred_at: None,
            ordering_key: Some(String::from("o")),
            attributes: BTreeMap::from([(String::from("region"), String::from("eu"))]),
        }
    }

    #[test]
    fn a_message_says_the_same_as_a_request_to_the_api() {
        let message = message(&event());
        assert_eq!((&*message.tenant, &*message.event_type), ("acme", "invoice.paid"));
        assert_eq!(message.payload, "{\"n\": 1.10}");
        assert_eq!(message.headers.get("fanfare-idempotency-key"), Some("k"));
        assert_eq!(message.headers.get("fanfare-ordering-key"), Some("o"));
        assert_eq!(message.headers.get("fanfare-attribute-region"), Some("eu"));
        assert_eq!(message.headers.get("fanfare-occurred-at"), None);
    }

    #[test]
    fn the_apis_body_has_the_data_as_it_was_written() {
        let event = event();
        let body = Body {
            event_type: event.event_type.as_str(),
            data: &event.data,
            occurred_at: None,
            ordering_key: None,
            attributes: &event.attributes,
        };
        let text = serde_json::to_string(&body).unwrap();
        let expected = r#"{"type":"invoice.paid","data":{"n": 1.10},"attributes":{"region":"eu"}}"#;
        assert_eq!(text, expected);
    }
}
