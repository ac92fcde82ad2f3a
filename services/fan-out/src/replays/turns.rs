//! Whose turn it is: tenants take turns, and each tenant's replays do. So however many replays one
//! has, and however slow they are, those of the others go on. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fanfare_domain::{JobId, TenantId};
use fanfare_event_log::StoredReplay;
use tokio::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How many turns were given.
    given: u64,
    /// When tenants and jobs had theirs, by that count.
    tenants: BTreeMap<TenantId, u64>,
    jobs: BTreeMap<JobId, u64>,
    /// The tenants that have one.
    at_it: BTreeSet<TenantId>,
    /// Until when jobs rest.
    resting: BTreeMap<JobId, Instant>,
    /// Jobs that there is no use in trying.
    given_up: BTreeSet<JobId>,
}

impl Turns {
    /// Gives a turn to one of the jobs that run and are ready, if there is one: a tenant has one at
    /// a time.
    pub(super) fn give<'a>(
        &mut self,
        running: impl Iterator<Item = &'a StoredReplay>,
        is_ready: impl Fn(&StoredReplay) -> bool,
        now: Instant,
    ) -> Option<StoredReplay> {
        let may = |stored: &&StoredReplay| {
            let (job, tenant) = (stored.replay.id, &stored.replay.tenant);
            !self.at_it.contains(tenant)
                && !self.given_up.contains(&job)
                && self.resting.get(&job).is_none_or(|until| *until <= now)
                && is_ready(stored)
        };
        let since = |stored: &&StoredReplay| {
            let (job, tenant) = (stored.replay.id, &stored.replay.tenant);
            (self.tenants.get(tenant).copied(), self.last(job), job)
        };
        let chosen = running.filter(may).min_by_key(since)?.clone();
        self.given += 1;
        let (job, tenant) = (chosen.replay.id, chosen.replay.tenant.clone());
        self.tenants.insert(tenant.clone(), self.given);
        self.jobs.insert(job, self.given);
        self.resting.remove(&job);
        self.at_it.insert(tenant);
        Some(chosen)
    }

    /// Ends a turn; the job has no other one for that long.
    pub(super) fn end(&mut self, (tenant, job): (&TenantId, JobId), rest: Duration, now: Instant) {
        self.at_it.remove(tenant);
        if rest > Duration::ZERO {
            self.resting.insert(job, now + rest);
        }
    }

    /// Gives a job no turn any more.
    pub(super) fn give_up(&mut self, job: JobId) {
        self.given_up.insert(job);
    }

    /// When a job had its last turn: the less, the longer ago.
    pub(super) fn last(&self, job: JobId) -> Option<u64> {
        self.jobs.get(&job).copied()
    }

    /// Forgets all jobs but these, and tenants without any.
    pub(super) fn keep_only(&mut self, jobs: &BTreeMap<JobId, TenantId>) {
        self.jobs.retain(|job, _| jobs.contains_key(job));
        self.resting.retain(|job, _| jobs.contains_key(job));
        self.given_up.retain(|job| jobs.contains_key(job));
        let tenants: BTreeSet<&TenantId> = jobs.values().collect();
        self.tenants.retain(|tenant, _| tenants.contains(tenant));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanfare_domain::{
        Replay, Timestamp,
        job::{JobState, Progress, Scope},
    };

    use super::*;

    fn job(tenant: &str, n: u8) -> StoredReplay {
        let replay = Replay {
            id: JobId::new(Timestamp::EPOCH, [n; 10]),
            tenant: tenant.parse().unwrap(),
            actor: String::new(),
            reason: String::new(),
            created_at: Timestamp::EPOCH,
            scope: Scope::Only(Vec::new()),
            generation: 1,
            state: JobState::Running,
            progress: Progress::default(),
            behind: BTreeMap::new(),
        };
        StoredReplay { replay: Arc::new(replay), revision: 1 }
    }

    fn whose(given: &StoredReplay) -> (&TenantId, JobId) {
        (&given.replay.tenant, given.replay.id)
    }

    #[test]
    fn a_tenant_with_many_replays_has_as_many_turns_as_one_with_one() {
        let mut jobs: Vec<_> = (0..20).map(|n| job("many", n)).collect();
        jobs.push(job("one", 20));
        let (mut turns, now) = (Turns::default(), Instant::now());
        let mut had: BTreeMap<JobId, u32> = BTreeMap::new();
        for _ in 0..40 {
            let given = turns.give(jobs.iter(), |_| true, now).unwrap();
            *had.entry(given.replay.id).or_default() += 1;
            turns.end(whose(&given), Duration::ZERO, now);
        }
        assert_eq!(had.remove(&jobs[20].replay.id), Some(20));
        assert_eq!(had.into_values().collect::<Vec<_>>(), [1; 20]);
    }

    #[test]
    fn a_tenant_has_one_turn_at_a_time_and_none_for_a_job_that_rests() {
        let jobs = [job("a", 1), job("a", 2), job("b", 3)];
        let (mut turns, now) = (Turns::default(), Instant::now());
        let give = |turns: &mut Turns, now| turns.give(jobs.iter(), |_| true, now);
        let first = give(&mut turns, now).unwrap();
        let second = give(&mut turns, now).unwrap();
        assert_eq!([&first, &second], [&jobs[0], &jobs[2]]);
        assert_eq!(give(&mut turns, now), None);
        turns.end(whose(&first), Duration::from_secs(5), now);
        assert_eq!(give(&mut turns, now).as_ref(), Some(&jobs[1]));
        turns.end(whose(&jobs[1]), Duration::from_secs(9), now);
        assert_eq!(give(&mut turns, now), None);
        let later = now + Duration::from_secs(6);
        assert_eq!(give(&mut turns, later).as_ref(), Some(&jobs[0]));
    }

    #[test]
    fn what_is_not_ready_or_was_given_up_has_no_turn() {
        let jobs = [job("a", 1), job("a", 2), job("b", 3)];
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.give_up(jobs[2].replay.id);
        let ready = |stored: &StoredReplay| stored.replay.id != jobs[0].replay.id;
        assert_eq!(turns.give(jobs.iter(), ready, now).as_ref(), Some(&jobs[1]));
        assert_eq!(turns.give(jobs.iter(), ready, now), None);
    }
}
