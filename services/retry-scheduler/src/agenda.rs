//! What is to be done for the deliveries of one shard, and when. Pure: a fold over its journal.
//!
//! ```text
//! attempt failed, deferred ─▶ Asked ─▶ retry scheduled ─▶ Planned ─▶ next attempt, conclusion ─▶ (forgotten)
//! parked ─▶ Parked ─▶ endpoint resumed ─▶ Asked
//! ```
//!
//! A fact obliges us to something ([`Kind`]); the duty stays open until it is done, also over a
//! restart. An alarm that is set and has become pointless is such a duty too: it is stopped. Facts are folded in the order of the journal and never acted upon while folding: what
//! to do follows from the state, so that catching up after a restart is the same as working.

mod duties;
mod entry;
#[cfg(test)]
mod laws;
mod overdue;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fanfare_domain::{
    Conclusion, DeliveryId, DeliveryRef, EndpointId, Fact, Record, RetryDue, Shard, Timestamp,
    fact::{AttemptMade, DeliveryConcluded, DeliveryDeferred, DeliveryParked, RetryScheduled},
};

use self::{
    duties::{Duties, Kind},
    entry::{Entry, Phase, short},
};
use crate::{directory::Directory, health::Health};

pub(crate) use self::{
    duties::Cause,
    overdue::{Overdue, Patience},
};

/// How far apart the deliveries of a resumed endpoint become due, in the order of their events.
const RESUME_PACE: Duration = Duration::from_millis(5);

/// The waiting deliveries are packed anew once they have become more by one in so many, and by so
/// many at least.
const PACKED_SHARE: usize = 5;
const PACKED_STEP: usize = 2_048;

/// The waiting deliveries of a shard, and what is to be done for them.
#[derive(Clone, Debug)]
pub(crate) struct Agenda {
    shard: Shard,
    /// The last sequence of JOURNAL that is folded in.
    folded: u64,
    /// Facts at or below this sequence were never seen: the journal does not hold them any more.
    unseen: u64,
    told_before: Timestamp,
    /// Deliveries that are asked for or planned.
    waiting: BTreeMap<DeliveryId, Entry>,
    /// How many of them there were when they were last packed.
    packed: usize,
    parked: BTreeMap<EndpointId, BTreeMap<DeliveryId, Entry>>,
    duties: Duties,
    /// Alarms to be stopped, by the facts that made them pointless.
    stops: Duties,
    /// How the shard's endpoints do.
    pub(crate) health: Health,
    /// The revision of CONFIG up to which operators were told of disabled endpoints and new keys.
    pub(crate) announced: u64,
    overdue: overdue::Cursor,
}

/// What folding facts brought up besides duties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Endpoints whose attempts failed.
    pub(crate) failing: BTreeSet<EndpointId>,
    /// Whether a delivery was parked.
    pub(crate) parked: bool,
}

/// Something to do, with all that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Write this fact, a [`Fact::RetryScheduled`].
    Plan(Record),
    /// Set the alarm clock: schedule this message.
    Alarm(RetryDue),
    /// Stop the alarm clock of a delivery that is past it, for that cause.
    Stop(Cause),
    /// Tell operators.
    Tell(Exhausted),
}

/// A delivery that operators are to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted {
    /// The sequence of the fact that it is exhausted.
    pub(crate) sequence: u64,
    /// The delivery.
    pub(crate) delivery: DeliveryRef,
    /// Its last attempt, if it is at hand, and its conclusion.
    pub(crate) facts: Vec<Record>,
}

impl Agenda {
    /// Begins with nothing.
    pub(crate) fn new(shard: Shard) -> Self {
        Self {
            shard,
            folded: 0,
            unseen: 0,
            told_before: Timestamp::EPOCH,
            waiting: BTreeMap::new(),
            packed: 0,
            parked: BTreeMap::new(),
            duties: Duties::default(),
            stops: Duties::default(),
            health: Health::default(),
            announced: 0,
            overdue: overdue::Cursor::default(),
        }
    }

    /// Returns the last sequence of JOURNAL that is folded in.
    pub(crate) fn checkpoint(&self) -> u64 {
        self.folded
    }

    /// Notes that the journal holds nothing more about this shard up to a sequence.
    pub(crate) fn reach(&mut self, sequence: u64) {
        self.folded = self.folded.max(sequence);
    }

    /// Notes that there is no snapshot, and that the journal begins at a sequence. Operators count
    /// as told of what was exhausted before an instant.
    pub(crate) fn begin(&mut self, first: u64, told_before: Timestamp) {
        self.unseen = first.saturating_sub(1);
        self.told_before = told_before;
    }

