//! Order: which ordering keys of a feed wait for a delivery to conclude, and what waits behind it.
//!
//! A key is blocked from when an event of it is offered until the delivery of that event has
//! concluded, also while it waits for its retry. What comes meanwhile is noted by its sequence, and
//! is read again when its turn has come. Pure.

use std::collections::{BTreeMap, VecDeque};

use fanfare_domain::feed::Blocked;

/// The most keys that are blocked, and the most events that wait behind them: with more, the feed
/// waits.
const BLOCKED_MAX: usize = 1_000;
const WAITING_MAX: usize = 10_000;

/// How far the delivery is that blocks a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is to be offered.
    Pending,
    /// It is in its lane, or in flight.
    Offered,
    /// It has a fact on record, and has not concluded.
    Begun,
}

/// A key that is blocked.
#[derive(Debug)]
struct Blockade {
    by: u64,
    state: State,
    /// Rising.
    waiting: VecDeque<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    blocked: BTreeMap<u64, Blockade>,
    /// The key that each of them blocks.
    by: BTreeMap<u64, u64>,
    waiting: usize,
}

/// Whether an event's turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has: the key is free, or kept for this very event.
    Free,
    /// It waits behind another one, or is under way.
    Later,
}

impl Keys {
    /// Goes on from what was stored; returns the sequences that are to be offered.
    pub(crate) fn restore(blocked: &[Blocked]) -> (Self, Vec<u64>) {
        let (mut keys, mut pending) = (Self::default(), Vec::new());
        for Blocked { key, by, waiting } in blocked {
            let mut waiting: VecDeque<u64> = waiting.iter().copied().collect();
            let (by, state) = match *by {
                0 => (waiting.pop_front(), State::Pending),
                by => (Some(by), State::Begun),
            };
            let Some(by) = by else { continue };
            pending.extend((state == State::Pending).then_some(by));
            keys.waiting += waiting.len();
            keys.by.insert(by, *key);
            keys.blocked.insert(*key, Blockade { by, state, waiting });
        }
        (keys, pending)
    }

    /// What is to be stored. What is not on record has to be offered again.
    pub(crate) fn stored(&self) -> Vec<Blocked> {
        let stored = |(key, blockade): (&u64, &Blockade)| {
            let (by, first) = match blockade.state {
                State::Pending | State::Offered => (0, Some(blockade.by)),
                State::Begun => (blockade.by, None),
            };
            let waiting = first.into_iter().chain(blockade.waiting.iter().copied()).collect();
            Blocked { key: *key, by, waiting }
        };
        self.blocked.iter().map(stored).collect()
    }

    /// Tells whether no more events can be noted.
    pub(crate) fn is_full(&self) -> bool {
        self.blocked.len() >= BLOCKED_MAX || self.waiting >= WAITING_MAX
    }

    /// Tells whether nothing is blocked.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocked.is_empty()
    }

    /// Asks for an event's turn; notes it if that is later.
    pub(crate) fn turn(&mut self, key: u64, sequence: u64) -> Turn {
        let Some(blockade) = self.blocked.get_mut(&key) else { return Turn::Free };
        if blockade.by == sequence {
            let is_pending = blockade.state == State::Pending;
            return if is_pending { Turn::Free } else { Turn::Later };
        }
        // An event that is read again may be noted, or done.
        if sequence > blockade.by
            && let Err(place) = blockade.waiting.binary_search(&sequence)
        {
            blockade.waiting.insert(place, sequence);
            self.waiting += 1;
        }
        Turn::Later
    }

    /// Notes that an event was offered, which blocks its key.
    pub(crate) fn offered(&mut self, key: u64, sequence: u64) {
        self.block(key, sequence, State::Offered);
    }

    /// Notes that an event is on record and has not concluded, which blocks its key.
    pub(crate) fn begun(&mut self, key: u64, sequence: u64) {
        self.block(key, sequence, State::Begun);
    }

    /// Notes that an event that was offered is to be offered again.
    pub(crate) fn returned(&mut self, sequence: u64) {
        self.set(sequence, State::Pending);
    }

    /// Notes a fact about an event that does not conclude it.
    pub(crate) fn on_record(&mut self, sequence: u64) {
        self.set(sequence, State::Begun);
    }

    /// Notes that an event has concluded, or is gone; returns the one whose turn it is then.
    pub(crate) fn concluded(&mut self, sequence: u64) -> Option<u64> {
        let key = self.by.remove(&sequence)?;
        let blockade = self.blocked.get_mut(&key)?;
        let Some(next) = blockade.waiting.pop_front() else {
            self.blocked.remove(&key);
            return None;
        };
        self.waiting -= 1;
        (blockade.by, blockade.state) = (next, State::Pending);
        self.by.insert(next, key);
        Some(next)
    }

    /// Gives all order up; returns the sequences that are to be offered.
    pub(crate) fn give_up(&mut self) -> Vec<u64> {
        let free = |blockade: Blockade| {
            let pending = (blockade.state == State::Pending).then_some(blockade.by);
            pending.into_iter().chain(blockade.waiting)
        };
        (self.waiting, self.by) = (0, BTreeMap::new());
        std::mem::take(&mut self.blocked).into_values().flat_map(free).collect()
    }

    fn block(&mut self, key: u64, by: u64, state: State) {
        let blockade = self.blocked.entry(key).or_insert_with(|| Blockade {
            by,
            state,
            waiting: VecDeque::new(),
        });
        debug_assert_eq!(blockade.by, by, "a key is blocked by one event");
        blockade.state = state;
        self.by.insert(by, key);
    }

    fn set(&mut self, sequence: u64, state: State) {
        let Some(key) = self.by.get(&sequence) else { return };
        if let Some(blockade) = self.blocked.get_mut(key) {
            blockade.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_for_each_of_its_events_and_others_go_on() {
        let mut keys = Keys::default();
        assert_eq!(keys.turn(7, 1), Turn::Free);
        keys.offered(7, 1);
        assert_eq!([keys.turn(7, 2), keys.turn(7, 3), keys.turn(7, 2)], [Turn::Later; 3]);
        assert_eq!(keys.turn(8, 4), Turn::Free);
        keys.on_record(1);
        assert_eq!(keys.turn(7, 1), Turn::Later, "it waits for its retry");
        assert_eq!(keys.concluded(1), Some(2));
        assert_eq!(keys.turn(7, 2), Turn::Free);
        keys.offered(7, 2);
        assert_eq!((keys.concluded(2), keys.concluded(2)), (Some(3), None));
        keys.offered(7, 3);
        assert_eq!(keys.concluded(3), None);
        assert!(keys.is_empty());
    }

    #[test]
    fn what_was_stored_goes_on_where_it_stood() {
        let mut keys = Keys::default();
        for (key, sequence) in [(7, 1), (8, 4)] {
            keys.offered(key, sequence);
        }
        keys.on_record(1);
        keys.turn(7, 2);
        let stored = keys.stored();
        let expected = [
            Blocked { key: 7, by: 1, waiting: vec![2] },
            Blocked { key: 8, by: 0, waiting: vec![4] },
        ];
        assert_eq!(stored, expected);
        let (mut again, pending) = Keys::restore(&stored);
        assert_eq!(pending, [4]);
        assert_eq!([again.turn(7, 1), again.turn(7, 2)], [Turn::Later; 2]);
        assert_eq!(again.turn(8, 4), Turn::Free);
        assert_eq!(again.stored(), expected);
        assert_eq!(again.give_up(), [2, 4]);
    }
}
