//! Lanes: what waits for each endpoint, and whose turn it is.
//!
//! A lane holds what is queued for one endpoint and counts what is in flight to it: never more
//! than its cap, whatever changes meanwhile. What holds it back besides is its rate limit, its
//! breaker, its window (the congestion that it shows), and a `Retry-After`. What can be served
//! within two seconds waits in memory; for longer waits a delivery is *put off*, which costs
//! nothing here.
//!
//! An endpoint may take several attempts in one request, a *batch*. They wait for each other in its
//! lane, in the open: what waits holds no permit, and goes early where room gets scarce. Retries of
//! what failed together go together again (see [`queue`]).
//!
//! Lanes that can send take turns by the time in flight that they use (see [`turns`]), those that
//! are proven before those that are not (see [`crate::permits`]), [fresh](Urgency::Fresh) attempts
//! before late ones; of eight turns, slow lanes are the first to be asked in one, and late ones in
//! one. Pure: no clock, no I/O.

mod breaker;
mod feeding;
mod lane;
mod learnt;
mod levels;
mod queue;
mod quiet;
mod rate;
mod signal;
mod turns;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{EndpointId, Timestamp, fact::DeferReason};

use self::{
    breaker::Epoch,
    lane::{Bounds, InLine, Lane, Outlook, SLOW_AFTER},
    queue::Taken,
    turns::Turns,
};
pub(crate) use self::{
    breaker::{Breaker, Phase},
    lane::{Health, Kind, Rules, Urgency},
    learnt::Learnt,
    levels::Levels,
    queue::Load,
    rate::{RESERVED_AHEAD, RateState},
    signal::{Signal, quiet_until},
};
use crate::permits::{Door, Permit, Refusal, Standing};

/// The most deliveries that are put off at once.
const SHED_MAX: usize = 512;

/// How many lanes that hold their share are passed over for one turn.
const PASSED_MAX: usize = 16;

/// The most deliveries that any lane holds.
const LANE_MAX: usize = 8_192;

/// How many deliveries a lane keeps that cannot be served for now, by how many eighths of the
/// room are full.
const SLOW_KEEPS: [usize; 9] = [64, 64, 64, 64, 16, 16, 4, 2, 1];

/// From how many eighths on nothing waits for company, but for the retries of a batch that failed.
const HURRIED_FROM: usize = 4;

/// The lanes of one shard.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    by_endpoint: BTreeMap<EndpointId, Lane<T>>,
    /// Who is ready: for each standing, first attempts and retries.
    turns: [[Turns; 2]; 3],
    /// When lanes are to be looked at again.
    alarms: BTreeSet<(Timestamp, EndpointId)>,
    /// What is in flight, the oldest first.
    flights: BTreeMap<Flight, (EndpointId, Timestamp, Epoch)>,
    flight: u64,
    queued: usize,
    served: u64,
    fullness: usize,
    since: Timestamp,
}

/// Names an attempt that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flight(u64);

/// An attempt that arrives.
#[derive(Debug)]
pub(crate) struct Arrival<T> {
    /// Where it goes.
    pub(crate) endpoint: EndpointId,
    /// What kind it is of.
    pub(crate) kind: Kind,
    /// Whether its endpoint's rate limit has kept this time for it.
    pub(crate) has_turn: bool,
    /// What goes with it.
    pub(crate) load: Load,
    /// The attempt.
    pub(crate) item: T,
}

/// An attempt that is begun, or several in one request.
#[derive(Debug)]
pub(crate) struct Started<T> {
    /// Its name, to end it by.
    pub(crate) flight: Flight,
    /// The attempt.
    pub(crate) item: T,
    /// Those that go with it; none unless the endpoint takes batches.
    pub(crate) more: Vec<T>,
    /// Whether the endpoint takes batches, also of one.
    pub(crate) is_batch: bool,
    /// To be kept until it has ended.
    pub(crate) permit: Permit,
}

/// A delivery that is put off, until when, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PutOff<T> {
    pub(crate) item: T,
    pub(crate) until: Timestamp,
    pub(crate) reason: DeferReason,
}

impl<T> Lanes<T> {
    /// Makes no lanes. What was sent before that time is not known, so that rate limits begin with
    /// a burst that was used up then.
    pub(crate) fn new(since: Timestamp) -> Self {
        Self {
            by_endpoint: BTreeMap::new(),
            turns: Default::default(),
            alarms: BTreeSet::new(),
            flights: BTreeMap::new(),
            flight: 0,
            queued: 0,
            served: 0,
            fullness: 0,
            since,
        }
    }

