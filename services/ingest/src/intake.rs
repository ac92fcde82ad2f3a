//! Takes messages from INBOX and keeps a few batches on their way to EVENTS.
//!
//! ```text
//! next_batch ─▶ confirm the view ─▶ judge ─▶ look up suspects ─▶ claim keys ─▶ send ─▶ settle
//!               └──────── one batch at a time, in order ─────────────────────────┘   several
//! ```

mod batch;
mod sweeper;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{EventId, TenantId};
use fanfare_event_log::{InboxMessage, Position, ReadError, Reader, Unsettled};
use futures_util::{StreamExt as _, stream};
use tokio::{
    task::{JoinError, JoinSet, yield_now},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span, warn};

use self::batch::{Batch, Entry, Verdict};
pub(crate) use self::{batch::Finisher, sweeper::Sweeper};
use crate::{
    door::{Condition, Door},
    judge::Judge,
    keys::{Keys, Standing},
    outlet::chain,
};

/// The most messages of one batch.
const MESSAGES_MAX: usize = 128;
/// How many bytes are judged before others may run.
const JUDGED_AT_ONCE: usize = 256 * 1_024;
/// How often a batch is looked up anew because too much time has passed, before it is sent anyway.
const LOOKS_MAX: usize = 4;
/// How often the connection is looked at, and how often messages that came again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How long to wait after the servers refused to be asked.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Takes messages until the service stops.
pub(crate) struct Intake(Parts);

/// Why a connection is not read from any more.
enum End {
    Stopped,
    DoorDied,
}

/// What an [`Intake`] is made of.
pub(crate) struct Parts {
    /// INBOX, for the ids of events.
    pub(crate) inbox_identity: String,
    /// Decides.
    pub(crate) judge: Arc<Judge>,
    /// Knows which events are stored.
    pub(crate) keys: Keys,
    /// Writes and settles.
    pub(crate) finisher: Finisher,
    /// Puts aside what breaks connections.
    pub(crate) sweeper: Sweeper,
    /// How many batches may be written at once.
    pub(crate) batches_max: usize,
    /// How many keys are looked up at once.
    pub(crate) keys_max: usize,
    /// Ends the taking of messages.
    pub(crate) stop: CancellationToken,
}

impl Intake {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    /// Takes what comes by the door. Once `stop` is cancelled, finishes what is being written.
    pub(crate) async fn run(self, door: Door<Reader<InboxMessage>>) -> anyhow::Result<()> {
        let stop = self.0.stop.clone();
        let mut under_way = JoinSet::new();
        let mut next = Some(door);
        while let Some(mut door) = next {
            // What breaks connections may have been handed out to a process before this one.
            self.sweep(false).await;
            match self.session(&mut door, &mut under_way).await? {
                End::Stopped => {
                    while let Some(done) = under_way.join_next().await {
                        finish(done)?;
                    }
                    let Door { entry, log, .. } = door;
                    entry.stop().await;
                    log.close().await;
                    break;
                }
                End::DoorDied => next = door.open_again(&stop).await,
            }
        }
        while let Some(done) = under_way.join_next().await {
            finish(done)?;
        }
        Ok(())
    }

