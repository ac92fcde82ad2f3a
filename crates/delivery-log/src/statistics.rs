//! How an endpoint did lately: the sums of what [`crate::counts`] has for each minute and hour.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{EndpointId, Fault, Timestamp};

use crate::{
    counts::{self, Came, Counted, Grain},
    database::StoreError,
    rows::State,
    store::Store,
};

/// How an endpoint did since a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Since when: the beginning of the minute that was asked for.
    pub since: Timestamp,
    /// How many deliveries of events accepted since then stand how. Those with none are left out.
    pub deliveries: BTreeMap<State, u64>,
    /// The attempts begun since then.
    pub attempts: Attempts,
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

/// How long attempts took: that many per cent of them took no longer. From 32 ms on it is rounded up
/// by less than a sixteenth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Half of them.
    pub p50: Duration,
    /// 95 of 100.
    pub p95: Duration,
    /// 99 of 100.
    pub p99: Duration,
}

impl Attempts {
    /// How many there were.
    pub const fn total(&self) -> u64 {
        self.accepted + self.refused + self.failed
    }

    fn add(&mut self, came: Came, count: u64) {
        match came {
            Came::Accepted(status) => {
                self.accepted += count;
                *self.statuses.entry(status).or_default() += count;
            }
            Came::Refused(status) => {
                self.refused += count;
                *self.statuses.entry(status).or_default() += count;
            }
            Came::Failed(fault) => {
                self.failed += count;
                *self.faults.entry(fault).or_default() += count;
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
    /// Counts how an endpoint did since the minute of a time. Whose it is, the caller knows.
    pub async fn statistics(
        &self,
        endpoint: EndpointId,
        since: Timestamp,
    ) -> Result<Statistics, StoreError> {
        let since = Grain::Minute.begun(since);
        let mut found = Statistics { since, ..Statistics::default() };
        let mut millis: BTreeMap<u64, u64> = BTreeMap::new();
        for row in self.database.fetch(counts::sums(endpoint, since)).await? {
            match counts::sum(&row)? {
                (_, 0) => {}
                (Counted::Delivery(state), count) => {
                    found.deliveries.insert(state, count);
                }
                (Counted::Attempt(came), count) => found.attempts.add(came, count),
                (Counted::Took(took), count) => {
                    millis.insert(took, count);
                }
            }
        }
        found.attempts.latency = Latency::of(&millis);
        Ok(found)
    }
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
