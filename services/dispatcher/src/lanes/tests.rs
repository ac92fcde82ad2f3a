//! Lanes by themselves.

use std::{num::NonZeroU32, time::Duration};

use fanfare_domain::{
    Outcome,
    endpoint::{Ordering, RateLimit, RatePeriod},
};

use super::*;
use crate::permits::Permits;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const FAST: Duration = Duration::from_millis(5);

fn endpoint(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 16])
}

fn cap(concurrency: u16) -> Rules {
    Rules { concurrency, rate: None, breaker: false, batch: None, ordering: Ordering::None }
}

fn first(n: u8, item: u32) -> Arrival<u32> {
    Arrival {
        endpoint: endpoint(n),
        kind: Kind::First,
        has_turn: false,
        load: Load::default(),
        item,
    }
}

fn door() -> Door {
    Permits::new(512).door()
}

/// Makes endpoints answer once, so that their lanes are proven.
fn prove(lanes: &mut Lanes<u32>, door: &Door, endpoints: &[u8]) {
    for n in endpoints {
        assert!(lanes.queue(first(*n, 0), cap(16), NOW).is_none());
    }
    while let Some(started) = lanes.start(|_| cap(16), door, NOW) {
        let outcome = Outcome::Accepted { status: 200 };
        let signal = Signal::of(&outcome, FAST, &fanfare_domain::retry::StatusSet::default());
        drop(started.permit);
        lanes.end(started.flight, signal, door, NOW.saturating_add(FAST));
    }
}

#[test]
fn lanes_take_turns() {
    let (mut lanes, door) = (Lanes::new(NOW), door());
    prove(&mut lanes, &door, &[1, 2]);
    for item in 1..4 {
        lanes.queue(first(1, item), cap(16), NOW);
    }
    lanes.queue(first(2, 9), cap(16), NOW);
    let order: Vec<_> =
        std::iter::from_fn(|| lanes.start(|_| cap(16), &door, NOW)).map(|it| it.item).collect();
    assert_eq!(order, [1, 9, 2, 3]);
    assert_eq!(lanes.in_flight(), BTreeMap::from([(endpoint(1), 3), (endpoint(2), 1)]));
}

#[test]
fn a_cap_that_is_lowered_holds_for_what_is_queued_already() {
    let (mut lanes, door) = (Lanes::new(NOW), door());
    prove(&mut lanes, &door, &[1]);
    for item in 0..8 {
        lanes.queue(first(1, item), cap(4), NOW);
    }
    let mut flying: Vec<_> = std::iter::from_fn(|| lanes.start(|_| cap(4), &door, NOW)).collect();
    assert_eq!(flying.len(), 4);
    for left in (0..4).rev() {
        let ended = flying.pop().unwrap();
        lanes.end(ended.flight, Signal::default(), &door, NOW);
        assert_eq!(lanes.start(|_| cap(1), &door, NOW).is_some(), left == 0, "{left}");
    }
}

#[test]
fn only_a_slow_lane_puts_off() {
    let mut lanes = Lanes::new(NOW);
    for item in 0..1_000 {
        assert_eq!(lanes.queue(first(1, item), cap(1), NOW), None);
    }
    let later = NOW.saturating_add(Duration::from_secs(3));
    let put_off = lanes.queue(first(1, 7), cap(1), later).unwrap();
    assert_eq!((put_off.item, put_off.reason), (7, DeferReason::LaneFull));
    assert!(put_off.until >= later.saturating_add(Duration::from_secs(2)));
    assert_eq!(lanes.queue(first(2, 8), cap(1), later), None);
    assert_eq!(lanes.queued(), 1_001);
}

#[test]
fn a_slow_lane_gives_its_room_back() {
    let (mut lanes, door) = (Lanes::new(NOW), door());
    for item in 0..100 {
        lanes.queue(first(1, item), cap(1), NOW);
    }
    lanes.set_fullness(6);
    assert_eq!(lanes.tidy(&door, NOW).len(), 0);
    let later = NOW.saturating_add(Duration::from_secs(3));
    let shed = lanes.tidy(&door, later);
    assert_eq!(shed.iter().map(|it| it.item).collect::<Vec<_>>(), (4..100).collect::<Vec<_>>());
    assert!(shed.windows(2).all(|pair| pair[0].until < pair[1].until), "they come back in turn");
    assert_eq!(lanes.queued(), 4);
}

