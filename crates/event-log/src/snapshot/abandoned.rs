//! Removing chunks of snapshots whose writers died before they wrote the entry.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::stream::Stream;
use futures_util::TryStreamExt as _;
use tracing::info;

use super::fetch::Entry;
use crate::{EventLog, cas::Cell};

/// How much older than the newest message of the bucket chunks without an entry must be: younger
/// ones may be of a snapshot that is being written.
const ABANDONED_AFTER: Duration = Duration::from_mins(30);

impl EventLog {
    /// Removes what no entry refers to. One cheap question if there is no such thing.
    pub(super) async fn remove_abandoned(&self, bucket: &str) -> Result<(), async_nats::Error> {
        let stream_name = format!("OBJ_{bucket}");
        let stream = self.inner.jetstream.get_stream_no_info(&stream_name).await?;
        let (entries_prefix, chunks_prefix) =
            (format!("$O.{bucket}.M."), format!("$O.{bucket}.C."));
        let mut found = stream.info_with_subjects(format!("$O.{bucket}.>")).await?;
        let (mut entries, mut chunks) = (Vec::new(), Vec::new());
        while let Some((subject, _)) = found.try_next().await? {
            if subject.starts_with(&entries_prefix) {
                entries.push(subject);
            } else if subject.starts_with(&chunks_prefix) {
                chunks.push(subject);
            }
        }
        if chunks.len() <= entries.len() {
            return Ok(());
        }
        let cell = |subject| self.cell(stream_name.clone(), subject);
        let mut named = BTreeSet::new();
        for subject in entries {
            named.extend(nuid(&cell(subject)).await?.map(|nuid| format!("{chunks_prefix}{nuid}")));
        }
        for subject in chunks.into_iter().filter(|subject| !named.contains(subject)) {
            if is_old(&stream, &subject).await? {
                info!(bucket, "removing a snapshot that was never completed");
                stream.purge().filter(&subject).await?;
            }
        }
        Ok(())
    }
}

async fn nuid(entry: &Cell) -> Result<Option<String>, async_nats::Error> {
    let value = entry.get().await?.and_then(|held| held.value);
    Ok(value.and_then(|value| serde_json::from_slice::<Entry>(&value).ok()).map(|entry| entry.nuid))
}

/// Tells by the servers' clock alone.
async fn is_old(stream: &Stream<()>, subject: &str) -> Result<bool, async_nats::Error> {
    let newest = stream.get_info().await?.state.last_timestamp;
    let own = stream.get_last_raw_message_by_subject(subject).await?.time;
    Ok(own + ABANDONED_AFTER < newest)
}
