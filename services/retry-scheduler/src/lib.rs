//! Gives failed deliveries their next attempt, at its time.
//!
//! | reads   | writes  |
//! | ------- | ------- |
//! | JOURNAL | JOURNAL |
//! | CONFIG  | CONFIG  |
//! | RETRIES | RETRIES |
//! |         | DEAD    |
//! |         | EVENTS  |
//!
//! **Guarantee.** Every attempt that the journal asks for gets a fact that says when it is due, and
//! an alarm clock that goes off then, never before; one that the servers forget is found and set
//! again. Whatever was done is on record before it counts as done, so that a crash at any point
//! makes something be done twice at most, which changes nothing.
//!
//! **Not here.** Whether there is another attempt, and when, is decided by the dispatcher with the
//! endpoint's policy and stands in the fact; so are conclusions. Sending is the dispatcher's.

mod agenda;
mod counters;
mod desk;
mod directory;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod instruments;
mod notices;
#[cfg(test)]
mod samples;
mod settings;
mod spans;

use std::sync::Arc;

use anyhow::Context as _;
use fanfare_event_log::{
    ConfigView, EventLog, Publisher, Schedules,
    membership::{self, Duty, Lease, Membership},
};
use fanfare_service::{Clock, Context, Joined as _, Readiness, load_profiles, random_bytes};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    desk::{Desk, Tools},
    directory::Directory,
    spans::Afterwards,
};

pub use counters::{Count, Counters};
pub use settings::Settings;

/// The role whose shards the processes share.
const ROLE: &str = "retry-scheduler";

/// How many shards are taken over at once.
const CLAIMS_MAX: usize = 8;

/// Connects to the log, folds the configuration, and spawns what schedules retries for this
/// process's share of the shards.
pub async fn start(context: &mut Context, settings: Settings) -> anyhow::Result<()> {
    start_counted(context, settings, Arc::default()).await
}

/// Like [`start`], counting where the caller can look.
pub async fn start_counted(
    context: &mut Context,
    settings: Settings,
    counters: Arc<Counters>,
) -> anyhow::Result<()> {
    let readiness = context.readiness("scheduling");
    let log = EventLog::open(ROLE, &settings.log).await.context("open the event log")?;
    let stop = context.stop();
    let (view, follow) = ConfigView::<Directory>::start(&log, stop.clone())
        .await
        .context("read the configuration")?;
    let profiles = load_profiles(settings.profiles_dir.as_deref()).context("load the profiles")?;
    view.read(|directory| directory.install(profiles));
    instruments::register(context.metrics(), &counters, view.clone());
    let traces = context.traces().clone();
    let (afterwards, maker) = spans::afterwards(traces, log.clone(), Arc::clone(&counters));
    instruments::register_waits(context.metrics(), &log, &afterwards);
    let common = Common {
        schedules: log.schedules(),
        publisher: log.publisher(),
        log,
        view,
        clock: context.clock(),
        counters,
        settings: Arc::new(settings),
        claims: Semaphore::new(CLAIMS_MAX),
        afterwards,
    };
    if context.traces().is_on() {
        context.spawn("spans", maker.run(stop.clone()));
    }
    context.spawn("configuration", async move { follow.await.context("follow the configuration") });
    context.spawn("scheduling", serve(Arc::new(common), readiness, stop));
    Ok(())
}

/// What all shards of the process share.
struct Common {
    log: EventLog,
    schedules: Schedules,
    publisher: Publisher,
    view: ConfigView<Directory>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    settings: Arc<Settings>,
    /// One for each shard that is being taken over.
    claims: Semaphore,
    /// Takes what is exhausted.
    afterwards: Afterwards,
}

/// Works until the service stops, and lets the others take over.
async fn serve(
    common: Arc<Common>,
    readiness: Readiness,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let log = common.log.clone();
    let served = Box::pin(take_part(common, readiness, stop)).await;
    log.close().await;
    served
}

async fn take_part(
    common: Arc<Common>,
    readiness: Readiness,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let owner = format!("{ROLE}-{:016x}", u64::from_be_bytes(random_bytes()));
    let leave = stop.child_token();
    let (membership, driver) = common.log.join(ROLE, &owner, leave.clone());
    let mut driving = JoinSet::new();
    driving.spawn(driver);
    let member = membership.clone();
    let working = membership.clone().work(|duty| Arc::clone(&common).work(duty, member.lease()));
    let (worked, ()) = tokio::join!(
        async {
            let worked = working.await;
            // Leaving in order lets the others begin at once, also after a failure.
            leave.cancel();
            worked
        },
        tell_readiness(membership, readiness),
    );
    if let Some(left) = driving.join_next().await {
        left.joined().context("run the membership")?.context("take part")?;
    }
    worked
}

/// Says that we are ready as long as we are a member, with shards or without.
async fn tell_readiness(mut membership: Membership, readiness: Readiness) {
    loop {
        match membership.member() {
            Some(_) => readiness.ready(),
            None => readiness.not_ready("joining the other retry-schedulers"),
        }
        if membership.changed().await.is_err() {
            return;
        }
    }
}

impl Common {
    /// Works on a shard until it is to be handed over, or another process has claimed it.
    async fn work(self: Arc<Self>, duty: Duty, lease: Lease) -> anyhow::Result<()> {
        let shard = duty.shard;
        let working = async {
            let opening = Box::pin(self.open(&duty, lease));
            let Some(desk) = duty.stop.run_until_cancelled(opening).await else { return Ok(()) };
            info!(%shard, "scheduling retries");
            Box::pin(desk?.run()).await
        };
        match working.await {
            Err(error) if membership::is_loss(error.as_ref()) => {
                warn!(%shard, error = format!("{error:#}"), "another process took a shard");
                Ok(())
            }
            worked => worked,
        }
    }

    async fn open(&self, duty: &Duty, lease: Lease) -> anyhow::Result<Desk> {
        let _turn = self.claims.acquire().await.context("claims are never closed")?;
        let tools = Tools {
            schedules: self.schedules.clone(),
            publisher: self.publisher.clone(),
            log: self.log.clone(),
            view: self.view.clone(),
            clock: Arc::clone(&self.clock),
            counters: Arc::clone(&self.counters),
            settings: Arc::clone(&self.settings),
            afterwards: self.afterwards.clone(),
            lease,
            owner: Arc::clone(&duty.owner),
            stop: duty.stop.clone(),
        };
        Desk::open(tools, duty.shard).await.context("take over")
    }
}
