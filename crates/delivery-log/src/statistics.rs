//! How an endpoint did lately: counted when it is asked for, from two indexes alone.
//!
//! Nothing is counted beforehand, because counters would make it matter how often a fact is folded.
//! What a question costs is bounded: of very many deliveries or attempts, the latest count.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{EndpointId, Fault, Outcome, Timestamp};

use crate::{
    database::{Row, Statement, StoreError},
    query::lowest,
    rows::State,
    store::{Store, nanos, outcome},
};

/// How many deliveries of each state, and how many attempts, are counted at most.
const COUNTED_MAX: u32 = 200_000;

/// How an endpoint did since a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// How many deliveries of events accepted since then stand how. Those with none are left out.
    pub deliveries: BTreeMap<State, u64>,
    /// The attempts begun since then.
    pub attempts: Attempts,
    /// Whether all were counted. If not, there were more than [`Statistics::COUNTED_MAX`] attempts,
    /// or deliveries of one state, and the latest of them were.
    pub complete: bool,
}

/// What came of attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// How many were accepted.
    pub accepted: u64,
    /// How many were refused.
    pub refused: u64,
    /// How many failed.
    pub failed: u64,
    /// How many were answered with each status.
    pub statuses: BTreeMap<u16, u64>,
    /// How many failed for each reason.
    pub faults: BTreeMap<Fault, u64>,
    /// How long they took; `None` if there were none.
    pub latency: Option<Latency>,
}

/// How long attempts took, to the millisecond: that many per cent of them took no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Half of them.
    pub p50: Duration,
    /// 95 of 100.
    pub p95: Duration,
    /// 99 of 100.
    pub p99: Duration,
}

impl Statistics {
    /// How many deliveries of each state, and how many attempts, are counted at most.
    pub const COUNTED_MAX: u32 = COUNTED_MAX;
}

impl Attempts {
    /// How many there were.
    pub const fn total(&self) -> u64 {
        self.accepted + self.refused + self.failed
    }

    fn add(&mut self, outcome: &Outcome, count: u64) {
        match outcome {
            Outcome::Accepted { status } => {
                self.accepted += count;
                *self.statuses.entry(*status).or_default() += count;
            }
            Outcome::Refused { status, .. } => {
                self.refused += count;
                *self.statuses.entry(*status).or_default() += count;
            }
            Outcome::Failed(fault) => {
                self.failed += count;
                *self.faults.entry(*fault).or_default() += count;
            }
        }
    }
}

impl Latency {
    /// Finds the percentiles of numbers of milliseconds, each with how many took that long.
    fn of(counts: &BTreeMap<u64, u64>) -> Option<Self> {
        let total: u64 = counts.values().sum();
        let rank = |percent: u64| {
            let wanted = (total * percent).div_ceil(100).max(1);
            let mut passed = 0;
            let found = counts.iter().find(|(_, count)| {
                passed += **count;
                passed >= wanted
            });
            found.map(|(millis, _)| Duration::from_millis(*millis))
        };
        Some(Self { p50: rank(50)?, p95: rank(95)?, p99: rank(99)? })
    }
}

impl Store {
    /// Counts how an endpoint did since a time. Whose it is, the caller knows.
    pub async fn statistics(
        &self,
        endpoint: EndpointId,
        since: Timestamp,
    ) -> Result<Statistics, StoreError> {
        let mut found = Statistics { complete: true, ..Statistics::default() };
        let most = u64::from(COUNTED_MAX);
        for row in self.database.fetch(deliveries(endpoint, since)).await? {
            let state = row.text(0)?.as_deref().and_then(State::from_name);
            let state = state.ok_or(StoreError::Malformed { what: "state" })?;
            let count = number(&row, 1)?;
            found.complete &= count < most;
            if count > 0 {
                found.deliveries.insert(state, count);
            }
        }
        let mut millis: BTreeMap<u64, u64> = BTreeMap::new();
        for row in self.database.fetch(attempts(endpoint, since)).await? {
            let (took, count) = (number(&row, 4)?, number(&row, 5)?);
            found.attempts.add(&outcome(&row, 0)?, count);
            *millis.entry(took).or_default() += count;
        }
        found.complete &= found.attempts.total() < most;
        found.attempts.latency = Latency::of(&millis);
        Ok(found)
    }
}

fn number(row: &Row, column: usize) -> Result<u64, StoreError> {
    let number = row.integer(column)?.and_then(|number| u64::try_from(number).ok());
    number.ok_or(StoreError::Malformed { what: "count" })
}

/// One walk along the endpoint's index for each state.
pub(crate) fn deliveries(endpoint: EndpointId, since: Timestamp) -> Statement {
    let mut statement = Statement::new("");
    for (index, state) in State::ALL.into_iter().enumerate() {
        if index > 0 {
            statement.push(" UNION ALL ");
        }
        statement.push("SELECT ").bind(state.as_str());
        statement.push(" AS state, COUNT(*) AS count FROM (SELECT id FROM fanfare_deliveries ");
        statement.push("WHERE endpoint = ").bind(endpoint.as_bytes());
        statement.push(" AND state = ").bind(state.as_str());
        statement.push(" AND id >= ").bind(&lowest(since));
        statement.push(" ORDER BY id DESC LIMIT ").bind(COUNTED_MAX).push(") AS walk");
    }
    statement
}

/// One walk along the index of attempts, grouped by what came of them and how long they took.
pub(crate) fn attempts(endpoint: EndpointId, since: Timestamp) -> Statement {
    let mut statement = Statement::new(
        "SELECT outcome, status, fault, CAST(NULL AS BIGINT), duration / 1000000, COUNT(*) FROM (SELECT outcome, \
         status, fault, duration FROM fanfare_attempts WHERE endpoint = ",
    );
    statement.bind(endpoint.as_bytes()).push(" AND started_at >= ").bind(nanos(since));
    statement.push(" ORDER BY started_at DESC LIMIT ").bind(COUNTED_MAX);
    statement.push(") AS latest GROUP BY outcome, status, fault, duration / 1000000");
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_ranks() {
        let latency = |counts: &[(u64, u64)]| Latency::of(&counts.iter().copied().collect());
        let of = |p50, p95, p99| {
            let [p50, p95, p99] = [p50, p95, p99].map(Duration::from_millis);
            Some(Latency { p50, p95, p99 })
        };
        assert_eq!(latency(&[]), None);
        assert_eq!(latency(&[(7, 1)]), of(7, 7, 7));
        assert_eq!(latency(&[(1, 50), (2, 45), (3, 4), (900, 1)]), of(1, 2, 3));
        assert_eq!(latency(&[(1, 1), (2, 1)]), of(1, 2, 2));
    }
}
