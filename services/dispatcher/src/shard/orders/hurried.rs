//! Attempts that a person wants now, and that wait in their lane behind others.

use fanfare_domain::{command::Aim, endpoint::Ordering};

use super::{ShardWorker, Waiting};
use crate::ledger::Standing;

impl ShardWorker {
    /// Has an attempt that waits in its lane go next; returns whether it does. Where there is order, it
    /// cannot.
    pub(super) fn hurry(&mut self, aim: &Aim) -> bool {
        let (id, endpoint) = (aim.delivery.id, aim.delivery.endpoint);
        let is_meant = match self.ledger.standing(id) {
            Standing::Unknown => true,
            Standing::Next(next) => next == aim.attempt,
            Standing::Concluded => false,
        };
        let ordering = self.rulebook.rules(&self.desk, endpoint).ordering;
        if !is_meant || !self.ledger.is_live(id) || ordering != Ordering::None {
            return false;
        }
        let now = self.desk.now();
        let is_it = |waiting: &Waiting| waiting.job.delivery.id == id;
        let taken = self.lanes.take_out(endpoint, is_it, now);
        let waits = !taken.is_empty();
        for waiting in taken {
            let (kind, load) = (waiting.job.kind(), waiting.job.load());
            self.lanes.give_back(endpoint, kind, vec![(waiting, load)], now);
        }
        waits
    }
}
