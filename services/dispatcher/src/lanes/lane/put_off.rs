//! What a lane has no room or no turn for: until when it is put off.
//!
//! Those that go in one request come back at one time: retries that failed together, and as many
//! first attempts as share a cell of the rate limit.

use std::{collections::VecDeque, time::Duration};

use fanfare_domain::{Timestamp, fact::DeferReason};

use super::{Bounds, Lane, SLOW_AFTER};
use crate::{
    lanes::{
        Kind,
        queue::{Fill, Key, Load},
        rate::{Limiter, Turn},
    },
    permits::Standing,
};

/// How much work a proven lane may hold once it is behind: others of its shard wait behind that.
pub(super) const AHEAD: Duration = Duration::from_secs(2);

/// The shortest time for which a delivery is put off, and the longest beyond the time at which
/// its endpoint can be served again.
const DEFER_MIN: Duration = Duration::from_secs(2);
const DEFER_MAX: Duration = Duration::from_mins(5);

/// How far apart deliveries that are put off come back, at least and at most.
const PACE_MIN: Duration = Duration::from_millis(1);
const PACE_MAX: Duration = Duration::from_secs(5);

/// Of how many groups a lane remembers until when they were put off.
const GROUPS_MAX: usize = 16;

/// Those that are put off together.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// Groups of retries, the latest last.
    groups: VecDeque<(Key, Timestamp, DeferReason)>,
    /// A cell of the rate limit, and how many more first attempts go in its request.
    cell: Option<(Turn, usize)>,
}

impl<T> Lane<T> {
    /// Tells whether an attempt may wait here; if not, until when it is put off, and why. One
    /// that was put off by the limit, and comes back at its time, has its turn.
    pub(in crate::lanes) fn admit(
        &mut self,
        (kind, has_turn, load): (Kind, bool, Load),
        bounds: Bounds,
        now: Timestamp,
    ) -> Result<(), (Timestamp, DeferReason)> {
        (self.used_at, self.is_hurried) = (now, bounds.is_hurried);
        let fill = self.fill();
        let group = (fill.is_some() && load.batch.is_some()).then(|| load.key());
        if let Some(key) = group {
            if self.queue(kind).joins(&load, fill) {
                return Ok(());
            }
            if let Some(put_off) = self.together.find(key, now) {
                return Err(put_off);
            }
        }
        let admitted = self.admit_one((kind, has_turn, load), bounds, now);
        if let (Some(key), Err(put_off)) = (group, admitted) {
            self.together.note(key, put_off);
        }
        admitted
    }

    /// Takes out what the lane may not keep, at most about `most` attempts, and says until when and
    /// why.
    pub(in crate::lanes) fn shed(
        &mut self,
        bounds: Bounds,
        most: usize,
        now: Timestamp,
    ) -> Vec<(T, Timestamp, DeferReason)> {
        self.is_hurried = bounds.is_hurried;
        let mut shed = Vec::new();
        for kind in [Kind::First, Kind::Retry] {
            let is_quiet = self.is_quiet(now);
            let bound = if is_quiet { 0 } else { self.bound(kind, bounds, now) };
            let beyond = self.queue(kind).len().saturating_sub(bound);
            let items = self.queue_mut(kind).shed(beyond.min(most.saturating_sub(shed.len())));
            for (group, item) in items {
                let known = group.and_then(|key| self.together.find(key, now));
                let (until, reason) = known.unwrap_or_else(|| {
                    if is_quiet {
                        (self.put_off(self.quiet_until, now), DeferReason::RetryAfter)
                    } else {
                        self.crowded_out(kind, now)
                    }
                });
                if let (Some(key), None) = (group, known) {
                    self.together.note(key, (until, reason));
                }
                shed.push((item, until, reason));
            }
        }
        shed
    }

    fn admit_one(
        &mut self,
        (kind, has_turn, load): (Kind, bool, Load),
        bounds: Bounds,
        now: Timestamp,
    ) -> Result<(), (Timestamp, DeferReason)> {
        if self.is_quiet(now) {
            return Err((self.put_off(self.quiet_until, now), DeferReason::RetryAfter));
        }
        if self.queue(kind).len() >= self.bound(kind, bounds, now) {
            return Err(self.crowded_out(kind, now));
        }
        if has_turn || self.queue(kind).joins(&load, self.fill()) {
            return Ok(());
        }
        let (fill, Some(limiter)) = (self.fill(), &mut self.limiter) else { return Ok(()) };
        match self.together.plan(limiter, fill.filter(|_| kind == Kind::First), now) {
            Turn::Soon => Ok(()),
            Turn::Reserved(at) | Turn::Later(at) => Err((at, DeferReason::RateLimit)),
        }
    }

