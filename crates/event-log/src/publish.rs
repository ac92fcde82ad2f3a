//! The one way of writing: pipelined, bounded, repeated until the outcome is known.
//!
//! Messages are sent each by itself, or where it pays in atomic batches of what gathered. Nothing
//! rests on a batch being atomic: one that is refused, or whose outcome is unknown, is written
//! again message by message, under the same ids.

pub(crate) mod acks;
mod batch;
mod lane;
pub(crate) mod outgoing;
pub(crate) mod policy;
pub(crate) mod verdict;
mod windows;

use std::sync::Arc;

use async_nats::{HeaderName, HeaderValue, Subject, jetstream};
use fanfare_domain::{
    DeliveryRef, EndpointId, Event, Fact, Record, Shard, Task, TenantId, id::dedupe_key,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

pub use self::windows::Windows;
use self::{
    acks::Ticket,
    batch::is_batch_header,
    lane::{Answer, Lanes, Queued},
    outgoing::Outgoing,
};
use crate::{
    EventLog, Headers,
    bootstrap::INBOX_HEADROOM,
    read::InboxMessage,
    topology::{Stream, header},
};

/// Writes to the streams. Cheap to clone; clones share the window.
///
/// What one publisher writes to one stream is stored in the order of calls, as far as the servers
/// are there and take it at the first try.
#[derive(Clone)]
pub struct Publisher {
    pub(crate) log: EventLog,
    window: Arc<Semaphore>,
    lanes: Arc<Lanes>,
}

/// A write that is on its way.
///
/// Dropping it does not undo it; but if the publisher is dropped too, or the log is
/// [closed](EventLog::close), a message that was not sent yet never will be: that of a stream
/// whose messages gather for batches. Closing is not waited for: [`Pending::stored`] then says
/// [`PublishError::Closed`] of whatever is not known to be stored.
#[must_use = "a write is not known to be stored before `stored` says so"]
pub struct Pending {
    log: EventLog,
    held: Arc<Held>,
    way: Way,
}

/// A message that counts against the window for as long as anybody has to do with it.
pub(crate) struct Held {
    pub(crate) message: Outgoing,
    /// Its size.
    pub(crate) bytes: usize,
    _permit: OwnedSemaphorePermit,
}

/// How a message went.
enum Way {
    /// By itself.
    Alone { ticket: Ticket, sent: Instant },
    /// With others of its stream, in a lane that ends with them.
    Lane { answer: oneshot::Receiver<Answer>, _lanes: Arc<Lanes> },
}

/// A message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence; for a duplicate, that of the first one if the server tells, else 0.
    pub sequence: u64,
    /// Whether it was there already.
    pub duplicate: bool,
}

/// A write was refused for good. Unknown outcomes are no errors: they are repeated.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The stream is full and refuses what is new (`discard: new`), or storage is short. Nothing is stored.
    #[error("stream {stream} is full")]
    Full {
        /// Which stream.
        stream: String,
    },
    /// The message is larger than the servers take.
    #[error("a message of {bytes} bytes is larger than the servers take ({max})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A subject or header that the protocol cannot carry.
    #[error("malformed {what}")]
    Malformed {
        /// What is malformed.
        what: &'static str,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
    /// The server refuses the message, and always will. Nothing is stored.
    #[error("stream {stream} refused the message")]
    Refused {
        /// Which stream.
        stream: String,
        /// What the server said.
        #[source]
        source: async_nats::Error,
    },
    /// The log is being closed. The message may be stored or not.
    #[error("the log is closed")]
    Closed,
}

impl PublishError {
    /// Judges what the client's own publisher said for good.
    pub(crate) fn from_ack(stream: &str, error: jetstream::context::PublishError) -> Self {
        let said = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<jetstream::Error>());
        let is_full =
            said.is_some_and(|said| verdict::is_full(said.error_code().0, &said.to_string()));
        let stream = stream.to_owned();
        if is_full { Self::Full { stream } } else { Self::Refused { stream, source: error.into() } }
    }
}

impl EventLog {
    /// Returns how full the windows of its publishers are, to be read at any time.
    pub fn windows(&self) -> Windows {
        self.inner.windows.clone()
    }

    /// Makes a publisher with a window of its own.
    pub fn publisher(&self) -> Publisher {
        let window = self.inner.windows.open();
        let lanes = Arc::new(Lanes::new(&self.inner.settings));
        Publisher { log: self.clone(), window, lanes }
    }
}

impl Publisher {
    /// Writes an event to EVENTS under its id. Waits while the window is full.
    ///
    /// Within the servers' duplicate window, writing it again is harmless. If an earlier process
    /// may have written it longer ago, the caller looks first ([`EventLog::events_on_record`]).
    pub async fn event(&self, event: &Event) -> Result<Pending, PublishError> {
        self.publish(Outgoing {
            stream: Stream::Events,
            subject: self.log.topology().event(&event.tenant, &event.event_type).into(),
            id: Some(event.id.to_string()),
            headers: Vec::new(),
            payload: fanfare_proto::encode_event(event),
        })
        .await
    }

