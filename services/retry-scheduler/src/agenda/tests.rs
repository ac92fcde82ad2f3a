//! Single decisions. What holds for every history is in `laws`.

use fanfare_domain::{BatchId, Endpoint, EndpointState, PauseMode, TraceContext, fact::InBatch};

use super::*;
use crate::{
    directory::tests::{endpoint, endpoint_id},
    samples::{
        NOW, after, concluded, deferred, delivery, delivery_to, made, parked, record, scheduled,
    },
};

const SHARD: Shard = Shard::from_index(0);
const GRACE: Duration = Duration::from_secs(5);
const RETENTION: Duration = Duration::from_hours(24 * 30);

/// Folds single facts at 1, 2, ….
fn folded(facts: &[Record]) -> Agenda {
    let mut agenda = Agenda::new(SHARD);
    for (sequence, fact) in (1..).zip(facts) {
        agenda.apply(sequence, std::slice::from_ref(fact), &Directory::default());
    }
    agenda
}

fn apply(agenda: &mut Agenda, facts: &[Record]) -> Effects {
    agenda.apply(agenda.checkpoint() + 1, facts, &Directory::default())
}

/// An agenda with one alarm that is set.
fn planned(due: Timestamp) -> Agenda {
    let mut agenda = folded(&[made(delivery(1), 1, Some(due)), scheduled(delivery(1), 2, due, 1)]);
    agenda.done((2, delivery(1).id));
    agenda
}

fn patience(now: Timestamp) -> Patience {
    Patience { now, calm_since: NOW, grace: GRACE }
}

fn overdue(agenda: &mut Agenda, now: Timestamp) -> Vec<DeliveryId> {
    agenda.overdue(patience(now), 10).iter().map(|overdue| overdue.delivery).collect()
}

#[test]
fn a_failed_attempt_asks_for_the_fact_and_the_fact_for_the_alarm() {
    let mut agenda = Agenda::new(SHARD);
    let trace = TraceContext::start([1; 16], [2; 8]);
    let traced = |record: Record| Record { trace: trace.clone(), ..record };
    let failure = [traced(made(delivery(1), 1, Some(after(5))))];
    agenda.apply(7, &failure, &Directory::default());
    let plan = traced(scheduled(delivery(1), 2, after(5), 7));
    assert_eq!(agenda.commands(7, &failure, NOW), [Command::Plan(plan.clone())]);
    assert_eq!(agenda.commands(7, &failure, NOW), [], "it is being done");
    let plan = [plan];
    agenda.apply(8, &plan, &Directory::default());
    let retry = RetryDue {
        delivery: delivery(1),
        attempt: 2,
        due_at: after(5),
        journal_sequence: 8,
        trace: trace.clone(),
        batch: None,
    };
    assert_eq!(agenda.commands(8, &plan, NOW), [Command::Alarm(retry)]);
    assert!(agenda.not_done((8, delivery(1).id)));
    assert_eq!(agenda.idle(), BTreeSet::from([8]));
    agenda.done((8, delivery(1).id));
    assert_eq!((agenda.idle(), agenda.size()), (BTreeSet::new(), (1, 0)));
}

#[test]
fn a_deferral_keeps_the_attempts_number() {
    let facts = [deferred(delivery(1), 3, after(9))];
    let mut agenda = folded(&facts);
    let plan = scheduled(delivery(1), 3, after(9), 1);
    assert_eq!(agenda.commands(1, &facts, NOW), [Command::Plan(plan)]);
}

#[test]
fn a_plan_for_what_has_moved_on_is_ignored() {
    let mut agenda = folded(&[
        made(delivery(1), 1, Some(after(5))),
        concluded(delivery(1), Conclusion::Cancelled),
        scheduled(delivery(1), 2, after(5), 1),
    ]);
    assert_eq!((agenda.size(), agenda.idle()), ((0, 0), BTreeSet::new()));
    apply(&mut agenda, &[made(delivery(2), 1, Some(after(5)))]);
    apply(&mut agenda, &[made(delivery(2), 2, Some(after(9)))]);
    apply(&mut agenda, &[scheduled(delivery(2), 2, after(5), 4)]);
    assert_eq!(agenda.idle(), BTreeSet::from([5]), "the third attempt has to be planned");
}

