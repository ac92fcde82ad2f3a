//! Tasks that travel together: those of a batch of events for one shard, in as few messages as the
//! limits allow. Pure.
//!
//! Nothing waits for others to come: a batch is what was there, so an event by itself is a message
//! by itself, and under load the broker's work for a task becomes a small part of a message.

use std::collections::BTreeMap;

use fanfare_domain::{Shard, Task};
use fanfare_event_log::task_length;

/// One message of DELIVERIES.
#[derive(Debug)]
pub(crate) struct Message {
    /// Whose queue it is for.
    pub(crate) shard: Shard,
    /// Its tasks, in the order in which they were added.
    pub(crate) tasks: Vec<Task>,
    /// What each of them was added under.
    pub(crate) events: Vec<usize>,
}

/// Messages that still have room, one for each shard.
#[derive(Debug, Default)]
pub(crate) struct Together {
    open: BTreeMap<Shard, Filling>,
}

#[derive(Debug)]
struct Filling {
    message: Message,
    targets: usize,
    bytes: usize,
}

impl Together {
    /// Adds a task under its event's index; returns the message before it if that is full.
    pub(crate) fn add(&mut self, shard: Shard, event: usize, task: Task) -> Option<Message> {
        let (targets, bytes) = (task.targets.len(), task_length(&task));
        let one = |task| Filling {
            message: Message { shard, tasks: vec![task], events: vec![event] },
            targets,
            bytes,
        };
        let Some(filling) = self.open.get_mut(&shard) else {
            self.open.insert(shard, one(task));
            return None;
        };
        if filling.targets + targets > Task::TOGETHER_TARGETS_MAX
            || filling.bytes + bytes > Task::TOGETHER_BYTES_MAX
        {
            return Some(std::mem::replace(filling, one(task)).message);
        }
        filling.targets += targets;
        filling.bytes += bytes;
        filling.message.tasks.push(task);
        filling.message.events.push(event);
        None
    }

    /// Returns what is left.
    pub(crate) fn rest(self) -> impl Iterator<Item = Message> {
        self.open.into_values().map(|filling| filling.message)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanfare_domain::{
        DeliveryId, EndpointId, Event, EventId, StoredEvent, Target, Timestamp, TraceContext,
    };
    use proptest::prelude::*;

    use super::*;

    fn task(number: u16, targets: usize, bytes: usize) -> Task {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let event = Event {
            id: EventId::from_bytes(id),
            tenant: "acme".parse().unwrap(),
            event_type: "a.b".parse().unwrap(),
            occurred_at: Timestamp::EPOCH,
            accepted_at: None,
            config_revision: None,
            data: "1".into(),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        let target = Target {
            delivery: DeliveryId::from_bytes([1; 16]),
            endpoint: EndpointId::from_bytes([1; 16]),
            not_before: None,
        };
        Task {
            event: StoredEvent {
                event: Arc::new(event),
                sequence: u64::from(number),
                accepted_at: Timestamp::EPOCH,
                envelope: vec![0; bytes].into(),
            },
            targets: vec![target; targets],
            generation: 0,
            journal_sequence: 1,
        }
    }

    proptest! {
        #[test]
        fn every_task_is_in_one_message_of_its_shard_in_order_and_within_the_limits(
            tasks in prop::collection::vec((0_u16..3, 1..=Task::TARGETS_MAX, 0_usize..400_000), 0..60)
        ) {
            let mut together = Together::default();
            let mut messages = Vec::new();
            for (number, (shard, targets, bytes)) in (0_u16..).zip(&tasks) {
                let task = task(number, *targets, *bytes);
                messages.extend(together.add(Shard::from_index(*shard), number.into(), task));
            }
            messages.extend(together.rest());
            let mut seen: BTreeMap<Shard, Vec<usize>> = BTreeMap::new();
            for message in &messages {
                let sequences = message.tasks.iter().map(|task| task.event.sequence);
                let added = message.events.iter().map(|number| *number as u64);
                prop_assert!(sequences.eq(added));
                seen.entry(message.shard).or_default().extend(&message.events);
                let targets: usize = message.tasks.iter().map(|task| task.targets.len()).sum();
                let bytes: usize = message.tasks.iter().map(task_length).sum();
                prop_assert!(targets <= Task::TOGETHER_TARGETS_MAX);
                prop_assert!(bytes <= Task::TOGETHER_BYTES_MAX || message.tasks.len() == 1);
            }
            for shard in 0..3 {
                let of_shard = (0..).zip(&tasks).filter(|(_, (of, ..))| *of == shard);
                let expected: Vec<usize> = of_shard.map(|(number, _)| number).collect();
                prop_assert_eq!(seen.remove(&Shard::from_index(shard)).unwrap_or_default(), expected);
            }
        }

        #[test]
        fn no_message_is_written_that_the_next_task_had_room_in(
            tasks in prop::collection::vec(1..=Task::TARGETS_MAX, 1..60)
        ) {
            let (mut together, mut full) = (Together::default(), Vec::new());
            for (number, targets) in (0_u16..).zip(&tasks) {
                full.extend(together.add(Shard::from_index(0), number.into(), task(number, *targets, 10)));
            }
            for message in &full {
                let targets: usize = message.tasks.iter().map(|task| task.targets.len()).sum();
                prop_assert!(targets > Task::TOGETHER_TARGETS_MAX - Task::TARGETS_MAX);
            }
        }
    }
}
