//! Lanes: what waits for each endpoint, and whose turn it is.
//!
//! A lane holds what is queued for one endpoint and counts what is in flight to it. Lanes with
//! something to send take turns, so that a busy endpoint does not crowd out a quiet one. Pure:
//! no clock, no I/O.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use fanfare_domain::{EndpointId, Timestamp};

/// How many deliveries a lane takes, however slow its endpoint is.
const QUEUE_SHORT: usize = 64;

/// How long the head of a lane may have waited before the lane counts as slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// The shortest and longest time for which a delivery is put off.
const DEFER_MIN: Duration = Duration::from_secs(2);
const DEFER_MAX: Duration = Duration::from_mins(5);

/// The lanes of one shard.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    by_endpoint: HashMap<EndpointId, Lane<T>>,
    /// Lanes that have something to send and room in flight, in the order of their turns.
    ready: VecDeque<EndpointId>,
    queued: usize,
}

#[derive(Debug)]
struct Lane<T> {
    queue: VecDeque<(Timestamp, T)>,
    in_flight: u16,
    concurrency: u16,
    is_ready: bool,
}

/// What became of a delivery that was to be queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Queued<T> {
    /// It waits in its lane.
    Yes,
    /// The lane is full and slow: it is to be put off until then.
    Deferred(T, Timestamp),
}

impl<T> Lanes<T> {
    /// Makes no lanes.
    pub(crate) fn new() -> Self {
        Self { by_endpoint: HashMap::new(), ready: VecDeque::new(), queued: 0 }
    }

    /// Queues a delivery, unless its lane is full and slow. `concurrency` is the endpoint's
    /// present limit.
    pub(crate) fn queue(
        &mut self,
        endpoint: EndpointId,
        concurrency: u16,
        now: Timestamp,
        item: T,
    ) -> Queued<T> {
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(Lane::new);
        lane.concurrency = concurrency.max(1);
        let waited = lane.queue.front().map_or(Duration::ZERO, |(since, _)| now.since(*since));
        if lane.queue.len() >= QUEUE_SHORT && waited > SLOW_AFTER {
            let wait = (waited * 2).clamp(DEFER_MIN, DEFER_MAX);
            return Queued::Deferred(item, now.saturating_add(wait));
        }
        lane.queue.push_back((now, item));
        self.queued += 1;
        self.line_up(endpoint);
        Queued::Yes
    }

    /// Takes the delivery whose turn it is, and counts it as in flight.
    pub(crate) fn start(&mut self) -> Option<(EndpointId, T)> {
        let endpoint = self.ready.pop_front()?;
        let lane = self.by_endpoint.get_mut(&endpoint)?;
        lane.is_ready = false;
        let (_, item) = lane.queue.pop_front()?;
        lane.in_flight += 1;
        self.queued -= 1;
        self.line_up(endpoint);
        Some((endpoint, item))
    }

    /// Notes that a delivery to the endpoint is no longer in flight.
    pub(crate) fn finish(&mut self, endpoint: EndpointId) {
        if let Some(lane) = self.by_endpoint.get_mut(&endpoint) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
            if lane.in_flight == 0 && lane.queue.is_empty() {
                self.by_endpoint.remove(&endpoint);
                return;
            }
        }
        self.line_up(endpoint);
    }

    /// How many deliveries wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Tells whether a delivery could be started.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn line_up(&mut self, endpoint: EndpointId) {
        let Some(lane) = self.by_endpoint.get_mut(&endpoint) else { return };
        if !lane.is_ready && !lane.queue.is_empty() && lane.in_flight < lane.concurrency {
            lane.is_ready = true;
            self.ready.push_back(endpoint);
        }
    }
}

impl<T> Lane<T> {
    fn new() -> Self {
        Self { queue: VecDeque::new(), in_flight: 0, concurrency: 1, is_ready: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn endpoint(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 16])
    }

    #[test]
    fn lanes_take_turns() {
        let mut lanes = Lanes::new();
        for item in 0..3 {
            lanes.queue(endpoint(1), 16, NOW, item);
        }
        lanes.queue(endpoint(2), 16, NOW, 9);
        let order: Vec<_> = std::iter::from_fn(|| lanes.start()).map(|(_, item)| item).collect();
        assert_eq!(order, [0, 9, 1, 2]);
    }

    #[test]
    fn a_cap_is_never_exceeded() {
        let mut lanes = Lanes::new();
        for item in 0..5 {
            lanes.queue(endpoint(1), 2, NOW, item);
        }
        assert_eq!(std::iter::from_fn(|| lanes.start()).count(), 2);
        lanes.finish(endpoint(1));
        assert_eq!(std::iter::from_fn(|| lanes.start()).count(), 1);
        assert_eq!(lanes.queued(), 2);
    }

    #[test]
    fn only_a_slow_lane_puts_off() {
        let mut lanes = Lanes::new();
        let later = NOW.saturating_add(Duration::from_secs(3));
        for item in 0..1_000 {
            assert_eq!(lanes.queue(endpoint(1), 1, NOW, item), Queued::Yes);
        }
        let put_off = lanes.queue(endpoint(1), 1, later, 7);
        assert_eq!(put_off, Queued::Deferred(7, later.saturating_add(Duration::from_secs(6))));
        assert_eq!(lanes.queue(endpoint(2), 1, later, 8), Queued::Yes);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_stays_behind(items in prop::collection::vec((0_u8..4, 1_u16..3), 0..60)) {
            let mut lanes = Lanes::new();
            for (at, (to, cap)) in items.iter().enumerate() {
                prop_assert_eq!(lanes.queue(endpoint(*to), *cap, NOW, at), Queued::Yes);
            }
            let mut seen = Vec::new();
            let mut flying = VecDeque::new();
            loop {
                while let Some((to, item)) = lanes.start() {
                    seen.push(item);
                    flying.push_back(to);
                }
                let Some(to) = flying.pop_front() else { break };
                lanes.finish(to);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..items.len()).collect::<Vec<_>>());
            prop_assert!(lanes.by_endpoint.is_empty() && !lanes.has_ready());
        }
    }
}
