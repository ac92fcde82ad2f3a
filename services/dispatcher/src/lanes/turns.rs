//! Whose turn it is: deficit round robin over time in flight.
//!
//! In each round a lane may use a quantum of time in flight. A lane whose requests take longer
//! has its next turn as many rounds later as it has used quanta; rounds in which nobody has a turn
//! are passed over, so the wait is only as long as others have something to send.

use std::{collections::BTreeSet, time::Duration};

use fanfare_domain::EndpointId;

/// How much time in flight a lane may use in a round.
const QUANTUM: Duration = Duration::from_millis(10);

/// The most rounds that a lane can be behind: ten seconds' worth.
const BEHIND_MAX: u64 = 1_000;

/// The lanes that are ready, of one kind.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    order: BTreeSet<Place>,
    round: u64,
    lined_up: u64,
}

/// Where a lane stands in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    round: u64,
    /// Lanes of the same round are served in the order in which they came.
    order: u64,
    endpoint: EndpointId,
}

/// How far a lane is ahead of its share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Debt(Duration);

impl Debt {
    /// Adds time in flight that is expected, or was used beyond that.
    pub(crate) fn add(&mut self, time: Duration) {
        let max = QUANTUM * u32::try_from(BEHIND_MAX).unwrap_or(u32::MAX);
        self.0 = self.0.saturating_add(time).min(max);
    }

    /// Takes back what was expected and not used.
    pub(crate) fn forgive(&mut self, time: Duration) {
        self.0 = self.0.saturating_sub(time);
    }
}

impl Turns {
    /// Puts a lane in line, behind others by the quanta that it owes.
    pub(crate) fn line_up(&mut self, endpoint: EndpointId, debt: &mut Debt) -> Place {
        let rounds = debt.0.as_nanos() / QUANTUM.as_nanos();
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        debt.forgive(QUANTUM * rounds);
        let round = self.round + u64::from(rounds);
        self.lined_up += 1;
        let place = Place { round, order: self.lined_up, endpoint };
        self.order.insert(place);
        place
    }

    /// Takes a lane out of the line. What it has not waited for it owes again.
    pub(crate) fn leave(&mut self, place: &Place, debt: &mut Debt) {
        if self.order.remove(place) {
            let rounds = place.round.saturating_sub(self.round);
            debt.add(QUANTUM * u32::try_from(rounds).unwrap_or(u32::MAX));
        }
    }

    /// Who is next.
    pub(crate) fn first(&self) -> Option<EndpointId> {
        self.order.first().map(|place| place.endpoint)
    }

    /// How many are in line.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Takes a lane out of the line for its turn.
    pub(crate) fn serve(&mut self, place: &Place) {
        if self.order.remove(place) {
            self.round = self.round.max(place.round);
        }
    }

    /// Tells whether nobody is in line.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn endpoint(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 16])
    }

    /// Serves lanes whose requests take that many milliseconds, one at a time.
    fn serve(takes: &[u64], turns_max: usize) -> BTreeMap<EndpointId, u64> {
        let mut turns = Turns::default();
        let mut debts: BTreeMap<_, _> = (0_u8..)
            .zip(takes)
            .map(|(n, takes)| (endpoint(n), (Debt::default(), *takes)))
            .collect();
        let mut places = BTreeMap::new();
        for (endpoint, (debt, _)) in &mut debts {
            places.insert(*endpoint, turns.line_up(*endpoint, debt));
        }
        let mut used = BTreeMap::new();
        for _ in 0..turns_max {
            let Some(endpoint) = turns.first() else { break };
            turns.serve(&places[&endpoint]);
            let (debt, takes) = debts.get_mut(&endpoint).unwrap();
            debt.add(Duration::from_millis(*takes));
            *used.entry(endpoint).or_default() += *takes;
            places.insert(endpoint, turns.line_up(endpoint, debt));
        }
        used
    }

    #[test]
    fn time_in_flight_is_shared_and_not_the_number_of_requests() {
        let used = serve(&[1_000, 10], 1_010);
        assert_eq!((used[&endpoint(0)], used[&endpoint(1)]), (10_000, 10_000));
    }

    #[test]
    fn a_lane_alone_never_waits() {
        assert_eq!(serve(&[10_000], 7)[&endpoint(0)], 70_000);
    }

    #[test]
    fn who_leaves_the_line_does_not_lose_its_debt() {
        let (mut turns, mut debt) = (Turns::default(), Debt::default());
        debt.add(Duration::from_secs(1));
        let place = turns.line_up(endpoint(1), &mut debt);
        assert_eq!(debt, Debt::default());
        turns.leave(&place, &mut debt);
        assert_eq!(debt, Debt(Duration::from_secs(1)));
    }

    proptest! {
        /// Nobody is ahead of another by more than one request of each.
        #[test]
        fn shares_differ_by_little(takes in prop::collection::vec(10_u64..500, 2..6)) {
            let used = serve(&takes, 4_000);
            let (least, most) = (used.values().min().unwrap(), used.values().max().unwrap());
            prop_assert!(most - least <= 2 * takes.iter().max().unwrap() + 20, "{used:?}");
        }
    }
}