#[test]
fn lanes_are_forgotten_once_there_is_nothing_to_know() {
    let (mut lanes, door) = (Lanes::new(NOW), door());
    prove(&mut lanes, &door, &[1, 2]);
    assert!(lanes.health(endpoint(1), NOW).is_some());
    lanes.ghost(endpoint(2), 1, NOW.saturating_add(Duration::from_mins(3)));
    lanes.tidy(&door, NOW.saturating_add(Duration::from_secs(62)));
    assert_eq!(lanes.health(endpoint(1), NOW), None);
    assert!(lanes.health(endpoint(2), NOW).is_some(), "its cap is shared for two more minutes");
}

#[test]
fn a_lane_that_does_not_answer_is_slow_before_it_times_out() {
    let (mut lanes, door) = (Lanes::new(NOW), door());
    prove(&mut lanes, &door, &[1]);
    lanes.queue(first(1, 1), cap(16), NOW);
    let _flying = lanes.start(|_| cap(16), &door, NOW).unwrap();
    lanes.tidy(&door, NOW.saturating_add(Duration::from_secs(1)));
    assert_eq!(lanes.health(endpoint(1), NOW).unwrap().standing, Standing::Proven);
    lanes.tidy(&door, NOW.saturating_add(Duration::from_millis(1_001)));
    assert_eq!(lanes.health(endpoint(1), NOW).unwrap().standing, Standing::Slow);
}

#[test]
fn a_rate_limit_is_handed_over_as_it_stands() {
    let (mut old, door) = (Lanes::new(NOW), door());
    let limit =
        RateLimit { requests: NonZeroU32::MIN, per: RatePeriod::Second, burst: NonZeroU32::MIN };
    let rules = |_| Rules { rate: Some(limit), ..cap(16) };
    old.queue(first(1, 0), rules(endpoint(1)), NOW);
    assert!(old.start(rules, &door, NOW).is_some());
    let states = old.rate_states(NOW);
    assert_eq!(states.len(), 1);
    for known_before in [false, true] {
        let mut new = Lanes::new(NOW);
        if known_before {
            new.queue(first(1, 1), rules(endpoint(1)), NOW);
        }
        for (endpoint, state) in &states {
            new.take_over(*endpoint, *state, NOW);
        }
        if !known_before {
            new.queue(first(1, 1), rules(endpoint(1)), NOW);
        }
        let later = NOW.saturating_add(Duration::from_millis(999));
        assert!(new.start(rules, &door, later).is_none());
        assert_eq!(new.wake_at(), Some(NOW.saturating_add(Duration::from_secs(1))));
        new.wake(NOW.saturating_add(Duration::from_secs(1)));
        assert!(new.start(rules, &door, NOW.saturating_add(Duration::from_secs(1))).is_some());
    }
}

#[test]
fn a_new_owner_begins_with_a_burst_that_is_used_up() {
    let ten = NonZeroU32::new(10).unwrap();
    let limit = RateLimit { requests: ten, per: RatePeriod::Second, burst: ten };
    let rules = |_| Rules { rate: Some(limit), ..cap(16) };
    let door = door();
    for (since, expected) in [(NOW, 1), (NOW.saturating_sub(Duration::from_secs(1)), 2)] {
        let mut lanes = Lanes::new(since);
        for item in 0..10 {
            assert_eq!(lanes.queue(first(1, item), rules(endpoint(1)), NOW), None);
        }
        // A new lane has two at most until one has answered.
        let started: Vec<_> = std::iter::from_fn(|| lanes.start(rules, &door, NOW)).collect();
        assert_eq!(started.len(), expected);
    }
}

#[test]
fn what_waits_gives_its_cells_back_at_a_hand_over() {
    let ten = NonZeroU32::new(10).unwrap();
    let limit = RateLimit { requests: ten, per: RatePeriod::Second, burst: NonZeroU32::MIN };
    let rules = |_| Rules { rate: Some(limit), ..cap(16) };
    let (mut lanes, door) = (Lanes::new(Timestamp::EPOCH), door());
    for item in 0..5 {
        assert_eq!(lanes.queue(first(1, item), rules(endpoint(1)), NOW), None);
    }
    assert!(lanes.start(rules, &door, NOW).is_some());
    let next = NOW.saturating_add(Duration::from_millis(100));
    let state = RateState { gate: next, plan: next };
    assert_eq!(lanes.rate_states(NOW), [(endpoint(1), state)]);
    // Also by one that never came to use it.
    let mut between = Lanes::<u32>::new(Timestamp::EPOCH);
    between.take_over(endpoint(1), state, NOW);
    assert_eq!(between.rate_states(NOW), [(endpoint(1), state)]);
    assert_eq!(between.rate_states(next), []);
}

