//! Everything that a server has stored, byte for byte: for those who search it.

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, message::StreamMessage, stream::RawMessageErrorKind};
use bytes::Bytes;
use fanfare_domain::Timestamp;
use futures_util::TryStreamExt as _;

use crate::NatsServer;

/// A message as it is stored.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// The stream, those of buckets included.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The subject.
    pub subject: String,
    /// The headers, values of one name apart.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub payload: Bytes,
}

impl StoredMessage {
    fn of(stream: &str, message: &StreamMessage) -> Self {
        let headers = message.headers.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| (name.to_string(), String::from(value.as_str())))
        });
        Self {
            stream: String::from(stream),
            sequence: message.sequence,
            stored_at: Timestamp::from_nanos(
                u64::try_from(message.time.unix_timestamp_nanos()).unwrap_or_default(),
            ),
            subject: message.subject.to_string(),
            headers: headers.collect(),
            payload: message.payload.clone(),
        }
    }

    /// Returns every part of the message that holds bytes of somebody's.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let headers = self.headers.iter().flat_map(|(name, value)| [name, value]);
        headers.chain([&self.subject]).map(String::as_bytes).chain([self.payload.as_ref()])
    }
}

impl NatsServer {
    /// Puts a message into the stream of a subject, as a stranger would; returns its sequence.
    pub async fn put(&self, subject: &str, payload: &'static [u8]) -> Result<u64> {
        let context = connect(&self.url()).await?;
        let sent = context.publish(String::from(subject), Bytes::from_static(payload)).await;
        let stored = sent.context("send a message")?.await.context("store a message")?;
        Ok(stored.sequence)
    }

    /// Returns every message of every stream, buckets included.
    pub async fn everything(&self) -> Result<Vec<StoredMessage>> {
        let context = connect(&self.url()).await?;
        let names: Vec<String> =
            context.stream_names().try_collect().await.context("list the streams")?;
        let mut found = Vec::new();
        for name in names {
            let stream = context.get_stream_no_info(&name).await.context("find a stream")?;
            let mut next = 1;
            loop {
                match stream.get_first_raw_message_by_subject(">", next).await {
                    Ok(message) => {
                        next = message.sequence + 1;
                        found.push(StoredMessage::of(&name, &message));
                    }
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => break,
                    Err(error) => return Err(error).context("read a stream"),
                }
            }
        }
        Ok(found)
    }

    /// Returns how many messages a stream holds.
    pub async fn messages(&self, stream: &str) -> Result<u64> {
        messages(&self.url(), stream).await
    }

    /// Bounds the bytes of a stream; -1 for no bound.
    pub async fn set_bytes_max(&self, stream: &str, bytes: i64) -> Result<()> {
        let context = connect(&self.url()).await?;
        let found = context.get_stream(stream).await.context("find the stream")?;
        let mut config = found.cached_info().config.clone();
        config.max_bytes = bytes;
        context.update_stream(config).await.context("change the stream")?;
        Ok(())
    }

    /// Deletes a stream.
    pub async fn delete_stream(&self, stream: &str) -> Result<()> {
        let context = connect(&self.url()).await?;
        context.delete_stream(stream).await.context("delete the stream")?;
        Ok(())
    }

    /// Returns the last sequence of a stream.
    pub async fn last_sequence(&self, stream: &str) -> Result<u64> {
        last_sequence(&self.url(), stream).await
    }
}

/// Returns how many messages a stream holds at servers whose URLs have commas between them.
async fn messages(urls: &str, stream: &str) -> Result<u64> {
    let stream = connect(urls).await?.get_stream(stream).await.context("find the stream")?;
    Ok(stream.cached_info().state.messages)
}

/// Returns the last sequence of a stream at servers whose URLs have commas between them.
pub(crate) async fn last_sequence(urls: &str, stream: &str) -> Result<u64> {
    let stream = connect(urls).await?.get_stream(stream).await.context("find the stream")?;
    Ok(stream.cached_info().state.last_sequence)
}

/// Connects to one of the servers whose URLs have commas between them.
pub(crate) async fn connect(urls: &str) -> Result<jetstream::Context> {
    let servers: Vec<&str> = urls.split(',').collect();
    let client = async_nats::connect(servers).await.context("connect to nats-server")?;
    Ok(jetstream::new(client))
}
