//! The second half of a batch: writing, and only then letting go.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{Event, EventId, Timestamp};
use fanfare_event_log::{InboxMessage, Pending, PublishError, Settler};
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::{
    admit::{Reason, Rejection},
    counters::Counters,
    keys::{Keys, SKEW},
    outlet::{Outlet, Written},
};

/// How long keeping refused messages, and noting that keys are used up, may take.
const ASIDE: Duration = Duration::from_secs(5);
/// How many of these are done at once.
const ASIDE_AT_ONCE: usize = 32;

/// A message that was judged.
pub(crate) struct Entry {
    /// What was sent.
    pub(crate) message: InboxMessage,
    /// The id that is a function of the message alone.
    pub(crate) own: EventId,
    /// When INBOX stored it.
    pub(crate) stored_at: Timestamp,
    /// Whether it may have become an event before, longer ago than the servers remember.
    pub(crate) suspect: bool,
    /// Lets the message go.
    pub(crate) settler: Settler,
    /// What becomes of it.
    pub(crate) verdict: Verdict,
}

/// What becomes of a message.
pub(crate) enum Verdict {
    /// It becomes this event, or became it before.
    Admit {
        /// The event.
        event: Box<Event>,
        /// Whether it is in EVENTS.
        stored: bool,
    },
    /// It is refused.
    Reject(Rejection),
}

/// What was sent, in the order of INBOX, and what is refused.
#[derive(Default)]
pub(crate) struct Batch {
    events: Vec<Sent>,
    rejected: Vec<Rejected>,
}

struct Sent {
    event: Box<Event>,
    /// `None` if it was stored before.
    pending: Option<Pending>,
    settler: Settler,
}

struct Rejected {
    message: InboxMessage,
    rejection: Rejection,
    settler: Settler,
}

/// Writes batches and settles what is written. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Finisher {
    /// Writes.
    pub(crate) outlet: Outlet,
    /// Notes which keys are used up.
    pub(crate) keys: Keys,
    /// Counts.
    pub(crate) counters: Arc<Counters>,
}

impl Entry {
    /// The event that is to be written.
    pub(crate) fn unwritten(&mut self) -> Option<(&mut Event, &mut bool)> {
        match &mut self.verdict {
            Verdict::Admit { event, stored } => (!*stored).then_some((event, stored)),
            Verdict::Reject(_) => None,
        }
    }

    /// The event's id, and from when on to look for it, if it may be stored.
    pub(crate) fn suspect(&mut self) -> Option<(EventId, Timestamp)> {
        let (own, stored_at, suspect) = (self.own, self.stored_at, self.suspect);
        let (event, _) = self.unwritten().filter(|_| suspect)?;
        let other = || event.id.time().saturating_sub(SKEW);
        Some((event.id, if event.id == own { stored_at } else { other() }))
    }
}

impl Finisher {
    /// Sends events on their way, in order.
    pub(crate) async fn send(&self, entries: Vec<Entry>) -> Result<Batch, PublishError> {
        let mut batch = Batch::default();
        for Entry { message, settler, verdict, .. } in entries {
            let rejection = match verdict {
                Verdict::Admit { event, stored: true } => {
                    batch.events.push(Sent { event, pending: None, settler });
                    continue;
                }
                Verdict::Admit { event, stored: false } => match self.outlet.send(&event).await {
                    Ok(pending) => {
                        batch.events.push(Sent { event, pending: Some(pending), settler });
                        continue;
                    }
                    Err(error) => too_large(error)?,
                },
                Verdict::Reject(rejection) => rejection,
            };
            batch.rejected.push(Rejected { message, rejection, settler });
        }
        Ok(batch)
    }

    /// Waits until a batch is stored, and settles its messages. What is given up because the
    /// service stops is not settled, and is handed out again.
    pub(crate) async fn finish(self, batch: Batch) -> anyhow::Result<()> {
        let Batch { events, rejected } = batch;
        let (stored, ()) = tokio::join!(self.store(events), self.reject(rejected));
        self.complete(stored?).await;
        Ok(())
    }

    /// Settles what is stored, and returns it.
    async fn store(&self, sent: Vec<Sent>) -> anyhow::Result<Vec<Event>> {
        let mut stored = Vec::with_capacity(sent.len());
        for Sent { event, pending, settler } in sent {
            let written = match pending {
                Some(pending) => {
                    self.outlet.stored(&event, pending).await.context("store an event")?
                }
                None => Written::Stored { duplicate: true },
            };
            match written {
                Written::Stored { duplicate: true } => self.counters.count_duplicate(),
                Written::Stored { duplicate: false } => self.counters.count_accepted(),
                Written::GivenUp => continue,
            }
            settler.settle().await;
            stored.push(*event);
        }
        Ok(stored)
    }

    /// Keeps what is refused, as far as that is possible in a short time, and settles it.
    async fn reject(&self, rejected: Vec<Rejected>) {
        let (mut keeping, mut settlers) = (Vec::new(), Vec::new());
        for Rejected { message, rejection, settler } in rejected {
            debug!(
                reason = rejection.reason.as_str(),
                tenant_id = message.tenant,
                event_type = message.event_type,
                detail = rejection.detail,
                "refused a message"
            );
            self.counters.count_rejected(rejection.reason);
            keeping.push(self.outlet.clone().reject(message, rejection));
            settlers.push(settler);
        }
        if !at_once(keeping).await {
            warn!("some refused messages could not be kept in time");
        }
        for settler in settlers {
            settler.settle().await;
        }
    }

    /// Notes which keys are used up. Not needed, but it saves those who find the key a look.
    async fn complete(&self, events: Vec<Event>) {
        let keyed = events.into_iter().filter(|event| event.idempotency_key.is_some());
        if !at_once(keyed.map(|event| note_used(self.keys.clone(), event)).collect()).await {
            debug!("keys were not completed in time");
        }
    }
}

/// Does some things at once, and tells whether all were done in time.
async fn at_once(futures: Vec<impl Future<Output = ()>>) -> bool {
    let all = stream::iter(futures).buffer_unordered(ASIDE_AT_ONCE).collect::<()>();
    timeout(ASIDE, all).await.is_ok()
}

async fn note_used(keys: Keys, event: Event) {
    if let Some(key) = &event.idempotency_key {
        keys.complete(&event.tenant, key, event.id).await;
    }
}

/// Refuses an event that turned out to be larger than the servers take; every other error is not
/// the message's.
fn too_large(error: PublishError) -> Result<Rejection, PublishError> {
    match error {
        error @ PublishError::TooLarge { .. } => Ok(Reason::TooLarge.because(error)),
        error @ (PublishError::Full { .. }
        | PublishError::Malformed { .. }
        | PublishError::Refused { .. }
        | PublishError::Closed) => Err(error),
    }
}
