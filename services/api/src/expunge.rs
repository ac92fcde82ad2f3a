//! Removing tenants: a task of every process works on each removal that CONFIG says goes on, so that
//! one that was cut short is carried on by whoever is there.
//!
//! ```text
//! the record that begins it ─▶ endpoints, types, keys, replays deleted ─▶ streams purged ─┐
//!          ▲ again, until a pass finds nothing                                            │
//!          └──────────────────────────────────────────────────────────────────────────────┤
//!                                                     the record that ends it ◀───────────┘
//! ```
//!
//! Each step can be done again, also by two processes at the same time. A service that had something
//! of the tenant in hand when it began writes it a moment later: so the last pass begins some seconds
//! after the beginning, and once every task that may hold an event was taken.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    Entity, Replay,
    job::{JobState, Progress},
    tenant::ExpungeStage,
};
use fanfare_event_log::{StoredReplay, expunge::Part};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{app::App, directory::Expunging, error::ApiError, uses::forget};

/// How often it is looked for something to do.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long to wait after something did not work.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a person is not told that something does not work.
const WORRY: Duration = Duration::from_secs(30);
/// How long services may take to write what they had in hand when it began.
const SETTLING: Duration = Duration::from_secs(5);
/// How long a pass waits for tasks to be taken.
const TASKS: Duration = Duration::from_secs(20);
/// How many things are looked for at once.
const BATCH: usize = 100;

/// What a pass, or all of them, removed.
type Removed = BTreeMap<&'static str, u64>;

/// The kinds whose messages may come again and again, because producers go on sending: they are no
/// reason for another pass.
const COMING: [&str; 2] = [Part::Inbox.as_str(), Part::Rejected.as_str()];

/// Carries on with what is begun until the service stops.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let mut working = Working { app, removed: BTreeMap::new(), failing: None };
    loop {
        let round = Box::pin(working.round());
        let Some(wait) = stop.run_until_cancelled(round).await else { return Ok(()) };
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return Ok(());
        }
    }
}

struct Working {
    app: App,
    /// What was removed so far, by the revision at which each removal began.
    removed: BTreeMap<u64, Removed>,
    /// Since when it does not work, and whether somebody was told.
    failing: Option<(Instant, bool)>,
}

impl Working {
    /// Makes a pass for each removal that goes on; returns how long to wait.
    async fn round(&mut self) -> Duration {
        let running = self.app.directory.read(|directory| directory.expunges().running());
        for expunging in running {
            if let Err(error) = self.pass(&expunging).await {
                self.bear(&expunging, &error);
                return PAUSE;
            }
            self.failing = None;
        }
        LOOK_EVERY
    }

    async fn pass(&mut self, expunging: &Expunging) -> Result<(), ApiError> {
        let app = &self.app;
        let since = app.now().since(expunging.expunge.begun_at);
        let tasks_last = app.log.tasks_last().await?;
        let (removed, waits) = remove(app, expunging).await?;
        let is_empty = |(kind, count): (&&str, &u64)| *count == 0 || COMING.contains(kind);
        let is_clean = !waits && removed.iter().all(is_empty);
        let all = self.removed.entry(expunging.revision).or_default();
        for (kind, count) in removed {
            *all.entry(kind).or_default() += count;
        }
        if is_clean && since >= SETTLING && tasks_are_taken(app, tasks_last).await? {
            finish(app, expunging, all).await?;
            self.removed.remove(&expunging.revision);
        }
        Ok(())
    }

    fn bear(&mut self, expunging: &Expunging, error: &ApiError) {
        let (since, told) = self.failing.get_or_insert((Instant::now(), false));
        let (tenant, error) = (&expunging.tenant.id, fanfare_domain::chain(error));
        if since.elapsed() > WORRY && !*told {
            *told = true;
            warn!(tenant_id = %tenant, error, "a tenant cannot be expunged yet");
        } else {
            debug!(tenant_id = %tenant, error, "a tenant cannot be expunged yet");
        }
    }
}

/// Removes what there is at this moment; returns whether there is more to come.
async fn remove(app: &App, expunging: &Expunging) -> Result<(Removed, bool), ApiError> {
    let mut removed = Removed::new();
    strike_things(app, expunging, &mut removed).await?;
    let (replays, waits) = remove_replays(app, expunging).await?;
    removed.insert("replays", replays);
    let (log, tenant) = (&app.log, &expunging.tenant.id);
    removed.insert("idempotency_keys", log.forget_idempotency_keys(tenant, app.now()).await?);
    for part in Part::ALL {
        removed.insert(part.as_str(), log.purge_tenant(tenant, part).await?);
    }
    log.forget_allowance(tenant).await?;
    removed.insert("revisions", scour(app, expunging).await?);
    Ok((removed, waits))
}

