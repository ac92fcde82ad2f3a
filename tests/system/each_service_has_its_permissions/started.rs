//! What a service says that is not let in, or lacks something; and users that come, and change
//! their keys, while servers run.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::ConnectOptions;
use fanfare_domain::settings::Source;
use fanfare_event_log::{EventLog, Settings};
use fanfare_testkit::wait_until;
use tokio::time::Instant;

use crate::support::{Process, Service, binary, locked::Locked};

/// How long it may take until a service gives up.
const REFUSAL: Duration = Duration::from_secs(25);

/// Starts a service, and returns its last words once it has ended with an error.
async fn last_words(settings: &BTreeMap<String, String>) -> Result<String> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let log = directory.path().join("ingest.log");
    let begun = Instant::now();
    let binary = binary::fanfare().await?;
    let fine = Process::start(&binary, Service::Ingest, settings, &log)?.ended().await?;
    let said = fs::read_to_string(&log).context("read a log")?;
    ensure!(!fine && begun.elapsed() < REFUSAL, "{:?}: {said}", begun.elapsed());
    Ok(said.lines().last().map(String::from).unwrap_or_default())
}

#[tokio::test]
async fn who_is_not_let_in_or_lacks_something_says_what_to_do() -> Result<()> {
    let locked = Locked::start(1, &[]).await?;
    let right = locked.settings("ingest")?;
    let file = |user: &str, name: &str| locked.user(user).join(name).display().to_string();
    let missing = file("ingest", "nothing");
    for (changes, words) in [
        // Nobody has made the streams.
        (vec![], &["FANFARE_JOURNAL is missing", "fanfare bootstrap"][..]),
        (vec![("log.nkey_file", missing.as_str())], &["cannot read", "nothing"]),
        // A user of another account.
        (vec![("log.nkey_file", &file("check", "user.nk"))], &["this user of NATS may not"]),
        (vec![("log.nkey_file", "")], &["does not let us in", "log.nkey_file"]),
        (
            vec![("log.ca_file", &file("ingest", "certificate.pem"))],
            &["trust each other", "log.ca_file"],
        ),
        (
            vec![("log.certificate_file", ""), ("log.certificate_key_file", "")],
            &["trust each other", "log.certificate_file"],
        ),
    ] {
        let mut settings = right.clone();
        for (key, value) in changes {
            settings.insert(String::from(key), String::from(value));
        }
        let said = last_words(&settings).await?;
        for word in words {
            ensure!(said.contains(word), "it does not say {word}: {said}");
        }
    }
    let made = locked.bootstrap(&BTreeMap::new()).await?;
    ensure!(made.contains("FANFARE_EVENTS") && made.contains("KV_FANFARE_owners"), "{made}");
    let again: serde_json::Value =
        serde_json::from_str(&locked.bootstrap(&BTreeMap::new()).await?)?;
    ensure!(again["made"] == serde_json::json!([]), "{again}");
    let mut other = right;
    other.insert(String::from("log.retention"), String::from("7d"));
    let said = last_words(&other).await?;
    for word in ["differs from what the settings say", "max_age", "fanfare bootstrap"] {
        ensure!(said.contains(word), "it does not say {word}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn producers_come_and_keys_change_while_servers_run() -> Result<()> {
    let locked = Locked::start(1, &["--producer", "acme"]).await?;
    locked.bootstrap(&BTreeMap::new()).await?;
    let settings = locked.settings("ingest")?;
    let settings = settings
        .iter()
        .map(|(key, value)| (key.trim_start_matches("log.").to_owned(), value.clone()));
    let settings: Settings = Source::new(settings.collect(), "").load().context("settings")?;
    let log = EventLog::open("ingest", &settings).await.context("open the log")?;

    locked.configure(&["--producer", "late"]).await?;
    wait_until("a producer to be let in", async || {
        let inbox = "_INBOX.fanfare.producer.late";
        let client = locked.client("producer-late", inbox, ConnectOptions::new()).await;
        client.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await;

    let seed = locked.user("ingest").join("user.nk");
    let old = fs::read_to_string(&seed).context("read a seed")?;
    fs::remove_file(&seed).context("remove a seed")?;
    let connections = log.connections();
    locked.configure(&[]).await?;
    let new = fs::read_to_string(&seed).context("read a seed")?;
    ensure!(new != old, "the key is the old one");
    // Whoever was connected by the old key is cut off, and comes back by the new one.
    wait_until("a service to be back with its new key", async || {
        let back = log.connections() > connections && log.is_connected();
        if back { Ok(()) } else { Err(log.connections()) }
    })
    .await;
    log.survey().await.context("use the new key")?;
    fs::write(&seed, old).context("put the old seed back")?;
    let inbox = "_INBOX.fanfare.ingest";
    let refused = locked.client("ingest", inbox, ConnectOptions::new()).await;
    ensure!(refused.is_err(), "the old key lets in");
    log.close().await;
    Ok(())
}
