//! The breaker of one endpoint: holds first attempts while the endpoint keeps failing.
//!
//! ```text
//! closed ──10 failures in a row──▶ open ──a success──▶ recovering ──5 more──▶ closed
//!                                   ▲                      │
//!                                   └──────a failure───────┘
//! ```
//!
//! It never holds a scheduled retry: that is the probe. Where none was made for a while, one
//! first attempt is let through in its place. What is held spends no attempt.

use std::time::Duration;

use fanfare_domain::{BreakerMemory, BreakerState, Timestamp};

/// How many failures in a row open it.
pub(crate) const FAILURES: u32 = 10;

/// How many successes after the first one close it again.
const SUCCESSES: u32 = 5;

/// How long it waits for a retry to be the probe before a first attempt is let through: the first
/// time, and at most, after it has doubled with each failure.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_AFTER_MAX: Duration = Duration::from_mins(5);

/// Whether first attempts pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// They do.
    Closed,
    /// They are held.
    Open,
    /// They pass again, few at a time.
    Recovering,
}

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It opened.
    Opened,
    /// It lets first attempts pass again: they are to start slowly.
    Recovering,
}

/// In which phase an attempt was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// That of attempts that were begun in an earlier phase, whichever.
    const EARLIER: Self = Self(u64::MAX);
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Breaker {
    phase: Phase,
    /// When it entered that; the epoch if it never changed.
    since: Timestamp,
    /// Counts the changes of phase; what was begun before the last says nothing about the phase.
    epoch: Epoch,
    /// Failures in a row, or successes while it recovers.
    run: u32,
    wait: Duration,
    /// When a first attempt is let through, if no retry was made until then.
    probe_at: Timestamp,
    probes: u32,
}

impl Breaker {
    /// A breaker that holds nothing.
    pub(crate) const fn new() -> Self {
        Self {
            phase: Phase::Closed,
            since: Timestamp::EPOCH,
            epoch: Epoch(0),
            run: 0,
            wait: PROBE_AFTER,
            probe_at: Timestamp::EPOCH,
            probes: 0,
        }
    }

    /// Goes on with the breaker of another owner, whose clock may have been ahead.
    pub(crate) fn of(memory: BreakerMemory, now: Timestamp) -> Self {
        let BreakerMemory { state, since, run, wait, probe_at } = memory;
        Self {
            phase: match state {
                BreakerState::Closed => Phase::Closed,
                BreakerState::Open => Phase::Open,
                BreakerState::HalfOpen => Phase::Recovering,
            },
            since: since.min(now),
            epoch: Epoch(0),
            run,
            wait: wait.clamp(PROBE_AFTER, PROBE_AFTER_MAX),
            probe_at: probe_at.min(now.saturating_add(PROBE_AFTER_MAX)),
            probes: 0,
        }
    }