#[test]
fn a_plan_whose_cause_has_aged_out_is_believed() {
    let mut agenda = Agenda::new(SHARD);
    agenda.begin(50, Timestamp::EPOCH);
    agenda.apply(50, &[scheduled(delivery(1), 2, after(5), 49)], &Directory::default());
    agenda.apply(51, &[scheduled(delivery(2), 2, after(5), 50)], &Directory::default());
    assert_eq!(agenda.size(), (1, 0), "the cause of the second should have been there");
}

#[test]
fn a_conclusion_stops_an_alarm_that_is_set_for_later_only() {
    let cancelled = [concluded(delivery(1), Conclusion::Cancelled)];
    let cause = (3, delivery(1).id);
    assert_eq!(stops(planned(after(60)), &cancelled), [Command::Stop(cause)]);
    assert_eq!(stops(planned(NOW), &cancelled), []);
    let by_hand = [made(delivery(1), 2, None), concluded(delivery(1), Conclusion::Delivered)];
    assert_eq!(stops(planned(after(60)), &by_hand), [Command::Stop(cause)]);
    let unplanned = [made(delivery(1), 1, Some(after(60)))];
    assert_eq!(stops(folded(&unplanned), &cancelled), []);
}

/// What is to be done about facts, but for telling.
fn stops(mut agenda: Agenda, facts: &[Record]) -> Vec<Command> {
    apply(&mut agenda, facts);
    let commands = agenda.commands(agenda.checkpoint(), facts, NOW);
    commands.into_iter().filter(|it| !matches!(it, Command::Tell(_))).collect()
}

#[test]
fn an_alarm_that_is_pointless_is_stopped_in_the_end_also_by_who_comes_next() {
    let end = [made(delivery(1), 2, None), concluded(delivery(1), Conclusion::Exhausted)];
    let cause = (3, delivery(1).id);
    let mut agenda = planned(after(60));
    apply(&mut agenda, &end);
    let told_and_stopped = |agenda: &mut Agenda| {
        let commands = agenda.commands(3, &end, NOW);
        let [Command::Stop(stop), Command::Tell(told)] = &commands[..] else {
            panic!("{commands:?}")
        };
        assert_eq!((*stop, told.sequence), (cause, 3));
    };
    told_and_stopped(&mut agenda);
    assert_eq!(agenda.commands(3, &end, NOW), [], "it is being done");
    // Whoever comes next knows only the snapshot.
    let mut next = Agenda::decode(SHARD, &agenda.encode()).unwrap();
    assert_eq!(next.idle(), BTreeSet::from([3]));
    told_and_stopped(&mut next);
    next.done(cause);
    assert!(next.not_stopped(cause));
    assert_eq!(next.commands(3, &end, NOW), [Command::Stop(cause)]);
    next.stopped(cause);
    assert!(!next.not_stopped(cause));
    assert_eq!((next.idle(), next.commands(3, &end, NOW)), (BTreeSet::new(), vec![]));
}

#[test]
fn operators_are_told_of_exhausted_deliveries_with_the_last_attempt() {
    let last = made(delivery(1), 5, None);
    let end = concluded(delivery(1), Conclusion::Exhausted);
    let other = concluded(delivery(2), Conclusion::Refused);
    let facts = [made(delivery(2), 1, None), last.clone(), other, end.clone()];
    let mut agenda = Agenda::new(SHARD);
    agenda.apply(4, &facts, &Directory::default());
    let told = Exhausted { sequence: 4, delivery: delivery(1), facts: vec![last, end.clone()] };
    assert_eq!(agenda.commands(4, &facts, NOW), [Command::Tell(told)]);
    let expired = [end.clone()];
    agenda.apply(5, &expired, &Directory::default());
    let told = Exhausted { sequence: 5, delivery: delivery(1), facts: vec![end] };
    assert_eq!(agenda.commands(5, &expired, NOW), [Command::Tell(told)]);
}

