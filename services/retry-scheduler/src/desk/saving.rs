//! Saves the state of each shard, so that a restart need not read the whole journal.
//!
//! A shard in which nothing happens is saved too, now and then: a restart reads from the oldest
//! of the sequences that the snapshots cover.

use std::{collections::VecDeque, time::Duration};

use anyhow::Context as _;
use fanfare_domain::Shard;
use fanfare_event_log::{EventLog, snapshot::Snapshot};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{Desk, jobs::Done, of_shard};

/// What snapshots are kept under.
pub(super) const NAME: &str = "retry-scheduler";

/// How far the snapshot of an idle shard may fall behind the journal, in sequences.
const BEHIND_MAX: u64 = 50_000;
/// How long what is on its way may take to arrive when the service stops.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How many snapshots are written at once when the service stops.
const WRITES_MAX: usize = 8;

/// The shards to be saved. One is written at a time.
#[derive(Default)]
pub(super) struct Saving {
    queue: VecDeque<Shard>,
    running: bool,
}

/// What is saved of a shard.
pub(super) struct Saved {
    sequence: u64,
    bytes: usize,
    at: Instant,
    changed: bool,
}

impl Saved {
    /// Notes a snapshot that was read, or that there is none.
    pub(super) fn new(sequence: u64) -> Self {
        Self { sequence, bytes: 0, at: Instant::now(), changed: false }
    }

    /// Notes that there is something new to be saved.
    pub(super) fn note_change(&mut self) {
        self.changed = true;
    }

    fn is_due(&self, position: u64, interval: Duration, now: Instant) -> bool {
        let mebibytes = u32::try_from(self.bytes >> 20).unwrap_or(u32::MAX);
        let interval = interval.saturating_mul(mebibytes.saturating_add(1));
        let aged = now.duration_since(self.at) >= interval;
        let is_behind = position.saturating_sub(self.sequence) >= BEHIND_MAX;
        aged && (self.changed || is_behind)
    }
}

impl Desk {
    /// Chooses the shards to be saved.
    pub(super) fn plan_saving(&mut self) {
        if self.saving.running || !self.saving.queue.is_empty() {
            return;
        }
        let (now, interval) = (Instant::now(), self.tools.settings.snapshot_interval);
        let is_due = |saved: &Saved| saved.is_due(self.position, interval, now);
        let due = self.shards.iter().filter(|desk| is_due(&desk.saved)).map(|desk| desk.shard);
        self.saving.queue.extend(due);
    }

    /// Starts to save the next shard, if there is one and none is being saved.
    pub(super) fn start_saving(&mut self) {
        if self.saving.running {
            return;
        }
        let Some(shard) = self.saving.queue.pop_front() else { return };
        if let Some(snapshot) = self.snapshot(shard) {
            self.saving.running = true;
            self.jobs.spawn(save(self.tools.log.clone(), shard, snapshot));
        }
    }

    /// Takes note of a snapshot.
    pub(super) fn saved(&mut self, shard: Shard, saved: Option<(u64, usize)>) {
        self.saving.running = false;
        let Some(desk) = of_shard(&mut self.shards, shard) else { return };
        match saved {
            Some((sequence, bytes)) => (desk.saved.sequence, desk.saved.bytes) = (sequence, bytes),
            None => desk.saved.changed = true,
        }
    }

    /// Lets what is on its way arrive, saves what changed, and ends.
    pub(super) async fn finish(mut self) -> anyhow::Result<()> {
        let arriving = async {
            while self.is_writing() {
                let Some(done) = self.jobs.join_next().await else { break };
                self.finished(done.context("a job panicked")??).await?;
            }
            anyhow::Ok(())
        };
        if let Ok(arrived) = timeout(LAST_WORDS, arriving).await {
            arrived?;
        } else {
            info!("stopping with writes on their way: they are made again");
        }
        let changed: Vec<_> = self.shards.iter().filter(|desk| desk.saved.changed).collect();
        let changed: Vec<Shard> = changed.into_iter().map(|desk| desk.shard).collect();
        let log = self.tools.log.clone();
        stream::iter(changed)
            .filter_map(|shard| {
                let snapshot = self.snapshot(shard);
                async move { Some((shard, snapshot?)) }
            })
            .map(async |(shard, snapshot)| save(log.clone(), shard, snapshot).await)
            .buffer_unordered(WRITES_MAX)
            .for_each(async |_| ())
            .await;
        Ok(())
    }

    fn is_writing(&self) -> bool {
        let writing = self.shards.iter().any(|desk| desk.writing > 0);
        writing || self.alarms > 0 || self.saving.running
    }

    fn snapshot(&mut self, shard: Shard) -> Option<Snapshot> {
        let position = self.position;
        let desk = of_shard(&mut self.shards, shard)?;
        desk.agenda.reach(position);
        (desk.saved.changed, desk.saved.at) = (false, Instant::now());
        Some(Snapshot { sequence: desk.agenda.checkpoint(), state: desk.agenda.encode() })
    }
}

async fn save(log: EventLog, shard: Shard, snapshot: Snapshot) -> anyhow::Result<Done> {
    let saved = match log.put_snapshot(NAME, shard, &snapshot).await {
        Ok(()) => Some((snapshot.sequence, snapshot.state.len())),
        Err(error) => {
            warn!(%error, %shard, "the state could not be saved");
            None
        }
    };
    Ok(Done::Saved { shard, saved })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn is_due(bytes: usize, changed: bool, behind: u64, elapsed: u64) -> bool {
        let at = Instant::now();
        let saved = Saved { sequence: 100, bytes, at, changed };
        saved.is_due(100 + behind, INTERVAL, at + Duration::from_secs(elapsed))
    }

    #[test]
    fn what_changed_is_saved_once_per_interval() {
        assert!(!is_due(0, true, 1, 9));
        assert!(is_due(0, true, 1, 10));
        assert!(!is_due(0, false, 1, 10));
    }

    #[test]
    fn a_large_state_is_saved_less_often() {
        assert!(!is_due(3 << 20, true, 1, 39));
        assert!(is_due(3 << 20, true, 1, 40));
    }

    #[test]
    fn an_idle_shard_is_saved_when_it_is_far_behind() {
        assert!(!is_due(0, false, BEHIND_MAX - 1, 1_000));
        assert!(is_due(0, false, BEHIND_MAX, 10));
    }
}
