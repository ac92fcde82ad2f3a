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
//! So there is a policy for each case:
//!
//! - One server that syncs only now and then: never a batch.
//! - One server that syncs each write: batches of 50 and more. Singles gain nothing from being
//!   many, each is a sync of its own; behind 50 of them the next ones gather.
//! - Several servers: batches of 500 and more. In between, singles are as fast or faster: up to
//!   500 of them are in flight, and the servers themselves write those that come together as one
//!   entry of their log, with one sync. (The design's first figure, 10 to 100, came of comparing
//!   batches with few singles in flight: batches of 10 are a fifth slower than 1000 singles in
//!   flight. On 2.14, which syncs more often, large batches are twice as fast as singles.)
//!
//! What cannot become a larger batch by waiting does not wait: neither messages so large that few
//! make a full batch, nor a second schedule for the same delivery.
//!
//! A stored message keeps the headers that made it part of a batch, 53 to 61 bytes (85 for the
//! last one of a batch): that is what a batch costs on disk, and each of its readers.

use std::collections::BTreeSet;

use crate::{Settings, publish::outgoing::Outgoing, topology::Stream};

/// The largest batch, in messages: more is refused.
const MAX: usize = 1000;
/// The largest batch, in bytes of messages.
const BYTES_MAX: usize = 768 * 1024;
/// What being in a batch adds to a message, in bytes, at most.
pub(crate) const HEADROOM: usize = 192;