    /// Returns how many deliveries wait for their time, and how many for their endpoint.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.waiting.len(), self.parked.values().map(BTreeMap::len).sum())
    }

    /// Folds the facts at a sequence. What is folded in already changes nothing.
    ///
    /// The directory has to have reached what the facts were made from.
    pub(crate) fn apply(
        &mut self,
        sequence: u64,
        facts: &[Record],
        directory: &Directory,
    ) -> Effects {
        let mut effects = Effects::default();
        if sequence <= self.folded {
            return effects;
        }
        for record in facts {
            match &record.fact {
                Fact::AttemptMade(made) => {
                    self.attempted(sequence, made, record.recorded_at);
                    if self.health.note(made, directory) {
                        effects.failing.insert(made.delivery.endpoint);
                    }
                }
                Fact::DeliveryDeferred(deferred) => self.deferred(sequence, deferred),
                Fact::DeliveryParked(parked) => {
                    self.park(sequence, parked);
                    effects.parked = true;
                }
                Fact::DeliveryConcluded(concluded) => {
                    self.concluded(sequence, concluded, record.recorded_at);
                }
                Fact::RetryScheduled(scheduled) => self.scheduled(sequence, scheduled),
                Fact::ShardClaimed(_) | Fact::ShardReleased(_) | Fact::EventRouted(_) => {}
            }
        }
        self.folded = sequence;
        effects
    }

    /// Returns what is to be done about the facts at a sequence and is not being done, and notes
    /// that somebody does it.
    pub(crate) fn commands(
        &mut self,
        sequence: u64,
        facts: &[Record],
        now: Timestamp,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        for (at, record) in facts.iter().enumerate() {
            let Some(delivery) = record.fact.delivery() else { continue };
            let cause = (sequence, delivery.id);
            if self.stops.idle(cause).is_some() {
                self.stops.issue(cause);
                commands.push(Command::Stop(cause));
            }
            let command = match self.duties.idle(cause) {
                Some(Kind::Plan) => self.plan(cause, record, now).map(Command::Plan),
                Some(Kind::Alarm) => alarm(sequence, record).map(Command::Alarm),
                Some(Kind::Tell) => exhausted(sequence, facts, at).map(Command::Tell),
                Some(Kind::Stop) | None => None,
            };
            if let Some(command) = command {
                self.duties.issue(cause);
                commands.push(command);
            }
        }
        commands
    }

    /// Notes that a duty is done.
    pub(crate) fn done(&mut self, cause: Cause) {
        self.duties.close(cause);
    }

    /// Notes that a duty could not be done yet. Returns whether it is still to be done.
    pub(crate) fn not_done(&mut self, cause: Cause) -> bool {
        self.duties.give_back(cause)
    }

    /// Notes that an alarm is stopped.
    pub(crate) fn stopped(&mut self, cause: Cause) {
        self.stops.close(cause);
    }

    /// Notes that an alarm could not be stopped yet. Returns whether it is still to be.
    pub(crate) fn not_stopped(&mut self, cause: Cause) -> bool {
        self.stops.give_back(cause)
    }

    /// Returns the sequences of the facts about which something is to be done that nobody does.
    pub(crate) fn idle(&self) -> BTreeSet<u64> {
        &self.duties.idle_sequences() | &self.stops.idle_sequences()
    }

    /// Lets go of what was to be done about facts that the journal does not hold any more.
    /// Returns the deliveries.
    pub(crate) fn forget(&mut self, sequence: u64) -> Vec<DeliveryId> {
        for delivery in self.stops.at(sequence) {
            self.stops.close((sequence, delivery));
        }
        let lost = self.duties.at(sequence);
        for delivery in &lost {
            self.duties.close((sequence, *delivery));
            self.waiting.remove(delivery);
        }
        lost
    }

    /// Takes up parked deliveries: all of endpoints that hold nothing back any more, and those
    /// whose time to be given up has come, so that they get their conclusion.
    ///
    /// Returns the sequences of the facts about which something is to be done now.
    pub(crate) fn resume(
        &mut self,
        directory: &Directory,
        retention: Duration,
        now: Timestamp,
    ) -> BTreeSet<u64> {
        let mut sequences = BTreeSet::new();
        for endpoint in self.parked.keys().copied().collect::<Vec<_>>() {
            let freed = if directory.holds(endpoint) {
                self.unpark_given_up(endpoint, directory, retention, now)
            } else {
                self.parked.remove(&endpoint).unwrap_or_default()
            };
            for (rank, (delivery, parked)) in (0..).zip(freed) {
                let due = now.saturating_add(RESUME_PACE.saturating_mul(rank));
                let attempt = u32::from(parked.attempt);
                self.ask(delivery, Entry::new(Phase::Asked, attempt, due, parked.sequence));
                sequences.insert(parked.sequence);
            }
        }
        sequences
    }

    fn unpark_given_up(
        &mut self,
        endpoint: EndpointId,
        directory: &Directory,
        retention: Duration,
        now: Timestamp,
    ) -> BTreeMap<DeliveryId, Entry> {
        let (Some(policy), Some(parked)) =
            (directory.policy(endpoint), self.parked.get_mut(&endpoint))
        else {
            return BTreeMap::new();
        };
        // A delivery's id carries the time of its event, so the oldest come first.
        let is_over = |accepted_at| policy.give_up_at(accepted_at, retention) <= now;
        let oldest = parked.first_key_value().map(|(oldest, _)| oldest.time());
        if !oldest.is_some_and(is_over) {
            return BTreeMap::new();
        }
        // What a replay made counts from then, which is later than its id.
        let freed = parked.extract_if(.., |id, entry| is_over(entry.due().max(id.time())));
        let freed: BTreeMap<_, _> = freed.collect();
        if parked.is_empty() {
            self.parked.remove(&endpoint);
        }
        freed
    }

    fn attempted(&mut self, sequence: u64, made: &AttemptMade, at: Timestamp) {
        if self.is_history(&made.delivery, made.attempt) {
            return;
        }
        let before = self.remove(&made.delivery);
        match made.retry_at {
            Some(due) => {
                let attempt = made.attempt.saturating_add(1);
                self.ask(made.delivery.id, Entry::new(Phase::Asked, attempt, due, sequence));
            }
            None => self.stop((sequence, made.delivery.id), before, at),
        }
    }

    /// Has the alarm stopped that was set for a delivery, if it has not gone off: nobody may be left
    /// then who knows that it is pointless.
    fn stop(&mut self, cause: Cause, before: Option<Entry>, at: Timestamp) {
        if before.is_some_and(|entry| entry.alarm_is_ahead(at)) {
            self.stops.open(cause, Kind::Stop);
        }
    }

    fn deferred(&mut self, sequence: u64, deferred: &DeliveryDeferred) {
        if self.is_history(&deferred.delivery, deferred.attempt) {
            return;
        }
        self.remove(&deferred.delivery);
        let entry = Entry::new(Phase::Asked, deferred.attempt, deferred.until, sequence);
        self.ask(deferred.delivery.id, entry);
    }

    fn park(&mut self, sequence: u64, parked: &DeliveryParked) {
        if self.is_history(&parked.delivery, parked.attempt) {
            return;
        }
        self.remove(&parked.delivery);
        let entry =
            Entry::new(Phase::Parked, parked.attempt, parked.delivery.accepted_at, sequence);
        let of_endpoint = self.parked.entry(parked.delivery.endpoint).or_default();
        of_endpoint.insert(parked.delivery.id, entry);
    }

    fn concluded(&mut self, sequence: u64, concluded: &DeliveryConcluded, at: Timestamp) {
        let before = self.remove(&concluded.delivery);
        if concluded.conclusion == Conclusion::Exhausted && at >= self.told_before {
            self.duties.open((sequence, concluded.delivery.id), Kind::Tell);
        }
        self.stop((sequence, concluded.delivery.id), before, at);
    }

    /// A plan counts if it is the first one for the last fact that asked for one: the dispatcher
    /// does not wait for us when, say, a person cancels.
    fn scheduled(&mut self, sequence: u64, scheduled: &RetryScheduled) {
        let valid = match self.known(&scheduled.delivery) {
            None => scheduled.cause_sequence <= self.unseen,
            Some(known) => match known.phase {
                Phase::Asked | Phase::Parked => known.sequence == scheduled.cause_sequence,
                Phase::Planned => false,
            },
        };
        if !valid {
            return;
        }
        self.remove(&scheduled.delivery);
        let entry = Entry::new(Phase::Planned, scheduled.attempt, scheduled.due_at, sequence);
        self.wait(scheduled.delivery.id, entry);
        self.duties.open((sequence, scheduled.delivery.id), Kind::Alarm);
    }

    /// Tells whether a later attempt of the delivery is waiting than a fact is about.
    fn is_history(&self, delivery: &DeliveryRef, attempt: u32) -> bool {
        self.known(delivery).is_some_and(|known| known.attempt > short(attempt))
    }

    fn known(&self, delivery: &DeliveryRef) -> Option<Entry> {
        let parked = || self.parked.get(&delivery.endpoint)?.get(&delivery.id);
        self.waiting.get(&delivery.id).or_else(parked).copied()
    }

    /// Forgets a delivery and what was to be done for it.
    fn remove(&mut self, delivery: &DeliveryRef) -> Option<Entry> {
        let entry = self.waiting.remove(&delivery.id).or_else(|| self.remove_parked(delivery))?;
        self.duties.close((entry.sequence, delivery.id));
        Some(entry)
    }

    fn remove_parked(&mut self, delivery: &DeliveryRef) -> Option<Entry> {
        let of_endpoint = self.parked.get_mut(&delivery.endpoint)?;
        let entry = of_endpoint.remove(&delivery.id);
        if of_endpoint.is_empty() {
            self.parked.remove(&delivery.endpoint);
        }
        entry
    }

    fn ask(&mut self, delivery: DeliveryId, entry: Entry) {
        self.wait(delivery, entry);
        self.duties.open((entry.sequence, delivery), Kind::Plan);
    }

    fn wait(&mut self, delivery: DeliveryId, entry: Entry) {
        self.overdue.expect(entry);
        self.waiting.insert(delivery, entry);
        self.packed = self.packed.min(self.waiting.len());
        if self.waiting.len() > self.packed + self.packed / PACKED_SHARE + PACKED_STEP {
            // Ids come in the order of time, and a tree that grows at one end is half empty. One
            // that is made of all its entries at once is full.
            self.waiting = std::mem::take(&mut self.waiting).into_iter().collect();
            self.packed = self.waiting.len();
        }
    }

    /// Makes the fact that gives an attempt its time.
    fn plan(&self, cause: Cause, record: &Record, now: Timestamp) -> Option<Record> {
        let (delivery, attempt, due_at, batch) = match &record.fact {
            Fact::AttemptMade(made) => {
                (&made.delivery, made.attempt.saturating_add(1), made.retry_at?, made.batch)
            }
            Fact::DeliveryDeferred(deferred) => {
                (&deferred.delivery, deferred.attempt, deferred.until, deferred.batch)
            }
            Fact::DeliveryParked(parked) => {
                let entry = self.waiting.get(&parked.delivery.id)?;
                // What was parked together comes back in the order of the events, one by one.
                (&parked.delivery, parked.attempt, entry.due(), None)
            }
            Fact::ShardClaimed(_)
            | Fact::ShardReleased(_)
            | Fact::DeliveryConcluded(_)
            | Fact::RetryScheduled(_)
            | Fact::EventRouted(_) => return None,
        };
        let (delivery, cause_sequence) = (delivery.clone(), cause.0);
        let scheduled = RetryScheduled { delivery, attempt, due_at, cause_sequence, batch };
        let fact = Fact::RetryScheduled(scheduled);
        Some(Record { recorded_at: now, trace: record.trace.clone(), fact })
    }
}

