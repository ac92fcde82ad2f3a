//! Following streams up to an end, and knowing which streams they are.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::timeout;

use crate::support::{event, log, messages, outsider, server, wait_until};

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_follower_ends_where_it_was_told_and_goes_on_from_there() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let publisher = log.publisher();
    for number in 0..5 {
        publisher.event(&event(number)).await?.stored().await?;
    }
    let mut following = log.follow_events(2).await?;
    let mut found = Vec::new();
    while let Some(next) = timeout(PATIENCE, following.next_until(3)).await?? {
        found.push(next.sequence);
        // More comes all the time.
        let number = 10 + u8::try_from(next.sequence)?;
        publisher.event(&event(number)).await?.stored().await?;
    }
    assert_eq!(found, [2, 3]);
    assert_eq!(following.next_until(3).await?, None);
    assert_eq!(following.next_until(4).await?.map(|next| next.sequence), Some(4));
    assert_eq!(following.next().await?.sequence, 5);
    let mut all = log.follow_config(1).await?;
    assert_eq!(all.next_until(log.config_last().await?).await?, None, "CONFIG is empty");
    Ok(())
}

#[tokio::test]
async fn a_follower_does_not_wait_for_what_has_gone() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    for number in 0..5 {
        log.publisher().event(&event(number)).await?.stored().await?;
    }
    let mut following = log.follow_events(1).await?;
    let context = outsider(&server).await?;
    let mut config = context.get_stream("FANFARE_EVENTS").await?.cached_info().config.clone();
    (config.max_age, config.duplicate_window) = (Duration::from_secs(1), Duration::from_secs(1));
    context.update_stream(config).await?;
    wait_until("all events to age out", async || {
        Ok(messages(&context, "FANFARE_EVENTS").await? == 0)
    })
    .await?;
    // It knows of five that are ahead.
    while timeout(PATIENCE, following.next_until(5)).await??.is_some() {}
    let mut following = log.follow_events(1).await?;
    assert_eq!(timeout(PATIENCE, following.next_until(5)).await??, None);
    Ok(())
}

#[tokio::test]
async fn streams_that_are_made_anew_are_other_streams() -> Result<()> {
    let server = server().await?;
    let one = log(&server).await?;
    one.publisher().event(&event(1)).await?.stored().await?;
    let before = one.marks().await?;
    assert_eq!((before.events.last, before.journal.last, before.config.last), (1, 0, 0));
    assert_eq!(log(&server).await?.marks().await?, before, "whoever asks");
    let context = outsider(&server).await?;
    context.delete_stream("FANFARE_EVENTS").await?;
    let after = log(&server).await?.marks().await?;
    assert_ne!(after.events.stream, before.events.stream);
    assert_eq!(after.events.last, 0);
    assert_eq!((&after.journal, &after.config), (&before.journal, &before.config));
    let name = after.events.stream.split('@').next().context("a name")?;
    assert_eq!(name, "FANFARE_EVENTS");
    Ok(())
}
