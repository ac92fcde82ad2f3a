//! The times that were given to events lately: an event that is handed out again, because its tasks
//! waited for room, has them already.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fanfare_domain::{EventId, Timestamp};

/// How many times are kept.
const TIMES_MAX: usize = 1 << 18;

/// The times of events, under the revision of the limit that they are of.
#[derive(Debug, Default)]
pub(super) struct Lately {
    times: BTreeMap<(EventId, u64), Arc<[Timestamp]>>,
    /// The keys, oldest first.
    order: VecDeque<(EventId, u64)>,
    count: usize,
}

impl Lately {
    /// The times that an event was given.
    pub(super) fn find(&self, event: EventId, revision: u64) -> Option<Arc<[Timestamp]>> {
        self.times.get(&(event, revision)).cloned()
    }

    /// Keeps an event's times, and forgets the oldest ones beyond the number that is kept.
    pub(super) fn keep(&mut self, event: EventId, revision: u64, times: Arc<[Timestamp]>) {
        let key = (event, revision);
        self.count += times.len();
        match self.times.insert(key, times) {
            Some(before) => self.count -= before.len(),
            None => self.order.push_back(key),
        }
        while self.count > TIMES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.count -= self.times.remove(&oldest).map_or(0, |times| times.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u8) -> EventId {
        EventId::new(Timestamp::EPOCH, [number; 10])
    }

    fn times(count: usize) -> Arc<[Timestamp]> {
        vec![Timestamp::EPOCH; count].into()
    }

    #[test]
    fn an_event_has_its_times_until_many_others_have_theirs() {
        let mut lately = Lately::default();
        lately.keep(event(1), 1, times(5));
        assert_eq!(lately.find(event(1), 1), Some(times(5)));
        assert_eq!(lately.find(event(1), 2), None, "of another limit");
        lately.keep(event(2), 1, times(TIMES_MAX - 5));
        assert_eq!(lately.find(event(1), 1), Some(times(5)));
        lately.keep(event(3), 1, times(1));
        assert_eq!(lately.find(event(1), 1), None);
        assert_eq!(lately.count, TIMES_MAX - 4);
    }
}
