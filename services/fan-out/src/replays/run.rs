//! One job: from where it stands to its end, some events at a time.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{
    DeliveryId, Replay, TenantId,
    job::{Failure, JobState, Scope},
};
use fanfare_event_log::{JobWritten, StoredReplay};
use tokio::time::Instant;

use super::{
    Desk,
    source::{Chunk, Source},
    unfinished::Unfinished,
    watch::Watch,
    writing::Given,
};

/// By how much a time is widened to find the first event of it.
const MARGIN: Duration = Duration::from_secs(1);

/// How long a job stands unwritten: whoever goes on with it reads the journal from its last write.
const UNWRITTEN_MAX: Duration = Duration::from_mins(1);

/// See the module.
pub(super) struct Run {
    desk: Arc<Desk>,
    watch: Arc<Watch>,
    replay: Replay,
    revision: u64,
    generation: u32,
    source: Option<Source>,
    /// Whether what is next may have been made before, by who was interrupted.
    is_repeat: bool,
    written_at: Instant,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It has come on.
    Went,
    /// It waits for its endpoints, or for events to be routed.
    Waits,
    /// There is nothing left to be done. Holds the name of its state.
    Over(&'static str),
    /// Somebody else has changed it.
    Changed,
    /// It is not kept any more.
    Gone,
    /// The service stops; some of the turn may be done.
    Stopped,
}

impl Run {
    /// Goes on with a job where it stands.
    pub(super) fn of(desk: Arc<Desk>, watch: Arc<Watch>, stored: &StoredReplay) -> Self {
        let (revision, generation) = (stored.revision, stored.generation());
        let replay = (*stored.replay).clone();
        let (source, is_repeat) = (None, replay.generation > 0);
        let written_at = Instant::now();
        Self { desk, watch, replay, revision, generation, source, is_repeat, written_at }
    }

    /// Whether it is to be written, though it has not come on.
    pub(super) fn is_due(&self) -> bool {
        !self.is_repeat && self.written_at.elapsed() > UNWRITTEN_MAX
    }

    /// Whose it is.
    pub(super) fn tenant(&self) -> &TenantId {
        &self.replay.tenant
    }

    /// How many deliveries it remembers of those that are on record.
    pub(super) fn surveyed(&self) -> usize {
        self.source.as_ref().map_or(0, Source::surveyed)
    }

    /// Forgets them; they are read again when they are needed.
    pub(super) fn forget_survey(&mut self) {
        if let Some(source) = &mut self.source {
            source.forget_survey();
        }
    }

    /// Does some of what is left. After an error, or if it is dropped half-way, the job goes on as a
    /// new run, from what is stored.
    pub(super) async fn step(&mut self) -> anyhow::Result<Step> {
        if self.replay.is_over() {
            return self.finish().await;
        }
        // What was put on record before an interruption is made first.
        if !self.is_repeat
            && let Some(failure) = self.desk.failure(&self.replay).await?
        {
            return self.end(failure.into()).await;
        }
        if self.replay.generation == 0 {
            return self.begin().await;
        }
        if !self.watch.has_room(self.replay.id) {
            return self.wait().await;
        }
        let next = self.replay.progress.next;
        let Some(chunk) = self.source().await?.next(next).await.context("find what is next")?
        else {
            return self.wait().await;
        };
        let generation = self.generation;
        let made = chunk.given.iter().flat_map(|given| {
            let event = given.event.event.id;
            given.targets.iter().map(move |it| DeliveryId::of(event, *it, generation))
        });
        let since = (self.replay.progress.journal_sequence, self.is_repeat);
        self.watch.add(self.replay.id, made, since);
        let written = self.desk.write((&self.replay, generation), &chunk.given);
        if !written.await.context("write what is replayed")? {
            return Ok(Step::Stopped);
        }
        self.is_repeat = self.source.as_ref().is_some_and(Source::has_unfinished);
        self.note(&chunk).await
    }

