//! The time for which a process has the post: all replays that run have turns, some at once, each for
//! a part of its work. Who waits for its endpoints has none, and takes up no place.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{JobId, TenantId};
use fanfare_event_log::StoredReplay;
use fanfare_service::Joined as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    Desk, REST,
    room::{Remembered, Standing, room_for, too_much},
    run::{Run, Step},
    surveys::ENTRIES_MAX,
    turns::Turns,
    watch::Watch,
};

/// How many jobs have their turn at once.
const AT_ONCE_MAX: usize = 4;

/// How often it is looked for jobs, and how long one rests that waits for others.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a turn may take when the service stops: what it has not done then is done again.
const LAST: Duration = Duration::from_secs(3);

/// How many deliveries may be remembered together of what is on record, for replays that wait.
pub(crate) const SURVEYED_MAX: usize = 1_000_000;

/// See the module.
pub(super) struct Shift {
    desk: Arc<Desk>,
    watch: Arc<Watch>,
    stop: CancellationToken,
    turns: Turns,
    /// The jobs that were begun, and have no turn at the moment.
    runs: BTreeMap<JobId, Run>,
    /// Those that have forgotten what is on record, since it was too much together, and how much it
    /// was: they wait until there is room for it.
    in_line: BTreeMap<JobId, usize>,
    at_it: JoinSet<Taken>,
}

/// A turn that is over.
struct Taken {
    tenant: TenantId,
    job: JobId,
    /// What goes on.
    run: Option<Run>,
    rest: Duration,
    is_gone: bool,
}

impl Shift {
    /// Begins with nothing in hand. It ends with `stop`.
    pub(super) fn new(desk: Arc<Desk>, watch: Arc<Watch>, stop: CancellationToken) -> Self {
        let (turns, at_it) = (Turns::default(), JoinSet::new());
        let (runs, in_line) = (BTreeMap::new(), BTreeMap::new());
        Self { desk, watch, stop, turns, runs, in_line, at_it }
    }

