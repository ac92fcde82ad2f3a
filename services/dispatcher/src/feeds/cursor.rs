//! The cursor of one feed: what is to be read, what was read, and what is under way.
//!
//! ```text
//! EVENTS ─▶ ready ─▶ lane ─▶ attempt ─▶ fact on record
//!    ▲        ▲───────┘ (what a lane may not keep)
//!    └ single events whose ordering key has become free
//! ```
//!
//! Where it stands is stored some seconds late, with the feed. That is exact nevertheless: a new
//! owner starts there, and asks the ledger about each event, which knows all that was put on record
//! since, many times over. So nothing about it has to be in the journal. Pure: no clock, no I/O.

mod ended;
mod storing;
mod taken_over;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use fanfare_domain::{
    DeliveryId, Feed, TenantId, Timestamp,
    feed::{Blocked, Cover, Phase},
};

use self::{ended::Ended, storing::Saved};
use super::keys::{Keys, Turn};
use crate::{messages::MessageKey, task_event::TaskEvent};

/// How long a feed that has read everything waits before it looks by itself.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The same when it knows that there is more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// An event that is to be offered.
#[derive(Clone, Debug)]
pub(crate) struct Fed {
    /// Its sequence in EVENTS.
    pub(crate) sequence: u64,
    /// Its delivery.
    pub(crate) delivery: DeliveryId,
    /// What it has to wait for, if its endpoint wants order.
    pub(crate) key: Option<u64>,
    /// Whether it was read by itself: it lies behind the cursor.
    pub(crate) single: bool,
    /// The event.
    pub(crate) event: Arc<TaskEvent>,
}

/// What the ledger says of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: its first attempt is to be made.
    Nothing,
    /// It is under way.
    Live,
    /// Its first attempt was put off, and not made.
    PutOff,
    /// It was begun, and has not concluded.
    Begun,
    /// It has concluded.
    Concluded,
}

/// What to do with the event that is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Make its first attempt.
    Make,
    /// Nothing; the one after it is next.
    Pass,
    /// Nothing for now.
    Stand,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// The feed as it is to be; its phase as it is stored.
    pub(super) feed: Feed,
    /// Its revision; 0 for none.
    pub(super) revision: u64,
    /// Whether it is stored that the feed exists.
    pub(super) is_stored: bool,
    /// Whether something is being written.
    pub(super) is_writing: bool,
    /// Whether something is being read.
    pub(super) is_reading: bool,
    /// Messages with a task of which it is not known whose the event is.
    pub(super) limbo: Vec<(u64, MessageKey)>,
    position: u64,
    ready: VecDeque<Fed>,
    /// Single events that are to be read, and those of them that are being read.
    singles: BTreeSet<u64>,
    fetching: BTreeSet<u64>,
    /// What was offered and is not on record; whether it was read by itself.
    offered: BTreeMap<u64, bool>,
    keys: Keys,
    /// What was ended before its turn: see [`ended`].
    ended: Ended,
    /// The sequence of an event that somebody saw.
    hinted: u64,
    /// Up to where it is known that there was nothing more.
    looked_to: Option<u64>,
    look_at: Timestamp,
    saved: Saved,
    /// Since when it is in our hands.
    since: Timestamp,
}

impl Cursor {
    /// A feed that is to be opened.
    pub(super) fn new(feed: Feed, revision: u64) -> Self {
        let mut cursor = Self::resume(feed, revision, Timestamp::EPOCH);
        cursor.is_stored = false;
        cursor
    }

    /// Goes on with a feed that is stored, at the latest at that time.
    pub(super) fn resume(feed: Feed, revision: u64, now: Timestamp) -> Self {
        let is_ours = |blocked: &&Blocked| blocked.key == Feed::GIVEN_UP;
        let waiting = feed.blocked.iter().filter(is_ours).flat_map(|blocked| &blocked.waiting);
        let mut singles: BTreeSet<u64> = waiting.copied().collect();
        let others: Vec<_> = feed.blocked.iter().filter(|it| !is_ours(it)).cloned().collect();
        let (keys, pending) = Keys::restore(&others);
        singles.extend(pending);
        let saved = Saved::of(&feed, now);
        let ended = Ended::of(&feed);
        Self {
            position: feed.next.max(feed.from),
            feed,
            revision,
            is_stored: true,
            is_writing: false,
            is_reading: false,
            limbo: Vec::new(),
            ready: VecDeque::new(),
            singles,
            fetching: BTreeSet::new(),
            offered: BTreeMap::new(),
            keys,
            ended,
            hinted: 0,
            looked_to: None,
            look_at: Timestamp::EPOCH,
            saved,
            since: now,
        }
    }

    /// Becomes another, with what waits here and the hints that were given.
    pub(super) fn begin_anew(&mut self, mut anew: Self) {
        anew.limbo = std::mem::take(&mut self.limbo);
        anew.hint(self.hinted);
        *self = anew;
    }

    /// The last sequence that is the feed's.
    pub(crate) fn until(&self) -> u64 {
        match self.feed.phase {
            Phase::Open | Phase::Closing => u64::MAX,
            Phase::Closed { until, .. } => until,
        }
    }

