//! Endpoints that asked to be left alone, from owner to owner.

use fanfare_domain::{EndpointId, Timestamp};

use super::{Lane, Lanes};

impl<T> Lanes<T> {
    /// Until when endpoints asked to be left alone, for a hand-over.
    pub(crate) fn quiet(&self, now: Timestamp) -> Vec<(EndpointId, Timestamp)> {
        let quiet = |(endpoint, lane): (&EndpointId, &Lane<T>)| {
            lane.health(now).quiet_until.map(|until| (*endpoint, until))
        };
        self.by_endpoint.iter().filter_map(quiet).collect()
    }

    /// Leaves an endpoint alone, as it asked an owner before us.
    pub(crate) fn leave_alone(&mut self, endpoint: EndpointId, until: Timestamp, now: Timestamp) {
        if until <= now {
            return;
        }
        let since = self.since;
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(|| Lane::new(since, now));
        lane.leave_alone(until);
        self.line_up(endpoint, now);
    }
}
