//! What is stored of a cursor, and when.

use std::{collections::BTreeSet, time::Duration};

use fanfare_domain::{
    Feed, Timestamp,
    feed::{Blocked, Interval, Phase, PutOff},
};

use super::Cursor;

/// How far the stored cursor may be behind, in time and events, before it is stored, and before
/// the feed waits for that. The ledger remembers more than the second: see the module.
const SAVE_AFTER: Duration = Duration::from_secs(5);
const SAVE_EVENTS: u64 = 1_000;
const BEHIND_MAX: Duration = Duration::from_mins(1);
const BEHIND_EVENTS: u64 = 10_000;

/// What is stored of the cursor.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) at: Timestamp,
    pub(super) next: u64,
    pub(super) blocked: Vec<Blocked>,
    pub(super) ended: Vec<u64>,
    pub(super) ended_since: u64,
    taken_over: Vec<PutOff>,
    /// How many events were offered since.
    pub(super) offered: u64,
}

impl Cursor {
    /// The feed as it is to be stored, with where the cursor stands and what it left behind.
    pub(crate) fn to_store(&self) -> Feed {
        let mut blocked = self.keys.stored();
        let keyed: BTreeSet<u64> = blocked.iter().flat_map(|it| &it.waiting).copied().collect();
        let offered = self.offered.iter().map(|(sequence, single)| (*sequence, *single));
        let ready = self.ready.iter().map(|fed| (fed.sequence, fed.single));
        let (mut next, mut waiting) = (self.position, &self.singles | &self.fetching);
        for (sequence, single) in offered.chain(ready).filter(|(it, _)| !keyed.contains(it)) {
            if single {
                waiting.insert(sequence);
            } else {
                next = next.min(sequence);
            }
        }
        let waiting: Vec<u64> = waiting.difference(&keyed).copied().collect();
        if !waiting.is_empty() {
            blocked.push(Blocked { key: Feed::GIVEN_UP, by: 0, waiting });
        }
        let (ended, ended_since) = self.ended_from(next, &keyed);
        Feed { next, blocked, ended, ended_since, ..self.feed.clone() }
    }

    /// Notes what is stored.
    pub(crate) fn stored(&mut self, feed: Feed, revision: u64, now: Timestamp) {
        self.saved = Saved::of(&feed, now);
        if feed.phase != self.feed.phase {
            self.look_at = Timestamp::EPOCH;
        }
        self.forget_ended(feed.next);
        (self.feed, self.revision, self.is_stored) = (feed, revision, true);
    }

    /// What is to be stored, if it is time and there is anything new.
    pub(crate) fn save(&mut self, now: Timestamp) -> Option<Feed> {
        let waited = now.since(self.saved.at);
        let is_due = self.saved.offered >= SAVE_EVENTS || waited >= SAVE_AFTER;
        if !self.is_stored || self.is_writing || !is_due {
            return None;
        }
        let feed = self.to_store();
        let waiting = feed.blocked.iter().flat_map(|it| &it.waiting).copied().collect();
        let taken_over = self.to_remember(&waiting, now);
        let feed = Feed { taken_over, ..feed };
        let Saved { next, blocked, ended, ended_since, taken_over, .. } = &self.saved;
        let is_new = (&feed.next, &feed.blocked) != (next, blocked)
            || (&feed.ended, &feed.taken_over) != (ended, taken_over)
            || feed.ended_since != *ended_since;
        if !is_new {
            // What is stored is right at this moment, too.
            self.saved = Saved::of(&feed, now);
        }
        is_new.then_some(feed)
    }

    /// Makes the feed one that goes on from a sequence, after it has finished. What it covered
    /// before is remembered, but for what is over.
    pub(crate) fn reopened(
        &self,
        from: u64,
        feed: Feed,
        is_over: impl Fn(&Interval) -> bool,
    ) -> Feed {
        let mut past = self.feed.past.clone();
        past.retain(|past| !is_over(past));
        if let Phase::Closed { until, at } = self.feed.phase
            && until >= self.feed.from
        {
            past.push(Interval { from: self.feed.from, until, closed_at: at });
        }
        let from = from.max(self.until().saturating_add(1));
        let taken_over = self.feed.taken_over.clone();
        Feed { from, next: from, past, taken_over, ..feed }
    }

    /// Whether what is stored is so far behind that the ledger may not know all that came since.
    pub(super) fn is_behind(&self, now: Timestamp) -> bool {
        let Saved { offered, at, .. } = &self.saved;
        *offered > BEHIND_EVENTS || (*offered > 0 && now.since(*at) > BEHIND_MAX)
    }
}

impl Saved {
    pub(super) fn of(feed: &Feed, at: Timestamp) -> Self {
        let (blocked, ended) = (feed.blocked.clone(), feed.ended.clone());
        let taken_over = feed.taken_over.clone();
        let ended_since = feed.ended_since;
        Self { at, next: feed.next, blocked, ended, ended_since, taken_over, offered: 0 }
    }
}
