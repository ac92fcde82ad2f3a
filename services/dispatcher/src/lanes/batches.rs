//! Endpoints that take batches, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

use fanfare_domain::{
    BatchId, Outcome,
    endpoint::{Batching, Ordering, RateLimit, RatePeriod},
    fact::InBatch,
    retry::StatusSet,
};
use proptest::prelude::*;

use super::{queue::GATHER, *};
use crate::permits::Permits;

const START: Timestamp = Timestamp::from_millis(1_000_000_000);
const TICK: Duration = Duration::from_millis(250);

/// An attempt: its number among those of the test, and what it arrived as.
type Item = (usize, Kind, Load);

/// A request, as it was begun.
#[derive(Debug)]
struct Sent {
    at: Timestamp,
    items: Vec<Item>,
}

/// One endpoint that takes batches.
struct World {
    now: Timestamp,
    lanes: Lanes<Item>,
    permits: Arc<Permits>,
    door: Door,
    rules: Rules,
    takes: Duration,
    to_arrive: BTreeMap<(Timestamp, usize), (Kind, Load, bool)>,
    arrived: BTreeMap<usize, Timestamp>,
    flying: BTreeMap<(Timestamp, Flight), Permit>,
    sent: Vec<Sent>,
    put_off: Vec<(Item, Timestamp, DeferReason)>,
    tick_at: Timestamp,
}

