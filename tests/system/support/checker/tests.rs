//! The checker finds each planted violation, and none where all is well.

mod sample;

use std::time::Duration;

use fanfare_domain::{
    Conclusion, DeliveryId, EndpointId, Fact, Outcome, Shard, Timestamp, fact::ConclusionReason,
};
use fanfare_event_log::Column;

use self::sample::{at, attempt, sample};
use super::{Evidence, Violation, check};
use crate::support::{
    Service,
    nemesis::{Kill, Victim},
};

/// Plants a fault, and returns what the checker says besides.
fn plant(fault: impl FnOnce(&mut Evidence)) -> Vec<Violation> {
    let mut evidence = sample();
    fault(&mut evidence);
    let again = evidence.journal_again == sample().journal_again;
    if again {
        evidence.journal_again = evidence.journal.clone();
    }
    check(&evidence).violations
}

/// The facts, to be changed in place.
fn facts(evidence: &mut Evidence) -> impl Iterator<Item = &mut Fact> {
    evidence.journal.iter_mut().flat_map(|batch| &mut batch.facts).map(|record| &mut record.fact)
}

/// Removes the facts that a test names.
fn remove(evidence: &mut Evidence, unwanted: impl Fn(&Fact) -> bool) {
    for batch in &mut evidence.journal {
        batch.facts.retain(|record| !unwanted(&record.fact));
    }
}

/// Repeats the last batch with such a fact at the end of the journal.
fn repeat(evidence: &mut Evidence, wanted: impl Fn(&Fact) -> bool) {
    let mut found = evidence.journal.iter().rev();
    let batch = found.find(|batch| batch.facts.iter().any(|record| wanted(&record.fact)));
    let mut batch = batch.expect("the sample has such a fact").clone();
    batch.facts.retain(|record| wanted(&record.fact));
    evidence.journal.push(batch);
}

/// The delivery of the first event to the first endpoint: it fails once and then succeeds.
fn retried() -> DeliveryId {
    sample::delivery(0, 0).id
}

#[test]
fn a_good_run_has_no_violations_and_a_report() {
    let verdict = check(&sample());
    assert_eq!(verdict.violations, []);
    let report = verdict.report;
    assert_eq!((report.attempts, report.requests, report.duplicates), (4, 4, 0));
    assert_eq!(report.conclusions.get("delivered"), Some(&3));
    assert_eq!(report.lateness, [Duration::from_millis(20)]);
}

#[test]
fn lost_doubled_and_altered_events_are_found() {
    let key = || String::from("key-0");
    let id = sample::event_id(0);
    let lost = plant(|evidence| {
        evidence.events.remove(0);
    });
    assert!(lost.contains(&Violation::EventLost(key())), "{lost:?}");
    let twice = plant(|evidence| {
        let mut other = (*evidence.events[0].event).clone();
        other.id = sample::event_id(9);
        let stored = sample::stored(other, 9);
        evidence.events.push(stored);
    });
    assert!(
        twice.contains(&Violation::EventTwice(key(), vec![id, sample::event_id(9)])),
        "{twice:?}"
    );
    let altered = plant(|evidence| evidence.acknowledged[0].data = "{}".into());
    assert_eq!(altered, [Violation::EventAltered(key(), id)]);
    let renamed = plant(|evidence| evidence.acknowledged[0].event = Some(sample::event_id(9)));
    assert_eq!(renamed, [Violation::EventRenamed(key(), id)]);
}

#[test]
fn wrong_routing_is_found() {
    let (event, endpoint) = (sample::event_id(0), sample::endpoint_id(0));
    let unrouted = plant(|evidence| {
        remove(evidence, |fact| matches!(fact, Fact::EventRouted(routed) if routed.event == event));
    });
    assert!(unrouted.contains(&Violation::NotRouted(event)), "{unrouted:?}");
    let partly = plant(|evidence| {
        facts(evidence).for_each(|fact| {
            if let Fact::EventRouted(routed) = fact {
                routed.parts = 2;
            }
        });
    });
    assert!(partly.contains(&Violation::NotRouted(event)), "{partly:?}");
    let missing = plant(|evidence| {
        facts(evidence).for_each(|fact| {
            if let Fact::EventRouted(routed) = fact {
                routed.targets.retain(|target| *target != endpoint);
            }
        });
    });
    assert!(missing.contains(&Violation::TargetMissing(event, endpoint)), "{missing:?}");
    let other = EndpointId::from_bytes([99; 16]);
    let unexpected = plant(|evidence| {
        facts(evidence).for_each(|fact| {
            if let Fact::EventRouted(routed) = fact {
                routed.targets.push(other);
            }
        });
    });
    assert!(unexpected.contains(&Violation::TargetUnexpected(event, other)), "{unexpected:?}");
    let differently = plant(|evidence| {
        repeat(evidence, |fact| matches!(fact, Fact::EventRouted(_)));
        let batch = evidence.journal.last_mut().expect("it was repeated");
        if let Fact::EventRouted(routed) = &mut batch.facts[0].fact {
            routed.targets.clear();
        }
    });
    assert!(
        differently.iter().any(|found| matches!(found, Violation::RoutedDifferently(_))),
        "{differently:?}"
    );
}

