//! Deliveries that a person ended before the cursor has come to their events, which may be much later.
//! Their ends are on record at once, but a record is looked at for some minutes only: so they are
//! remembered with the feed until the cursor has passed. Where they are too many to be stored, a new
//! owner looks for them in the journal, from where on they are on record, and the feed stands
//! meanwhile.

use std::collections::BTreeSet;

use fanfare_domain::{Feed, feed::Cover};

use super::Cursor;

/// The most that are remembered. Then commands wait until the cursor has passed some.
const HELD_MAX: usize = 200_000;

/// What was ended.
#[derive(Debug)]
pub(super) struct Ended {
    sequences: BTreeSet<u64>,
    /// The sequence of the journal behind which all of these ends are on record; 0 if none is known.
    pub(super) since: u64,
    known: Known,
}

/// Whether it is known what was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Yes.
    All,
    /// The journal is to be asked.
    Some,
    /// It is being asked.
    Asked,
}

impl Ended {
    /// As it is stored.
    pub(super) fn of(feed: &Feed) -> Self {
        let known =
            if is_cut(feed.ended.len(), feed.ended_since) { Known::Some } else { Known::All };
        Self { sequences: feed.ended.iter().copied().collect(), since: feed.ended_since, known }
    }

    /// Whether an event's delivery was ended.
    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.sequences.contains(&sequence)
    }

    /// Whether it is known of every event.
    pub(super) fn is_known(&self) -> bool {
        self.known == Known::All
    }

    /// Whether one more can be remembered.
    fn has_room(&self, sequence: u64) -> bool {
        // Nothing tells where to look for those of the version before.
        let is_placed = self.since > 0 || self.sequences.is_empty();
        let max = if is_placed { HELD_MAX } else { Feed::ENDED_MAX };
        self.is_known() && (self.sequences.len() < max || self.sequences.contains(&sequence))
    }

    /// Remembers one that is on record behind a sequence of the journal, or will be.
    fn insert(&mut self, sequence: u64, since: u64) {
        let is_first = self.sequences.is_empty();
        if self.sequences.insert(sequence) && (is_first || self.since > since) {
            self.since = since;
        }
    }
}

/// Whether so many, that are stored, may not be all.
fn is_cut(count: usize, since: u64) -> bool {
    count >= Feed::ENDED_MAX && since > 0
}

impl Cursor {
    /// Whether an event is the feed's for sure, and one more that was ended can be remembered.
    pub(in crate::feeds) fn may_end(&self, sequence: u64) -> bool {
        self.ended.has_room(sequence) && self.is_stored && self.is_ours(sequence)
    }

    /// Remembers that an event's delivery is ended; that will be on record behind a sequence of the
    /// journal.
    pub(in crate::feeds) fn end(&mut self, sequence: u64, journal: u64) {
        self.ended.insert(sequence, journal.max(1));
    }

    /// Whether it is stored that an event's delivery was ended, as far as that is needed; sees to it
    /// if not.
    pub(in crate::feeds) fn remembers_end(&mut self, sequence: u64) -> bool {
        if self.feed.cover(sequence) == Cover::Outside && !self.holds(sequence) {
            return true;
        }
        let saved = &self.saved;
        let is_left_behind = || saved.blocked.iter().any(|it| it.waiting.contains(&sequence));
        let is_passed = sequence < saved.next && !self.holds(sequence) && !is_left_behind();
        // It is named, or is found in the journal by whoever comes next.
        let is_found = is_cut(saved.ended.len(), saved.ended_since)
            && saved.ended_since <= self.ended.since
            && self.ended.contains(sequence);
        if is_passed || is_found || saved.ended.binary_search(&sequence).is_ok() {
            return true;
        }
        if self.may_end(sequence) && !self.ended.contains(sequence) {
            // It is on record somewhere.
            self.end(sequence, 1);
        }
        false
    }

    /// From where on the journal is to be asked what was ended, if it is; it is being asked from now
    /// on.
    pub(crate) fn ask_for_ends(&mut self) -> Option<u64> {
        if self.ended.known != Known::Some {
            return None;
        }
        self.ended.known = Known::Asked;
        Some(self.ended.since)
    }

    /// Takes what the journal says was ended.
    pub(crate) fn found_ends(&mut self, ends: BTreeSet<u64>) {
        self.ended.sequences.extend(ends);
        self.ended.known = Known::All;
    }

    /// What is to be stored of what was ended: what comes from `next` on, or was left behind; and
    /// since when it is on record.
    pub(super) fn ended_from(&self, next: u64, left_behind: &BTreeSet<u64>) -> (Vec<u64>, u64) {
        if !self.ended.is_known() {
            return (self.saved.ended.clone(), self.saved.ended_since);
        }
        let may_come = |it: &u64| self.may_come(*it, next, left_behind);
        let ended: Vec<u64> = self.ended.sequences.iter().copied().filter(may_come).collect();
        let since = if ended.is_empty() { 0 } else { self.ended.since };
        (ended.into_iter().take(Feed::ENDED_MAX).collect(), since)
    }

    /// Forgets what the cursor has passed, as is stored.
    pub(super) fn forget_ended(&mut self, next: u64) {
        if !self.ended.is_known() {
            return;
        }
        let keyed = self.keys.stored();
        let left_behind = keyed.iter().flat_map(|it| &it.waiting).copied().collect();
        let mut ended = std::mem::take(&mut self.ended.sequences);
        ended.retain(|it| self.may_come(*it, next, &left_behind));
        self.ended.sequences = ended;
    }

    fn may_come(&self, sequence: u64, next: u64, left_behind: &BTreeSet<u64>) -> bool {
        sequence >= next || left_behind.contains(&sequence) || self.holds(sequence)
    }

    fn is_ours(&self, sequence: u64) -> bool {
        self.feed.cover(sequence) == Cover::Inside || self.holds(sequence)
    }
}