    /// How many attempts of a kind may wait.
    pub(super) fn bound(&self, kind: Kind, bounds: Bounds, now: Timestamp) -> usize {
        let fill = self.fill();
        let together = fill.map_or(1, |fill| fill.max);
        // Less than a request's worth would make all requests smaller than they may be.
        let slow = if bounds.is_hurried { bounds.slow } else { bounds.slow.max(together) };
        if kind == Kind::First && self.held_until(now).is_some() {
            return slow;
        }
        let waited = self.queue(kind).waits_since(fill).map(|since| now.since(since));
        if waited.is_none_or(|waited| waited <= SLOW_AFTER) {
            return bounds.most;
        }
        match self.share.standing() {
            Standing::Proven => {
                let ahead = AHEAD.as_nanos() / self.pace().as_nanos().max(1);
                let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
                ahead.saturating_mul(together).max(slow).min(bounds.most)
            }
            Standing::New | Standing::Slow => slow,
        }
    }

    /// How far apart requests are that the endpoint is given at its best.
    pub(super) fn pace(&self) -> Duration {
        let own = self.time() / u32::from(self.window.limit(self.rules.concurrency));
        let limit = self.rules.rate.map_or(Duration::ZERO, |limit| limit.interval());
        own.max(limit).clamp(PACE_MIN, PACE_MAX)
    }

    fn crowded_out(&mut self, kind: Kind, now: Timestamp) -> (Timestamp, DeferReason) {
        if kind == Kind::First
            && let Some(until) = self.held_until(now)
        {
            return (self.put_off(until, now), DeferReason::Breaker);
        }
        let waiting = self.queue(kind).requests(self.fill());
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let backlog = self.pace().saturating_mul(waiting).min(DEFER_MAX);
        (self.put_off(now.saturating_add(backlog), now), DeferReason::LaneFull)
    }

    /// Until when one more delivery is put off whose endpoint is free at `free_at`: one after
    /// the other, at its pace.
    fn put_off(&mut self, free_at: Timestamp, now: Timestamp) -> Timestamp {
        let earliest = free_at.max(now.saturating_add(DEFER_MIN));
        let together = self.fill().map_or(1, |fill| u32::try_from(fill.max).unwrap_or(u32::MAX));
        let behind = self.put_off_to.saturating_add(self.pace() / together.max(1));
        self.put_off_to = behind.clamp(earliest, earliest.saturating_add(DEFER_MAX));
        self.put_off_to
    }
}

impl Together {
    /// Until when others of a group were put off, if that is not too soon by now.
    fn find(&self, key: Key, now: Timestamp) -> Option<(Timestamp, DeferReason)> {
        let found = self.groups.iter().find(|(other, ..)| *other == key);
        let put_off = found.map(|(_, until, reason)| (*until, *reason));
        put_off.filter(|(until, _)| *until >= now.saturating_add(DEFER_MIN))
    }

    fn note(&mut self, key: Key, (until, reason): (Timestamp, DeferReason)) {
        self.groups.retain(|(other, ..)| *other != key);
        if self.groups.len() >= GROUPS_MAX {
            self.groups.pop_front();
        }
        self.groups.push_back((key, until, reason));
    }

    /// Gives an arrival its turn. What goes in one request takes one cell.
    fn plan(&mut self, limiter: &mut Limiter, fill: Option<Fill>, now: Timestamp) -> Turn {
        let Some(fill) = fill else { return limiter.plan(now) };
        let soon = now.saturating_add(DEFER_MIN);
        let is_ahead = |turn| match turn {
            Turn::Soon => false,
            Turn::Reserved(at) | Turn::Later(at) => at >= soon,
        };
        if let Some((turn, left)) = self.cell.filter(|(turn, left)| *left > 0 && is_ahead(*turn)) {
            self.cell = Some((turn, left - 1));
            return turn;
        }
        let turn = limiter.plan(now);
        self.cell = Some((turn, fill.max.saturating_sub(1)));
        turn
    }
}