fn endpoint() -> EndpointId {
    EndpointId::from_bytes([1; 16])
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn after(time: Duration) -> Timestamp {
    START.saturating_add(time)
}

fn rules(max_events: u16, max_wait: Duration) -> Rules {
    let max_events = NonZeroU16::new(max_events).unwrap();
    let batch = Some(Batching { max_events, max_wait });
    Rules { concurrency: 16, rate: None, breaker: false, batch, ordering: Ordering::None }
}

fn limited(requests: u32) -> RateLimit {
    let requests = NonZeroU32::new(requests).unwrap();
    RateLimit { requests, per: RatePeriod::Second, burst: NonZeroU32::MIN }
}

fn first() -> Load {
    Load { attempt: 1, bytes: 100, urgency: Urgency::Fresh, ..Load::default() }
}

fn failed_with(batch: u8, size: u32) -> Load {
    let batch = Some(InBatch { id: BatchId::from_bytes([batch; 16]), size });
    Load { attempt: 2, batch, ..Load::default() }
}

impl World {
    fn new(rules: Rules, takes: Duration) -> Self {
        let permits = Permits::new(64);
        let mut world = Self {
            now: START,
            lanes: Lanes::new(START.saturating_sub(Duration::from_mins(1))),
            door: permits.door(),
            permits,
            rules,
            takes,
            to_arrive: BTreeMap::new(),
            arrived: BTreeMap::new(),
            flying: BTreeMap::new(),
            sent: Vec::new(),
            put_off: Vec::new(),
            tick_at: START,
        };
        world.prove();
        world
    }

    /// Has the endpoint answered once, so that it may have more than two requests in flight.
    fn prove(&mut self) {
        let load = Load::default();
        let item = (usize::MAX, Kind::First, load);
        let arrival =
            Arrival { endpoint: endpoint(), kind: Kind::First, has_turn: false, load, item };
        let plain = Rules { batch: None, rate: None, ..self.rules };
        assert!(self.lanes.queue(arrival, plain, START).is_none());
        let started = self.lanes.start(|_| plain, &self.door, START).unwrap();
        assert!(!started.is_batch);
        drop(started.permit);
        self.lanes.end(started.flight, good(), &self.door, START);
    }

    /// Lets an attempt arrive; returns its number.
    fn arrive(&mut self, kind: Kind, load: Load, at: Duration) -> usize {
        let number = self.arrived.len();
        self.to_arrive.insert((after(at), number), (kind, load, false));
        self.arrived.insert(number, after(at));
        number
    }

    fn firsts(&mut self, count: usize, at: Duration) {
        for _ in 0..count {
            self.arrive(Kind::First, first(), at);
        }
    }

    fn run(&mut self, until: Duration) {
        loop {
            let arrival = self.to_arrive.first_key_value().map(|((at, _), _)| *at);
            let landing = self.flying.first_key_value().map(|((at, _), _)| *at);
            let times = [arrival, landing, self.lanes.wake_at(), Some(self.tick_at)];
            let next = times.into_iter().flatten().min().unwrap();
            if next > after(until) {
                break;
            }
            self.now = self.now.max(next);
            self.happen();
        }
        self.now = after(until);
    }

    fn happen(&mut self) {
        let now = self.now;
        self.lanes.wake(now);
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= now
        {
            let ((_, flight), permit) = entry.remove_entry();
            drop(permit);
            self.lanes.end(flight, good(), &self.door, now);
        }
        while let Some(entry) = self.to_arrive.first_entry()
            && entry.key().0 <= now
        {
            let ((_, number), (kind, load, has_turn)) = entry.remove_entry();
            let item = (number, kind, load);
            let arrival = Arrival { endpoint: endpoint(), kind, has_turn, load, item };
            let put_off = self.lanes.queue(arrival, self.rules, now);
            self.keep(put_off);
        }
        if now >= self.tick_at {
            self.tick_at = now.saturating_add(TICK);
            let shed = self.lanes.tidy(&self.door, now);
            self.keep(shed);
        }
        let rules = self.rules;
        while let Some(started) = self.lanes.start(|_| rules, &self.door, now) {
            let Started { flight, item, more, is_batch, permit } = started;
            assert!(is_batch);
            self.flying.insert((now.saturating_add(self.takes), flight), permit);
            let items = std::iter::once(item).chain(more).collect();
            self.sent.push(Sent { at: now, items });
        }
    }

    /// What is put off comes back at its time.
    fn keep(&mut self, put_off: impl IntoIterator<Item = PutOff<Item>>) {
        for PutOff { item, until, reason } in put_off {
            self.put_off.push((item, until, reason));
            let (number, kind, load) = item;
            let has_turn =
                reason == DeferReason::RateLimit && until.since(self.now) <= RESERVED_AHEAD;
            // Deferred attempts come back without their event.
            let load = Load { bytes: 0, ..load };
            self.to_arrive.insert((until, number), (kind, load, has_turn));
        }
    }

    fn sizes(&self) -> Vec<usize> {
        self.sent.iter().map(|sent| sent.items.len()).collect()
    }

    fn numbers(&self) -> Vec<usize> {
        let items = self.sent.iter().flat_map(|sent| &sent.items);
        items.map(|(number, ..)| *number).collect()
    }

    fn at_once(&self) -> usize {
        let count = |now: Timestamp| {
            let flying = |sent: &&Sent| sent.at <= now && now < sent.at.saturating_add(self.takes);
            self.sent.iter().filter(flying).count()
        };
        self.sent.iter().map(|sent| count(sent.at)).max().unwrap_or_default()
    }
}

fn good() -> Signal {
    let outcome = Outcome::Accepted { status: 200 };
    Signal::of(&outcome, millis(5), &StatusSet::default())
}

#[test]
fn a_batch_goes_when_it_is_full_or_has_waited() {
    let mut world = World::new(rules(10, millis(200)), millis(5));
    world.firsts(25, millis(100));
    world.run(millis(100));
    assert_eq!(world.sizes(), [10, 10]);
    world.run(millis(299));
    assert_eq!(world.sizes(), [10, 10], "the rest waits");
    assert_eq!(world.permits.held(), 0, "and holds no permit");
    world.run(millis(300));
    assert_eq!(world.sizes(), [10, 10, 5]);
    assert_eq!(world.numbers(), (0..25).collect::<Vec<_>>(), "in the order of the lane");
}

#[test]
fn a_backlog_goes_in_full_batches() {
    let mut world = World::new(Rules { concurrency: 1, ..rules(10, millis(0)) }, millis(50));
    world.firsts(95, millis(0));
    world.run(Duration::from_secs(1));
    assert_eq!(world.sizes(), [10, 10, 10, 10, 10, 10, 10, 10, 10, 5]);
    assert_eq!(world.at_once(), 1);
}

#[test]
fn a_batch_is_not_larger_than_a_body_may_be() {
    let mut world = World::new(rules(1_000, Duration::from_mins(1)), millis(5));
    for _ in 0..5 {
        let load = Load { bytes: 400_000, ..first() };
        world.arrive(Kind::First, load, millis(0));
    }
    world.run(millis(10));
    assert_eq!(world.sizes(), [2, 2], "as soon as there are enough bytes");
    world.run(Duration::from_secs(61));
    assert_eq!(world.sizes(), [2, 2, 1]);
}

#[test]
fn nothing_waits_for_company_where_room_is_scarce() {
    let mut world = World::new(rules(10, Duration::from_mins(1)), millis(5));
    world.firsts(3, millis(0));
    world.run(Duration::from_secs(10));
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    world.lanes.set_fullness(HURRIED_FROM);
    world.run(Duration::from_secs(11));
    assert_eq!(world.sizes(), [3]);
    world.firsts(1, Duration::from_secs(12));
    world.run(Duration::from_secs(12));
    assert_eq!(world.sizes(), [3, 1]);
}

#[test]
fn what_failed_together_goes_together_again() {
    let mut world = World::new(rules(4, Duration::from_secs(1)), millis(5));
    for at in [0, 100, 200, 300] {
        world.arrive(Kind::Retry, failed_with(1, 3), millis(at)); // The last one is a copy too much.
        world.arrive(Kind::Retry, failed_with(2, 4), millis(at));
    }
    world.firsts(2, millis(50));
    world.run(millis(199));
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    world.run(Duration::from_secs(10));
    let groups: Vec<(Duration, Vec<usize>)> = world
        .sent
        .iter()
        .map(|sent| (sent.at.since(START), sent.items.iter().map(|item| item.0).collect()))
        .collect();
    let expected = [
        (millis(200), vec![0, 2, 4]),
        (millis(300), vec![1, 3, 5, 7]),
        (millis(1_050), vec![8, 9]),
        (millis(300) + GATHER, vec![6]),
    ];
    assert_eq!(groups, expected);
}

#[test]
fn what_failed_together_is_put_off_together() {
    let mut world = World::new(rules(5, Duration::from_secs(1)), millis(5));
    let quiet = Signal { quiet_until: Some(after(Duration::from_secs(20))), ..Signal::default() };
    world.lanes.queue(
        Arrival {
            endpoint: endpoint(),
            kind: Kind::Retry,
            has_turn: false,
            load: failed_with(9, 1),
            item: (usize::MAX, Kind::Retry, failed_with(9, 1)),
        },
        world.rules,
        START,
    );
    let rules = world.rules;
    let started = world.lanes.start(|_| rules, &world.door, START).unwrap();
    drop(started.permit);
    world.lanes.end(started.flight, quiet, &world.door, START);
    for at in [0, 5, 10] {
        for batch in [1, 2] {
            world.arrive(Kind::Retry, failed_with(batch, 3), millis(at));
        }
    }
    world.run(Duration::from_secs(30));
    assert_eq!(world.put_off.len(), 6);
    let groups: Vec<BTreeSet<usize>> = world
        .sent
        .iter()
        .map(|sent| sent.items.iter().map(|(number, ..)| *number).collect())
        .collect();
    assert_eq!(groups, [BTreeSet::from([0, 2, 4]), BTreeSet::from([1, 3, 5])]);
}

#[test]
fn other_retries_go_with_those_of_the_same_number() {
    let mut world = World::new(rules(3, millis(100)), millis(5));
    for (attempt, at) in [(2, 0), (3, 10), (2, 20), (3, 30), (2, 40)] {
        world.arrive(Kind::Retry, Load { attempt, ..Load::default() }, millis(at));
    }
    world.run(Duration::from_secs(1));
    let sent = world.sent.iter().map(|sent| (sent.at.since(START), sent.items.len()));
    assert_eq!(sent.collect::<Vec<_>>(), [(millis(40), 3), (millis(110), 2)]);
    assert!(world.sent.iter().all(|sent| {
        let mut numbers: Vec<u32> = sent.items.iter().map(|(_, _, load)| load.attempt).collect();
        numbers.dedup();
        numbers.len() == 1
    }));
}

#[test]
fn a_rate_limit_counts_requests() {
    let mut world =
        World::new(Rules { rate: Some(limited(10)), ..rules(50, millis(200)) }, millis(5));
    world.firsts(5_000, millis(0));
    world.run(Duration::from_secs(12));
    let mut numbers = world.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..5_000).collect::<Vec<_>>(), "{:?}", world.sizes());
    for second in 1..9 {
        let (from, to) =
            (after(Duration::from_secs(second)), after(Duration::from_secs(second + 1)));
        let count = world.sent.iter().filter(|sent| (from..to).contains(&sent.at)).count();
        assert!((9..=11).contains(&count), "{count} in second {second}: {:?}", world.sizes());
    }
    assert!(world.sizes().len() <= 110, "nearly all are full: {:?}", world.sizes());
}

