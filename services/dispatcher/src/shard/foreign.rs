//! What owners before us have in flight: deliveries, of which several can be one request.

use std::collections::BTreeMap;

use fanfare_domain::{DeliveryId, Timestamp, fact::InFlight};

use crate::legacy::MARGIN;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    deliveries: BTreeMap<DeliveryId, InFlight>,
    /// How many deliveries of each request are left.
    requests: BTreeMap<DeliveryId, usize>,
}

impl Foreign {
    /// Adds a delivery; tells whether its request is a new one.
    pub(super) fn add(&mut self, delivery: InFlight) -> bool {
        self.deliveries.insert(delivery.delivery, delivery);
        let count = self.requests.entry(delivery.request).or_default();
        *count += 1;
        *count == 1
    }

    /// A delivery that is waited for.
    pub(super) fn get(&self, delivery: DeliveryId) -> Option<&InFlight> {
        self.deliveries.get(&delivery)
    }

    /// Waits no more for a delivery; also tells whether its request has no other.
    pub(super) fn remove(&mut self, delivery: DeliveryId) -> Option<(InFlight, bool)> {
        let found = self.deliveries.remove(&delivery)?;
        let left = self.requests.get_mut(&found.request)?;
        *left -= 1;
        let is_last = *left == 0;
        if is_last {
            self.requests.remove(&found.request);
        }
        Some((found, is_last))
    }

    /// The deliveries whose requests are over, by now.
    pub(super) fn overdue(&self, now: Timestamp) -> Vec<DeliveryId> {
        let is_over = |it: &&InFlight| it.ends_by.saturating_add(MARGIN) <= now;
        self.deliveries.values().filter(is_over).map(|it| it.delivery).collect()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.deliveries.values()
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::EndpointId;

    use super::*;

    fn delivery(n: u8) -> DeliveryId {
        DeliveryId::from_bytes([n; 16])
    }

    fn in_flight(n: u8, request: u8, second: u64) -> InFlight {
        InFlight {
            delivery: delivery(n),
            attempt: 1,
            endpoint: EndpointId::from_bytes([1; 16]),
            ends_by: Timestamp::from_millis(second * 1_000),
            request: delivery(request),
        }
    }

    #[test]
    fn a_request_is_over_with_its_last_delivery() {
        let mut foreign = Foreign::default();
        let added =
            [(1, 1), (2, 1), (3, 3), (4, 1)].map(|(n, of)| foreign.add(in_flight(n, of, 5)));
        assert_eq!(added, [true, false, true, false]);
        // Also if the one that names it is not the last.
        let removed = [1, 3, 4, 2, 9].map(|n| foreign.remove(delivery(n)).map(|(_, last)| last));
        assert_eq!(removed, [Some(false), Some(true), Some(false), Some(true), None]);
        assert_eq!(foreign.iter().count(), 0);
    }

    #[test]
    fn what_is_over_is_found() {
        let mut foreign = Foreign::default();
        for (n, second) in [(1, 5), (2, 6), (3, 5)] {
            foreign.add(in_flight(n, n, second));
        }
        assert_eq!(foreign.overdue(Timestamp::from_millis(6_999)), []);
        assert_eq!(foreign.overdue(Timestamp::from_millis(7_000)), [delivery(1), delivery(3)]);
    }
}
