//! Writing: known again inside and outside of the duplicate window, refused when full.

mod batches;
mod replicated;

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use async_nats::jetstream::stream::Config;
use fanfare_domain::{EndpointId, Fact, Timestamp};
use fanfare_event_log::{EventLog, Pending, PublishError, Settings};
use fanfare_testkit::{NatsServer, Proxy};
use tokio::time::Instant;

use crate::support::{
    SHARD, delivery, event, fact, forgetful, inbox, log, messages, now, open, outsider, routed,
    server, settings, task, wait_until,
};

#[tokio::test]
async fn an_event_is_stored_once_and_reads_back() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let publisher = log.publisher();
    let stored = publisher.event(&event(1)).await?.stored().await?;
    assert!(!stored.duplicate);
    let again = publisher.event(&event(1)).await?.stored().await?;
    assert!(again.duplicate);
    assert_eq!(again.sequence, stored.sequence);
    let read = log.event(stored.sequence).await?.expect("it is stored");
    assert_eq!(*read.event, event(1));
    assert_eq!(log.event(stored.sequence + 1).await?, None);
    Ok(())
}

#[tokio::test]
async fn every_kind_of_record_is_known_again() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let publisher = log.publisher();
    for known in [false, true] {
        let pending = [
            publisher.tasks(SHARD, &[task(1, 1)]).await?,
            publisher.routed(&[routed(1, 0, 1), routed(2, 0, 1)]).await?,
            publisher.rejected(&inbox("{"), "invalid_json", "line 1\nmore").await?,
            publisher.dead(&delivery(1), &[fact(1)]).await?,
        ];
        for pending in pending {
            assert_eq!(pending.stored().await?.duplicate, known);
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_refused_is_kept_whole_and_harmless() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut message = inbox("{");
    message.tenant = String::from("*");
    message.headers = fanfare_event_log::Headers::new(vec![
        (String::from("Nats-Rollup"), String::from("all")),
        (String::from("traceparent"), String::from("00-x")),
    ]);
    log.publisher()
        .rejected(&message, "unknown_tenant", "no\r\nNats-Rollup: all")
        .await?
        .stored()
        .await?;
    let context = outsider(&server).await?;
    let kept = context.get_stream("FANFARE_REJECTED").await?.get_raw_message(1).await?;
    assert_eq!(kept.subject.as_str(), "fanfare.rejected._");
    let header = |name: &str| kept.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("Nats-Rollup"), None);
    assert_eq!(header("Fanfare-Original-Nats-Rollup").as_deref(), Some("all"));
    assert_eq!(header("Fanfare-Reason").as_deref(), Some("unknown_tenant"));
    assert_eq!(header("Fanfare-Detail").as_deref(), Some("no"));
    assert_eq!(header("Fanfare-Tenant").as_deref(), Some("*"));
    assert_eq!(header("traceparent").as_deref(), Some("00-x"));
    assert_eq!(kept.payload, "{");
    Ok(())
}

#[tokio::test]
async fn a_full_inbox_refuses_one_subject_and_takes_others() -> Result<()> {
    let server = server().await?;
    let log = open(&Settings { inbox_per_subject_max: 2, ..settings(&server) }).await?;
    let publisher = log.publisher();
    for _ in 0..2 {
        publisher.inbox(&inbox("{}")).await?.stored().await?;
    }
    let refused = publisher.inbox(&inbox("{}")).await?.stored().await;
    assert!(matches!(refused, Err(PublishError::Full { .. })), "{refused:?}");
    let mut other = inbox("{}");
    other.event_type = String::from("invoice.sent");
    publisher.inbox(&other).await?.stored().await?;
    Ok(())
}

#[tokio::test]
async fn what_makes_no_subject_or_is_too_large_is_refused_at_once() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let publisher = log.publisher();
    for (tenant, event_type) in
        [("a b", "x"), ("", "x"), ("a", ""), ("a", "x.>"), ("a.b", "x"), ("a", "x..y")]
    {
        let mut message = inbox("{}");
        (message.tenant, message.event_type) = (tenant.to_owned(), event_type.to_owned());
        let refused = publisher.inbox(&message).await;
        assert!(matches!(refused, Err(PublishError::Malformed { .. })), "{tenant} {event_type}");
    }
    let mut large = inbox("");
    large.payload = vec![b' '; log.payload_max() - 60_000].into();
    assert!(matches!(publisher.inbox(&large).await, Err(PublishError::TooLarge { .. })));
    let mut large = event(1);
    large.data = vec![b' '; log.payload_max()].into();
    assert!(matches!(publisher.event(&large).await, Err(PublishError::TooLarge { .. })));
    Ok(())
}