#[test]
fn what_does_not_fit_its_request_goes_next() {
    for kind in [Kind::First, Kind::Retry] {
        let load = if kind == Kind::First { first() } else { failed_with(1, 4) };
        let mut world = World::new(rules(4, Duration::from_mins(1)), millis(5));
        for _ in 0..4 {
            world.arrive(kind, load, millis(0));
        }
        world.run(millis(0));
        assert_eq!(world.sizes(), [4], "{kind:?}");
        let left = [2, 3].map(|number| ((number, kind, load), load));
        world.lanes.give_back(endpoint(), kind, left.into(), world.now);
        assert_eq!(world.lanes.queued(), 2);
        world.happen();
        assert_eq!(world.sizes(), [4, 2], "{kind:?}");
        assert_eq!(world.numbers()[4..], [2, 3]);
    }
}

#[test]
fn an_endpoint_that_takes_no_batches_any_more_gets_one_by_one() {
    let mut world = World::new(rules(10, Duration::from_mins(1)), millis(5));
    world.firsts(3, millis(0));
    world.arrive(Kind::Retry, failed_with(1, 9), millis(0));
    world.run(millis(1));
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    let plain = Rules { batch: None, ..world.rules };
    // The next arrival brings the change.
    let load = first();
    let item = (9, Kind::First, load);
    let arrival = Arrival { endpoint: endpoint(), kind: Kind::First, has_turn: false, load, item };
    assert!(world.lanes.queue(arrival, plain, world.now).is_none());
    let mut started = Vec::new();
    while let Some(next) = world.lanes.start(|_| plain, &world.door, world.now) {
        assert!(!next.is_batch && next.more.is_empty());
        started.push(next);
    }
    assert_eq!(started.len(), 5);
}