#[test]
fn without_a_snapshot_operators_count_as_told_of_what_is_old() {
    let mut agenda = Agenda::new(SHARD);
    agenda.begin(1, after(1));
    apply(&mut agenda, &[concluded(delivery(1), Conclusion::Exhausted)]);
    assert_eq!(agenda.idle(), BTreeSet::new());
}

fn holding() -> Directory {
    let mut directory = Directory::default();
    directory.learn_tenant(1, "acme", "standard-webhooks");
    let state = EndpointState::Paused(PauseMode::Hold);
    directory.learn_endpoint(2, Endpoint { state, ..endpoint(1) });
    directory
}

#[test]
fn parked_deliveries_are_planned_once_their_endpoint_holds_nothing_back() {
    let facts = [parked(delivery(2), 4), parked(delivery(1), 1), parked(delivery_to(3, 2), 1)];
    let mut agenda = Agenda::new(SHARD);
    assert!(agenda.apply(9, &facts, &Directory::default()).parked);
    let mut directory = holding();
    directory.learn_endpoint(3, endpoint(2));
    assert_eq!(agenda.resume(&directory, RETENTION, NOW), BTreeSet::from([9]));
    assert_eq!(agenda.size(), (1, 2), "that of endpoint 2");
    agenda.commands(9, &facts, NOW);
    directory.learn_endpoint(4, endpoint(1));
    assert_eq!(agenda.resume(&directory, RETENTION, after(1)), BTreeSet::from([9]));
    let plans = agenda.commands(9, &facts, after(2));
    let plan = |number, attempt| Record {
        recorded_at: after(2),
        ..scheduled(delivery(number), attempt, after(1), 9)
    };
    assert_eq!(plans, [Command::Plan(plan(2, 4)), Command::Plan(plan(1, 1))]);
    apply(&mut agenda, &[plan(2, 4)]);
    assert_eq!(agenda.commands(10, &[plan(2, 4)], NOW).len(), 1, "its alarm is set");
}

#[test]
fn deliveries_of_a_resumed_endpoint_are_spread_in_the_order_of_their_events() {
    let mut agenda = Agenda::new(SHARD);
    let mut ids = Vec::new();
    for number in 0..=250 {
        let event = fanfare_domain::EventId::new(after(u64::from(number)), [7; 10]);
        let id = DeliveryId::of(event, endpoint_id(1), 0);
        agenda.apply(
            1_000 - u64::from(number),
            &[parked(DeliveryRef { id, ..delivery(number) }, 1)],
            &Directory::default(),
        );
        agenda.folded = 0;
        ids.push(id);
    }
    agenda.resume(&Directory::default(), RETENTION, after(500));
    let due: Vec<_> = ids.iter().map(|id| agenda.waiting[id].due()).collect();
    assert_eq!((due[0], due[199], due[200]), (after(500), after(500), after(501)));
}

#[test]
fn a_parked_delivery_is_taken_up_when_its_time_to_be_given_up_has_come() {
    let mut agenda = folded(&[parked(delivery(1), 1)]);
    let directory = holding();
    let end = directory.policy(endpoint_id(1)).unwrap().give_up_at(NOW, RETENTION);
    let early = end.saturating_sub(Duration::from_secs(1));
    assert_eq!(agenda.resume(&directory, RETENTION, early), BTreeSet::new());
    assert_eq!(agenda.resume(&directory, RETENTION, end), BTreeSet::from([1]));
    assert_eq!(agenda.size(), (1, 0));
}

#[test]
fn an_alarm_is_overdue_when_the_grace_has_passed() {
    let mut agenda = planned(after(10));
    assert_eq!(agenda.wake_at(GRACE), Some(after(16)));
    assert_eq!(overdue(&mut agenda, after(16)), []);
    assert_eq!(overdue(&mut agenda, after(17)), [delivery(1).id]);
    let calm_since = after(20);
    let patience = Patience { calm_since, ..patience(after(25)) };
    assert_eq!(agenda.overdue(patience, 10), [], "it had no fair chance yet");
}

#[test]
fn an_alarm_that_is_being_set_is_not_overdue() {
    let due = after(10);
    let mut agenda = folded(&[made(delivery(1), 1, Some(due)), scheduled(delivery(1), 2, due, 1)]);
    assert_eq!(overdue(&mut agenda, after(100)), []);
    agenda.done((2, delivery(1).id));
    assert_eq!(overdue(&mut agenda, after(100)), [delivery(1).id]);
}

