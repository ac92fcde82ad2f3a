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
mod health;
mod notices;
#[cfg(test)]
mod samples;
mod settings;

use std::sync::Arc;

use anyhow::Context as _;
use fanfare_event_log::{ConfigView, EventLog};
use fanfare_service::{Clock, Context, Readiness, load_profiles, random_bytes};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    desk::{Desk, Tools},
    directory::Directory,
};

pub use counters::{Count, Counters, Sample};
pub use settings::Settings;

/// The role that one process has at a time.
const ROLE: &str = "retry-scheduler";

/// Connects to the log, folds the configuration, and spawns what schedules retries.
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
    let standby = Standby {
        log,
        view,
        clock: context.clock(),
        counters,
        settings: Arc::new(settings),
        readiness,
        stop,
    };
    context.spawn("configuration", async move { follow.await.context("follow the configuration") });
    context.spawn("scheduling", standby.serve());
    Ok(())
}

/// A process that does not have the role yet.
struct Standby {
    log: EventLog,
    view: ConfigView<Directory>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    settings: Arc<Settings>,
    readiness: Readiness,
    stop: CancellationToken,
}

impl Standby {
    /// Waits for the role, does its work until the service stops, and lets a successor in.
    async fn serve(self) -> anyhow::Result<()> {
        let log = self.log.clone();
        let served = Box::pin(self.take_turn()).await;
        log.close().await;
        served
    }

    async fn take_turn(self) -> anyhow::Result<()> {
        self.readiness.ready();
        let owner = format!("{ROLE}-{:032x}", u128::from_be_bytes(random_bytes()));
        // Not the service's own token: the role is kept until the last snapshot is written.
        let release = CancellationToken::new();
        let acquired = {
            let acquire = self.log.acquire(ROLE, &owner, release.clone());
            tokio::pin!(acquire);
            tokio::select! {
                acquired = &mut acquire => acquired,
                () = self.stop.cancelled() => {
                    release.cancel();
                    acquire.await
                }
            }
        };
        let Some((lease, beat)) = acquired.context("take the role")? else { return Ok(()) };
        let mut heart = JoinSet::new();
        heart.spawn(beat);
        let tools = Tools {
            schedules: self.log.schedules(),
            publisher: self.log.publisher(),
            log: self.log,
            view: self.view,
            clock: self.clock,
            counters: self.counters,
            settings: self.settings,
            lease,
            owner: owner.into(),
            stop: self.stop,
        };
        let worked = tokio::select! {
            worked = work(tools, self.readiness) => worked,
            Some(stopped) = heart.join_next() => {
                stopped.context("the heartbeat panicked")?.context("keep the role")?;
                anyhow::bail!("the heartbeat ended")
            }
        };
        release.cancel();
        while heart.join_next().await.is_some() {}
        worked
    }
}

async fn work(tools: Tools, readiness: Readiness) -> anyhow::Result<()> {
    readiness.not_ready("catching up with the journal");
    let stop = tools.stop.clone();
    let opening = Box::pin(Desk::open(tools));
    let Some(desk) = stop.run_until_cancelled(opening).await else { return Ok(()) };
    let desk = desk.context("take over")?;
    readiness.ready();
    info!("scheduling retries");
    Box::pin(desk.run()).await
}