    /// Gives turns until the stop.
    pub(super) async fn work(mut self) -> anyhow::Result<()> {
        while !self.stop.is_cancelled() {
            self.forget_the_others();
            self.make_room();
            while self.at_it.len() < AT_ONCE_MAX
                && let Some(stored) = self.next()
            {
                self.begin(&stored);
            }
            self.tell();
            tokio::select! {
                () = self.stop.cancelled() => {}
                Some(taken) = self.at_it.join_next() => {
                    self.end(taken.joined().context("take a turn")?);
                }
                () = self.watch.moved() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
        while let Some(taken) = self.at_it.join_next().await {
            taken.joined().context("take a turn")?;
        }
        Ok(())
    }

    /// Says how many replays there are, and how much is remembered for those that wait.
    fn tell(&self) {
        let running = self.desk.jobs.read(|jobs| jobs.running().count());
        let surveyed = self.runs.values().map(Run::surveyed).sum();
        self.desk.counters.set_replays(running, surveyed);
    }

    fn next(&mut self) -> Option<StoredReplay> {
        let Self { desk, turns, runs, in_line, .. } = self;
        let surveyed: usize = runs.values().map(Run::surveyed).sum();
        let is_ready = |stored: &StoredReplay| {
            let job = stored.replay.id;
            let is_its_turn =
                in_line.get(&job).is_none_or(|needed| surveyed + needed <= SURVEYED_MAX);
            is_its_turn && runs.get(&job).is_none_or(Run::is_ready)
        };
        let next = desk.jobs.read(|jobs| turns.give(jobs.running(), is_ready, Instant::now()))?;
        in_line.remove(&next.replay.id);
        Some(next)
    }

    fn begin(&mut self, stored: &StoredReplay) {
        let run = self.runs.remove(&stored.replay.id);
        let run =
            run.unwrap_or_else(|| Run::of(Arc::clone(&self.desk), Arc::clone(&self.watch), stored));
        let whose = (stored.replay.tenant.clone(), stored.replay.id);
        self.at_it.spawn(take_turn(whose, run, self.stop.clone()));
    }

    fn end(&mut self, taken: Taken) {
        let Taken { tenant, job, run, rest, is_gone } = taken;
        self.turns.end((&tenant, job), rest, Instant::now());
        if is_gone {
            self.turns.give_up(job);
        }
        match run {
            Some(run) => {
                self.runs.insert(job, run);
                self.remember_less();
            }
            None => self.watch.forget(job),
        }
    }

    /// Forgets what was ended by others.
    fn forget_the_others(&mut self) {
        let whose = |stored: &StoredReplay| (stored.replay.id, stored.replay.tenant.clone());
        let (running, ended) = self.desk.jobs.read(|jobs| {
            let running: BTreeMap<JobId, TenantId> = jobs.running().map(whose).collect();
            let goes_on = |job| jobs.replay(job).is_some_and(|stored| !stored.replay.is_over());
            let ended: Vec<JobId> =
                self.runs.keys().copied().filter(|job| !goes_on(*job)).collect();
            (running, ended)
        });
        for job in ended {
            self.runs.remove(&job);
            self.watch.forget(job);
        }
        self.in_line.retain(|job, _| self.runs.contains_key(job));
        self.turns.keep_only(&running);
    }

    /// Forgets what is on record for some, if it is too much together: they look again when there is
    /// room.
    fn remember_less(&mut self) {
        let forgetting = too_much(self.remembered(), SURVEYED_MAX);
        self.forget_surveys(forgetting);
    }

    /// Has those forget that wait for their endpoints, where somebody else waits for room who could
    /// go on.
    fn make_room(&mut self) {
        let is_ready = |job: &JobId| self.runs.get(job).is_some_and(Run::is_ready);
        let needed = self.in_line.iter().filter(|(job, _)| is_ready(job)).map(|(_, it)| *it).min();
        let Some(needed) = needed else { return };
        let forgetting = room_for(needed, self.remembered(), SURVEYED_MAX);
        self.forget_surveys(forgetting);
    }

    fn remembered(&self) -> Vec<Remembered> {
        let remembered = |(job, run): (&JobId, &Run)| {
            let standing = match (run.is_idle(), run.is_reading()) {
                (true, _) => Standing::Idle,
                (false, true) => Standing::Reads,
                (false, false) => Standing::GoesOn,
            };
            Remembered {
                tenant: run.tenant().clone(),
                last_turn: self.turns.last(*job),
                job: *job,
                count: run.surveyed(),
                standing,
            }
        };
        self.runs.iter().map(remembered).collect()
    }

    fn forget_surveys(&mut self, forgetting: Vec<JobId>) {
        for job in forgetting {
            if let Some(run) = self.runs.get_mut(&job) {
                // Who has not read all of it cannot tell how much it is.
                let needed = if run.is_reading() { ENTRIES_MAX } else { run.surveyed() };
                self.in_line.insert(job, needed);
                run.forget_survey();
            }
        }
    }
}

/// Whoever has the post next says how many there are.
impl Drop for Shift {
    fn drop(&mut self) {
        self.desk.counters.set_replays(0, 0);
    }
}

/// Gives a job its turn. What goes wrong is told, and the job goes on later.
async fn take_turn(
    (tenant, job): (TenantId, JobId),
    mut run: Run,
    stop: CancellationToken,
) -> Taken {
    let last = async {
        stop.cancelled().await;
        sleep(LAST).await;
    };
    let stepped = tokio::select! {
        // Boxed, because it is large.
        stepped = Box::pin(run.step()) => stepped,
        () = last => Ok(Step::Stopped),
    };
    let ended = Taken { tenant, job, run: None, rest: Duration::ZERO, is_gone: false };
    match stepped {
        Ok(Step::Went) => {
            run.came_on();
            Taken { run: Some(run), ..ended }
        }
        Ok(Step::Waits) => Taken { run: Some(run), rest: LOOK_EVERY, ..ended },
        Ok(Step::Over(state)) => {
            info!(tenant_id = %ended.tenant, job_id = %job, state, "a replay is over");
            Taken { rest: REST, ..ended }
        }
        Ok(Step::Changed) => {
            debug!(tenant_id = %ended.tenant, job_id = %job, "somebody else has changed a replay");
            Taken { rest: REST, ..ended }
        }
        Ok(Step::Gone) => {
            warn!(tenant_id = %ended.tenant, job_id = %job, "a replay is not kept any more, and ends");
            Taken { is_gone: true, ..ended }
        }
        Ok(Step::Stopped) => ended,
        Err(_) if stop.is_cancelled() => ended,
        Err(error) => {
            error!(tenant_id = %ended.tenant, job_id = %job, error = format!("{error:#}"), "a replay goes on later");
            Taken { rest: REST, ..ended }
        }
    }
}
