//! One key, one event; one message, one event.

use std::collections::BTreeSet;

use anyhow::Result;
use fanfare_domain::{Event, EventId};
use fanfare_event_log::idempotency::KeyState;
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::NatsServer;
use futures_util::future::try_join_all;

use crate::support::{
    Ingest, ask_for_id, event, events, events_at_least, forgetful, inbox_is_empty, message, open,
    publish, servers_forget, settings, tenant,
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