    /// Takes messages for as long as the connection lives.
    async fn session(
        &self,
        door: &mut Door<Reader<InboxMessage>>,
        under_way: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<End> {
        let stop = &self.0.stop;
        let (mut looks, mut sweeps) = (interval(LOOK_EVERY), interval(SWEEP_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = under_way.len() < self.0.batches_max;
            let taken = tokio::select! {
                () = stop.cancelled() => return Ok(End::Stopped),
                Some(done) = under_way.join_next() => {
                    finish(done)?;
                    continue;
                }
                _ = looks.tick() => {
                    match door.look().await {
                        Condition::Calm => {}
                        Condition::Reconnected => self.sweep(false).await,
                        Condition::Dead => return Ok(End::DoorDied),
                    }
                    continue;
                }
                _ = sweeps.tick() => {
                    self.sweep(true).await;
                    continue;
                }
                taken = door.entry.next_batch(MESSAGES_MAX), if has_room => taken,
            };
            let taken = match taken {
                Ok(taken) => taken,
                Err(_) if !door.log.is_alive().await => return Ok(End::DoorDied),
                Err(error) => return Err(error).context("next messages"),
            };
            let span = debug_span!("ingest", messages = taken.len());
            let sending = Box::pin(self.take(taken)).instrument(span.clone());
            // The view stands still once the service stops, so waiting for it has to end too.
            let Some(batch) = stop.run_until_cancelled(sending).await else {
                return Ok(End::Stopped);
            };
            under_way.spawn(self.0.finisher.clone().finish(batch?).instrument(span));
        }
    }

    /// Puts messages aside that break connections. `redelivered_only`: if some came again.
    async fn sweep(&self, redelivered_only: bool) {
        let swept = self.0.sweeper.sweep(redelivered_only);
        if let Some(Err(error)) = self.0.stop.run_until_cancelled(swept).await {
            warn!(error = chain(&error), "cannot look for messages that break connections");
        }
    }

    /// Decides on a batch and sends its events. Cancel safe: what is dropped is handed out again,
    /// and what was sent by then is known again by its id.
    async fn take(&self, taken: Vec<Unsettled<InboxMessage>>) -> anyhow::Result<Batch> {
        let taken_at = Instant::now();
        // Whatever was acknowledged before these messages were published is in the view after this.
        self.0.judge.catch_up().await.context("confirm the configuration")?;
        let mut entries = self.judge(taken).await;
        while let Err(error) = self.look_up(&mut entries, taken_at).await {
            let ReadError::Refused { .. } = &error else {
                return Err(error).context("look up events and keys");
            };
            // The servers are there, and short of something: going away would not help.
            warn!(error = chain(&error), "messages wait because they cannot be looked up");
            sleep(REFUSED_PAUSE).await;
        }
        debug!(entries = entries.len(), "sending events");
        self.0.finisher.send(entries).await.context("send events")
    }

    async fn judge(&self, taken: Vec<Unsettled<InboxMessage>>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(taken.len());
        let mut judged = 0;
        for message in taken {
            judged += message.record.payload.len();
            if judged > JUDGED_AT_ONCE {
                judged = 0;
                yield_now().await;
            }
            entries.push(self.entry(message));
        }
        entries
    }

    fn entry(&self, taken: Unsettled<InboxMessage>) -> Entry {
        let Unsettled { record, position, settler } = taken;
        let Position { sequence, stored_at, suspect, .. } = position;
        let own = EventId::of_message(&self.0.inbox_identity, sequence, stored_at);
        let verdict = match self.0.judge.judge(&record) {
            Ok(draft) => {
                let event = draft.into_event(own, Some(stored_at), stored_at);
                Verdict::Admit { event: Box::new(event), stored: false }
            }
            Err(rejection) => Verdict::Reject(rejection),
        };
        Entry { message: record, own, stored_at, suspect, settler, verdict }
    }

    /// Finds out which events are stored already, and under which ids the others are to be
    /// written. What takes so long that the servers may forget the ids of others' writes in
    /// between is looked up anew.
    async fn look_up(&self, entries: &mut [Entry], taken_at: Instant) -> Result<(), ReadError> {
        let mut looked_at = taken_at;
        for _ in 0..LOOKS_MAX {
            self.find_stored(entries).await?;
            self.claim_keys(entries).await?;
            if looked_at.elapsed() <= self.0.keys.fresh_for() {
                break;
            }
            looked_at = Instant::now();
            for entry in &mut *entries {
                entry.suspect = true;
            }
        }
        Ok(())
    }

    /// Looks for what suspect messages have become before.
    async fn find_stored(&self, entries: &mut [Entry]) -> Result<(), ReadError> {
        let suspects: Vec<_> = entries.iter_mut().filter_map(Entry::suspect).collect();
        let Some(since) = suspects.iter().map(|&(_, since)| since).min() else { return Ok(()) };
        let ids: BTreeSet<EventId> = suspects.into_iter().map(|(id, _)| id).collect();
        let found = self.0.keys.stored(&ids, since).await?;
        debug!(suspects = ids.len(), stored = found.len(), "looked up suspect events");
        for (event, stored) in entries.iter_mut().filter_map(Entry::unwritten) {
            *stored = found.contains(&event.id);
        }
        Ok(())
    }

    /// Claims keys, some at once; the order of events stays.
    async fn claim_keys(&self, entries: &mut [Entry]) -> Result<(), ReadError> {
        let mut claims = Vec::new();
        for (index, entry) in entries.iter_mut().enumerate() {
            let own = entry.own;
            if let Some((event, _)) = entry.unwritten()
                && let Some(key) = event.idempotency_key.clone()
            {
                let claim = Claim { index, tenant: event.tenant.clone(), key, own };
                claims.push(claim.make(self.0.keys.clone()));
            }
        }
        let mut standings = stream::iter(claims).buffer_unordered(self.0.keys_max);
        while let Some((index, standing)) = standings.next().await {
            let unwritten = entries.get_mut(index).and_then(Entry::unwritten);
            if let Some((event, stored)) = unwritten {
                (event.id, *stored) = match standing? {
                    Standing::Open { event, .. } => (event, false),
                    Standing::Written { event } => (event, true),
                };
            }
        }
        Ok(())
    }
}

/// A key to be claimed for the event at an index.
struct Claim {
    index: usize,
    tenant: TenantId,
    key: String,
    own: EventId,
}

impl Claim {
    async fn make(self, keys: Keys) -> (usize, Result<Standing, ReadError>) {
        (self.index, keys.stand(&self.tenant, &self.key, self.own).await)
    }
}

fn finish(done: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    done.context("a batch panicked")?
}
