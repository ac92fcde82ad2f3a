//! What tests do to JetStream past the event log: look into streams for which it has no reader,
//! and run out of room.

use anyhow::{Context as _, Result};
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use fanfare_nats_server::ServerOptions;

use crate::{NatsServer, streams};

impl NatsServer {
    /// Starts a server whose store holds that many bytes, all streams together.
    pub async fn start_with_store(bytes_max: u64) -> Result<Self> {
        let store_bytes_max = Some(bytes_max);
        Self::start_with(ServerOptions { store_bytes_max, ..ServerOptions::default() }).await
    }

    /// Returns the payloads of all messages on a subject of a stream, oldest first.
    pub async fn stored(&self, stream: &str, subject: &str) -> Result<Vec<Bytes>> {
        let context = streams::connect(&self.url()).await?;
        let stream = context.get_stream_no_info(stream).await.context("find the stream")?;
        let (mut payloads, mut next) = (Vec::new(), 1);
        loop {
            match stream.get_first_raw_message_by_subject(subject, next).await {
                Ok(message) => {
                    next = message.sequence + 1;
                    payloads.push(message.payload);
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    return Ok(payloads);
                }
                Err(error) => return Err(error).context("read the stream"),
            }
        }
    }
}
