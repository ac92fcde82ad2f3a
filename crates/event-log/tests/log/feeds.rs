//! Feeds: their bucket, its view, and reading events without a consumer.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_domain::{
    EndpointId, Event, EventId, Feed, Timestamp, TraceContext,
    feed::{Phase, Reason},
};
use fanfare_event_log::{
    EventLog, FeedsView,
    feeds::{Reach, Written},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{SHARD, log, server};

fn feed(number: u8, next: u64) -> Feed {
    Feed {
        tenant: "acme".parse().unwrap(),
        endpoint: EndpointId::from_bytes([number; 16]),
        from: 1,
        phase: Phase::Open,
        reason: Reason::Backlog,
        opened_at: Timestamp::EPOCH,
        next,
        blocked: Vec::new(),
        past: Vec::new(),
        ended: Vec::new(),
        ended_since: 0,
        taken_over: Vec::new(),
    }
}

async fn publish(log: &EventLog, number: u64, event_type: &str) -> Result<u64> {
    let event = Event {
        id: EventId::of_message("test", number, Timestamp::from_millis(number)),
        tenant: "acme".parse()?,
        event_type: event_type.parse()?,
        occurred_at: Timestamp::EPOCH,
        accepted_at: None,
        config_revision: None,
        data: Bytes::from(format!("\"{number}\"")),
        ordering_key: None,
        attributes: BTreeMap::new(),
        idempotency_key: None,
        trace: TraceContext::default(),
    };
    Ok(log.publisher().event(&event).await?.stored().await?.sequence)
}

#[tokio::test]
async fn a_feed_is_written_only_over_what_its_writer_knows() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let stop = CancellationToken::new();
    let (view, follow) = FeedsView::start(&log, stop.clone()).await?;
    let mut following = JoinSet::new();
    following.spawn(follow);
    let Written::Stored(first) = log.write_feed(SHARD, &feed(1, 1), 0).await? else {
        anyhow::bail!("there is none yet")
    };
    let conflict = log.write_feed(SHARD, &feed(1, 2), 0).await?;
    let known = Some(Box::new(feed(1, 1)));
    assert_eq!(conflict, Written::Conflict { revision: first, feed: known });
    assert!(matches!(log.write_feed(SHARD, &feed(1, 3), first).await?, Written::Stored(_)));
    assert!(matches!(log.write_feed(SHARD, &feed(2, 4), 0).await?, Written::Stored(_)));
    view.confirm().await?;
    let seen: Vec<u64> =
        view.read(|feeds| feeds.of_shard(SHARD).map(|stored| stored.feed.next).collect());
    assert_eq!(seen, [3, 4]);
    let endpoint = feed(1, 1).endpoint;
    let revision = view.read(|feeds| feeds.of(endpoint).map(|stored| stored.revision));
    let removed = log.remove_feed(SHARD, endpoint, revision.unwrap_or_default()).await?;
    let Written::Stored(marker) = removed else { anyhow::bail!("nobody else writes") };
    view.confirm().await?;
    assert!(view.read(|feeds| feeds.of(endpoint).is_none() && !feeds.is_empty()));
    // It is made again from the revision of its removal.
    let conflict = log.write_feed(SHARD, &feed(1, 5), 0).await?;
    assert_eq!(conflict, Written::Conflict { revision: marker, feed: None });
    assert!(matches!(log.write_feed(SHARD, &feed(1, 5), marker).await?, Written::Stored(_)));
    stop.cancel();
    following.join_next().await.context("it was spawned")???;
    Ok(())
}

#[tokio::test]
async fn events_are_read_in_order_some_at_a_time() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let before = log.first_event_at(Timestamp::EPOCH).await?;
    assert_eq!(before, 1, "there are none");
    let mut wanted = Vec::new();
    for number in 0..30 {
        let event_type = if number % 3 == 0 { "order.paid" } else { "invoice.paid.late" };
        let sequence = publish(&log, number, event_type).await?;
        wanted.extend((number % 3 != 0).then_some(sequence));
    }
    let patterns = vec!["invoice.paid.*".parse()?, "invoice.sent".parse()?];
    let mut reach = Reach { tenant: "acme".parse()?, patterns, from: 1, count: 8, bytes: 1 << 20 };
    let mut found = Vec::new();
    loop {
        let batch = log.read_feed(&reach).await?;
        assert!(batch.events.len() <= 8);
        found.extend(batch.events.iter().map(|event| event.sequence));
        reach.from = batch.next;
        if !batch.more {
            break;
        }
    }
    assert_eq!(found, wanted);
    let (tenant, patterns) = (&reach.tenant, &reach.patterns);
    assert_eq!(log.first_event(tenant, patterns, wanted[3]).await?, Some(wanted[3]));
    assert_eq!(log.first_event(tenant, patterns, reach.from).await?, None);
    assert_eq!(log.read_feed(&reach).await?.events.len(), 0);
    assert_eq!(log.first_event_at(Timestamp::EPOCH).await?, 1);
    let last = log.event(30).await?.map(|stored| stored.accepted_at).unwrap_or_default();
    assert!((30..=31).contains(&log.first_event_at(last).await?));
    let later = last.saturating_add(Duration::from_hours(1));
    assert_eq!(log.first_event_at(later).await?, 31);
    assert_eq!(log.routed_until().await?, 0);
    Ok(())
}
