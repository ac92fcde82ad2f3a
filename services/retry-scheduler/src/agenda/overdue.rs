//! Which alarms should have gone off long ago.
//!
//! There is no index by due time: it would double what a waiting delivery costs. The whole agenda
//! is looked through instead, some tens of milliseconds for a million deliveries, and only once
//! the earliest of them can be overdue.

use std::{collections::BinaryHeap, time::Duration};

use fanfare_domain::{DeliveryId, Timestamp};

use super::{
    Agenda,
    entry::{Entry, Phase, instant, seconds},
};

/// When an alarm counts as failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The time.
    pub(crate) now: Timestamp,
    /// Since when alarms have had a fair chance to go off: waiting counts from here.
    pub(crate) calm_since: Timestamp,
    /// How late an alarm may be.
    pub(crate) grace: Duration,
}

/// An alarm that should have gone off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// The delivery.
    pub(crate) delivery: DeliveryId,
    /// The sequence of the fact that gave its attempt the time.
    pub(crate) sequence: u64,
    /// When it was due, or last rescued, to the second.
    pub(crate) due: Timestamp,
}

/// Where the last look ended: each begins behind it, so that alarms which cannot be helped do not
/// keep others from being looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    after: Option<(u32, DeliveryId)>,
    /// No alarm is due before this second.
    earliest: u32,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { after: None, earliest: u32::MAX }
    }
}

impl Cursor {
    pub(super) fn expect(&mut self, entry: Entry) {
        self.earliest = self.earliest.min(entry.due_secs);
    }
}

impl Agenda {
    /// Returns when an alarm can be overdue at the earliest; `None` if none is set.
    pub(crate) fn wake_at(&self, grace: Duration) -> Option<Timestamp> {
        let due = instant(self.overdue.earliest);
        let wake = due.saturating_add(grace).saturating_add(Duration::from_secs(1));
        (!self.waiting.is_empty()).then_some(wake)
    }

    /// Returns how long ago the earliest was due that waits, if that is longer than the grace. Exact
    /// right after [`Self::overdue`]; until then those count that have gone meanwhile.
    pub(crate) fn past_due(&self, grace: Duration, now: Timestamp) -> Duration {
        let is_overdue = self.wake_at(grace).is_some_and(|wake| wake <= now);
        if is_overdue { now.since(instant(self.overdue.earliest)) } else { Duration::ZERO }
    }

    /// Returns up to `max` alarms that are set and should have gone off, those due first first;
    /// the next call goes on from there, and begins anew after the last.
    pub(crate) fn overdue(&mut self, patience: Patience, max: usize) -> Vec<Overdue> {
        if self.wake_at(patience.grace).is_none_or(|wake| wake > patience.now) {
            return Vec::new();
        }
        let mut earliest = u32::MAX;
        let mut chosen = BinaryHeap::new();
        for (delivery, entry) in &self.waiting {
            earliest = earliest.min(entry.due_secs);
            let key = (entry.due_secs, *delivery);
            if self.overdue.after.is_some_and(|after| key <= after)
                || (chosen.len() == max && chosen.peek().is_some_and(|(last, _)| key > *last))
                || !self.is_overdue(*delivery, *entry, patience)
            {
                continue;
            }
            chosen.push((key, entry.sequence));
            if chosen.len() > max {
                chosen.pop();
            }
        }
        let chosen = chosen.into_sorted_vec();
        let more = chosen.len() == max;
        let after = chosen.last().map(|(key, _)| *key).filter(|_| more);
        self.overdue = Cursor { after, earliest };
        let overdue =
            |((due, delivery), sequence)| Overdue { delivery, sequence, due: instant(due) };
        chosen.into_iter().map(overdue).collect()
    }

    /// Notes that the alarm which the fact at `sequence` gave a delivery is set again, or left to
    /// others: it counts as failed later the next time. Returns whether there is any point in it:
    /// the delivery may be past it.
    pub(crate) fn rescue(&mut self, delivery: DeliveryId, sequence: u64, now: Timestamp) -> bool {
        let Some(entry) = self.waiting.get_mut(&delivery) else { return false };
        if entry.phase != Phase::Planned || entry.sequence != sequence {
            return false;
        }
        entry.due_secs = seconds(now);
        entry.rescues = entry.rescues.saturating_add(1);
        let entry = *entry;
        self.overdue.expect(entry);
        true
    }

    fn is_overdue(&self, delivery: DeliveryId, entry: Entry, patience: Patience) -> bool {
        let from = entry.due().max(patience.calm_since);
        entry.phase == Phase::Planned
            && from.saturating_add(entry.patience(patience.grace)) < patience.now
            && !self.duties.contains((entry.sequence, delivery))
    }
}
