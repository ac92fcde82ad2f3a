//! Receivers of webhooks that note what they got and what they answered.
//!
//! One HTTP server stands in for all endpoints of a test, each at a path of its own. What is
//! noted is what a tenant could prove: the path, the headers, the body, the time, the answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use fanfare_domain::{EventId, Timestamp};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::receiver::{Behaviour, Received, Receiver};
use serde_json::Value;

/// A request that an endpoint got, or one event of it if it is a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The path, which names the endpoint.
    pub(crate) path: String,
    /// The event, by `webhook-id`, or by its element in a batch.
    pub(crate) event: Option<EventId>,
    /// `webhook-signature`.
    pub(crate) signature: String,
    /// When the request was complete.
    pub(crate) at: Timestamp,
    /// What it was answered with; `None` if it got no answer.
    pub(crate) answered: Option<u16>,
    /// The body.
    pub(crate) body: Bytes,
}

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answers.
    Status(u16),
    /// It answers after a while.
    Late(u16, Duration),
    /// It answers, and asks to be left alone for so many seconds.
    RetryAfter(u16, u32),
    /// It resets the connection.
    Reset,
    /// It takes the request and never answers.
    Silence,
}

type Choose = dyn Fn(&Received, usize) -> Answer + Send + Sync;

/// The server, and its notes.
pub(crate) struct Hooks {
    receiver: Receiver,
    notes: Arc<Mutex<Vec<Seen>>>,
}

impl Hooks {
    /// Starts a server that answers 200 to everything.
    pub(crate) async fn start() -> Result<Self> {
        Self::answering(|_, _| Answer::Status(200)).await
    }

    /// Starts a server. `choose` is given each request and how many there were of the same event
    /// at the same path before.
    pub(crate) async fn answering(
        choose: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let receiver = Receiver::start().await?;
        let notes = Arc::new(Mutex::new(Vec::new()));
        let (book, choose) = (Arc::clone(&notes), Arc::new(choose) as Arc<Choose>);
        let counts = Mutex::new(std::collections::BTreeMap::new());
        receiver.answer(Behaviour::ask(move |request| {
            let id = request.header("webhook-id").unwrap_or_default();
            let place = (request.path.clone(), String::from(id));
            let earlier = {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                let count = counts.entry(place).or_insert(0_usize);
                *count += 1;
                *count - 1
            };
            let answer = choose(request, earlier);
            let seen = Seen::of(request, answer);
            book.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
            match answer {
                Answer::Status(status) => Behaviour::status(status),
                Answer::Late(status, delay) => Behaviour::status(status).after(delay),
                Answer::RetryAfter(status, seconds) => {
                    Behaviour::retry_after(status, &seconds.to_string())
                }
                Answer::Reset => Behaviour::ResetBeforeHead,
                Answer::Silence => Behaviour::Silent,
            }
        }));
        Ok(Self { receiver, notes })
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        self.receiver.url(path)
    }

    /// Everything that came so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came to one path so far.
    pub(crate) fn seen_at(&self, path: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.path == path);
        seen
    }

    /// The requests themselves.
    pub(crate) fn requests(&self) -> Vec<Arc<Received>> {
        self.receiver.requests()
    }

    /// How many requests came so far.
    pub(crate) fn count(&self) -> usize {
        self.receiver.count()
    }
}

impl Seen {
    fn of(request: &Received, answer: Answer) -> Vec<Self> {
        let header = |name| request.header(name).unwrap_or_default();
        let seen = |event| Self {
            path: request.path.clone(),
            event,
            signature: String::from(header("webhook-signature")),
            at: SystemClock.now(),
            answered: match answer {
                Answer::Status(status)
                | Answer::Late(status, _)
                | Answer::RetryAfter(status, _) => Some(status),
                Answer::Reset | Answer::Silence => None,
            },
            body: request.body.clone(),
        };
        match batch(request) {
            Some(events) => events.into_iter().map(seen).collect(),
            None => vec![seen(header("webhook-id").parse().ok())],
        }
    }
}

/// The events of a batch; `None` if the request is none.
pub(crate) fn batch(request: &Received) -> Option<Vec<Option<EventId>>> {
    let elements: Vec<Value> = serde_json::from_slice(&request.body).ok()?;
    let event = |element: &Value| element["id"].as_str().and_then(|id| id.parse().ok());
    Some(elements.iter().map(event).collect())
}
