//! Looking for ids in a stream: what a suspect message may have caused already.

mod ids;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_nats::header::NATS_MESSAGE_ID;
use fanfare_domain::{EventId, Fact, StoredEvent, TenantId, Timestamp, chain, fact::EventRouted};
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tracing::warn;

pub use self::ids::EventIds;
use crate::{
    EventLog, ReadError,
    log::{Which, timestamp},
    read::{Numbered, Ordered, Selection, Start},
    topology::Stream,
};

/// How much earlier than asked a look begins: clocks of servers differ.
const MARGIN: Duration = Duration::from_secs(1);
/// After how long without a message to ask again how far to go.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What is on record of an event that was routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// All parts merged into one fact.
    pub routed: EventRouted,
    /// The sequence of its first part in the journal.
    pub sequence: u64,
    /// When its first part was recorded.
    pub recorded_at: Timestamp,
}

impl EventLog {
    /// Which of these events are in EVENTS, of any tenant or of one, stored at `since` or later.
    /// Reads headers only, one pass to the stream's end as of the call, or until all are found: for
    /// many questions there are [`EventIds`].
    pub async fn events_on_record(
        &self,
        wanted: &BTreeSet<EventId>,
        since: Timestamp,
        tenant: Option<&TenantId>,
    ) -> Result<BTreeSet<EventId>, ReadError> {
        let mut found = BTreeSet::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        let topology = self.topology();
        let subjects = match tenant {
            Some(tenant) => vec![topology.events_of(tenant)],
            None => topology.subjects(Stream::Events),
        };
        let selection = Selection { stream: Stream::Events, subjects, headers_only: true };
        self.pass(selection, since, |numbered| {
            found.extend(event_id(numbered).filter(|id| wanted.contains(id)));
            found.len() < wanted.len()
        })
        .await?;
        Ok(found)
    }

    /// The event of a tenant with this id, if it was stored at `since` or later. Reads headers from
    /// then on until it is found: give it a time close to the event's.
    pub async fn event_on_record(
        &self,
        tenant: &TenantId,
        id: EventId,
        since: Timestamp,
    ) -> Result<Option<StoredEvent>, ReadError> {
        let subject = self.topology().events_of(tenant);
        match self.find_id(Stream::Events, &subject, &id.to_string(), since).await? {
            Some(sequence) => self.event(sequence).await,
            None => Ok(None),
        }
    }

    /// The recorded routing of these events (events with parts missing are left out), looked for
    /// in `journal.routed` from `since` on, in so many messages at most. Of an event that was
    /// routed twice, the first routing counts.
    pub async fn routed_on_record(
        &self,
        wanted: &BTreeSet<(EventId, u32)>,
        since: Timestamp,
        messages_max: usize,
    ) -> Result<BTreeMap<(EventId, u32), Routing>, ReadError> {
        let mut routings = Routings::default();
        if wanted.is_empty() || messages_max == 0 {
            return Ok(routings.whole);
        }
        let subjects = vec![self.topology().routed()];
        let selection = Selection { stream: Stream::Journal, subjects, headers_only: false };
        let mut messages = 0;
        self.pass(selection, since, |numbered| {
            messages += 1;
            match fanfare_proto::decode_journal(numbered.message.payload.clone()) {
                Ok(records) => {
                    for record in records {
                        if let Fact::EventRouted(routed) = record.fact
                            && wanted.contains(&(routed.event, routed.generation))
                        {
                            let (sequence, recorded_at) = (numbered.sequence, record.recorded_at);
                            routings.add(Routing { routed, sequence, recorded_at });
                        }
                    }
                }
                // Whoever folds the journal sets it aside.
                Err(error) => {
                    warn!(error = chain(&error), numbered.sequence, "passed over a batch of facts");
                }
            }
            routings.whole.len() < wanted.len() && messages < messages_max
        })
        .await?;
        Ok(routings.whole)
    }

    /// Where a message with this id is, under this subject, stored at `since` or later.
    pub(crate) fn find_id<'a>(
        &'a self,
        stream: Stream,
        subject: &'a str,
        id: &'a str,
        since: Timestamp,
    ) -> BoxFuture<'a, Result<Option<u64>, ReadError>> {
        Box::pin(async move {
            let mut found = None;
            let subjects = vec![subject.to_owned()];
            let selection = Selection { stream, subjects, headers_only: true };
            self.pass(selection, since, |numbered| {
                if message_id(numbered) == Some(id) {
                    found = Some(numbered.sequence);
                }
                found.is_none()
            })
            .await?;
            Ok(found)
        })
    }

    /// Shows each message that is there as of the call, until `look` has seen enough.
    async fn pass(
        &self,
        selection: Selection,
        since: Timestamp,
        look: impl FnMut(&Numbered) -> bool,
    ) -> Result<(), ReadError> {
        let mut pass = Pass::new(self, selection, since);
        let shown = pass.go_on(self, look).await;
        pass.close().await;
        shown
    }

    /// The last sequence under the selection's subjects; 0 if nothing was stored since `start`.
    pub(crate) async fn last_of(
        &self,
        selection: &Selection,
        start: Timestamp,
    ) -> Result<u64, ReadError> {
        let mut last = 0;
        for subject in &selection.subjects {
            let found = self.get(selection.stream, Which::Last(subject)).await?;
            let found = found.filter(|message| timestamp(message.time) >= start);
            last = last.max(found.map_or(0, |message| message.sequence));
        }
        Ok(last)
    }
}

