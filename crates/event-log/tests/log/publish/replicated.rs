//! Writing in batches to a cluster: in order, and exactly once when the leader dies.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use fanfare_event_log::{EventLog, Settings, Stored};
use fanfare_nats_server::StoreSync;
use fanfare_testkit::{NatsCluster, Proxy};
use serde_json::{Value, json};

use super::batches::{Commits, batches, gather, send, stored};
use crate::support::{
    SHARD, delivery_of, messages, now, numbered, open, outsider, retry_of, wait_until,
};

const EVENTS: &str = "FANFARE_EVENTS";
const RETRIES: &str = "FANFARE_RETRIES";

/// How many messages are written at once: more than go each by itself, and as many again.
const MANY: u16 = 1020;
/// The smallest batch on a cluster.
const SMALLEST: usize = 500;

async fn cluster() -> Result<NatsCluster> {
    NatsCluster::start(StoreSync::Interval).await
}

async fn client(cluster: &NatsCluster) -> Result<jetstream::Context> {
    let url = cluster.url();
    let urls: Vec<_> = url.split(',').collect();
    Ok(jetstream::new(async_nats::connect(urls).await?))
}

#[tokio::test]
async fn what_gathers_on_a_cluster_is_written_in_batches() -> Result<()> {
    let mut cluster = cluster().await?;
    let log = cluster.log().await?;
    let context = client(&cluster).await?;
    let leader = cluster.leader(EVENTS).await?;
    let publisher = log.publisher();
    let leader = cluster.member(&leader)?;
    let stored = stored(gather(leader, send(&publisher, 0..MANY)).await?).await?;
    let sizes = batches(&context, EVENTS).await?;
    assert!(!sizes.is_empty());
    assert!(sizes.iter().all(|&size| size >= SMALLEST), "a small batch does not pay: {sizes:?}");
    for (number, stored) in (0..MANY).zip(stored) {
        assert_eq!(stored, Stored { sequence: u64::from(number) + 1, duplicate: false });
        let read = log.event(stored.sequence).await?.context("it is stored")?;
        assert_eq!(read.event.id, numbered(number).id);
    }
    Ok(())
}

#[tokio::test]
async fn hundreds_are_written_to_a_cluster_one_by_one() -> Result<()> {
    let mut cluster = cluster().await?;
    let log = cluster.log().await?;
    let leader = cluster.leader(EVENTS).await?;
    let publisher = log.publisher();
    stored(gather(cluster.member(&leader)?, send(&publisher, 0..400)).await?).await?;
    let context = client(&cluster).await?;
    assert_eq!(messages(&context, EVENTS).await?, 400);
    assert!(batches(&context, EVENTS).await?.is_empty());
    Ok(())
}

/// How the acknowledgements of a batch get lost.
#[derive(Clone, Copy, Debug)]
enum Acknowledgements {
    /// With the connection.
    Lost,
    /// They come, if there are any, after the leader is dead.
    Late,
}

/// Killed when the batch has come to it, and before anybody hears what became of it.
#[tokio::test]
async fn batches_written_while_the_leader_dies_are_there_exactly_once() -> Result<()> {
    let mut cluster = cluster().await?;
    cluster.log().await?.close().await;
    for (acknowledgements, round) in
        [Acknowledgements::Lost, Acknowledgements::Late].into_iter().zip(0..)
    {
        let leader = cluster.leader(EVENTS).await?;
        let other = NatsCluster::NAMES
            .into_iter()
            .find(|name| *name != leader)
            .context("it is not alone")?;
        let other = cluster.member(other)?;
        let proxy = Proxy::to(other.client_address()).await?;
        let (mut commits, context) = (Commits::of_events(other).await?, outsider(other).await?);
        let log = open(&Settings { url: proxy.url(), ..cluster.log_settings() }).await?;
        let numbers = || round * MANY..(round + 1) * MANY;
        proxy.hold_answers();
        let pending = send(&log.publisher(), numbers()).await?;
        assert!(commits.next().await? >= SMALLEST);
        cluster.member(&leader)?.kill().await?;
        match acknowledgements {
            Acknowledgements::Lost => proxy.cut(),
            Acknowledgements::Late => proxy.release(),
        }
        for (number, stored) in numbers().zip(stored(pending).await?) {
            let read = log.event(stored.sequence).await?.context("it is stored")?;
            assert_eq!(read.event.id, numbered(number).id, "{acknowledgements:?}");
        }
        let count = u64::from(numbers().end);
        let all = async || Ok(messages(&context, EVENTS).await? == count);
        wait_until("all is there, once", all).await?;
        log.close().await;
        cluster.restart_all().await?;
        cluster.settled().await;
    }
    assert_eq!(messages(&client(&cluster).await?, EVENTS).await?, 2 * u64::from(MANY));
    Ok(())
}

