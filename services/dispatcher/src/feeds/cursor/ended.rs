//! Deliveries that a person ended before the cursor has come to their events, which may be much later.
//! Their ends are on record at once, but a record is looked at for some minutes only: so they are
//! remembered with the feed until the cursor has passed.

use std::collections::BTreeSet;

use fanfare_domain::{Feed, feed::Cover};

use super::Cursor;

impl Cursor {
    /// Whether an event is the feed's for sure, and one more that was ended can be remembered.
    pub(in crate::feeds) fn may_end(&self, sequence: u64) -> bool {
        let has_room = self.ended.len() < Feed::ENDED_MAX || self.ended.contains(&sequence);
        has_room && self.is_stored && self.is_ours(sequence)
    }

    /// Remembers that an event's delivery was ended.
    pub(in crate::feeds) fn end(&mut self, sequence: u64) {
        self.ended.insert(sequence);
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
        if is_passed || saved.ended.binary_search(&sequence).is_ok() {
            return true;
        }
        if self.may_end(sequence) {
            self.end(sequence);
        }
        false
    }

    /// What is to be stored of what was ended: what comes from `next` on, or was left behind.
    pub(super) fn ended_from(&self, next: u64, left_behind: &BTreeSet<u64>) -> Vec<u64> {
        let may_come = |it: &u64| *it >= next || left_behind.contains(it) || self.holds(*it);
        self.ended.iter().copied().filter(may_come).collect()
    }

    /// Forgets what the cursor has passed, as is stored.
    pub(super) fn forget_ended(&mut self, next: u64) {
        let keyed = self.keys.stored();
        let left_behind = keyed.iter().flat_map(|it| &it.waiting).copied().collect();
        self.ended = self.ended_from(next, &left_behind).into_iter().collect();
    }

    fn is_ours(&self, sequence: u64) -> bool {
        self.feed.cover(sequence) == Cover::Inside || self.holds(sequence)
    }
}
