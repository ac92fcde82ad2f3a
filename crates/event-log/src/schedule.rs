//! Alarm clocks: scheduled messages of RETRIES, one per delivery.

use fanfare_domain::{DeliveryId, RetryDue, Shard, Timestamp};

use crate::{EventLog, Pending, PublishError, ReadError};

/// Puts, replaces, cancels and looks at scheduled messages.
#[derive(Clone)]
pub struct Schedules {/* log, publisher */}

impl EventLog {
    /// Makes a door to the schedules, with a publisher of its own.
    pub fn schedules(&self) -> Schedules {
        todo!()
    }
}

impl Schedules {
    /// Schedules a retry for `retry.due_at`: at that time it enters the shard's due queue.
    /// Replaces what was scheduled for the delivery. A time in the past fires at once.
    pub async fn put(&self, shard: Shard, retry: &RetryDue) -> Result<Pending, PublishError> {
        let _ = (shard, retry);
        todo!()
    }

    /// Publishes a stuck schedule again, under no id, so that the server takes it up at once.
    pub async fn rescue(&self, shard: Shard, retry: &RetryDue) -> Result<Pending, PublishError> {
        let _ = (shard, retry);
        todo!()
    }

    /// Cancels what is scheduled for the delivery, if anything is.
    pub async fn cancel(&self, shard: Shard, delivery: DeliveryId) -> Result<(), ReadError> {
        let _ = (shard, delivery);
        todo!()
    }

    /// Returns what is scheduled for the delivery, asking the stream's leader.
    pub async fn get(&self, shard: Shard, delivery: DeliveryId) -> Result<Option<RetryDue>, ReadError> {
        let _ = (shard, delivery);
        todo!()
    }

    /// When the oldest unsettled message of the shard's due queue was stored; `None` if the queue is empty.
    pub async fn oldest_due(&self, shard: Shard) -> Result<Option<Timestamp>, ReadError> {
        let _ = shard;
        todo!()
    }
}
