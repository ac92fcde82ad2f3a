//! Permits, doors and turns.

use std::{
    pin::pin,
    task::{Context, Waker},
};

use proptest::prelude::*;

use super::*;
use crate::lanes::Urgency;

const FAST: Duration = Duration::from_millis(5);

/// Looks once, and gives up waiting.
fn is_knocked(door: &Door) -> bool {
    let waiting = pin!(door.knocked());
    waiting.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn share(door: &Door, standing: Standing) -> Share {
    let share = Share::new();
    door.judge(&share, standing);
    share
}

/// One permit, which is held, and two doors whose lanes wait for it, in this order.
fn crowd() -> (Permit, [Door; 2], [Share; 2]) {
    let permits = Permits::new(1);
    let (first, second, third) = (permits.door(), permits.door(), permits.door());
    let [holder, next, last] = [&first, &second, &third].map(|door| share(door, Standing::Proven));
    let held = first.take(&holder, FAST, Urgency::Fresh).unwrap();
    assert!(
        second.take(&next, FAST, Urgency::Fresh).is_err()
            && third.take(&last, FAST, Urgency::Fresh).is_err()
    );
    (held, [second, third], [next, last])
}

/// Takes as much as there is for one lane.
fn fill(door: &Door, share: &Share, time: Duration) -> Vec<Permit> {
    std::iter::from_fn(|| door.take(share, time, Urgency::Fresh).ok()).collect()
}

#[test]
fn lanes_that_are_not_proven_leave_half_to_the_others() {
    let permits = Permits::new(512);
    let door = permits.door();
    let slow: Vec<_> = (0..100).map(|_| share(&door, Standing::Slow)).collect();
    let held: Vec<_> = slow.iter().map(|lane| fill(&door, lane, 15 * FAST)).collect();
    assert_eq!(permits.held(), 256);
    let bounds = [("any", 256, 512), ("new", 256, 384), ("slow", 256, 256), ("late", 0, 384)];
    assert_eq!(permits.bounds(), bounds, "slow lanes have what they may, and it shows");
    assert!(held.iter().any(Vec::is_empty), "the first ones took more than their part");
    let new: Vec<_> = (0..300).map(|_| share(&door, Standing::New)).collect();
    let started: Vec<_> = new.iter().map(|lane| fill(&door, lane, FAST)).collect();
    assert_eq!(permits.held(), 384, "each new lane may try once, up to three quarters");
    assert!(started.iter().all(|held| held.len() <= 1));
    assert!(door.take(&share(&door, Standing::Proven), FAST, Urgency::Fresh).is_ok());
}

#[test]
fn the_slower_a_lane_is_the_less_it_may_hold() {
    let held = |seconds| {
        let permits = Permits::new(512);
        let door = permits.door();
        let lane = share(&door, Standing::Slow);
        fill(&door, &lane, Duration::from_secs(seconds)).len()
    };
    assert_eq!([1, 4, 15, 60].map(held), [171, 114, 51, 15]);
}

#[test]
fn busy_lanes_leave_the_reserve_to_idle_ones() {
    let permits = Permits::new(64);
    let door = permits.door();
    let busy: Vec<_> = (0..40).map(|_| share(&door, Standing::Proven)).collect();
    let first: Vec<_> = busy[..2].iter().map(|lane| fill(&door, lane, FAST)).collect();
    let taken = permits.held();
    assert!((46..=60).contains(&taken), "{taken}");
    let idle: Vec<_> = busy[2..].iter().map(|lane| door.take(lane, FAST, Urgency::Fresh)).collect();
    assert_eq!(idle.iter().filter(|taken| taken.is_ok()).count(), 64 - taken);
    assert_eq!(door.take(&busy[0], FAST, Urgency::Fresh).unwrap_err(), Refusal::Standing);
    drop((first, idle));
    assert_eq!(permits.held(), 0);
}

#[test]
fn retries_leave_a_quarter_to_first_attempts() {
    let permits = Permits::new(64);
    let door = permits.door();
    let lanes: Vec<_> = (0..80).map(|_| share(&door, Standing::Proven)).collect();
    let storm: Vec<_> =
        lanes.iter().flat_map(|lane| door.take(lane, FAST, Urgency::Late)).collect();
    assert_eq!(storm.len(), 48);
    let firsts: Vec<_> =
        lanes.iter().flat_map(|lane| door.take(lane, FAST, Urgency::Fresh)).take(12).collect();
    assert_eq!(firsts.len(), 12);
    drop(storm);
    assert!(door.take(&lanes[0], FAST, Urgency::Late).is_ok(), "what ends makes room");
}

#[test]
fn retries_have_a_pace_of_their_own_which_slow_lanes_do_not_use() {
    let permits = Permits::new(64);
    permits.refill_turns(4);
    let door = permits.door();
    let lanes: Vec<_> = (0..8).map(|_| share(&door, Standing::Proven)).collect();
    let slow = share(&door, Standing::Slow);
    let take = |lane| door.take(lane, FAST, Urgency::Late);
    let mut held: Vec<_> = lanes.iter().flat_map(take).collect();
    assert_eq!(held.len(), 4);
    assert_eq!(take(&lanes[7]).unwrap_err(), Refusal::Standing);
    let others = [door.take(&lanes[7], FAST, Urgency::Fresh), take(&slow)];
    assert!(others.iter().all(Result::is_ok));
    held.clear();
    assert!(take(&lanes[7]).is_err(), "one that ends makes no room for another");
    drop(others);
    // Whoever was woken by that tries, and waits again.
    is_knocked(&door);
    assert!(take(&lanes[7]).is_err() && !is_knocked(&door));
    assert_eq!(permits.refill_turns(3), 0);
    assert!(is_knocked(&door), "the next refill is of use");
    assert_eq!(lanes.iter().filter(|lane| take(lane).is_ok()).count(), 3);
    permits.refill_turns(5);
    assert_eq!(permits.refill_turns(5), 5, "what was left is told, and does not add up");
}

#[test]
fn what_a_lane_holds_goes_along_with_its_standing() {
    let permits = Permits::new(64);
    let door = permits.door();
    let lane = share(&door, Standing::Proven);
    let held = fill(&door, &lane, FAST);
    assert!(held.len() > 32);
    door.judge(&lane, Standing::Slow);
    let other = share(&door, Standing::Slow);
    assert_eq!(door.take(&other, FAST, Urgency::Fresh).unwrap_err(), Refusal::Standing);
    drop(held);
    assert_eq!(permits.held(), 0);
    assert!(door.take(&other, FAST, Urgency::Fresh).is_ok());
}

#[test]
fn whoever_waits_longest_is_woken_and_nobody_else() {
    let (held, [second, third], lanes) = crowd();
    assert!(
        second.take(&lanes[0], FAST, Urgency::Fresh).is_err(),
        "asking again does not lose its place"
    );
    assert!(!is_knocked(&second) && !is_knocked(&third));
    drop(held);
    assert!(is_knocked(&second), "also after a wait that was given up");
    assert!(!is_knocked(&third));
    second.pass_on();
    assert!(is_knocked(&third), "what the one before did not use");
}

#[test]
fn a_turn_is_not_lost_with_its_door() {
    let (held, [second, third], _lanes) = crowd();
    drop(held);
    drop(second);
    assert!(is_knocked(&third));
}

#[test]
fn nobody_is_woken_for_what_they_cannot_use() {
    let permits = Permits::new(4);
    let (quick, careful) = (permits.door(), permits.door());
    let slow: Vec<_> = (0..3).map(|_| share(&careful, Standing::Slow)).collect();
    let _held: Vec<_> =
        slow[..2].iter().map(|lane| careful.take(lane, FAST, Urgency::Fresh).unwrap()).collect();
    let fast = share(&quick, Standing::Proven);
    let permit = quick.take(&fast, FAST, Urgency::Fresh).unwrap();
    assert!(careful.take(&slow[2], FAST, Urgency::Fresh).is_err(), "half are theirs");
    drop(permit);
    assert!(!is_knocked(&careful));
}

proptest! {
    /// The number is exact, and everything comes back.
    #[test]
    fn there_are_never_more_than_the_permits(
        max in 1_usize..40,
        steps in prop::collection::vec((0_u8..4, 0_usize..8), 0..300),
    ) {
        let permits = Permits::new(max);
        let door = permits.door();
        let lanes: Vec<_> = (0..8).map(|_| Share::new()).collect();
        let mut held = Vec::new();
        for (step, lane) in steps {
            match step {
                0 | 1 => held.extend(door.take(&lanes[lane], FAST, Urgency::Fresh)),
                2 if !held.is_empty() => drop(held.swap_remove(lane % held.len())),
                _ => {
                    let standings = [Standing::New, Standing::Proven, Standing::Slow];
                    door.judge(&lanes[lane], standings[lane % 3]);
                }
            }
            prop_assert_eq!(permits.held(), held.len());
            prop_assert!(held.len() <= max);
        }
        held.clear();
        prop_assert_eq!(permits.held(), 0);
        prop_assert!(door.take(&lanes[0], FAST, Urgency::Fresh).is_ok(), "and one is always to be had");
    }

    /// The guarantee: whoever takes all they can get, in whatever order.
    #[test]
    fn a_proven_idle_lane_finds_a_permit(
        max in 16_usize..600,
        greedy in prop::collection::vec((0_u8..3, 1_usize..40), 0..400),
    ) {
        let permits = Permits::new(max);
        let door = permits.door();
        let (mut held, mut lanes, mut hung) = (Vec::new(), Vec::new(), 1);
        for (standing, wants) in greedy {
            let standing = match standing {
                0 if hung < max / 16 => {
                    hung += 1;
                    Standing::Proven
                }
                0 | 1 => Standing::New,
                _ => Standing::Slow,
            };
            let lane = share(&door, standing);
            held.extend(fill(&door, &lane, FAST).into_iter().take(wants));
            if standing == Standing::Proven && wants % 2 == 0 {
                // It has not answered for a second.
                door.judge(&lane, Standing::Slow);
            }
            lanes.push(lane);
        }
        let healthy = share(&door, Standing::Proven);
        prop_assert!(door.take(&healthy, FAST, Urgency::Fresh).is_ok(), "{}", permits.held());
    }
}
