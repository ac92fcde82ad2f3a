//! Laws that hold for every history that dispatcher and retry-scheduler can write together.
//!
//! Histories are made by playing both writers: the dispatcher never waits for a plan, and plans
//! come in any order and at any time after what they follow from. The model is one sentence: the
//! last fact of the dispatcher decides, and a plan counts if it refers to that fact.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{Conclusion, DeliveryId, DeliveryRef, Fact, Record, Shard};
use proptest::{collection::vec, prelude::*};

use super::{
    Agenda, Command,
    duties::{Cause, Kind},
    entry::Phase,
};
use crate::{
    directory::Directory,
    samples::{NOW, after, concluded, deferred, delivery_to, made, parked, scheduled},
};

const SHARD: Shard = Shard::from_index(0);
const DELIVERIES: u8 = 5;

/// What happens next, to the delivery of that number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Fail(u8),
    Succeed(u8),
    Exhaust(u8),
    Cancel(u8),
    Defer(u8),
    Park(u8),
    /// One of the plans that are under way is written.
    Write(u8),
}

/// What the model knows of a delivery: what it waits for, the attempt, and the fact's sequence.
type Expected = (Phase, u32, u64);

#[derive(Debug, Default)]
struct World {
    sequence: u64,
    history: Vec<(u64, Vec<Record>)>,
    attempts: BTreeMap<u8, u32>,
    ended: BTreeSet<u8>,
    plans: Vec<(u8, Record)>,
    waiting: BTreeMap<DeliveryId, Expected>,
    told: BTreeSet<Cause>,
    /// By which facts alarms became pointless that were set for later.
    stops: BTreeSet<Cause>,
}

fn delivery(number: u8) -> DeliveryRef {
    delivery_to(number, number % 2)
}

impl World {
    fn play(steps: &[Step]) -> Self {
        let mut world = Self::default();
        for step in steps {
            world.step(*step);
        }
        world
    }

    fn step(&mut self, step: Step) {
        self.sequence += 1;
        match step {
            Step::Fail(number) => self.next_attempt(number),
            Step::Succeed(number) => self.end(number, Conclusion::Delivered),
            Step::Exhaust(number) => self.end(number, Conclusion::Exhausted),
            Step::Cancel(number) => self.end(number, Conclusion::Cancelled),
            Step::Defer(number) => {
                let attempt = self.attempt(number);
                let until = after(self.sequence);
                self.ask(number, Phase::Asked, deferred(delivery(number), attempt, until), attempt);
            }
            Step::Park(number) => {
                let attempt = self.attempt(number);
                self.ask(number, Phase::Parked, parked(delivery(number), attempt), attempt);
            }
            Step::Write(place) => self.write(usize::from(place)),
        }
    }

    fn attempt(&self, number: u8) -> u32 {
        *self.attempts.get(&number).unwrap_or(&1)
    }

    fn next_attempt(&mut self, number: u8) {
        let attempt = self.attempt(number);
        let fact = made(delivery(number), attempt, Some(after(self.sequence)));
        self.attempts.insert(number, attempt + 1);
        self.ask(number, Phase::Asked, fact, attempt + 1);
    }

    /// Records a fact after which an attempt has to be planned, sooner or later.
    fn ask(&mut self, number: u8, phase: Phase, fact: Record, attempt: u32) {
        if self.ended.contains(&number) {
            return;
        }
        let plan = scheduled(delivery(number), attempt, after(self.sequence), self.sequence);
        self.plans.push((number, plan));
        self.waiting.insert(delivery(number).id, (phase, attempt, self.sequence));
        self.history.push((self.sequence, vec![fact]));
    }

    fn end(&mut self, number: u8, conclusion: Conclusion) {
        if !self.ended.insert(number) {
            return;
        }
        let id = delivery(number).id;
        // Every plan is for later than anything that happens.
        if self.waiting.remove(&id).is_some_and(|(phase, ..)| phase == Phase::Planned) {
            self.stops.insert((self.sequence, id));
        }
        let mut facts = vec![concluded(delivery(number), conclusion)];
        if conclusion != Conclusion::Cancelled {
            facts.insert(0, made(delivery(number), self.attempt(number), None));
        }
        if conclusion == Conclusion::Exhausted {
            self.told.insert((self.sequence, id));
        }
        self.history.push((self.sequence, facts));
    }

    fn write(&mut self, place: usize) {
        if self.plans.is_empty() {
            return;
        }
        let (number, plan) = self.plans.remove(place % self.plans.len());
        let Fact::RetryScheduled(scheduled) = &plan.fact else { panic!("plans are plans") };
        let known = self.waiting.get_mut(&delivery(number).id);
        if let Some(known) = known.filter(|known| known.2 == scheduled.cause_sequence) {
            *known = (Phase::Planned, scheduled.attempt, self.sequence);
        }
        self.history.push((self.sequence, vec![plan]));
    }

    fn asked_of_us(&self) -> BTreeSet<(Cause, Kind)> {
        let stops = self.stops.iter().map(|cause| (*cause, Kind::Stop));
        self.duties().into_iter().chain(stops).collect()
    }