#[test]
fn deliveries_that_nobody_asked_for_are_found() {
    let stray = plant(|evidence| {
        facts(evidence).for_each(|fact| {
            if let Fact::AttemptMade(made) = fact
                && made.delivery.id == retried()
            {
                made.delivery.id = DeliveryId::from_bytes([42; 16]);
            }
        });
    });
    let id = DeliveryId::from_bytes([42; 16]);
    assert!(stray.contains(&Violation::DeliveryUnexpected(id)), "{stray:?}");
    let misnamed = plant(|evidence| {
        facts(evidence).for_each(|fact| {
            if let Fact::AttemptMade(made) = fact
                && made.delivery.id == retried()
            {
                made.delivery.endpoint = sample::endpoint_id(1);
            }
        });
    });
    assert!(misnamed.contains(&Violation::DeliveryMisnamed(retried())), "{misnamed:?}");
}

#[test]
fn missing_doubled_and_wrong_conclusions_are_found() {
    let of =
        |fact: &Fact| matches!(fact, Fact::DeliveryConcluded(one) if one.delivery.id == retried());
    let none = plant(|evidence| remove(evidence, of));
    assert!(none.contains(&Violation::NotConcluded(retried())), "{none:?}");
    let nothing = plant(|evidence| {
        remove(evidence, |fact| fact.delivery().is_some_and(|one| one.id == retried()));
    });
    assert!(nothing.contains(&Violation::NotConcluded(retried())), "{nothing:?}");
    let twice = plant(|evidence| repeat(evidence, of));
    assert_eq!(twice, [Violation::ConcludedTwice(retried())]);
    let change = |conclusion, attempts| {
        plant(|evidence| {
            facts(evidence).for_each(|fact| {
                if let Fact::DeliveryConcluded(concluded) = fact
                    && concluded.delivery.id == retried()
                {
                    (concluded.conclusion, concluded.attempts) = (conclusion, attempts);
                    concluded.reason = ConclusionReason::AttemptsSpent;
                }
            });
        })
    };
    let wrong = [Violation::ConcludedWrongly(retried())];
    assert_eq!(change(Conclusion::Exhausted, 2), wrong);
    assert_eq!(change(Conclusion::Delivered, 1), wrong);
    let after = plant(|evidence| {
        let record = attempt(&sample::delivery(0, 0), 3, Outcome::Accepted { status: 200 });
        evidence.journal.push(sample::batch(90, record));
    });
    assert!(after.contains(&Violation::AfterConclusion(retried())), "{after:?}");
}

#[test]
fn gaps_repeats_and_too_many_attempts_are_found() {
    let is = |number| {
        move |fact: &Fact| {
            matches!(fact, Fact::AttemptMade(made)
                if made.delivery.id == retried() && made.attempt == number)
        }
    };
    let gap = plant(|evidence| remove(evidence, is(1)));
    assert!(gap.contains(&Violation::AttemptsNotInOrder(retried(), vec![2])), "{gap:?}");
    let repeated = plant(|evidence| repeat(evidence, is(2)));
    assert!(
        repeated.contains(&Violation::AttemptsNotInOrder(retried(), vec![1, 2, 2])),
        "{repeated:?}"
    );
    let many = plant(|evidence| evidence.subscribers[0].attempts_max = 1);
    assert!(many.contains(&Violation::TooManyAttempts(retried(), 2)), "{many:?}");
    let unplanned =
        plant(|evidence| remove(evidence, |fact| matches!(fact, Fact::RetryScheduled(_))));
    assert_eq!(unplanned, [Violation::NotPlanned(retried(), 2)]);
    let otherwise = plant(|evidence| {
        facts(evidence).for_each(|fact| {
            if let Fact::RetryScheduled(scheduled) = fact {
                scheduled.due_at = at(1);
            }
        });
    });
    assert_eq!(otherwise, [Violation::NotPlanned(retried(), 2)]);
}

