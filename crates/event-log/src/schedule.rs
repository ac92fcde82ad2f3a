//! Alarm clocks: scheduled messages of RETRIES, one per delivery.
//!
//! The servers fire them at least once, mostly within 300 ms, and can forget one for ever when
//! storing the fired message fails once: the fact in the journal is the truth, this is only the
//! alarm clock, and the retry-scheduler sweeps after it.

use std::time::Duration;

use async_nats::{HeaderName, HeaderValue};
use fanfare_domain::{DeliveryId, RetryDue, Shard, Timestamp};
use serde::Deserialize;
use serde_json::json;

use crate::{
    EventLog, Pending, PublishError, Publisher, ReadError,
    feeds::Message,
    log::{Which, tell, timestamp},
    publish::{self, outgoing::Outgoing},
    read::Patience,
    topology::Stream,
};

/// When to fire.
const SCHEDULE: HeaderName = HeaderName::from_static("Nats-Schedule");
/// The subject of what is fired.
const TARGET: HeaderName = HeaderName::from_static("Nats-Schedule-Target");
/// The servers count nanoseconds in 63 bits and fire what lies behind their end (April 2262) at
/// once: no schedule may be later than this, the beginning of 2262.
const LATEST: Timestamp = Timestamp::from_millis(9_214_646_400_000);
/// A schedule's text has milliseconds: it is rounded up, so that none fires early.
const ROUND_UP: Duration = Duration::from_nanos(999_999);

/// Puts, replaces, cancels and looks at scheduled messages. Cheap to clone.
#[derive(Clone)]
pub struct Schedules {
    log: EventLog,
    publisher: Publisher,
}

impl EventLog {
    /// Makes a door to the schedules, with a publisher of its own.
    pub fn schedules(&self) -> Schedules {
        Schedules { log: self.clone(), publisher: self.publisher() }
    }
}

impl Schedules {
    /// Schedules a retry for `retry.due_at`: at that time it enters the shard's due queue.
    /// Replaces what was scheduled for the delivery. A time in the past fires at once.
    ///
    /// One is to be stored before the next for the same delivery is put: the last that the
    /// server takes counts.
    pub async fn put(&self, shard: Shard, retry: &RetryDue) -> Result<Pending, PublishError> {
        // The fact and the time belong to the id: the same attempt may be put off again.
        let RetryDue { delivery, attempt, due_at, journal_sequence, trace: _, batch: _ } = retry;
        let id = format!("{}/{attempt}/{journal_sequence}/{}", delivery.id, due_at.as_nanos());
        self.publish(shard, retry, Some(id)).await
    }

    /// Publishes a stuck schedule again, under no id, so that the server takes it up at once.
    pub async fn rescue(&self, shard: Shard, retry: &RetryDue) -> Result<Pending, PublishError> {
        self.publish(shard, retry, None).await
    }

    /// Cancels what is scheduled for the delivery, if anything is. Servers that start say many things
    /// that are not so a moment later, so a refusal is one only after some time.
    pub async fn cancel(&self, shard: Shard, delivery: DeliveryId) -> Result<(), ReadError> {
        #[derive(Deserialize)]
        struct Purged {
            #[serde(rename = "purged")]
            _purged: u64,
        }
        let stream = self.log.topology().stream(Stream::Retries);
        let filter = json!({ "filter": self.log.topology().retry_at(shard, delivery) });
        let mut patience = Patience::new(&self.log, stream.clone());
        loop {
            let purge = format!("STREAM.PURGE.{stream}");
            match tell::<_, Purged>(&self.log.inner.jetstream, &purge, &filter).await {
                Ok(_) => return Ok(()),
                Err(error) => patience.bear(error.into()).await?,
            }
        }
    }

    /// Returns what is scheduled for the delivery, asking the stream's leader.
    pub async fn get(
        &self,
        shard: Shard,
        delivery: DeliveryId,
    ) -> Result<Option<RetryDue>, ReadError> {
        let subject = self.log.topology().retry_at(shard, delivery);
        let Some(message) = self.log.get(Stream::Retries, Which::Last(&subject)).await? else {
            return Ok(None);
        };
        fanfare_proto::decode_retry_due(message.payload).map(Some).map_err(|source| {
            ReadError::Unreadable {
                stream: self.log.topology().stream(Stream::Retries),
                sequence: message.sequence,
                source,
            }
        })
    }

    /// Returns some of what is scheduled in a shard, in the order in which it was put, from a
    /// sequence on; and where to go on, if there may be more. What cannot be read is left out.
    pub async fn waiting(
        &self,
        shard: Shard,
        from: u64,
        count: usize,
    ) -> Result<(Vec<RetryDue>, Option<u64>), ReadError> {
        let stream = self.log.topology().stream(Stream::Retries);
        let subject = self.log.topology().retries_at(shard);
        let question = json!({ "seq": from.max(1), "next_by_subj": subject, "batch": count });
        let mut patience = Patience::new(&self.log, stream);
        let (messages, more) = loop {
            match self.log.answer(self.log.ask_directly(Stream::Retries, &question)).await {
                Ok(Ok(answer)) => break answer,
                Ok(Err(error)) => patience.bear(error).await?,
                Err(lost) => patience.bear(lost.into()).await?,
            }
        };
        let next = messages.last().filter(|_| more).map(|last| last.sequence + 1);
        let read = |message: Message| fanfare_proto::decode_retry_due(message.payload).ok();
        Ok((messages.into_iter().filter_map(read).collect(), next))
    }

    /// When the oldest unsettled message of the shard's due queue was stored; `None` if the queue is empty.
    pub async fn oldest_due(&self, shard: Shard) -> Result<Option<Timestamp>, ReadError> {
        let subject = self.log.topology().retry_due(shard);
        let first = self.log.get(Stream::Retries, Which::First(&subject)).await?;
        Ok(first.map(|message| timestamp(message.time)))
    }

    async fn publish(
        &self,
        shard: Shard,
        retry: &RetryDue,
        id: Option<String>,
    ) -> Result<Pending, PublishError> {
        let topology = self.log.topology();
        let due = topology.retry_due(shard);
        self.publisher
            .publish(Outgoing {
                stream: Stream::Retries,
                subject: topology.retry_at(shard, retry.delivery.id).into(),
                id,
                headers: vec![
                    (SCHEDULE, HeaderValue::from(schedule(retry.due_at))),
                    (TARGET, HeaderValue::from(due)),
                    publish::journal_sequence(retry.journal_sequence),
                ],
                payload: fanfare_proto::encode_retry_due(retry),
            })
            .await
    }
}

/// Writes a time as the servers expect it: never before it, and never one that they overflow at.
fn schedule(due: Timestamp) -> String {
    format!("@at {}", due.saturating_add(ROUND_UP).min(LATEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_never_early() {
        let exact = Timestamp::from_millis(1_700_000_000_120);
        assert_eq!(schedule(exact), "@at 2023-11-14T22:13:20.120Z");
        let later = Timestamp::from_nanos(exact.as_nanos() + 1);
        assert_eq!(schedule(later), "@at 2023-11-14T22:13:20.121Z");
    }

    #[test]
    fn a_far_time_is_not_one_that_fires_at_once() {
        let far = Timestamp::from_nanos(u64::MAX);
        assert_eq!(schedule(far), "@at 2262-01-01T00:00:00.000Z");
    }
}