#[test]
fn a_ghost_that_has_ended_leaves_its_slot() {
    let (mut lanes, door) = (Lanes::new(NOW), door());
    let rules = |_| cap(2);
    let [soon, late] = [30, 60].map(|time| NOW.saturating_add(Duration::from_secs(time)));
    for until in [soon, late] {
        lanes.ghost(endpoint(1), 1, until);
    }
    lanes.queue(first(1, 0), cap(2), NOW);
    assert!(lanes.start(rules, &door, NOW).is_none());
    assert_eq!(lanes.wake_at(), Some(soon));
    lanes.lay(endpoint(1), late, NOW);
    assert!(lanes.start(rules, &door, NOW).is_some());
    lanes.queue(first(1, 1), cap(2), NOW);
    assert!(lanes.start(rules, &door, NOW).is_none(), "the other one is there still");
}

/// Sends first attempts one after the other that fail.
fn fail(lanes: &mut Lanes<u32>, door: &Door, rules: Rules, count: u32) {
    for item in 0..count {
        assert_eq!(lanes.queue(first(1, item), rules, NOW), None);
        let started = lanes.start(|_| rules, door, NOW).unwrap();
        let outcome = Outcome::Refused { status: 503, retry_after: None };
        let signal = Signal::of(&outcome, FAST, &fanfare_domain::retry::StatusSet::default());
        drop(started.permit);
        lanes.end(started.flight, signal, door, NOW);
    }
}

#[test]
fn what_was_learnt_is_handed_over() {
    let (mut old, door) = (Lanes::new(NOW), door());
    let rules = Rules { breaker: true, ..cap(16) };
    fail(&mut old, &door, rules, 10);
    prove(&mut old, &door, &[2]);
    let learnt = old.learnt();
    assert_eq!(learnt.iter().map(|(endpoint, _)| *endpoint).collect::<Vec<_>>(), [endpoint(1)]);
    let (mut new, later) = (Lanes::new(NOW), NOW.saturating_add(Duration::from_secs(4)));
    for (endpoint, learnt) in &learnt {
        new.remember(*endpoint, *learnt, rules, later);
    }
    for item in 0..20 {
        assert_eq!(new.queue(first(1, item), rules, later), None);
    }
    assert!(new.start(|_| rules, &door, later).is_none(), "first attempts are held");
    let [was, is] = [&old, &new].map(|lanes| lanes.health(endpoint(1), later).unwrap());
    assert_eq!((is.breaker, is.since, is.window), (Phase::Open, was.since, was.window));
    let probe_at = NOW.saturating_add(Duration::from_secs(10));
    assert_eq!(new.wake_at(), Some(probe_at));
    new.wake(probe_at);
    assert!(new.start(|_| rules, &door, probe_at).is_some());
    assert!(new.start(|_| rules, &door, probe_at).is_none(), "one is the probe");
    // Also by one that never came to use it.
    let mut between = Lanes::<u32>::new(NOW);
    for (endpoint, learnt) in &learnt {
        between.remember(*endpoint, *learnt, rules, later);
    }
    assert_eq!(between.learnt(), learnt);
}

#[test]
fn an_endpoint_that_recovers_starts_slowly_also_at_the_next_owner() {
    let (mut old, door) = (Lanes::new(NOW), door());
    let rules = Rules { breaker: true, ..cap(16) };
    fail(&mut old, &door, rules, 10);
    let (_, learnt) = old.learnt()[0];
    let breaker = learnt.breaker.map(|memory| fanfare_domain::BreakerMemory {
        state: fanfare_domain::BreakerState::HalfOpen,
        ..memory
    });
    let mut new = Lanes::<u32>::new(NOW);
    new.remember(endpoint(1), Learnt { breaker, window: None }, rules, NOW);
    let health = new.health(endpoint(1), NOW).unwrap();
    assert_eq!((health.breaker, health.window), (Phase::Recovering, 1));
    let mut without = Lanes::<u32>::new(NOW);
    without.remember(endpoint(1), learnt, cap(16), NOW);
    assert_eq!(without.health(endpoint(1), NOW).unwrap().breaker, Phase::Closed);
}
