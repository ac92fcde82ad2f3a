//! When messages share a commit.
//!
//! An atomic batch costs about the same whatever it holds: a server that is alone stages it to
//! files of its own, several servers write it to their log as one entry. So it pays from a size
//! on, and where a single message costs next to nothing it never does.
//!
//! Measured with messages of 600 bytes in flight on one connection, nats-server 2.15.1, two cores
//! and a disk that takes 2 ms to sync; messages per second, each by itself and in one batch at a
//! time of what gathered:
//!
//! | servers      | in flight | singles | batches |
//! | ------------ | --------- | ------- | ------- |
//! | 1            | 50        | 70,000  | 2,300   |
//! | 1            | 1000      | 33,000  | 26,000  |
//! | 1, each sync | 10        | 530     | 560     |
//! | 1, each sync | 50        | 530     | 2,100   |
//! | 1, each sync | 100       | 620     | 4,300   |
//! | 1, each sync | 1000      | 760     | 25,000  |
//! | 3            | 100       | 16,400  | 15,600  |
//! | 3            | 1000      | 19,900  | 23,700  |
//! | 3, each sync | 100       | 10,600  | 9,600   |
//! | 3, each sync | 1000      | 18,500  | 18,900  |
//!
//! On three servers small batches lose (10 and more: a fifth less at 1000 in flight) and large
//! ones are about even; on 2.14, which syncs more often, large ones are twice as fast.

use crate::{Settings, publish::outgoing::Outgoing, topology::Stream};

/// The smallest batch, in messages.
const MIN: usize = 50;
/// The largest batch, in messages: more is refused.
const MAX: usize = 1000;
/// The largest batch, in bytes of messages.
const BYTES_MAX: usize = 768 * 1024;
/// What being in a batch adds to a message, in bytes, at most.
pub(crate) const HEADROOM: usize = 192;

/// From which size on batches pay, and how large they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    min: usize,
    max: usize,
}

/// What to send of the messages that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flight {
    /// So many of the first, each by itself; none of them if it is 0.
    Singles(usize),
    /// So many of the first, as one batch.
    Batch(usize),
}

impl Policy {
    /// The policy for these settings; `None` where batches never pay.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        Self::measured(settings.replicas, settings.durability.syncs_always())
    }

    const fn measured(replicas: usize, sync_always: bool) -> Option<Self> {
        let cheap = replicas <= 1 && !sync_always;
        if cheap { None } else { Some(Self { min: MIN, max: MAX }) }
    }

    /// The policy of a stream that takes no batches.
    pub(crate) const fn singles_only() -> Self {
        Self { min: usize::MAX, max: 0 }
    }

    /// Decides about messages that gathered while `under_way` others, each sent by itself, are not
    /// known to be stored. Not asked while a batch is: there is one at a time.
    ///
    /// Few messages are sent at once. As soon as so many are under way that a batch would have
    /// paid, the next ones wait until there are enough for one, or until there are fewer again.
    pub(crate) fn decide(self, gathered: usize, under_way: usize) -> Flight {
        if gathered >= self.min {
            return Flight::Batch(gathered.min(self.max));
        }
        Flight::Singles(gathered.min(self.min.saturating_sub(under_way)))
    }
}

impl Stream {
    /// Whether its messages may be written in batches: all that publishers write.
    pub(crate) const fn takes_batches(self) -> bool {
        match self {
            Self::Inbox
            | Self::Rejected
            | Self::Events
            | Self::Deliveries
            | Self::Retries
            | Self::Journal
            | Self::Dead => true,
            Self::Commands | Self::Jobs | Self::Config => false,
        }
    }
}

/// How many of the first messages, each with its size in bytes, fit into one batch. `message_max`
/// is the most bytes that the servers take in one message.
pub(crate) fn fit<'a>(
    messages: impl Iterator<Item = (&'a Outgoing, usize)>,
    message_max: usize,
) -> usize {
    let (mut bytes, mut subjects) = (0_usize, std::collections::BTreeSet::new());
    messages
        .take_while(|&(message, size)| {
            bytes = bytes.saturating_add(size);
            // A batch takes one schedule for each subject.
            let first = message.stream != Stream::Retries || subjects.insert(&message.subject);
            first && bytes <= BYTES_MAX && size.saturating_add(HEADROOM) <= message_max
        })
        .count()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Durability;

    fn decided(replicas: usize, sync_always: bool, gathered: usize) -> Option<Flight> {
        Policy::measured(replicas, sync_always).map(|policy| policy.decide(gathered, 0))
    }

    #[test]
    fn batches_are_made_where_and_when_they_pay() {
        use Flight::{Batch, Singles};

        for (replicas, sync_always, gathered, expected) in [
            (1, false, 1, None),
            (1, false, 5000, None),
            (1, true, 1, Some(Singles(1))),
            (1, true, 49, Some(Singles(49))),
            (1, true, 50, Some(Batch(50))),
            (1, true, 999, Some(Batch(999))),
            (1, true, 5000, Some(Batch(1000))),
            (3, false, 49, Some(Singles(49))),
            (3, false, 50, Some(Batch(50))),
            (3, true, 49, Some(Singles(49))),
            (3, true, 50, Some(Batch(50))),
            (5, true, 5000, Some(Batch(1000))),
        ] {
            let found = decided(replicas, sync_always, gathered);
            assert_eq!(found, expected, "{replicas} {sync_always} {gathered}");
        }
    }

    #[test]
    fn messages_gather_behind_as_many_as_make_a_batch() {
        let policy = Policy::measured(1, true).unwrap();
        assert_eq!(policy.decide(30, 30), Flight::Singles(20));
        assert_eq!(policy.decide(10, 50), Flight::Singles(0));
        assert_eq!(policy.decide(10, 2000), Flight::Singles(0));
        assert_eq!(policy.decide(50, 50), Flight::Batch(50));
        assert_eq!(Policy::singles_only().decide(5000, 5000), Flight::Singles(5000));
    }

    #[test]
    fn a_server_is_known_to_sync_if_it_was_promised() {
        let of = |durability| Policy::of(&Settings { durability, ..Settings::default() });
        assert_eq!(of(Durability::Process), None);
        assert_eq!(of(Durability::Site), Policy::measured(1, true));
    }

    fn message(stream: Stream, subject: &str) -> Outgoing {
        let (subject, payload) = (subject.into(), Bytes::new());
        Outgoing { stream, subject, id: None, headers: Vec::new(), payload }
    }

    #[test]
    fn a_batch_keeps_to_the_limits_of_bytes() {
        let message = message(Stream::Events, "a");
        let fitting = |sizes: &[usize]| fit(sizes.iter().map(|&size| (&message, size)), 1 << 20);
        assert_eq!(fitting(&[]), 0);
        assert_eq!(fitting(&[BYTES_MAX / 2, BYTES_MAX / 2, 1]), 2);
        assert_eq!(fitting(&[BYTES_MAX + 1, 1]), 0);
        let small = |size| fit([(&message, size)].into_iter(), 1000);
        assert_eq!((small(1000 - HEADROOM), small(1001 - HEADROOM)), (1, 0));
    }

    #[test]
    fn a_batch_holds_one_schedule_for_each_delivery() {
        for (stream, expected) in [(Stream::Retries, 2), (Stream::Deliveries, 4)] {
            let messages = ["a", "b", "a", "c"].map(|subject| message(stream, subject));
            assert_eq!(fit(messages.iter().map(|message| (message, 1)), 1 << 20), expected);
        }
    }
}
