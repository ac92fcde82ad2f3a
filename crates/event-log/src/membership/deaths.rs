//! Who is dead. Pure: the caller says what was seen, and when on its own monotonic clock.
//!
//! A still heart counts only as far as it is certain that a beat would have been seen. The proof
//! is our own beats, which come back to us through the same watch: everything that the server
//! stored before one of them was seen before it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::TAKEOVER_AFTER;

/// The longest time between two of our own beats for which they count as one watch. After a longer
/// one (the servers were away, or we were stopped) every wait begins anew, so that whoever was
/// away for the same reason has its chance to come back.
const GAP_MAX: Duration = Duration::from_secs(1);

/// The hearts of the others.
#[derive(Default)]
pub(super) struct Deaths {
    hearts: BTreeMap<Arc<str>, Heart>,
    /// When our own heart was last seen.
    seen_at: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Heart {
    /// The last beat; 0 if none was ever seen.
    sequence: u64,
    /// Since when it is still.
    since: Instant,
}

impl Deaths {
    /// Notes a beat of ours that came back.
    pub(super) fn own(&mut self, now: Instant) {
        let before = self.seen_at.replace(now);
        if before.is_none_or(|before| now.duration_since(before) > GAP_MAX) {
            for heart in self.hearts.values_mut() {
                heart.since = now;
            }
        }
    }

    /// Notes a beat of another's.
    pub(super) fn beat(&mut self, member: &Arc<str>, sequence: u64, now: Instant) {
        self.hearts.insert(Arc::clone(member), Heart { sequence, since: now });
    }

    /// Notes that somebody ought to be there of whom no beat was seen.
    pub(super) fn expect(&mut self, member: &Arc<str>, now: Instant) {
        let heart = Heart { sequence: 0, since: now };
        self.hearts.entry(Arc::clone(member)).or_insert(heart);
    }

    /// Forgets somebody.
    pub(super) fn forget(&mut self, member: &str) {
        self.hearts.remove(member);
    }

    /// Forgets those of whom no beat was ever seen, unless they are still expected.
    pub(super) fn expect_only(&mut self, is_expected: impl Fn(&str) -> bool) {
        self.hearts.retain(|member, heart| heart.sequence > 0 || is_expected(member));
    }

    /// Those who are dead, with the sequences of their last beats.
    pub(super) fn dead(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let still = |heart: &Heart| {
            self.seen_at
                .is_some_and(|seen| seen.saturating_duration_since(heart.since) >= TAKEOVER_AFTER)
        };
        let dead = self.hearts.iter().filter(move |(_, heart)| still(heart));
        dead.map(|(member, heart)| (member, heart.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(200);

    /// Beats for ourselves, `times` times, and returns at which beat somebody was dead.
    fn own_beats(deaths: &mut Deaths, from: Instant, times: u32) -> Option<u32> {
        (0..times).find(|&beat| {
            deaths.own(from + BEAT * beat);
            deaths.dead().next().is_some()
        })
    }

    fn other() -> Arc<str> {
        Arc::from("other")
    }

    #[test]
    fn a_still_heart_is_dead_after_three_seconds() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        deaths.own(start);
        deaths.beat(&other(), 7, start);
        assert_eq!(own_beats(&mut deaths, start, 100), Some(15));
        assert_eq!(deaths.dead().collect::<Vec<_>>(), [(&other(), 7)]);
        deaths.forget("other");
        assert_eq!(deaths.dead().count(), 0);
    }

    #[test]
    fn a_beat_begins_the_wait_anew() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        deaths.own(start);
        deaths.beat(&other(), 7, start);
        assert_eq!(own_beats(&mut deaths, start, 15), None);
        let later = start + BEAT * 14;
        deaths.beat(&other(), 8, later);
        assert_eq!(own_beats(&mut deaths, later, 100), Some(15));
    }

    #[test]
    fn time_in_which_we_see_nothing_does_not_count() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        deaths.own(start);
        deaths.beat(&other(), 7, start);
        assert_eq!(own_beats(&mut deaths, start, 10), None);
        let later = start + Duration::from_mins(1);
        assert_eq!(own_beats(&mut deaths, later, 100), Some(15));
    }

    #[test]
    fn somebody_of_whom_nothing_is_seen_dies_too() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        deaths.own(start);
        deaths.expect(&other(), start);
        deaths.expect(&other(), start + BEAT);
        assert_eq!(own_beats(&mut deaths, start, 100), Some(15));
        assert_eq!(deaths.dead().collect::<Vec<_>>(), [(&other(), 0)]);
    }
}
