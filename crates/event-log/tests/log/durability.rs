//! What is promised is checked with the servers before anything is written.

use anyhow::{Context as _, Result};
use fanfare_event_log::{
    Durability, EventLog, OpenError, Settings,
    durability::{DurabilityError, NotKept, gather, verify},
};
use fanfare_nats_server::{Binary, Options, Server, ServerOptions, StoreSync};

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
    let reports = gather(&server.system_url()).await?;
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
