//! Replays: new deliveries of past events, made little by little, as jobs that survive a restart.
//!
//! ```text
//! JOBS ─▶ what is next ─▶ room? ─▶ routed facts ─▶ tasks ─▶ JOBS (how far it is)
//! ```
//!
//! One process has the post and runs all jobs, by turns. How far a job is stands in JOBS, by
//! compare-and-set: a person who cancels it, or whoever has the post next, is noticed with the next
//! write. What is done twice after a crash has the same ids, and refers to a place in the journal
//! from before the first time, so that dispatchers know it again.

mod failure;
mod pace;
mod room;
mod run;
mod shift;
mod source;
mod survey;
mod surveys;
mod turns;
mod unfinished;
mod watch;
mod writing;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_event_log::{
    ConfigView, EventLog, JobsView,
    membership::{Duty, Membership},
};
use fanfare_service::{Clock, Joined as _, random_bytes};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::shift::SURVEYED_MAX;

use self::{shift::Shift, watch::Watch};
use crate::{
    allowances::Allowances, conditions::Conditions, counters::Counters, outlet::Outlet,
    routes::Routes, spans::Spans,
};

/// The role with the one post.
const ROLE: &str = "replays";

/// How long a job rests that could not go on.
const REST: Duration = Duration::from_secs(5);

/// What running jobs takes.
pub(crate) struct Desk {
    /// Where events are read, and jobs are kept.
    pub(crate) log: EventLog,
    /// The jobs.
    pub(crate) jobs: JobsView,
    /// Who wants which events.
    pub(crate) routes: ConfigView<Routes>,
    /// Asks about the content of events.
    pub(crate) conditions: Conditions,
    /// Where facts and tasks go.
    pub(crate) outlet: Outlet,
    /// What tenants' limits allow.
    pub(crate) allowances: Allowances,
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Tells what is written.
    pub(crate) spans: Spans,
    /// Counts it.
    pub(crate) counters: Arc<Counters>,
}

impl Desk {
    /// Takes part until `stop`: runs the jobs while this process has the post.
    pub(crate) async fn take_part(self, stop: CancellationToken) -> anyhow::Result<()> {
        let owner = format!("fan-out-{:016x}", u64::from_be_bytes(random_bytes()));
        let leave = stop.child_token();
        let (membership, driver) = self.log.stand_for(ROLE, &owner, leave.clone());
        let mut driving = JoinSet::new();
        driving.spawn(driver);
        let worked = work(Arc::new(self), membership).await;
        // Leaving in order lets the others begin at once, also after a failure.
        leave.cancel();
        if let Some(left) = driving.join_next().await {
            left.joined().context("run the membership")?.context("take part")?;
        }
        worked
    }

    /// Runs jobs until the post is to be handed over.
    async fn run_jobs(self: Arc<Self>, duty: Duty) -> anyhow::Result<()> {
        // What is to go on was written by whoever had the post before.
        let confirmed = duty.stop.run_until_cancelled(self.jobs.confirm()).await;
        confirmed.transpose().context("confirm the jobs")?;
        let watch = Arc::new(Watch::default());
        let shift = Shift::new(Arc::clone(&self), Arc::clone(&watch), duty.stop.clone());
        tokio::select! {
            worked = shift.work() => worked,
            () = watch.follow(&self.log) => Ok(()),
        }
    }
}

async fn work(desk: Arc<Desk>, membership: Membership) -> anyhow::Result<()> {
    membership.work(|duty| Arc::clone(&desk).run_jobs(duty)).await
}
