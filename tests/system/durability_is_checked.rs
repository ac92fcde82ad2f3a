//! No service promises what the servers do not keep: it says which server and which setting stand
//! against the durability level that it was given, and ends.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_event_log::Durability;
use fanfare_nats_server::{ServerOptions, StoreSync};
use fanfare_testkit::{NatsCluster, NatsServer};
use tokio::time::Instant;

use crate::support::{Process, Service, binary, servers::Servers};

/// How long a refusal may take: the servers have a second to answer.
const REFUSAL: Duration = Duration::from_secs(15);

/// Starts a service, and returns its last words once it has ended with an error.
async fn refusal(
    service: Service,
    settings: &BTreeMap<&'static str, String>,
    directory: &Path,
) -> Result<String> {
    let binary = binary::fanfare().await?;
    let mut all: BTreeMap<String, String> =
        settings.iter().map(|(key, value)| (String::from(*key), value.clone())).collect();
    // The default port may be taken.
    if service == Service::Api {
        all.insert(String::from("listen"), String::from("127.0.0.1:0"));
    }
    let keys = match service {
        Service::Ingest | Service::FanOut | Service::RetryScheduler | Service::Projector => &[][..],
        Service::Dispatcher => &["sealing_key_file"],
        Service::Api => &["sealing_key_file", "operator_key_file"],
    };
    for key in keys {
        let file = directory.join(key);
        let prefix = if key.starts_with("operator") { "fk_" } else { "" };
        fs::write(&file, format!("{prefix}{}", "5a".repeat(32))).context("write a key")?;
        all.insert(String::from(*key), file.display().to_string());
    }
    let log = directory.join(format!("{service}.log"));
    let begun = Instant::now();
    let fine = Process::start(&binary, service, &all, &log)?.ended().await?;
    let said = fs::read_to_string(&log).context("read a log")?;
    ensure!(!fine, "{service} ended as if all were well: {said}");
    ensure!(begun.elapsed() < REFUSAL, "{service} took {:?}: {said}", begun.elapsed());
    ensure!(!said.contains(r#""message":"running""#), "{service} ran before it ended: {said}");
    Ok(said.lines().last().map(String::from).unwrap_or_default())
}

/// Checks that every service refuses, with all of these words.
async fn all_refuse(settings: &BTreeMap<&'static str, String>, words: &[&str]) -> Result<()> {
    for service in Service::ALL {
        let directory = tempfile::tempdir().context("make a directory")?;
        let said = refusal(service, settings, directory.path()).await?;
        for word in words {
            ensure!(said.contains(word), "{service} does not say {word}: {said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn one_server_that_does_not_sync_is_named() -> Result<()> {
    let syncs = [StoreSync::Always, StoreSync::Interval, StoreSync::Always];
    let cluster = NatsCluster::start_each(syncs).await?;
    let lazy = NatsCluster::NAMES[1];
    let servers = Servers::Three(cluster);
    for durability in [Durability::Node, Durability::Site] {
        all_refuse(&servers.settings(durability), &[lazy, "sync_interval: always"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn node_needs_three_replicas() -> Result<()> {
    let servers = Servers::Three(NatsCluster::start(StoreSync::Always).await?);
    for replicas in ["1", "2"] {
        let mut settings = servers.settings(Durability::Node);
        settings.insert("log.replicas", String::from(replicas));
        all_refuse(&settings, &["replicas", "node needs 3 or more"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn node_needs_three_servers() -> Result<()> {
    let options = ServerOptions { sync: StoreSync::Always, ..ServerOptions::default() };
    let servers = Servers::from(NatsServer::start_with(options).await?);
    let mut settings = servers.settings(Durability::Node);
    settings.insert("log.replicas", String::from("3"));
    all_refuse(&settings, &["1 answered", "2 are needed"]).await
}

#[tokio::test]
async fn site_needs_a_server_that_syncs() -> Result<()> {
    let servers = Servers::from(NatsServer::start().await?);
    let settings = servers.settings(Durability::Site);
    all_refuse(&settings, &["server fanfare", "sync_interval: always"]).await
}

#[tokio::test]
async fn what_cannot_be_checked_is_not_promised() -> Result<()> {
    let options = ServerOptions { sync: StoreSync::Always, ..ServerOptions::default() };
    let servers = Servers::from(NatsServer::start_with(options).await?);
    let mut settings = servers.settings(Durability::Site);
    settings.remove("log.system_url");
    all_refuse(&settings, &["system_url"]).await
}
