//! What is promised is checked with the servers before anything is written.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, Result};
use fanfare_event_log::{
    Durability, EventLog, OpenError, Settings,
    durability::{DurabilityError, NotKept, gather, verify},
};
use fanfare_nats_server::{Binary, Options, Server, ServerOptions, StoreSync};
use fanfare_testkit::{NatsCluster, Proxy};

use crate::support;

async fn server(sync: StoreSync) -> Result<Server> {
    let located = tokio::task::spawn_blocking(|| Binary::locate(&Options::from_env()));
    let options = ServerOptions { sync, ..ServerOptions::default() };
    Server::start(&located.await??, options).await.context("start nats-server")
}

fn promising(server: &Server, durability: Durability) -> Settings {
    let system_url = Some(server.system_url());
    Settings { durability, system_url, ..support::settings(server) }
}

#[tokio::test]
async fn a_server_that_syncs_keeps_what_site_promises() -> Result<()> {
    let server = server(StoreSync::Always).await?;
    let reports = gather(&promising(&server, Durability::Site)).await?;
    assert_eq!(reports.len(), 1);
    assert!(reports[0].sync_always);
    assert_eq!(reports[0].version, server.version().to_string());
    EventLog::open("test", &promising(&server, Durability::Site)).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_sync_is_refused_by_name() -> Result<()> {
    let server = server(StoreSync::Interval).await?;
    verify(&promising(&server, Durability::Process)).await?;
    let refused = EventLog::open("test", &promising(&server, Durability::Site)).await;
    let Err(OpenError::Durability(DurabilityError::NotKept(kept))) = refused else {
        panic!("it was opened")
    };
    let NotKept::NotSynced { server: name } = &kept else { panic!("{kept:?}") };
    assert_eq!(name, &ServerOptions::default().server_name);
    Ok(())
}

/// What this test's thread says, level and fields included.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn contains(&self, words: &[&str]) -> bool {
        let said = self.0.lock().unwrap();
        let said = String::from_utf8_lossy(&said);
        said.lines().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_comes_later_is_checked_as_well() -> Result<()> {
    let syncs = [StoreSync::Always, StoreSync::Always, StoreSync::Interval];
    let mut cluster = NatsCluster::start_each(syncs).await?;
    let [first, _, lazy] = NatsCluster::NAMES;
    cluster.member(lazy)?.kill().await?;
    cluster.settled().await;
    let proxy = Proxy::to(cluster.member(first)?.client_address()).await?;
    let settings = Settings {
        url: proxy.url(),
        system_url: Some(cluster.system_url()),
        durability: Durability::Node,
        ..cluster.log_settings()
    };
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _listening = tracing::subscriber::set_default(subscriber.finish());
    let log = support::open(&settings).await?;
    assert!(said.contains(&["WARN", "not checked", "checked=2", "of=3", "nats-1, nats-2"]));
    cluster.restart_all().await?;
    cluster.settled().await;
    assert!(!said.contains(&["ERROR"]));
    proxy.cut();
    let told = async || Ok(said.contains(&["ERROR", "server nats-3 acknowledges messages before"]));
    support::wait_until("it is told", told).await?;
    log.close().await;
    Ok(())
}

#[tokio::test]
async fn one_server_is_too_few_for_node() -> Result<()> {
    let server = server(StoreSync::Always).await?;
    let settings = Settings { replicas: 3, ..promising(&server, Durability::Node) };
    let refused = verify(&settings).await.unwrap_err();
    let DurabilityError::NotKept(NotKept::TooFewServers { found: 1, needed: 2 }) = refused else {
        panic!("{refused:?}")
    };
    Ok(())
}

#[tokio::test]
async fn without_the_system_account_nothing_is_promised() -> Result<()> {
    let server = server(StoreSync::Always).await?;
    let promised = promising(&server, Durability::Site);
    let nowhere = Settings { system_url: None, ..promised.clone() };
    assert!(matches!(verify(&nowhere).await, Err(DurabilityError::NoSystemUrl { .. })));
    // A user of another account sees no servers.
    let elsewhere = Settings { system_url: Some(server.client_url()), ..promised };
    let refused = verify(&elsewhere).await.unwrap_err();
    let DurabilityError::NotKept(NotKept::TooFewServers { found: 0, needed: 1 }) = refused else {
        panic!("{refused:?}")
    };
    Ok(())
}
