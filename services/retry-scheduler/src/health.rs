//! How endpoints do: failed attempts in a row, and what follows from them. Pure.

use std::{collections::BTreeMap, num::NonZeroU32};

use fanfare_domain::{
    EndpointId, EndpointState, Outcome, Timestamp, endpoint::DisableReason, fact::AttemptMade,
};

use crate::directory::{Directory, Known};

/// After how many failed attempts in a row operators are told of an endpoint that is never disabled
/// for them.
const WARNING_AT: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");

/// The endpoints whose last attempt failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health(pub(crate) BTreeMap<EndpointId, Streak>);

/// Failed attempts of an endpoint, without an accepted one since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streak {
    /// How many.
    pub(crate) failures: u32,
    /// When the first of them began.
    pub(crate) first_at: Timestamp,
    /// When the one began that is the last on record.
    pub(crate) last_at: Timestamp,
    /// Attempts made with an earlier revision of CONFIG do not count: see [`Known::fresh_since`].
    pub(crate) since: u64,
    /// Whether the endpoint said that it wants nothing any more.
    pub(crate) gone: bool,
    /// Whether operators were told of it.
    pub(crate) told: bool,
}

/// An endpoint is to be disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Why.
    pub(crate) reason: DisableReason,
    /// What it follows from.
    pub(crate) streak: Streak,
}

impl Health {
    /// Takes an attempt into account. Returns whether it may be a reason to disable the endpoint.
    ///
    /// The directory has to be at [`AttemptMade::config_revision`] at least.
    pub(crate) fn note(&mut self, made: &AttemptMade, directory: &Directory) -> bool {
        let id = made.delivery.endpoint;
        let known = directory.endpoint(id);
        let (Some(known), false) = (known, is_success(&made.outcome)) else {
            self.0.remove(&id);
            return false;
        };
        if made.config_revision < known.fresh_since {
            return false;
        }
        let fresh = Streak {
            failures: 0,
            first_at: made.started_at,
            last_at: made.started_at,
            since: known.fresh_since,
            gone: false,
            told: false,
        };
        let streak = self.0.entry(id).or_insert(fresh);
        if streak.since < known.fresh_since {
            *streak = fresh;
        }
        // A request that carried several deliveries failed once, and its facts follow each other.
        let is_same = streak.failures > 0 && streak.last_at == made.started_at;
        if !(made.batch.is_some() && is_same) {
            streak.failures = streak.failures.saturating_add(1);
        }
        streak.last_at = made.started_at;
        streak.gone = is_gone(made, directory);
        true
    }

    /// Decides whether an endpoint is to be disabled.
    pub(crate) fn verdict(&self, id: EndpointId, directory: &Directory) -> Option<Verdict> {
        let (streak, known) = (*self.0.get(&id)?, directory.endpoint(id)?);
        if known.state != EndpointState::Active || streak.since < known.fresh_since {
            return None;
        }
        let reason = if streak.gone {
            DisableReason::Gone
        } else if streak.failures >= failures_max(known, directory)?.get() {
            DisableReason::Failing
        } else {
            return None;
        };
        Some(Verdict { reason, streak })
    }

    /// Returns the endpoints that fail so often in a row that operators are to be told, and were not.
    pub(crate) fn alarming<'a>(
        &'a self,
        directory: &'a Directory,
    ) -> impl Iterator<Item = (&'a Known, Streak)> {
        self.0.iter().filter(|(_, streak)| !streak.told).filter_map(|(id, streak)| {
            let known = directory.endpoint(*id)?;
            let counts = known.state == EndpointState::Active && streak.since >= known.fresh_since;
            let alarming = streak.failures >= warning_at(known, directory).get();
            (counts && alarming).then_some((known, *streak))
        })
    }

    /// Notes that operators were told of a row of failures.
    pub(crate) fn told(&mut self, id: EndpointId, first_at: Timestamp) {
        if let Some(streak) = self.0.get_mut(&id).filter(|streak| streak.first_at == first_at) {
            streak.told = true;
        }
    }

    /// Forgets what does not count any more, and returns the endpoints that are to be disabled.
    pub(crate) fn review(&mut self, directory: &Directory) -> Vec<EndpointId> {
        self.0.retain(|id, streak| {
            directory.endpoint(*id).is_some_and(|known| streak.since >= known.fresh_since)
        });
        let ids = self.0.keys().copied();
        ids.filter(|id| self.verdict(*id, directory).is_some()).collect()
    }
}