    /// Makes what is on record of a replay that was cancelled, and was maybe made before.
    async fn finish(&mut self) -> anyhow::Result<Step> {
        let (tenant, since) = (&self.replay.tenant, self.replay.progress.journal_sequence);
        let left = Unfinished::read(&self.desk.log, (tenant, self.generation), since).await;
        let left = left.context("read what was left behind")?.take_below(u64::MAX);
        let mut given = Vec::with_capacity(left.len());
        for (sequence, targets) in left {
            let event = self.desk.event(sequence).await.context("read an event")?;
            let targets: Vec<_> = targets.into_iter().collect();
            given.extend(event.map(|event| Given { event, targets }));
        }
        let written = self.desk.write((&self.replay, self.generation), &given);
        if !written.await.context("write what was left behind")? {
            return Ok(Step::Stopped);
        }
        let made: usize = given.iter().map(|given| given.targets.len()).sum();
        let progress = &mut self.replay.progress;
        progress.made += u64::try_from(made).unwrap_or(u64::MAX);
        progress.unfinished = false;
        let state = self.replay.state.as_str();
        self.save(Step::Over(state)).await
    }

    async fn source(&mut self) -> anyhow::Result<&mut Source> {
        let source = if let Some(source) = self.source.take() {
            source
        } else {
            let desk = Arc::clone(&self.desk);
            Source::of(desk, (&self.replay, self.generation), self.is_repeat).await?
        };
        Ok(self.source.insert(source))
    }

    /// Notes where it begins, and what tells its deliveries apart.
    async fn begin(&mut self) -> anyhow::Result<Step> {
        self.replay.generation = self.generation;
        self.replay.progress.next = match &self.replay.scope {
            Scope::Only(_) => 0,
            Scope::Range(range) => {
                let since = range.since.saturating_sub(MARGIN);
                self.desk.log.first_event_at(since).await.context("find the first event")?
            }
        };
        self.save(Step::Went).await
    }

    /// Waits for others; now and then it says how it stands, so that little is to be read by whoever
    /// goes on with it.
    async fn wait(&mut self) -> anyhow::Result<Step> {
        if self.is_due() { self.save(Step::Waits).await } else { Ok(Step::Waits) }
    }

    /// Notes that a chunk is done.
    async fn note(&mut self, chunk: &Chunk) -> anyhow::Result<Step> {
        let made: usize = chunk.given.iter().map(|given| given.targets.len()).sum();
        let progress = &mut self.replay.progress;
        progress.next = chunk.next;
        progress.looked_at += chunk.looked_at;
        progress.made += u64::try_from(made).unwrap_or(u64::MAX);
        if !chunk.is_last {
            return self.save(Step::Went).await;
        }
        let has_found_none = match &self.replay.scope {
            Scope::Only(past) => progress.made == 0 && !past.is_empty(),
            Scope::Range(_) => false,
        };
        let state = if has_found_none { Failure::EventsGone.into() } else { JobState::Done };
        self.end(state).await
    }

    /// Ends it.
    async fn end(&mut self, state: JobState) -> anyhow::Result<Step> {
        let name = state.as_str();
        self.replay.state = state;
        self.save(Step::Over(name)).await
    }

    /// Writes how far it is. Whatever is made before the next time refers to the journal's end as of
    /// now, unless something of before is left to be made again.
    async fn save(&mut self, saved: Step) -> anyhow::Result<Step> {
        if !self.is_repeat {
            let last = self.desk.log.journal_last().await.context("find the journal's end")?;
            self.replay.progress.journal_sequence = last;
        }
        self.replay.progress.updated_at = self.desk.clock.now();
        let written = self.desk.log.write_replay(&self.replay, self.revision).await;
        let step = match written.context("write how far a replay is")? {
            JobWritten::Stored(revision) => {
                (self.revision, self.written_at) = (revision, Instant::now());
                saved
            }
            JobWritten::Conflict => Step::Changed,
            JobWritten::Gone => Step::Gone,
        };
        if matches!(step, Step::Over(_) | Step::Changed) {
            // Whoever looks at it next is to see this.
            self.desk.jobs.confirm().await.context("confirm the jobs")?;
        }
        Ok(step)
    }
}
