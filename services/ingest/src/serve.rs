//! Answers requests to publish, each once its event is stored.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{Event, EventId, chain};
use fanfare_event_log::{
    InboxMessage, PublishAnswer, PublishError, ReadError, Reply, Request, Requests,
};
use fanfare_service::{Clock, Joined as _, random_bytes};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span, warn};

use crate::{
    admit::Rejection,
    counters::Counters,
    door::Door,
    judge::{Judge, Judged},
    keys::{Keys, Standing},
    outlet::Outlet,
    spans::Spans,
};

/// Answers requests until the service stops.
pub(crate) struct Desk {
    /// What each request is answered with.
    pub(crate) clerk: Arc<Clerk>,
    /// How many requests may be in hand.
    pub(crate) requests_max: usize,
    /// How many bytes of them.
    pub(crate) bytes_max: u64,
    /// Ends the taking of requests.
    pub(crate) stop: CancellationToken,
}

/// Answers one request.
pub(crate) struct Clerk {
    /// Decides.
    pub(crate) judge: Arc<Judge>,
    /// Knows which events are stored.
    pub(crate) keys: Keys,
    /// Writes.
    pub(crate) outlet: Outlet,
    /// Tells when events are accepted.
    pub(crate) clock: Arc<dyn Clock>,
    /// Counts.
    pub(crate) counters: Arc<Counters>,
    /// Tells what is stored.
    pub(crate) spans: Spans,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
}

/// Why a request is not answered with an id.
enum Obstacle {
    Rejected(Rejection),
    Unavailable(String),
}

/// The bytes of requests in hand.
#[derive(Clone, Default)]
struct Held(Arc<AtomicU64>);

/// Bytes that are given back when it is dropped.
struct Taken {
    bytes: u64,
    all: Held,
}

impl Desk {
    /// Takes requests. Once `stop` is cancelled, answers those in hand. Requests are taken as
    /// fast as they come, and refused if there are too many: where they wait otherwise, nobody
    /// tells those who sent them.
    pub(crate) async fn run(self, door: Door<Requests>) -> anyhow::Result<()> {
        let mut in_hand = JoinSet::new();
        let mut next = Some(door);
        while let Some(mut door) = next {
            if self.session(&mut door, &mut in_hand).await {
                next = door.open_again(&self.stop).await;
                continue;
            }
            let Door { entry, log, .. } = door;
            entry.stop().await;
            while in_hand.join_next().await.is_some() {}
            log.close().await;
            break;
        }
        Ok(())
    }

    /// Takes requests until the service stops, or the connection dies: then it returns `true`.
    async fn session(&self, door: &mut Door<Requests>, in_hand: &mut JoinSet<()>) -> bool {
        let held = Held::default();
        loop {
            self.clerk.counters.set_requests(in_hand.len(), held.bytes());
            let request = tokio::select! {
                () = self.stop.cancelled() => return false,
                Some(done) = in_hand.join_next() => {
                    if let Err(error) = done.joined() {
                        warn!(%error, "answering a request failed");
                    }
                    continue;
                }
                request = door.entry.next() => request,
            };
            let Some(Request { message, reply }) = request else { return true };
            let taken = held.take(&message, self.bytes_max);
            match taken.filter(|_| in_hand.len() < self.requests_max) {
                Some(taken) => {
                    let clerk = Arc::clone(&self.clerk);
                    let span = debug_span!("publish", tenant_id = message.tenant);
                    in_hand.spawn(clerk.serve(message, reply, taken).instrument(span));
                }
                None => self.clerk.turn_away(reply).await,
            }
        }
    }
}

impl Held {
    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds a message's bytes; `None` if that is too much.
    fn take(&self, message: &InboxMessage, max: u64) -> Option<Taken> {
        let bytes = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        let before = self.bytes();
        // Only one task adds.
        if before.saturating_add(bytes) > max {
            return None;
        }
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Some(Taken { bytes, all: self.clone() })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Clerk {
    async fn serve(self: Arc<Self>, message: InboxMessage, reply: Reply, _taken: Taken) {
        let answer = match timeout(self.timeout, self.publish(&message)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Obstacle::Rejected(rejection))) => self.refusal(&message, rejection),
            Ok(Err(Obstacle::Unavailable(detail))) => self.unavailable(detail),
            Err(_) => self.unavailable(String::from(
                "the event was not stored in time, but it may be stored yet: repeating the \
                 request is safe with an idempotency key",
            )),
        };
        reply.send(&answer).await;
    }

