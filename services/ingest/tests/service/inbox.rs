//! From INBOX to EVENTS and REJECTED.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_domain::{EventId, InboxEvent, Timestamp};
use fanfare_event_log::{EventLog, InboxMessage, inbox::encode_protobuf};
use fanfare_testkit::{NatsServer, Overheard, StoredMessage};
use tokio::task::JoinSet;

use crate::support::{
    Ingest, events, events_at_least, inbox_is_empty, message, open, publish, settings, stored,
    tenant,
};

#[tokio::test]
async fn json_becomes_an_event_with_an_id_of_its_message() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let ingest = Ingest::start(settings).await?;
    let headers = [("Fanfare-Occurred-At", "2026-11-22T06:15:03Z"), ("Fanfare-Ordering-Key", "o")];
    let sequence = publish(&log, &message(&headers, " {\"total\": 1.50}")).await?;
    publish(&log, &message(&[], "1")).await?;
    let events = events_at_least(&server, &log, 2).await?;
    let event = &events[0].event;
    let accepted_at = event.accepted_at.expect("INBOX stored it");
    assert_eq!(event.id, EventId::of_message(log.inbox_identity(), sequence, accepted_at));
    assert_eq!((event.tenant.as_str(), event.event_type.as_str()), ("acme", "invoice.paid"));
    assert_eq!(event.data, " {\"total\": 1.50}");
    assert_eq!(Some(event.occurred_at), Timestamp::parse("2026-11-22T06:15:03Z"));
    assert_eq!(event.ordering_key.as_deref(), Some("o"));
    assert_eq!(events[0].accepted_at, accepted_at);
    let second = &events[1].event;
    assert_eq!(Some(second.occurred_at), second.accepted_at);
    let revision = log.config_last().await?;
    assert!(events.iter().all(|stored| stored.event.config_revision == Some(revision)));
    inbox_is_empty(&server).await;
    assert_eq!(ingest.counters.accepted(), 2);
    ingest.stop().await
}

#[tokio::test]
async fn cloudevents_and_protobuf_become_events() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let _ingest = Ingest::start(settings).await?;
    let structured = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n": 1}}"#;
    let protobuf = InboxEvent {
        data: Bytes::from_static(b"{\"n\": 3}"),
        ordering_key: Some(String::from("o")),
        ..InboxEvent::default()
    };
    let binary = [("ce-specversion", "1.0"), ("ce-id", "2"), ("ce-source", "/s"), ("ce-type", "t")];
    for message in [
        message(&[("Content-Type", "application/cloudevents+json")], structured),
        message(&binary, "{\"n\": 2}"),
        message(&[("Content-Type", "application/protobuf")], encode_protobuf(&protobuf)),
    ] {
        publish(&log, &message).await?;
    }
    let events = events_at_least(&server, &log, 3).await?;
    let data: Vec<&Bytes> = events.iter().map(|stored| &stored.event.data).collect();
    assert_eq!(data, ["{\"n\": 1}", "{\"n\": 2}", "{\"n\": 3}"]);
    assert_eq!(events[0].event.idempotency_key.as_deref(), Some("/s 1"));
    assert_eq!(events[1].event.attributes.get("ce-id").map(String::as_str), Some("2"));
    assert_eq!(events[2].event.ordering_key.as_deref(), Some("o"));
    Ok(())
}

fn header<'a>(message: &'a StoredMessage, name: &str) -> Option<&'a str> {
    message.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn poison_is_put_aside_once_and_holds_nothing_up() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings).await?;
    let nobody = InboxMessage { tenant: String::from("nobody"), ..message(&[], "{}") };
    let poison = [
        (message(&[], "{"), "invalid_json"),
        (message(&[], Bytes::from_static(b"\"\xff\"")), "invalid_utf8"),
        (message(&[], "{\"a\":1,\"a\":2}"), "duplicate_key"),
        (message(&[], "[".repeat(200) + &"]".repeat(200)), "too_deep"),
        (message(&[], format!("\"{}\"", "x".repeat(512 * 1_024))), "too_large"),
        (message(&[("Content-Type", "text/plain")], "x"), "unsupported_content_type"),
        (message(&[("Fanfare-Occurred-At", "x")], "{}"), "malformed_header"),
        (message(&[("ce-specversion", "0.1")], "{}"), "malformed_cloudevent"),
        (message(&[("Content-Type", "application/protobuf")], "{}"), "malformed_protobuf"),
        (nobody, "unknown_tenant"),
    ];
    for (message, _) in &poison {
        publish(&log, message).await?;
    }
    // A sentinel: whatever came before it has been dealt with when it is there.
    publish(&log, &message(&[], "\"sentinel\"")).await?;
    assert_eq!(events_at_least(&server, &log, 1).await?[0].event.data, "\"sentinel\"");
    inbox_is_empty(&server).await;
    let mut rejected = stored(&server, "FANFARE_REJECTED").await?;
    rejected.sort_by_key(|message| message.sequence);
    for (message, reason) in &poison {
        let kept = rejected.iter().find(|kept| header(kept, "Fanfare-Reason") == Some(reason));
        let kept = kept.unwrap_or_else(|| panic!("{reason} is not among {}", rejected.len()));
        assert_eq!(kept.payload, message.payload, "{reason}");
        assert_eq!(header(kept, "Fanfare-Tenant"), Some(message.tenant.as_str()));
        assert!(header(kept, "Fanfare-Detail").is_some_and(|detail| !detail.is_empty()));
    }
    assert_eq!(rejected.len(), poison.len());
    let counted: u64 = ingest.counters.rejected().map(|(_, count)| count).sum();
    assert_eq!(counted, 10);
    ingest.check()
}

