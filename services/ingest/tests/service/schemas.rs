//! Catalogues of event types: what is in them, and what the data has to look like.

use std::sync::Arc;

use anyhow::Result;
use fanfare_domain::{
    Change, Entity, Event, EventId, Tenant, TraceContext,
    config::{EventTypeEntry, Validation},
    tenant::UnknownTypes,
};
use fanfare_event_log::{EventLog, InboxMessage, PublishAnswer};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::{NatsServer, wait_until};

use crate::support::{
    Ingest, ask, ask_for_id, event, events, events_at_least, forgetful, inbox_is_empty, message,
    open, publish, servers_forget, settings, stored, tenant,
};

const SCHEMA: &str = r#"{"type":"object","properties":{"lines":{"items":{"properties":{"price":{"type":"number"}}}}}}"#;

async fn change(log: &EventLog, entity: Entity, expected: u64) -> Result<u64> {
    let change = Change {
        entity,
        deleted: false,
        actor: String::from("test"),
        reason: String::new(),
        trace: TraceContext::default(),
    };
    Ok(log.change(&change, expected).await?)
}

fn entry(tenant: Option<&str>, event_type: &str, validation: Validation) -> Entity {
    Entity::EventType(Arc::new(EventTypeEntry {
        tenant: tenant.map(|tenant| tenant.parse().expect("a tenant's id")),
        event_type: event_type.parse().expect("an event type"),
        description: String::new(),
        schema: String::from(SCHEMA),
        example: String::new(),
        validation,
    }))
}

async fn refusal(log: &EventLog, message: &InboxMessage) -> Result<(u16, String, String)> {
    match ask(log, message).await? {
        PublishAnswer::Refused { code, reason, detail } => Ok((code, reason.into_owned(), detail)),
        other @ (PublishAnswer::Accepted { .. } | PublishAnswer::Unavailable { .. }) => {
            anyhow::bail!("{other:?}")
        }
    }
}

