//! A producer that insists: it repeats each publish, with the same idempotency key, until it is
//! acknowledged, over all three ways into the system.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_domain::{EventId, EventType, TenantId};
use fanfare_event_log::{
    EventLog, Headers, InboxMessage, PublishAnswer, Publisher, topology::header,
};
use fanfare_testkit::wait_at_most;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::api::Api;

/// How long an acknowledgement is waited for, over however many kills.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long one request may go unanswered.
const ANSWER: Duration = Duration::from_secs(5);
/// How many events are on their way at once.
const WINDOW: usize = 32;

/// How an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To INBOX, with JetStream's acknowledgement.
    Inbox,
    /// As a NATS request, answered by ingest.
    Request,
    /// By the REST API.
    Http,
}

/// An event to be published.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// The idempotency key, unique in a test.
    pub(crate) key: String,
    /// Whose event it is.
    pub(crate) tenant: TenantId,
    /// Its type.
    pub(crate) event_type: EventType,
    /// Its data, JSON.
    pub(crate) data: Bytes,
    /// How it is published.
    pub(crate) route: Route,
    /// The ordering key.
    pub(crate) ordering_key: Option<String>,
}

/// An event whose publish was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The idempotency key.
    pub(crate) key: String,
    /// Whose event it is.
    pub(crate) tenant: TenantId,
    /// Its type.
    pub(crate) event_type: EventType,
    /// Its data as it was sent.
    pub(crate) data: Bytes,
    /// The id that it was given, where the answer says it.
    pub(crate) event: Option<EventId>,
}

/// Publishes events.
#[derive(Clone)]
pub(crate) struct Producer {
    log: EventLog,
    publisher: Publisher,
    api: Api,
}

impl Producer {
    /// Makes a producer for an installation.
    pub(crate) fn new(log: &EventLog, api: &Api) -> Self {
        Self { log: log.clone(), publisher: log.publisher(), api: api.clone() }
    }

    /// Publishes events, some at a time, and returns them once all are acknowledged.
    pub(crate) async fn publish_all(
        &self,
        planned: impl IntoIterator<Item = Planned>,
    ) -> Result<Vec<Acknowledged>> {
        let publishing = stream::iter(planned).map(|one| self.publish(one));
        publishing.buffer_unordered(WINDOW).try_collect().await
    }

    /// Publishes an event until it is acknowledged.
    pub(crate) async fn publish(&self, planned: Planned) -> Result<Acknowledged> {
        let event = match planned.route {
            Route::Inbox => {
                let pending = self.publisher.inbox(&message(&planned)).await;
                let stored = pending.context("publish to INBOX")?.stored().await;
                stored.context("store in INBOX")?;
                None
            }
            Route::Request => Some(self.request(&planned).await?),
            Route::Http => Some(self.post(&planned).await?),
        };
        let Planned { key, tenant, event_type, data, route: _, ordering_key: _ } = planned;
        Ok(Acknowledged { key, tenant, event_type, data, event })
    }

    async fn request(&self, planned: &Planned) -> Result<EventId> {
        let message = message(planned);
        let answered =
            wait_at_most(PATIENCE, "an answer to a publish request", async || {
                match self.log.publish_request(&message, ANSWER).await {
                    Ok(PublishAnswer::Accepted { event, .. }) => Ok(Ok(event)),
                    Ok(PublishAnswer::Refused { reason, detail, .. }) => {
                        Ok(Err(anyhow::anyhow!("refused: {reason}: {detail}")))
                    }
                    Ok(PublishAnswer::Unavailable { detail }) => Err(detail),
                    Err(error) => Err(error.to_string()),
                }
            });
        answered.await
    }

    async fn post(&self, planned: &Planned) -> Result<EventId> {
        let (tenant, event_type) = (planned.tenant.as_str(), planned.event_type.as_str());
        let data = str::from_utf8(&planned.data).context("data is text")?;
        let id = self.api.publish(tenant, event_type, data, &planned.key).await?;
        id.parse().context("the answer has an event's id")
    }
}

fn message(planned: &Planned) -> InboxMessage {
    let pair = |name: &str, value: &str| (String::from(name), String::from(value));
    let mut headers = vec![
        pair(header::IDEMPOTENCY_KEY, &planned.key),
        pair(header::CONTENT_TYPE, "application/json"),
    ];
    headers.extend(planned.ordering_key.iter().map(|key| pair(header::ORDERING_KEY, key)));
    InboxMessage {
        tenant: String::from(planned.tenant.as_str()),
        event_type: String::from(planned.event_type.as_str()),
        headers: Headers::new(headers),
        payload: planned.data.clone(),
    }
}
