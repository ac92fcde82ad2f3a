//! Tells operators: exhausted deliveries to DEAD, and operational events.
//!
//! Both have ids that are made from what they tell of. What an earlier run may have told of
//! longer ago than the servers know ids again is looked for in EVENTS first.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use fanfare_domain::{EndpointId, Event, EventId, SpanId, Timestamp, TraceContext};
use fanfare_event_log::{PublishError, Publisher, ReadError, Stored};
use fanfare_service::delivery_line;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tracing::warn;

use super::{Desk, Tools, jobs::Done};
use crate::{
    agenda::Exhausted,
    directory::{Directory, Known},
    notices,
};

/// The most exhausted deliveries that are told of in one go.
const TOLD_MAX: usize = 256;
/// How many messages are on their way at once.
const WRITES_MAX: usize = 64;
/// How far the clocks of two machines may be apart.
const SKEW: Duration = Duration::from_mins(1);

/// What operators are told of beside exhausted deliveries.
#[derive(Default)]
pub(super) struct News {
    /// The last revision of CONFIG that disabled one of the endpoints, or made one of the keys.
    revision: Option<u64>,
    /// The endpoints that fail, and since when.
    failing: Vec<(EndpointId, Timestamp)>,
}

/// What is to be told.
pub(super) struct Telling {
    queue: VecDeque<Exhausted>,
    running: usize,
    announcing: bool,
    /// What happened before may have been told of, by an earlier run or an attempt that failed.
    suspect_before: Timestamp,
}

/// Operators could not be told now.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error("look for what was told before")]
    Unreadable(#[from] ReadError),
    #[error("write what is to be told")]
    Unwritten(#[from] PublishError),
}

impl Telling {
    /// Begins with nothing to tell, at an instant.
    pub(super) fn new(suspect_before: Timestamp) -> Self {
        Self { queue: VecDeque::new(), running: 0, announcing: false, suspect_before }
    }

    /// Adds an exhausted delivery.
    pub(super) fn push(&mut self, told: Exhausted) {
        self.queue.push_back(told);
    }

    /// Returns how many deliveries are not told of.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.running
    }

    /// Notes that what was being told is done, or failed: then some of it may have been told.
    pub(super) fn end(&mut self, told: bool, now: Timestamp) {
        self.running = 0;
        if !told {
            self.suspect_before = now;
        }
    }
}

impl Desk {
    /// Starts to tell of exhausted deliveries, if there are any and nobody is told just now.
    pub(super) fn start_telling(&mut self) {
        if self.telling.running > 0 || self.telling.queue.is_empty() {
            return;
        }
        let count = self.telling.queue.len().min(TOLD_MAX);
        let chosen: Vec<_> = self.telling.queue.drain(..count).collect();
        self.telling.running = count;
        let suspect_before = self.telling.suspect_before;
        self.jobs.spawn(tell(self.tools.clone(), chosen, suspect_before));
    }

    /// Starts to tell of endpoints that are disabled or fail, and of keys that were made, if there are
    /// any of which nobody was told. Keys are the first shard's to tell of.
    pub(super) fn announce(&mut self) {
        if self.telling.announcing {
            return;
        }
        let operator = &self.tools.settings.operator_tenant;
        let (count, shard, after) = (self.tools.log.shards(), self.shard, self.agenda.announced);
        let health = &self.agenda.health;
        let (events, news, last) = self.tools.view.read(|directory| {
            let (mut events, mut news) = (Vec::new(), News::default());
            let disabled = directory.disabled_after(after);
            for known in disabled.filter(|known| count.of(known.id) == shard) {
                news.revision = news.revision.max(Some(disabled_by(known)));
                events.extend(notices::disabled(operator, known));
            }
            for known in directory.keys_after(after).filter(|_| shard.index() == 0) {
                news.revision = news.revision.max(Some(known.revision));
                events.extend(notices::key_created(operator, known));
            }
            for (known, streak) in health.alarming(directory).take(TOLD_MAX) {
                news.failing.push((known.id, streak.first_at));
                events.extend(notices::failing(operator, known, &streak));
            }
            if !directory.has_tenant(operator) {
                events.clear();
            }
            (events, news, directory.disabled_last().max(directory.keys_last()))
        });
        if news.revision.is_none() {
            // So that the same ones are not looked through again.
            self.agenda.announced = after.max(last);
        }
        if news.revision.is_none() && news.failing.is_empty() {
            return;
        }
        self.telling.announcing = true;
        let suspect_before = self.telling.suspect_before;
        self.jobs.spawn(announce(self.tools.clone(), events, news, suspect_before));
    }

