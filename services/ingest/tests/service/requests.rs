//! Requests and their answers.

use anyhow::{Result, ensure};
use fanfare_event_log::{InboxMessage, PublishAnswer};
use fanfare_testkit::NatsServer;
use futures_util::future::try_join_all;

use crate::support::{Ingest, ask, ask_for_id, events, message, open, publish, settings, tenant};

#[tokio::test]
async fn an_answer_means_that_the_event_is_stored() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    let ingest = Ingest::start(settings).await?;
    for number in 0..20 {
        let id = format!("t{number}");
        // Known at once, although it was made a moment ago.
        tenant(&log, &id, "standard-webhooks").await?;
        let message = InboxMessage { tenant: id, ..message(&[], number.to_string()) };
        let (event, duplicate) = ask_for_id(&log, &message).await?;
        assert!(!duplicate);
        let stored = events(&server, &log).await?.pop().expect("it is stored");
        assert_eq!(stored.event.id, event);
        assert_eq!(stored.event.data, message.payload);
        assert_eq!(stored.event.accepted_at, None, "EVENTS itself accepts it");
    }
    assert_eq!(ingest.counters.accepted(), 20);
    Ok(())
}

#[tokio::test]
async fn refusals_are_typed() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    tenant(&log, "js", "kyberaccess").await?;
    let ingest = Ingest::start(settings).await?;
    let of = |tenant: &str, payload: &'static str| InboxMessage {
        tenant: tenant.to_owned(),
        ..message(&[], payload)
    };
    for (message, expected_code, expected_reason) in [
        (of("nobody", "{}"), 404, "unknown_tenant"),
        (of("acme", "{"), 400, "invalid_json"),
        (of("js", "12345678901234567890"), 422, "number_not_representable"),
        (message(&[], "\"".to_owned() + &"x".repeat(512 * 1_024) + "\""), 413, "too_large"),
        (message(&[("Content-Type", "a/b")], "{}"), 415, "unsupported_content_type"),
    ] {
        let answer = ask(&log, &message).await?;
        let PublishAnswer::Refused { code, reason, detail } = answer else {
            anyhow::bail!("{answer:?}")
        };
        assert_eq!((code, reason.as_ref()), (expected_code, expected_reason));
        assert!(!detail.is_empty());
    }
    assert!(events(&server, &log).await?.is_empty());
    let counted: u64 = ingest.counters.rejected().map(|(_, count)| count).sum();
    assert_eq!(counted, 5);
    Ok(())
}

#[tokio::test]
async fn too_many_requests_are_turned_away_and_none_is_left_without_an_answer() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = fanfare_ingest::Settings { requests_max: 1, ..settings(&server) };
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings).await?;
    let message = message(&[], "{}");
    let answers = try_join_all((0..100).map(|_| ask(&log, &message))).await?;
    let accepted =
        answers.iter().filter(|answer| matches!(answer, PublishAnswer::Accepted { .. })).count();
    let unavailable =
        answers.iter().filter(|answer| matches!(answer, PublishAnswer::Unavailable { .. })).count();
    ingest.check()?;
    assert_eq!((accepted > 0, accepted + unavailable), (true, 100), "{answers:?}");
    assert_eq!(events(&server, &log).await?.len(), accepted);
    assert_eq!(ingest.counters.unavailable(), u64::try_from(unavailable)?);
    Ok(())
}

#[tokio::test]
async fn a_stop_answers_what_is_in_hand() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let ingest = Ingest::start(settings).await?;
    ask_for_id(&log, &message(&[], "0")).await?;
    publish(&log, &message(&[], "1")).await?;
    ingest.stop().await?;
    let answer = ask(&log, &message(&[], "2")).await?;
    ensure!(matches!(answer, PublishAnswer::Unavailable { .. }), "{answer:?}");
    Ok(())
}
