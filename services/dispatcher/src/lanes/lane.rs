//! One lane: what waits for one endpoint, what is in flight to it, and what holds it back.

mod feeding;
mod put_off;

use std::time::Duration;

use fanfare_domain::{
    Timestamp,
    endpoint::{Batching, Ordering, RateLimit},
};

use self::put_off::Together;
use crate::{
    lanes::{
        breaker::{self, Breaker, Epoch, Phase},
        queue::{Fill, Load, Queue, Taken},
        rate::{Limiter, RateState, STAY},
        signal::Signal,
        turns::{Debt, Place},
        window::Window,
    },
    permits::{Share, Standing},
};

/// When a lane counts as slow, and as fast again.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(1);
const FAST_BELOW: Duration = Duration::from_millis(500);

/// What a request is taken to need as long as none was made.
const TIME_UNKNOWN: Duration = Duration::from_millis(50);

/// After how many first attempts one retry that is due comes in between.
pub(super) const RETRY_SHARE: u32 = 7;

/// How long a lane with nothing to remember, and any lane, is kept after its last use.
const KEPT: Duration = Duration::from_mins(1);
const REMEMBERED: Duration = Duration::from_hours(1);

/// What an endpoint's owner and its profile say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How many requests may be in flight at once.
    pub(crate) concurrency: u16,
    /// How many may be begun in a time.
    pub(crate) rate: Option<RateLimit>,
    /// Whether first attempts are held from an endpoint that keeps failing.
    pub(crate) breaker: bool,
    /// Whether events have to wait for the ones before them.
    pub(crate) ordering: Ordering,
    /// How many attempts go in one request; one if that is not said.
    pub(crate) batch: Option<Batching>,
}

/// What kind of attempt it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first of its delivery, whether it was put off before or not.
    First,
    /// A later one, whose time has come.
    Retry,
}

/// Who goes before whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// The first attempt of an event that has just come.
    #[default]
    Fresh,
    /// A retry, or a first attempt that was put off or is caught up on.
    Late,
}

/// How much lanes may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Any lane.
    pub(super) most: usize,
    /// One that cannot be served for now.
    pub(super) slow: usize,
    /// Whether the room is so scarce that nothing waits for company.
    pub(super) is_hurried: bool,
}

/// What a lane can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Nothing until something is queued or ends.
    Nothing,
    /// Something at that time.
    At(Timestamp),
    /// Begin an attempt, which is so urgent.
    Ready(Urgency),
}

/// A lane's place in line.
#[derive(Clone, Copy, Debug)]
pub(super) struct InLine {
    pub(super) standing: Standing,
    pub(super) urgency: Urgency,
    pub(super) place: Place,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) share: Share,
    pub(super) line: Option<InLine>,
    pub(super) alarm: Option<Timestamp>,
    pub(super) debt: Debt,
    rules: Rules,
    firsts: Queue<T>,
    retries: Queue<T>,
    /// First attempts since the last retry.
    since_retry: u32,
    in_flight: usize,
    /// Slots that requests of an owner before us may use, and until when.
    ghosts: Vec<(Timestamp, u16)>,
    limiter: Option<Limiter>,
    /// Since when the endpoint is ours, and where the owner before left its limit.
    since: Timestamp,
    handed_over: Option<RateState>,
    pub(super) breaker: Breaker,
    pub(super) window: Window,
    quiet_until: Timestamp,
    /// How long requests are in flight of late.
    time: Option<Duration>,
    put_off_to: Timestamp,
    together: Together,
    is_hurried: bool,
    used_at: Timestamp,
}

/// What is known of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// First attempts that wait.
    pub(crate) firsts: usize,
    /// Retries that wait.
    pub(crate) retries: usize,
    /// Requests in flight.
    pub(crate) in_flight: usize,
    /// How many may be in flight at present.
    pub(crate) window: u16,
    /// What the breaker does.
    pub(crate) breaker: Phase,
    /// Since when; `None` if it has always done that.
    pub(crate) since: Option<Timestamp>,
    /// Until when the endpoint is left alone, because it asked for it.
    pub(crate) quiet_until: Option<Timestamp>,
    /// How long requests are in flight of late.
    pub(crate) time: Option<Duration>,
    /// How the lane is thought of.
    pub(crate) standing: Standing,
}

impl<T> Lane<T> {
    pub(super) fn new(since: Timestamp, now: Timestamp) -> Self {
        Self {
            share: Share::new(),
            line: None,
            alarm: None,
            debt: Debt::default(),
            rules: Rules {
                concurrency: 1,
                rate: None,
                breaker: false,
                batch: None,
                ordering: Ordering::None,
            },
            firsts: Queue::new(Kind::First),
            retries: Queue::new(Kind::Retry),
            since_retry: 0,
            in_flight: 0,
            ghosts: Vec::new(),
            limiter: None,
            since,
            handed_over: None,
            breaker: Breaker::new(),
            window: Window::new(),
            quiet_until: Timestamp::EPOCH,
            time: None,
            put_off_to: Timestamp::EPOCH,
            together: Together::default(),
            is_hurried: false,
            used_at: now,
        }
    }