    /// Notes of what operators were told.
    pub(super) fn announced(&mut self, told: Option<News>) {
        self.telling.announcing = false;
        let Some(News { revision, failing }) = told else {
            self.telling.suspect_before = self.tools.now();
            return;
        };
        self.agenda.announced = self.agenda.announced.max(revision.unwrap_or_default());
        for (endpoint, first_at) in failing {
            self.agenda.health.told(endpoint, first_at);
        }
        self.saved.note_change();
    }
}

fn disabled_by(known: &Known) -> u64 {
    known.disabled.as_ref().map_or(0, |how| how.revision)
}

async fn announce(
    tools: Tools,
    events: Vec<Event>,
    news: News,
    suspect_before: Timestamp,
) -> anyhow::Result<Done> {
    match publish(&tools, events, suspect_before).await {
        Ok(()) => Ok(Done::Announced { told: Some(news) }),
        Err(error) => {
            let error = anyhow::Error::new(error);
            warn!(error = format!("{error:#}"), "operators cannot be told of endpoints and keys");
            Ok(Done::Announced { told: None })
        }
    }
}

async fn tell(
    tools: Tools,
    chosen: Vec<Exhausted>,
    suspect_before: Timestamp,
) -> anyhow::Result<Done> {
    let causes = chosen.iter().map(|told| (told.sequence, told.delivery.id)).collect();
    let told = match tell_all(&tools, &chosen, suspect_before).await {
        Ok(()) => true,
        Err(error) => {
            let error = anyhow::Error::new(error);
            warn!(error = format!("{error:#}"), "operators cannot be told of exhausted deliveries");
            false
        }
    };
    Ok(Done::Told { causes, told })
}

async fn tell_all(
    tools: &Tools,
    chosen: &[Exhausted],
    suspect_before: Timestamp,
) -> Result<(), NotTold> {
    let chosen: Vec<&Exhausted> = tools.view.read(|directory: &Directory| {
        chosen.iter().filter(|told| !directory.is_expunged(&told.delivery)).collect()
    });
    let write = |told: &&Exhausted| bury(tools.publisher.clone(), (*told).clone());
    all(chosen.iter().map(write).collect()).await?;
    let operator = &tools.settings.operator_tenant;
    if tools.view.read(|directory: &Directory| directory.has_tenant(operator)) {
        let events = chosen.iter().filter_map(|told| notices::exhausted(operator, told));
        publish(tools, events.collect(), suspect_before).await?;
    }
    // What is told again because not all of it could be written is said once.
    for told in chosen {
        note(told);
        tools.afterwards.take(told);
    }
    Ok(())
}

/// Says in the log that a delivery is exhausted, and with what.
fn note(told: &Exhausted) {
    let last = told.facts.iter().rev().find_map(|record| record.fact.attempt_made());
    let none = TraceContext::default();
    let trace = told.facts.last().map_or(&none, |record| &record.trace);
    delivery_line!(
        info,
        (told.delivery, *trace),
        "a delivery is exhausted",
        attempt = last.map(|made| made.attempt),
        span_id = last.map(|made| display(SpanId::attempt(made.delivery.id, made.attempt))),
        status = last.and_then(|made| made.outcome.status()),
    );
}

/// Publishes events of the operator's tenant, but for those that an earlier run has published.
async fn publish(
    tools: &Tools,
    events: Vec<Event>,
    suspect_before: Timestamp,
) -> Result<(), NotTold> {
    let suspects = || events.iter().filter(|event| event.occurred_at < suspect_before);
    let wanted: BTreeSet<EventId> = suspects().map(|event| event.id).collect();
    let oldest = suspects().map(|event| event.occurred_at).min();
    let known = match oldest {
        Some(oldest) => {
            let operator = Some(&tools.settings.operator_tenant);
            let since = oldest.saturating_sub(SKEW);
            tools.log.events_on_record(&wanted, since, operator).await?
        }
        None => BTreeSet::new(),
    };
    let new = events.into_iter().filter(|event| !known.contains(&event.id));
    all(new.map(|event| write(tools.publisher.clone(), event)).collect()).await?;
    Ok(())
}

async fn bury(publisher: Publisher, told: Exhausted) -> Result<Stored, PublishError> {
    publisher.dead(&told.delivery, &told.facts).await?.stored().await
}

async fn write(publisher: Publisher, event: Event) -> Result<Stored, PublishError> {
    publisher.event(&event).await?.stored().await
}

/// Waits for all writes, some of them at a time.
async fn all<W>(writes: Vec<W>) -> Result<(), PublishError>
where
    W: Future<Output = Result<Stored, PublishError>>,
{
    let writes = stream::iter(writes).buffer_unordered(WRITES_MAX);
    writes.try_for_each(|_| std::future::ready(Ok(()))).await
}