    /// Puts a message into INBOX as a producer would: for the api, the client and tests.
    ///
    /// Headers that only servers may act on (`Nats-…`) are left out. A repeat of an unknown
    /// outcome is known again within the duplicate window; two calls are two messages.
    pub async fn inbox(&self, message: &InboxMessage) -> Result<Pending, PublishError> {
        let max = self.log.payload_max().saturating_sub(INBOX_HEADROOM);
        if message.payload.len() > max {
            return Err(PublishError::TooLarge { bytes: message.payload.len(), max });
        }
        let prefix = self.log.topology().prefix();
        let subject =
            Subject::from(format!("{prefix}.inbox.{}.{}", message.tenant, message.event_type));
        if !subject.is_valid() || subject.contains(['*', '>']) || message.tenant.contains('.') {
            return Err(malformed("subject", MalformedSubject));
        }
        let unique = self.log.inner.client.new_inbox();
        self.publish(Outgoing {
            stream: Stream::Inbox,
            subject,
            // Ids are per stream, not per tenant: no tenant may name another's.
            id: Some(format!("{}/{unique}", message.tenant)),
            headers: carried(&message.headers, |name| {
                (!is_reserved(name)).then(|| name.to_owned())
            })?,
            payload: message.payload.clone(),
        })
        .await
    }

    /// Writes tasks of a shard (at least one) to DELIVERIES as one message; its id is made of their
    /// events, generations and targets. The same task in another company is another message: that
    /// it was taken already is for the dispatcher to know.
    pub async fn tasks(&self, shard: Shard, tasks: &[Task]) -> Result<Pending, PublishError> {
        let generations: Vec<_> = tasks.iter().map(|task| task.generation.to_be_bytes()).collect();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(tasks.len() * 3);
        for (task, generation) in tasks.iter().zip(&generations) {
            parts.push(task.event.event.id.as_bytes());
            parts.push(generation);
            parts.extend(task.targets.iter().map(|target| &target.delivery.as_bytes()[..]));
        }
        let refers_to = tasks.iter().map(|task| task.journal_sequence).min().unwrap_or_default();
        self.publish(Outgoing {
            stream: Stream::Deliveries,
            subject: self.log.topology().deliveries(shard).into(),
            id: Some(dedupe_key(&parts)),
            headers: vec![journal_sequence(refers_to)],
            payload: fanfare_proto::encode_tasks(tasks),
        })
        .await
    }

    /// Writes routed facts (`EventRouted` only, at least one) to `journal.routed` as one message.
    ///
    /// Its id is made of the events, generations and parts; for replays also of the endpoints, since
    /// one can come to an event several times, for others. So a duplicate means that these events
    /// were routed before, when they were accepted maybe otherwise: what is on record counts then.
    /// The id of a routing in several parts is also made of its time: parts of two routings, which
    /// may have the endpoints in other lists, do not make one.
    pub async fn routed(&self, facts: &[Record]) -> Result<Pending, PublishError> {
        let mut about = Vec::with_capacity(facts.len() * 24);
        for record in facts {
            let Fact::EventRouted(routed) = &record.fact else {
                debug_assert!(false, "only routed facts belong to `journal.routed`");
                continue;
            };
            about.extend_from_slice(routed.event.as_bytes());
            about.extend_from_slice(&routed.generation.to_be_bytes());
            about.extend_from_slice(&routed.part.to_be_bytes());
            if routed.parts > 1 {
                about.extend_from_slice(&record.recorded_at.as_nanos().to_be_bytes());
            }
            if routed.generation > 0 {
                let lists = [&routed.targets, &routed.skipped, &routed.held, &routed.fed];
                for list in lists {
                    about.extend_from_slice(&list.len().to_be_bytes());
                    about.extend(list.iter().flat_map(EndpointId::as_bytes));
                }
            }
        }
        self.publish(Outgoing {
            stream: Stream::Journal,
            subject: self.log.topology().routed().into(),
            id: Some(dedupe_key(&[&about])),
            headers: Vec::new(),
            payload: fanfare_proto::encode_journal(facts),
        })
        .await
    }

