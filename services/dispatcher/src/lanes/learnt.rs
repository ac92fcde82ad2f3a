//! What was learnt of endpoints that fail or have too much to do, from owner to owner.

use fanfare_domain::{BreakerMemory, EndpointId, Timestamp, WindowMemory};

use super::{Breaker, Lane, Lanes, Phase, Rules, window::Window};

/// What was learnt of an endpoint, as far as it speaks against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Learnt {
    /// What its breaker has come to.
    pub(crate) breaker: Option<BreakerMemory>,
    /// How many requests it seems to bear.
    pub(crate) window: Option<WindowMemory>,
}

impl<T> Lanes<T> {
    /// What was learnt of endpoints, for a hand-over.
    pub(crate) fn learnt(&self) -> Vec<(EndpointId, Learnt)> {
        let lanes = self.by_endpoint.iter().map(|(endpoint, lane)| (*endpoint, lane.learnt()));
        lanes.filter(|(_, learnt)| *learnt != Learnt::default()).collect()
    }

    /// Goes on with what an owner before us has learnt of an endpoint. `rules` are its present ones.
    pub(crate) fn remember(
        &mut self,
        endpoint: EndpointId,
        learnt: Learnt,
        rules: Rules,
        now: Timestamp,
    ) {
        if learnt == Learnt::default() {
            return;
        }
        let since = self.since;
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(|| Lane::new(since, now));
        lane.apply(rules, now);
        lane.remember(learnt, now);
        self.line_up(endpoint, now);
    }
}

impl<T> Lane<T> {
    fn learnt(&self) -> Learnt {
        Learnt { breaker: self.breaker.memory(), window: self.window.memory() }
    }

    fn remember(&mut self, Learnt { breaker, window }: Learnt, now: Timestamp) {
        if let Some(memory) = breaker.filter(|_| self.has_breaker()) {
            self.breaker = Breaker::of(memory, now);
        }
        match window {
            Some(memory) => self.window = Window::of(memory, now),
            // What recovers starts slowly.
            None if self.breaker.phase() == Phase::Recovering => self.window.restart(now),
            None => {}
        }
    }
}
