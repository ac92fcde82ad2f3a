//! What feeds have to do with lanes.

use fanfare_domain::{EndpointId, Timestamp};

use super::{Kind, Lanes, Load, Rules, lane::Lane};

impl<T> Lanes<T> {
    /// How many first attempts a feed should keep in the endpoint's lane, and how many more there is
    /// room for; `None` if the lane takes none for now.
    pub(crate) fn feed_room(
        &mut self,
        endpoint: EndpointId,
        rules: Rules,
        now: Timestamp,
    ) -> Option<(usize, usize)> {
        let (bounds, since) = (self.bounds(), self.since);
        let Some(lane) = self.by_endpoint.get_mut(&endpoint) else {
            let mut lane = Lane::<T>::new(since, now);
            lane.apply(rules, now);
            return lane.feed_room(bounds, now);
        };
        lane.apply(rules, now);
        lane.feed_room(bounds, now)
    }

    /// Tells whether the endpoint's lane takes first attempts without putting them off.
    pub(crate) fn takes_firsts(&self, endpoint: EndpointId, now: Timestamp) -> bool {
        self.by_endpoint.get(&endpoint).is_none_or(|lane| lane.takes_firsts(now))
    }

    /// Takes out the first attempts that wait for an endpoint and that `is_wanted` chooses.
    pub(crate) fn give_up(
        &mut self,
        endpoint: EndpointId,
        is_wanted: impl Fn(&T) -> bool,
        now: Timestamp,
    ) -> Vec<T> {
        let Some(lane) = self.by_endpoint.get_mut(&endpoint) else { return Vec::new() };
        let given_up = lane.give_up(is_wanted);
        self.queued = self.queued.saturating_sub(given_up.len());
        self.line_up(endpoint, now);
        given_up
    }

    /// Takes out the attempts that wait for an endpoint and that `is_wanted` chooses.
    pub(crate) fn take_out(
        &mut self,
        endpoint: EndpointId,
        is_wanted: impl Fn(&T) -> bool,
        now: Timestamp,
    ) -> Vec<T> {
        let Some(lane) = self.by_endpoint.get_mut(&endpoint) else { return Vec::new() };
        let taken = lane.take_out(is_wanted);
        self.queued = self.queued.saturating_sub(taken.len());
        self.line_up(endpoint, now);
        taken
    }

    /// Queues a first attempt of a feed, for which there is [room](Self::feed_room).
    pub(crate) fn feed(&mut self, endpoint: EndpointId, (item, load): (T, Load), now: Timestamp) {
        let since = self.since;
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(|| Lane::new(since, now));
        lane.push(Kind::First, item, load, now);
        self.queued += 1;
        self.line_up(endpoint, now);
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, time::Duration};

    use fanfare_domain::endpoint::{Batching, Ordering};

    use super::*;
    use crate::{
        lanes::{Arrival, Started},
        permits::Permits,
    };

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn rules(max_events: Option<u16>) -> Rules {
        let max_events = max_events.and_then(NonZeroU16::new);
        let batch = max_events.map(|max_events| Batching { max_events, max_wait: Duration::ZERO });
        Rules { concurrency: 1, rate: None, breaker: false, batch, ordering: Ordering::None }
    }

    fn endpoint() -> EndpointId {
        EndpointId::from_bytes([1; 16])
    }

    fn fill(lanes: &mut Lanes<usize>, rules: Rules) -> usize {
        let mut fed = 0;
        while let Some((_, room)) = lanes.feed_room(endpoint(), rules, NOW).filter(|it| it.1 > 0) {
            for _ in 0..room {
                lanes.feed(endpoint(), (fed, Load { attempt: 1, ..Load::default() }), NOW);
                fed += 1;
            }
        }
        fed
    }

    #[test]
    fn a_feed_fills_batches() {
        let permits = Permits::new(4);
        for (max_events, expected) in [(None, 0), (Some(50), 49), (Some(1_000), 999)] {
            let (mut lanes, rules) = (Lanes::new(NOW), rules(max_events));
            let fed = fill(&mut lanes, rules);
            assert!(fed > expected, "{fed}");
            let started = lanes.start(|_| rules, &permits.door(), NOW).unwrap();
            let Started { item, more, .. } = started;
            assert_eq!((item, more.len()), (0, expected));
            assert_eq!(more, (1..=expected).collect::<Vec<_>>());
            assert_eq!(lanes.queued(), fed - 1 - expected);
        }
    }

    #[test]
    fn what_is_given_up_waits_no_more() {
        let permits = Permits::new(4);
        let (mut lanes, rules) = (Lanes::new(NOW), rules(Some(2)));
        let fed = fill(&mut lanes, rules);
        let given_up = lanes.give_up(endpoint(), |item| item % 2 == 0, NOW);
        assert_eq!(given_up, (0..fed).filter(|item| item % 2 == 0).collect::<Vec<_>>());
        assert_eq!(lanes.queued(), fed / 2);
        let started = lanes.start(|_| rules, &permits.door(), NOW).unwrap();
        assert_eq!((started.item, started.more), (1, vec![3]));
        let rest = lanes.give_up(endpoint(), |_| true, NOW);
        assert_eq!(rest.len(), fed / 2 - 2);
        assert_eq!(lanes.queued(), 0);
    }

    #[test]
    fn retries_are_taken_out_also_of_their_groups() {
        for max_events in [None, Some(4)] {
            let (mut lanes, rules) = (Lanes::new(NOW), rules(max_events));
            for item in 0..6 {
                let load = Load { attempt: 2 + item % 2, ..Load::default() };
                let (kind, has_turn, item) = (Kind::Retry, false, item);
                let arrival = Arrival { endpoint: endpoint(), kind, has_turn, load, item };
                assert!(lanes.queue(arrival, rules, NOW).is_none());
            }
            let mut taken = lanes.take_out(endpoint(), |item| *item < 3, NOW);
            taken.sort_unstable();
            assert_eq!((taken, lanes.queued()), (vec![0, 1, 2], 3));
            assert!(lanes.take_out(endpoint(), |item| *item < 3, NOW).is_empty());
        }
    }
}
