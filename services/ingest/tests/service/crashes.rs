//! Killed at any point, ingest loses nothing and makes nothing twice.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use fanfare_event_log::EventLog;
use fanfare_testkit::{NatsServer, wait_until};
use tokio::time::timeout;

use crate::support::{
    Ingest, events, events_at_least, forgetful, inbox_is_empty, message, open, servers_forget,
    settings, tenant,
};

/// Puts numbered messages into INBOX, every other one with a key of its own.
async fn publish_numbers(log: &EventLog, numbers: std::ops::Range<usize>) -> Result<()> {
    let publisher = log.publisher();
    let mut pending = Vec::new();
    for number in numbers {
        let key = number.to_string();
        let headers = [("Fanfare-Idempotency-Key", key.as_str())];
        let headers: &[_] = if number % 2 == 0 { &headers } else { &[] };
        pending.push(publisher.inbox(&message(headers, key.clone())).await?);
    }
    for pending in pending {
        pending.stored().await?;
    }
    Ok(())
}

/// How often each number became an event.
async fn counts(server: &NatsServer, log: &EventLog) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for stored in events(server, log).await? {
        let number = String::from_utf8(stored.event.data.to_vec())?;
        // Those that only show whether the servers forget are no numbers.
        if number != "{}" {
            *counts.entry(number).or_default() += 1;
        }
    }
    Ok(counts)
}

#[tokio::test]
async fn killed_again_and_again_it_makes_each_event_once() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = forgetful(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    for round in 0..6 {
        publish_numbers(&log, round * 200..(round + 1) * 200).await?;
        let before = events(&server, &log).await?.len();
        let ingest = Ingest::start(settings.clone()).await?;
        // Somewhere in the middle: most of what is written is not settled yet.
        events_at_least(&server, &log, before + 1).await?;
        drop(ingest);
        servers_forget(&log).await?;
    }
    let ingest = Ingest::start(settings).await?;
    inbox_is_empty(&server).await;
    let counts = counts(&server, &log).await?;
    assert_eq!(counts.len(), 1_200, "nothing is lost");
    let twice: Vec<_> = counts.iter().filter(|&(_, &count)| count != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    ingest.stop().await
}

/// Each message that waited may have been written before the stop, and is looked for.
#[tokio::test]
async fn what_waited_is_looked_up_in_one_pass() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    for hundred in 0..30 {
        publish_numbers(&log, hundred * 100..(hundred + 1) * 100).await?;
    }
    let mut readers = server.count_readers("FANFARE_EVENTS").await?;
    let ingest = Ingest::start(settings).await?;
    inbox_is_empty(&server).await;
    let counts = counts(&server, &log).await?;
    assert_eq!(counts.len(), 3_000);
    assert!(counts.values().all(|&count| count == 1));
    let made = readers.count().await?;
    // Batch by batch it would be 24 at least; one that is slow is begun again.
    assert!((1..=12).contains(&made), "{made} readers");
    ingest.stop().await
}

#[tokio::test]
async fn a_killed_server_loses_nothing_and_doubles_nothing() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings).await?;
    for round in 0..3 {
        publish_numbers(&log, round * 300..(round + 1) * 300).await?;
        events_at_least(&server, &log, round * 300 + 20).await?;
        server.server().kill().await?;
        server.server().restart().await?;
        ingest.check()?;
    }
    wait_until("all are events", async || match counts(&server, &log).await {
        Ok(counts) if counts.len() == 900 => Ok(()),
        Ok(counts) => Err(format!("{} of 900", counts.len())),
        Err(error) => Err(error.to_string()),
    })
    .await;
    inbox_is_empty(&server).await;
    let counts = counts(&server, &log).await?;
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
    ingest.check()
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings).await?;
    publish_numbers(&log, 0..1).await?;
    events_at_least(&server, &log, 1).await?;
    server.server().suspend()?;
    let unanswered = timeout(Duration::from_secs(3), events(&server, &log)).await;
    assert!(unanswered.is_err(), "nobody is there");
    server.server().resume()?;
    publish_numbers(&log, 1..2).await?;
    events_at_least(&server, &log, 2).await?;
    ingest.check()
}