    /// Says how full the room is, in eighths: the fuller, the less a slow lane may keep.
    pub(crate) fn set_fullness(&mut self, eighths: usize) {
        self.fullness = eighths;
    }

    /// Since when it is known what was sent, but for what was [taken over](Self::take_over).
    pub(crate) fn since(&self) -> Timestamp {
        self.since
    }

    /// Queues an attempt, unless it is to be put off. `rules` are the endpoint's present ones.
    pub(crate) fn queue(
        &mut self,
        arrival: Arrival<T>,
        rules: Rules,
        now: Timestamp,
    ) -> Option<PutOff<T>> {
        let bounds = self.bounds();
        let Arrival { endpoint, kind, has_turn, load, item } = arrival;
        let since = self.since;
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(|| Lane::new(since, now));
        lane.apply(rules, now);
        if let Err((until, reason)) = lane.admit((kind, has_turn, load), bounds, now) {
            return Some(PutOff { item, until, reason });
        }
        lane.push(kind, item, load, now);
        self.queued += 1;
        self.line_up(endpoint, now);
        None
    }

    /// Has lanes in which something waits go by the present rules. Others see them when they are
    /// asked.
    pub(crate) fn review(&mut self, rules: impl Fn(EndpointId) -> Rules, now: Timestamp) {
        let lanes = self.by_endpoint.iter().filter(|(_, lane)| lane.has_queued());
        let waiting: Vec<_> = lanes.map(|(endpoint, _)| *endpoint).collect();
        for endpoint in waiting {
            if let Some(lane) = self.by_endpoint.get_mut(&endpoint) {
                lane.apply(rules(endpoint), now);
            }
            self.line_up(endpoint, now);
        }
    }

    /// Takes back what was begun and did not fit its request: it goes next.
    pub(crate) fn give_back(
        &mut self,
        endpoint: EndpointId,
        kind: Kind,
        items: Vec<(T, Load)>,
        now: Timestamp,
    ) {
        let since = self.since;
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(|| Lane::new(since, now));
        self.queued += items.len();
        lane.give_back(kind, items, now);
        self.line_up(endpoint, now);
    }

    /// Puts off what lanes hold beyond what they may keep, so that it does not take up the room
    /// of the others; forgets lanes that nothing is known of; sees who has become slow.
    pub(crate) fn tidy(&mut self, door: &Door, now: Timestamp) -> Vec<PutOff<T>> {
        self.see_slow(door, now);
        let bounds = self.bounds();
        let (mut shed, mut changed) = (Vec::new(), Vec::new());
        for (endpoint, lane) in &mut self.by_endpoint {
            let (before, was_hurried) = (shed.len(), lane.is_hurried());
            let most = SHED_MAX.saturating_sub(before);
            let put_off = |(item, until, reason)| PutOff { item, until, reason };
            shed.extend(lane.shed(bounds, most, now).into_iter().map(put_off));
            if shed.len() > before || lane.is_hurried() != was_hurried {
                changed.push(*endpoint);
            }
        }
        self.queued = self.queued.saturating_sub(shed.len());
        for endpoint in changed {
            self.line_up(endpoint, now);
        }
        let forgotten = |lane: &Lane<T>| lane.is_forgettable(now);
        for (endpoint, _) in self.by_endpoint.extract_if(.., |_, lane| forgotten(lane)) {
            // A lane that is forgotten has nothing queued, so neither a place nor an alarm.
            debug_assert!(!self.alarms.iter().any(|(_, other)| *other == endpoint));
        }
        shed
    }

    /// Takes the attempt whose turn it is and for which there is a permit, and counts it as
    /// begun. `rules` tells the present ones of an endpoint.
    pub(crate) fn start(
        &mut self,
        rules: impl Fn(EndpointId) -> Rules,
        door: &Door,
        now: Timestamp,
    ) -> Option<Started<T>> {
        use Standing::{New, Proven, Slow};
        let standings =
            if self.served % 8 == 7 { [Slow, New, Proven] } else { [Proven, New, Slow] };
        let urgencies = if self.served % 8 == 3 {
            [Urgency::Late, Urgency::Fresh]
        } else {
            [Urgency::Fresh, Urgency::Late]
        };
        for urgency in urgencies {
            for standing in standings {
                if let Some(started) = self.start_of((standing, urgency), &rules, door, now) {
                    self.served += 1;
                    return Some(started);
                }
            }
        }
        None
    }

