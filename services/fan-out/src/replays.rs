//! Replays: new deliveries of past events, made little by little, as jobs that survive a restart.
//!
//! ```text
//! JOBS ─▶ what is next ─▶ room? ─▶ routed facts ─▶ tasks ─▶ JOBS (how far it is)
//! ```
//!
//! One process has the post and runs all jobs, a few at once. How far a job is stands in JOBS, by
//! compare-and-set: a person who cancels it, or whoever has the post next, is noticed with the next
//! write. What is done twice after a crash has the same ids, and refers to a place in the journal
//! from before the first time, so that dispatchers know it again.

mod run;
mod source;
mod survey;
mod window;
mod writing;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::JobId;
use fanfare_event_log::{
    ConfigView, EventLog, JobsView,
    membership::{Duty, Membership},
};
use fanfare_service::{Clock, random_bytes};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    allowances::Allowances, conditions::Conditions, outlet::Outlet, replays::run::Run,
    routes::Routes, spans::Spans,
};

/// The role with the one post.
const ROLE: &str = "replays";

/// How many jobs are run at once.
const JOBS_MAX: usize = 4;

/// How often it is looked for jobs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
            left.context("the membership panicked")?.context("take part")?;
        }
        worked
    }

    /// Runs jobs until the post is to be handed over.
    async fn run_jobs(self: Arc<Self>, duty: Duty) -> anyhow::Result<()> {
        let (mut active, mut runs) = (BTreeSet::new(), JoinSet::new());
        // What is to go on was written by whoever had the post before.
        let confirmed = duty.stop.run_until_cancelled(self.jobs.confirm()).await;
        confirmed.transpose().context("confirm the jobs")?;
        while !duty.stop.is_cancelled() {
            let room = JOBS_MAX.saturating_sub(active.len());
            let next: Vec<_> = self.jobs.read(|jobs| {
                let waiting = jobs.running().filter(|it| !active.contains(&it.replay.id));
                waiting.take(room).cloned().collect()
            });
            for stored in next {
                active.insert(stored.replay.id);
                let (desk, stop) = (Arc::clone(&self), duty.stop.clone());
                runs.spawn(async move { (stored.replay.id, run(desk, stored, stop).await) });
            }
            tokio::select! {
                () = duty.stop.cancelled() => {}
                Some(done) = runs.join_next() => {
                    let (job, ()) = done.context("a job panicked")?;
                    active.remove(&job);
                }
                () = sleep(LOOK_EVERY) => {}
            }
        }
        while let Some(done) = runs.join_next().await {
            done.context("a job panicked")?;
        }
        Ok(())
    }
}

async fn work(desk: Arc<Desk>, membership: Membership) -> anyhow::Result<()> {
    membership.work(|duty| Arc::clone(&desk).run_jobs(duty)).await
}

/// Runs one job as far as it goes. What goes wrong is told, and the job goes on later.
async fn run(desk: Arc<Desk>, stored: fanfare_event_log::StoredReplay, stop: CancellationToken) {
    let job: JobId = stored.replay.id;
    match Box::pin(Run::of(desk, &stored, stop.clone()).finish()).await {
        Ok(state) => info!(job_id = %job, state, "a replay stands"),
        Err(_) if stop.is_cancelled() => {}
        Err(error) => {
            error!(job_id = %job, error = format!("{error:#}"), "a replay goes on later");
            stop.run_until_cancelled(sleep(REST)).await;
        }
    }
}
