//! Which messages are settled when: each once every delivery of it has its fact on record.
//!
//! A delivery can be in two messages: fan-out writes its tasks again after a crash, in another
//! company. Then the first one to be taken makes the attempt, and the other waits for its fact.

use fanfare_domain::DeliveryId;
use fanfare_event_log::Settler;
use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

use crate::memory::Source;

/// Names a message that is not settled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageKey(u64);

/// Messages that were taken and are not settled.
pub(crate) struct Messages<S = Settler> {
    next: u64,
    open: HashMap<MessageKey, Open<S>>,
    /// Their places in their queues.
    sequences: HashSet<(Source, u64)>,
    /// Messages that wait for a delivery that another one brought.
    waiting: HashMap<DeliveryId, Vec<MessageKey>>,
    tasks: usize,
    due: usize,
}

struct Open<S> {
    settler: S,
    deliveries: usize,
    source: Source,
    sequence: u64,
}

impl<S> Messages<S> {
    /// Knows no message.
    pub(crate) fn new() -> Self {
        Self {
            next: 0,
            open: HashMap::new(),
            sequences: HashSet::new(),
            waiting: HashMap::new(),
            tasks: 0,
            due: 0,
        }
    }

    /// How many messages of a queue are not settled.
    pub(crate) fn count(&self, source: Source) -> usize {
        match source {
            Source::Task => self.tasks,
            Source::Due => self.due,
        }
    }

    /// Tells whether the message at this place of its queue is being kept: it was handed out again.
    pub(crate) fn has(&self, place: (Source, u64)) -> bool {
        self.sequences.contains(&place)
    }

    /// Keeps a message until `deliveries` of it are on record. With none it is returned at once.
    pub(crate) fn open(
        &mut self,
        (source, sequence): (Source, u64),
        settler: S,
        deliveries: usize,
    ) -> Result<MessageKey, S> {
        if deliveries == 0 {
            return Err(settler);
        }
        let key = MessageKey(self.next);
        self.next += 1;
        self.open.insert(key, Open { settler, deliveries, source, sequence });
        self.sequences.insert((source, sequence));
        *self.counter(source) += 1;
        Ok(key)
    }

    /// Notes that one delivery of the message is on record; returns what settles the message if
    /// it was the last.
    pub(crate) fn on_record(&mut self, key: MessageKey) -> Option<S> {
        let open = self.open.get_mut(&key)?;
        open.deliveries -= 1;
        if open.deliveries > 0 {
            return None;
        }
        self.close(key)
    }

    /// Lets one of the message's deliveries be on record when it is by another message.
    pub(crate) fn wait_for(&mut self, delivery: DeliveryId, key: MessageKey) {
        self.waiting.entry(delivery).or_default().push(key);
    }

    /// Notes that a delivery is on record; returns what settles the messages that waited only for
    /// it, and had not brought it.
    pub(crate) fn waited_for(&mut self, delivery: DeliveryId) -> Vec<S> {
        let waiting = self.waiting.remove(&delivery).unwrap_or_default();
        waiting.into_iter().filter_map(|key| self.on_record(key)).collect()
    }

    /// Gives up waiting for a delivery of another one; returns what settles the messages that had
    /// not brought it. They are to come again.
    pub(crate) fn forsake(&mut self, delivery: DeliveryId) -> Vec<S> {
        let waiting = self.waiting.remove(&delivery).unwrap_or_default();
        waiting.into_iter().filter_map(|key| self.close(key)).collect()
    }

    /// Gives a message back; returns what does so, unless it is settled already.
    pub(crate) fn give_back(&mut self, key: MessageKey) -> Option<S> {
        self.close(key)
    }

    /// Takes every message that is not settled.
    pub(crate) fn abandon(&mut self) -> Vec<S> {
        (self.tasks, self.due) = (0, 0);
        self.sequences.clear();
        self.waiting.clear();
        std::mem::take(&mut self.open).into_values().map(|open| open.settler).collect()
    }

    fn close(&mut self, key: MessageKey) -> Option<S> {
        let open = self.open.remove(&key)?;
        self.sequences.remove(&(open.source, open.sequence));
        *self.counter(open.source) -= 1;
        Some(open.settler)
    }

    fn counter(&mut self, source: Source) -> &mut usize {
        match source {
            Source::Task => &mut self.tasks,
            Source::Due => &mut self.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_settled_after_its_last_delivery() {
        let mut messages = Messages::new();
        let first = messages.open((Source::Task, 1), "first", 2).unwrap();
        let second = messages.open((Source::Due, 1), "second", 1).unwrap();
        assert_eq!(messages.open((Source::Due, 2), "third", 0), Err("third"));
        assert_eq!((messages.count(Source::Task), messages.count(Source::Due)), (1, 1));
        assert_eq!(messages.on_record(first), None);
        assert_eq!(messages.on_record(second), Some("second"));
        assert_eq!(messages.on_record(first), Some("first"));
        assert_eq!(messages.on_record(first), None);
        assert_eq!((messages.count(Source::Task), messages.count(Source::Due)), (0, 0));
        assert!(messages.abandon().is_empty());
    }

    #[test]
    fn a_message_waits_for_what_another_one_brought() {
        let mut messages = Messages::new();
        let [ours, theirs] = [1, 2].map(|n| DeliveryId::from_bytes([n; 16]));
        let first = messages.open((Source::Task, 7), "first", 1).unwrap();
        let second = messages.open((Source::Task, 8), "second", 2).unwrap();
        messages.wait_for(theirs, second);
        assert!(messages.has((Source::Task, 7)) && !messages.has((Source::Due, 7)));
        assert_eq!(messages.on_record(first), Some("first"));
        assert!(!messages.has((Source::Task, 7)));
        assert!(messages.waited_for(ours).is_empty());
        assert_eq!(messages.on_record(second), None);
        assert_eq!(messages.waited_for(theirs), ["second"]);
        assert!(messages.waited_for(theirs).is_empty());
    }

    #[test]
    fn a_message_is_given_up_with_what_it_waited_for() {
        let mut messages = Messages::new();
        let theirs = DeliveryId::from_bytes([2; 16]);
        let key = messages.open((Source::Task, 8), "first", 2).unwrap();
        messages.wait_for(theirs, key);
        assert_eq!(messages.forsake(theirs), ["first"]);
        assert!(!messages.has((Source::Task, 8)) && messages.count(Source::Task) == 0);
        assert_eq!(messages.on_record(key), None);
        assert!(messages.forsake(theirs).is_empty());
    }
}
