//! Feeds: endpoints whose events their shard's owner reads from EVENTS by a cursor, instead of
//! getting a task for each.
//!
//! ```text
//! EVENTS  ──┬────────────┬──────────────────────┬──────────▶
//!           │   tasks    │    the feed's own    │   tasks
//!                       from                  until
//! ```
//!
//! Which events a feed covers is decided by their sequence alone. So it does not matter when an
//! event is routed: a task for an event that is the feed's is dropped, and every event outside has
//! a task. `from` lies above everything that the owner was ever given as a task; `until` is read
//! from EVENTS after the closing was stored, so that whatever comes later is routed by somebody
//! who has seen it, or who leaves nothing to feeds.

use sha2::{Digest as _, Sha256};

use crate::{EndpointId, TenantId, Timestamp};

/// An endpoint's feed, as its shard's owner stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Whose endpoint it is.
    pub tenant: TenantId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The first sequence of EVENTS that it covers.
    pub from: u64,
    /// Whether it goes on.
    pub phase: Phase,
    /// Why it was opened.
    pub reason: Reason,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The cursor, some seconds behind: every event of the feed below this sequence has a fact on
    /// record, or waits in `blocked`.
    pub next: u64,
    /// Ordering keys that wait for a delivery to conclude.
    pub blocked: Vec<Blocked>,
    /// What it covered before, as long as a late task for that may come.
    pub past: Vec<Interval>,
    /// Sequences of events whose deliveries were ended, or begun at a person's wish, before the cursor
    /// has come to them, or while they wait in `blocked`; in order. If it has [`Feed::ENDED_MAX`], there may be more.
    pub ended: Vec<u64>,
    /// A sequence of JOURNAL behind which all of those ends are on record; 0 if none is known, and
    /// there are no more than are named.
    pub ended_since: u64,
    /// First attempts that had been put off when the feed took them over: their alarm clocks may be
    /// set, and nothing is to be done when they go off. In order.
    pub taken_over: Vec<PutOff>,
}

/// A first attempt that was put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PutOff {
    /// The sequence of its event.
    pub sequence: u64,
    /// Until when.
    pub until: Timestamp,
}

/// Whether a feed goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It covers everything from its beginning on.
    Open,
    /// It is about to end, and its owner is finding out where. Events are routed as usual.
    Closing,
    /// It covers nothing beyond this sequence.
    Closed {
        /// The last sequence that it covers.
        until: u64,
        /// When that was decided.
        at: Timestamp,
    },
}

/// Why a feed was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many deliveries had to be put off.
    Backlog,
    /// The endpoint is paused, and gets everything once it is resumed.
    Hold,
    /// The endpoint wants its events in order.
    Ordered,
}

/// Sequences of EVENTS, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The first one.
    pub from: u64,
    /// The last one.
    pub until: u64,
    /// When the end was decided.
    pub closed_at: Timestamp,
}

impl Interval {
    /// Tells whether an event lies in it.
    pub fn contains(&self, sequence: u64) -> bool {
        (self.from..=self.until).contains(&sequence)
    }
}

/// An ordering key that has a delivery under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The key; see [`key_of`].
    pub key: u64,
    /// The sequence of the event whose delivery has not concluded. It was begun.
    pub by: u64,
    /// Sequences of the events of that key that wait for it, in order.
    pub waiting: Vec<u64>,
}

/// Whose an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// A task's.
    Outside,
    /// The feed's.
    Inside,
    /// That is not decided yet: the feed is closing.
    Open,
}

impl Feed {
    /// The most intervals that are remembered; a feed with as many is not opened again before some
    /// are forgotten.
    pub const PAST_MAX: usize = 64;

    /// The most deliveries that are named as ended. Which others were is found in JOURNAL; those that
    /// were begun are all named.
    pub const ENDED_MAX: usize = 10_000;

    /// The key of events that wait for nothing but to be read: they lie before the beginning, and
    /// were given up to the feed when it was opened.
    pub const GIVEN_UP: u64 = 0;

    /// Tells whether it makes a first attempt that was put off until then, in the place of its alarm
    /// clock.
    pub fn took_over(&self, put_off: PutOff) -> bool {
        self.taken_over.binary_search(&put_off).is_ok()
    }

    /// Judges whose an event of this sequence is.
    pub fn cover(&self, sequence: u64) -> Cover {
        let mut given_up = self.blocked.iter().filter(|blocked| blocked.key == Self::GIVEN_UP);
        if given_up.any(|blocked| blocked.waiting.binary_search(&sequence).is_ok()) {
            return Cover::Inside;
        }
        if self.past.iter().any(|past| past.contains(sequence)) {
            return Cover::Inside;
        }
        if sequence < self.from {
            return Cover::Outside;
        }
        match self.phase {
            Phase::Open => Cover::Inside,
            Phase::Closing => Cover::Open,
            Phase::Closed { until, .. } if sequence <= until => Cover::Inside,
            Phase::Closed { .. } => Cover::Outside,
        }
    }
}

/// Returns what stands for an ordering key: the first 8 bytes of its SHA-256. Two keys that share
/// it wait for each other, and nothing worse.
pub fn key_of(ordering_key: &str) -> u64 {
    let digest = Sha256::digest(ordering_key.as_bytes());
    digest.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1);

    fn feed(phase: Phase) -> Feed {
        Feed {
            tenant: "acme".parse().unwrap(),
            endpoint: EndpointId::from_bytes([1; 16]),
            from: 100,
            phase,
            reason: Reason::Backlog,
            opened_at: AT,
            next: 100,
            blocked: vec![Blocked { key: Feed::GIVEN_UP, by: 0, waiting: vec![7, 90] }],
            past: vec![Interval { from: 10, until: 20, closed_at: AT }],
            ended: Vec::new(),
            ended_since: 0,
            taken_over: Vec::new(),
        }
    }

    #[test]
    fn every_event_is_the_feeds_or_a_tasks() {
        use Cover::{Inside, Open, Outside};
        let closed = Phase::Closed { until: 200, at: AT };
        for (sequence, expected) in [
            (7, [Inside; 3]),
            (9, [Outside; 3]),
            (10, [Inside; 3]),
            (20, [Inside; 3]),
            (21, [Outside; 3]),
            (90, [Inside; 3]),
            (99, [Outside; 3]),
            (100, [Inside, Open, Inside]),
            (200, [Inside, Open, Inside]),
            (201, [Inside, Open, Outside]),
        ] {
            let found = [Phase::Open, Phase::Closing, closed].map(|it| feed(it).cover(sequence));
            assert_eq!(found, expected, "{sequence}");
        }
    }

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(key_of("order-1"), key_of("order-1"));
        assert_ne!(key_of("order-1"), key_of("order-2"));
    }
}
