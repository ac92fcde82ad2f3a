//! What two servers' clocks that differ can do to a decision. Times are in milliseconds.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// How far a server's clock may be from the true time, either way.
const SKEW: u64 = 500;
/// When the endpoint was created.
const CREATED: u64 = 1_000_000;

/// What an endpoint became, and how long after the change before.
#[derive(Clone, Copy, Debug)]
struct Step {
    standing: Standing,
    after: u64,
}

/// How far the clocks of CONFIG's and of EVENTS' leader are ahead, less [`SKEW`].
#[derive(Clone, Copy, Debug)]
struct Clocks {
    config: u64,
    events: u64,
}

impl Clocks {
    const RIGHT: Self = Self { config: SKEW, events: SKEW };

    fn stamp(ahead: u64, at: u64) -> Timestamp {
        Timestamp::from_millis(at + ahead - SKEW)
    }
}

fn clocks() -> impl Strategy<Value = Clocks> {
    (0..=2 * SKEW, 0..=2 * SKEW).prop_map(|(config, events)| Clocks { config, events })
}

fn step() -> impl Strategy<Value = Step> {
    let standing = prop_oneof![
        2 => Just(Standing::Served),
        1 => Just(Standing::Skipped),
        1 => Just(Standing::Absent),
    ];
    (standing, 1..3_000_u64).prop_map(|(standing, after)| Step { standing, after })
}

/// The changes with their true times; the first one creates the endpoint.
fn timeline(steps: &[Step]) -> Vec<(u64, Standing)> {
    let add = |now: &mut u64, step: &Step| {
        *now += step.after;
        Some((*now, step.standing))
    };
    let later = steps.iter().scan(CREATED, add);
    std::iter::once((CREATED, Standing::Served)).chain(later).collect()
}

/// Decides without a margin for changes after the creation.
fn decide(timeline: &[(u64, Standing)], clocks: Clocks, accepted: u64) -> Standing {
    decide_within(timeline, clocks, accepted, Duration::ZERO)
}

fn decide_within(
    timeline: &[(u64, Standing)],
    clocks: Clocks,
    accepted: u64,
    margin: Duration,
) -> Standing {
    let mut history = History::default();
    for (at, standing) in timeline {
        let filters = match standing {
            Standing::Served | Standing::Skipped => Box::from([">".parse().unwrap()]),
            Standing::Absent => Box::default(),
        };
        let from = Clocks::stamp(clocks.config, *at);
        history.push(Version { from, standing: *standing, filters, condition: None });
    }
    let accepted_at = Clocks::stamp(clocks.events, accepted);
    history.choose(&"a".parse().unwrap(), accepted_at, margin).decided().unwrap()
}

/// What the endpoint was at any time between two, both included; nothing before its creation.
fn between(timeline: &[(u64, Standing)], from: u64, to: u64) -> Vec<Standing> {
    let ends = timeline.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
    let within = timeline.iter().zip(ends).filter(|((at, _), end)| *at <= to && from < *end);
    within.map(|((_, standing), _)| *standing).collect()
}

proptest! {
    #[test]
    fn an_event_after_the_creation_is_judged_by_what_the_endpoint_was_about_then(
        steps in prop::collection::vec(step(), 0..6),
        clocks in clocks(),
        later in 0..20_000_u64,
    ) {
        let (timeline, accepted) = (timeline(&steps), CREATED + later);
        let candidates = between(&timeline, accepted - 2 * SKEW, accepted + 2 * SKEW);
        let found = decide(&timeline, clocks, accepted);
        prop_assert!(candidates.contains(&found), "{found:?} is not of {candidates:?}");
    }

    #[test]
    fn clocks_that_agree_make_no_difference_after_the_creation(
        steps in prop::collection::vec(step(), 0..6),
        later in 0..20_000_u64,
    ) {
        let (timeline, accepted) = (timeline(&steps), CREATED + later);
        let found = decide(&timeline, Clocks::RIGHT, accepted);
        prop_assert_eq!(between(&timeline, accepted, accepted), [found]);
    }

    #[test]
    fn an_event_long_before_the_creation_is_not_for_the_endpoint(
        steps in prop::collection::vec(step(), 0..6),
        clocks in clocks(),
        earlier in 1..20_000_u64,
    ) {
        let margin = u64::try_from(CLOCKS_APART.as_millis()).unwrap() + 2 * SKEW;
        let found = decide(&timeline(&steps), clocks, CREATED - margin - earlier);
        prop_assert_eq!(found, Standing::Absent);
    }

    #[test]
    fn in_a_cluster_an_event_after_a_resumption_is_served(
        steps in prop::collection::vec(step(), 0..6),
        clocks in clocks(),
        later in 0..3_000_u64,
    ) {
        let mut timeline = timeline(&steps);
        let resumed = timeline.last().map_or(CREATED, |(at, _)| *at) + 1;
        timeline.push((resumed, Standing::Served));
        let margin = Duration::from_millis(2 * SKEW);
        let found = decide_within(&timeline, clocks, resumed + later, margin);
        prop_assert_eq!(found, Standing::Served);
    }

    #[test]
    fn the_margin_adds_only_what_is_served_soon(
        steps in prop::collection::vec(step(), 0..6),
        later in 0..20_000_u64,
        margin in 0..1_000_u64,
    ) {
        let (timeline, accepted) = (timeline(&steps), CREATED + later);
        let without = decide(&timeline, Clocks::RIGHT, accepted);
        let with =
            decide_within(&timeline, Clocks::RIGHT, accepted, Duration::from_millis(margin));
        let soon = between(&timeline, accepted, accepted + margin).contains(&Standing::Served);
        prop_assert_eq!(with, if soon { Standing::Served } else { without });
    }

    /// The dispatcher cancels what seems older than the change that ended it.
    #[test]
    fn an_event_after_the_end_is_served_only_if_it_seems_older_than_the_end(
        end in prop_oneof![Just(Standing::Skipped), Just(Standing::Absent)],
        lived in 0..3_000_u64,
        later in 0..3_000_u64,
        clocks in clocks(),
    ) {
        let ended = CREATED + lived;
        let timeline = [(CREATED, Standing::Served), (ended, end)];
        let accepted = ended + later;
        let seems_older =
            Clocks::stamp(clocks.events, accepted) < Clocks::stamp(clocks.config, ended);
        let served = decide(&timeline, clocks, accepted) == Standing::Served;
        prop_assert!(!served || seems_older);
    }
}

#[test]
fn the_first_version_counts_from_two_seconds_before_its_time() {
    let from = Timestamp::from_millis(CREATED);
    let mut history = History::default();
    history.push(Version {
        from,
        standing: Standing::Served,
        filters: Box::from([">".parse().unwrap()]),
        condition: None,
    });
    let standing = |early| {
        let at = from.saturating_sub(early);
        history.choose(&"a".parse().unwrap(), at, Duration::ZERO).decided().unwrap()
    };
    assert_eq!(standing(CLOCKS_APART), Standing::Served);
    assert_eq!(standing(CLOCKS_APART + Duration::from_nanos(1)), Standing::Absent);
}