    /// Writes what ingest refused, whole, with the reason's stable name and words, to REJECTED.
    ///
    /// Its id is made of all that it holds: of equal messages refused within the duplicate
    /// window, one is kept. Headers that only servers may act on get another name.
    pub async fn rejected(
        &self,
        message: &InboxMessage,
        reason: &str,
        detail: &str,
    ) -> Result<Pending, PublishError> {
        let InboxMessage { tenant, event_type, headers, payload } = message;
        let mut about = Vec::new();
        let telling = headers.pairs().iter().filter(|(name, _)| !is_batch_header(name));
        for (name, value) in telling {
            about.extend_from_slice(name.as_bytes());
            about.push(b'\n');
            about.extend_from_slice(value.as_bytes());
            about.push(b'\n');
        }
        let subject = [tenant.as_bytes(), event_type.as_bytes(), reason.as_bytes()];
        let id = dedupe_key(&[subject[0], subject[1], subject[2], &about, payload]);
        let mut carried = carried(headers, |name| {
            let prefix = if is_reserved(name) { header::ORIGINAL_PREFIX } else { "" };
            (!is_batch_header(name)).then(|| format!("{prefix}{name}"))
        })?;
        carried.extend([
            (HeaderName::from_static(header::REASON), line(reason)),
            (HeaderName::from_static(header::DETAIL), line(detail)),
            (HeaderName::from_static(header::TENANT), line(tenant)),
            (HeaderName::from_static(header::EVENT_TYPE), line(event_type)),
        ]);
        let tenant: Option<TenantId> = tenant.parse().ok();
        self.publish(Outgoing {
            stream: Stream::Rejected,
            subject: self.log.topology().rejected(tenant.as_ref()).into(),
            id: Some(id),
            headers: carried,
            payload: payload.clone(),
        })
        .await
    }

    /// Writes an exhausted delivery to DEAD: the last facts about it. Its id is the delivery's.
    pub async fn dead(
        &self,
        delivery: &DeliveryRef,
        facts: &[Record],
    ) -> Result<Pending, PublishError> {
        self.publish(Outgoing {
            stream: Stream::Dead,
            subject: self.log.topology().dead(&delivery.tenant, delivery.endpoint).into(),
            id: Some(delivery.id.to_string()),
            headers: Vec::new(),
            payload: fanfare_proto::encode_facts(facts),
        })
        .await
    }

    /// Sends a message once there is room in the window.
    pub(crate) async fn publish(&self, message: Outgoing) -> Result<Pending, PublishError> {
        let window = Arc::clone(&self.window);
        let permit = window.acquire_owned().await.map_err(|_| PublishError::Closed)?;
        let bytes = self.log.sendable(&message)?;
        let held = Arc::new(Held { message, bytes, _permit: permit });
        let way = if let Some(lane) = self.lanes.lane(&self.log, held.message.stream) {
            let (sender, answer) = oneshot::channel();
            let queued = Queued { held: Arc::clone(&held), answer: sender };
            // There is room: what a lane holds counts against the window.
            lane.send(queued).await.map_err(|_| PublishError::Closed)?;
            Way::Lane { answer, _lanes: Arc::clone(&self.lanes) }
        } else {
            let sent = Instant::now();
            Way::Alone { ticket: self.log.send(&held.message).await?, sent }
        };
        Ok(Pending { log: self.log.clone(), held, way })
    }
}

impl Pending {
    /// Waits until the message is stored, repeating it under the same id while that is unknown.
    ///
    /// Dropped before it is ready, it leaves open whether the message is stored.
    pub async fn stored(self) -> Result<Stored, PublishError> {
        let Self { log, held, way } = self;
        match way {
            Way::Alone { ticket, sent } => log.outcome(&held.message, ticket, sent).await,
            Way::Lane { answer, _lanes } => match answer.await {
                Ok(Answer::Known(outcome)) => outcome,
                Ok(Answer::Unknown { sent, why }) => log.find_out(&held.message, why, sent).await,
                Err(_) => Err(PublishError::Closed),
            },
        }
    }
}

/// The subject has empty tokens, blanks or wildcards.
#[derive(Debug, thiserror::Error)]
#[error("tenant and type do not make a subject")]
struct MalformedSubject;

fn malformed(what: &'static str, source: impl Into<async_nats::Error>) -> PublishError {
    PublishError::Malformed { what, source: source.into() }
}

/// Whether servers act on a header of this name.
fn is_reserved(name: &str) -> bool {
    name.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("Nats-"))
}

/// Takes over headers from outside under the name that `rename` gives them, if any.
fn carried(
    headers: &Headers,
    rename: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, PublishError> {
    let mut carried = Vec::with_capacity(headers.pairs().len() + 4);
    for (name, value) in headers.pairs() {
        let Some(name) = rename(name) else { continue };
        let name = name.parse().map_err(|source: async_nats::header::ParseHeaderNameError| {
            malformed("header name", source)
        })?;
        let value =
            value.parse().map_err(|source: async_nats::header::ParseHeaderValueError| {
                malformed("header value", source)
            })?;
        carried.push((name, value));
    }
    Ok(carried)
}

/// Makes a header of any text: it ends at the first line break.
pub(crate) fn line(text: &str) -> HeaderValue {
    let line = text.split(['\r', '\n']).next().unwrap_or_default();
    line.parse().unwrap_or_default()
}

/// The header by which the oldest unsettled task is found without decoding it.
pub(crate) fn journal_sequence(sequence: u64) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(header::JOURNAL_SEQUENCE), HeaderValue::from(sequence))
}