    /// Counts an attempt as ended.
    pub(crate) fn end(&mut self, flight: Flight, signal: Signal, door: &Door, now: Timestamp) {
        let Some((endpoint, started, epoch)) = self.flights.remove(&flight) else { return };
        let Some(lane) = self.by_endpoint.get_mut(&endpoint) else { return };
        let expected = lane.time();
        let standing = lane.end((started, epoch), signal, now);
        let used = now.since(started);
        if used > expected {
            lane.debt.add(used.saturating_sub(expected));
        } else {
            lane.debt.forgive(expected.saturating_sub(used));
        }
        door.judge(&lane.share, standing);
        self.line_up(endpoint, now);
    }

    /// Looks again at the lanes whose time has come.
    pub(crate) fn wake(&mut self, now: Timestamp) {
        while let Some((at, endpoint)) = self.alarms.first().copied() {
            if at > now {
                break;
            }
            self.alarms.pop_first();
            if let Some(lane) = self.by_endpoint.get_mut(&endpoint) {
                lane.alarm = None;
            }
            self.line_up(endpoint, now);
        }
    }

    /// When [`Self::wake`] is to be called.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Tells whether a delivery could be started, if there is a permit for it.
    #[cfg(test)]
    fn has_ready(&self) -> bool {
        self.turns.iter().flatten().any(|turns| !turns.is_empty())
    }

    /// How many deliveries wait.
    #[cfg(test)]
    fn queued(&self) -> usize {
        self.queued
    }

    /// What is known of an endpoint; `None` if nothing is.
    pub(crate) fn health(&self, endpoint: EndpointId, now: Timestamp) -> Option<Health> {
        self.by_endpoint.get(&endpoint).map(|lane| lane.health(now))
    }

    /// Notes that up to `count` requests of an owner before us may be in flight to the endpoint
    /// until a time: they count against its cap until then.
    pub(crate) fn ghost(&mut self, endpoint: EndpointId, count: u16, until: Timestamp) {
        // An owner that has just died is a recent use.
        let since = self.since;
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(|| Lane::new(since, until));
        lane.haunt(count, until);
    }

    /// Notes that one of those requests has ended.
    pub(crate) fn lay(&mut self, endpoint: EndpointId, until: Timestamp, now: Timestamp) {
        if let Some(lane) = self.by_endpoint.get_mut(&endpoint) {
            lane.lay(until);
            self.line_up(endpoint, now);
        }
    }

    /// How many requests are in flight to each endpoint that has any.
    #[cfg(test)]
    fn in_flight(&self) -> BTreeMap<EndpointId, u16> {
        let mut counts = BTreeMap::new();
        for (endpoint, ..) in self.flights.values() {
            *counts.entry(*endpoint).or_default() += 1;
        }
        counts
    }

    /// Where the rate limits stand that are not as good as fresh, for a hand-over.
    pub(crate) fn rate_states(&self, now: Timestamp) -> Vec<(EndpointId, RateState)> {
        let state = |(endpoint, lane): (&EndpointId, &Lane<T>)| {
            lane.rate_state(now).map(|state| (*endpoint, state))
        };
        self.by_endpoint.iter().filter_map(state).collect()
    }

    /// Goes on with a rate limit where another process left it.
    pub(crate) fn take_over(&mut self, endpoint: EndpointId, state: RateState, now: Timestamp) {
        let since = self.since;
        let lane = self.by_endpoint.entry(endpoint).or_insert_with(|| Lane::new(since, now));
        lane.take_over(state);
        self.line_up(endpoint, now);
    }

    fn bounds(&self) -> Bounds {
        let slow = SLOW_KEEPS.get(self.fullness).copied().unwrap_or(1);
        Bounds { most: LANE_MAX, slow, is_hurried: self.fullness >= HURRIED_FROM }
    }

    fn start_of(
        &mut self,
        (standing, urgency): (Standing, Urgency),
        rules: &impl Fn(EndpointId) -> Rules,
        door: &Door,
        now: Timestamp,
    ) -> Option<Started<T>> {
        // Whoever was passed over stands at the end: more would be to ask the same ones again.
        let mut passes = self.turns(standing, urgency).len().min(PASSED_MAX);
        while passes > 0 {
            let endpoint = self.turns(standing, urgency).first()?;
            let lane = self.by_endpoint.get_mut(&endpoint)?;
            lane.apply(rules(endpoint), now);
            if lane.outlook(now) != Outlook::Ready(urgency) {
                self.line_up(endpoint, now);
                continue;
            }
            match door.take(&lane.share, lane.time(), urgency) {
                Ok(permit) => return self.begin(endpoint, permit, now),
                Err(Refusal::Standing) => return None,
                Err(Refusal::Lane) => {
                    passes -= 1;
                    self.pass_over(endpoint, now);
                }
            }
        }
        None
    }

