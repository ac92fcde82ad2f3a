//! The events of a key are stored in the order of INBOX, whatever happens meanwhile.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::StoredEvent;
use fanfare_event_log::{EventLog, InboxMessage, PublishAnswer, inbox::encode_protobuf};
use fanfare_ingest::Settings;
use fanfare_testkit::{NatsServer, Proxy, wait_until};
use tokio::time::{Instant, sleep};

use crate::support::{
    Ingest, ask, events, events_at_least, forgetful, inbox_is_empty, message, open, publish,
    servers_forget, settings, tenant,
};

/// How many keys there are.
const KEYS: usize = 7;
/// Within which another process reads INBOX if the one that did is dead.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);

/// The message of a number: every third without a key, the others of some keys in turn, which they
/// give in different ways.
fn numbered(number: usize) -> InboxMessage {
    let key = format!("k{}", number % KEYS);
    let data = number.to_string();
    let idempotency = format!("i{number}");
    match number % 6 {
        0 | 3 => message(&[], data),
        1 => message(&[("Fanfare-Ordering-Key", &key)], data),
        2 => {
            let event = fanfare_domain::InboxEvent {
                data: data.into_bytes().into(),
                ordering_key: Some(key),
                ..fanfare_domain::InboxEvent::default()
            };
            message(&[("Content-Type", "application/protobuf")], encode_protobuf(&event))
        }
        4 => {
            let headers =
                [("Fanfare-Ordering-Key", key.as_str()), ("Fanfare-Idempotency-Key", &idempotency)];
            message(&headers, data)
        }
        _ => message(
            &[
                ("ce-specversion", "1.0"),
                ("ce-id", &idempotency),
                ("ce-source", "/s"),
                ("ce-type", "t"),
                ("ce-partitionkey", &key),
            ],
            data,
        ),
    }
}

/// Puts numbered messages into INBOX, in order.
async fn publish_numbers(log: &EventLog, numbers: std::ops::Range<usize>) -> Result<()> {
    let publisher = log.publisher();
    let mut pending = Vec::new();
    for number in numbers {
        pending.push(publisher.inbox(&numbered(number)).await?);
    }
    for pending in pending {
        pending.stored().await?;
    }
    Ok(())
}

/// The numbers of each key, in the order of EVENTS; those without a key are under none.
fn lines(events: &[StoredEvent]) -> Result<BTreeMap<Option<&str>, Vec<usize>>> {
    let mut lines = BTreeMap::<_, Vec<_>>::new();
    for stored in events {
        let text = std::str::from_utf8(&stored.event.data)?;
        // Others only show whether the servers forget.
        if let Ok(number) = text.parse() {
            lines.entry(stored.event.ordering_key.as_deref()).or_default().push(number);
        }
    }
    Ok(lines)
}

/// Checks that all are there, once, and those of a key in order.
fn check(events: &[StoredEvent], count: usize) -> Result<()> {
    let lines = lines(events)?;
    let mut all: Vec<usize> = lines.values().flatten().copied().collect();
    all.sort_unstable();
    let doubled: Vec<_> =
        all.iter().zip(all.iter().skip(1)).filter(|(one, next)| one == next).collect();
    ensure!(doubled.is_empty(), "doubled: {doubled:?}");
    ensure!(all == (0..count).collect::<Vec<_>>(), "lost: {} of {count} are there", all.len());
    for (key, numbers) in lines.iter().filter(|(key, _)| key.is_some()) {
        ensure!(numbers.is_sorted(), "{key:?} is out of order: {numbers:?}");
        ensure!(numbers.len() > 1, "{key:?} has nothing to order");
    }
    ensure!(lines.len() == KEYS + 1, "{} lines", lines.len());
    Ok(())
}

/// A proxy before the server, and settings with which all goes by it.
async fn behind_a_proxy(server: &mut NatsServer, near: &Settings) -> Result<(Proxy, Settings)> {
    let proxy = Proxy::to(server.server().client_address()).await?;
    let mut far = near.clone();
    far.log.url = proxy.url();
    Ok((proxy, far))
}

