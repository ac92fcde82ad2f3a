//! What a load balancer and an operator may know: does it live, is it ready, and if not, why.
//!
//! ```text
//! starting ──run──▶ running ──stop──▶ stopping
//! ready = running, and every condition that was registered holds
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The health of a process: shared, cheap to clone, readable at any time.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    failed: bool,
    /// Why each condition does not hold; `None` if it does.
    conditions: BTreeMap<String, Option<String>>,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Services are being started.
    #[default]
    Starting,
    /// All are started.
    Running,
    /// A stop was asked for, or a task failed; work in flight is being finished.
    Stopping,
}

/// What [`Health`] says at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// False once a task has failed: the process is about to end.
    pub live: bool,
    /// Whether new work should be sent here.
    pub ready: bool,
    /// Where the process is in its life.
    pub phase: Phase,
    /// Every condition, ordered by name.
    pub conditions: Vec<Condition>,
}

/// One thing that must hold for a process to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its name, as `service/condition`.
    pub name: String,
    /// Why it does not hold, or `None` if it does.
    pub unmet: Option<String>,
}

/// The handle with which a service says whether one of its conditions holds.
///
/// A clone speaks about the same condition. When all are dropped, the last word stands.
#[derive(Clone, Debug)]
pub struct Readiness {
    health: Health,
    name: String,
}

impl Health {
    /// Returns all there is to say, consistent within itself.
    pub fn report(&self) -> Report {
        let state = self.lock();
        let conditions: Vec<_> = state
            .conditions
            .iter()
            .map(|(name, unmet)| Condition { name: name.clone(), unmet: unmet.clone() })
            .collect();
        let met = conditions.iter().all(|condition| condition.unmet.is_none());
        let ready = met && state.phase == Phase::Running;
        Report { live: !state.failed, ready, phase: state.phase, conditions }
    }

    /// Says whether the process works at all: what `/healthz` answers.
    pub fn is_live(&self) -> bool {
        !self.lock().failed
    }

    /// Says whether new work should be sent here: what `/readyz` answers.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    /// Registers a condition, which does not hold yet.
    pub(crate) fn condition(&self, name: String) -> Readiness {
        let readiness = Readiness { health: self.clone(), name };
        readiness.not_ready("not ready yet");
        readiness
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    pub(crate) fn fail(&self) {
        self.lock().failed = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readiness {
    /// Says that the condition holds.
    pub fn ready(&self) {
        self.health.lock().conditions.insert(self.name.clone(), None);
    }

    /// Says that the condition does not hold, and why, in words an operator understands.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.health.lock().conditions.insert(self.name.clone(), Some(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_it_runs_and_every_condition_holds() {
        let health = Health::default();
        let (log, view) = (health.condition("a/log".into()), health.condition("a/view".into()));
        log.ready();
        view.ready();
        assert!(!health.is_ready(), "still starting");
        health.enter(Phase::Running);
        assert!(health.is_ready());
        view.not_ready("the view is 3 s old");
        let report = health.report();
        assert!(!report.ready && report.live);
        assert_eq!(report.conditions[1].unmet.as_deref(), Some("the view is 3 s old"));
        view.ready();
        health.enter(Phase::Stopping);
        assert!(!health.is_ready() && health.is_live());
    }

    #[test]
    fn a_process_whose_task_failed_is_not_live() {
        let health = Health::default();
        health.fail();
        assert!(!health.is_live());
    }
}
