//! Attaching to an installation: everything is as it was afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::stream;
use fanfare_domain::ShardCount;
use fanfare_event_log::{Compression, EventLog, OpenError, Settings};
use fanfare_nats_server::Server;
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

use crate::support::{inbox, open, outsider, overhear, server, settings};

/// How every stream is kept, by name.
async fn streams(server: &Server) -> Result<Vec<stream::Config>> {
    let context = outsider(server).await?;
    let mut found: Vec<stream::Config> =
        context.streams().map_ok(|info| info.config).try_collect().await?;
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

#[tokio::test]
async fn where_there_is_no_installation_it_is_said_and_none_is_made() -> Result<()> {
    let server = server().await?;
    let Err(error) = EventLog::attach("test", &settings(&server)).await else {
        panic!("attached to nothing");
    };
    let told = error.to_string();
    let OpenError::NotInstalled { prefix, url, stream } = error else { panic!("{error:?}") };
    assert_eq!((prefix.as_str(), stream.as_str()), ("fanfare", "FANFARE_JOURNAL"));
    assert_eq!(url, server.client_url());
    assert!(told.contains("`fanfare up`"), "{told}");
    assert_eq!(streams(&server).await?, []);
    Ok(())
}

#[tokio::test]
async fn an_installation_with_other_settings_stays_as_it_is() -> Result<()> {
    let server = server().await?;
    let made = Settings {
        shards: ShardCount::new(8)?,
        duplicate_window: Duration::from_secs(7),
        retention: Duration::from_hours(5),
        inbox_per_subject_max: 77,
        stream_bytes_max: Some(1 << 24),
        compression: Compression::S2,
        ..settings(&server)
    };
    let installed = open(&made).await?;
    let before = streams(&server).await?;
    let mut asked = overhear(&server, "$JS.API.>").await?;
    let asked_before = Settings { url: server.client_url(), ..Settings::default() };
    let log = EventLog::attach("test", &asked_before).await?;
    for question in asked.all().await? {
        assert!(question.starts_with("$JS.API.STREAM.INFO."), "{question}");
    }
    assert_eq!(streams(&server).await?, before);
    assert_eq!(log.shards().get(), 8);
    assert_eq!(log.inbox_identity(), installed.inbox_identity());
    // It is a log like any other.
    let stored = log.publisher().inbox(&inbox("{}")).await?.stored().await?;
    assert_eq!(stored.sequence, 1);
    log.close().await;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_not_ours_is_not_taken_for_an_installation() -> Result<()> {
    let server = server().await?;
    let context = outsider(&server).await?;
    for name in ["FANFARE_JOURNAL", "FANFARE_INBOX"] {
        let subjects = vec![format!("other.{name}")];
        let config =
            stream::Config { name: name.to_owned(), subjects, ..stream::Config::default() };
        context.create_stream(config).await?;
    }
    let attached = EventLog::attach("test", &settings(&server)).await;
    let error = attached.err().context("it is not ours")?;
    assert!(matches!(&error, OpenError::Foreign { stream } if stream == "FANFARE_JOURNAL"));
    Ok(())
}

#[tokio::test]
async fn an_account_without_jetstream_is_told_when_attaching() -> Result<()> {
    let server = server().await?;
    let settings = Settings { url: server.system_url(), ..settings(&server) };
    let attached = timeout(Duration::from_secs(20), EventLog::attach("test", &settings)).await?;
    let error = attached.err().context("there is no JetStream")?;
    assert!(matches!(error, OpenError::NoJetStream { .. }), "{error:?}");
    Ok(())
}
