//! How many deliveries and attempts an endpoint had in each minute and each hour: what statistics
//! are read from, so that they cost the same however many rows there are.
//!
//! **Invariant:** counts say what counting the rows would say. Whoever writes or removes rows writes
//! down what that changes, in the same transaction. Facts are not counted, since they may be folded
//! more than once.

mod writing;

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{DeliveryId, EndpointId, Fault, Outcome, Timestamp};

use crate::{
    database::{Row, Statement, StoreError, Value},
    rows::{AttemptRow, State},
    store::{id, nanos, outcome, required_time},
};

pub(crate) use self::writing::{Table, fill};

/// For how long a count is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grain {
    /// A minute: what there is before the first whole hour.
    Minute,
    /// An hour.
    Hour,
}

impl Grain {
    const ALL: [Self; 2] = [Self::Minute, Self::Hour];

    const fn length(self) -> Duration {
        match self {
            Self::Minute => Duration::from_mins(1),
            Self::Hour => Duration::from_hours(1),
        }
    }

    /// As it is stored.
    pub(crate) const fn seconds(self) -> u64 {
        self.length().as_secs()
    }

    /// When the one began that a time is in.
    pub(crate) const fn begun(self, at: Timestamp) -> Timestamp {
        Timestamp::from_millis(at.as_secs() / self.seconds() * self.seconds() * 1_000)
    }

    /// When the first one begins that lies behind a time as a whole.
    pub(crate) fn whole_from(self, at: Timestamp) -> Timestamp {
        let begun = self.begun(at);
        if begun == at { at } else { begun.saturating_add(self.length()) }
    }
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counted {
    /// Deliveries of events accepted then, that stand so.
    Delivery(State),
    /// Attempts begun then, of which this came.
    Attempt(Came),
    /// Attempts begun then, that took so many milliseconds, as [`coarse`] has it.
    Took(u64),
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Came {
    Accepted(u16),
    Refused(u16),
    Failed(Fault),
}

impl Came {
    const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted { status } => Self::Accepted(*status),
            Outcome::Refused { status, .. } => Self::Refused(*status),
            Outcome::Failed(fault) => Self::Failed(*fault),
        }
    }
}

impl Counted {
    /// The two columns that say what it is.
    fn columns(&self) -> (&'static str, String) {
        match self {
            Self::Delivery(state) => ("deliveries", String::from(state.as_str())),
            Self::Attempt(Came::Accepted(status)) => ("accepted", status.to_string()),
            Self::Attempt(Came::Refused(status)) => ("refused", status.to_string()),
            Self::Attempt(Came::Failed(fault)) => ("failed", String::from(fault.as_str())),
            Self::Took(millis) => ("took", millis.to_string()),
        }
    }

    fn from_columns(what: &str, value: &str) -> Option<Self> {
        Some(match what {
            "deliveries" => Self::Delivery(State::from_name(value)?),
            "accepted" => Self::Attempt(Came::Accepted(value.parse().ok()?)),
            "refused" => Self::Attempt(Came::Refused(value.parse().ok()?)),
            "failed" => Self::Attempt(Came::Failed(Fault::from_name(value)?)),
            "took" => Self::Took(value.parse().ok()?),
            _ => return None,
        })
    }
}

/// Which count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    endpoint: EndpointId,
    grain: Grain,
    begun: Timestamp,
    counted: Counted,
}

impl Key {
    fn values(&self) -> Vec<Value> {
        let (what, value) = self.counted.columns();
        vec![
            self.endpoint.as_bytes().into(),
            self.grain.seconds().into(),
            nanos(self.begun).into(),
            what.into(),
            value.as_str().into(),
        ]
    }
}

/// By how much counts change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<Key, i64>);

impl Tally {
    /// There is a delivery more, or less.
    pub(crate) fn delivery(
        &mut self,
        (endpoint, id): (EndpointId, DeliveryId),
        state: State,
        by: i64,
    ) {
        self.add((endpoint, id.time()), &Counted::Delivery(state), by);
    }

    /// There is an attempt more, or less.
    pub(crate) fn attempt(&mut self, attempt: &Attempt, by: i64) {
        let whose = (attempt.endpoint, attempt.started_at);
        self.add(whose, &Counted::Attempt(attempt.came), by);
        self.add(whose, &Counted::Took(attempt.took), by);
    }

    fn add(&mut self, (endpoint, at): (EndpointId, Timestamp), counted: &Counted, by: i64) {
        for grain in Grain::ALL {
            let key = Key { endpoint, grain, begun: grain.begun(at), counted: counted.clone() };
            *self.0.entry(key).or_default() += by;
        }
    }
}

