//! One job: from where it stands to its end, some events at a time; each turn for those who go on
//! together, or for one that is behind them.

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
    pace::{self, Part, Whose},
    source::{Chunk, Next, Source},
    unfinished::Unfinished,
    watch::Watch,
    writing::Given,
};

/// By how much a time is widened to find the first event of it.
const MARGIN: Duration = Duration::from_secs(1);

/// How long a job stands unwritten: whoever goes on with it reads the journal from its last write.
const UNWRITTEN_MAX: Duration = Duration::from_mins(1);

/// How long after they got something nobody is waited for any more whom others wait for.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// After how long one is idle that waits for its endpoints.
const IDLE_AFTER: Duration = Duration::from_secs(30);

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
    /// Whether there is nothing left but for those that are behind.
    is_through: bool,
    /// Whose turn the last one was, and when those who go on together had theirs.
    last: Option<Whose>,
    went_at: Instant,
    written_at: Instant,
    came_on_at: Instant,
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
        let now = Instant::now();
        Self {
            desk,
            watch,
            revision,
            generation,
            source: None,
            is_repeat: replay.generation > 0,
            replay,
            is_through: false,
            last: None,
            went_at: now,
            written_at: now,
            came_on_at: now,
        }
    }

    /// Whether it is to be written, though it has not come on.
    fn is_due(&self) -> bool {
        !self.is_repeat && self.written_at.elapsed() > UNWRITTEN_MAX
    }

    /// Whether there is something to be done for anybody.
    pub(super) fn is_ready(&self) -> bool {
        let behind = &self.replay.behind;
        let has_unfinished = self.source.as_ref().is_some_and(Source::has_unfinished);
        has_unfinished
            || self.is_due()
            || self.watch.look(self.replay.id, |way| {
                pace::ready(way, behind, self.next()).next().is_some()
                    || (!self.is_through && way.slowest(behind, self.is_stuck()).is_some())
            })
    }

    /// From where on nothing is done for those who go on together; `None` if all is.
    fn next(&self) -> Option<u64> {
        (!self.is_through).then_some(self.replay.progress.next)
    }

    fn is_stuck(&self) -> bool {
        self.went_at.elapsed() > STUCK_AFTER
    }

    /// Whose it is.
    pub(super) fn tenant(&self) -> &TenantId {
        &self.replay.tenant
    }

    /// How many deliveries it remembers of those that are on record.
    pub(super) fn surveyed(&self) -> usize {
        self.source.as_ref().map_or(0, Source::surveyed)
    }

    /// Whether more of them are being read.
    pub(super) fn is_reading(&self) -> bool {
        self.source.as_ref().is_some_and(Source::is_reading)
    }

    /// Notes that it has come on.
    pub(super) fn came_on(&mut self) {
        self.came_on_at = Instant::now();
    }

    /// Whether it has waited for so long for its endpoints that others need not wait for it.
    pub(super) fn is_idle(&self) -> bool {
        self.came_on_at.elapsed() >= IDLE_AFTER && !self.is_ready()
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
        let mut source = match self.source.take() {
            Some(source) => source,
            None => self.begin_source().await?,
        };
        let Some(whose) = self.choose(&source) else {
            self.source = Some(source);
            return self.wait().await;
        };
        let next = source.next(&self.part(whose)).await.context("find what is next")?;
        let has_unfinished = source.has_unfinished();
        self.source = Some(source);
        let chunk = match next {
            Next::Chunk(chunk) => chunk,
            Next::NotRouted => return self.wait().await,
            Next::Unread => return self.read_on().await,
        };
        let generation = self.generation;
        let made = chunk.given.iter().flat_map(|given| {
            let event = given.event.event.id;
            given.targets.iter().map(move |it| (DeliveryId::of(event, *it, generation), *it))
        });
        let since = (self.replay.progress.journal_sequence, self.is_repeat);
        self.watch.add((self.replay.id, whose), made, since);
        let written = self.desk.write((&self.replay, generation), &chunk.given);
        if !written.await.context("write what is replayed")? {
            return Ok(Step::Stopped);
        }
        self.is_repeat = has_unfinished;
        self.note(whose, &chunk).await
    }

    /// Chooses for whom to go on. Who has been waited for is left behind first.
    fn choose(&mut self, source: &Source) -> Option<Whose> {
        let (next, stuck, last) = (self.next(), self.is_stuck(), self.last);
        let behind = &mut self.replay.behind;
        let is_apart = |from: &u64| next.is_none_or(|next| *from < next);
        let chosen = match source.unfinished(behind) {
            Some(Whose::One(endpoint)) if behind.get(&endpoint).is_some_and(is_apart) => {
                Some(Whose::One(endpoint))
            }
            Some(_) => Some(Whose::Most),
            None => self.watch.look(self.replay.id, |way| {
                while let Some(next) = next
                    && let Some(slow) = way.slowest(behind, stuck)
                {
                    behind.insert(slow, next);
                }
                pace::after(pace::ready(way, behind, next), last)
            }),
        };
        self.last = chosen.or(last);
        chosen
    }

    /// What comes next for somebody.
    fn part(&self, whose: Whose) -> Part<'_> {
        let (behind, next) = (&self.replay.behind, self.replay.progress.next);
        match whose {
            Whose::Most => Part { whose, behind, from: next, until: u64::MAX },
            Whose::One(endpoint) => {
                let from = behind.get(&endpoint).copied().unwrap_or(next);
                Part { whose, behind, from, until: self.next().unwrap_or(u64::MAX) }
            }
        }
    }

    /// Makes what is on record of a replay that was cancelled, and was maybe made before.
    async fn finish(&mut self) -> anyhow::Result<Step> {
        let left = Unfinished::read(&self.desk.log, (&self.replay, self.generation)).await;
        let left = left.context("read what was left behind")?.into_all();
        let mut given = Vec::with_capacity(left.len());
        for (place, targets) in left {
            let Some(sequence) = self.sequence_at(place) else { continue };
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

    /// The sequence of EVENTS that a place of the job stands for.
    fn sequence_at(&self, place: u64) -> Option<u64> {
        match &self.replay.scope {
            Scope::Only(past) => {
                past.get(usize::try_from(place).ok()?).map(|past| past.event_sequence)
            }
            Scope::Range(_) => Some(place),
        }
    }

    async fn begin_source(&self) -> anyhow::Result<Source> {
        let desk = Arc::clone(&self.desk);
        Source::of(desk, (&self.replay, self.generation), self.is_repeat).await
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

    /// Goes on reading with the next turn; now and then it says how it stands.
    async fn read_on(&mut self) -> anyhow::Result<Step> {
        if self.is_due() { self.save(Step::Went).await } else { Ok(Step::Went) }
    }

    /// Notes that a chunk is done.
    async fn note(&mut self, whose: Whose, chunk: &Chunk) -> anyhow::Result<Step> {
        let made: usize = chunk.given.iter().map(|given| given.targets.len()).sum();
        let Replay { scope, progress, behind, .. } = &mut self.replay;
        progress.looked_at += chunk.looked_at;
        progress.made += u64::try_from(made).unwrap_or(u64::MAX);
        match whose {
            Whose::Most => {
                progress.next = chunk.next;
                (self.is_through, self.went_at) = (chunk.is_last, Instant::now());
            }
            // It has met the others, or there is nothing left for it.
            Whose::One(endpoint) if chunk.is_last => {
                behind.remove(&endpoint);
            }
            Whose::One(endpoint) => {
                behind.insert(endpoint, chunk.next);
            }
        }
        if !self.is_through || !behind.is_empty() {
            return self.save(Step::Went).await;
        }
        let has_found_none = match scope {
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