impl Verdict {
    /// Says why, for the people who read the history of the endpoint.
    pub(crate) fn words(&self) -> String {
        let Streak { failures, first_at, last_at, since: _, gone, told: _ } = self.streak;
        if gone {
            return format!("the endpoint answered at {last_at} that it is gone");
        }
        format!("{failures} attempts in a row failed, from {first_at} to {last_at}")
    }
}

fn is_success(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Accepted { .. } => true,
        Outcome::Refused { .. } | Outcome::Failed(_) => false,
    }
}

fn is_gone(made: &AttemptMade, directory: &Directory) -> bool {
    let gone = directory.policy(made.delivery.endpoint).map(|policy| &policy.gone);
    let status = made.outcome.status();
    gone.zip(status).is_some_and(|(gone, status)| gone.contains(status))
}

fn failures_max(known: &Known, directory: &Directory) -> Option<NonZeroU32> {
    directory.profile(&known.tenant)?.health.auto_disable_after
}

/// After how many failed attempts in a row operators are told: half of those that disable the
/// endpoint.
fn warning_at(known: &Known, directory: &Directory) -> NonZeroU32 {
    let max = failures_max(known, directory);
    max.and_then(|max| NonZeroU32::new(max.get().div_ceil(2))).unwrap_or(WARNING_AT)
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{BatchId, Endpoint, fact::InBatch};

    use super::*;
    use crate::{
        directory::tests::{endpoint, endpoint_id},
        samples::attempt,
    };

    /// A tenant whose endpoints are disabled after 100 failures in a row, with one endpoint.
    fn directory() -> Directory {
        let mut directory = Directory::default();
        directory.learn_tenant(1, "acme", "kyberaccess");
        directory.learn_endpoint(2, endpoint(1));
        directory
    }

    fn made(status: u16, revision: u64) -> AttemptMade {
        let outcome = match status {
            200 => Outcome::Accepted { status },
            _ => Outcome::Refused { status, retry_after: None },
        };
        AttemptMade { outcome, config_revision: revision, ..attempt(1, 1, None) }
    }

    fn failed(times: u32, health: &mut Health, directory: &Directory, revision: u64) {
        for _ in 0..times {
            health.note(&made(500, revision), directory);
        }
    }

    fn reason(health: &Health, directory: &Directory) -> Option<DisableReason> {
        health.verdict(endpoint_id(1), directory).map(|verdict| verdict.reason)
    }

    #[test]
    fn an_endpoint_that_fails_as_often_as_its_profile_says_is_disabled() {
        let (directory, mut health) = (directory(), Health::default());
        failed(99, &mut health, &directory, 2);
        assert_eq!(reason(&health, &directory), None);
        failed(1, &mut health, &directory, 2);
        assert_eq!(reason(&health, &directory), Some(DisableReason::Failing));
        assert_eq!(health.review(&directory), [endpoint_id(1)]);
    }

    #[test]
    fn a_batch_that_fails_is_one_failure() {
        let (directory, mut health) = (directory(), Health::default());
        failed(98, &mut health, &directory, 2);
        for second in [20, 10] {
            for number in 1..=50 {
                let batch = Some(InBatch { id: BatchId::from_bytes([1; 16]), size: 50 });
                let started_at = Timestamp::from_millis(second * 1_000);
                let fact = AttemptMade { batch, started_at, ..attempt(number, 1, None) };
                assert_eq!(reason(&health, &directory), None, "{second}, {number}");
                health.note(&AttemptMade { config_revision: 2, ..fact }, &directory);
                if second == 10 {
                    break;
                }
            }
        }
        assert_eq!(reason(&health, &directory), Some(DisableReason::Failing));
    }

    #[test]
    fn an_accepted_attempt_ends_the_row() {
        let (directory, mut health) = (directory(), Health::default());
        failed(99, &mut health, &directory, 2);
        health.note(&made(200, 2), &directory);
        failed(99, &mut health, &directory, 2);
        assert_eq!(reason(&health, &directory), None);
    }

    #[test]
    fn failures_from_before_an_endpoint_was_enabled_do_not_count() {
        let (mut directory, mut health) = (directory(), Health::default());
        failed(99, &mut health, &directory, 2);
        let state = EndpointState::Disabled(DisableReason::ByHand);
        directory.learn_endpoint(3, Endpoint { state, ..endpoint(1) });
        directory.learn_endpoint(4, endpoint(1));
        failed(50, &mut health, &directory, 3);
        assert_eq!(reason(&health, &directory), None);
        failed(99, &mut health, &directory, 4);
        assert_eq!(reason(&health, &directory), None);
        failed(1, &mut health, &directory, 4);
        assert_eq!(reason(&health, &directory), Some(DisableReason::Failing));
    }

    #[test]
    fn gone_disables_at_once_unless_the_endpoint_changed_since() {
        let (mut directory, mut health) = (directory(), Health::default());
        directory.learn_tenant(3, "acme", "standard-webhooks");
        health.note(&made(410, 3), &directory);
        assert_eq!(reason(&health, &directory), Some(DisableReason::Gone));
        directory.learn_endpoint(4, Endpoint { url: String::from("https://b/"), ..endpoint(1) });
        assert_eq!(reason(&health, &directory), None);
        health.note(&made(410, 3), &directory);
        assert_eq!(reason(&health, &directory), None);
        assert_eq!(health.review(&directory), []);
        assert_eq!(health, Health::default());
    }

    #[test]
    fn operators_are_told_at_half_of_what_disables_and_once_for_each_row() {
        let (directory, mut health) = (directory(), Health::default());
        let alarming = |health: &Health| {
            health.alarming(&directory).map(|(known, streak)| (known.id, streak.first_at)).next()
        };
        failed(49, &mut health, &directory, 2);
        assert_eq!(alarming(&health), None);
        failed(1, &mut health, &directory, 2);
        let (id, first_at) = alarming(&health).unwrap();
        health.told(id, Timestamp::EPOCH);
        assert!(alarming(&health).is_some(), "that was another row");
        health.told(id, first_at);
        failed(30, &mut health, &directory, 2);
        assert_eq!(alarming(&health), None);
        health.note(&made(200, 2), &directory);
        failed(50, &mut health, &directory, 2);
        assert!(alarming(&health).is_some());
    }

    #[test]
    fn without_a_limit_ten_failures_in_a_row_are_told_of() {
        let (mut directory, mut health) = (directory(), Health::default());
        directory.learn_tenant(3, "acme", "killb");
        failed(9, &mut health, &directory, 3);
        assert_eq!(health.alarming(&directory).count(), 0);
        failed(1, &mut health, &directory, 3);
        assert_eq!(health.alarming(&directory).count(), 1);
        let state = EndpointState::Disabled(DisableReason::ByHand);
        directory.learn_endpoint(4, Endpoint { state, ..endpoint(1) });
        assert_eq!(health.alarming(&directory).count(), 0, "it is known to be disabled");
    }

    #[test]
    fn only_active_endpoints_are_disabled() {
        let (mut directory, mut health) = (directory(), Health::default());
        failed(100, &mut health, &directory, 2);
        let state = EndpointState::Disabled(DisableReason::Failing);
        directory.learn_endpoint(3, Endpoint { state, ..endpoint(1) });
        assert_eq!(reason(&health, &directory), None);
    }

    #[test]
    fn a_profile_without_a_limit_disables_nobody() {
        let (mut directory, mut health) = (directory(), Health::default());
        directory.learn_tenant(3, "acme", "killb");
        failed(1_000, &mut health, &directory, 3);
        assert_eq!(reason(&health, &directory), None);
    }
}
