//! Removing what is kept of a tenant.
//!
//! What stands under the tenant's own subjects is purged by subject: that is done at once, whatever
//! the number of messages, and doing it again is harmless. Consumers pass over what is gone. What a
//! service had in hand it may still write, so a purge is repeated until nothing comes any more.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{Entity, JobId, TenantId, Timestamp, id::idempotency_token};
use fanfare_proto::{decode_change, decode_event};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    EventLog, ReadError, StoredChange, cas,
    log::{stream_info, tell_within},
    read::{Ordered, Selection, Start},
    topology::{Bucket, Stream},
};

/// How long a purge may take: the servers look through whole blocks of messages.
const PURGE: Duration = Duration::from_mins(1);
/// How many keys are forgotten at once.
const AT_ONCE: usize = 32;
/// How many events are looked at before they are removed.
const PORTION: u64 = 1_000;
/// How many events [`EventLog::purge_events`] looks at: others wait for their turn.
pub const EVENTS_AT_ONCE: u64 = 20_000;
/// How long idempotency keys are kept, and how far clocks may be apart.
const KEYS: Duration = Duration::from_hours(25);

/// What is kept of a tenant under subjects of its own, apart from its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What producers sent, and ingest has not taken yet.
    Inbox,
    /// What ingest refused.
    Rejected,
    /// Copies of exhausted deliveries.
    DeadLetters,
}

impl Part {
    /// All of it, in the order in which events come through it.
    pub const ALL: [Self; 3] = [Self::Inbox, Self::Rejected, Self::DeadLetters];

    /// Returns the name, as it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Rejected => "rejected",
            Self::DeadLetters => "dead_letters",
        }
    }

    const fn stream(self) -> Stream {
        match self {
            Self::Inbox => Stream::Inbox,
            Self::Rejected => Stream::Rejected,
            Self::DeadLetters => Stream::Dead,
        }
    }
}

/// What of a tenant's events was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgedEvents {
    /// How many events.
    pub events: u64,
    /// How many idempotency keys.
    pub keys: u64,
}

#[derive(Deserialize)]
struct Purged {
    purged: u64,
}

impl EventLog {
    /// Removes a part of what is kept of a tenant; returns how many messages it was.
    pub async fn purge_tenant(&self, tenant: &TenantId, part: Part) -> Result<u64, ReadError> {
        let topology = self.topology();
        let subject = match part {
            Part::Inbox => format!("{}.inbox.{tenant}.>", topology.prefix()),
            Part::Rejected => topology.rejected(Some(tenant)),
            Part::DeadLetters => format!("{}.dead.{tenant}.>", topology.prefix()),
        };
        self.purge(&topology.stream(part.stream()), &json!({ "filter": subject })).await
    }

    /// Removes what CONFIG has of a tenant from before a revision: the tenant itself, its
    /// endpoints, event types and keys. Whoever follows CONFIG and is behind must still learn that
    /// they are gone, also of what was deleted long before: so this is done only once the last record
    /// of each, as of [`Self::last_changes_of`], is this revision or a later one.
    pub async fn purge_config_of(&self, tenant: &TenantId, before: u64) -> Result<u64, ReadError> {
        let subject = self.config_of_tenant(tenant);
        let name = self.topology().stream(Stream::Config);
        self.purge(&name, &json!({ "filter": subject, "seq": before })).await
    }

    /// Removes what CONFIG has of one thing from before a revision.
    pub async fn purge_config(&self, entity: &Entity, before: u64) -> Result<u64, ReadError> {
        let subject = self.topology().config(entity);
        let name = self.topology().stream(Stream::Config);
        self.purge(&name, &json!({ "filter": subject, "seq": before })).await
    }

    /// The last change of each of a tenant's things, and how many changes of it there are after a
    /// revision.
    pub async fn last_changes_of(
        &self,
        tenant: &TenantId,
        after: u64,
    ) -> Result<Vec<(StoredChange, u64)>, ReadError> {
        let subjects = vec![self.config_of_tenant(tenant)];
        let selection = Selection { stream: Stream::Config, subjects, headers_only: false };
        let end = self.last_sequence(Stream::Config).await?;
        let mut messages = Ordered::new(self, selection, Start::Sequence(1));
        let mut last: BTreeMap<_, (StoredChange, u64)> = BTreeMap::new();
        while let Some(next) = messages.next_until(end).await? {
            let (revision, stored_at) = (next.sequence, next.stored_at);
            let Ok(change) = decode_change(next.message.payload.clone()) else { continue };
            let thing = (change.entity.kind(), change.entity.id_token());
            let count = last.get(&thing).map_or(0, |(_, count)| *count);
            let count = count + u64::from(revision > after);
            last.insert(thing, (StoredChange { revision, stored_at, change }, count));
        }
        messages.close().await;
        Ok(last.into_values().collect())
    }