#[tokio::test]
async fn a_window_of_one_still_gets_everything_through() -> Result<()> {
    let server = server().await?;
    let log = open(&Settings { window: 1, ..settings(&server) }).await?;
    let publisher = log.publisher();
    for number in 0..20 {
        publisher.event(&event(number)).await?.stored().await?;
    }
    let context = outsider(&server).await?;
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, 20);
    Ok(())
}

/// Events are written while the server is killed and comes back, again and again.
#[tokio::test]
async fn events_written_over_a_killed_server_are_there_exactly_once() -> Result<()> {
    let mut server = server().await?;
    let log = open(&forgetful(&server)).await?;
    let publisher = log.publisher();
    for round in 0..3_u8 {
        let mut pending = Vec::new();
        for number in 0..40 {
            pending.push(publisher.event(&event(round * 40 + number)).await?);
        }
        let (outcomes, killed) = tokio::join!(
            futures_util::future::join_all(pending.into_iter().map(Pending::stored)),
            async {
                server.kill().await?;
                server.restart().await?;
                anyhow::Ok(())
            }
        );
        killed?;
        for outcome in outcomes {
            outcome?;
        }
    }
    let context = outsider(&server).await?;
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, 120);
    Ok(())
}

/// The acknowledgement is lost, and nothing gets through until the server has forgotten the id.
#[tokio::test]
async fn a_publish_repeated_after_the_duplicate_window_is_looked_for_first() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let log = open(&Settings { url: proxy.url(), ..forgetful(&server) }).await?;
    let context = outsider(&server).await?;
    let publisher = log.publisher();
    publisher.event(&event(0)).await?.stored().await?;
    proxy.swallow_answers();
    let sent = now();
    let pending = [
        publisher.event(&event(1)).await?,
        publisher.routed(&[routed(1, 0, 1)]).await?,
        publisher.rejected(&inbox("{"), "invalid_json", "line 1").await?,
        publisher.dead(&delivery(1), &[fact(1)]).await?,
    ];
    let streams = ["FANFARE_EVENTS", "FANFARE_JOURNAL", "FANFARE_REJECTED", "FANFARE_DEAD"];
    let counted = async || {
        let counts = streams.map(|stream| messages(&context, stream));
        futures_util::future::try_join_all(counts).await
    };
    wait_until("all is stored", async || Ok(counted().await? == [2, 1, 1, 1])).await?;
    let forgotten = Duration::from_secs(2);
    wait_until("the window has passed", async || Ok(now().since(sent) > forgotten)).await?;
    proxy.cut();
    for pending in pending {
        assert!(pending.stored().await?.duplicate);
    }
    assert_eq!(counted().await?, [2, 1, 1, 1]);
    Ok(())
}

/// As above, within the window: then the server knows the id again.
#[tokio::test]
async fn a_publish_repeated_within_the_duplicate_window_is_known_again() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let log = open(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let context = outsider(&server).await?;
    let publisher = log.publisher();
    proxy.swallow_answers();
    let pending = publisher.event(&event(1)).await?;
    wait_until("it is stored", async || Ok(messages(&context, "FANFARE_EVENTS").await? == 1))
        .await?;
    proxy.cut();
    let stored = pending.stored().await?;
    assert_eq!((stored.sequence, stored.duplicate), (1, true));
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, 1);
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_once_the_log_is_closed() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let publisher = log.publisher();
    log.close().await;
    let refused = publisher.event(&event(1)).await;
    assert!(matches!(refused, Err(PublishError::Closed)));
    Ok(())
}

