//! One job: from where it stands to its end, or to where somebody else takes it on.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{
    DeliveryId, Replay,
    job::{JobState, Scope},
};
use fanfare_event_log::{JobWritten, StoredReplay};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Desk,
    source::{Chunk, Source},
    window::Window,
};

/// By how much a time is widened to find the first event of it.
const MARGIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Run {
    desk: Arc<Desk>,
    replay: Replay,
    revision: u64,
    generation: u32,
    stop: CancellationToken,
}

impl Run {
    /// Goes on with a job where it stands.
    pub(super) fn of(desk: Arc<Desk>, stored: &StoredReplay, stop: CancellationToken) -> Self {
        let (revision, generation) = (stored.revision, stored.generation());
        let replay = (*stored.replay).clone();
        Self { desk, replay, revision, generation, stop }
    }

    /// Does what is left of it; returns the name of its state. Ends earlier if the service stops, or
    /// the job was changed by others.
    pub(super) async fn finish(mut self) -> anyhow::Result<&'static str> {
        if self.replay.generation == 0 && !self.begin().await? {
            return Ok("changed");
        }
        let mut window = Window::open(&self.desk.log, &self.replay).await?;
        let mut source = Source::of(Arc::clone(&self.desk), &self.replay).await?;
        while !self.replay.is_over() {
            let room = window.make_room(&self.desk.log);
            let Some(room) = self.stop.run_until_cancelled(room).await else { break };
            room.context("watch what was made")?;
            let next = source.next(self.replay.progress.next);
            let Some(chunk) = self.stop.run_until_cancelled(next).await else { break };
            let chunk = chunk.context("find what is to be replayed")?;
            let written = self.desk.write((&self.replay, self.generation), &chunk.given);
            if !written.await.context("write what is replayed")? {
                break;
            }
            for given in &chunk.given {
                let (event, generation) = (given.event.event.id, self.generation);
                let made = given.targets.iter().map(|it| DeliveryId::of(event, *it, generation));
                window.extend(made);
            }
            if !self.note(&chunk).await? {
                return Ok("changed");
            }
        }
        Ok(self.replay.state.as_str())
    }

    /// Notes where it begins, and what tells its deliveries apart.
    async fn begin(&mut self) -> anyhow::Result<bool> {
        self.replay.generation = self.generation;
        self.replay.progress.next = match &self.replay.scope {
            Scope::Only(_) => 0,
            Scope::Range(range) => {
                let since = range.since.saturating_sub(MARGIN);
                self.desk.log.first_event_at(since).await.context("find the first event")?
            }
        };
        self.save().await
    }

    /// Notes that a chunk is done.
    async fn note(&mut self, chunk: &Chunk) -> anyhow::Result<bool> {
        let made: usize = chunk.given.iter().map(|given| given.targets.len()).sum();
        let progress = &mut self.replay.progress;
        progress.next = chunk.next;
        progress.looked_at += chunk.looked_at;
        progress.made += u64::try_from(made).unwrap_or(u64::MAX);
        if chunk.is_last {
            self.replay.state = JobState::Done;
        }
        self.save().await
    }

    /// Writes how far it is; returns whether nobody else has changed it. Whatever is made before the
    /// next time refers to the journal's end as of now.
    async fn save(&mut self) -> anyhow::Result<bool> {
        let last = self.desk.log.journal_last().await.context("find the journal's end")?;
        self.replay.progress.journal_sequence = last;
        self.replay.progress.updated_at = self.desk.clock.now();
        let written = self.desk.log.write_replay(&self.replay, self.revision).await;
        match written.context("write how far a replay is")? {
            JobWritten::Stored(revision) => {
                self.revision = revision;
                Ok(true)
            }
            JobWritten::Conflict => {
                debug!(job_id = %self.replay.id, "somebody else has changed a replay");
                Ok(false)
            }
        }
    }
}
