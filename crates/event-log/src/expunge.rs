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
use tokio::time::timeout;

use crate::{
    EventLog, ReadError, StoredChange, cas,
    log::{stream_info, tell_within},
    read::{Ordered, Selection, Start},
    topology::{Bucket, Stream},
};

/// How long a purge may take: the servers look through whole blocks of messages.
const PURGE: Duration = Duration::from_mins(1);
/// After how long without a message to ask again whether there is one to wait for.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How many keys are forgotten at once.
const AT_ONCE: usize = 32;
/// How long idempotency keys are kept, and how far clocks may be apart.
const KEYS: Duration = Duration::from_hours(25);

/// What is kept of a tenant under subjects of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What producers sent, and ingest has not taken yet.
    Inbox,
    /// Events.
    Events,
    /// What ingest refused.
    Rejected,
    /// Copies of exhausted deliveries.
    DeadLetters,
}

impl Part {
    /// All of it, in the order in which events come through it.
    pub const ALL: [Self; 4] = [Self::Inbox, Self::Events, Self::Rejected, Self::DeadLetters];

    /// Returns the name, as it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Events => "events",
            Self::Rejected => "rejected",
            Self::DeadLetters => "dead_letters",
        }
    }

    const fn stream(self) -> Stream {
        match self {
            Self::Inbox => Stream::Inbox,
            Self::Events => Stream::Events,
            Self::Rejected => Stream::Rejected,
            Self::DeadLetters => Stream::Dead,
        }
    }
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
            Part::Events => topology.events_of(tenant),
            Part::Rejected => topology.rejected(Some(tenant)),
            Part::DeadLetters => format!("{}.dead.{tenant}.>", topology.prefix()),
        };
        self.purge(&topology.stream(part.stream()), &json!({ "filter": subject })).await
    }

    /// Removes what CONFIG has of a tenant from before a revision: the tenant itself, its
    /// endpoints, event types and keys. Whoever follows CONFIG and is behind must still learn that
    /// they are gone: so this is done once there is a later record of each.
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

    /// The last change of each of a tenant's things after a revision, and how many changes of it there
    /// were since then.
    pub async fn last_changes_of(
        &self,
        tenant: &TenantId,
        after: u64,
    ) -> Result<Vec<(StoredChange, u64)>, ReadError> {
        let subjects = vec![self.config_of_tenant(tenant)];
        let selection = Selection { stream: Stream::Config, subjects, headers_only: false };
        let mut messages = Ordered::new(self, selection, Start::Sequence(after + 1));
        let mut last: BTreeMap<_, (StoredChange, u64)> = BTreeMap::new();
        while messages.pending().await? > 0 {
            let Ok(next) = timeout(ASK_AGAIN, messages.next()).await else { continue };
            let next = next?;
            let (revision, stored_at) = (next.sequence, next.stored_at);
            let Ok(change) = decode_change(next.message.payload.clone()) else { continue };
            let thing = (change.entity.kind(), change.entity.id_token());
            let count = last.get(&thing).map_or(0, |(_, count)| *count);
            last.insert(thing, (StoredChange { revision, stored_at, change }, count + 1));
        }
        messages.close().await;
        Ok(last.into_values().collect())
    }

    /// Forgets the idempotency keys of a tenant's events: those of the last day, which are all that
    /// are kept. It reads these events, so it is done before they are removed. Returns how many.
    pub async fn forget_idempotency_keys(
        &self,
        tenant: &TenantId,
        now: Timestamp,
    ) -> Result<u64, ReadError> {
        let since = now.saturating_sub(KEYS);
        let subjects = vec![self.topology().events_of(tenant)];
        let selection = Selection { stream: Stream::Events, subjects, headers_only: false };
        let mut end = self.last_of(&selection, since).await?;
        if end == 0 {
            return Ok(0);
        }
        let mut messages = Ordered::new(self, selection.clone(), Start::Time(since));
        let (mut reached, mut forgotten, mut tokens) = (0, 0, Vec::new());
        while reached < end {
            let Ok(next) = timeout(ASK_AGAIN, messages.next()).await else {
                // The end may be gone meanwhile.
                end = end.min(self.last_of(&selection, since).await?);
                continue;
            };
            let next = next?;
            reached = next.sequence;
            let event = decode_event(next.message.payload.clone(), reached, next.stored_at);
            let key = event.ok().and_then(|stored| stored.event.idempotency_key.clone());
            tokens.extend(key.map(|key| idempotency_token(tenant, &key)));
            if tokens.len() >= AT_ONCE {
                forgotten += self.forget_tokens(std::mem::take(&mut tokens)).await?;
            }
        }
        messages.close().await;
        Ok(forgotten + self.forget_tokens(tokens).await?)
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

    /// The last sequence of DELIVERIES at this moment, for [`Self::tasks_are_taken`].
    pub async fn tasks_last(&self) -> Result<u64, ReadError> {
        self.last_sequence(Stream::Deliveries).await
    }

    /// Tells whether every task up to a sequence of DELIVERIES was taken and settled: a task holds
    /// its event.
    pub async fn tasks_are_taken(&self, last: u64) -> Result<bool, ReadError> {
        let name = self.topology().stream(Stream::Deliveries);
        let info = stream_info(&self.inner.jetstream, &name).await;
        let state = info.map_err(|error| cas::refused(&name, error))?.state;
        Ok(state.messages == 0 || state.first_sequence > last)
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
