//! What a fact obliges us to do, until it is done.
//!
//! A duty is named by the fact that it comes from, so that it survives a restart as 25 bytes:
//! whatever else carrying it out takes is read from the journal again.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::DeliveryId;

/// The fact that a duty comes from: its sequence in JOURNAL, and the delivery that it is about.
pub(crate) type Cause = (u64, DeliveryId);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Write the fact that gives the next attempt its time.
    Plan,
    /// Set the alarm clock for that time.
    Alarm,
    /// Tell operators of a delivery that is exhausted.
    Tell,
    /// Stop the alarm clock: the delivery is past it.
    Stop,
}

impl Kind {
    /// Every kind, in the order of their codes.
    pub(super) const ALL: [Self; 4] = [Self::Plan, Self::Alarm, Self::Tell, Self::Stop];

    /// Returns the number that stands for the kind in snapshots.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Plan => 0,
            Self::Alarm => 1,
            Self::Tell => 2,
            Self::Stop => 3,
        }
    }
}

/// The duties of a shard that are not done.
#[derive(Clone, Debug, Default)]
pub(super) struct Duties {
    open: BTreeMap<Cause, Duty>,
}

#[derive(Clone, Copy, Debug)]
struct Duty {
    kind: Kind,
    /// Whether somebody is carrying it out.
    issued: bool,
}

impl Duties {
    /// Adds a duty that nobody carries out yet.
    pub(super) fn open(&mut self, cause: Cause, kind: Kind) {
        self.open.insert(cause, Duty { kind, issued: false });
    }

    /// Removes a duty, if there is one: it is done, or came to nothing.
    pub(super) fn close(&mut self, cause: Cause) {
        self.open.remove(&cause);
    }

    /// Returns what is to be done and not being done.
    pub(super) fn idle(&self, cause: Cause) -> Option<Kind> {
        self.open.get(&cause).filter(|duty| !duty.issued).map(|duty| duty.kind)
    }

    /// Notes that somebody carries a duty out.
    pub(super) fn issue(&mut self, cause: Cause) {
        self.mark(cause, true);
    }

    /// Notes that nobody carries a duty out any more. Returns whether it is still to be done.
    pub(super) fn give_back(&mut self, cause: Cause) -> bool {
        self.mark(cause, false)
    }

    /// Tells whether a duty is not done.
    pub(super) fn contains(&self, cause: Cause) -> bool {
        self.open.contains_key(&cause)
    }

    /// Returns the sequences of the facts whose duties nobody carries out.
    pub(super) fn idle_sequences(&self) -> BTreeSet<u64> {
        let idle = self.open.iter().filter(|(_, duty)| !duty.issued);
        idle.map(|((sequence, _), _)| *sequence).collect()
    }

    /// Returns the deliveries that have duties from the facts at a sequence.
    pub(super) fn at(&self, sequence: u64) -> Vec<DeliveryId> {
        let (first, last) = (DeliveryId::from_bytes([0; 16]), DeliveryId::from_bytes([255; 16]));
        let range = self.open.range((sequence, first)..=(sequence, last));
        range.map(|((_, delivery), _)| *delivery).collect()
    }

    /// Returns every duty, in the order of their causes.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (Cause, Kind)> {
        self.open.iter().map(|(cause, duty)| (*cause, duty.kind))
    }

    fn mark(&mut self, cause: Cause, issued: bool) -> bool {
        let Some(duty) = self.open.get_mut(&cause) else { return false };
        duty.issued = issued;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(sequence: u64, number: u8) -> Cause {
        (sequence, DeliveryId::from_bytes([number; 16]))
    }

    #[test]
    fn a_duty_is_issued_once_until_it_is_given_back() {
        let mut duties = Duties::default();
        duties.open(cause(7, 1), Kind::Plan);
        assert_eq!(duties.idle(cause(7, 1)), Some(Kind::Plan));
        duties.issue(cause(7, 1));
        assert_eq!(duties.idle(cause(7, 1)), None);
        assert!(duties.give_back(cause(7, 1)));
        assert_eq!(duties.idle(cause(7, 1)), Some(Kind::Plan));
        duties.issue(cause(7, 1));
        duties.close(cause(7, 1));
        assert!(!duties.give_back(cause(7, 1)) && !duties.contains(cause(7, 1)));
    }

    #[test]
    fn duties_are_found_by_the_sequence_of_their_fact() {
        let mut duties = Duties::default();
        for cause in [cause(7, 1), cause(7, 255), cause(8, 0)] {
            duties.open(cause, Kind::Alarm);
        }
        assert_eq!(duties.at(7), [cause(7, 1).1, cause(7, 255).1]);
        duties.issue(cause(8, 0));
        assert_eq!(duties.idle_sequences(), BTreeSet::from([7]));
    }
}
