//! First attempts that were put off, and that the feed makes in the place of their alarm clocks. The
//! ledger remembers for minutes, and alarm clocks go off after hours: so it stands in the record of
//! the feed which of them are not to be heeded, until they have surely gone off.

use std::{collections::BTreeSet, time::Duration};

use fanfare_domain::{Timestamp, feed::PutOff};

use super::Cursor;

/// How long after its time an alarm clock is still not heeded.
const LATE: Duration = Duration::from_hours(1);

/// How long a new owner takes at most to take what is due from its queue.
const TAKEN_WITHIN: Duration = Duration::from_mins(5);

/// How many are remembered. What is more is left to the alarm clocks.
const MAX: usize = 10_000;

impl Cursor {
    /// Takes a first attempt over that was put off, if one more can be remembered.
    pub(in crate::feeds) fn take_over_put_off(&mut self, put_off: PutOff) -> bool {
        let known = &mut self.feed.taken_over;
        if known.len() >= MAX {
            return false;
        }
        if let Err(place) = known.binary_search(&put_off) {
            known.insert(place, put_off);
        }
        self.take_over(put_off.sequence);
        true
    }

    /// Whether it is stored that the feed has taken a first attempt over that was put off until then.
    pub(in crate::feeds) fn took_over(&self, put_off: PutOff) -> bool {
        self.is_stored && self.feed.took_over(put_off)
    }

    /// Leaves a first attempt to its alarm clock after all.
    pub(super) fn alarm_counts(&mut self, sequence: u64) {
        self.feed.taken_over.retain(|it| it.sequence != sequence);
    }

    /// What may still go off.
    pub(super) fn may_go_off(&self, now: Timestamp) -> impl Iterator<Item = PutOff> {
        let is_new = now.since(self.since) < TAKEN_WITHIN;
        let is_over = move |it: &PutOff| !is_new && it.until.saturating_add(LATE) < now;
        self.feed.taken_over.iter().filter(move |it| !is_over(it)).copied()
    }

    /// What is to be remembered while those events wait to be fed: what may go off, and what is still
    /// to be made, so that whoever looks for its alarm clock finds that it needs none.
    pub(super) fn to_remember(&self, waiting: &BTreeSet<u64>, now: Timestamp) -> Vec<PutOff> {
        let mut remembered: Vec<_> = self.may_go_off(now).collect();
        let all = &self.feed.taken_over;
        remembered.extend(all.iter().filter(|it| waiting.contains(&it.sequence)));
        remembered.sort_unstable();
        remembered.dedup();
        remembered
    }

    /// Whether any may.
    pub(in crate::feeds) fn has_alarms(&self, now: Timestamp) -> bool {
        self.may_go_off(now).next().is_some()
    }
}