    async fn turn_away(&self, reply: Reply) {
        let answer = self.unavailable(String::from("too many requests are in hand"));
        reply.send(&answer).await;
    }

    async fn publish(&self, message: &InboxMessage) -> Result<PublishAnswer, Obstacle> {
        // Whatever was acknowledged before this request was sent is in the view after this.
        self.judge.catch_up().await?;
        let judged = self.judge.judge(message).await;
        let Judged { draft, objection } = judged.map_err(Obstacle::Rejected)?;
        let now = self.clock.now();
        let event = draft.into_event(EventId::new(now, random_bytes()), None, now);
        let answer = match (objection, event.idempotency_key.clone()) {
            (Some(objection), key) => (self.published(&event, key, objection).await?, true),
            (None, None) => {
                self.outlet.once(&event).await?;
                self.spans.stored(&event, now);
                (event.id, false)
            }
            (None, Some(key)) => self.publish_once(event, &key).await?,
        };
        let (event, duplicate) = answer;
        if duplicate {
            self.counters.count_duplicate();
        } else {
            self.counters.count_accepted();
        }
        Ok(PublishAnswer::Accepted { event, duplicate })
    }

    /// Returns the event that a key stands for, if it is stored: what the catalogue has against it now
    /// does not count for a repeat.
    async fn published(
        &self,
        event: &Event,
        key: Option<String>,
        objection: Rejection,
    ) -> Result<EventId, Obstacle> {
        let found = match key {
            Some(key) => self.keys.written(&event.tenant, &key).await?,
            None => None,
        };
        found.ok_or(Obstacle::Rejected(objection))
    }

    /// Stores an event unless its key stands for one that is stored.
    async fn publish_once(&self, mut event: Event, key: &str) -> Result<(EventId, bool), Obstacle> {
        let (asked_at, since) = (Instant::now(), self.spans.now());
        let (id, duplicate) = match self.keys.stand(&event.tenant, key, event.id).await? {
            Standing::Written { event } => return Ok((event, true)),
            Standing::Open { event, duplicate } => (event, duplicate),
        };
        event.id = id;
        // Stopped for so long, somebody else may have written it, and the servers may have
        // forgotten.
        let stale = asked_at.elapsed() > self.keys.fresh_for();
        if !(stale && self.keys.is_stored(id).await?) {
            self.outlet.once(&event).await?;
            if !duplicate {
                self.spans.stored(&event, since);
            }
        }
        self.keys.complete(&event.tenant, key, id).await;
        Ok((id, duplicate))
    }

    fn refusal(&self, message: &InboxMessage, rejection: Rejection) -> PublishAnswer {
        let Rejection { reason, detail } = rejection;
        debug!(
            reason = reason.as_str(),
            event_type = message.event_type,
            detail,
            "refused a request"
        );
        self.counters.count_rejected(reason);
        PublishAnswer::Refused { code: reason.code(), reason: reason.as_str().into(), detail }
    }

    fn unavailable(&self, detail: String) -> PublishAnswer {
        debug!(detail, "could not take a request");
        self.counters.count_unavailable();
        PublishAnswer::Unavailable { detail }
    }
}

impl From<ReadError> for Obstacle {
    fn from(error: ReadError) -> Self {
        warn!(error = chain(&error), "a request cannot be taken at this moment");
        Self::Unavailable(String::from("the log does not answer"))
    }
}

impl From<PublishError> for Obstacle {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { .. } => {
                Self::Rejected(crate::admit::Reason::TooLarge.because(error))
            }
            PublishError::Full { .. } => Self::Unavailable(String::from("the event log is full")),
            PublishError::Closed => Self::Unavailable(String::from("the service is stopping")),
            PublishError::Malformed { .. } | PublishError::Refused { .. } => {
                warn!(error = chain(&error), "the event log refuses an event");
                Self::Unavailable(String::from("the event log refuses the event"))
            }
        }
    }
}