/// From which size on batches pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// So many messages make a batch; and so many may be in flight by themselves before the next
    /// ones gather for one.
    min: usize,
    /// So many make a batch where waiting for more is in vain: it costs no more than they would
    /// each by itself. (On one server that syncs, 10 are enough if a sync takes 2 ms, and 12 to
    /// 24 if it takes 0.2 ms, whatever their size.)
    floor: usize,
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
    const SYNCING: Self = Self { min: 50, floor: 16 };
    const REPLICATED: Self = Self { min: 500, floor: 500 };
    /// The policy of a stream that takes no batches.
    pub(crate) const SINGLES_ONLY: Self = Self { min: usize::MAX, floor: usize::MAX };

    /// The policy for these settings; `None` where batches never pay.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        Self::measured(settings.replicas, settings.durability.syncs_always())
    }

    const fn measured(replicas: usize, sync_always: bool) -> Option<Self> {
        match (replicas, sync_always) {
            (0 | 1, false) => None,
            (0 | 1, true) => Some(Self::SYNCING),
            (_, _) => Some(Self::REPLICATED),
        }
    }

    /// Decides about messages that gathered, each with its size in bytes, while `under_way`
    /// others, each sent by itself, are not known to be stored. Not asked while a batch is: there
    /// is one at a time. `message_max` is the most bytes that the servers take in one message.
    ///
    /// Few messages are sent at once. As soon as so many are under way that a batch would have
    /// paid, the next ones wait until there are enough for one, or until there are fewer again;
    /// but not if they would wait in vain.
    pub(crate) fn decide<'a>(
        self,
        gathered: impl ExactSizeIterator<Item = (&'a Outgoing, usize)>,
        under_way: usize,
        message_max: usize,
    ) -> Flight {
        let waiting = gathered.len();
        let room = Flight::Singles(waiting.min(self.min.saturating_sub(under_way)));
        if waiting < self.floor {
            return room;
        }
        let fitting = fit(gathered, message_max);
        if fitting >= self.min {
            return Flight::Batch(fitting);
        }
        if fitting == waiting {
            return room;
        }
        if fitting >= self.floor { Flight::Batch(fitting) } else { Flight::Singles(fitting.max(1)) }
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

/// How many of the first messages fit into one batch.
fn fit<'a>(messages: impl Iterator<Item = (&'a Outgoing, usize)>, message_max: usize) -> usize {
    let (mut bytes, mut subjects) = (0_usize, BTreeSet::new());
    messages
        .take(MAX)
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

    /// The most bytes that the servers of these tests take in one message.
    const MESSAGE_MAX: usize = 1 << 20;

    fn message(stream: Stream, subject: &str) -> Outgoing {
        let (subject, payload) = (subject.into(), Bytes::new());
        Outgoing { stream, subject, id: None, headers: Vec::new(), payload }
    }

    /// What is decided about events of these sizes.
    fn decided(policy: Policy, sizes: &[usize], under_way: usize) -> Flight {
        let message = message(Stream::Events, "a");
        policy.decide(sizes.iter().map(|&size| (&message, size)), under_way, MESSAGE_MAX)
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
            (3, false, 100, Some(Singles(100))),
            (3, false, 499, Some(Singles(499))),
            (3, false, 500, Some(Batch(500))),
            (3, true, 499, Some(Singles(499))),
            (3, true, 500, Some(Batch(500))),
            (5, true, 5000, Some(Batch(1000))),
        ] {
            let found = Policy::measured(replicas, sync_always)
                .map(|policy| decided(policy, &vec![600; gathered], 0));
            assert_eq!(found, expected, "{replicas} {sync_always} {gathered}");
        }
    }

    #[test]
    fn messages_gather_behind_as_many_as_make_a_batch() {
        let decided =
            |policy, gathered, under_way| decided(policy, &vec![600; gathered], under_way);
        for (policy, min) in [(Policy::SYNCING, 50), (Policy::REPLICATED, 500)] {
            assert_eq!(decided(policy, min - 20, min - 20), Flight::Singles(20));
            assert_eq!(decided(policy, min - 1, min), Flight::Singles(0));
            assert_eq!(decided(policy, 5, 2000), Flight::Singles(0));
            assert_eq!(decided(policy, min, min), Flight::Batch(min));
        }
        assert_eq!(decided(Policy::SINGLES_ONLY, 5000, 5000), Flight::Singles(5000));
    }

    /// How messages of these sizes go while nothing is acknowledged but batches.
    fn flights(policy: Policy, mut sizes: &[usize]) -> Vec<Flight> {
        let (mut flights, mut under_way) = (Vec::new(), 0);
        while !sizes.is_empty() {
            let flight = decided(policy, sizes, under_way);
            flights.push(flight);
            let gone = match flight {
                Flight::Singles(0) => break,
                Flight::Singles(count) => {
                    under_way += count;
                    count
                }
                Flight::Batch(count) => count,
            };
            sizes = &sizes[gone..];
        }
        flights
    }

    #[test]
    fn large_messages_do_not_wait_for_a_batch_that_cannot_come_about() {
        use Flight::{Batch, Singles};

        let large = |size| vec![BYTES_MAX / size; 100];
        // 48, 16 and 15 of them fill a batch.
        assert_eq!(flights(Policy::SYNCING, &large(48)), [Batch(48), Batch(48), Singles(4)]);
        let batches = flights(Policy::SYNCING, &large(16));
        assert_eq!(batches, [&[Batch(16); 6][..], &[Singles(4)]].concat());
        // Single messages go though more are under way than make a batch, up to the few last.
        let singles = flights(Policy::SYNCING, &large(15));
        assert_eq!(singles, [&[Singles(15); 6][..], &[Singles(0)]].concat());
        let singles = flights(Policy::REPLICATED, &vec![BYTES_MAX / 400; 1200]);
        assert_eq!(singles, [Singles(400), Singles(400), Singles(0)]);
    }

    #[test]
    fn what_fits_into_no_batch_holds_up_nothing() {
        use Flight::{Batch, Singles};

        let mut sizes = vec![600; 60];
        sizes[20] = BYTES_MAX + 1;
        assert_eq!(flights(Policy::SYNCING, &sizes), [Batch(20), Singles(1), Singles(39)]);
        sizes[2] = MESSAGE_MAX;
        let expected = [Singles(2), Singles(1), Batch(17), Singles(1), Singles(39)];
        assert_eq!(flights(Policy::SYNCING, &sizes), expected);
    }

    #[test]
    fn a_server_is_known_to_sync_if_it_was_promised() {
        let of = |durability| Policy::of(&Settings { durability, ..Settings::default() });
        assert_eq!(of(Durability::Process), None);
        assert_eq!(of(Durability::Site), Some(Policy::SYNCING));
    }

    #[test]
    fn a_batch_keeps_to_the_limits_of_bytes() {
        let message = message(Stream::Events, "a");
        let fitting =
            |sizes: &[usize]| fit(sizes.iter().map(|&size| (&message, size)), MESSAGE_MAX);
        assert_eq!(fitting(&[]), 0);
        assert_eq!(fitting(&[BYTES_MAX / 2, BYTES_MAX / 2, 1]), 2);
        assert_eq!(fitting(&[BYTES_MAX + 1, 1]), 0);
        let small = |size| fit([(&message, size)].into_iter(), 1000);
        assert_eq!((small(1000 - HEADROOM), small(1001 - HEADROOM)), (1, 0));
    }

    #[test]
    fn a_batch_holds_one_schedule_for_each_delivery_and_the_next_do_not_wait() {
        let numbered = |stream, count: usize| -> Vec<Outgoing> {
            let subjects = (0..2 * count).map(|number| (number % count).to_string());
            subjects.map(|subject| message(stream, &subject)).collect()
        };
        for (stream, count, expected) in [
            (Stream::Retries, 30, Flight::Batch(30)),
            (Stream::Retries, 9, Flight::Singles(9)),
            (Stream::Deliveries, 30, Flight::Batch(60)),
        ] {
            let messages = numbered(stream, count);
            let gathered = messages.iter().map(|message| (message, 1));
            assert_eq!(Policy::SYNCING.decide(gathered, 50, MESSAGE_MAX), expected);
        }
    }
}