/// Makes the alarm of a fact that gave an attempt its time.
pub(crate) fn alarm(sequence: u64, record: &Record) -> Option<RetryDue> {
    let Fact::RetryScheduled(scheduled) = &record.fact else { return None };
    Some(RetryDue {
        delivery: scheduled.delivery.clone(),
        attempt: scheduled.attempt,
        due_at: scheduled.due_at,
        // Its own, not its cause's, which can be weeks older if the endpoint was paused, and from
        // which on a new owner would have to fold: a plan only counts if nothing about its
        // delivery stands between the two.
        journal_sequence: sequence,
        trace: record.trace.clone(),
        batch: scheduled.batch,
    })
}

/// Puts together what there is to tell of the conclusion at a place in a batch.
fn exhausted(sequence: u64, facts: &[Record], at: usize) -> Option<Exhausted> {
    let concluded = facts.get(at)?;
    let Fact::DeliveryConcluded(DeliveryConcluded { delivery, .. }) = &concluded.fact else {
        return None;
    };
    let is_its_attempt = |record: &&Record| match &record.fact {
        Fact::AttemptMade(made) => made.delivery.id == delivery.id,
        Fact::ShardClaimed(_)
        | Fact::ShardReleased(_)
        | Fact::DeliveryDeferred(_)
        | Fact::DeliveryParked(_)
        | Fact::DeliveryConcluded(_)
        | Fact::RetryScheduled(_)
        | Fact::EventRouted(_) => false,
    };
    let last_attempt = facts.iter().take(at).rev().find(is_its_attempt);
    let told = last_attempt.into_iter().chain([concluded]).cloned().collect();
    Some(Exhausted { sequence, delivery: delivery.clone(), facts: told })
}