/// Deletes the tenant's endpoints, event types and keys.
async fn strike_things(
    app: &App,
    expunging: &Expunging,
    removed: &mut Removed,
) -> Result<(), ApiError> {
    let id = &expunging.tenant.id;
    app.confirm().await?;
    loop {
        let (endpoints, types, keys) = app.directory.read(|directory| {
            (
                directory.endpoints(id, None, BATCH),
                directory.event_types(Some(id), None, BATCH),
                directory.keys(Some(id), None, BATCH),
            )
        });
        if endpoints.is_empty() && types.is_empty() && keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            let key = key.value.id;
            let struck = app.strike(expunging, |directory| directory.key(key)).await?;
            forget(app, key).await;
            *removed.entry("keys").or_default() += u64::from(struck);
        }
        for endpoint in endpoints {
            let endpoint = endpoint.value.id;
            let find = |directory: &crate::directory::Directory| directory.endpoint(id, endpoint);
            let struck = app.strike(expunging, find).await?;
            *removed.entry("endpoints").or_default() += u64::from(struck);
        }
        for entry in types {
            let event_type = &entry.value.event_type;
            let find = |directory: &crate::directory::Directory| {
                directory.event_type(Some(id), event_type)
            };
            let struck = app.strike(expunging, find).await?;
            *removed.entry("event_types").or_default() += u64::from(struck);
        }
    }
}

/// Cancels the tenant's replays, and removes them once whoever runs them knows that. Returns how many
/// were removed, and whether there are others. What this process knows of them it keeps until it
/// ends, and shows nobody.
async fn remove_replays(app: &App, expunging: &Expunging) -> Result<(u64, bool), ApiError> {
    app.jobs.confirm().await?;
    let (tenant, now) = (&expunging.tenant.id, app.now());
    let stored: Vec<_> = app.jobs.read(|jobs| jobs.of_tenant(tenant).cloned().collect());
    let (mut removed, mut waits) = (0, false);
    for StoredReplay { replay, revision } in stored {
        let since = now.since(replay.progress.updated_at);
        if !replay.is_over() {
            let progress = Progress { updated_at: now, ..replay.progress };
            let replay = Replay { state: JobState::Cancelled, progress, ..(*replay).clone() };
            // If somebody else has changed it, the next pass cancels it.
            app.log.write_replay(&replay, revision).await?;
            waits = true;
        } else if since < SETTLING {
            waits = true;
        } else {
            removed += app.log.remove_replay(replay.id).await?;
        }
    }
    Ok((removed, waits))
}

/// Removes from CONFIG what the tenant said: of each thing one record stays, which says that it was
/// deleted. Returns how many records were removed.
async fn scour(app: &App, expunging: &Expunging) -> Result<u64, ApiError> {
    let tenant = &expunging.tenant.id;
    let mut removed = 0;
    for (last, count) in app.log.last_changes_of(tenant, expunging.revision).await? {
        let (entity, revision) = (&last.change.entity, last.revision);
        // What is not deleted was made a moment ago, and the next pass deletes it.
        let Some(redacted) = redacted(entity).filter(|_| last.change.deleted) else { continue };
        if redacted != *entity {
            app.record(expunging, redacted, revision).await?;
            removed += 1;
        } else if count > 1 {
            removed += app.log.purge_config(entity, revision).await?;
        }
    }
    Ok(removed + app.log.purge_config_of(tenant, expunging.revision).await?)
}

/// What is to stay of a thing of the tenant; `None` for the tenant itself.
fn redacted(entity: &Entity) -> Option<Entity> {
    Some(match entity {
        Entity::Endpoint(it) => Entity::Endpoint(it.redacted().into()),
        Entity::EventType(it) => Entity::EventType(it.redacted().into()),
        Entity::ApiKey(it) => Entity::ApiKey(it.redacted().into()),
        Entity::Tenant(_) | Entity::Profile(_) => return None,
    })
}

/// Waits a while until dispatchers have taken every task that may hold an event of the tenant.
async fn tasks_are_taken(app: &App, last: u64) -> Result<bool, ApiError> {
    let end = Instant::now() + TASKS;
    loop {
        if app.log.tasks_are_taken(last).await? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Writes the record that ends it. Of several processes one does.
async fn finish(app: &App, expunging: &Expunging, removed: &Removed) -> Result<(), ApiError> {
    let mut tenant = expunging.tenant.redacted();
    let mut expunge = expunging.expunge.clone();
    expunge.through = app.log.events_last().await?;
    expunge.stage = ExpungeStage::Finished(app.now());
    for (kind, count) in removed.iter().filter(|(_, count)| **count > 0) {
        expunge.count(kind, *count);
    }
    tenant.expunge = Some(expunge);
    let written = app.record(expunging, Entity::Tenant(tenant.into()), expunging.revision).await;
    match written {
        Ok(_) => info!(tenant_id = %expunging.tenant.id, "expunged a tenant"),
        Err(ApiError::Plain(crate::error::Code::ChangedMeanwhile)) => {}
        Err(other) => return Err(other),
    }
    Ok(())
}
