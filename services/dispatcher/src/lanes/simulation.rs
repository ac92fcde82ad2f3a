//! Lanes and permits together, in virtual time, against endpoints that behave as told.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use fanfare_domain::{
    Outcome, Timestamp,
    endpoint::{Ordering, RateLimit, RatePeriod},
    retry::StatusSet,
};
use proptest::prelude::*;

use super::{breaker::Phase, *};
use crate::permits::Permits;

const START: Timestamp = Timestamp::from_millis(1_000_000_000);
const TICK: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_secs(15);
const FAST: Duration = Duration::from_millis(5);

/// An attempt in the simulation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    endpoint: EndpointId,
    kind: Kind,
    arrived_at: Timestamp,
}

/// A request of the simulation, as it was begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    item: Item,
    at: Timestamp,
}

/// How an endpoint answers a request that is begun then.
type Answers<'a> = dyn Fn(EndpointId, Timestamp) -> (Duration, Outcome) + 'a;

/// One shard, its endpoints and a clock.
struct World<'a> {
    now: Timestamp,
    lanes: Lanes<Item>,
    door: Door,
    rules: &'a dyn Fn(EndpointId) -> Rules,
    answers: &'a Answers<'a>,
    to_arrive: BTreeMap<(Timestamp, u64), (Item, bool)>,
    arrivals: u64,
    flying: BTreeMap<(Timestamp, Flight), (Permit, Timestamp, Outcome)>,
    begun: Vec<Begun>,
    put_off: Vec<(Item, Timestamp, DeferReason)>,
    tick_at: Timestamp,
}

fn endpoint(n: u16) -> EndpointId {
    let [high, low] = n.to_be_bytes();
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (high, low);
    EndpointId::from_bytes(bytes)
}

