//! One waiting delivery in 16 bytes: with its id, 32. A million of them have to be cheap.

use std::time::Duration;

use fanfare_domain::Timestamp;

/// What is known of a waiting delivery. The rest stands in the journal, at [`Entry::sequence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The sequence in JOURNAL of the fact that brought the delivery into its phase.
    pub(crate) sequence: u64,
    /// Whole seconds since the epoch, rounded down; never needed more exactly than that.
    pub(super) due_secs: u32,
    pub(super) attempt: u16,
    pub(super) rescues: u8,
    /// What the delivery waits for.
    pub(crate) phase: Phase,
}

/// What a delivery waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// For the fact that gives its next attempt a time.
    Asked,
    /// For that time.
    Planned,
    /// For its endpoint to be resumed.
    Parked,
}

/// Attempts as entries hold them. Policies stop long before the largest one.
pub(super) fn short(attempt: u32) -> u16 {
    u16::try_from(attempt).unwrap_or(u16::MAX)
}

/// Instants as entries hold them, rounded down to seconds.
pub(super) fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.as_secs()).unwrap_or(u32::MAX)
}

/// The first instant of a second.
pub(super) fn instant(seconds: u32) -> Timestamp {
    Timestamp::EPOCH.saturating_add(Duration::from_secs(u64::from(seconds)))
}

impl Entry {
    /// Notes a delivery whose attempt of that number waits until `due`.
    pub(super) fn new(phase: Phase, attempt: u32, due: Timestamp, sequence: u64) -> Self {
        let (attempt, due_secs) = (short(attempt), seconds(due));
        Self { sequence, due_secs, attempt, rescues: 0, phase }
    }

    /// Returns the second in which the delivery is due, as its first instant.
    pub(crate) fn due(self) -> Timestamp {
        instant(self.due_secs)
    }

    /// Tells whether an alarm is set that has not gone off at `now`. In doubt, it has.
    pub(super) fn alarm_is_ahead(self, now: Timestamp) -> bool {
        self.phase == Phase::Planned && self.due_secs > seconds(now)
    }

    /// Returns how long after its time an alarm counts as failed: `grace`, twice that after a
    /// rescue, and so on up to 128 times, so that what a rescue does not help is not hammered.
    pub(super) fn patience(self, grace: Duration) -> Duration {
        grace.saturating_mul(1 << self.rescues.min(7)).saturating_add(Duration::from_secs(1))
    }
}

impl Phase {
    /// Every phase, in the order of their codes.
    pub(super) const ALL: [Self; 3] = [Self::Asked, Self::Planned, Self::Parked];

    /// Returns the number that stands for the phase in snapshots.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Asked => 0,
            Self::Planned => 1,
            Self::Parked => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::DeliveryId;

    use super::*;

    #[test]
    fn a_waiting_delivery_takes_32_bytes() {
        assert_eq!(size_of::<(DeliveryId, Entry)>(), 32);
    }

    #[test]
    fn codes_are_places() {
        for (place, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(phase.code()), place);
        }
    }

    #[test]
    fn patience_doubles_with_each_rescue_up_to_a_limit() {
        let mut entry = Entry::new(Phase::Planned, 1, Timestamp::EPOCH, 1);
        let grace = Duration::from_secs(5);
        assert_eq!(entry.patience(grace), Duration::from_secs(6));
        entry.rescues = 2;
        assert_eq!(entry.patience(grace), Duration::from_secs(21));
        entry.rescues = u8::MAX;
        assert_eq!(entry.patience(grace), Duration::from_secs(641));
    }
}