/// Goes through a stream once, with a rest wherever its end is reached.
struct Pass {
    messages: Ordered,
    selection: Selection,
    start: Timestamp,
    reached: u64,
}

impl Pass {
    fn new(log: &EventLog, selection: Selection, since: Timestamp) -> Self {
        let start = since.saturating_sub(MARGIN);
        let messages = Ordered::new(log, selection.clone(), Start::Time(start));
        Self { messages, selection, start, reached: 0 }
    }

    /// Shows each further message that is there as of the call, until `look` has seen enough. Cancel
    /// safe: what was shown is not shown again.
    async fn go_on(
        &mut self,
        log: &EventLog,
        mut look: impl FnMut(&Numbered) -> bool,
    ) -> Result<(), ReadError> {
        // By the leader: the messages themselves come from a replica that may lag behind.
        let mut end = log.last_of(&self.selection, self.start).await?;
        while self.reached < end {
            let Ok(next) = timeout(ASK_AGAIN, self.messages.next()).await else {
                // The end may have aged out meanwhile.
                end = end.min(log.last_of(&self.selection, self.start).await?);
                continue;
            };
            let numbered = next?;
            self.reached = numbered.sequence;
            if !look(&numbered) {
                break;
            }
        }
        Ok(())
    }

    async fn close(self) {
        self.messages.close().await;
    }
}

fn event_id(numbered: &Numbered) -> Option<EventId> {
    message_id(numbered).and_then(|id| id.parse().ok())
}

fn message_id(numbered: &Numbered) -> Option<&str> {
    numbered.message.headers.as_ref()?.get(NATS_MESSAGE_ID).map(async_nats::HeaderValue::as_str)
}

/// Routings put together from their parts.
#[derive(Default)]
struct Routings {
    whole: BTreeMap<(EventId, u32), Routing>,
    /// By event, generation, revision and number of parts: two routings of one event may lie
    /// between each other.
    parts: BTreeMap<(EventId, u32, u64, u32), Parts>,
}

/// By their number.
type Parts = BTreeMap<u32, Routing>;

impl Routings {
    fn add(&mut self, part: Routing) {
        let routed = &part.routed;
        let event = (routed.event, routed.generation);
        if self.whole.contains_key(&event) {
            return;
        }
        let count = routed.parts;
        let key = (routed.event, routed.generation, routed.config_revision, count);
        let parts = self.parts.entry(key).or_default();
        parts.entry(routed.part).or_insert(part);
        if parts.len() < usize::try_from(count).unwrap_or(usize::MAX) {
            return;
        }
        let merged = self.parts.remove(&key).unwrap_or_default().into_values().reduce(merge);
        self.whole.extend(merged.map(|merged| (event, merged)));
    }
}

fn merge(mut all: Routing, Routing { routed: part, sequence, recorded_at }: Routing) -> Routing {
    let whole = &mut all.routed;
    whole.targets.extend(part.targets);
    whole.skipped.extend(part.skipped);
    whole.held.extend(part.held);
    whole.fed.extend(part.fed);
    whole.part = 0;
    whole.parts = 1;
    all.sequence = all.sequence.min(sequence);
    all.recorded_at = all.recorded_at.min(recorded_at);
    all
}

#[cfg(test)]
mod tests {
    use fanfare_domain::EndpointId;

    use super::*;

    fn part(part: u32, parts: u32, revision: u64, sequence: u64) -> Routing {
        let now = Timestamp::from_millis(1);
        let routed = EventRouted {
            event: EventId::new(now, [1; 10]),
            tenant: "acme".parse().unwrap(),
            event_sequence: 1,
            config_revision: revision,
            generation: 0,
            targets: vec![EndpointId::new(now, [u8::try_from(part).unwrap(); 10])],
            skipped: Vec::new(),
            held: Vec::new(),
            fed: Vec::new(),
            part,
            parts,
        };
        let recorded_at = Timestamp::from_millis(100 + sequence);
        Routing { routed, sequence, recorded_at }
    }

    #[test]
    fn parts_are_merged_in_their_order_once_all_are_there() {
        let mut routings = Routings::default();
        routings.add(part(1, 2, 5, 11));
        routings.add(part(1, 2, 5, 12));
        assert!(routings.whole.is_empty());
        routings.add(part(0, 2, 5, 13));
        let Routing { routed, sequence, recorded_at } = routings.whole.values().next().unwrap();
        let expected = [part(0, 2, 5, 13), part(1, 2, 5, 11)].map(|part| part.routed.targets[0]);
        assert_eq!(routed.targets, expected);
        assert_eq!((routed.part, routed.parts, *sequence), (0, 1, 11));
        assert_eq!(*recorded_at, Timestamp::from_millis(111));
    }

    #[test]
    fn of_two_routings_the_first_whole_one_counts() {
        let mut routings = Routings::default();
        routings.add(part(0, 2, 5, 11));
        routings.add(part(0, 1, 6, 12));
        routings.add(part(1, 2, 5, 13));
        let whole = routings.whole.values().next().unwrap();
        assert_eq!((whole.routed.config_revision, whole.sequence), (6, 12));
    }
}
