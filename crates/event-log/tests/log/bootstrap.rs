//! Making and migrating the streams.

use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use fanfare_domain::ShardCount;
use fanfare_event_log::{EventLog, OpenError, Settings};
use tokio::time::timeout;

use crate::support::{log, open, outsider, server, settings};

#[tokio::test]
async fn opening_again_changes_nothing() -> Result<()> {
    let server = server().await?;
    let first = log(&server).await?;
    let context = outsider(&server).await?;
    let before = context.get_stream("FANFARE_EVENTS").await?.cached_info().clone();
    let second = log(&server).await?;
    let after = context.get_stream("FANFARE_EVENTS").await?.cached_info().clone();
    assert_eq!(before.config, after.config);
    assert_eq!(before.created, after.created);
    assert_eq!(first.inbox_identity(), second.inbox_identity());
    assert_eq!(second.shards().get(), 4);
    assert!(second.is_connected());
    Ok(())
}

#[tokio::test]
async fn many_open_at_once() -> Result<()> {
    let server = server().await?;
    let settings = settings(&server);
    let opening = (0..8).map(|_| open(&settings));
    let logs = futures_util::future::try_join_all(opening).await?;
    let identities: Vec<&str> = logs.iter().map(EventLog::inbox_identity).collect();
    assert!(identities.windows(2).all(|pair| pair[0] == pair[1]), "{identities:?}");
    Ok(())
}

#[tokio::test]
async fn another_number_of_shards_is_refused_with_the_right_one() -> Result<()> {
    let server = server().await?;
    log(&server).await?;
    let asked = ShardCount::new(8)?;
    let other = Settings { shards: asked, ..settings(&server) };
    let Err(OpenError::ShardsDiffer { found, .. }) = EventLog::open("test", &other).await else {
        panic!("opened, or another error");
    };
    assert_eq!(found, "4");
    // Another installation on the same servers has its own.
    let other = Settings { prefix: String::from("second"), ..other };
    assert_eq!(open(&other).await?.shards(), asked);
    Ok(())
}

#[tokio::test]
async fn what_was_changed_by_hand_is_put_right() -> Result<()> {
    let server = server().await?;
    log(&server).await?;
    let context = outsider(&server).await?;
    let found = context.get_stream("FANFARE_DELIVERIES").await?.cached_info().config.clone();
    assert_eq!(found.discard, DiscardPolicy::New);
    let drifted = Config { discard: DiscardPolicy::Old, max_messages: 5, ..found.clone() };
    context.update_stream(&drifted).await?;
    log(&server).await?;
    let repaired = context.get_stream("FANFARE_DELIVERIES").await?.cached_info().config.clone();
    assert_eq!((repaired.discard, repaired.max_messages), (found.discard, found.max_messages));
    Ok(())
}

/// Installations from before batches were written get streams that take them.
#[tokio::test]
async fn a_stream_without_batches_is_upgraded() -> Result<()> {
    let server = server().await?;
    log(&server).await?;
    let context = outsider(&server).await?;
    let config = async |stream: &str| {
        let found = context.get_stream(format!("FANFARE_{stream}")).await?;
        anyhow::Ok(found.cached_info().config.clone())
    };
    let written = ["INBOX", "REJECTED", "EVENTS", "DELIVERIES", "RETRIES", "JOURNAL", "DEAD"];
    for stream in written {
        let found = config(stream).await?;
        assert!(found.allow_atomic_publish, "{stream}");
        context.update_stream(&Config { allow_atomic_publish: false, ..found }).await?;
    }
    // Where none are written, what an operator allowed stays allowed.
    let found = config("COMMANDS").await?;
    assert!(!found.allow_atomic_publish);
    context.update_stream(&Config { allow_atomic_publish: true, ..found }).await?;
    log(&server).await?;
    for stream in written.iter().chain(&["COMMANDS"]) {
        assert!(config(stream).await?.allow_atomic_publish, "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn the_log_cannot_be_wiped_by_a_message_or_by_deleting() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let context = outsider(&server).await?;
    let event = crate::support::event(1);
    log.publisher().event(&event).await?.stored().await?;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Rollup", "all");
    let subject = log.topology().event(&event.tenant, &event.event_type);
    let wiping = context.publish_with_headers(subject, headers, "{}".into()).await?;
    assert!(wiping.await.is_err());
    assert!(context.get_stream("FANFARE_EVENTS").await?.delete_message(1).await.is_err());
    assert!(context.get_stream("FANFARE_JOURNAL").await?.purge().await.is_err());
    assert!(log.event(1).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_log_that_nobody_closes_is_dropped_in_peace() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let pending = log.publisher().event(&crate::support::event(1)).await?;
    drop(log);
    drop(pending);
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once_and_not_taken_for_servers_that_are_away() -> Result<()> {
    let server = server().await?;
    let url = server.client_url().replace("nats://", "nats://nobody:hunter2@");
    let settings = Settings { url, ..settings(&server) };
    let opened = timeout(Duration::from_secs(10), EventLog::open("test", &settings)).await?;
    let Err(refused @ OpenError::Denied { .. }) = opened else {
        panic!("opened, or another error");
    };
    let told = refused.to_string();
    assert!(told.contains(&server.client_url()) && !told.contains("hunter2"), "{told}");
    Ok(())
}

#[tokio::test]
async fn an_account_without_jetstream_is_told_at_once() -> Result<()> {
    let server = server().await?;
    let settings = Settings { url: server.system_url(), ..settings(&server) };
    let opened = timeout(Duration::from_secs(10), EventLog::open("test", &settings)).await?;
    let Err(OpenError::NoJetStream { url, .. }) = opened else {
        panic!("opened, or another error");
    };
    assert_eq!(url, server.client_url(), "user and password are not shown");
    Ok(())
}
