//! What a replay is of, some events at a time.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{
    Replay, StoredEvent, TenantId, chain,
    job::{Past, Range, Scope, Which},
};
use fanfare_event_log::{ReadError, feeds::Reach};
use tracing::error;

use super::{
    Desk,
    pace::{Behind, OPEN_MAX, Part, Whose},
    surveys::Surveys,
    unfinished::Unfinished,
    writing::Given,
};
use crate::routes::{Matches, Routes};

/// The most events, or about so many deliveries of a list, that are replayed between two writes of
/// the job. Events that many endpoints want are fewer: see [`until_enough`].
const CHUNK: usize = 64;

/// The most bytes of events that are read at once.
const BYTES_MAX: usize = 1 << 20;

/// How much later than its acceptance an event can be stored: replays end that much beyond.
const LATE: Duration = Duration::from_mins(1);

/// Some of a replay.
pub(super) struct Chunk {
    /// What is to be delivered.
    pub(super) given: Vec<Given>,
    /// How many events were looked at that nobody has looked at before.
    pub(super) looked_at: u64,
    /// Where to go on.
    pub(super) next: u64,
    /// Whether this is all of the part.
    pub(super) is_last: bool,
}

/// What comes next.
pub(super) enum Next {
    /// This.
    Chunk(Chunk),
    /// That cannot be told before more events are routed.
    NotRouted,
    /// That cannot be told before more of the journal is read.
    Unread,
}

/// See the module.
pub(super) struct Source {
    desk: Arc<Desk>,
    tenant: TenantId,
    scope: Scope,
    generation: u32,
    /// The first sequence of EVENTS beyond the time.
    end: u64,
    /// Whether every event before that is known to be routed.
    is_routed: bool,
    surveys: Surveys,
    unfinished: Unfinished,
}

impl Source {
    /// Finds out where the replay ends; and what was left behind by who was interrupted, if somebody
    /// may have been.
    pub(super) async fn of(
        desk: Arc<Desk>,
        (replay, generation): (&Replay, u32),
        is_repeat: bool,
    ) -> anyhow::Result<Self> {
        let (tenant, scope) = (replay.tenant.clone(), replay.scope.clone());
        let end = match &scope {
            Scope::Only(past) => past.len().try_into().unwrap_or(u64::MAX),
            Scope::Range(range) => {
                let until = range.until.saturating_add(LATE);
                desk.log.first_event_at(until).await.context("find the last event")?
            }
        };
        let unfinished = if is_repeat {
            let read = Unfinished::read(&desk.log, (replay, generation)).await;
            read.context("read what was left behind")?
        } else {
            Unfinished::default()
        };
        let (is_routed, surveys) = (false, Surveys::default());
        Ok(Self { desk, tenant, scope, generation, end, is_routed, surveys, unfinished })
    }

    /// How many deliveries are remembered of those that are on record.
    pub(super) fn surveyed(&self) -> usize {
        self.surveys.len()
    }

    /// Whether more of them are being read.
    pub(super) fn is_reading(&self) -> bool {
        self.surveys.is_reading()
    }

    /// Forgets them.
    pub(super) fn forget_survey(&mut self) {
        self.surveys = Surveys::default();
    }

    /// Tells whether something is left to be made again that was left behind.
    pub(super) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Who something of what was left behind is for.
    pub(super) fn unfinished(&self, behind: &Behind) -> Option<Whose> {
        self.unfinished.whose(behind)
    }

    /// Returns what comes next of a part.
    pub(super) async fn next(&mut self, part: &Part<'_>) -> anyhow::Result<Next> {
        let range = match &self.scope {
            Scope::Only(list) => {
                let (named, next) = listed(list, part);
                let chunk = self.particular(named, next, part).await?;
                // What is in a list is the same each time.
                self.unfinished.take_below(chunk.next, part);
                return Ok(Next::Chunk(chunk));
            }
            Scope::Range(range) => range.clone(),
        };
        let chunk = match range.which {
            Which::Failed | Which::Exhausted => self.failed(&range, part).await?,
            Which::Missing if !self.is_routed().await? => return Ok(Next::NotRouted),
            Which::All | Which::Missing => self.wanted(&range, part).await?,
        };
        let Some(mut chunk) = chunk else { return Ok(Next::Unread) };
        self.finish(&mut chunk, part).await?;
        Ok(Next::Chunk(chunk))
    }

    /// Tells whether everything is routed that may be replayed: what is not on record yet is not
    /// missing, it is on its way.
    async fn is_routed(&mut self) -> anyhow::Result<bool> {
        if !self.is_routed {
            let routed = self.desk.log.routed_until().await.context("find what is routed")?;
            self.is_routed = routed.saturating_add(1) >= self.end;
        }
        Ok(self.is_routed)
    }

