//! Which messages are settled when: each once every delivery of it has its fact on record.

use std::collections::HashMap;

use fanfare_event_log::Settler;

use crate::memory::Source;

/// Names a message that is not settled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageKey(u64);

/// Messages that were taken and are not settled.
pub(crate) struct Messages<S = Settler> {
    next: u64,
    open: HashMap<MessageKey, Open<S>>,
    tasks: usize,
    due: usize,
}

struct Open<S> {
    settler: S,
    deliveries: usize,
    source: Source,
}

impl<S> Messages<S> {
    /// Knows no message.
    pub(crate) fn new() -> Self {
        Self { next: 0, open: HashMap::new(), tasks: 0, due: 0 }
    }

    /// How many messages of a queue are not settled.
    pub(crate) fn count(&self, source: Source) -> usize {
        match source {
            Source::Task => self.tasks,
            Source::Due => self.due,
        }
    }

    /// Keeps a message until `deliveries` of it are on record. With none it is returned at once.
    pub(crate) fn open(
        &mut self,
        source: Source,
        settler: S,
        deliveries: usize,
    ) -> Result<MessageKey, S> {
        if deliveries == 0 {
            return Err(settler);
        }
        let key = MessageKey(self.next);
        self.next += 1;
        self.open.insert(key, Open { settler, deliveries, source });
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
        let open = self.open.remove(&key)?;
        *self.counter(open.source) -= 1;
        Some(open.settler)
    }

    /// Takes every message that is not settled.
    pub(crate) fn abandon(&mut self) -> Vec<S> {
        (self.tasks, self.due) = (0, 0);
        std::mem::take(&mut self.open).into_values().map(|open| open.settler).collect()
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
        let first = messages.open(Source::Task, "first", 2).unwrap();
        let second = messages.open(Source::Due, "second", 1).unwrap();
        assert_eq!(messages.open(Source::Due, "third", 0), Err("third"));
        assert_eq!((messages.count(Source::Task), messages.count(Source::Due)), (1, 1));
        assert_eq!(messages.on_record(first), None);
        assert_eq!(messages.on_record(second), Some("second"));
        assert_eq!(messages.on_record(first), Some("first"));
        assert_eq!(messages.on_record(first), None);
        assert_eq!((messages.count(Source::Task), messages.count(Source::Due)), (0, 0));
        assert!(messages.abandon().is_empty());
    }
}