#[tokio::test]
async fn closing_does_not_wait_for_a_server_that_is_gone() -> Result<()> {
    let mut server = server().await?;
    let log = log(&server).await?;
    server.kill().await?;
    let pending = log.publisher().event(&event(1)).await?;
    let begun = Instant::now();
    let (refused, ()) = tokio::join!(pending.stored(), log.close());
    assert!(matches!(refused, Err(PublishError::Closed)), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
async fn events_on_record_are_found_from_a_time_on() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let wanted: BTreeSet<_> = [1, 2, 3].map(|number| event(number).id).into();
    assert!(log.events_on_record(&wanted, Timestamp::EPOCH, None).await?.is_empty());
    for number in [1, 3, 5] {
        log.publisher().event(&event(number)).await?.stored().await?;
    }
    let found = log.events_on_record(&wanted, Timestamp::EPOCH, None).await?;
    assert_eq!(found, [1, 3].map(|number| event(number).id).into());
    let late = now().saturating_add(Duration::from_mins(1));
    assert!(log.events_on_record(&wanted, late, None).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn ids_of_events_are_read_once_for_many_questions() -> Result<()> {
    let server = NatsServer::start().await?;
    let log = server.log().await?;
    let mut readers = server.count_readers("FANFARE_EVENTS").await?;
    let mut ids = log.event_ids();
    for number in (1..=40).filter(|number| number % 3 != 0) {
        log.publisher().event(&event(number)).await?.stored().await?;
        // The one before, this one, and one that comes later or never.
        let wanted: BTreeSet<_> =
            [number - 1, number, number + 1].map(|number| event(number).id).into();
        let alone = log.events_on_record(&wanted, Timestamp::EPOCH, None);
        assert_eq!(ids.on_record(&wanted, Timestamp::EPOCH).await?, alone.await?, "{number}");
    }
    // One reader for all, and one for each question that is asked alone.
    assert_eq!(readers.count().await?, 1 + 27);
    let earlier: BTreeSet<_> = [1, 2, 3].map(|number| event(number).id).into();
    let found = ids.on_record(&earlier, Timestamp::EPOCH).await?;
    assert_eq!(
        found,
        [1, 2].map(|number| event(number).id).into(),
        "what was forgotten is read again"
    );
    ids.rest().await;
    let late = now().saturating_add(Duration::from_mins(1));
    assert!(ids.on_record(&earlier, late).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn recorded_routings_are_found_whole_or_not_at_all() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let publisher = log.publisher();
    publisher.routed(&[routed(1, 0, 2)]).await?.stored().await?;
    publisher.routed(&[routed(1, 1, 2), routed(2, 0, 2)]).await?.stored().await?;
    let wanted: BTreeSet<_> = [1, 2, 3].map(|number| (event(number).id, 0)).into();
    let found = log.routed_on_record(&wanted, Timestamp::EPOCH, 2).await?;
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [(event(1).id, 0)]);
    let whole = &found[&(event(1).id, 0)];
    assert_eq!((whole.routed.targets.len(), whole.sequence), (2, 1));
    assert!(log.routed_on_record(&wanted, Timestamp::EPOCH, 1).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_replay_puts_on_record_everybody_for_whom_it_comes_to_an_event() -> Result<()> {
    let server = server().await?;
    let publisher = log(&server).await?.publisher();
    let of = |generation: u32, endpoints: &[u8]| {
        let mut record = routed(1, 0, 1);
        if let Fact::EventRouted(routed) = &mut record.fact {
            routed.generation = generation;
            routed.targets = endpoints.iter().map(|it| EndpointId::from_bytes([*it; 16])).collect();
        }
        record
    };
    for (record, is_known) in [
        (of(7, &[1, 2]), false),
        (of(7, &[3]), false),
        (of(7, &[1, 2]), true),
        (of(7, &[1, 2, 4]), false),
        (of(8, &[3]), false),
        // As it was when it was accepted counts, whatever it would be by now.
        (of(0, &[1]), false),
        (of(0, &[2]), true),
    ] {
        let stored = publisher.routed(&[record.clone()]).await?.stored().await?;
        assert_eq!(stored.duplicate, is_known, "{:?}", record.fact);
    }
    Ok(())
}

#[tokio::test]
async fn a_full_event_log_refuses_and_keeps_what_it_has() -> Result<()> {
    let server = server().await?;
    let log: EventLog = log(&server).await?;
    let context = outsider(&server).await?;
    let found = context.get_stream("FANFARE_EVENTS").await?.cached_info().config.clone();
    context.update_stream(&Config { max_messages: 1, ..found }).await?;
    let publisher = log.publisher();
    publisher.event(&event(1)).await?.stored().await?;
    let refused = publisher.event(&event(2)).await?.stored().await;
    assert!(matches!(refused, Err(PublishError::Full { .. })), "{refused:?}");
    assert!(log.event(1).await?.is_some());
    Ok(())
}
