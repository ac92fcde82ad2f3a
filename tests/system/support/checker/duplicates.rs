//! I5, I6 and I8 from the endpoints' side: what the journal says happened did, and what else
//! happened has a crash to account for it.
//!
//! An attempt and a request belong together if they carry the same signature: it is made from the
//! event, the second of the attempt and the body, and the journal keeps it.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{Conclusion, DeliveryId, EndpointId, Timestamp};

use super::{Evidence, History, Violation};
use crate::support::hooks::Seen;

/// How long before a crash a request without a record may have come: an attempt's time-out in the
/// tests, and the time that a batch of facts waits for the one before.
const BEFORE: Duration = Duration::from_secs(4);
/// How long after the return: what a process does that has not seen yet that it lost its shard.
const AFTER: Duration = Duration::from_secs(2);

/// Checks each delivery against what its endpoint got, and counts the duplicates.
pub(super) fn check(
    evidence: &Evidence,
    histories: &BTreeMap<DeliveryId, History>,
    violations: &mut Vec<Violation>,
    duplicates: &mut usize,
) {
    let endpoints: BTreeMap<&str, EndpointId> =
        evidence.subscribers.iter().map(|one| (one.path.as_str(), one.id)).collect();
    let mut requests: BTreeMap<DeliveryId, Vec<&Seen>> = BTreeMap::new();
    for seen in &evidence.requests {
        let endpoint = endpoints.get(seen.path.as_str());
        let delivery = endpoint
            .zip(seen.event)
            .map(|(endpoint, event)| DeliveryId::of(event, *endpoint, 0))
            .filter(|delivery| histories.contains_key(delivery));
        match delivery {
            Some(delivery) => requests.entry(delivery).or_default().push(seen),
            None => violations.push(Violation::RequestUnknown(format!("{seen:?}"))),
        }
    }
    for (id, history) in histories {
        let mut seen = requests.remove(id).unwrap_or_default();
        seen.sort_by_key(|seen| seen.at);
        check_answers(*id, history, &seen, violations);
        let total = seen.len();
        let left = match_attempts(*id, history, seen, violations);
        *duplicates += left.len();
        for one in left {
            if !explained(evidence, one.at) {
                violations.push(Violation::DuplicateUnexplained(*id, one.at));
            }
        }
        let crashes = evidence.kills.iter().filter(|kill| kill.victim.explains_duplicates());
        if total > history.attempts.len() + crashes.count() {
            violations.push(Violation::TooManyRequests(*id, total));
        }
    }
}

fn check_answers(
    id: DeliveryId,
    history: &History,
    seen: &[&Seen],
    violations: &mut Vec<Violation>,
) {
    let delivered =
        history.conclusion().is_some_and(|concluded| concluded.conclusion == Conclusion::Delivered);
    let accepted = |seen: &&Seen| seen.answered.is_some_and(|status| (200..300).contains(&status));
    if delivered && !seen.iter().any(accepted) {
        violations.push(Violation::NotSeen(id));
    }
}

/// Pairs attempts with requests; returns the requests that are left.
fn match_attempts<'a>(
    id: DeliveryId,
    history: &History,
    mut left: Vec<&'a Seen>,
    violations: &mut Vec<Violation>,
) -> Vec<&'a Seen> {
    for made in &history.attempts {
        let status = made.outcome.status();
        let ended = made.started_at.saturating_add(made.duration);
        let fits = |seen: &&Seen| {
            seen.signature == made.signature && (status.is_none() || seen.answered == status)
        };
        // One that came while the attempt was under way, before any other of the same second.
        let within = |seen: &&Seen| fits(seen) && (made.started_at..=ended).contains(&seen.at);
        let place = left.iter().position(within).or_else(|| left.iter().position(fits));
        match place {
            Some(place) => {
                let seen = left.remove(place);
                if history.due(made.attempt).is_some_and(|due| seen.at < due) {
                    violations.push(Violation::TooEarly(id, made.attempt));
                }
            }
            None if status.is_some() => {
                violations.push(Violation::AnswerInvented(id, made.attempt));
            }
            None => {}
        }
    }
    left
}

fn explained(evidence: &Evidence, at: Timestamp) -> bool {
    let crashes = evidence.kills.iter().filter(|kill| kill.victim.explains_duplicates());
    let near = |from: Timestamp, to: Timestamp| {
        from.saturating_sub(BEFORE) <= at && at <= to.saturating_add(AFTER)
    };
    crashes.into_iter().any(|kill| near(kill.at, kill.back))
}
