//! What happens where there is no room.

use anyhow::{Result, ensure};
use fanfare_event_log::PublishAnswer;
use fanfare_testkit::{NatsServer, wait_until};

use crate::support::{
    Ingest, ask, events, events_at_least, inbox_is_empty, message, open, publish, settings, stored,
    tenant,
};

#[tokio::test]
async fn a_full_log_holds_messages_back_and_tells_requests() -> Result<()> {
    let server = NatsServer::start().await?;
    let mut settings = settings(&server);
    settings.log.stream_bytes_max = Some(200_000);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings.clone()).await?;
    let large = message(&[], format!("\"{}\"", "x".repeat(10_000)));
    let mut accepted = 0;
    let refused = loop {
        match ask(&log, &large).await? {
            PublishAnswer::Accepted { .. } => accepted += 1,
            other @ (PublishAnswer::Refused { .. } | PublishAnswer::Unavailable { .. }) => {
                break other;
            }
        }
    };
    ensure!(matches!(refused, PublishAnswer::Unavailable { .. }), "{refused:?}");
    ensure!(accepted > 10, "{accepted} were accepted, then {refused:?}");
    for _ in 0..3 {
        publish(&log, &large).await?;
    }
    // A refused message is still dealt with: only what needs room waits.
    publish(&log, &message(&[], "{")).await?;
    wait_until("the refused message is kept", async || {
        match stored(&server, "FANFARE_REJECTED").await {
            Ok(kept) if kept.len() == 1 => Ok(()),
            Ok(kept) => Err(format!("{} kept", kept.len())),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    assert_eq!(events(&server, &log).await?.len(), accepted);
    assert_eq!(stored(&server, "FANFARE_INBOX").await?.len(), 3, "nothing is lost");
    ingest.check()?;
    // It can stop although it waits for room.
    ingest.stop().await?;
    assert_eq!(stored(&server, "FANFARE_INBOX").await?.len(), 3);
    // An operator makes room.
    settings.log.stream_bytes_max = None;
    let ingest = Ingest::start(settings).await?;
    assert_eq!(events_at_least(&server, &log, accepted + 3).await?.len(), accepted + 3);
    inbox_is_empty(&server).await;
    ingest.stop().await
}

#[tokio::test]
async fn data_that_could_become_too_large_later_is_no_setting() -> Result<()> {
    let server = NatsServer::start().await?;
    let mut settings = settings(&server);
    settings.data_bytes_max = 1 << 20;
    let refused = Ingest::start(settings).await;
    ensure!(refused.is_err(), "the servers take 1 MiB in all");
    Ok(())
}
