//! What a receiver does with a request.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;

use super::Received;

/// What a receiver does with a request.
#[derive(Clone)]
pub enum Behaviour {
    /// It answers.
    Reply(Reply),
    /// It answers 200 with the request's own body and content type.
    Echo,
    /// It waits before the head of the answer.
    After(Duration, Box<Self>),
    /// It waits before the head of the answer until the gate is open.
    Behind(Gate, Box<Self>),
    /// It does the first with the first request that this rule is for, and so on; the last repeats.
    InOrder(Vec<Self>),
    /// It asks. [`Received::number`] counts the receiver's requests from 1.
    Ask(Arc<dyn Fn(&Received) -> Self + Send + Sync>),
    /// It takes the request and never answers.
    Silent,
    /// It sends this status, and then a body of one byte at a time, for ever.
    Drip(u16, Duration),
    /// It sends this status, and then a body as fast as it is read, for ever.
    Endless(u16),
    /// It resets the connection in place of an answer.
    ResetBeforeHead,
    /// It sends this status and the first bytes of a body, then resets the connection.
    ResetMidBody(u16),
}

/// What holds answers back until a test opens it.
#[derive(Clone, Debug, Default)]
pub struct Gate(watch::Sender<bool>);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, 200 to 999.
    pub status: u16,
    /// Headers besides those that HTTP itself needs.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Behaviour {
    /// Answers with an empty body.
    pub const fn status(status: u16) -> Self {
        Self::Reply(Reply::new(status))
    }

    /// Answers each request with the next status; the last repeats.
    pub fn statuses(statuses: impl IntoIterator<Item = u16>) -> Self {
        Self::InOrder(statuses.into_iter().map(Self::status).collect())
    }

    /// Answers with a text.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Reply(Reply::new(status).body(body).header("content-type", "text/plain"))
    }

    /// Answers 307 with a `Location`.
    pub fn redirect(to: &str) -> Self {
        Self::Reply(Reply::new(307).header("location", to))
    }

    /// Answers with a status and a `Retry-After`.
    pub fn retry_after(status: u16, value: &str) -> Self {
        Self::Reply(Reply::new(status).header("retry-after", value))
    }

    /// Does the same, but later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    /// Does the same, but not before the gate is open.
    #[must_use]
    pub fn behind(self, gate: &Gate) -> Self {
        Self::Behind(gate.clone(), Box::new(self))
    }

    /// Asks `choose` about each request.
    pub fn ask(choose: impl Fn(&Received) -> Self + Send + Sync + 'static) -> Self {
        Self::Ask(Arc::new(choose))
    }

    /// Returns what is to be done with a request: the delays first, then something simple,
    /// which may be behind gates.
    ///
    /// `earlier` is how many requests the rule has been used for.
    pub(super) fn settle(&self, request: &Received, earlier: usize) -> (Duration, Self) {
        match self {
            Self::After(delay, then) => {
                let (further, behaviour) = then.settle(request, earlier);
                (*delay + further, behaviour)
            }
            Self::Behind(gate, then) => {
                let (delay, behaviour) = then.settle(request, earlier);
                (delay, behaviour.behind(gate))
            }
            Self::InOrder(all) => match all.get(earlier).or(all.last()) {
                Some(chosen) => chosen.settle(request, earlier),
                None => (Duration::ZERO, Self::status(200)),
            },
            Self::Ask(choose) => choose(request).settle(request, earlier),
            Self::Reply(_)
            | Self::Echo
            | Self::Silent
            | Self::Drip(..)
            | Self::Endless(_)
            | Self::ResetBeforeHead
            | Self::ResetMidBody(_) => (Duration::ZERO, self.clone()),
        }
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::status(200)
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => f.debug_tuple("Reply").field(reply).finish(),
            Self::Echo => f.write_str("Echo"),
            Self::After(delay, then) => f.debug_tuple("After").field(delay).field(then).finish(),
            Self::Behind(_, then) => f.debug_tuple("Behind").field(then).finish(),
            Self::InOrder(all) => f.debug_tuple("InOrder").field(all).finish(),
            Self::Ask(_) => f.write_str("Ask"),
            Self::Silent => f.write_str("Silent"),
            Self::Drip(status, every) => f.debug_tuple("Drip").field(status).field(every).finish(),
            Self::Endless(status) => f.debug_tuple("Endless").field(status).finish(),
            Self::ResetBeforeHead => f.write_str("ResetBeforeHead"),
            Self::ResetMidBody(status) => f.debug_tuple("ResetMidBody").field(status).finish(),
        }
    }
}

impl Gate {
    /// Opens it for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub(super) async fn opened(&self) {
        // It cannot be closed: there is a sender as long as there is a gate.
        self.0.subscribe().wait_for(|open| *open).await.ok();
    }
}

impl Reply {
    /// An empty answer.
    pub const fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((String::from(name), String::from(value)));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}