    fn duties(&self) -> BTreeMap<Cause, Kind> {
        let duty = |(id, (phase, _, sequence)): (&DeliveryId, &Expected)| match phase {
            Phase::Asked => Some(((*sequence, *id), Kind::Plan)),
            Phase::Planned => Some(((*sequence, *id), Kind::Alarm)),
            Phase::Parked => None,
        };
        let told = self.told.iter().map(|cause| (*cause, Kind::Tell));
        self.waiting.iter().filter_map(duty).chain(told).collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = || 0..DELIVERIES;
    let step = prop_oneof![
        4 => number().prop_map(Step::Fail),
        1 => number().prop_map(Step::Succeed),
        1 => number().prop_map(Step::Exhaust),
        1 => number().prop_map(Step::Cancel),
        2 => number().prop_map(Step::Defer),
        2 => number().prop_map(Step::Park),
        8 => any::<u8>().prop_map(Step::Write),
    ];
    vec(step, 0..60)
}

fn fold(agenda: &mut Agenda, history: &[(u64, Vec<Record>)]) {
    for (sequence, facts) in history {
        agenda.apply(*sequence, facts, &Directory::default());
    }
}

fn folded(history: &[(u64, Vec<Record>)]) -> Agenda {
    let mut agenda = Agenda::new(SHARD);
    fold(&mut agenda, history);
    agenda
}

fn waiting(agenda: &Agenda) -> BTreeMap<DeliveryId, Expected> {
    let parked = agenda.parked.values().flatten();
    let expected = |(id, entry): (&DeliveryId, &super::Entry)| {
        (*id, (entry.phase, u32::from(entry.attempt), entry.sequence))
    };
    agenda.waiting.iter().chain(parked).map(expected).collect()
}

proptest! {
    #[test]
    fn the_last_fact_decides_and_a_plan_counts_if_it_refers_to_it(steps in steps()) {
        let world = World::play(&steps);
        let agenda = folded(&world.history);
        prop_assert_eq!(agenda.duties.iter().collect::<BTreeMap<_, _>>(), world.duties());
        let stops: BTreeSet<_> = agenda.stops.iter().map(|(cause, _)| cause).collect();
        prop_assert_eq!(stops, world.stops);
        prop_assert_eq!(waiting(&agenda), world.waiting);
    }

    #[test]
    fn a_restart_at_any_point_changes_nothing(steps in steps(), cut in any::<prop::sample::Index>()) {
        let world = World::play(&steps);
        let cut = cut.index(world.history.len() + 1);
        let before = folded(&world.history[..cut]);
        let mut after = Agenda::decode(SHARD, &before.encode()).unwrap();
        prop_assert_eq!(after.encode(), before.encode());
        fold(&mut after, &world.history);
        prop_assert_eq!(after.encode(), folded(&world.history).encode());
    }

    #[test]
    fn folding_every_fact_twice_changes_nothing(steps in steps()) {
        let world = World::play(&steps);
        let mut twice = Agenda::new(SHARD);
        for (sequence, facts) in &world.history {
            for _ in 0..2 {
                twice.apply(*sequence, facts, &Directory::default());
            }
        }
        fold(&mut twice, &world.history);
        prop_assert_eq!(twice.encode(), folded(&world.history).encode());
    }

    #[test]
    fn one_delivery_does_not_change_another(steps in steps(), number in 0..DELIVERIES) {
        let world = World::play(&steps);
        let id = delivery(number).id;
        let of_one = |record: &Record| record.fact.delivery().is_some_and(|found| found.id == id);
        let alone: Vec<_> = world
            .history
            .iter()
            .map(|(sequence, facts)| {
                (*sequence, facts.iter().filter(|record| of_one(record)).cloned().collect())
            })
            .collect();
        let (together, alone) = (waiting(&folded(&world.history)), waiting(&folded(&alone)));
        prop_assert_eq!(together.get(&id), alone.get(&id));
    }

    #[test]
    fn each_duty_is_handed_out_once_however_the_journal_is_read(steps in steps()) {
        let world = World::play(&steps);
        let mut agenda = folded(&world.history);
        let mut handed_out = 0;
        for (sequence, facts) in world.history.iter().rev().chain(&world.history) {
            let commands = agenda.commands(*sequence, facts, NOW);
            handed_out += commands.len();
            for command in commands {
                let duty = match command {
                    Command::Plan(record) => {
                        let delivery = record.fact.delivery().unwrap().id;
                        let Fact::RetryScheduled(plan) = record.fact else { panic!("a plan") };
                        ((plan.cause_sequence, delivery), Kind::Plan)
                    }
                    Command::Alarm(retry) => {
                        ((retry.journal_sequence, retry.delivery.id), Kind::Alarm)
                    }
                    Command::Stop(cause) => (cause, Kind::Stop),
                    Command::Tell(told) => ((told.sequence, told.delivery.id), Kind::Tell),
                };
                prop_assert!(world.asked_of_us().contains(&duty));
            }
        }
        prop_assert_eq!(handed_out, world.asked_of_us().len());
        prop_assert!(agenda.idle().is_empty());
    }

    #[test]
    fn whatever_the_dispatcher_says_after_a_plans_cause_comes_after_the_plan(steps in steps()) {
        let world = World::play(&steps);
        let mut agenda = folded(&world.history);
        for (sequence, facts) in &world.history {
            for command in agenda.commands(*sequence, facts, NOW) {
                let Command::Alarm(retry) = command else { continue };
                let Fact::RetryScheduled(plan) = &facts[0].fact else { panic!("a plan") };
                let between = plan.cause_sequence + 1..retry.journal_sequence;
                let said = said_of(&world.history, retry.delivery.id);
                prop_assert!(!said.iter().any(|sequence| between.contains(sequence)));
            }
        }
    }
}

/// The sequences of the dispatcher's facts about a delivery.
fn said_of(history: &[(u64, Vec<Record>)], delivery: DeliveryId) -> Vec<u64> {
    let says = |record: &Record| {
        let is_plan = matches!(record.fact, Fact::RetryScheduled(_));
        !is_plan && record.fact.delivery().is_some_and(|found| found.id == delivery)
    };
    let of_delivery = history.iter().filter(|(_, facts)| facts.iter().any(says));
    of_delivery.map(|(sequence, _)| *sequence).collect()
}
