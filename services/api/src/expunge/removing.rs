//! The steps of a removal. Each removes what there is at this moment.

use std::time::Duration;

use fanfare_domain::{
    Entity, Replay,
    job::{JobState, Progress},
};
use fanfare_event_log::{StoredReplay, expunge::Part};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::standing::Removed;
use crate::{
    app::App,
    directory::{Directory, Expunging},
    error::{ApiError, Code},
    uses::forget,
};

/// How many things are looked for at once.
const BATCH: usize = 100;
/// How many records are written at once.
const AT_ONCE: usize = 32;
/// How long those who run a replay may take to learn that it was cancelled.
const CANCELLING: Duration = Duration::from_secs(5);

/// Removes everything but revisions of CONFIG; returns whether there is more to come. Whoever runs a
/// replay knows of the removal once it is `settled`.
pub(super) async fn remove(
    app: &App,
    expunging: &Expunging,
    settled: bool,
) -> Result<(Removed, bool), ApiError> {
    let mut removed = Removed::new();
    app.confirm().await?;
    let id = &expunging.tenant.id;
    if app.directory.read(|directory| directory.tenant_vacancy(id)) != expunging.revision {
        // This process stood meanwhile, or another one was faster: look again.
        return Err(Code::ChangedMeanwhile.into());
    }
    strike_things(app, expunging, &mut removed).await?;
    let (replays, waits) = remove_replays(app, expunging, settled).await?;
    removed.insert("replays", replays);
    let (log, tenant) = (&app.log, &expunging.tenant.id);
    removed.insert(Part::Inbox.as_str(), log.purge_tenant(tenant, Part::Inbox).await?);
    let purged = log.purge_events(tenant, app.now()).await?;
    removed.insert("events", purged.events);
    removed.insert("idempotency_keys", purged.keys);
    for part in [Part::Rejected, Part::DeadLetters] {
        removed.insert(part.as_str(), log.purge_tenant(tenant, part).await?);
    }
    log.forget_allowance(tenant).await?;
    Ok((removed, waits))
}

/// Deletes the tenant's endpoints, event types and keys.
async fn strike_things(
    app: &App,
    expunging: &Expunging,
    removed: &mut Removed,
) -> Result<(), ApiError> {
    let id = &expunging.tenant.id;
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
            let find = |directory: &Directory| directory.endpoint(id, endpoint);
            let struck = app.strike(expunging, find).await?;
            *removed.entry("endpoints").or_default() += u64::from(struck);
        }
        for entry in types {
            let event_type = &entry.value.event_type;
            let find = |directory: &Directory| directory.event_type(Some(id), event_type);
            let struck = app.strike(expunging, find).await?;
            *removed.entry("event_types").or_default() += u64::from(struck);
        }
    }
}

/// Cancels the tenant's replays, and removes them once whoever runs them knows that. Returns how many
/// were removed, and whether there are others. What this process knows of them it keeps until it
/// ends, and shows nobody.
async fn remove_replays(
    app: &App,
    expunging: &Expunging,
    settled: bool,
) -> Result<(u64, bool), ApiError> {
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
        } else if since < CANCELLING || !settled {
            waits = true;
        } else {
            removed += app.log.remove_replay(replay.id).await?;
        }
    }
    Ok((removed, waits))
}

/// Removes from CONFIG what the tenant said: of each thing one record stays, which says that it was
/// deleted, and it is not older than `floor`, so that whoever was away when the tenant went reads it
/// when they read on. Returns how many records were removed.
pub(super) async fn scour(app: &App, expunging: &Expunging, floor: u64) -> Result<u64, ApiError> {
    let tenant = &expunging.tenant.id;
    let (mut removed, mut is_safe, mut unclean) = (0, floor > 0, Vec::new());
    for (last, count) in app.log.last_changes_of(tenant, floor).await? {
        let (entity, revision) = (last.change.entity, last.revision);
        let redacted = redacted(&entity).filter(|_| last.change.deleted);
        match redacted {
            Some(redacted) if redacted != entity || revision < floor => {
                unclean.push((redacted, revision));
            }
            Some(_) if count > 1 => removed += app.log.purge_config(&entity, revision).await?,
            Some(_) => {}
            // The tenant itself; or what was made a moment ago, and the next pass deletes.
            None => is_safe &= revision >= floor,
        }
    }
    let written = stream::iter(unclean).map(|(redacted, revision)| async move {
        match app.write(expunging.deletion(redacted), revision).await {
            // Another process was faster.
            Ok(_) | Err(ApiError::Plain(Code::ChangedMeanwhile)) => Ok(1),
            Err(other) => Err(other),
        }
    });
    let written = written.buffer_unordered(AT_ONCE);
    removed += written.try_fold(0, async |sum, count| Ok(sum + count)).await?;
    if is_safe {
        removed += app.log.purge_config_of(tenant, floor).await?;
    }
    Ok(removed)
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