/// Has a stream led by another server.
async fn depose(cluster: &NatsCluster, stream: &str) -> Result<()> {
    let leader = cluster.leader(stream).await?;
    let question = format!("STREAM.LEADER.STEPDOWN.{stream}");
    let answer: Value = client(cluster).await?.request(question, &json!({})).await?;
    ensure!(answer["success"] == true, "{answer}");
    let other = async || Ok(cluster.leader(stream).await.is_ok_and(|other| other != leader));
    wait_until("another server leads", other).await
}

/// What is due at this moment, each by its delivery.
async fn due(log: &EventLog, count: usize) -> Result<BTreeSet<String>> {
    let (mut reader, mut found) = (log.read_due(SHARD).await?, BTreeSet::new());
    while found.len() < count {
        for due in reader.next_batch(100).await? {
            ensure!(due.record.journal_sequence == 2, "it was replaced: {:?}", due.record);
            ensure!(found.insert(due.record.delivery.id.to_string()), "it fired twice");
            // Not settled: what is taken away could not be counted.
        }
    }
    Ok(found)
}

/// A message that a schedule fires keeps the headers that made the schedule part of a batch, and
/// the servers take it for what it is: nothing that a batch is made of.
#[tokio::test]
async fn schedules_in_batches_fire_under_another_leader() -> Result<()> {
    let mut cluster = cluster().await?;
    let log = open(&Settings { window: 4096, ..cluster.log_settings() }).await?;
    let (schedules, count) = (log.schedules(), 510);
    let soon = now().saturating_add(Duration::from_secs(10));
    let sending = async {
        let mut pending = Vec::new();
        for (due_at, sequence) in [(soon.saturating_add(Duration::from_hours(1)), 1), (soon, 2)] {
            for number in 0..count {
                let retry = retry_of(delivery_of(numbered(number)), due_at, sequence);
                pending.push(schedules.put(SHARD, &retry).await?);
            }
        }
        Ok(pending)
    };
    let leader = cluster.leader(RETRIES).await?;
    stored(gather(cluster.member(&leader)?, sending).await?).await?;
    let context = client(&cluster).await?;
    let sizes = batches(&context, RETRIES).await?;
    assert!(sizes.iter().any(|&size| size >= 400), "{sizes:?}");
    depose(&cluster, RETRIES).await?;
    ensure!(now() < soon, "the leader changed too late");
    let count = usize::from(count);
    assert_eq!(due(&log, count).await?.len(), count);
    assert_eq!(messages(&context, RETRIES).await?, count as u64, "all has fired");
    assert!(!batches(&context, RETRIES).await?.is_empty(), "there is nothing stale in them");
    // Every copy has what the leader has, and nothing more.
    for _ in NatsCluster::NAMES {
        cluster.settled().await;
        assert_eq!(messages(&context, RETRIES).await?, count as u64);
        depose(&cluster, RETRIES).await?;
    }
    // And so it is for servers that read it from their disks.
    log.close().await;
    cluster.kill_all().await?;
    cluster.restart_all().await?;
    cluster.settled().await;
    assert_eq!(messages(&client(&cluster).await?, RETRIES).await?, count as u64);
    Ok(())
}
