//! Snapshots: whole or not at all, and nothing is left behind.

use std::time::Duration;

use anyhow::Result;
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use fanfare_domain::Shard;
use fanfare_event_log::snapshot::Snapshot;
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

use crate::support::{SHARD, log, outsider, server};

fn snapshot(sequence: u64, fill: u8, length: usize) -> Snapshot {
    Snapshot { sequence, state: Bytes::from(vec![fill; length]) }
}

/// The subjects of all chunks, with their counts.
async fn chunks(context: &jetstream::Context) -> Result<Vec<(String, usize)>> {
    let stream = context.get_stream("OBJ_FANFARE_snapshots").await?;
    let found = stream.info_with_subjects("$O.FANFARE_snapshots.C.>").await?;
    Ok(found.try_collect().await?)
}

#[tokio::test]
async fn a_snapshot_reads_back_and_replaces_the_one_before() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    assert_eq!(log.snapshot("health", SHARD).await?, None);
    for (sequence, length) in [(7, 0), (8, 1), (9, 3_000_000), (10, 5)] {
        let kept = snapshot(sequence, 1, length);
        log.put_snapshot("health", SHARD, &kept).await?;
        assert_eq!(log.snapshot("health", SHARD).await?, Some(kept));
    }
    assert_eq!(log.snapshot("health", Shard::from_index(2)).await?, None);
    assert_eq!(log.snapshot("agenda", SHARD).await?, None);
    assert_eq!(chunks(&outsider(&server).await?).await?.len(), 1, "old chunks are gone");
    Ok(())
}

#[tokio::test]
async fn a_damaged_snapshot_is_none() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let context = outsider(&server).await?;
    log.put_snapshot("health", SHARD, &snapshot(1, 1, 700_000)).await?;
    let subject = chunks(&context).await?.remove(0).0;
    // A chunk is missing.
    let stream = context.get_stream("OBJ_FANFARE_snapshots").await?;
    let chunk = stream.get_last_raw_message_by_subject(&subject).await?;
    stream.delete_message(chunk.sequence).await?;
    assert_eq!(timeout(Duration::from_mins(1), log.snapshot("health", SHARD)).await??, None);
    // As many as there were, and other bytes.
    context.publish(subject.clone(), Bytes::from(vec![0; chunk.payload.len()])).await?.await?;
    assert_eq!(log.snapshot("health", SHARD).await?, None);
    // A new one heals it.
    let whole = snapshot(2, 2, 700_000);
    log.put_snapshot("health", SHARD, &whole).await?;
    assert_eq!(log.snapshot("health", SHARD).await?, Some(whole));
    Ok(())
}

#[tokio::test]
async fn snapshots_survive_a_killed_server() -> Result<()> {
    let mut server = server().await?;
    let log = log(&server).await?;
    let kept = snapshot(3, 3, 400_000);
    server.kill().await?;
    let (put, restarted) = tokio::join!(log.put_snapshot("health", SHARD, &kept), server.restart());
    restarted?;
    put?;
    server.kill().await?;
    let (read, restarted) = tokio::join!(log.snapshot("health", SHARD), server.restart());
    restarted?;
    assert_eq!(read?, Some(kept));
    Ok(())
}

#[tokio::test]
async fn fresh_chunks_without_an_entry_are_left_alone() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let context = outsider(&server).await?;
    log.put_snapshot("health", SHARD, &snapshot(1, 1, 10)).await?;
    let subject = "$O.FANFARE_snapshots.C.under-way";
    context.publish_with_headers(subject, HeaderMap::new(), "half".into()).await?.await?;
    assert!(log.snapshot("health", SHARD).await?.is_some());
    assert_eq!(chunks(&context).await?.len(), 2, "somebody may be writing them");
    Ok(())
}
