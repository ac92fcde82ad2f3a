//! Commands for deliveries of which it is not known yet whose they are, or of which a feed remembers
//! too many: they are looked at again when the feed is stored.

use fanfare_domain::{EndpointId, command::Aim};

use super::{Orders, ShardWorker};

impl Orders {
    /// Notes what a command aims at that waits.
    pub(super) fn decide_later(&mut self, aim: Aim) {
        self.undecided.entry(aim.delivery.endpoint).or_default().push(aim);
    }
}

impl ShardWorker {
    /// Ends the deliveries of an endpoint that a command waits for, and that are its feed's for sure
    /// by now. What has ended or begun meanwhile is forgotten.
    pub(in crate::shard) fn decide_orders(&mut self, endpoint: EndpointId) {
        let Some(aims) = self.orders.undecided.remove(&endpoint) else { return };
        let mut left = Vec::new();
        for aim in aims {
            if !self.orders.cancels(aim.delivery.id) {
                continue;
            }
            if self.feeds.may_end(&aim.delivery) {
                self.end(&aim.delivery, aim.attempt, &aim.trace);
            } else {
                left.push(aim);
            }
        }
        if !left.is_empty() {
            self.orders.undecided.insert(endpoint, left);
        }
    }
}
