//! Removing tenants: a task of every process works on each removal that CONFIG says goes on, so that
//! one that was cut short is carried on by whoever is there.
//!
//! ```text
//! the record that begins it ─▶ endpoints, types, keys, replays deleted ─▶ streams purged ─┐
//!          ▲ again, until a pass finds nothing                                            │
//!          └──────────────────────────────────────────────────────────────────────────────┤
//!      looked after for two days ◀─ the record that ends it ◀─────────────────────────────┘
//! ```
//!
//! Each step can be done again, also by two processes at the same time. A service that had something
//! of the tenant in hand when it began writes it a moment later: so the last pass begins some seconds
//! after the beginning, and once every task that may hold an event was taken. What comes later still,
//! from a service that stood or a producer who goes on, is removed while the removal is looked after.
//!
//! The id rests after that: nothing that may be left of a tenant says which of two tenants of one id
//! it is of, so there is no second one before all of it has aged out.

mod removing;
mod standing;

use std::{collections::BTreeMap, time::Duration};

use fanfare_delivery_log::StoreError;
use fanfare_domain::{Entity, Timestamp, tenant::ExpungeStage};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    removing::remove,
    standing::{Pass, Standing},
};
use crate::{
    app::App,
    directory::Expunging,
    error::{ApiError, Code},
};

/// How often it is looked for something to do.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a removal is looked after that has ended.
const AFTER: Duration = Duration::from_hours(48);
/// How long after its end, or the start of this process, that is done first, and then how often.
const AFTER_FIRST: Duration = Duration::from_mins(1);
const AFTER_EVERY: Duration = Duration::from_hours(1);
/// How long an id rests at least: a day longer than a removal is looked after, since clocks differ.
const REST_MIN: Duration = Duration::from_hours(72);

/// Tells from when on the id of a tenant can be used again that was expunged at a time. By then the
/// facts of JOURNAL have aged out, and everything that is younger.
pub(crate) fn rests_until(app: &App, finished_at: Timestamp) -> Timestamp {
    finished_at.saturating_add(app.log.retention().max(REST_MIN))
}

/// Tells whether the audit has all changes up to a revision: those that are removed from CONFIG would
/// be missing in it for good. If there is no delivery log, there is nothing to wait for.
pub(crate) async fn is_audited(app: &App, revision: u64) -> Result<bool, ApiError> {
    let progress = match app.delivery_log().await {
        Ok(store) => store.progress().await.map_err(ApiError::DeliveryLog),
        Err(error) => Err(error),
    };
    match progress {
        Ok(progress) => Ok(progress.config >= revision),
        Err(ApiError::DeliveryLog(error)) if is_none(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

fn is_none(error: &StoreError) -> bool {
    error.is_absent() || matches!(error, StoreError::Foreign | StoreError::Unknown)
}

/// Carries on with what is begun until the service stops.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let mut working = Working { app, standings: BTreeMap::new(), due: BTreeMap::new() };
    loop {
        let round = Box::pin(working.round());
        if stop.run_until_cancelled(round).await.is_none()
            || stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none()
        {
            return Ok(());
        }
    }
}

struct Working {
    app: App,
    /// How far each removal is that goes on, by the revision at which it began.
    standings: BTreeMap<u64, Standing>,
    /// When those that have ended are looked after next, by the revision that says so.
    due: BTreeMap<u64, Instant>,
}

impl Working {
    /// Makes a pass for each removal that goes on, and for some that have ended.
    async fn round(&mut self) {
        let now = self.app.now();
        let (running, ended) = self.app.directory.read(|directory| {
            let expunges = directory.expunges();
            // Of an id that was used again, nothing is the removed tenant's any more.
            let is_last =
                |one: &Expunging| directory.tenant_vacancy(&one.tenant.id) == one.revision;
            let ended = expunges.ended_since(now.saturating_sub(AFTER)).into_iter();
            (expunges.running(), ended.filter(is_last).collect::<Vec<_>>())
        });
        self.standings.retain(|revision, _| running.iter().any(|one| one.revision == *revision));
        for expunging in running {
            let standing = self.standings.entry(expunging.revision);
            let standing = standing.or_insert_with(|| Standing::new(Instant::now()));
            if standing.is_due(Instant::now()) {
                let done = Box::pin(pass(&self.app, &expunging, standing)).await;
                standing.note(&expunging.tenant.id, done.err(), Instant::now());
            }
        }
        self.due.retain(|revision, _| ended.iter().any(|one| one.revision == *revision));
        for expunging in ended {
            let first = || Instant::now() + AFTER_FIRST;
            let due = self.due.entry(expunging.revision).or_insert_with(first);
            if *due <= Instant::now() {
                *due = Instant::now() + AFTER_EVERY;
                Box::pin(look_after(&self.app, &expunging)).await;
            }
        }
    }
}

async fn pass(app: &App, expunging: &Expunging, standing: &mut Standing) -> Result<(), ApiError> {
    let tasks_last = app.log.tasks_last().await?;
    let settled = standing.is_settled(Instant::now());
    let (mut removed, mut waits) = remove(app, expunging, settled).await?;
    let audited = is_audited(app, expunging.revision).await;
    if let Ok(true) = audited {
        let revisions = removing::scour(app, expunging, expunging.revision).await?;
        removed.insert("revisions", revisions);
    } else {
        waits = true;
    }
    let tasks_settled_before = app.log.tasks_settled_before().await?;
    let pass = Pass { removed, waits, tasks_last, tasks_settled_before };
    if standing.take(pass, Instant::now()) {
        let mut ended = expunging.expunge.clone();
        ended.stage = ExpungeStage::Finished(app.now());
        for (kind, count) in standing.removed().iter().filter(|(_, count)| **count > 0) {
            ended.count(kind, *count);
        }
        if finish(app, expunging, ended).await? {
            info!(tenant_id = %expunging.tenant.id, "expunged a tenant");
        }
    }
    audited.map(drop)
}

/// Removes what came after the end. Nobody waits for it: what goes wrong is tried the next time.
async fn look_after(app: &App, expunging: &Expunging) {
    let looked = async {
        let (removed, _) = remove(app, expunging, true).await?;
        removing::scour(app, expunging, 0).await?;
        // The delivery log may have folded them.
        if removed.get("events").is_some_and(|count| *count > 0) {
            let mut ended = expunging.expunge.clone();
            for (kind, count) in removed.iter().filter(|(_, count)| **count > 0) {
                ended.count(kind, *count);
            }
            finish(app, expunging, ended).await?;
        }
        Ok::<_, ApiError>(())
    };
    if let Err(error) = looked.await {
        standing::tell(&expunging.tenant.id, &error);
    }
}

/// Writes the record that ends it, as of this moment. Of several processes one does, and is told so.
async fn finish(
    app: &App,
    expunging: &Expunging,
    mut ended: fanfare_domain::tenant::Expunge,
) -> Result<bool, ApiError> {
    let mut tenant = expunging.tenant.redacted();
    // A server that does not know yet that it leads no more tells an old end.
    ended.through = ended.through.max(app.log.events_last().await?);
    tenant.expunge = Some(ended);
    let end = expunging.deletion(Entity::Tenant(tenant.into()));
    match app.write(end, expunging.revision).await {
        Ok(_) => Ok(true),
        Err(ApiError::Plain(Code::ChangedMeanwhile)) => Ok(false),
        Err(other) => Err(other),
    }
}
