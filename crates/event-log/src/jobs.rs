//! Long jobs: the last message of each subject of JOBS is how a job stands, written by
//! compare-and-set, so that of two who work on a job at the same time one is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fanfare_domain::{JobId, Replay, TenantId, Timestamp};
use fanfare_proto::{DecodeError, decode_replay, encode_replay};
use tokio_util::sync::CancellationToken;

use crate::{
    EventLog, PublishError, ReadError, Topology,
    cas::{Set, Write},
    read::Numbered,
    topology::Stream,
    view::{Fold, View},
};

/// A replay as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReplay {
    /// The replay.
    pub replay: Arc<Replay>,
    /// What the next write of it has to be made from. That of the first one tells its deliveries
    /// apart: see [`Self::generation`].
    pub revision: u64,
}

/// Every replay that is kept.
#[derive(Debug)]
pub struct Jobs {
    replays: BTreeMap<JobId, Kept>,
    /// Those about which there is something to do, and those of each tenant: replays that are over
    /// are kept for weeks, and there may be many.
    running: BTreeSet<JobId>,
    of_tenants: BTreeMap<TenantId, BTreeSet<JobId>>,
    /// When each was written: what the stream does not keep any more is not kept here.
    written: BTreeSet<(Timestamp, JobId)>,
    retention: Duration,
}

#[derive(Debug)]
struct Kept {
    stored: StoredReplay,
    at: Timestamp,
}

/// A view of all jobs. Cheap to clone.
#[derive(Clone)]
pub struct JobsView {
    view: View<Jobs>,
}

/// How a write of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobWritten {
    /// It is stored, at this revision.
    Stored(u64),
    /// It is not at the revision that was expected.
    Conflict,
    /// There is no such job any more.
    Gone,
}

impl StoredReplay {
    /// What tells the deliveries of the replay apart from all others of the same events: larger
    /// than that of any replay before it.
    pub fn generation(&self) -> u32 {
        match self.replay.generation {
            0 => u32::try_from(self.revision).unwrap_or(u32::MAX),
            begun => begun,
        }
    }
}

impl Jobs {
    fn kept_for(retention: Duration) -> Self {
        Self {
            replays: BTreeMap::new(),
            running: BTreeSet::new(),
            of_tenants: BTreeMap::new(),
            written: BTreeSet::new(),
            retention,
        }
    }

    /// Takes how a replay stood at a time, and forgets what the stream has forgotten by then.
    fn note(&mut self, stored: StoredReplay, at: Timestamp) {
        let job = stored.replay.id;
        self.forget(job);
        if stored.replay.wants_a_runner() {
            self.running.insert(job);
        }
        self.of_tenants.entry(stored.replay.tenant.clone()).or_default().insert(job);
        self.replays.insert(job, Kept { stored, at });
        self.written.insert((at, job));
        let oldest = at.saturating_sub(self.retention);
        while let Some((_, job)) = self.written.first().copied().filter(|(at, _)| *at < oldest) {
            self.forget(job);
        }
    }

    fn forget(&mut self, job: JobId) {
        let Some(Kept { stored, at }) = self.replays.remove(&job) else { return };
        self.written.remove(&(at, job));
        self.running.remove(&job);
        let tenant = &stored.replay.tenant;
        if let Some(jobs) = self.of_tenants.get_mut(tenant) {
            jobs.remove(&job);
            if jobs.is_empty() {
                self.of_tenants.remove(tenant);
            }
        }
    }

    /// A replay.
    pub fn replay(&self, job: JobId) -> Option<&StoredReplay> {
        self.replays.get(&job).map(|kept| &kept.stored)
    }

    /// The replays of a tenant, the oldest first.
    pub fn of_tenant(&self, tenant: &TenantId) -> impl DoubleEndedIterator<Item = &StoredReplay> {
        let jobs = self.of_tenants.get(tenant).into_iter().flatten();
        jobs.filter_map(|job| self.replay(*job))
    }

    /// The replays about which there is something to do, the oldest first.
    pub fn running(&self) -> impl Iterator<Item = &StoredReplay> {
        self.running.iter().filter_map(|job| self.replay(*job))
    }
}

impl Fold for Jobs {
    fn place(topology: &Topology) -> (String, Vec<String>) {
        (topology.stream(Stream::Jobs), vec![topology.replays()])
    }

    fn take(&mut self, numbered: &Numbered) -> Result<(), DecodeError> {
        let replay = Arc::new(decode_replay(numbered.message.payload.clone())?);
        self.note(StoredReplay { revision: numbered.sequence, replay }, numbered.stored_at);
        Ok(())
    }
}

impl JobsView {
    /// Folds all jobs, then returns the view and the future that follows what comes until `stop`;
    /// the caller spawns it. It behaves as that of a [`ConfigView`](crate::ConfigView).
    pub async fn start(
        log: &EventLog,
        stop: CancellationToken,
    ) -> Result<(Self, impl Future<Output = Result<(), ReadError>> + Send + use<>), ReadError> {
        let (view, follow) = View::start(Jobs::kept_for(log.retention()), log, stop).await?;
        Ok((Self { view }, follow))
    }