    fn begin(
        &mut self,
        endpoint: EndpointId,
        permit: Permit,
        now: Timestamp,
    ) -> Option<Started<T>> {
        self.step_out(endpoint, true);
        let lane = self.by_endpoint.get_mut(&endpoint)?;
        let is_batch = lane.fill().is_some();
        let (Taken { first: item, more }, epoch) = lane.begin(now)?;
        self.queued = self.queued.saturating_sub(1 + more.len());
        let flight = Flight(self.flight);
        self.flight += 1;
        self.flights.insert(flight, (endpoint, now, epoch));
        self.line_up(endpoint, now);
        Some(Started { flight, item, more, is_batch, permit })
    }

    /// Lets a lane that holds its share lose this turn.
    fn pass_over(&mut self, endpoint: EndpointId, now: Timestamp) {
        self.step_out(endpoint, true);
        if let Some(lane) = self.by_endpoint.get_mut(&endpoint) {
            lane.debt.add(lane.time());
        }
        self.line_up(endpoint, now);
    }

    /// Takes a lane out of its line; for its turn, or because it has none any more.
    fn step_out(&mut self, endpoint: EndpointId, is_served: bool) {
        let Some(lane) = self.by_endpoint.get_mut(&endpoint) else { return };
        let Some(InLine { standing, urgency, place }) = lane.line.take() else { return };
        let turns = line(&mut self.turns, standing, urgency);
        if is_served {
            turns.serve(&place);
        } else {
            turns.leave(&place, &mut lane.debt);
        }
    }

    /// Puts a lane where it belongs: into a line, to sleep, or nowhere.
    fn line_up(&mut self, endpoint: EndpointId, now: Timestamp) {
        let Some(lane) = self.by_endpoint.get_mut(&endpoint) else { return };
        let outlook = lane.outlook(now);
        let wanted = match outlook {
            Outlook::Ready(urgency) => Some((lane.share.standing(), urgency)),
            Outlook::Nothing | Outlook::At(_) => None,
        };
        let alarm = match outlook {
            Outlook::At(at) => Some(at),
            Outlook::Nothing | Outlook::Ready(_) => None,
        };
        if lane.alarm != alarm {
            if let Some(before) = std::mem::replace(&mut lane.alarm, alarm) {
                self.alarms.remove(&(before, endpoint));
            }
            self.alarms.extend(alarm.map(|at| (at, endpoint)));
        }
        if lane.line.as_ref().map(|line| (line.standing, line.urgency)) == wanted {
            return;
        }
        self.step_out(endpoint, false);
        let Some(lane) = self.by_endpoint.get_mut(&endpoint) else { return };
        if let Some((standing, urgency)) = wanted {
            let place = line(&mut self.turns, standing, urgency).line_up(endpoint, &mut lane.debt);
            lane.line = Some(InLine { standing, urgency, place });
        }
    }

    /// Thinks of lanes as slow that have had something in flight for long.
    fn see_slow(&mut self, door: &Door, now: Timestamp) {
        let long = |started: Timestamp| now.since(started) > SLOW_AFTER;
        let flights = self.flights.values().take_while(|(_, started, _)| long(*started));
        let endpoints: BTreeSet<_> = flights.map(|(endpoint, ..)| *endpoint).collect();
        for endpoint in endpoints {
            let Some(lane) = self.by_endpoint.get_mut(&endpoint) else { continue };
            if lane.share.standing() != Standing::Slow {
                door.judge(&lane.share, Standing::Slow);
                self.line_up(endpoint, now);
            }
        }
    }

    fn turns(&mut self, standing: Standing, urgency: Urgency) -> &mut Turns {
        line(&mut self.turns, standing, urgency)
    }
}

/// The line for lanes of a standing with such attempts.
fn line(lines: &mut [[Turns; 2]; 3], standing: Standing, urgency: Urgency) -> &mut Turns {
    let [[new, new_late], [proven, proven_late], [slow, slow_late]] = lines;
    match (standing, urgency) {
        (Standing::New, Urgency::Fresh) => new,
        (Standing::New, Urgency::Late) => new_late,
        (Standing::Proven, Urgency::Fresh) => proven,
        (Standing::Proven, Urgency::Late) => proven_late,
        (Standing::Slow, Urgency::Fresh) => slow,
        (Standing::Slow, Urgency::Late) => slow_late,
    }
}

#[cfg(test)]
mod batches;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
