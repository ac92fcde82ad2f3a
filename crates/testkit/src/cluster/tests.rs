//! The cluster itself: what a member loses and gets back.

use fanfare_event_log::topology::Stream;

use super::*;

#[tokio::test]
async fn a_member_that_lost_everything_gets_it_back() -> Result<()> {
    let mut cluster = NatsCluster::start(StoreSync::Interval).await?;
    let log = cluster.log().await?;
    let stream = log.topology().stream(Stream::Journal);
    cluster.settled().await;
    let leader = cluster.leader(&stream).await?;
    cluster.member(&leader)?.kill().await?;
    let store = cluster.member(&leader)?.data_dir().join("jetstream");
    cluster.empty(&leader).await?;
    assert!(!store.exists());
    wait_until("another leader", async || match cluster.leader(&stream).await {
        Ok(other) if other != leader => Ok(()),
        other => Err(other),
    })
    .await;
    cluster.restart_all().await?;
    cluster.settled().await;
    assert!(store.join("FANFARE/streams").join(&stream).exists());
    log.close().await;
    Ok(())
}

#[tokio::test]
async fn dropping_a_cluster_leaves_nothing_behind() -> Result<()> {
    let mut cluster = NatsCluster::start(StoreSync::Interval).await?;
    let mut left = Vec::new();
    for name in NatsCluster::NAMES {
        left.push(cluster.member(name)?.data_dir().to_owned());
    }
    assert!(left.iter().all(|path| path.exists()));
    let address = cluster.member("nats-1")?.client_address();
    drop(cluster);
    assert!(left.iter().all(|path| !path.exists()));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    Ok(())
}
