//! Settling one record.

use std::{sync::Arc, time::Duration};

use async_nats::{Subject, jetstream::Message};
use bytes::Bytes;
use tracing::debug;

use crate::{EventLog, log::Inner};

/// Settles one record. Forgetting it is harmless: the log hands the record out again.
#[derive(Clone)]
pub struct Settler {
    log: Arc<Inner>,
    reply: Subject,
}

impl Settler {
    /// `None` for a message that cannot be settled.
    pub(crate) fn of(log: &EventLog, message: &Message) -> Option<Self> {
        Some(Self { log: Arc::clone(&log.inner), reply: message.reply.clone()? })
    }

    /// Tells the log that the record's consequences are recorded. Queued, not waited for.
    pub async fn settle(self) {
        self.say(Bytes::from_static(b"+ACK")).await;
    }

    /// Asks for the record to be handed out again at once, or after a while.
    pub async fn redeliver(self, after: Duration) {
        let text = match after.as_nanos() {
            0 => Bytes::from_static(b"-NAK"),
            nanos => Bytes::from(format!("-NAK {{\"delay\":{nanos}}}")),
        };
        self.say(text).await;
    }

    /// Says that the record is still being worked on: it is not handed out again before the
    /// settings' `ack_wait` is over from now on. Queued, not waited for.
    pub async fn hold(&self) {
        self.clone().say(Bytes::from_static(b"+WPI")).await;
    }

    async fn say(self, text: Bytes) {
        if let Err(error) = self.log.client.publish(self.reply, text).await {
            debug!(%error, "a record was not settled: it will be handed out again");
        }
    }
}
