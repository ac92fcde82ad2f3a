//! What each of many has used of a limit.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::{Timestamp, endpoint::RateLimit, gcra::Gcra};

/// When the next request of each is due (GCRA). How many are remembered is bounded.
#[derive(Debug)]
pub(super) struct Book<K> {
    max: usize,
    arrivals: Mutex<BTreeMap<K, Timestamp>>,
}

/// What came of a request, and what is left of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Whether it is within the limit.
    pub(super) within: bool,
    /// How many more may come at once.
    pub(super) left: u32,
    /// How long until the next may come.
    pub(super) next_in: Duration,
    /// How long until as many may come as after a pause.
    pub(super) whole_in: Duration,
}

impl<K: Ord> Book<K> {
    /// Nobody has used anything. Remembers so many.
    pub(super) const fn new(max: usize) -> Self {
        Self { max, arrivals: Mutex::new(BTreeMap::new()) }
    }

    /// Counts a request; `None` if no more can be remembered. Never together with others': limits
    /// differ, and what one has used is nobody else's fault.
    pub(super) fn take(&self, who: K, limit: &RateLimit, now: Timestamp) -> Option<Taken> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.len() >= self.max && !arrivals.contains_key(&who) {
            // Who has not used anything of late has all of it again.
            arrivals.retain(|_, arrival| *arrival > now);
            if arrivals.len() >= self.max {
                return None;
            }
        }
        let arrival = arrivals.entry(who).or_insert(Timestamp::EPOCH);
        let mut gcra = Gcra::new(limit, *arrival);
        let within = gcra.take(now);
        *arrival = gcra.arrival();
        Some(Taken::of(limit, within, gcra.arrival(), now))
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Taken {
    fn of(limit: &RateLimit, within: bool, arrival: Timestamp, now: Timestamp) -> Self {
        let whole_in = arrival.since(now);
        let tolerance = Gcra::tolerance(limit);
        let left = tolerance.checked_sub(whole_in).map_or(0, |room| {
            let more = room.as_nanos() / limit.interval().as_nanos().max(1);
            u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
        });
        let next_in = whole_in.saturating_sub(tolerance);
        Self { within, left: left.min(limit.requests.get()), next_in, whole_in }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use fanfare_domain::endpoint::RatePeriod;

    use super::*;

    fn limit(requests: u32, burst: u32) -> RateLimit {
        let count = |count| NonZeroU32::new(count).unwrap();
        RateLimit { requests: count(requests), per: RatePeriod::Second, burst: count(burst) }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(3_600_000 + millis)
    }

    #[test]
    fn each_has_all_at_once_and_then_its_rate() {
        let book = Book::new(8);
        let limit = limit(2, 3);
        let count = |who: u32, millis| {
            (0..10).filter(|_| book.take(who, &limit, at(millis)).unwrap().within).count()
        };
        assert_eq!((count(1, 0), count(2, 0)), (3, 3));
        assert_eq!((count(1, 499), count(1, 500), count(1, 1_500)), (0, 1, 2));
        assert_eq!(count(1, 60_000), 3);
    }

    #[test]
    fn who_asks_is_told_what_is_left_and_how_long_to_wait() {
        let book = Book::new(8);
        let limit = limit(2, 2);
        let millis = Duration::from_millis;
        let taken = |within, left, next_in, whole_in| Taken {
            within,
            left,
            next_in: millis(next_in),
            whole_in: millis(whole_in),
        };
        assert_eq!(book.take(1, &limit, at(0)).unwrap(), taken(true, 1, 0, 500));
        assert_eq!(book.take(1, &limit, at(0)).unwrap(), taken(true, 0, 500, 1_000));
        assert_eq!(book.take(1, &limit, at(100)).unwrap(), taken(false, 0, 400, 900));
        assert_eq!(book.take(1, &limit, at(500)).unwrap(), taken(true, 0, 500, 1_000));
    }

    #[test]
    fn who_finds_no_room_is_not_counted_and_the_rested_are_forgotten() {
        let book = Book::new(2);
        let (slow, usual) = (limit(1, 1), limit(1_000, 1_000));
        let take = |who: u32, limit, millis| book.take(who, limit, at(millis));
        assert!(take(1, &slow, 0).is_some() && take(2, &slow, 0).is_some());
        assert_eq!(take(3, &usual, 0), None, "others are not held up by the slow ones");
        assert!(!take(1, &slow, 0).unwrap().within);
        assert_eq!(book.len(), 2);
        assert!(take(5, &slow, 1_000).is_some() && take(6, &slow, 1_000).is_some());
        assert_eq!(book.len(), 2);
    }
}
