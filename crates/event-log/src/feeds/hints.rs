//! Hints to the owner of a shard that there is something to read for some of its feeds.
//!
//! Plain messages, and nothing depends on them: an owner looks by itself now and then.

use async_nats::Subscriber;
use fanfare_domain::{EndpointId, Shard};
use futures_util::StreamExt as _;
use tracing::debug;

use crate::{EventLog, ReadError, cas};

/// The most endpoints of one hint.
const TOGETHER_MAX: usize = 4_096;

/// The hints to the owner of a shard.
pub struct FeedHints {
    messages: Subscriber,
}

impl EventLog {
    /// Takes hints about a shard's feeds. What is sent after this returns comes.
    pub async fn feed_hints(&self, shard: Shard) -> Result<FeedHints, ReadError> {
        let subject = self.topology().owner_fed(shard);
        let refused = |source: async_nats::Error| cas::refused(&subject, source);
        let client = &self.inner.client;
        let messages = client.subscribe(subject.clone()).await.map_err(|e| refused(e.into()))?;
        client.flush().await.map_err(|error| refused(error.into()))?;
        Ok(FeedHints { messages })
    }

    /// Says which endpoints of a shard have an event that is left to their feed, each with the
    /// sequence of the last one. Queued, not waited for.
    pub async fn hint_feeds(&self, shard: Shard, fed: &[(EndpointId, u64)]) {
        for fed in fed.chunks(TOGETHER_MAX) {
            let subject = self.topology().owner_fed(shard);
            let payload = fanfare_proto::encode_feed_hint(fed);
            if let Err(error) = self.inner.client.publish(subject, payload).await {
                debug!(%error, "the owner of a feed was not told that it has something to read");
            }
        }
    }
}

impl FeedHints {
    /// Waits for a hint; `None` once the log is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<(EndpointId, u64)>> {
        loop {
            let message = self.messages.next().await?;
            match fanfare_proto::decode_feed_hint(message.payload) {
                Ok(fed) => return Some(fed),
                Err(error) => debug!(%error, "a hint cannot be read"),
            }
        }
    }
}