    /// What it has come to, for a hand-over; `None` if there is nothing to remember. The result of
    /// a probe that is under way comes too late for the next owner, who makes another in its time.
    pub(crate) fn memory(&self) -> Option<BreakerMemory> {
        let Self { phase, since, run, wait, probe_at, .. } = *self;
        let state = match phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open => BreakerState::Open,
            Phase::Recovering => BreakerState::HalfOpen,
        };
        let memory = BreakerMemory { state, since, run, wait, probe_at };
        (!self.is_fresh()).then_some(memory)
    }

    /// Notes an attempt that is on record, in the order of the record.
    pub(crate) fn recall(&mut self, (started, ended): (Timestamp, Timestamp), good: bool) {
        let epoch = if started < self.since { Epoch::EARLIER } else { self.started(started) };
        self.ended(epoch, Some(good), ended);
    }

    /// Whether first attempts pass.
    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when; `None` if it has always been so.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        (self.since > Timestamp::EPOCH).then_some(self.since)
    }

    /// Until when first attempts are held, as far as that is known: `None` if they are not.
    /// While a probe is under way, its result comes first.
    pub(crate) fn holds(&self, now: Timestamp) -> Option<Timestamp> {
        let held = match self.phase {
            Phase::Open => self.probes > 0 || now < self.probe_at,
            Phase::Closed | Phase::Recovering => false,
        };
        held.then_some(self.probe_at)
    }

    /// Tells whether a probe is under way.
    pub(crate) const fn is_probing(&self) -> bool {
        self.probes > 0
    }

    /// Tells whether it remembers anything.
    pub(crate) fn is_fresh(&self) -> bool {
        self.phase == Phase::Closed && self.run == 0
    }

    /// Notes that an attempt was begun; [`Self::ended`] is to be told what this returns.
    pub(crate) fn started(&mut self, now: Timestamp) -> Epoch {
        if self.phase == Phase::Open {
            self.probes += 1;
            self.probe_at = now.saturating_add(self.wait);
        }
        self.epoch
    }

    /// Holds nothing any more, whatever was.
    pub(crate) fn reset(&mut self, now: Timestamp) {
        self.enter(Phase::Closed, now);
    }

    /// Notes how an attempt ended; `None` if that says nothing about the endpoint.
    pub(crate) fn ended(&mut self, epoch: Epoch, good: Option<bool>, now: Timestamp) -> Change {
        let is_ours = epoch == self.epoch;
        if self.phase == Phase::Open && is_ours {
            self.probes = self.probes.saturating_sub(1);
        }
        match (self.phase, good) {
            (Phase::Closed, Some(true)) => {
                self.run = 0;
                Change::None
            }
            (Phase::Closed, Some(false)) => {
                self.run = self.run.saturating_add(1);
                if self.run < FAILURES {
                    return Change::None;
                }
                self.wait = PROBE_AFTER;
                self.open(now)
            }
            (Phase::Open, Some(true)) => {
                self.enter(Phase::Recovering, now);
                Change::Recovering
            }
            (Phase::Open, Some(false)) => {
                if is_ours {
                    self.wait = (self.wait * 2).min(PROBE_AFTER_MAX);
                    self.probe_at = now.saturating_add(self.wait);
                }
                Change::None
            }
            (Phase::Recovering, Some(true)) => {
                self.run += 1;
                if self.run >= SUCCESSES {
                    self.enter(Phase::Closed, now);
                }
                Change::None
            }
            (Phase::Recovering, Some(false)) if is_ours => self.open(now),
            (_, None) | (Phase::Recovering, Some(false)) => Change::None,
        }
    }

    fn open(&mut self, now: Timestamp) -> Change {
        self.enter(Phase::Open, now);
        self.probe_at = now.saturating_add(self.wait);
        Change::Opened
    }

    fn enter(&mut self, phase: Phase, now: Timestamp) {
        if self.phase != phase {
            self.since = now;
        }
        self.epoch = Epoch(self.epoch.0 + 1);
        (self.phase, self.run, self.probes) = (phase, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    /// Begins an attempt and ends it.
    fn attempt(breaker: &mut Breaker, good: Option<bool>, now: u64) -> Change {
        let epoch = breaker.started(at(now));
        breaker.ended(epoch, good, at(now))
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new();
        for failure in 1..FAILURES {
            assert_eq!(attempt(&mut breaker, Some(false), 1), Change::None, "{failure}");
        }
        assert_eq!(attempt(&mut breaker, Some(false), 1), Change::Opened);
        breaker
    }

    #[test]
    fn a_run_of_failures_opens_it_and_one_success_breaks_the_run() {
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            for _ in 1..FAILURES {
                attempt(&mut breaker, Some(false), 1);
            }
            attempt(&mut breaker, None, 1);
            attempt(&mut breaker, Some(true), 1);
        }
        assert_eq!((breaker.phase(), breaker.holds(at(1))), (Phase::Closed, None));
        assert_eq!(opened().holds(at(1)), Some(at(11)));
    }

    #[test]
    fn one_first_attempt_is_let_through_when_no_retry_is_due() {
        let mut breaker = opened();
        assert_eq!(breaker.holds(at(11)), None);
        let probe = breaker.started(at(11));
        assert!(breaker.holds(at(60)).is_some() && breaker.is_probing());
        breaker.ended(probe, Some(false), at(26));
        assert_eq!(breaker.holds(at(26)), Some(at(46)), "it waits twice as long");
        let probe = breaker.started(at(46));
        assert_eq!(breaker.ended(probe, Some(true), at(47)), Change::Recovering);
        assert_eq!((breaker.holds(at(47)), breaker.phase()), (None, Phase::Recovering));
    }

    #[test]
    fn what_was_begun_before_it_opened_says_nothing_against_it() {
        let mut breaker = Breaker::new();
        let before = breaker.started(at(1));
        for _ in 0..FAILURES {
            breaker.ended(before, Some(false), at(1));
        }
        // A retry at the same instant is the probe.
        let probe = breaker.started(at(1));
        breaker.ended(before, Some(false), at(9));
        assert!(breaker.is_probing() && breaker.holds(at(9)) == Some(at(11)));
        breaker.ended(probe, Some(true), at(12));
        let after = breaker.started(at(13));
        for other in [before, probe] {
            assert_eq!(breaker.ended(other, Some(false), at(13)), Change::None);
        }
        assert_eq!(breaker.ended(after, Some(false), at(14)), Change::Opened);
        assert!(!breaker.is_probing());
    }

    #[test]
    fn the_next_owner_goes_on_with_it() {
        assert_eq!(Breaker::new().memory(), None);
        let mut old = opened();
        let probe = old.started(at(11));
        old.ended(probe, Some(false), at(12));
        let mut new = Breaker::of(old.memory().unwrap(), at(15));
        assert_eq!((new.holds(at(31)), new.holds(at(32))), (Some(at(32)), None));
        assert_eq!(new.since(), old.since());
        let probe = new.started(at(32));
        new.ended(probe, Some(false), at(33));
        assert_eq!(new.holds(at(33)), Some(at(73)), "it waits twice as long again");
        // Whose clock is far ahead holds nothing for longer than anybody does.
        let ahead = BreakerMemory { probe_at: at(9_999), ..old.memory().unwrap() };
        assert_eq!(Breaker::of(ahead, at(15)).holds(at(315)), None);
        let mut closed = Breaker::new();
        attempt(&mut closed, Some(false), 1);
        let mut closed = Breaker::of(closed.memory().unwrap(), at(2));
        for _ in 2..FAILURES {
            assert_eq!(attempt(&mut closed, Some(false), 3), Change::None);
        }
        assert_eq!(attempt(&mut closed, Some(false), 3), Change::Opened);
    }

    #[test]
    fn what_is_on_record_tells_where_it_stands() {
        let mut breaker = Breaker::new();
        for second in 0..10 {
            // They are in flight at the same time.
            breaker.recall((at(second), at(20 + second)), false);
        }
        assert_eq!((breaker.phase(), breaker.holds(at(29))), (Phase::Open, Some(at(39))));
        breaker.recall((at(11), at(30)), false);
        assert_eq!(breaker.holds(at(38)), Some(at(39)), "it was begun before");
        breaker.recall((at(39), at(40)), false);
        assert_eq!(breaker.holds(at(41)), Some(at(60)));
        breaker.recall((at(60), at(61)), true);
        assert_eq!(breaker.phase(), Phase::Recovering);
    }

    #[test]
    fn enough_successes_close_it() {
        let mut breaker = opened();
        attempt(&mut breaker, Some(true), 11);
        for _ in 0..SUCCESSES {
            assert_eq!(breaker.phase(), Phase::Recovering);
            attempt(&mut breaker, Some(true), 13);
        }
        assert!(breaker.is_fresh());
    }

    proptest! {
        /// Whatever happens, a first attempt passes within a bounded time.
        #[test]
        fn nothing_is_held_for_ever(
            results in prop::collection::vec((any::<Option<bool>>(), 0_usize..4), 0..200),
        ) {
            let (mut breaker, mut flying) = (Breaker::new(), Vec::new());
            for (now, (good, left)) in (0..).zip(&results) {
                if breaker.holds(at(now)).is_none() || now % 3 == 0 {
                    flying.push(breaker.started(at(now)));
                }
                while flying.len() > *left {
                    breaker.ended(flying.remove(0), *good, at(now));
                }
            }
            let now = results.len() as u64;
            for epoch in flying {
                breaker.ended(epoch, Some(false), at(now));
            }
            prop_assert!(!breaker.is_probing());
            let later = at(now).saturating_add(PROBE_AFTER_MAX);
            prop_assert_eq!(breaker.holds(later), None);
        }
    }
}