    /// Goes by these rules from now on.
    pub(super) fn apply(&mut self, rules: Rules, now: Timestamp) {
        if rules == self.rules {
            return;
        }
        match (&mut self.limiter, rules.rate) {
            (Some(limiter), Some(limit)) => limiter.change(limit, now),
            (limiter, None) => *limiter = None,
            (limiter @ None, Some(limit)) => {
                let spent = || Limiter::spent(&limit, self.since);
                *limiter = Some(Limiter::new(limit, self.handed_over.take().unwrap_or_else(spent)));
            }
        }
        if !rules.breaker {
            self.breaker.reset(now);
        }
        let changed = rules.batch != self.rules.batch;
        self.rules = rules;
        if changed {
            let fill = self.fill();
            self.firsts.rearrange(fill);
            self.retries.rearrange(fill);
        }
    }

    /// Queues an attempt.
    pub(super) fn push(&mut self, kind: Kind, item: T, load: Load, now: Timestamp) {
        let fill = self.fill();
        self.queue_mut(kind).push(item, load, fill, now);
    }

    /// Takes back what was begun and did not fit its request.
    pub(super) fn give_back(&mut self, kind: Kind, items: Vec<(T, Load)>, now: Timestamp) {
        let fill = self.fill();
        self.queue_mut(kind).give_back(items, fill, now);
    }

    /// Tells whether anything waits here.
    pub(super) fn has_queued(&self) -> bool {
        !(self.firsts.is_empty() && self.retries.is_empty())
    }

    /// What the lane can do.
    pub(super) fn outlook(&mut self, now: Timestamp) -> Outlook {
        if !self.has_queued() {
            return Outlook::Nothing;
        }
        if self.quiet_until > now {
            return Outlook::At(self.quiet_until);
        }
        self.ghosts.retain(|(until, _)| *until > now);
        let ghosts: usize = self.ghosts.iter().map(|(_, count)| usize::from(*count)).sum();
        if self.in_flight + ghosts >= usize::from(self.window.limit(self.rules.concurrency)) {
            let gone = self.ghosts.iter().map(|(until, _)| *until).min();
            return gone.map_or(Outlook::Nothing, Outlook::At);
        }
        let (_, urgency) = match self.next(now) {
            Ok(next) => next,
            Err(outlook) => return outlook,
        };
        match self.limiter.as_mut().map(|limiter| limiter.opens_at(now)) {
            Some(at) if at > now => Outlook::At(at),
            Some(_) | None => Outlook::Ready(urgency),
        }
    }

    /// Takes what is next, and counts it as one request that is begun. The outlook must have been
    /// ready.
    pub(super) fn begin(&mut self, now: Timestamp) -> Option<(Taken<T>, Epoch)> {
        let is_due = self.since_retry >= RETRY_SHARE && self.is_ready(Kind::Retry, now);
        let kind = if is_due { Kind::Retry } else { self.next(now).ok()?.0 };
        let fill = self.fill();
        let taken = self.queue_mut(kind).take(fill)?;
        self.since_retry = match kind {
            Kind::First => self.since_retry.saturating_add(1),
            Kind::Retry => 0,
        };
        if let Some(limiter) = &mut self.limiter {
            let allowed = limiter.begin(now);
            debug_assert!(allowed, "the gate was asked before");
        }
        self.in_flight += 1;
        self.used_at = now;
        let epoch = self.breaker.started(now);
        self.debt.add(self.time());
        Some((taken, epoch))
    }

    /// Counts an attempt as ended; returns how the lane is to be thought of.
    pub(super) fn end(
        &mut self,
        (started, epoch): (Timestamp, Epoch),
        signal: Signal,
        now: Timestamp,
    ) -> Standing {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.used_at = now;
        let standing = self.learn(signal.time);
        if signal.congested {
            self.window.shrink(self.rules.concurrency, started, now);
        } else if signal.good == Some(true) {
            self.window.grow(self.rules.concurrency);
        }
        if let Some(until) = signal.quiet_until {
            self.leave_alone(until);
        }
        if self.rules.breaker {
            match self.breaker.ended(epoch, signal.good, now) {
                breaker::Change::Recovering => self.window.restart(now),
                breaker::Change::Opened | breaker::Change::None => {}
            }
        }
        standing
    }

    /// Notes that requests of an owner before us may be in flight until a time.
    pub(super) fn haunt(&mut self, count: u16, until: Timestamp) {
        match self.ghosts.iter_mut().find(|(other, _)| *other == until) {
            Some((_, known)) => *known = known.saturating_add(count),
            None => self.ghosts.push((until, count)),
        }
    }

    /// Notes that one of those has ended that may have been in flight until that time.
    pub(super) fn lay(&mut self, until: Timestamp) {
        if let Some((_, count)) = self.ghosts.iter_mut().find(|(other, _)| *other == until) {
            *count = count.saturating_sub(1);
        }
    }

    /// Takes over where another process left the limit.
    pub(super) fn take_over(&mut self, state: RateState) {
        match (&mut self.limiter, self.rules.rate) {
            (Some(limiter), Some(limit)) => *limiter = Limiter::new(limit, state),
            (Some(_) | None, _) => self.handed_over = Some(state),
        }
    }