/// What is counted of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    endpoint: EndpointId,
    started_at: Timestamp,
    came: Came,
    took: u64,
}

impl Attempt {
    /// The columns that [`Self::read`] reads.
    const COLUMNS: &str = "endpoint, outcome, status, fault, retry_after, started_at, duration";

    pub(crate) const fn of(row: &AttemptRow) -> Self {
        Self {
            endpoint: row.endpoint,
            started_at: row.started_at,
            came: Came::of(&row.outcome),
            took: coarse(row.duration_nanos / 1_000_000),
        }
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let nanos = row.integer(6)?.and_then(|nanos| u64::try_from(nanos).ok());
        let nanos = nanos.ok_or(StoreError::Malformed { what: "duration" })?;
        Ok(Self {
            endpoint: EndpointId::from_bytes(id(row, 0, "endpoint")?),
            came: Came::of(&outcome(row, 1)?),
            started_at: required_time(row, 5, "started_at")?,
            took: coarse(nanos / 1_000_000),
        })
    }
}

/// Below this, every millisecond counts by itself.
const FINE: u64 = 32;

/// The largest number that counts as the same: less than one sixteenth above the given one.
pub(crate) const fn coarse(millis: u64) -> u64 {
    if millis < FINE {
        return millis;
    }
    let shift = millis.ilog2() - (FINE.ilog2() - 1);
    millis | ((1 << shift) - 1)
}

/// Asks for the sums of an endpoint's counts since a whole minute: by the minute up to the first whole
/// hour, by the hour from there.
pub(crate) fn sums(endpoint: EndpointId, since: Timestamp) -> Statement {
    let hour = Grain::Hour.whole_from(since);
    let mut statement = Statement::new(
        "SELECT what, value, CAST(SUM(count) AS BIGINT) FROM (SELECT what, value, count \
         FROM fanfare_counts WHERE endpoint = ",
    );
    statement.bind(endpoint.as_bytes()).push(" AND grain = ").bind(Grain::Minute.seconds());
    statement.push(" AND begun >= ").bind(nanos(since)).push(" AND begun < ").bind(nanos(hour));
    statement.push(" UNION ALL SELECT what, value, count FROM fanfare_counts WHERE endpoint = ");
    statement.bind(endpoint.as_bytes()).push(" AND grain = ").bind(Grain::Hour.seconds());
    statement.push(" AND begun >= ").bind(nanos(hour));
    statement.push(") AS counted GROUP BY what, value");
    statement
}

/// Reads what [`sums`] finds.
pub(crate) fn sum(row: &Row) -> Result<(Counted, u64), StoreError> {
    let (what, value) = (row.text(0)?.unwrap_or_default(), row.text(1)?.unwrap_or_default());
    let counted = Counted::from_columns(&what, &value);
    let sum = row.integer(2)?.and_then(|sum| u64::try_from(sum).ok());
    counted.zip(sum).ok_or(StoreError::Malformed { what: "count" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_is_counted_to_a_sixteenth() {
        let mut before = 0;
        for millis in (0..100_000).chain([u64::MAX - 1, u64::MAX]) {
            let counted = coarse(millis);
            assert!(counted >= millis && counted - millis <= millis / 16, "{millis}: {counted}");
            assert!(counted >= before && coarse(counted) == counted, "{millis}: {counted}");
            before = counted;
        }
        assert_eq!([31, 32, 33, 34, 1_000].map(coarse), [31, 33, 33, 35, 1_023]);
    }

    #[test]
    fn what_is_counted_reads_back() {
        let states = State::ALL.map(Counted::Delivery);
        let faults = Fault::ALL.map(|fault| Counted::Attempt(Came::Failed(fault)));
        let rest = [Came::Accepted(204), Came::Refused(500)].map(Counted::Attempt);
        for counted in states.into_iter().chain(faults).chain(rest).chain([Counted::Took(7)]) {
            let (what, value) = counted.columns();
            assert_eq!(Counted::from_columns(what, &value), Some(counted));
        }
    }

    #[test]
    fn whole_hours_begin_at_or_behind_a_time() {
        let at = |minutes: u64| Timestamp::from_millis(minutes * 60_000);
        for (time, begun, whole) in [(0, 0, 0), (1, 0, 60), (60, 60, 60), (119, 60, 120)] {
            assert_eq!(Grain::Hour.begun(at(time)), at(begun));
            assert_eq!(Grain::Hour.whole_from(at(time)), at(whole));
        }
    }
}
