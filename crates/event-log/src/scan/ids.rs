//! The ids of stored events, read once for many questions.
//!
//! Whoever comes back after a stop has to ask for each message that waited whether it was written
//! before. Asked batch by batch, each time from the messages' time to the stream's end, that costs
//! the square of what waits. Questions move on in time, as the messages do: so this reads on from
//! where the last question ended, and keeps of the ids only those that can still be asked for.

use std::collections::BTreeSet;

use fanfare_domain::{EventId, Timestamp};

use super::{Pass, event_id};
use crate::{EventLog, ReadError, read::Selection, topology::Stream};

/// How many ids are kept, of some 40 bytes each. Where there are more to keep, which takes an old
/// message among many new ones, a question is a pass of its own.
const KEPT_MAX: usize = 500_000;

/// Tells which events are in EVENTS, for questions that move on in time.
pub struct EventIds {
    log: EventLog,
    kept_max: usize,
    reading: Option<Reading>,
}

struct Reading {
    pass: Pass,
    since: Timestamp,
    ids: Ids,
}

/// What was read and can still be asked for.
struct Ids {
    kept: BTreeSet<EventId>,
    /// Ids below this one are not kept.
    from: EventId,
}

impl EventLog {
    /// Begins to tell which events are in EVENTS; nothing is read yet.
    pub fn event_ids(&self) -> EventIds {
        EventIds { log: self.clone(), kept_max: KEPT_MAX, reading: None }
    }
}

impl EventIds {
    /// Which of these events are in EVENTS, stored at `since` or later, as of the call.
    ///
    /// Cancel safe: what was read is kept.
    pub async fn on_record(
        &mut self,
        wanted: &BTreeSet<EventId>,
        since: Timestamp,
    ) -> Result<BTreeSet<EventId>, ReadError> {
        let Some(lowest) = wanted.first().copied() else { return Ok(BTreeSet::new()) };
        if !self.reading.as_ref().is_some_and(|reading| reading.covers(lowest, since)) {
            self.rest().await;
        }
        let log = &self.log;
        let reading = self.reading.get_or_insert_with(|| Reading::new(log, lowest, since));
        reading.ids.forget_below(lowest);
        if wanted.is_subset(&reading.ids.kept) {
            return Ok(wanted.clone());
        }
        let Reading { pass, ids, .. } = reading;
        let kept_max = self.kept_max;
        pass.go_on(&self.log, |numbered| {
            ids.note(event_id(numbered));
            ids.kept.len() <= kept_max
        })
        .await?;
        if reading.ids.kept.len() > kept_max {
            self.rest().await;
            return self.log.events_on_record(wanted, since, None).await;
        }
        Ok(wanted.intersection(&reading.ids.kept).copied().collect())
    }

    /// Forgets what was read: the next question may be long in coming.
    pub async fn rest(&mut self) {
        if let Some(Reading { pass, .. }) = self.reading.take() {
            pass.close().await;
        }
    }
}

impl Reading {
    fn new(log: &EventLog, from: EventId, since: Timestamp) -> Self {
        let subjects = log.topology().subjects(Stream::Events);
        let selection = Selection { stream: Stream::Events, subjects, headers_only: true };
        let ids = Ids { kept: BTreeSet::new(), from };
        Self { pass: Pass::new(log, selection, since), since, ids }
    }

    fn covers(&self, lowest: EventId, since: Timestamp) -> bool {
        self.since <= since && self.ids.from <= lowest
    }
}

impl Ids {
    fn note(&mut self, id: Option<EventId>) {
        self.kept.extend(id.filter(|id| *id >= self.from));
    }

    fn forget_below(&mut self, lowest: EventId) {
        if lowest > self.from {
            self.from = lowest;
            self.kept = self.kept.split_off(&lowest);
        }
    }
}
