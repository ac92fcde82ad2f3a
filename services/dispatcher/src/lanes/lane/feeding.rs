//! What a lane says to the feed of its endpoint.

use std::time::Duration;

use fanfare_domain::Timestamp;

use super::{Bounds, Kind, Lane, put_off::AHEAD};
use crate::lanes::breaker::Phase;

/// How much work of a feed a lane holds, and how many deliveries at most.
const FED_AHEAD: Duration = Duration::from_millis(100);
const FED_MAX: usize = 512;

impl<T> Lane<T> {
    /// How many first attempts a feed should keep here, and how many more there is room for; `None`
    /// if there is no use in any for now.
    pub(in crate::lanes) fn feed_room(
        &self,
        bounds: Bounds,
        now: Timestamp,
    ) -> Option<(usize, usize)> {
        if self.is_quiet(now) {
            return None;
        }
        if self.held_until(now).is_some() {
            // One, to be let through where no retry is the probe.
            return self.firsts.is_empty().then_some((1, 1));
        }
        let window = usize::from(self.window.limit(self.rules.concurrency));
        let soon = FED_AHEAD.as_nanos() / self.pace().as_nanos().max(1);
        let soon = usize::try_from(soon).unwrap_or(usize::MAX);
        let later = AHEAD.as_nanos() / self.pace().as_nanos().max(1);
        let later = usize::try_from(later).unwrap_or(usize::MAX);
        let bound = self.bound(Kind::First, bounds, now).max(1);
        let together = self.fill().map_or(1, |fill| fill.max);
        let requests = (2 * window).max(soon).min(later.max(1));
        let most = bound.min(FED_MAX.max(together));
        let wanted = requests.saturating_mul(together).min(most);
        Some((wanted, wanted.saturating_sub(self.firsts.len())))
    }

    /// Tells whether first attempts are sent as fast as they come, or will be soon.
    pub(in crate::lanes) fn takes_firsts(&self, now: Timestamp) -> bool {
        !self.is_quiet(now) && self.breaker.phase() == Phase::Closed
    }

    /// Takes out the attempts that `is_wanted` chooses, first and later ones.
    pub(in crate::lanes) fn take_out(&mut self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = self.firsts.extract(&is_wanted);
        taken.append(&mut self.retries.extract(&is_wanted));
        taken
    }

    /// Takes out the first attempts that `is_wanted` chooses.
    pub(in crate::lanes) fn give_up(&mut self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        self.firsts.extract(is_wanted)
    }
}