    /// Looks at the jobs. Never hold it over an await: the closure keeps that from happening.
    pub fn read<R>(&self, look: impl FnOnce(&Jobs) -> R) -> R {
        self.view.read(look)
    }

    /// The revision that the view has reached.
    pub fn revision(&self) -> u64 {
        self.view.revision()
    }

    /// Waits until the view has reached every write that was acknowledged before this call, as
    /// [`ConfigView::confirm`](crate::ConfigView::confirm) does. Cancel safe.
    pub async fn confirm(&self) -> Result<u64, ReadError> {
        self.view.confirm().await
    }
}

impl EventLog {
    /// Writes a replay, if it is still at the revision that this was made from; 0 for one that
    /// there is not. An unknown outcome is found out, for ever if need be: bound this from outside.
    pub async fn write_replay(
        &self,
        replay: &Replay,
        expected: u64,
    ) -> Result<JobWritten, PublishError> {
        let topology = self.topology();
        let cell = self.cell(topology.stream(Stream::Jobs), topology.replay(replay.id));
        match cell.set(expected, &Write::Value(encode_replay(replay))).await? {
            Set::Stored(revision) => Ok(JobWritten::Stored(revision)),
            Set::Conflict(Some(_)) => Ok(JobWritten::Conflict),
            Set::Conflict(None) => Ok(JobWritten::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::job::{JobState, Progress, Scope};

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000 * seconds)
    }

    fn stored(n: u8, revision: u64) -> StoredReplay {
        let replay = Replay {
            id: JobId::new(at(0), [n; 10]),
            tenant: "acme".parse().unwrap(),
            actor: String::new(),
            reason: String::new(),
            created_at: at(0),
            scope: Scope::Only(Vec::new()),
            generation: 0,
            state: JobState::Running,
            progress: Progress::default(),
            behind: BTreeMap::new(),
        };
        StoredReplay { replay: Arc::new(replay), revision }
    }

    fn revisions(jobs: &Jobs) -> Vec<u64> {
        jobs.running().map(|stored| stored.revision).collect()
    }

    #[test]
    fn what_the_stream_does_not_keep_any_more_is_forgotten() {
        let mut jobs = Jobs::kept_for(Duration::from_secs(100));
        jobs.note(stored(1, 1), at(0));
        jobs.note(stored(2, 2), at(10));
        jobs.note(stored(1, 3), at(60));
        assert_eq!(revisions(&jobs), [3, 2]);
        jobs.note(stored(3, 4), at(111));
        assert_eq!(revisions(&jobs), [3, 4], "one was written since, the other one was not");
        jobs.note(stored(3, 5), at(170));
        assert_eq!((revisions(&jobs), jobs.written.len()), (vec![5], 1));
    }

    #[test]
    fn replays_are_found_by_their_tenant_and_by_whether_they_run() {
        let mut jobs = Jobs::kept_for(Duration::from_secs(100));
        let of = |n, revision, tenant: &str, state, unfinished| {
            let StoredReplay { replay, revision } = stored(n, revision);
            let progress = Progress { unfinished, ..replay.progress };
            let tenant = tenant.parse().unwrap();
            let replay = Replay { tenant, state, progress, ..(*replay).clone() };
            StoredReplay { replay: Arc::new(replay), revision }
        };
        jobs.note(of(2, 1, "acme", JobState::Running, false), at(0));
        jobs.note(of(1, 2, "acme", JobState::Running, false), at(0));
        jobs.note(of(3, 3, "other", JobState::Cancelled, true), at(50));
        let of_tenant = |jobs: &Jobs, tenant: &str| {
            let tenant = tenant.parse().unwrap();
            jobs.of_tenant(&tenant).map(|stored| stored.revision).collect::<Vec<_>>()
        };
        assert_eq!(revisions(&jobs), [2, 1, 3]);
        assert_eq!((of_tenant(&jobs, "acme"), of_tenant(&jobs, "other")), (vec![2, 1], vec![3]));
        jobs.note(of(1, 4, "acme", JobState::Done, false), at(60));
        jobs.note(of(3, 5, "other", JobState::Cancelled, false), at(60));
        assert_eq!(revisions(&jobs), [1]);
        assert_eq!((of_tenant(&jobs, "acme"), of_tenant(&jobs, "other")), (vec![4, 1], vec![5]));
        jobs.note(of(3, 6, "other", JobState::Cancelled, false), at(170));
        assert_eq!((revisions(&jobs), of_tenant(&jobs, "acme")), (vec![], vec![]));
        assert_eq!((jobs.replays.len(), jobs.of_tenants.len()), (1, 1));
    }
}
