//! What may not be sent yet, because its tenant's rate limit keeps a later time for it.
//!
//! What waits a moment does so here, and lines up at its time; longer waits are put off.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{Timestamp, fact::DeferReason};

use super::{ShardWorker, Waiting};
use crate::lanes::{Arrival, PutOff};

/// How long a delivery waits here.
const STAY: Duration = Duration::from_secs(2);

/// What waits for its time, the earliest first.
#[derive(Debug)]
pub(super) struct Early<T> {
    waiting: BTreeMap<(Timestamp, u64), T>,
    /// Numbers what came, so that what has the same time keeps its order.
    came: u64,
}

impl<T> Early<T> {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self { waiting: BTreeMap::new(), came: 0 }
    }

    fn push(&mut self, at: Timestamp, item: T) {
        self.waiting.insert((at, self.came), item);
        self.came += 1;
    }

    /// Takes what has its time by now.
    fn pop(&mut self, now: Timestamp) -> Option<T> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// Takes out what is chosen.
    pub(super) fn give_up(&mut self, is_meant: impl Fn(&T) -> bool) -> Vec<T> {
        self.waiting.extract_if(.., |_, item| is_meant(item)).map(|(_, item)| item).collect()
    }

    /// How many there are of a kind.
    pub(super) fn count(&self, is_meant: impl Fn(&T) -> bool) -> usize {
        self.waiting.iter().filter(|(_, item)| is_meant(item)).count()
    }

    /// When the next has its time.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }
}

impl ShardWorker {
    /// Lines an attempt up, at its time. `has_turn` as in [`Arrival`].
    pub(super) fn arrive(&mut self, item: Waiting, has_turn: bool, now: Timestamp) {
        if self.orders.cancels(item.job.delivery.id) {
            return self.end_waiting(item);
        }
        match item.job.not_before {
            Some(until) if until > now.saturating_add(STAY) => {
                let reason = DeferReason::TenantRateLimit;
                self.put_off(PutOff { item, until, reason }, now);
            }
            Some(at) if at > now => self.early.push(at, item),
            Some(_) | None => self.line_up(item, has_turn, now),
        }
    }

    /// Lines up what has its time by now. The rulebook must have been renewed.
    pub(super) fn let_in(&mut self, now: Timestamp) {
        while let Some(item) = self.early.pop(now) {
            self.line_up(item, false, now);
        }
    }

    fn line_up(&mut self, item: Waiting, has_turn: bool, now: Timestamp) {
        let job = &item.job;
        let (endpoint, kind, load) = (job.delivery.endpoint, job.kind(), job.load());
        let arrival = Arrival { endpoint, kind, has_turn, load, item };
        let rules = self.rulebook.rules(&self.desk, endpoint);
        if let Some(put_off) = self.lanes.queue(arrival, rules, now) {
            self.put_off(put_off, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_at_its_time_and_those_of_one_time_in_their_order() {
        let at = Timestamp::from_millis;
        let mut early = Early::new();
        for (time, item) in [(20, 'c'), (10, 'a'), (20, 'd'), (10, 'b')] {
            early.push(at(time), item);
        }
        assert_eq!((early.wake_at(), early.pop(at(9))), (Some(at(10)), None));
        let by = |early: &mut Early<char>, now| -> String {
            std::iter::from_fn(|| early.pop(at(now))).collect()
        };
        assert_eq!(by(&mut early, 19), "ab");
        assert_eq!(by(&mut early, 20), "cd");
        assert_eq!(early.wake_at(), None);
    }

    #[test]
    fn what_is_given_up_does_not_come() {
        let at = Timestamp::from_millis;
        let mut early = Early::new();
        for (time, item) in [(10, 'a'), (20, 'b'), (30, 'c')] {
            early.push(at(time), item);
        }
        assert_eq!(early.give_up(|item| *item != 'b'), ['a', 'c']);
        assert_eq!((early.wake_at(), early.pop(at(30))), (Some(at(20)), Some('b')));
        assert_eq!(early.pop(at(30)), None);
    }
}
