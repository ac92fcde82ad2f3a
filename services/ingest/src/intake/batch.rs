//! The second half of a batch: writing, and only then letting go.
//!
//! Events without an ordering key are on their way all at once. Those with one stand in
//! [`Lines`]: who is first is sent with the others, and the rest when its turn comes.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{Event, EventId, Timestamp, chain, trace::span::Told};
use fanfare_event_log::{InboxMessage, Pending, PublishError, ReadError, Settler};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::lines::{Lines, Place};
use crate::{
    admit::{Reason, Rejection},
    counters::Counters,
    keys::{Keys, SKEW},
    outlet::{Outlet, Written},
    spans::Spans,
};

/// How long keeping refused messages, and noting that keys are used up, may take.
const ASIDE: Duration = Duration::from_secs(5);
/// How many of these are done at once.
const ASIDE_AT_ONCE: usize = 32;
/// How long to wait after the servers refused to be asked.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_secs(1);

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
    /// What the catalogue has against its event, unless that is stored.
    pub(crate) objection: Option<Rejection>,
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

/// What was sent, in the order of INBOX, what stands in line, and what is refused.
#[derive(Default)]
pub(crate) struct Batch {
    /// Since when it is in hand.
    since: Timestamp,
    sent: Vec<Sent>,
    in_line: Vec<InLine>,
    rejected: Vec<Rejected>,
}

struct Sent {
    event: Box<Event>,
    /// `None` if it was stored before.
    pending: Option<Pending>,
    settler: Settler,
}

/// An event with an ordering key.
struct InLine {
    message: InboxMessage,
    event: Box<Event>,
    place: Place,
    /// `None` if it waits for the one before it.
    pending: Option<Pending>,
    /// When it was not stored yet.
    looked_at: Instant,
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
    /// Tells what is stored.
    pub(crate) spans: Spans,
    /// Who is behind whom.
    pub(crate) lines: Lines,
}

impl Entry {
    /// Refuses an event that the catalogue objects to, now that it is known that it is not stored.
    pub(crate) fn object(&mut self) {
        if self.unwritten().is_some()
            && let Some(objection) = self.objection.take()
        {
            self.verdict = Verdict::Reject(objection);
        }
    }

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
    /// Sends events on their way, in order, as far as they need not wait for others. None of them
    /// was stored at `looked_at`, unless it says so.
    pub(crate) async fn send(
        &self,
        entries: Vec<Entry>,
        looked_at: Instant,
    ) -> Result<Batch, PublishError> {
        let mut batch = Batch { since: self.spans.now(), ..Batch::default() };
        for Entry { message, settler, verdict, .. } in entries {
            let event = match verdict {
                Verdict::Admit { event, stored: false } => event,
                Verdict::Admit { event, stored: true } => {
                    batch.sent.push(Sent { event, pending: None, settler });
                    continue;
                }
                Verdict::Reject(rejection) => {
                    batch.rejected.push(Rejected { message, rejection, settler });
                    continue;
                }
            };
            let key = event.ordering_key.as_deref();
            let place = key.map(|key| self.lines.join(&event.tenant, key));
            let pending = match &place {
                Some(place) if !place.is_first() => None,
                Some(_) | None => match self.outlet.send(&event).await {
                    Ok(pending) => Some(pending),
                    Err(error) => {
                        let rejection = too_large(error)?;
                        batch.rejected.push(Rejected { message, rejection, settler });
                        if let Some(place) = place {
                            place.pass();
                        }
                        continue;
                    }
                },
            };
            match place {
                None => batch.sent.push(Sent { event, pending, settler }),
                Some(place) => {
                    let in_line = InLine { message, event, place, pending, looked_at, settler };
                    batch.in_line.push(in_line);
                }
            }
        }
        Ok(batch)
    }

    /// Waits until a batch is stored, and settles its messages. What is given up because the
    /// work stops is not settled, and is handed out again.
    pub(crate) async fn finish(self, batch: Batch) -> anyhow::Result<()> {
        let Batch { since, sent, in_line, rejected } = batch;
        let (sent, in_line, ()) = tokio::join!(
            self.store(sent, since),
            self.store_in_line(in_line),
            self.reject(rejected)
        );
        let mut stored = sent?;
        stored.extend(in_line?);
        self.complete(stored).await;
        Ok(())
    }

