//! The first half of a batch: what becomes of each message, and what has become of it before.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context as _;
use fanfare_domain::{EventId, TenantId, chain};
use fanfare_event_log::{InboxMessage, Position, ReadError, Unsettled, scan::EventIds};
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::Mutex,
    task::yield_now,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use super::batch::{Entry, REFUSED_PAUSE, Verdict};
use crate::{
    judge::{Judge, Judged},
    keys::{Keys, Standing},
};

/// How many bytes are judged before others may run.
const JUDGED_AT_ONCE: usize = 256 * 1_024;
/// How often a batch is looked up anew because too much time has passed, before it is sent anyway.
const LOOKS_MAX: usize = 4;

/// Judges messages, and looks up what is known of them.
pub(crate) struct Examiner {
    /// INBOX, for the ids of events.
    pub(crate) inbox_identity: String,
    /// Decides.
    pub(crate) judge: Arc<Judge>,
    /// Knows which event a key stands for.
    pub(crate) keys: Keys,
    /// Knows which events are stored; asked for one batch at a time.
    pub(crate) stored: Mutex<EventIds>,
    /// How many keys are looked up at once.
    pub(crate) keys_max: usize,
}

impl Examiner {
    /// Decides on messages by the configuration at hand. Returns a time, `taken_at` or later, at which
    /// those events that are to be written were not stored. Cancel safe: what was claimed by then is claimed for the same events.
    pub(super) async fn examine(
        &self,
        taken: Vec<Unsettled<InboxMessage>>,
        taken_at: Instant,
    ) -> anyhow::Result<(Vec<Entry>, Instant)> {
        let mut entries = self.judge(taken).await;
        loop {
            match self.look_up(&mut entries, taken_at).await {
                Ok(looked_at) => {
                    entries.iter_mut().for_each(Entry::object);
                    return Ok((entries, looked_at));
                }
                // The servers are there, and short of something: going away would not help.
                Err(error @ ReadError::Refused { .. }) => {
                    let error = chain(&error);
                    warn!(error, "messages wait because they cannot be looked up");
                    sleep(REFUSED_PAUSE).await;
                }
                Err(other) => return Err(other).context("look up events and keys"),
            }
        }
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
            entries.push(self.entry(message).await);
        }
        entries
    }

    async fn entry(&self, taken: Unsettled<InboxMessage>) -> Entry {
        let Unsettled { record, position, settler } = taken;
        let Position { sequence, stored_at, suspect, .. } = position;
        let own = EventId::of_message(&self.inbox_identity, sequence, stored_at);
        let (verdict, objection) = match self.judge.judge(&record).await {
            Ok(Judged { draft, objection }) => {
                let accepted = Some((stored_at, self.judge.revision()));
                let event = draft.into_event(own, accepted, stored_at);
                (Verdict::Admit { event: Box::new(event), stored: false }, objection)
            }
            Err(rejection) => (Verdict::Reject(rejection), None),
        };
        Entry { message: record, own, stored_at, suspect, settler, verdict, objection }
    }

    /// Finds out which events are stored already, and under which ids the others are to be
    /// written. What takes so long that the servers may forget the ids of others' writes in
    /// between is looked up anew. Returns when the last look began.
    async fn look_up(
        &self,
        entries: &mut [Entry],
        taken_at: Instant,
    ) -> Result<Instant, ReadError> {
        let mut looked_at = taken_at;
        for _ in 0..LOOKS_MAX {
            self.find_stored(entries).await?;
            self.claim_keys(entries).await?;
            if looked_at.elapsed() <= self.keys.fresh_for() {
                break;
            }
            looked_at = Instant::now();
            for entry in &mut *entries {
                entry.suspect = true;
            }
        }
        Ok(looked_at)
    }

    /// Looks for what suspect messages have become before.
    async fn find_stored(&self, entries: &mut [Entry]) -> Result<(), ReadError> {
        let suspects: Vec<_> = entries.iter_mut().filter_map(Entry::suspect).collect();
        let mut stored = self.stored.lock().await;
        let Some(since) = suspects.iter().map(|&(_, since)| since).min() else {
            // What is stored meanwhile need not be read.
            stored.rest().await;
            return Ok(());
        };
        let ids: BTreeSet<EventId> = suspects.into_iter().map(|(id, _)| id).collect();
        let found = stored.on_record(&ids, since).await?;
        debug!(suspects = ids.len(), stored = found.len(), "looked up suspect events");
        for (event, stored) in entries.iter_mut().filter_map(Entry::unwritten) {
            *stored = found.contains(&event.id);
        }
        Ok(())
    }

    /// Claims keys, some at once; the order of events stays. For what the catalogue objects to, it is
    /// only looked whether its key stands for an event that is stored.
    async fn claim_keys(&self, entries: &mut [Entry]) -> Result<(), ReadError> {
        let mut claims = Vec::new();
        for (index, entry) in entries.iter_mut().enumerate() {
            let (own, is_wanted) = (entry.own, entry.objection.is_none());
            if let Some((event, _)) = entry.unwritten()
                && let Some(key) = event.idempotency_key.clone()
            {
                let claim = Claim { index, tenant: event.tenant.clone(), key, own, is_wanted };
                claims.push(claim.make(self.keys.clone()));
            }
        }
        let mut standings = stream::iter(claims).buffer_unordered(self.keys_max);
        while let Some((index, standing)) = standings.next().await {
            let unwritten = entries.get_mut(index).and_then(Entry::unwritten);
            if let Some((event, stored)) = unwritten {
                match standing? {
                    Some(Standing::Open { event: id, .. }) => (event.id, *stored) = (id, false),
                    Some(Standing::Written { event: id }) => (event.id, *stored) = (id, true),
                    None => {}
                }
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
    /// Whether it is to be written, if it is not yet.
    is_wanted: bool,
}

impl Claim {
    async fn make(self, keys: Keys) -> (usize, Result<Option<Standing>, ReadError>) {
        let standing = if self.is_wanted {
            keys.stand(&self.tenant, &self.key, self.own).await.map(Some)
        } else {
            let written = keys.written(&self.tenant, &self.key).await;
            written.map(|found| found.map(|event| Standing::Written { event }))
        };
        (self.index, standing)
    }
}