#[tokio::test]
async fn a_connection_that_is_cut_again_and_again_changes_no_order() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let near = settings(&server);
    let (proxy, far) = behind_a_proxy(&mut server, &near).await?;
    let log = open(&near).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(far).await?;
    let (rounds, each) = (6, 300);
    for round in 0..rounds {
        publish_numbers(&log, round * each..(round + 1) * each).await?;
        // In the midst of it: what is on its way in either direction is lost.
        events_at_least(&server, &log, round * each + 20 + round * 15).await?;
        proxy.cut();
        ingest.check()?;
    }
    events_at_least(&server, &log, rounds * each).await?;
    inbox_is_empty(&server).await;
    check(&events(&server, &log).await?, rounds * each)?;
    ingest.stop().await
}

#[tokio::test]
async fn acknowledgements_that_vanish_change_no_order() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let near = settings(&server);
    let (proxy, far) = behind_a_proxy(&mut server, &near).await?;
    let log = open(&near).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let ingest = Ingest::start(far).await?;
    let (rounds, each) = (3, 200);
    for round in 0..rounds {
        let (begin, middle, end) = (round * each, round * each + each / 2, (round + 1) * each);
        publish_numbers(&log, begin..middle).await?;
        events_at_least(&server, &log, begin + 10).await?;
        proxy.swallow_answers();
        publish_numbers(&log, middle..end).await?;
        // The time for which nothing is answered is the fault itself.
        sleep(Duration::from_millis(500)).await;
        proxy.cut();
    }
    inbox_is_empty(&server).await;
    check(&events(&server, &log).await?, rounds * each)?;
    ingest.stop().await
}

#[tokio::test]
async fn a_log_that_is_full_for_a_while_changes_no_order() -> Result<()> {
    let server = NatsServer::start().await?;
    let mut settings = settings(&server);
    settings.log.ack_wait = Duration::from_secs(1);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut ingest = Ingest::start(settings.clone()).await?;
    let (first, count) = (50, 450);
    publish_numbers(&log, 0..first).await?;
    events_at_least(&server, &log, first).await?;
    server.set_bytes_max("FANFARE_EVENTS", 30_000).await?;
    publish_numbers(&log, first..count).await?;
    // Longer than `ack_wait`: what is in hand is handed out again meanwhile.
    sleep(settings.log.ack_wait * 2).await;
    ensure!(events(&server, &log).await?.len() < count, "there was room");
    ingest.check()?;
    server.set_bytes_max("FANFARE_EVENTS", -1).await?;
    inbox_is_empty(&server).await;
    check(&events(&server, &log).await?, count)?;
    ingest.stop().await
}

#[tokio::test]
async fn killed_again_and_again_it_keeps_the_order() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = forgetful(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let (rounds, each) = (3, 200);
    for round in 0..rounds {
        publish_numbers(&log, round * each..(round + 1) * each).await?;
        let before = events(&server, &log).await?.len();
        let ingest = Ingest::start(settings.clone()).await?;
        events_at_least(&server, &log, before + 20).await?;
        drop(ingest);
        servers_forget(&log).await?;
    }
    let ingest = Ingest::start(settings).await?;
    inbox_is_empty(&server).await;
    check(&events(&server, &log).await?, rounds * each)?;
    ingest.stop().await
}

#[tokio::test]
async fn one_that_was_cut_off_and_replaced_writes_nothing_when_it_is_back() -> Result<()> {
    let mut server = NatsServer::start().await?;
    // The servers will have forgotten what it wrote, and what the other one writes.
    let near = forgetful(&server);
    let (proxy, far) = behind_a_proxy(&mut server, &near).await?;
    let log = open(&near).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let cut_off = Ingest::start(far).await?;
    let (first, second, third) = (400, 600, 650);
    publish_numbers(&log, 0..first).await?;
    events_at_least(&server, &log, 20).await?;
    proxy.block();
    let other = Ingest::start(near).await?;
    publish_numbers(&log, first..second).await?;
    inbox_is_empty(&server).await;
    ensure!(other.counters.accepted() > 0, "it was not replaced");
    servers_forget(&log).await?;
    proxy.cut();
    publish_numbers(&log, second..third).await?;
    inbox_is_empty(&server).await;
    // It leaves in order, so it has been back.
    cut_off.stop().await?;
    check(&events(&server, &log).await?, third)?;
    other.stop().await
}

