//! Reading one object, and telling a damaged one from servers that are away.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use bytes::{Bytes, BytesMut};
use data_encoding::BASE64URL;
use futures_util::StreamExt as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::EventLog;

/// How long a piece may take to come.
const PIECE: Duration = Duration::from_secs(5);
/// The most memory that is taken on the word of an object's entry.
const TRUSTED_BYTES: usize = 64 * 1024 * 1024;

/// What is in the bucket under a name.
pub(super) enum Fetched {
    /// Nothing.
    Nothing,
    /// An object, and its hash fits.
    Whole(Bytes),
    /// An object of which something is missing or changed.
    Damaged,
}

/// An object's entry, as the object-store protocol has it.
#[derive(Deserialize)]
pub(super) struct Entry {
    /// What the subject of its chunks ends with.
    pub(super) nuid: String,
    #[serde(default)]
    size: usize,
    #[serde(default)]
    chunks: usize,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    deleted: bool,
}

impl EventLog {
    /// Reads an object, with the entry that the stream's leader has.
    pub(super) async fn fetch(
        &self,
        bucket: &str,
        object: &str,
    ) -> Result<Fetched, async_nats::Error> {
        self.remove_abandoned(bucket).await?;
        let name = BASE64URL.encode(object.as_bytes());
        let cell = self.cell(format!("OBJ_{bucket}"), format!("$O.{bucket}.M.{name}"));
        let Some(entry) = cell.get().await?.and_then(|held| held.value) else {
            return Ok(Fetched::Nothing);
        };
        let Ok(entry) = serde_json::from_slice::<Entry>(&entry) else {
            return Ok(Fetched::Damaged);
        };
        if entry.deleted {
            return Ok(Fetched::Nothing);
        }
        let Some(bytes) = self.chunks(bucket, &entry).await? else { return Ok(Fetched::Damaged) };
        let digest = format!("SHA-256={}", BASE64URL.encode(&Sha256::digest(&bytes)));
        let whole = bytes.len() == entry.size && digest == entry.digest;
        Ok(if whole { Fetched::Whole(bytes) } else { Fetched::Damaged })
    }

    /// Reads an object's chunks; `None` if some do not come.
    async fn chunks(
        &self,
        bucket: &str,
        entry: &Entry,
    ) -> Result<Option<Bytes>, async_nats::Error> {
        let mut bytes = BytesMut::with_capacity(entry.size.min(TRUSTED_BYTES));
        if entry.chunks == 0 {
            return Ok(Some(bytes.freeze()));
        }
        let filter_subject = format!("$O.{bucket}.C.{}", entry.nuid);
        let stream = self.inner.jetstream.get_stream_no_info(format!("OBJ_{bucket}")).await?;
        let config = OrderedConfig { filter_subject, ..OrderedConfig::default() };
        let mut messages = stream.create_consumer(config).await?.messages().await?;
        for _ in 0..entry.chunks {
            match timeout(PIECE, messages.next()).await {
                Ok(Some(message)) => bytes.extend_from_slice(&message?.payload),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
        Ok(Some(bytes.freeze()))
    }
}