fn number(endpoint: EndpointId) -> u16 {
    let bytes = endpoint.as_bytes();
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn plain(_: EndpointId) -> Rules {
    Rules { concurrency: 16, rate: None, breaker: false, batch: None, ordering: Ordering::None }
}

fn good() -> Outcome {
    Outcome::Accepted { status: 200 }
}

fn timed_out() -> Outcome {
    Outcome::Failed(fanfare_domain::Fault::TimedOut)
}

fn after(time: Duration) -> Timestamp {
    START.saturating_add(time)
}

impl<'a> World<'a> {
    fn new(
        permits: &Arc<Permits>,
        rules: &'a dyn Fn(EndpointId) -> Rules,
        answers: &'a Answers<'a>,
    ) -> Self {
        Self {
            now: START,
            lanes: Lanes::new(START),
            door: permits.door(),
            rules,
            answers,
            to_arrive: BTreeMap::new(),
            arrivals: 0,
            flying: BTreeMap::new(),
            begun: Vec::new(),
            put_off: Vec::new(),
            tick_at: START,
        }
    }

    /// Lets an attempt arrive at a time.
    fn arrive(&mut self, to: u16, kind: Kind, at: Duration) {
        let item = Item { endpoint: endpoint(to), kind, arrived_at: after(at) };
        self.enter(item, false, after(at));
    }

    /// Lets first attempts arrive at an even rate from a time to another.
    fn stream(&mut self, to: u16, every: Duration, (from, until): (Duration, Duration)) {
        // Endpoints do not arrive in step.
        let mut at = from + every * u32::from(to % 7) / 7;
        while at < until {
            self.arrive(to, Kind::First, at);
            at += every;
        }
    }

    fn enter(&mut self, item: Item, has_turn: bool, at: Timestamp) {
        self.arrivals += 1;
        self.to_arrive.insert((at, self.arrivals), (item, has_turn));
    }

    /// Runs until nothing happens before `until`.
    fn run(&mut self, until: Duration) {
        let until = after(until);
        loop {
            let arrival = self.to_arrive.first_key_value().map(|((at, _), _)| *at);
            let landing = self.flying.first_key_value().map(|((at, _), _)| *at);
            let wake = self.lanes.wake_at();
            let next = [arrival, landing, wake, Some(self.tick_at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            assert!(next >= self.now || wake == Some(next), "time does not go back");
            self.now = self.now.max(next);
            self.happen();
        }
        self.now = until;
    }

    fn happen(&mut self) {
        let now = self.now;
        self.lanes.wake(now);
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= now
        {
            let ((_, flight), (permit, started, outcome)) = entry.remove_entry();
            drop(permit);
            let signal = Signal::of(&outcome, now.since(started), &StatusSet::default());
            self.lanes.end(flight, signal, &self.door, now);
        }
        while let Some(entry) = self.to_arrive.first_entry()
            && entry.key().0 <= now
        {
            let (item, has_turn) = entry.remove();
            let Item { endpoint, kind, .. } = item;
            let arrival = Arrival { endpoint, kind, has_turn, load: Load::default(), item };
            let put_off = self.lanes.queue(arrival, (self.rules)(endpoint), now);
            self.keep(put_off);
        }
        if now >= self.tick_at {
            self.tick_at = now.saturating_add(TICK);
            let shed = self.lanes.tidy(&self.door, now);
            self.keep(shed);
        }
        while let Some(started) = self.lanes.start(self.rules, &self.door, now) {
            let (takes, outcome) = (self.answers)(started.item.endpoint, now);
            let lands_at = now.saturating_add(takes.max(Duration::from_nanos(1)));
            self.flying.insert((lands_at, started.flight), (started.permit, now, outcome));
            self.begun.push(Begun { item: started.item, at: now });
        }
    }

    /// What is put off comes back at its time.
    fn keep(&mut self, put_off: impl IntoIterator<Item = PutOff<Item>>) {
        for PutOff { item, until, reason } in put_off {
            assert!(until >= self.now.saturating_add(Duration::from_secs(2)), "{reason:?}");
            self.put_off.push((item, until, reason));
            let has_turn =
                reason == DeferReason::RateLimit && until.since(self.now) <= RESERVED_AHEAD;
            self.enter(item, has_turn, until);
        }
    }

    /// How long the attempts for some endpoints have waited that arrived from a time on; those
    /// that still wait count until now.
    fn waits(&self, whose: impl Fn(u16) -> bool, from: Duration) -> Vec<Duration> {
        let chosen = |item: &Item| whose(number(item.endpoint)) && item.arrived_at >= after(from);
        let mut waits: Vec<_> = self
            .begun
            .iter()
            .filter(|begun| chosen(&begun.item))
            .map(|begun| begun.at.since(begun.item.arrived_at))
            .collect();
        waits.sort_unstable();
        waits
    }

    fn begun_to(&self, to: u16) -> Vec<Timestamp> {
        let begun = self.begun.iter().filter(|begun| number(begun.item.endpoint) == to);
        begun.map(|begun| begun.at).collect()
    }
}

/// Healthy endpoints are those below ten.
fn healthy_beside_hanging(
    permits: usize,
    hanging: u16,
    hang_from: Duration,
) -> (Vec<Duration>, usize) {
    let permits = Permits::new(permits);
    let answers = move |to, at| {
        if number(to) >= 10 && at >= after(hang_from) {
            (TIMEOUT, timed_out())
        } else {
            (FAST, good())
        }
    };
    let mut world = World::new(&permits, &plain, &answers);
    let all = (Duration::ZERO, Duration::from_mins(1));
    for to in (0..9).chain(10..10 + hanging) {
        world.stream(to, Duration::from_millis(300), all);
    }
    world.run(Duration::from_mins(1));
    let expected = 9 * 200;
    let waits = world.waits(|to| to < 10, Duration::ZERO);
    assert!(waits.len() >= expected - 9, "{} of {expected}", waits.len());
    (waits, permits.held())
}

#[test]
fn endpoints_that_never_answered_do_not_hold_up_the_others() {
    for hanging in [1, 40, 120] {
        let (waits, held) = healthy_beside_hanging(512, hanging, Duration::ZERO);
        let longest = waits.last().copied().unwrap();
        assert_eq!(longest, Duration::ZERO, "{hanging} hang and hold {held}");
        assert!(held <= 384, "{held}");
    }
}

#[test]
fn endpoints_that_stop_answering_do_not_hold_up_the_others() {
    for hanging in [1, 20, 100] {
        let (waits, held) = healthy_beside_hanging(512, hanging, Duration::from_secs(10));
        let longest = waits.last().copied().unwrap();
        assert!(longest <= FAST, "{longest:?} while {hanging} hang and hold {held}");
    }
}

#[test]
fn a_storm_of_retries_does_not_hold_up_first_attempts() {
    let permits = Permits::new(64);
    // No two take the same time, or all permits would come back at once.
    let answers = |to, at: Timestamp| {
        let spread = at.as_nanos() / 1_000 + u64::from(number(to)) * 7;
        let slow = Duration::from_millis(80 + spread % 41);
        (if number(to) < 10 { FAST } else { slow }, good())
    };
    let mut world = World::new(&permits, &plain, &answers);
    for to in 10..210 {
        for _ in 0..100 {
            world.arrive(to, Kind::Retry, Duration::from_secs(1));
        }
    }
    for to in 0..9 {
        world.stream(to, Duration::from_millis(50), (Duration::ZERO, Duration::from_secs(20)));
    }
    world.run(Duration::from_secs(25));
    let waits = world.waits(|to| to < 10, Duration::ZERO);
    let p99 = waits[waits.len() * 99 / 100];
    assert!(p99 <= FAST, "{p99:?}, {:?}", waits.last());
    let retries = world.begun.iter().filter(|begun| begun.item.kind == Kind::Retry).count();
    assert!(retries > 8_000, "{retries} retries progressed");
}

#[test]
fn retries_progress_beside_a_flood_of_first_attempts() {
    let permits = Permits::new(16);
    let answers = |_, _| (Duration::from_millis(10), good());
    let mut world = World::new(&permits, &plain, &answers);
    for to in 0..40 {
        world.stream(to, Duration::from_millis(10), (Duration::ZERO, Duration::from_secs(10)));
    }
    for _ in 0..200 {
        world.arrive(50, Kind::Retry, Duration::from_secs(2));
        world.arrive(0, Kind::Retry, Duration::from_secs(2));
    }
    world.run(Duration::from_secs(10));
    for to in [0, 50] {
        let retries = world
            .begun
            .iter()
            .filter(|begun| begun.item.kind == Kind::Retry && number(begun.item.endpoint) == to);
        assert!(retries.count() > 20, "to {to}");
    }
}

fn limited(requests: u32, burst: u32) -> RateLimit {
    let count = |count| NonZeroU32::new(count).unwrap();
    RateLimit { requests: count(requests), per: RatePeriod::Second, burst: count(burst) }
}

#[test]
fn ten_per_second_is_ten_per_second() {
    let permits = Permits::new(64);
    let rules = |_| Rules { rate: Some(limited(10, 1)), ..plain(endpoint(0)) };
    let answers = |_, _| (FAST, good());
    let mut world = World::new(&permits, &rules, &answers);
    for _ in 0..500 {
        world.arrive(0, Kind::First, Duration::ZERO);
    }
    world.run(Duration::from_secs(49));
    let begun = world.begun_to(0);
    for from in 0..19 {
        let (from, to) = (after(Duration::from_secs(from)), after(Duration::from_secs(from + 30)));
        let count = begun.iter().filter(|at| (from..to).contains(at)).count();
        assert!((285..=315).contains(&count), "{count}");
    }
    let again = world.put_off.len();
    assert!(again <= 480, "each is put off once at most: {again}");
    world.run(Duration::from_mins(1));
    assert_eq!(world.begun.len(), 500);
}

#[test]
fn an_open_breaker_holds_first_attempts_and_lets_retries_probe() {
    let permits = Permits::new(64);
    let rules = |_| Rules { breaker: true, ..plain(endpoint(0)) };
    let back_at = Duration::from_secs(95);
    let answers = |_, at: Timestamp| {
        let status = if at >= after(back_at) { 200 } else { 500 };
        let refused = Outcome::Refused { status, retry_after: None };
        (FAST, if status == 200 { good() } else { refused })
    };
    let mut world = World::new(&permits, &rules, &answers);
    world.stream(0, Duration::from_millis(100), (Duration::ZERO, Duration::from_mins(2)));
    world.arrive(0, Kind::Retry, Duration::from_secs(5));
    world.run(back_at);
    let of = |kind| {
        let begun = world.begun.iter().filter(|begun| begun.item.kind == kind);
        begun.map(|begun| begun.at.since(START).as_millis()).collect::<Vec<_>>()
    };
    let firsts = of(Kind::First);
    assert_eq!(firsts.iter().filter(|at| **at < 2_000).count(), 10, "then it opens");
    assert_eq!(of(Kind::Retry), [5_000]);
    assert!((12..=14).contains(&firsts.len()), "few probes: {firsts:?}");
    assert!(world.put_off.iter().all(|(_, _, reason)| *reason == DeferReason::Breaker));
    let health = world.lanes.health(endpoint(0), world.now).unwrap();
    assert_eq!(health.breaker, Phase::Open);
    assert!(health.firsts <= 64, "{health:?}");
    // All that was held comes in the end.
    world.run(Duration::from_secs(2_000));
    assert_eq!(world.begun.iter().filter(|begun| begun.item.kind == Kind::First).count(), 1_200);
    let health = world.lanes.health(endpoint(0), world.now);
    assert!(health.is_none_or(|health| health.breaker == Phase::Closed));
}

#[test]
fn an_endpoint_that_asks_for_quiet_gets_it() {
    let permits = Permits::new(64);
    let answers = |_, at: Timestamp| {
        let until = START.saturating_add(Duration::from_secs(30));
        let outcome = Outcome::Refused { status: 429, retry_after: Some(until) };
        (FAST, if at < until { outcome } else { good() })
    };
    let mut world = World::new(&permits, &plain, &answers);
    world.stream(0, Duration::from_millis(100), (Duration::ZERO, Duration::from_secs(20)));
    world.run(Duration::from_mins(5));
    let begun = world.begun_to(0);
    let early = begun.iter().filter(|at| **at < after(Duration::from_secs(30))).count();
    assert!(early <= 2, "{early}");
    assert_eq!(begun.len(), 200);
}

#[test]
fn a_cap_is_shared_with_the_ghosts_of_an_owner_before() {
    let permits = Permits::new(64);
    let answers = |_, _| (Duration::from_millis(100), good());
    let rules = |_| Rules { concurrency: 5, ..plain(endpoint(0)) };
    let mut world = World::new(&permits, &rules, &answers);
    world.lanes.ghost(endpoint(0), 3, after(Duration::from_millis(150)));
    world.lanes.ghost(endpoint(0), 1, after(Duration::from_millis(350)));
    for _ in 0..20 {
        world.arrive(0, Kind::First, Duration::ZERO);
    }
    world.run(Duration::from_millis(390));
    let begun = world.begun_to(0).into_iter().map(|at| at.since(START).as_millis() / 50);
    let mut per_time = BTreeMap::new();
    for at in begun {
        *per_time.entry(at * 50).or_insert(0) += 1;
    }
    // 5 less 4, then less 1, then none.
    let expected = [(0, 1), (100, 1), (150, 3), (200, 1), (250, 3), (300, 1), (350, 4)];
    assert_eq!(per_time, BTreeMap::from(expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the endpoints and their rules do: no cap is exceeded, nothing is lost, nothing
    /// waits for ever.
    #[test]
    fn caps_hold_and_nothing_is_lost(
        permits in 1_usize..40,
        arrivals in prop::collection::vec((0_u16..6, any::<bool>(), 0_u64..20_000), 1..150),
        takes in prop::collection::vec(1_u64..3_000, 6),
        statuses in prop::collection::vec(prop::sample::select(&[200_u16, 429, 500, 503][..]), 1..20),
        caps in prop::collection::vec(1_u16..5, 1..10),
        breaker: bool,
        rate in prop::option::of(1_u32..20),
    ) {
        let permits = Permits::new(permits);
        let cap = |at: Timestamp| caps[(at.as_secs() / 3) as usize % caps.len()];
        let clock = std::cell::Cell::new(START);
        let rules = |_| Rules {
            ordering: Ordering::None,
            concurrency: cap(clock.get()),
            rate: rate.map(|requests| limited(requests, 1)),
            breaker,
            batch: None,
        };
        let answers = |to, at: Timestamp| {
            let status = statuses[(at.as_nanos() / 7) as usize % statuses.len()];
            let refused = Outcome::Refused { status, retry_after: None };
            let outcome = if status == 200 { good() } else { refused };
            (Duration::from_millis(takes[usize::from(number(to))]), outcome)
        };
        let mut world = World::new(&permits, &rules, &answers);
        for (to, is_retry, at) in &arrivals {
            let kind = if *is_retry { Kind::Retry } else { Kind::First };
            world.arrive(*to, kind, Duration::from_millis(*at));
        }
        let mut seen = 0;
        for step in 1..1_200_u64 {
            // The breaker's probes are minutes apart.
            let rare = Duration::from_secs(20 * step.saturating_sub(200));
            let at = Duration::from_millis(step * 500) + rare;
            clock.set(after(at));
            world.run(at);
            for (which, begun) in world.begun.iter().enumerate().skip(seen) {
                let takes = Duration::from_millis(takes[usize::from(number(begun.item.endpoint))]);
                let flying = world.begun[..=which].iter().filter(|other| {
                    other.item.endpoint == begun.item.endpoint
                        && other.at.saturating_add(takes) > begun.at
                });
                let count = flying.count();
                prop_assert!(count <= usize::from(cap(after(at))), "{count} in flight");
            }
            seen = world.begun.len();
            if seen == arrivals.len() && world.flying.is_empty() {
                break;
            }
        }
        let left: Vec<_> = (0..6).map(|to| world.lanes.health(endpoint(to), world.now)).collect();
        let reasons: Vec<_> = world.put_off.iter().rev().take(5).collect();
        prop_assert_eq!(world.begun.len(), arrivals.len(), "{:?} {:?}", left, reasons);
        prop_assert!(!world.lanes.has_ready());
        prop_assert_eq!((world.lanes.queued(), permits.held()), (0, 0));
    }

    /// The guarantee of the permits, for any number of endpoints within it.
    #[test]
    fn healthy_lanes_find_a_permit(permits in 64_usize..600, part in 1_usize..100, late: bool) {
        let hanging = u16::try_from((permits / 4).saturating_sub(9) * part / 100).unwrap();
        let from = if late { Duration::from_secs(10) } else { Duration::ZERO };
        let hanging = if late { hanging.min(u16::try_from(permits / 16).unwrap()) } else { hanging };
        let (waits, _) = healthy_beside_hanging(permits, hanging, from);
        let longest = waits.last().copied().unwrap();
        prop_assert!(longest <= 2 * FAST, "{longest:?} with {hanging} of {permits}");
    }
}