/// Which of them reads INBOX: takes it out.
async fn reader(log: &EventLog, all: &mut Vec<Ingest>) -> Result<Ingest> {
    let before: Vec<u64> = all.iter().map(|one| one.counters.accepted()).collect();
    publish(log, &message(&[], "\"whose\"")).await?;
    let mut at = 0;
    wait_until("one of them reads it", async || {
        let grown = |(one, before): (&Ingest, &u64)| one.counters.accepted() > *before;
        at = all.iter().zip(&before).position(grown).ok_or(())?;
        Ok::<_, ()>(())
    })
    .await;
    Ok(all.remove(at))
}

#[tokio::test]
async fn another_process_goes_on_where_one_stops_or_dies() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let mut all = vec![Ingest::start(settings.clone()).await?];
    let each = 300;
    let mut published = 0;
    for dies in [false, true, false, true] {
        all.push(Ingest::start(settings.clone()).await?);
        let leaving = reader(&log, &mut all).await?;
        let before = events(&server, &log).await?.len();
        publish_numbers(&log, published..published + each).await?;
        published += each;
        events_at_least(&server, &log, before + 30).await?;
        let at = Instant::now();
        if dies {
            drop(leaving);
        } else {
            leaving.stop().await?;
        }
        let gone = events(&server, &log).await?.len();
        publish_numbers(&log, published..published + each).await?;
        published += each;
        events_at_least(&server, &log, gone + 1).await?;
        let idle = at.elapsed();
        ensure!(idle < TAKEOVER_MAX, "nobody read INBOX for {idle:?}");
    }
    inbox_is_empty(&server).await;
    check(&events(&server, &log).await?, published)?;
    for one in all {
        one.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn those_that_stand_by_answer_requests_too() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let all = [Ingest::start(settings.clone()).await?, Ingest::start(settings).await?];
    for _ in 0..100 {
        let answer = ask(&log, &message(&[], "{}")).await?;
        ensure!(matches!(answer, PublishAnswer::Accepted { .. }), "{answer:?}");
    }
    for one in all {
        ensure!(one.counters.accepted() > 10, "the requests are shared");
        one.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_busy_key_holds_no_others_up() -> Result<()> {
    let server = NatsServer::start().await?;
    let settings = settings(&server);
    let log = open(&settings).await?;
    tenant(&log, "acme", "standard-webhooks").await?;
    let publisher = log.publisher();
    let busy = 300;
    let mut pending = Vec::new();
    for number in 0..busy {
        let message = message(&[("Fanfare-Ordering-Key", "busy")], number.to_string());
        pending.push(publisher.inbox(&message).await?);
    }
    for headers in [&[][..], &[("Fanfare-Ordering-Key", "other")]] {
        pending.push(publisher.inbox(&message(headers, "\"behind\"")).await?);
    }
    for pending in pending {
        pending.stored().await?;
    }
    let ingest = Ingest::start(settings).await?;
    let events = events_at_least(&server, &log, busy + 2).await?;
    let lines = lines(&events)?;
    let line = lines.get(&Some("busy")).context("it is there")?;
    assert_eq!(*line, (0..busy).collect::<Vec<_>>());
    let behind = events.iter().rposition(|stored| stored.event.data == "\"behind\"");
    let last = events.iter().rposition(|stored| stored.event.data != "\"behind\"");
    ensure!(behind < last, "at {behind:?}, behind all that came before");
    ingest.stop().await
}