#[tokio::test]
async fn what_is_enforced_is_refused_with_the_path() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    tenant(&log, "other", "standard-webhooks").await?;
    let ingest = Ingest::start(settings).await?;
    let bad = message(&[], r#"{"lines":[{"price":1},{"price":"2"}]}"#);
    ask_for_id(&log, &bad).await?;
    // What is acknowledged now holds for all that is published after it.
    let revision =
        change(&log, entry(Some("acme"), "invoice.paid", Validation::Enforce), 0).await?;
    let (code, reason, detail) = refusal(&log, &bad).await?;
    assert_eq!((code, reason.as_str()), (422, "schema_violation"));
    assert!(detail.starts_with("/lines/1/price: "), "{detail}");
    ask_for_id(&log, &message(&[], r#"{"lines":[{"price":2}]}"#)).await?;
    let others = InboxMessage { tenant: String::from("other"), ..bad.clone() };
    ask_for_id(&log, &others).await?;
    // By way of INBOX it is kept aside, whole.
    publish(&log, &bad).await?;
    inbox_is_empty(&server).await;
    wait_until("the message to be aside", async || {
        match stored(&server, "FANFARE_REJECTED").await {
            Ok(messages) if messages.len() == 1 => Ok(()),
            Ok(messages) => Err(format!("{} messages", messages.len())),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    assert_eq!(events(&server, &log).await?.len(), 3);
    change(&log, entry(Some("acme"), "invoice.paid", Validation::Off), revision).await?;
    ask_for_id(&log, &bad).await?;
    assert_eq!(ingest.counters.reported(), 0);
    Ok(())
}

#[tokio::test]
async fn what_is_reported_is_taken_and_counted() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    change(&log, entry(None, "invoice.paid", Validation::Report), 0).await?;
    let ingest = Ingest::start(settings).await?;
    for data in ["[]", r#"{"lines":[]}"#, "7"] {
        publish(&log, &message(&[], data)).await?;
    }
    events_at_least(&server, &log, 3).await?;
    assert_eq!(ingest.counters.reported(), 2);
    // The tenant's own entry counts before the installation's.
    change(&log, entry(Some("acme"), "invoice.paid", Validation::Enforce), 0).await?;
    assert_eq!(refusal(&log, &message(&[], "[]")).await?.1, "schema_violation");
    Ok(())
}

#[tokio::test]
async fn types_that_nobody_knows_are_refused_where_the_tenant_wants_that() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    let strict = |unknown_types| {
        Entity::Tenant(Arc::new(Tenant {
            id: "acme".parse().expect("a tenant's id"),
            name: String::new(),
            profile: String::from("standard-webhooks"),
            rate_limit: None,
            unknown_types,
            plan: None,
            endpoints_max: None,
            created_at: SystemClock.now(),
            expunge: None,
        }))
    };
    let revision = change(&log, strict(UnknownTypes::Refused), 0).await?;
    let ingest = Ingest::start(settings).await?;
    let unknown = message(&[], "{}");
    let (code, reason, _) = refusal(&log, &unknown).await?;
    assert_eq!((code, reason.as_str()), (422, "unknown_event_type"));
    change(&log, entry(None, "invoice.paid", Validation::Off), 0).await?;
    ask_for_id(&log, &unknown).await?;
    let other = InboxMessage { event_type: String::from("invoice.sent"), ..unknown };
    assert_eq!(refusal(&log, &other).await?.1, "unknown_event_type");
    change(&log, strict(UnknownTypes::Allowed), revision).await?;
    ask_for_id(&log, &other).await?;
    assert_eq!(ingest.counters.accepted(), 2);
    Ok(())
}

#[tokio::test]
async fn a_repeat_gets_its_answer_whatever_the_schema_says_meanwhile() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let ingest = Ingest::start(settings).await?;
    let keyed = |key: &str| message(&[("Fanfare-Idempotency-Key", key)], "[]");
    let (id, _) = ask_for_id(&log, &keyed("one")).await?;
    change(&log, entry(Some("acme"), "invoice.paid", Validation::Enforce), 0).await?;
    assert_eq!(ask_for_id(&log, &keyed("one")).await?, (id, true));
    // By way of INBOX as well: it is settled, and nothing is put aside.
    publish(&log, &keyed("one")).await?;
    inbox_is_empty(&server).await;
    assert_eq!(stored(&server, "FANFARE_REJECTED").await?.len(), 0);
    // A key that stands for nothing excuses nothing, and is not used up by a refusal.
    assert_eq!(refusal(&log, &keyed("two")).await?.1, "schema_violation");
    let good = message(&[("Fanfare-Idempotency-Key", "two")], r#"{"lines":[]}"#);
    assert!(!ask_for_id(&log, &good).await?.1);
    assert_eq!(events(&server, &log).await?.len(), 2);
    assert_eq!(ingest.counters.duplicates(), 2);
    Ok(())
}

#[tokio::test]
async fn what_was_stored_before_a_crash_is_no_violation_after_it() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = forgetful(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    publish(&log, &message(&[], "[]")).await?;
    publish(&log, &message(&[], "[1]")).await?;
    // An earlier process has written the first, and died before it could let the message go.
    let first = stored(&server, "FANFARE_INBOX").await?.remove(0);
    let id = EventId::of_message(log.inbox_identity(), first.sequence, first.stored_at);
    let written = Event { id, ..event(0, first.stored_at) };
    log.publisher().event(&written).await?.stored().await?;
    servers_forget(&log).await?;
    let before = events(&server, &log).await?.len();
    change(&log, entry(Some("acme"), "invoice.paid", Validation::Enforce), 0).await?;
    let ingest = Ingest::start(settings).await?;
    inbox_is_empty(&server).await;
    wait_until("the other message to be aside", async || {
        match stored(&server, "FANFARE_REJECTED").await {
            Ok(messages) if !messages.is_empty() => Ok(()),
            Ok(_) => Err(String::from("none")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    let aside = stored(&server, "FANFARE_REJECTED").await?;
    assert_eq!(aside.iter().map(|message| &*message.payload).collect::<Vec<_>>(), [b"[1]"]);
    assert_eq!(events(&server, &log).await?.len(), before);
    assert_eq!(ingest.counters.duplicates(), 1);
    Ok(())
}
