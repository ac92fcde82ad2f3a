//! What a replay is of, some events at a time.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{
    EndpointId, Replay, StoredEvent, TenantId,
    job::{Past, Range, Scope, Which},
};
use fanfare_event_log::feeds::Reach;

use super::{Desk, survey::Survey, writing::Given};
use crate::routes::{Matches, Routes};

/// The most events, or deliveries of a list, that are replayed between two writes of the job.
const CHUNK: usize = 64;

/// The most bytes of events that are read at once.
const BYTES_MAX: usize = 1 << 20;

/// How much later than its acceptance an event can be stored: replays end that much beyond.
const LATE: Duration = Duration::from_mins(1);

/// Some of a replay.
pub(super) struct Chunk {
    /// What is to be delivered.
    pub(super) given: Vec<Given>,
    /// How many events were looked at.
    pub(super) looked_at: u64,
    /// Where to go on.
    pub(super) next: u64,
    /// Whether this is all.
    pub(super) is_last: bool,
}

/// See the module.
pub(super) struct Source {
    desk: Arc<Desk>,
    tenant: TenantId,
    scope: Scope,
    /// The first sequence of EVENTS beyond the time.
    end: u64,
    survey: Option<Survey>,
}

impl Source {
    /// Finds out where the replay ends.
    pub(super) async fn of(desk: Arc<Desk>, replay: &Replay) -> anyhow::Result<Self> {
        let end = match &replay.scope {
            Scope::Only(past) => u64::try_from(past.len()).unwrap_or(u64::MAX),
            Scope::Range(range) => {
                let until = range.until.saturating_add(LATE);
                desk.log.first_event_at(until).await.context("find the last event")?
            }
        };
        let (tenant, scope) = (replay.tenant.clone(), replay.scope.clone());
        Ok(Self { desk, tenant, scope, end, survey: None })
    }

    /// Returns what comes from there on.
    pub(super) async fn next(&mut self, from: u64) -> anyhow::Result<Chunk> {
        match &self.scope {
            Scope::Only(past) => {
                let skipped = usize::try_from(from).unwrap_or(usize::MAX);
                let past: Vec<Past> = past.iter().skip(skipped).take(CHUNK).copied().collect();
                let next = from.saturating_add(u64::try_from(past.len()).unwrap_or_default());
                self.particular(past, next).await
            }
            Scope::Range(range) => {
                let range = range.clone();
                match range.which {
                    Which::Failed => self.failed(&range, from).await,
                    Which::All | Which::Missing => self.wanted(&range, from).await,
                }
            }
        }
    }

    /// Reads the events of particular deliveries. Those that are gone are left out.
    async fn particular(&self, past: Vec<Past>, next: u64) -> anyhow::Result<Chunk> {
        let looked_at = u64::try_from(past.len()).unwrap_or_default();
        let mut given: Vec<Given> = Vec::with_capacity(past.len());
        for Past { event: id, event_sequence, endpoint } in past {
            if let Some(last) = given.last_mut().filter(|last| last.event.event.id == id) {
                last.targets.push(endpoint);
                continue;
            }
            let event = self.desk.log.event(event_sequence).await.context("read an event")?;
            let ours =
                |event: &StoredEvent| event.event.id == id && event.event.tenant == self.tenant;
            let targets = vec![endpoint];
            given.extend(event.filter(ours).map(|event| Given { event, targets }));
        }
        Ok(Chunk { given, looked_at, next, is_last: next >= self.end })
    }

    /// What failed, by the facts about it.
    async fn failed(&mut self, range: &Range, from: u64) -> anyhow::Result<Chunk> {
        let survey = self.survey_from(range, from).await?;
        let (found, next) = survey.take_failed(CHUNK);
        let sequences: Vec<(u64, EndpointId)> = found;
        let mut past = Vec::with_capacity(sequences.len());
        for (event_sequence, endpoint) in sequences {
            let event = self.desk.log.event(event_sequence).await.context("read an event")?;
            let of = |event: StoredEvent| Past { event: event.event.id, event_sequence, endpoint };
            past.extend(event.map(of));
        }
        self.particular(past, next).await
    }

    /// What endpoints want as they are now, all of it or what they never had.
    async fn wanted(&mut self, range: &Range, from: u64) -> anyhow::Result<Chunk> {
        let (tenant, patterns) = (self.tenant.clone(), range.types.clone());
        let reach = Reach { tenant, patterns, from, count: CHUNK, bytes: BYTES_MAX };
        let batch = self.desk.log.read_feed(&reach).await.context("read events")?;
        let mut next = batch.next;
        let is_last = next >= self.end || (!batch.more && self.is_the_end(&reach, next).await?);
        let mut events = batch.events;
        events.retain(|event| event.sequence < self.end && is_in(range, event));
        if range.which == Which::Missing
            && let Some(last) = events.last().map(|event| event.sequence)
        {
            let covered = self.survey_from(range, from).await?.covers();
            if last >= covered {
                events.retain(|event| event.sequence < covered);
                next = covered;
            }
        }
        let looked_at = u64::try_from(events.len()).unwrap_or_default();
        let is_last = is_last && next >= batch.next;
        self.desk.routes.confirm().await.context("confirm the configuration")?;
        let given = self.chosen(range, events).await?;
        Ok(Chunk { given, looked_at, next, is_last })
    }

    /// Tells whether there is nothing more, by whoever leads the stream.
    async fn is_the_end(&self, reach: &Reach, from: u64) -> anyhow::Result<bool> {
        let first = self.desk.log.first_event(&reach.tenant, &reach.patterns, from).await;
        Ok(first.context("look for the next event")?.is_none_or(|first| first >= self.end))
    }

    /// Chooses the endpoints that want events.
    async fn chosen(&self, range: &Range, events: Vec<StoredEvent>) -> anyhow::Result<Vec<Given>> {
        let now = self.desk.clock.now();
        let matched = self.desk.routes.read(|routes: &Routes| {
            let of = |event: StoredEvent| {
                let mut matches = routes.of(&self.tenant, &event.event.event_type, now);
                if let Some(only) = range.endpoint {
                    matches.keep_only(only);
                }
                (event, matches)
            };
            events.into_iter().map(of).collect::<Vec<_>>()
        });
        let decided = self.desk.conditions.decide(matched).await?;
        let given = decided.into_iter().filter_map(|(event, Matches { mut targets, .. })| {
            if range.which == Which::Missing {
                let had = |endpoint: &EndpointId| {
                    self.survey.as_ref().is_some_and(|it| it.knows(event.sequence, *endpoint))
                };
                targets.retain(|endpoint| !had(endpoint));
            }
            (!targets.is_empty()).then_some(Given { event, targets })
        });
        Ok(given.collect())
    }

    /// What is on record from there on; read again where what was read does not go that far.
    async fn survey_from(&mut self, range: &Range, from: u64) -> anyhow::Result<&mut Survey> {
        let reaches = |survey: &Survey| survey.covers() > from || survey.covers() >= self.end;
        if !self.survey.as_ref().is_some_and(reaches) {
            let about = (&self.tenant, range);
            let survey = Survey::read(&self.desk.log, about, (from, self.end)).await;
            self.survey = Some(survey.context("read what is on record")?);
        }
        self.survey.as_mut().context("it was just read")
    }
}

/// Tells whether an event was accepted in the time, and is of a type that is meant.
fn is_in(range: &Range, event: &StoredEvent) -> bool {
    let event = &event.event;
    range.covers(event.id.time(), &event.event_type)
}