#[test]
fn what_waits_goes_by_new_rules_at_once() {
    let mut world = World::new(rules(10, Duration::from_mins(1)), millis(5));
    world.firsts(3, millis(0));
    world.run(millis(1));
    assert!(world.sent.is_empty());
    world.rules = rules(3, Duration::from_mins(1));
    world.lanes.review(|_| world.rules, world.now);
    world.happen();
    assert_eq!(world.sizes(), [3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives: no request is larger than the limit or mixes what does not go together,
    /// nothing waits longer than it may, no cap is exceeded, and nothing is lost or sent twice.
    #[test]
    fn batches_keep_their_limits(
        max_events in 2_u16..40,
        max_wait in 0_u64..3_000,
        concurrency in 1_u16..20,
        takes in 1_u64..100,
        rate in prop::option::of(5_u32..50),
        firsts in prop::collection::vec((0_u64..10_000, 1_usize..60), 0..20),
        groups in prop::collection::vec((0_u64..10_000, 1_u32..40, 0_u64..500), 0..12),
    ) {
        let rate = rate.map(limited);
        let limits = Rules { concurrency, rate, ..rules(max_events, millis(max_wait)) };
        let mut world = World::new(limits, millis(takes));
        for (at, count) in &firsts {
            world.firsts(*count, millis(*at));
        }
        for (batch, (at, size, spread)) in (1..).zip(&groups) {
            let size = (*size).min(u32::from(max_events));
            for member in 0..u64::from(size) {
                let late = if size > 1 { spread * member / u64::from(size) } else { 0 };
                world.arrive(Kind::Retry, failed_with(batch, size), millis(at + late));
            }
        }
        let total = world.arrived.len();
        world.run(Duration::from_mins(30));
        let mut numbers = world.numbers();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..total).collect::<Vec<_>>());
        prop_assert!(world.at_once() <= usize::from(concurrency));
        for sent in &world.sent {
            prop_assert!(sent.items.len() <= usize::from(max_events));
            let (_, kind, load) = sent.items[0];
            let alike = |(_, other, item): &Item| (*other, item.key()) == (kind, load.key());
            prop_assert!(sent.items.iter().all(alike), "{:?}", sent.items);
        }
        // A group is one request, unless some of it were sent before the others came.
        for batch in (1..).zip(&groups).map(|(batch, _)| batch) {
            let id = Some(BatchId::from_bytes([batch; 16]));
            let requests = world.sent.iter().filter(|sent| sent.items[0].2.key().1 == id);
            prop_assert_eq!(requests.count(), 1);
        }
        let is_free = world.put_off.is_empty() && rate.is_none() && concurrency >= 16;
        if is_free && world.at_once() < usize::from(concurrency) {
            for sent in &world.sent {
                let oldest = sent.items.iter().map(|(number, ..)| world.arrived[number]).min();
                let wait = match sent.items[0].1 {
                    Kind::First => millis(max_wait),
                    Kind::Retry => GATHER,
                };
                let due = oldest.unwrap().saturating_add(wait);
                prop_assert!(sent.at <= due, "{:?} late", sent.at.since(due));
            }
        }
        prop_assert_eq!((world.lanes.queued(), world.permits.held()), (0, 0));
    }
}