    /// Adds what was left behind of the events of a chunk.
    async fn finish(&mut self, chunk: &mut Chunk, part: &Part<'_>) -> anyhow::Result<()> {
        let below = if chunk.is_last { u64::MAX } else { chunk.next };
        for (sequence, targets) in self.unfinished.take_below(below, part) {
            let place = chunk.given.binary_search_by_key(&sequence, |given| given.event.sequence);
            match place {
                Ok(found) => {
                    let Some(given) = chunk.given.get_mut(found) else { continue };
                    given.targets.extend(targets);
                    given.targets.sort_unstable();
                    given.targets.dedup();
                }
                Err(place) => {
                    let targets = targets.into_iter().collect();
                    let event = self.desk.event(sequence).await.context("read an event")?;
                    if let Some(event) = event {
                        chunk.given.insert(place, Given { event, targets });
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the events of particular deliveries. Those that are gone are left out.
    async fn particular(
        &self,
        named: Vec<Past>,
        next: u64,
        part: &Part<'_>,
    ) -> anyhow::Result<Chunk> {
        let looked_at = u64::try_from(named.len()).unwrap_or_default();
        let mut given: Vec<Given> = Vec::with_capacity(named.len());
        for Past { event: id, event_sequence, endpoint } in named {
            if let Some(last) = given.last_mut().filter(|last| last.event.event.id == id) {
                last.targets.push(endpoint);
                continue;
            }
            let event = self.desk.event(event_sequence).await.context("read an event")?;
            let ours =
                |event: &StoredEvent| event.event.id == id && event.event.tenant == self.tenant;
            let targets = vec![endpoint];
            given.extend(event.filter(ours).map(|event| Given { event, targets }));
        }
        Ok(Chunk { given, looked_at, next, is_last: next >= self.end.min(part.until) })
    }

    /// What failed, by the facts about it; `None` as long as they are being read.
    async fn failed(&mut self, range: &Range, part: &Part<'_>) -> anyhow::Result<Option<Chunk>> {
        if !self.look(range, part).await? {
            return Ok(None);
        }
        let survey = self.surveys.get_mut(part).context("it was just read")?;
        let (found, next) = survey.take_failed(part, CHUNK);
        let mut named = Vec::with_capacity(found.len());
        for (event_sequence, endpoint) in found {
            let event = self.desk.event(event_sequence).await.context("read an event")?;
            let of = |event: StoredEvent| Past { event: event.event.id, event_sequence, endpoint };
            named.extend(event.map(of));
        }
        self.particular(named, next, part).await.map(Some)
    }

    /// What endpoints want as they are now, all of it or what they never had; `None` as long as it is
    /// being read what they had.
    async fn wanted(&mut self, range: &Range, part: &Part<'_>) -> anyhow::Result<Option<Chunk>> {
        let (tenant, patterns, from) = (self.tenant.clone(), range.types.clone(), part.from);
        let reach = Reach { tenant, patterns, from, count: CHUNK, bytes: BYTES_MAX };
        let batch = self.desk.log.read_feed(&reach).await.context("read events")?;
        let (mut next, end) = (batch.next, self.end.min(part.until));
        let is_last = next >= end || (!batch.more && self.is_the_end(&reach, (next, end)).await?);
        let mut events = batch.events;
        events.retain(|event| event.sequence < end && is_in(range, event));
        if range.which == Which::Missing
            && let Some(last) = events.last().map(|event| event.sequence)
        {
            if !self.look(range, part).await? {
                return Ok(None);
            }
            let covered = self.surveys.get(part).context("it was just read")?.covers();
            if last >= covered {
                events.retain(|event| event.sequence < covered);
                next = covered;
            }
        }
        let is_last = is_last && next >= batch.next;
        self.desk.routes.confirm().await.context("confirm the configuration")?;
        let (matched, left) = self.matched(range, part, events);
        let looked_at = match part.whose {
            Whose::Most => u64::try_from(matched.len()).unwrap_or_default(),
            Whose::One(_) => 0,
        };
        let given = self.chosen(range, part, matched).await?;
        let is_last = is_last && left.is_none();
        let next = left.unwrap_or(next).min(part.until);
        Ok(Some(Chunk { given, looked_at, next, is_last }))
    }

    /// Tells whether there is nothing more from there on, by whoever leads the stream.
    async fn is_the_end(&self, reach: &Reach, (from, end): (u64, u64)) -> anyhow::Result<bool> {
        let first = self.desk.log.first_event(&reach.tenant, &reach.patterns, from).await;
        Ok(first.context("look for the next event")?.is_none_or(|first| first >= end))
    }

    /// Finds the endpoints that may want events, of as many events as are enough for a turn; and the
    /// sequence of the first one that is left.
    fn matched(
        &self,
        range: &Range,
        part: &Part<'_>,
        events: Vec<StoredEvent>,
    ) -> (Vec<(StoredEvent, Matches)>, Option<u64>) {
        let now = self.desk.clock.now();
        let of = |event: StoredEvent| {
            let of = |routes: &Routes| routes.of(&self.tenant, &event.event.event_type, now);
            let mut matches = self.desk.routes.read(of);
            let only = range.endpoint;
            matches.keep(|it| only.is_none_or(|only| only == it) && part.has(it));
            self.leave_out_had(range, part, &event, &mut matches);
            let count = matches.targets.len() + matches.asking.len();
            ((event, matches), count)
        };
        let (matched, left) = until_enough(events.into_iter().map(of), OPEN_MAX);
        (matched, left.map(|(event, _)| event.sequence))
    }

    /// Leaves out endpoints that had an event, if it is about what is missing.
    fn leave_out_had(
        &self,
        range: &Range,
        part: &Part<'_>,
        event: &StoredEvent,
        matches: &mut Matches,
    ) {
        if range.which == Which::Missing
            && let Some(survey) = self.surveys.get(part)
        {
            matches.targets.retain(|endpoint| !survey.knows(event.sequence, *endpoint));
        }
    }

    /// Chooses the endpoints that want events.
    async fn chosen(
        &self,
        range: &Range,
        part: &Part<'_>,
        matched: Vec<(StoredEvent, Matches)>,
    ) -> anyhow::Result<Vec<Given>> {
        let decided = self.desk.conditions.decide(matched).await?;
        let given = decided.into_iter().filter_map(|(event, mut matches)| {
            self.leave_out_had(range, part, &event, &mut matches);
            let targets = matches.targets;
            (!targets.is_empty()).then_some(Given { event, targets })
        });
        Ok(given.collect())
    }

    /// Reads what is on record about what comes next of a part, where that is not known; tells whether
    /// it is by now.
    async fn look(&mut self, range: &Range, part: &Part<'_>) -> anyhow::Result<bool> {
        let about = (&self.tenant, range, self.generation);
        let read = self.surveys.read(&self.desk.log, about, (part, self.end));
        read.await.context("read what is on record")
    }
}

impl Desk {
    /// Reads an event; `None` if it is gone. One that nobody can read is passed over with an error in
    /// the log, as everywhere.
    pub(super) async fn event(&self, sequence: u64) -> Result<Option<StoredEvent>, ReadError> {
        match self.log.event(sequence).await {
            Err(ReadError::Unreadable { source, .. }) if !source.is_from_newer_version() => {
                error!(error = chain(&source), sequence, "an event cannot be read");
                Ok(None)
            }
            read => read,
        }
    }
}

/// Takes items until they have so many deliveries together: one item at least, however many it has.
/// Also returns the first that is left.
fn until_enough<T>(items: impl Iterator<Item = (T, usize)>, enough: usize) -> (Vec<T>, Option<T>) {
    let (mut taken, mut count) = (Vec::new(), 0);
    for (item, deliveries) in items {
        if count >= enough {
            return (taken, Some(item));
        }
        count += deliveries;
        taken.push(item);
    }
    (taken, None)
}

/// What comes next of a part in a list, and where to go on.
fn listed(list: &[Past], part: &Part<'_>) -> (Vec<Past>, u64) {
    let place = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(list.len());
    let some = some_of(list.get(place(part.from)..place(part.until)).unwrap_or_default());
    let next = part.from.saturating_add(u64::try_from(some.len()).unwrap_or_default());
    (some.iter().filter(|past| part.has(past.endpoint)).copied().collect(), next)
}

/// The first deliveries of a list, about so many as a chunk has: those of one event that stand
/// together stay so.
fn some_of(list: &[Past]) -> &[Past] {
    let mut events = list.chunk_by(|one, other| one.event == other.event);
    let mut count = 0;
    while count < CHUNK
        && let Some(event) = events.next()
    {
        count += event.len();
    }
    list.get(..count).unwrap_or(list)
}

/// Tells whether an event was accepted in the time, and is of a type that is meant.
fn is_in(range: &Range, event: &StoredEvent) -> bool {
    let event = &event.event;
    range.covers(event.id.time(), &event.event_type)
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{EndpointId, EventId, Timestamp};

    use super::*;

    fn past(event: u64, endpoint: u8) -> Past {
        let id = EventId::of_message("test", event, Timestamp::EPOCH);
        let endpoint = EndpointId::from_bytes([endpoint; 16]);
        Past { event: id, event_sequence: event, endpoint }
    }

    #[test]
    fn deliveries_of_one_event_are_replayed_together() {
        let list: Vec<Past> = (0..130)
            .map(|to| past(1, to))
            .chain((0..60).map(|event| past(2 + event, 1)))
            .chain((0..10).map(|to| past(99, to)))
            .collect();
        let mut chunks = Vec::new();
        let mut left = &list[..];
        while !left.is_empty() {
            let some = some_of(left);
            chunks.push(some.len());
            left = &left[some.len()..];
        }
        assert_eq!(chunks, [130, 70]);
        assert!(some_of(&[]).is_empty());
    }

    #[test]
    fn a_turn_has_as_many_events_as_have_enough_deliveries_and_one_at_least() {
        let of = |counts: &[usize]| {
            let items = counts.iter().copied().enumerate();
            until_enough(items, 256)
        };
        assert_eq!(of(&[200, 55, 1, 1]), (vec![0, 1, 2], Some(3)));
        assert_eq!(of(&[10_000, 1]), (vec![0], Some(1)));
        assert_eq!(of(&[0, 0, 256]), (vec![0, 1, 2], None));
        assert_eq!(of(&[]), (vec![], None));
    }
}