#[test]
fn a_rescued_alarm_gets_more_time_with_each_rescue() {
    let mut agenda = planned(after(10));
    assert!(agenda.rescue(delivery(1).id, 2, after(20)));
    assert_eq!(overdue(&mut agenda, after(31)), []);
    assert_eq!(overdue(&mut agenda, after(32)), [delivery(1).id]);
    assert!(!agenda.rescue(delivery(1).id, 1, after(40)), "another alarm is meant");
    apply(&mut agenda, &[made(delivery(1), 2, Some(after(60)))]);
    assert!(!agenda.rescue(delivery(1).id, 2, after(40)), "the attempt was made");
}

#[test]
fn every_overdue_alarm_is_looked_at_in_turn() {
    let mut agenda = Agenda::new(SHARD);
    for number in 1..=5_u8 {
        let due = after(u64::from(10 - number));
        apply(&mut agenda, &[made(delivery(number), 1, Some(due))]);
        let cause = agenda.checkpoint();
        apply(&mut agenda, &[scheduled(delivery(number), 2, due, cause)]);
        agenda.done((cause + 1, delivery(number).id));
    }
    let mut look = || -> Vec<_> {
        let found = agenda.overdue(patience(after(100)), 2);
        found.iter().map(|overdue| overdue.due).collect()
    };
    assert_eq!(look(), [after(5), after(6)]);
    assert_eq!(look(), [after(7), after(8)]);
    assert_eq!(look(), [after(9)]);
    assert_eq!(look(), [after(5), after(6)]);
}

#[test]
fn duties_whose_facts_are_not_kept_any_more_are_let_go() {
    let mut agenda = folded(&[made(delivery(1), 1, Some(after(5)))]);
    assert_eq!(agenda.forget(1), [delivery(1).id]);
    assert_eq!((agenda.size(), agenda.idle()), ((0, 0), BTreeSet::new()));
}

#[test]
fn failures_of_an_endpoint_are_reported() {
    let mut directory = Directory::default();
    directory.learn_tenant(1, "acme", "kyberaccess");
    directory.learn_endpoint(1, endpoint(1));
    let mut agenda = Agenda::new(SHARD);
    let effects = agenda.apply(1, &[made(delivery(1), 1, None)], &directory);
    assert_eq!(effects.failing, BTreeSet::from([endpoint_id(1)]));
    assert_eq!(agenda.health.0[&endpoint_id(1)].failures, 1);
    let claim =
        fanfare_domain::fact::ShardClaimed { shard: SHARD, epoch: 1, owner: String::from("a") };
    let effects = agenda.apply(2, &[record(Fact::ShardClaimed(claim))], &directory);
    assert_eq!(effects, Effects::default());
}

#[test]
fn what_was_sent_together_is_due_together() {
    let batch = Some(InBatch { id: BatchId::from_bytes([7; 16]), size: 2 });
    let mark = |mut record: Record| {
        if let Fact::AttemptMade(made) = &mut record.fact {
            made.batch = batch;
        } else if let Fact::DeliveryDeferred(deferred) = &mut record.fact {
            deferred.batch = batch;
        }
        record
    };
    let asking =
        [made(delivery(1), 1, Some(after(5))), deferred(delivery(2), 2, after(5))].map(mark);
    let mut agenda = Agenda::new(SHARD);
    agenda.apply(1, &asking, &Directory::default());
    let plan = |command| if let Command::Plan(plan) = command { Some(plan) } else { None };
    let plans: Vec<_> = agenda.commands(1, &asking, NOW).into_iter().filter_map(plan).collect();
    agenda.apply(2, &plans, &Directory::default());
    let commands = agenda.commands(2, &plans, NOW);
    let alarm = |command: &Command| {
        if let Command::Alarm(retry) = command { Some((retry.batch, retry.due_at)) } else { None }
    };
    let alarms: Vec<_> = commands.iter().filter_map(alarm).collect();
    assert_eq!(alarms, [(batch, after(5)), (batch, after(5))]);
}
