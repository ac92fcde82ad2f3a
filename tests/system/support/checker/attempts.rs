//! I3, I4 and I8: one conclusion, attempts without gaps, none before its time.

use std::collections::BTreeMap;

use fanfare_domain::{Conclusion, DeliveryId, Outcome, fact::ConclusionReason};

use super::{Evidence, History, Violation};

/// Checks each delivery for itself.
pub(super) fn check(
    evidence: &Evidence,
    histories: &BTreeMap<DeliveryId, History>,
    violations: &mut Vec<Violation>,
) {
    let allowed: BTreeMap<_, _> =
        evidence.subscribers.iter().map(|one| (one.id, one.attempts_max)).collect();
    for (id, history) in histories {
        let max = allowed.get(&history.delivery.endpoint).copied().unwrap_or(u32::MAX);
        check_numbers(*id, history, max, violations);
        check_conclusion(*id, history, max, violations);
        check_times(*id, history, violations);
    }
}

fn check_numbers(id: DeliveryId, history: &History, max: u32, violations: &mut Vec<Violation>) {
    let numbers: Vec<u32> = history.attempts.iter().map(|made| made.attempt).collect();
    let last = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    if !numbers.iter().copied().eq(1..=last) {
        violations.push(Violation::AttemptsNotInOrder(id, numbers));
    }
    if last > max {
        violations.push(Violation::TooManyAttempts(id, last));
    }
}

fn check_conclusion(id: DeliveryId, history: &History, max: u32, violations: &mut Vec<Violation>) {
    let concluded = match history.conclusions.as_slice() {
        [] => return violations.push(Violation::NotConcluded(id)),
        [only] => only,
        [_, ..] => return violations.push(Violation::ConcludedTwice(id)),
    };
    if history.after > 0 {
        violations.push(Violation::AfterConclusion(id));
    }
    let made = u32::try_from(history.attempts.len()).unwrap_or(u32::MAX);
    let last = history.attempts.last().map(|made| &made.outcome);
    let fits = match concluded.conclusion {
        Conclusion::Delivered => matches!(last, Some(Outcome::Accepted { .. })),
        Conclusion::Exhausted => {
            let spent = concluded.reason != ConclusionReason::AttemptsSpent || made == max;
            spent && !matches!(last, Some(Outcome::Accepted { .. }))
        }
        Conclusion::Refused => matches!(last, Some(Outcome::Refused { .. })),
        Conclusion::Cancelled => true,
    };
    if !fits || concluded.attempts != made {
        violations.push(Violation::ConcludedWrongly(id));
    }
}

fn check_times(id: DeliveryId, history: &History, violations: &mut Vec<Violation>) {
    for made in history.attempts.iter().filter(|made| made.attempt > 1) {
        let before = history.attempts.iter().find(|one| one.attempt + 1 == made.attempt);
        let asked = before.and_then(|before| before.retry_at);
        let mut plans = history.plans.iter().filter(|plan| plan.attempt == made.attempt);
        if asked.is_none() || !plans.any(|plan| Some(plan.due_at) == asked) {
            violations.push(Violation::NotPlanned(id, made.attempt));
        }
        if history.due(made.attempt).is_some_and(|due| made.started_at < due) {
            violations.push(Violation::TooEarly(id, made.attempt));
        }
    }
}