    /// Whether the feed has ended, and all of its events have a fact on record.
    pub(super) fn is_finished(&self) -> bool {
        self.is_stored && self.position > self.until() && self.is_idle()
    }

    /// Whether nothing that was read, or is to be read again, waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty()
            && self.singles.is_empty()
            && self.fetching.is_empty()
            && self.offered.is_empty()
            && self.keys.is_empty()
    }

    /// Whether everything was read that is routed, as far as it is known.
    pub(super) fn is_at_head(&self, routed: u64) -> bool {
        let is_there = self.position > routed || self.looked_to.is_some();
        is_there && self.hinted < self.position && self.ready.is_empty()
    }

    /// Takes an event over that was a task's, and lies before the feed.
    pub(super) fn take_over(&mut self, sequence: u64) {
        if !self.holds(sequence) {
            self.singles.insert(sequence);
        }
    }

    /// Whether an event is in hand.
    pub(super) fn holds(&self, sequence: u64) -> bool {
        self.singles.contains(&sequence)
            || self.fetching.contains(&sequence)
            || self.offered.contains_key(&sequence)
            || self.ready.binary_search_by_key(&sequence, |fed| fed.sequence).is_ok()
    }

    /// Whether messages wait for it to be stored what was taken over.
    pub(super) fn has_taken_over(&self) -> bool {
        let is_new = |(sequence, _): &(u64, MessageKey)| {
            self.holds(*sequence) && self.feed.cover(*sequence) == Cover::Outside
        };
        self.limbo.iter().any(is_new)
    }

    /// How many events wait to be offered.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Notes that there is an event of that sequence.
    pub(crate) fn hint(&mut self, sequence: u64) {
        self.hinted = self.hinted.max(sequence);
        if self.hinted >= self.position {
            self.look_at = Timestamp::EPOCH;
        }
    }

    /// The last sequence of those that were hinted at.
    pub(crate) fn hinted(&self) -> u64 {
        self.hinted
    }

    /// Tells whether it is time to read on, knowing that everything up to `limit` is routed.
    pub(crate) fn may_read(&self, limit: u64, now: Timestamp) -> bool {
        if self.is_reading || !self.is_stored || self.position > self.until() {
            return false;
        }
        let limit = limit.max(self.hinted).min(self.until());
        if self.keys.is_full() || limit < self.position || self.is_behind(now) {
            return false;
        }
        match self.looked_to {
            Some(looked_to) => now >= self.look_at && (limit > looked_to || self.hinted >= limit),
            None => true,
        }
    }

    /// Tells whether there may be something to do, though nothing has happened.
    pub(super) fn is_due(&self, routed: u64, now: Timestamp) -> bool {
        let is_settled = self.is_stored && self.limbo.is_empty();
        !is_settled || !self.is_idle() || self.may_read(routed, now)
    }

    /// Single events to be read, up to `max`; they are being read from now on.
    pub(crate) fn singles(&mut self, max: usize) -> Vec<u64> {
        let singles: Vec<u64> = self.singles.iter().copied().take(max).collect();
        for sequence in &singles {
            self.singles.remove(sequence);
            self.fetching.insert(*sequence);
        }
        singles
    }

    /// Whether there are single events to be read.
    pub(crate) fn has_singles(&self) -> bool {
        !self.singles.is_empty()
    }

    /// Begins to read; returns from where.
    pub(crate) fn reading(&mut self) -> u64 {
        self.is_reading = true;
        self.position
    }

    /// Whether what comes before the rest is on its way. Where keys are kept apart, nothing does.
    pub(crate) fn is_fetching_first(&self) -> bool {
        self.keys.is_empty() && !self.fetching.is_empty()
    }

    /// Takes events that were read in order from a sequence on, where to go on, and up to where
    /// there is nothing more, if that is so.
    pub(crate) fn take(
        &mut self,
        from: u64,
        fed: Vec<Fed>,
        (next, looked_to): (u64, Option<u64>),
        now: Timestamp,
    ) {
        self.is_reading = false;
        if from != self.position {
            // It was let go of meanwhile, to begin further back.
            return;
        }
        for fed in fed {
            self.put_back(fed);
        }
        self.position = self.position.max(next);
        self.looked_to = looked_to;
        let is_cut = looked_to.is_some_and(|looked_to| self.position > looked_to);
        let more = looked_to.is_none() || is_cut || self.hinted >= self.position;
        self.look_at = now.saturating_add(if more { LOOK_AGAIN } else { LOOK_EVERY });
    }

    /// Takes a single event that was read; `None` if it is gone.
    pub(crate) fn take_single(&mut self, sequence: u64, fed: Option<Fed>) {
        if !self.fetching.remove(&sequence) {
            return;
        }
        if let Some(fed) = fed {
            self.put_back(fed);
        } else {
            self.alarm_counts(sequence);
            self.concluded(sequence);
        }
    }

    /// Whether nothing is left to be read of a feed that has ended, as far as it is known.
    pub(crate) fn may_look_for_the_end(&self) -> bool {
        let until = self.until();
        !self.is_reading
            && until < u64::MAX
            && self.position <= until
            && self.looked_to.is_some_and(|looked_to| looked_to >= until)
    }

    /// Takes what the first event is from a sequence on.
    pub(crate) fn found(&mut self, from: u64, first: Option<u64>) {
        self.is_reading = false;
        let until = self.until();
        if from != self.position {
            return;
        }
        if first.is_none_or(|first| first > until) {
            self.position = until.saturating_add(1);
        } else {
            self.looked_to = None;
        }
    }

    /// Begins to write; returns over which revision.
    pub(crate) fn writing(&mut self) -> u64 {
        self.is_writing = true;
        self.revision
    }

    /// Nothing is being written any more.
    pub(crate) fn not_written(&mut self) {
        self.is_writing = false;
    }

    /// Notes over which revision a feed has to be written that is not there.
    pub(crate) fn expect(&mut self, revision: u64) {
        (self.revision, self.is_stored) = (revision, false);
    }

    /// Whether it is stored that the feed exists.
    pub(crate) fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Whether the feed goes on.
    pub(crate) fn phase(&self) -> Phase {
        self.feed.phase
    }

    /// Whose endpoint it is.
    pub(crate) fn tenant(&self) -> TenantId {
        self.feed.tenant.clone()
    }

    /// The event that is next to be offered.
    pub(crate) fn front(&self) -> Option<&Fed> {
        self.ready.front()
    }

    /// Decides on the event that is next, by what is known of its delivery.
    pub(crate) fn judge(&mut self, known: impl FnOnce(DeliveryId) -> Known) -> Next {
        let Some(fed) = self.ready.front().filter(|_| self.ended.is_known()) else {
            return Next::Stand;
        };
        let (sequence, key, single) = (fed.sequence, fed.key, fed.single);
        let delivery = fed.delivery;
        if self.offered.contains_key(&sequence) {
            return Next::Pass;
        }
        if self.ended.contains(sequence) {
            self.concluded(sequence);
            return Next::Pass;
        }
        if let Some(key) = key
            && self.keys.turn(key, sequence) == Turn::Later
        {
            return Next::Pass;
        }
        match (known(delivery), key) {
            // What was taken over is made here; anything else comes at its time.
            (Known::PutOff, Some(key)) if single => {
                self.keys.offered(key, sequence);
                Next::Make
            }
            (Known::PutOff, None) if single => Next::Make,
            (Known::Live, _) => Next::Stand,
            (Known::Nothing, None) => Next::Make,
            (Known::Nothing, Some(key)) => {
                self.keys.offered(key, sequence);
                Next::Make
            }
            (Known::Begun | Known::PutOff, Some(key)) => {
                self.keys.begun(key, sequence);
                Next::Pass
            }
            (Known::Begun | Known::PutOff, None) => Next::Pass,
            (Known::Concluded, _) => {
                self.concluded(sequence);
                Next::Pass
            }
        }
    }

    /// Takes the event that is next out; `offer` says that its attempt is about to be made.
    pub(crate) fn pop(&mut self, offer: bool) -> Option<Fed> {
        let fed = self.ready.pop_front()?;
        if offer {
            self.offered.insert(fed.sequence, fed.single);
            self.saved.offered += 1;
        }
        Some(fed)
    }

    /// Takes an event back that a lane may not keep.
    pub(crate) fn take_back(&mut self, fed: Fed) {
        self.offered.remove(&fed.sequence);
        self.keys.returned(fed.sequence);
        self.put_back(fed);
    }

    /// Lets go of what was read and cannot be sent for now: it is read again.
    pub(crate) fn let_go(&mut self) {
        for fed in std::mem::take(&mut self.ready) {
            if fed.single {
                self.singles.insert(fed.sequence);
            } else {
                self.position = self.position.min(fed.sequence);
                self.looked_to = None;
            }
        }
    }

    /// Notes a fact about the event's delivery.
    pub(super) fn on_record(&mut self, sequence: u64, concluded: bool) {
        self.offered.remove(&sequence);
        if concluded {
            self.concluded(sequence);
        } else {
            self.keys.on_record(sequence);
        }
    }

    /// Gives up all order: the endpoint does not want it any more.
    pub(crate) fn give_up_order(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let ready: BTreeSet<u64> = self.ready.iter().map(|fed| fed.sequence).collect();
        for sequence in self.keys.give_up() {
            if !ready.contains(&sequence) && !self.fetching.contains(&sequence) {
                self.singles.insert(sequence);
            }
        }
        for fed in &mut self.ready {
            fed.key = None;
        }
    }

    fn concluded(&mut self, sequence: u64) {
        if let Some(next) = self.keys.concluded(sequence) {
            let is_ready = self.ready.iter().any(|fed| fed.sequence == next);
            if !is_ready && !self.fetching.contains(&next) {
                self.singles.insert(next);
            }
        }
    }

    fn put_back(&mut self, fed: Fed) {
        let place = self.ready.partition_point(|other| other.sequence < fed.sequence);
        if self.ready.get(place).is_none_or(|other| other.sequence != fed.sequence) {
            self.ready.insert(place, fed);
        }
    }
}

#[cfg(test)]
mod tests;