#[test]
fn what_endpoints_do_not_know_of_is_found() {
    let unseen = plant(|evidence| evidence.requests.retain(|seen| seen.answered != Some(200)));
    assert!(unseen.contains(&Violation::NotSeen(retried())), "{unseen:?}");
    assert!(unseen.contains(&Violation::AnswerInvented(retried(), 2)), "{unseen:?}");
    let other = plant(|evidence| {
        for seen in evidence.requests.iter_mut().filter(|seen| seen.answered == Some(500)) {
            seen.answered = Some(404);
        }
    });
    assert!(other.contains(&Violation::AnswerInvented(retried(), 1)), "{other:?}");
    let unknown = plant(|evidence| evidence.requests[0].event = Some(sample::event_id(77)));
    assert!(
        unknown.iter().any(|found| matches!(found, Violation::RequestUnknown(_))),
        "{unknown:?}"
    );
}

/// One more request, without an attempt on record, with a crash so much later or none.
fn duplicate(crash: Option<(Victim, Duration)>, copies: usize) -> Vec<Violation> {
    plant(|evidence| {
        let seen = evidence.requests[0].clone();
        let from = seen.at;
        evidence.requests.extend(std::iter::repeat_n(seen, copies));
        evidence.kills.extend(crash.map(|(victim, later)| {
            let at = from.saturating_add(later);
            Kill { victim, at, back: at.saturating_add(Duration::from_secs(1)) }
        }));
    })
}

#[test]
fn duplicates_need_a_crash_of_the_dispatcher_near_them() {
    let dispatcher = Victim::Service(Service::Dispatcher);
    let soon = Duration::from_millis(300);
    assert_eq!(duplicate(Some((dispatcher, soon)), 1), []);
    let unexplained = |found: &[Violation]| {
        found.iter().any(|found| matches!(found, Violation::DuplicateUnexplained(..)))
    };
    assert!(unexplained(&duplicate(None, 1)));
    assert!(unexplained(&duplicate(Some((Victim::Service(Service::Ingest), soon)), 1)));
    assert!(unexplained(&duplicate(Some((Victim::Nats, soon)), 1)));
    assert!(unexplained(&duplicate(Some((dispatcher, Duration::from_mins(1))), 1)));
    let many = duplicate(Some((dispatcher, soon)), 2);
    assert!(many.iter().any(|found| matches!(found, Violation::TooManyRequests(_, 4))), "{many:?}");
}

#[test]
fn attempts_before_their_time_are_found() {
    let early = plant(|evidence| {
        facts(evidence).for_each(|fact| {
            if let Fact::AttemptMade(made) = fact
                && made.attempt == 2
            {
                made.started_at = made.started_at.saturating_sub(Duration::from_millis(21));
            }
        });
    });
    assert!(early.contains(&Violation::TooEarly(retried(), 2)), "{early:?}");
    let sent_early = plant(|evidence| {
        let second = evidence.requests.iter_mut().find(|seen| seen.signature == "sig-2");
        second.expect("the sample has a second attempt").at = at(1);
    });
    assert!(sent_early.contains(&Violation::TooEarly(retried(), 2)), "{sent_early:?}");
}

#[test]
fn a_journal_that_reads_differently_or_without_claims_is_found() {
    let differ = plant(|evidence| {
        evidence.journal_again.pop();
    });
    assert_eq!(differ, [Violation::FoldsDiffer]);
    let (shard, column) = (Shard::from_index(0), Column::Attempts);
    let falling = plant(|evidence| repeat(evidence, |fact| matches!(fact, Fact::ShardClaimed(_))));
    let plans = Violation::ClaimsNotRising(shard, Column::Plans);
    assert_eq!(falling, [plans]);
    let unclaimed =
        plant(|evidence| remove(evidence, |fact| matches!(fact, Fact::ShardClaimed(_))));
    assert!(unclaimed.contains(&Violation::ClaimsNotRising(shard, column)), "{unclaimed:?}");
    assert_eq!(Timestamp::EPOCH, at(0));
}
