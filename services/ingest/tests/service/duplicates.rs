//! One key, one event; one message, one event.

use std::collections::BTreeSet;

use anyhow::Result;
use fanfare_domain::{Event, EventId};
use fanfare_event_log::idempotency::KeyState;
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::{NatsServer, wait_until};
use futures_util::future::try_join_all;

use crate::support::{
    Ingest, ask_for_id, event, events, events_at_least, forgetful, inbox_is_empty, message, open,
    publish, publish_raw, servers_forget, settings, tenant,
};

const KEY: [(&str, &str); 1] = [("Fanfare-Idempotency-Key", "k")];

#[tokio::test]
async fn of_fifty_requests_with_one_key_one_makes_an_event() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let logs = [open(&settings).await?, open(&settings).await?];
    tenant(&logs[0], "acme", "standard-webhooks").await?;
    tenant(&logs[0], "other", "standard-webhooks").await?;
    let _ingest = [Ingest::start(settings.clone()).await?, Ingest::start(settings).await?];
    let message = message(&KEY, "{}");
    let asked = (0..50).map(|number| ask_for_id(&logs[number % 2], &message));
    let answers = try_join_all(asked).await?;
    let ids: BTreeSet<EventId> = answers.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, duplicate)| !duplicate).count(), 1);
    assert_eq!(events(&server, &logs[0]).await?.len(), 1);
    let (later, duplicate) = ask_for_id(&logs[0], &message).await?;
    assert!(duplicate && ids.contains(&later));
    let others = fanfare_event_log::InboxMessage { tenant: String::from("other"), ..message };
    let (of_another, duplicate) = ask_for_id(&logs[0], &others).await?;
    assert!(!duplicate && !ids.contains(&of_another), "keys are a tenant's own");
    Ok(())
}

#[tokio::test]
async fn inbox_and_requests_share_keys() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let ingest = Ingest::start(settings).await?;
    for _ in 0..3 {
        publish(&log, &message(&KEY, "1")).await?;
    }
    let first = events_at_least(&server, &log, 1).await?.remove(0);
    inbox_is_empty(&server).await;
    assert_eq!(ask_for_id(&log, &message(&KEY, "2")).await?, (first.event.id, true));
    assert_eq!(events(&server, &log).await?.len(), 1);
    assert_eq!((ingest.counters.accepted(), ingest.counters.duplicates()), (1, 3));
    Ok(())
}

#[tokio::test]
async fn a_message_that_came_again_after_the_window_makes_no_second_event() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = forgetful(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    publish(&log, &message(&[], "1")).await?;
    publish(&log, &message(&KEY, "2")).await?;
    // A process wrote these events and died before it settled their messages.
    let mut inbox = log.read_inbox().await?;
    let mut written = 0;
    while written < 2 {
        for taken in inbox.next_batch(2).await? {
            let (sequence, stored_at) = (taken.position.sequence, taken.position.stored_at);
            let id = EventId::of_message(log.inbox_identity(), sequence, stored_at);
            let event = Event { id, ..event(0, stored_at) };
            log.publisher().event(&event).await?.stored().await?;
            written += 1;
        }
    }
    drop(inbox);
    servers_forget(&log).await?;
    let before = events(&server, &log).await?.len();
    let ingest = Ingest::start(settings).await?;
    inbox_is_empty(&server).await;
    assert_eq!(events(&server, &log).await?.len(), before, "nothing was written again");
    assert_eq!(ingest.counters.duplicates(), 2);
    Ok(())
}

#[tokio::test]
async fn a_key_whose_claimant_died_before_writing_gets_its_event() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = forgetful(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let claimed = event(1, SystemClock.now()).id;
    let keys = log.idempotency_keys().await?;
    let acme = "acme".parse()?;
    assert_eq!(keys.claim(&acme, "k", claimed).await?, KeyState::Claimed);
    let _ingest = Ingest::start(settings).await?;
    assert_eq!(ask_for_id(&log, &message(&KEY, "{}")).await?, (claimed, true));
    let events = events(&server, &log).await?;
    assert_eq!(events.iter().map(|stored| stored.event.id).collect::<Vec<_>>(), [claimed]);
    assert_eq!(keys.claim(&acme, "k", claimed).await?, KeyState::Done(claimed));
    Ok(())
}

#[tokio::test]
async fn a_key_whose_claimant_died_after_writing_makes_no_second_event() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = forgetful(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let written = event(1, SystemClock.now());
    let keys = log.idempotency_keys().await?;
    keys.claim(&written.tenant, "k", written.id).await?;
    log.publisher().event(&written).await?.stored().await?;
    servers_forget(&log).await?;
    let before = events(&server, &log).await?.len();
    let _ingest = Ingest::start(settings).await?;
    for _ in 0..2 {
        assert_eq!(ask_for_id(&log, &message(&KEY, "{}")).await?, (written.id, true));
    }
    publish(&log, &message(&KEY, "{}")).await?;
    inbox_is_empty(&server).await;
    assert_eq!(events(&server, &log).await?.len(), before);
    Ok(())
}

/// What a producer sends that names its message, and what the same one sends with a key besides.
const NAMED: &[u8] = b"NATS/1.0\r\nNats-Msg-Id: acme/1\r\n\r\n";
const NAMED_WITH_KEY: &[u8] =
    b"NATS/1.0\r\nNats-Msg-Id: acme/2\r\nFanfare-Idempotency-Key: k\r\n\r\n";

async fn send(server: &NatsServer, headers: &[u8]) -> Result<()> {
    publish_raw(server, b"fanfare.inbox.acme.invoice.paid", b"no.body", headers).await
}

/// Sends the same once more after the servers have forgotten its name.
async fn send_again_too_late(server: &NatsServer, headers: &[u8]) -> Result<()> {
    let before = server.last_sequence("FANFARE_INBOX").await?;
    wait_until("INBOX to take it once more", async || {
        send(server, headers).await.map_err(|error| error.to_string())?;
        match server.last_sequence("FANFARE_INBOX").await {
            Ok(now) if now > before => Ok(()),
            Ok(_) => Err(String::from("it is known")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_message_that_names_itself_makes_one_event_within_the_window() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let ingest = Ingest::start(settings).await?;
    send(&server, NAMED).await?;
    events_at_least(&server, &log, 1).await?;
    inbox_is_empty(&server).await;
    send(&server, NAMED).await?;
    publish(&log, &message(&[], "\"sentinel\"")).await?;
    let events = events_at_least(&server, &log, 2).await?;
    let data: Vec<_> = events.iter().map(|stored| &stored.event.data).collect();
    assert_eq!(data, ["{}", "\"sentinel\""]);
    assert_eq!(ingest.counters.duplicates(), 0, "ingest has not even seen it");
    Ok(())
}

#[tokio::test]
async fn after_the_window_only_a_key_makes_a_repeat_the_same_event() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = forgetful(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let ingest = Ingest::start(settings).await?;
    for headers in [NAMED, NAMED_WITH_KEY] {
        send(&server, headers).await?;
        send_again_too_late(&server, headers).await?;
    }
    inbox_is_empty(&server).await;
    let keys = events(&server, &log).await?.into_iter().map(|it| it.event.idempotency_key.clone());
    let keys: Vec<_> = keys.collect();
    assert_eq!(keys, [None, None, Some(String::from("k"))]);
    assert_eq!((ingest.counters.accepted(), ingest.counters.duplicates()), (3, 1));
    Ok(())
}
