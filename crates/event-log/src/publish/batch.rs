//! Several messages as one atomic batch (ADR-50).
//!
//! The messages carry the batch's id and their number in it; the last one commits and is the only
//! one that is answered: the server refuses it if anything was wrong with an earlier one.

use std::sync::Arc;

use async_nats::{
    HeaderValue,
    header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE},
};

use crate::{
    EventLog, PublishError,
    publish::{Held, acks::Ticket},
};

/// What the names of the headers begin with that make a message part of a batch.
const HEADERS: &str = "Nats-Batch-";

/// Whether a header of this name makes a message part of a batch.
pub(crate) fn is_batch_header(name: &str) -> bool {
    name.get(..HEADERS.len()).is_some_and(|head| head.eq_ignore_ascii_case(HEADERS))
}

impl EventLog {
    /// Hands a batch to the connection: at least one message, all of one stream, within the
    /// limits that [`super::policy`] sets. `id` is used once, and has 64 bytes at most.
    ///
    /// Dropped half-way, it leaves a batch that the server forgets: nothing is stored of it.
    pub(crate) async fn send_batch<'a>(
        &self,
        id: &str,
        messages: impl ExactSizeIterator<Item = &'a Arc<Held>> + Send,
    ) -> Result<Ticket, PublishError> {
        debug_assert!(id.len() <= 64, "the server takes no longer ids");
        let client = &self.inner.client;
        let (ticket, reply) = self.inner.acks.ticket();
        let count = messages.len();
        for (held, number) in messages.zip(1_u64..) {
            let message = &held.message;
            let (subject, payload) = (message.subject.clone(), message.payload.clone());
            let mut headers = message.header_map();
            headers.insert(NATS_BATCH_ID, id);
            headers.insert(NATS_BATCH_SEQUENCE, HeaderValue::from(number));
            let sent = if usize::try_from(number) == Ok(count) {
                headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
                let reply = reply.clone();
                client.publish_with_reply_and_headers(subject, reply, headers, payload).await
            } else {
                client.publish_with_headers(subject, headers, payload).await
            };
            sent.map_err(|error| self.unsent(message, error))?;
        }
        Ok(ticket)
    }
}
