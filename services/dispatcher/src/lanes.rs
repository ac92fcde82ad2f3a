//! Lanes: what waits for each endpoint, and whose turn it is.
//!
//! A lane holds what is queued for one endpoint and counts what is in flight to it. Lanes with
//! something to send take turns, so that a busy endpoint does not crowd out a quiet one. Pure:
//! no clock, no I/O.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fanfare_domain::{EndpointId, Timestamp};

/// How many deliveries a slow lane keeps, by how full all lanes together are: less than half, less
/// than three quarters, more.
const SLOW_KEEPS: [usize; 3] = [64, 16, 4];

/// The most deliveries that are put off at once.
const SHED_MAX: usize = 512;

/// How long the head of a lane may have waited before the lane counts as slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// The shortest and longest time for which a delivery is put off.
const DEFER_MIN: Duration = Duration::from_secs(2);
const DEFER_MAX: Duration = Duration::from_mins(5);

/// The lanes of one shard.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    by_endpoint: BTreeMap<EndpointId, Lane<T>>,
    /// Lanes that have something to send and room in flight, in the order of their turns.
    ready: VecDeque<EndpointId>,
    queued: usize,
    queued_max: usize,
}

/// A delivery that is put off, and until when.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PutOff<T> {
    pub(crate) item: T,
    pub(crate) until: Timestamp,
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
    Deferred(PutOff<T>),
}

impl<T> Lanes<T> {
    /// Makes no lanes; together they are meant to hold `queued_max` deliveries.
    pub(crate) fn new(queued_max: usize) -> Self {
        Self { by_endpoint: BTreeMap::new(), ready: VecDeque::new(), queued: 0, queued_max }
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
        let keeps = self.slow_keeps();
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(Lane::new);
        lane.concurrency = concurrency.max(1);
        if lane.queue.len() >= keeps
            && let Some(until) = lane.slow_until(now)
        {
            return Queued::Deferred(PutOff { item, until });
        }
        lane.queue.push_back((now, item));
        self.queued += 1;
        self.line_up(endpoint);
        Queued::Yes
    }

    /// Puts off what slow lanes hold beyond what they may keep, the newest first, so that they do
    /// not take up the room of the others.
    pub(crate) fn shed(&mut self, now: Timestamp) -> Vec<PutOff<T>> {
        let keeps = self.slow_keeps();
        let mut shed = Vec::new();
        for lane in self.by_endpoint.values_mut() {
            let Some(until) = lane.slow_until(now) else { continue };
            while lane.queue.len() > keeps && shed.len() < SHED_MAX {
                let Some((_, item)) = lane.queue.pop_back() else { break };
                shed.push(PutOff { item, until });
            }
        }
        self.queued -= shed.len();
        shed
    }

    /// How many more deliveries may be queued.
    pub(crate) fn room(&self) -> usize {
        self.queued_max.saturating_sub(self.queued)
    }

    fn slow_keeps(&self) -> usize {
        let [much, some, little] = SLOW_KEEPS;
        match self.queued * 4 / self.queued_max.max(1) {
            0 | 1 => much,
            2 => some,
            _ => little,
        }
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

    /// Until when the lane puts off, if its head has waited for so long that it counts as slow.
    fn slow_until(&self, now: Timestamp) -> Option<Timestamp> {
        let waited = now.since(self.queue.front()?.0);
        let wait = (waited * 2).clamp(DEFER_MIN, DEFER_MAX);
        (waited > SLOW_AFTER).then(|| now.saturating_add(wait))
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
        let mut lanes = Lanes::new(10_000);
        for item in 0..3 {
            lanes.queue(endpoint(1), 16, NOW, item);
        }
        lanes.queue(endpoint(2), 16, NOW, 9);
        let order: Vec<_> = std::iter::from_fn(|| lanes.start()).map(|(_, item)| item).collect();
        assert_eq!(order, [0, 9, 1, 2]);
    }

    #[test]
    fn a_cap_is_never_exceeded() {
        let mut lanes = Lanes::new(10_000);
        for item in 0..5 {
            lanes.queue(endpoint(1), 2, NOW, item);
        }
        assert_eq!(std::iter::from_fn(|| lanes.start()).count(), 2);
        lanes.finish(endpoint(1));
        assert_eq!(std::iter::from_fn(|| lanes.start()).count(), 1);
        assert_eq!(lanes.room(), 9_998);
    }

    #[test]
    fn only_a_slow_lane_puts_off() {
        let mut lanes = Lanes::new(10_000);
        let later = NOW.saturating_add(Duration::from_secs(3));
        for item in 0..1_000 {
            assert_eq!(lanes.queue(endpoint(1), 1, NOW, item), Queued::Yes);
        }
        let put_off = lanes.queue(endpoint(1), 1, later, 7);
        let until = later.saturating_add(Duration::from_secs(6));
        assert_eq!(put_off, Queued::Deferred(PutOff { item: 7, until }));
        assert_eq!(lanes.queue(endpoint(2), 1, later, 8), Queued::Yes);
    }

    #[test]
    fn a_slow_lane_gives_its_room_back() {
        let mut lanes = Lanes::new(100);
        for item in 0..100 {
            lanes.queue(endpoint(1), 1, NOW, item);
        }
        lanes.queue(endpoint(2), 1, NOW.saturating_add(Duration::from_secs(2)), 100);
        assert_eq!((lanes.room(), lanes.shed(NOW).len()), (0, 0));
        let later = NOW.saturating_add(Duration::from_secs(3));
        let shed: Vec<_> = lanes.shed(later).into_iter().map(|put_off| put_off.item).collect();
        assert_eq!(shed, (4..100).rev().collect::<Vec<_>>());
        assert_eq!(lanes.room(), 95);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_stays_behind(items in prop::collection::vec((0_u8..4, 1_u16..3), 0..60)) {
            let mut lanes = Lanes::new(10_000);
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
