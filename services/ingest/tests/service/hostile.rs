//! Messages that no client library would send, and that break ours.

use std::time::Duration;

use anyhow::Result;
use fanfare_event_log::{EventLog, PublishAnswer};
use fanfare_testkit::{NatsServer, StoredMessage, wait_at_most};

use crate::support::{
    Ingest, events, inbox_is_empty, message, open, publish, publish_raw, settings, stored, tenant,
};

/// Headers that the servers pass on, and no client should have to read.
const HEADERS: [&[u8]; 5] = [
    b"NATS/1.0\r\nName: M\xfcller\r\n\r\n",
    b"NATS/1.0\r\nName: a\rb\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\na name: b\r\n\r\n",
    b"nonsense\r\n\r\n",
];

/// Headers that only servers should send. Streams take the status away.
const STATUS: [&[u8]; 2] =
    [b"NATS/1.0 409 Consumer Deleted\r\n\r\n", b"NATS/1.0 nonsense\r\nA: b\r\n\r\n"];

fn header<'a>(message: &'a StoredMessage, name: &str) -> Option<&'a str> {
    message.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn messages_that_break_connections_are_put_aside() -> Result<()> {
    let server = NatsServer::start().await?;
    let mut settings = settings(&server);
    settings.log.ack_wait = Duration::from_secs(1);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings).await?;
    for (index, headers) in HEADERS.into_iter().enumerate() {
        publish(&log, &message(&[], format!("\"before {index}\""))).await?;
        publish_raw(&server, b"fanfare.inbox.acme.invoice.paid", b"no.body", headers).await?;
        publish(&log, &message(&[], format!("\"after {index}\""))).await?;
    }
    publish_raw(&server, b"fanfare.inbox.acme.\xff", b"no.body", b"NATS/1.0\r\n\r\n").await?;
    inbox_is_empty(&server).await;
    assert_eq!(events(&server, &log).await?.len(), 2 * HEADERS.len(), "each of the others, once");
    let rejected = stored(&server, "FANFARE_REJECTED").await?;
    assert_eq!(rejected.len(), HEADERS.len() + 1);
    for message in &rejected {
        assert_eq!(header(message, "Fanfare-Reason"), Some("malformed_header"));
        assert!(header(message, "Fanfare-Original-Headers").is_some(), "{message:?}");
        assert_eq!(message.payload, "{}");
    }
    ingest.check()?;
    ingest.stop().await
}

#[tokio::test]
async fn poison_that_killed_an_earlier_process_is_found_at_the_start() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    for headers in HEADERS {
        publish_raw(&server, b"fanfare.inbox.acme.invoice.paid", b"no.body", headers).await?;
    }
    publish(&log, &message(&[], "1")).await?;
    // Handed out to somebody who never came back.
    let victim = open(&settings).await?;
    let mut inbox = victim.read_inbox().await?;
    let died = tokio::time::timeout(Duration::from_secs(2), inbox.next_batch(10)).await;
    drop((died, inbox));
    let mut ingest = Ingest::start(settings).await?;
    wait_at_most(Duration::from_secs(90), "INBOX is empty", async || {
        match stored(&server, "FANFARE_INBOX").await {
            Ok(messages) if messages.is_empty() => Ok(()),
            Ok(messages) => Err(messages.len()),
            Err(_) => Err(usize::MAX),
        }
    })
    .await;
    assert_eq!(events(&server, &log).await?.len(), 1);
    ingest.check()
}

#[tokio::test]
async fn a_status_that_a_producer_sends_means_nothing() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings).await?;
    for headers in STATUS {
        publish_raw(&server, b"fanfare.inbox.acme.invoice.paid", b"no.body", headers).await?;
    }
    inbox_is_empty(&server).await;
    assert_eq!(events(&server, &log).await?.len(), STATUS.len());
    ingest.check()
}

#[tokio::test]
async fn requests_that_break_connections_harm_only_themselves() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings).await?;
    for (number, headers) in HEADERS.into_iter().chain(STATUS).enumerate() {
        publish_raw(&server, b"fanfare.publish.acme.a", b"no.body", headers).await?;
        is_answered(&log, number).await;
        // INBOX comes by another connection.
        publish(&log, &message(&[], number.to_string())).await?;
    }
    publish_raw(&server, b"fanfare.publish.acme.\xff", b"no.body", b"NATS/1.0\r\n\r\n").await?;
    is_answered(&log, 100).await;
    inbox_is_empty(&server).await;
    ingest.check()
}

/// Waits until a request is accepted: one that was on its way by a broken connection is not.
async fn is_answered(log: &EventLog, number: usize) {
    let key = number.to_string();
    let message = message(&[("Fanfare-Idempotency-Key", &key)], "{}");
    wait_at_most(Duration::from_secs(30), "a request is accepted", async || {
        match log.publish_request(&message, Duration::from_millis(500)).await {
            Ok(PublishAnswer::Accepted { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
