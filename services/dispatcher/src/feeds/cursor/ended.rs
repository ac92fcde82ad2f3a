//! Deliveries that a person ended before the cursor has come to their events, which may be much later.
//! Their ends are on record at once, but a record is looked at for some minutes only: so they are
//! remembered with the feed until the cursor has passed. Where they are too many to be stored, a new
//! owner looks for them in the journal, from where on they are on record, and the feed stands
//! meanwhile.
//!
//! So are those whose first attempt a person had made in the place of the feed. The journal would not
//! tell them from what the feed has made itself: so all of them are stored.

use std::collections::BTreeSet;

use fanfare_domain::{Feed, feed::Cover};

use super::Cursor;

/// The most that are remembered. Then commands wait until the cursor has passed some.
const HELD_MAX: usize = 200_000;

/// What was ended.
#[derive(Debug)]
pub(super) struct Ended {
    sequences: BTreeSet<u64>,
    /// Those among them that have to be stored themselves.
    named: BTreeSet<u64>,
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
        // Nothing tells which of them it were.
        let sequences: BTreeSet<u64> = feed.ended.iter().copied().collect();
        Self { named: sequences.clone(), sequences, since: feed.ended_since, known }
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

    /// Whether one more can be remembered that has to be stored itself.
    fn has_room_to_name(&self, sequence: u64) -> bool {
        let is_room = self.named.len() < Feed::ENDED_MAX || self.named.contains(&sequence);
        is_room && self.has_room(sequence)
    }

    /// Those that are stored of some: all that have to be, and of the others as many as there is room
    /// for.
    fn stored(&self, some: impl Iterator<Item = u64>) -> Vec<u64> {
        let (mut stored, others): (Vec<u64>, Vec<u64>) =
            some.partition(|sequence| self.named.contains(sequence));
        let room = Feed::ENDED_MAX.saturating_sub(stored.len());
        stored.extend(others.into_iter().take(room));
        stored.sort_unstable();
        stored
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

    /// Whether an event is the feed's for sure, and it can be remembered that the feed is not to make
    /// its first attempt.
    pub(in crate::feeds) fn may_pass_over(&self, sequence: u64) -> bool {
        self.ended.has_room_to_name(sequence) && self.is_stored && self.is_ours(sequence)
    }

    /// Whether it is stored, as far as that is needed, that the feed is not to make an event's first
    /// attempt, about which there is a fact on record; sees to it if not.
    pub(in crate::feeds) fn remembers_made(&mut self, sequence: u64) -> bool {
        if self.is_over(sequence) || self.saved.ended.binary_search(&sequence).is_ok() {
            return true;
        }
        if self.may_pass_over(sequence) {
            self.ended.named.insert(sequence);
            self.end(sequence, 1);
        }
        false
    }

    /// Whether it is stored that an event's delivery was ended, as far as that is needed; sees to it
    /// if not.
    pub(in crate::feeds) fn remembers_end(&mut self, sequence: u64) -> bool {
        let saved = &self.saved;
        // It is named, or is found in the journal by whoever comes next.
        let is_found = is_cut(saved.ended.len(), saved.ended_since)
            && saved.ended_since <= self.ended.since
            && self.ended.contains(sequence)
            && !self.ended.named.contains(&sequence);
        if self.is_over(sequence) || is_found || saved.ended.binary_search(&sequence).is_ok() {
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
        let ended = self.ended.stored(self.ended.sequences.iter().copied().filter(may_come));
        let since = if ended.is_empty() { 0 } else { self.ended.since };
        (ended, since)
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
        self.ended.named = &self.ended.named & &ended;
        self.ended.sequences = ended;
    }

    /// Whether an event is not the feed's, or it is stored that the feed has passed it.
    fn is_over(&self, sequence: u64) -> bool {
        if self.holds(sequence) {
            return false;
        }
        let saved = &self.saved;
        let is_left_behind = || saved.blocked.iter().any(|it| it.waiting.contains(&sequence));
        let is_passed = sequence < saved.next && !is_left_behind();
        is_passed || self.feed.cover(sequence) == Cover::Outside
    }

    fn may_come(&self, sequence: u64, next: u64, left_behind: &BTreeSet<u64>) -> bool {
        sequence >= next || left_behind.contains(&sequence) || self.holds(sequence)
    }

    fn is_ours(&self, sequence: u64) -> bool {
        self.feed.cover(sequence) == Cover::Inside || self.holds(sequence)
    }
}
