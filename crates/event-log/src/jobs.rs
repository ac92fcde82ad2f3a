//! Long jobs: the last message of each subject of JOBS is how a job stands, written by
//! compare-and-set, so that of two who work on a job at the same time one is told.

use std::{collections::BTreeMap, sync::Arc};

use fanfare_domain::{JobId, Replay, TenantId};
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
#[derive(Debug, Default)]
pub struct Jobs {
    replays: BTreeMap<JobId, StoredReplay>,
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
    /// A replay.
    pub fn replay(&self, job: JobId) -> Option<&StoredReplay> {
        self.replays.get(&job)
    }

    /// The replays of a tenant, the oldest first.
    pub fn of_tenant(&self, tenant: &TenantId) -> impl DoubleEndedIterator<Item = &StoredReplay> {
        self.replays.values().filter(move |stored| stored.replay.tenant == *tenant)
    }

    /// The replays that are not over, the oldest first.
    pub fn running(&self) -> impl Iterator<Item = &StoredReplay> {
        self.replays.values().filter(|stored| !stored.replay.is_over())
    }
}

impl Fold for Jobs {
    fn place(topology: &Topology) -> (String, Vec<String>) {
        (topology.stream(Stream::Jobs), vec![topology.replays()])
    }

    fn take(&mut self, numbered: &Numbered) -> Result<(), DecodeError> {
        let replay = Arc::new(decode_replay(numbered.message.payload.clone())?);
        let stored = StoredReplay { revision: numbered.sequence, replay };
        self.replays.insert(stored.replay.id, stored);
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
        let (view, follow) = View::start(Jobs::default(), log, stop).await?;
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
            Set::Conflict(_) => Ok(JobWritten::Conflict),
        }
    }
}