    /// Where the limit stands, if there is one and it says more than a fresh one. The cells of
    /// what waits here are given back: it arrives again at the next owner, and takes others.
    pub(super) fn rate_state(&self, now: Timestamp) -> Option<RateState> {
        let (Some(limiter), Some(limit)) = (&self.limiter, self.rules.rate) else {
            return self.handed_over.filter(|state| state.gate > now || state.plan > now);
        };
        let fill = self.fill();
        let waiting = self.firsts.requests(fill) + self.retries.requests(fill);
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let RateState { gate, plan } = limiter.state();
        let given_back = plan.saturating_sub(limit.interval().saturating_mul(waiting));
        let state = RateState { gate, plan: given_back.max(gate.min(plan)) };
        Some(state).filter(|_| !limiter.is_fresh(now))
    }

    /// Tells whether nothing would be lost with the lane.
    pub(super) fn is_forgettable(&self, now: Timestamp) -> bool {
        let is_empty = !self.has_queued() && self.in_flight == 0;
        let is_bound = self.quiet_until > now
            || self.rate_state(now).is_some()
            || self.ghosts.iter().any(|(until, _)| *until > now);
        let has_past = !self.breaker.is_fresh() || !self.window.is_open();
        let idle = now.since(self.used_at);
        is_empty && !is_bound && idle > if has_past { REMEMBERED } else { KEPT }
    }

    /// A summary.
    pub(super) fn health(&self, now: Timestamp) -> Health {
        Health {
            firsts: self.firsts.len(),
            retries: self.retries.len(),
            in_flight: self.in_flight,
            window: self.window.limit(self.rules.concurrency),
            breaker: self.breaker.phase(),
            since: self.breaker.since(),
            quiet_until: (self.quiet_until > now).then_some(self.quiet_until),
            time: self.time,
            standing: self.share.standing(),
        }
    }

    /// Since when the oldest attempt waits.
    pub(super) fn waits_since(&self) -> Option<Timestamp> {
        self.firsts.oldest().into_iter().chain(self.retries.oldest()).min()
    }

    /// What a request is expected to take.
    pub(super) fn time(&self) -> Duration {
        self.time.unwrap_or(TIME_UNKNOWN)
    }

    /// How batches are put together, if they are.
    pub(super) fn fill(&self) -> Option<Fill> {
        self.rules.batch.map(|batching| Fill::of(batching, self.is_hurried))
    }

    /// Whether the lane was told that room is scarce.
    pub(super) const fn is_hurried(&self) -> bool {
        self.is_hurried
    }

    /// Of which kind the next attempt is and how urgent, or what it waits for beside the rate limit.
    fn next(&self, now: Timestamp) -> Result<(Kind, Urgency), Outlook> {
        let fill = self.fill();
        let (firsts, retries) = (self.firsts.ready_at(fill), self.retries.ready_at(fill));
        let firsts = match self.held_until(now) {
            None => firsts,
            // A retry that waits is the probe.
            Some(_) if retries.is_some() || self.breaker.is_probing() => None,
            Some(probe_at) => firsts.map(|at| at.max(probe_at)),
        };
        if firsts.is_some_and(|at| at <= now) {
            return Ok((Kind::First, self.firsts.urgency()));
        }
        if retries.is_some_and(|at| at <= now) {
            return Ok((Kind::Retry, Urgency::Late));
        }
        Err(firsts.into_iter().chain(retries).min().map_or(Outlook::Nothing, Outlook::At))
    }

    fn is_ready(&self, kind: Kind, now: Timestamp) -> bool {
        self.queue(kind).ready_at(self.fill()).is_some_and(|at| at <= now)
    }

    fn queue(&self, kind: Kind) -> &Queue<T> {
        match kind {
            Kind::First => &self.firsts,
            Kind::Retry => &self.retries,
        }
    }

    fn queue_mut(&mut self, kind: Kind) -> &mut Queue<T> {
        match kind {
            Kind::First => &mut self.firsts,
            Kind::Retry => &mut self.retries,
        }
    }

    /// Sends nothing until then.
    pub(super) fn leave_alone(&mut self, until: Timestamp) {
        self.quiet_until = self.quiet_until.max(until);
    }

    fn is_quiet(&self, now: Timestamp) -> bool {
        self.quiet_until > now.saturating_add(STAY)
    }

    pub(super) const fn has_breaker(&self) -> bool {
        self.rules.breaker
    }

    fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        if self.rules.breaker { self.breaker.holds(now) } else { None }
    }

    fn learn(&mut self, time: Option<Duration>) -> Standing {
        let Some(time) = time else { return self.share.standing() };
        let known = self.time.map_or(time, |known| (known * 7 + time) / 8);
        self.time = Some(known);
        match self.share.standing() {
            Standing::New | Standing::Proven if known > SLOW_AFTER => Standing::Slow,
            Standing::Slow if known > FAST_BELOW => Standing::Slow,
            Standing::New | Standing::Proven | Standing::Slow => Standing::Proven,
        }
    }
}
