//! Saves the state of the shard, so that its next owner need not read the whole journal.
//!
//! A shard in which nothing happens is saved too, now and then: its next owner reads from the
//! sequence that the snapshot covers.

use std::time::Duration;

use anyhow::Context as _;
use fanfare_domain::Shard;
use fanfare_event_log::{EventLog, snapshot::Snapshot};
use fanfare_service::Joined as _;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{Desk, jobs::Done};

/// What snapshots are kept under.
pub(super) const NAME: &str = "retry-scheduler";

/// How far the snapshot of an idle shard may fall behind the journal, in sequences.
const BEHIND_MAX: u64 = 50_000;
/// How long what is on its way may take to arrive when the service stops.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What is saved of a shard.
pub(super) struct Saved {
    /// Whether a snapshot is being written.
    running: bool,
    sequence: u64,
    bytes: usize,
    at: Instant,
    changed: bool,
}

impl Saved {
    /// Notes a snapshot that was read, or that there is none.
    pub(super) fn new(sequence: u64) -> Self {
        Self { running: false, sequence, bytes: 0, at: Instant::now(), changed: false }
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
    /// Has the state saved, if it is time to.
    pub(super) fn save_in_time(&mut self) {
        let interval = self.tools.settings.snapshot_interval;
        if !self.saved.running && self.saved.is_due(self.position, interval, Instant::now()) {
            self.saved.running = true;
            let snapshot = self.snapshot();
            self.jobs.spawn(save(self.tools.log.clone(), self.shard, snapshot));
        }
    }

    /// Takes note of a snapshot.
    pub(super) fn note_saved(&mut self, saved: Option<(u64, usize)>) {
        self.saved.running = false;
        match saved {
            Some((sequence, bytes)) => (self.saved.sequence, self.saved.bytes) = (sequence, bytes),
            None => self.saved.changed = true,
        }
    }

    /// Lets what is on its way arrive, saves what changed, and ends.
    pub(super) async fn finish(mut self) -> anyhow::Result<()> {
        let arriving = async {
            while self.is_writing() {
                let Some(done) = self.jobs.join_next().await else { break };
                self.finished(done.joined().context("do a job")??).await?;
            }
            anyhow::Ok(())
        };
        if let Ok(arrived) = timeout(LAST_WORDS, arriving).await {
            arrived?;
        } else {
            info!(shard = %self.shard, "stopping with writes on their way: they are made again");
        }
        if self.saved.changed {
            let snapshot = self.snapshot();
            save(self.tools.log.clone(), self.shard, snapshot).await?;
        }
        Ok(())
    }

    fn is_writing(&self) -> bool {
        self.writing > 0 || self.alarms > 0 || self.saved.running
    }

    fn snapshot(&mut self) -> Snapshot {
        self.agenda.reach(self.position);
        (self.saved.changed, self.saved.at) = (false, Instant::now());
        Snapshot { sequence: self.agenda.checkpoint(), state: self.agenda.encode() }
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
    Ok(Done::Saved { saved })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn is_due(bytes: usize, changed: bool, behind: u64, elapsed: u64) -> bool {
        let at = Instant::now();
        let saved = Saved { running: false, sequence: 100, bytes, at, changed };
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
