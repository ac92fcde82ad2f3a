//! Writing in batches to a cluster: in order, and exactly once when the leader dies.

use std::net::TcpListener;

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use fanfare_event_log::{EventLog, Pending, Settings, Stored};
use fanfare_nats_server::{Binary, ClusterOptions, Options, Server, ServerOptions};
use futures_util::future::{join_all, try_join_all};

use super::batches::{MANY, batches, gather, send, stored};
use crate::support::{event, messages, open, outsider, settings, wait_until};

/// Three servers that are one cluster.
async fn cluster() -> Result<Vec<Server>> {
    let located = tokio::task::spawn_blocking(|| Binary::locate(&Options::from_env()));
    let binary = located.await??;
    // All are held until the last is found: they are different.
    let held = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let ports = held.iter().map(|held| held.local_addr().map(|address| address.port()));
    let members = ports.collect::<Result<Vec<u16>, _>>()?;
    drop(held);
    let starting = members.iter().zip(0..).map(|(&port, place)| {
        let (name, secret) = (String::from("test"), String::from("secret"));
        let cluster = ClusterOptions { name, port, members: members.clone(), secret };
        let server_name = format!("nats-{place}");
        let cluster = Some(cluster);
        Server::start(&binary, ServerOptions { server_name, cluster, ..ServerOptions::default() })
    });
    try_join_all(starting).await.context("start a cluster")
}

/// Opens a log that all servers keep, by way of all of them.
async fn replicated(cluster: &[Server]) -> Result<EventLog> {
    let urls: Vec<String> = cluster.iter().map(Server::client_url).collect();
    open(&Settings { url: urls.join(","), replicas: 3, ..settings(&cluster[0]) }).await
}

/// Which server leads EVENTS.
async fn leader(context: &jetstream::Context) -> Result<usize> {
    let stream = context.get_stream("FANFARE_EVENTS").await?;
    let leader = stream.cached_info().cluster.as_ref().and_then(|found| found.leader.as_deref());
    Ok(leader.context("it has a leader")?.trim_start_matches("nats-").parse()?)
}

#[tokio::test]
async fn what_gathers_on_a_cluster_is_written_in_batches() -> Result<()> {
    let mut cluster = cluster().await?;
    let log = replicated(&cluster).await?;
    let context = outsider(&cluster[0]).await?;
    let place = leader(&context).await?;
    let publisher = log.publisher();
    let stored = stored(gather(&mut cluster[place], send(&publisher, 0..MANY)).await?).await?;
    let sizes = batches(&context, "FANFARE_EVENTS").await?;
    assert!(sizes.iter().sum::<usize>() >= 100, "{sizes:?}");
    assert!(sizes.iter().all(|&size| size >= 50), "a small batch does not pay: {sizes:?}");
    for (number, stored) in (0..MANY).zip(stored) {
        assert_eq!(stored, Stored { sequence: u64::from(number) + 1, duplicate: false });
        let read = log.event(stored.sequence).await?.context("it is stored")?;
        assert_eq!(read.event.id, event(number).id);
    }
    Ok(())
}

#[tokio::test]
async fn batches_written_while_the_leader_dies_are_there_exactly_once() -> Result<()> {
    let mut cluster = cluster().await?;
    let log = replicated(&cluster).await?;
    let context = outsider(&cluster[0]).await?;
    let place = leader(&context).await?;
    let pending = send(&log.publisher(), 0..MANY).await?;
    let outcomes = join_all(pending.into_iter().map(Pending::stored));
    let (outcomes, killed) = tokio::join!(outcomes, cluster[place].kill());
    killed?;
    for (number, outcome) in (0..MANY).zip(outcomes) {
        let read = log.event(outcome?.sequence).await?.context("it is stored")?;
        assert_eq!(read.event.id, event(number).id);
    }
    let context = outsider(&cluster[(place + 1) % 3]).await?;
    let all = async || Ok(messages(&context, "FANFARE_EVENTS").await? == u64::from(MANY));
    wait_until("all is there, once", all).await
}