    /// Settles what is stored, and returns it.
    async fn store(&self, sent: Vec<Sent>, since: Timestamp) -> anyhow::Result<Vec<Event>> {
        let mut stored = Vec::with_capacity(sent.len());
        for Sent { event, pending, settler } in sent {
            let written = match pending {
                Some(pending) => {
                    self.outlet.stored(&event, pending).await.context("store an event")?
                }
                None => Written::Stored { duplicate: true },
            };
            if self.settle(written, settler, (&event, since)).await {
                stored.push(*event);
            }
        }
        Ok(stored)
    }

    /// The same for what stands in line; the lines go on side by side.
    async fn store_in_line(&self, in_line: Vec<InLine>) -> anyhow::Result<Vec<Event>> {
        let at_once = in_line.len().max(1);
        let storing = in_line.into_iter().map(|one| self.store_in_turn(one));
        let storing = stream::iter(storing).buffer_unordered(at_once);
        let stored: Vec<Option<Event>> = storing.try_collect().await?;
        Ok(stored.into_iter().flatten().collect())
    }

    /// Waits for an event's turn, stores it, and lets the next one pass. Whoever is behind one that
    /// is given up is given up too.
    async fn store_in_turn(&self, in_line: InLine) -> anyhow::Result<Option<Event>> {
        let InLine { message, event, mut place, pending, looked_at, settler } = in_line;
        let mut since = self.spans.now();
        let sent = if let Some(pending) = pending {
            Ok(Some(pending))
        } else {
            if !place.reached().await {
                return Ok(None);
            }
            since = self.spans.now();
            let sending = self.send_unless_stored(&event, looked_at);
            let Some(sent) = self.outlet.unless_stopped(sending).await else { return Ok(None) };
            sent.context("look up an event")?
        };
        let written = match sent {
            Ok(Some(pending)) => {
                self.outlet.stored(&event, pending).await.context("store an event")?
            }
            Ok(None) => Written::Stored { duplicate: true },
            Err(error) => {
                let rejection = too_large(error).context("send an event")?;
                self.reject(vec![Rejected { message, rejection, settler }]).await;
                place.pass();
                return Ok(None);
            }
        };
        if self.settle(written, settler, (&event, since)).await {
            place.pass();
            return Ok(Some(*event));
        }
        Ok(None)
    }

    /// Sends an event, unless somebody has stored it while it waited for so long that the servers
    /// may have forgotten its id since then.
    async fn send_unless_stored(
        &self,
        event: &Event,
        mut looked_at: Instant,
    ) -> Result<Result<Option<Pending>, PublishError>, ReadError> {
        while looked_at.elapsed() > self.keys.fresh_for() {
            let now = Instant::now();
            // Boxed, because it is rare and large, and events in line are many.
            match Box::pin(self.keys.is_stored(event.id)).await {
                Ok(true) => return Ok(Ok(None)),
                Ok(false) => looked_at = now,
                Err(error @ ReadError::Refused { .. }) => {
                    warn!(
                        error = chain(&error),
                        tenant_id = %event.tenant,
                        event_id = %event.id,
                        trace_id = %Told::of(event).place().trace,
                        "an event waits because it cannot be looked up"
                    );
                    sleep(REFUSED_PAUSE).await;
                }
                Err(other) => return Err(other),
            }
        }
        Ok(self.outlet.send(event).await.map(Some))
    }

    /// Counts and settles what is stored; `false` if it is given up.
    async fn settle(
        &self,
        written: Written,
        settler: Settler,
        (event, since): (&Event, Timestamp),
    ) -> bool {
        match written {
            Written::Stored { duplicate: true } => self.counters.count_duplicate(),
            Written::Stored { duplicate: false } => {
                self.counters.count_accepted();
                self.spans.stored(event, since);
            }
            Written::GivenUp => return false,
        }
        settler.settle().await;
        true
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