#[tokio::test]
async fn a_tenant_made_just_before_is_known() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    let ingest = Ingest::start(settings).await?;
    for number in 0..20 {
        let id = format!("t{number}");
        tenant(&log, &id, "standard-webhooks").await?;
        publish(&log, &InboxMessage { tenant: id, ..message(&[], "{}") }).await?;
    }
    assert_eq!(events_at_least(&server, &log, 20).await?.len(), 20);
    assert!(ingest.counters.rejected().all(|(_, count)| count == 0));
    Ok(())
}

#[tokio::test]
async fn messages_keep_their_order_and_one_process_reads_them() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let count = 500;
    let publisher = log.publisher();
    let mut pending = Vec::new();
    for number in 0..count {
        // Some with keys, which are looked up at the same time.
        let key = number.to_string();
        let headers = [("Fanfare-Idempotency-Key", key.as_str())];
        let headers: &[_] = if number % 3 == 0 { &headers } else { &[] };
        pending.push(publisher.inbox(&message(headers, number.to_string())).await?);
    }
    for pending in pending {
        pending.stored().await?;
    }
    let one = Ingest::start(settings.clone()).await?;
    let numbers = |events: Vec<fanfare_domain::StoredEvent>| -> Vec<usize> {
        events
            .iter()
            .filter_map(|stored| std::str::from_utf8(&stored.event.data).ok()?.parse().ok())
            .collect()
    };
    let taken = numbers(events_at_least(&server, &log, count).await?);
    assert!(taken.is_sorted() && taken.len() == count, "{taken:?}");
    let two = Ingest::start(settings).await?;
    for number in 0..count {
        publish(&log, &message(&[], number.to_string())).await?;
    }
    inbox_is_empty(&server).await;
    let stored = numbers(events(&server, &log).await?);
    assert_eq!(stored.len(), 2 * count);
    one.stop().await?;
    // Whoever read until now, the other goes on at once.
    publish(&log, &message(&[], "0")).await?;
    events_at_least(&server, &log, 2 * count + 1).await?;
    // It is counted before it is settled, and stored before that.
    inbox_is_empty(&server).await;
    assert!(two.counters.accepted() > 0, "the second process does nothing");
    two.stop().await
}

/// Puts many messages into INBOX, and waits until they are there.
async fn flood(log: &EventLog, count: usize) -> Result<()> {
    let (publisher, message) = (log.publisher(), message(&[], "{}"));
    let mut answers = JoinSet::new();
    for _ in 0..count {
        answers.spawn(publisher.inbox(&message).await?.stored());
    }
    while let Some(answer) = answers.join_next().await {
        answer??;
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_asks_for_the_configuration_less_often_than_it_has_batches() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    // 32 batches or more, some of which may be smaller.
    flood(&log, 4_096).await?;
    let question = "$JS.API.STREAM.MSG.GET.FANFARE_CONFIG";
    let mut questions = Overheard::on(server.url(), question).await?;
    let ingest = Ingest::start(settings).await?;
    inbox_is_empty(&server).await;
    assert_eq!(ingest.counters.accepted(), 4_096);
    let asked = questions.all().await?.len();
    assert!(asked < 16, "{asked} questions");
    ingest.stop().await
}

#[tokio::test]
async fn a_flood_hides_no_change_that_was_acknowledged_before_a_message() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let ingest = Ingest::start(settings).await?;
    for number in 0..20 {
        let (flooded, mut flooding) = (log.clone(), JoinSet::new());
        flooding.spawn(async move { flood(&flooded, 1_024).await });
        let id = format!("new-{number}");
        tenant(&log, &id, "standard-webhooks").await?;
        publish(&log, &InboxMessage { tenant: id, ..message(&[], "1") }).await?;
        flooding.join_next().await.context("it was spawned")???;
    }
    inbox_is_empty(&server).await;
    assert_eq!(stored(&server, "FANFARE_REJECTED").await?.len(), 0);
    ingest.stop().await
}
