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

    /// Queues a first attempt of a feed, for which there is [room](Self::feed_room).
    pub(crate) fn feed(&mut self, endpoint: EndpointId, (item, load): (T, Load), now: Timestamp) {
        let since = self.since;
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(|| Lane::new(since, now));
        lane.push(Kind::First, item, load, now);
        self.queued += 1;
        self.line_up(endpoint, now);
    }
}