    /// Removes some of a tenant's events, oldest first, and before them their idempotency keys: of
    /// those of the last day, which are all that are kept. No event goes whose key was not forgotten,
    /// so that a key never stands for an event that is gone. What is stored meanwhile is left for the
    /// next time; so is what is beyond [`EVENTS_AT_ONCE`].
    pub async fn purge_events(
        &self,
        tenant: &TenantId,
        now: Timestamp,
    ) -> Result<PurgedEvents, ReadError> {
        let end = self.last_sequence(Stream::Events).await?;
        let subjects = vec![self.topology().events_of(tenant)];
        let selection = Selection { stream: Stream::Events, subjects, headers_only: false };
        let since = now.saturating_sub(KEYS);
        let mut messages = Ordered::new(self, selection, Start::Time(since));
        let (mut purged, mut read) = (PurgedEvents::default(), 0);
        while read < EVENTS_AT_ONCE {
            let (mut reached, mut tokens) = (end, Vec::new());
            for _ in 0..PORTION {
                let Some(next) = messages.next_until(end).await? else {
                    reached = end;
                    break;
                };
                (reached, read) = (next.sequence, read + 1);
                let event = decode_event(next.message.payload.clone(), reached, next.stored_at);
                let key = event.ok().and_then(|stored| stored.event.idempotency_key.clone());
                tokens.extend(key.map(|key| idempotency_token(tenant, &key)));
            }
            purged.keys += self.forget_tokens(tokens).await?;
            purged.events += self.purge_events_until(tenant, reached).await?;
            if reached >= end {
                break;
            }
        }
        messages.close().await;
        Ok(purged)
    }

    async fn purge_events_until(&self, tenant: &TenantId, last: u64) -> Result<u64, ReadError> {
        // To the server, a bound of 0 or 1 is none.
        if last == 0 {
            return Ok(0);
        }
        let body = json!({ "filter": self.topology().events_of(tenant), "seq": last + 1 });
        self.purge(&self.topology().stream(Stream::Events), &body).await
    }

    /// Forgets how much of a tenant's rate limit is given out; returns whether anything was noted.
    pub async fn forget_allowance(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        self.purge_key(Bucket::Allowances, tenant.as_str()).await.map(|count| count > 0)
    }

    /// Removes a replay that is over, unless that was done before; returns how many that was.
    pub async fn remove_replay(&self, job: JobId) -> Result<u64, ReadError> {
        let topology = self.topology();
        let body = json!({ "filter": topology.replay(job) });
        self.purge(&topology.stream(Stream::Jobs), &body).await
    }

    /// The last sequence of DELIVERIES at this moment.
    pub async fn tasks_last(&self) -> Result<u64, ReadError> {
        self.last_sequence(Stream::Deliveries).await
    }

    /// The sequence in DELIVERIES before which every task was taken and settled: a task holds its
    /// event.
    pub async fn tasks_settled_before(&self) -> Result<u64, ReadError> {
        let name = self.topology().stream(Stream::Deliveries);
        let info = stream_info(&self.inner.jetstream, &name).await;
        let state = info.map_err(|error| cas::refused(&name, error))?.state;
        Ok(if state.messages == 0 { state.last_sequence + 1 } else { state.first_sequence })
    }

    async fn forget_tokens(&self, tokens: Vec<String>) -> Result<u64, ReadError> {
        let forget =
            |token: String| async move { self.purge_key(Bucket::Idempotency, &token).await };
        let counts = stream::iter(tokens).map(forget).buffer_unordered(AT_ONCE);
        counts.try_fold(0, async |sum, count| Ok(sum + count)).await
    }

    async fn purge_key(&self, bucket: Bucket, key: &str) -> Result<u64, ReadError> {
        let topology = self.topology();
        let subject = format!("$KV.{}.{key}", topology.bucket(bucket));
        self.purge(&topology.bucket_stream(bucket), &json!({ "filter": subject })).await
    }

    async fn purge(&self, name: &str, body: &Value) -> Result<u64, ReadError> {
        let subject = format!("STREAM.PURGE.{name}");
        let asked = tell_within(&self.inner.jetstream, &subject, body, PURGE);
        let purged: Purged = asked.await.map_err(|error| cas::refused(name, error))?;
        Ok(purged.purged)
    }

    /// `<prefix>.config.*.<tenant>.>`: all that is configured of a tenant.
    fn config_of_tenant(&self, tenant: &TenantId) -> String {
        format!("{}.config.*.{tenant}.>", self.topology().prefix())
    }
}
