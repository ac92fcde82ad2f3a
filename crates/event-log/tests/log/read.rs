//! Reading: handed out again until settled, suspect when it has to be, poison set aside.

use std::time::Duration;

use anyhow::Result;
use fanfare_event_log::{
    Column, EventLog, ReadError, Settings,
    journal::{From, JournalFilter},
};
use fanfare_testkit::Proxy;
use tokio::time::timeout;

use crate::support::{
    Overheard, SHARD, event, fact, inbox, log, messages, now, open, outsider, overhear, patient,
    retry, server, settings, task, time, wait_until,
};

async fn unsettled(
    context: &async_nats::jetstream::Context,
    stream: &str,
    consumer: &str,
) -> Result<usize> {
    let stream = context.get_stream(stream).await?;
    Ok(stream.consumer_info(consumer).await?.num_ack_pending)
}

#[tokio::test]
async fn what_producers_send_comes_as_it_is() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut reader = log.read_inbox().await?;
    let context = outsider(&server).await?;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Fanfare-Idempotency-Key", "k");
    let sent = context.publish_with_headers("fanfare.inbox.acme.a.b", headers, "{}".into()).await?;
    sent.await?;
    context.publish("fanfare.inbox.lonely", "".into()).await?.await?;
    let mut read = reader.next_batch(10).await?;
    while read.len() < 2 {
        read.extend(reader.next_batch(10).await?);
    }
    let [first, second] = read.as_slice() else { panic!("{} messages", read.len()) };
    assert_eq!((first.record.tenant.as_str(), first.record.event_type.as_str()), ("acme", "a.b"));
    assert_eq!(first.record.headers.get("fanfare-idempotency-key"), Some("k"));
    assert_eq!(first.record.payload, "{}");
    assert_eq!((first.position.sequence, first.position.delivered), (1, 1));
    assert!(!first.position.suspect, "it is new and came once");
    assert_eq!((second.record.tenant.as_str(), second.record.event_type.as_str()), ("lonely", ""));
    Ok(())
}

#[tokio::test]
async fn a_record_comes_again_until_it_is_settled() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    log.publisher().event(&event(1)).await?.stored().await?;
    let mut reader = log.read_events().await?;
    let first = reader.next_batch(5).await?.remove(0);
    assert!(first.position.suspect, "it was stored before we came");
    first.settler.redeliver(Duration::ZERO).await;
    let second = reader.next_batch(5).await?.remove(0);
    assert_eq!(second.record.event.id, event(1).id);
    assert_eq!(second.position.delivered, 2);
    assert!(second.position.suspect, "it was handed out before");
    second.settle().await;
    let context = outsider(&server).await?;
    wait_until("it is settled", async || {
        Ok(unsettled(&context, "FANFARE_EVENTS", "fan-out").await? == 0)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_record_that_is_held_does_not_come_again() -> Result<()> {
    let server = server().await?;
    let ack_wait = Duration::from_secs(5);
    let log = open(&Settings { ack_wait, ..settings(&server) }).await?;
    let mut reader = log.read_events().await?;
    for number in [1, 2] {
        log.publisher().event(&event(number)).await?.stored().await?;
    }
    let held = reader.next_batch(1).await?.remove(0);
    let forgotten = reader.next_batch(1).await?.remove(0);
    let again = loop {
        held.settler.hold().await;
        if let Ok(again) = timeout(ack_wait / 20, reader.next_batch(1)).await {
            break again?.remove(0);
        }
    };
    assert_eq!(again.position.sequence, forgotten.position.sequence);
    held.settle().await;
    again.settle().await;
    let context = outsider(&server).await?;
    wait_until("both are settled", async || {
        Ok(unsettled(&context, "FANFARE_EVENTS", "fan-out").await? == 0)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_dropped_call_loses_no_record() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut reader = log.read_inbox().await?;
    let nothing = timeout(Duration::from_millis(50), reader.next_batch(10)).await;
    assert!(nothing.is_err(), "there is nothing yet");
    for _ in 0..30 {
        log.publisher().inbox(&inbox("{}")).await?.stored().await?;
    }
    let mut sequences = Vec::new();
    while sequences.len() < 30 {
        let batch = reader.next_batch(7).await?;
        assert!((1..=7).contains(&batch.len()));
        sequences.extend(batch.iter().map(|read| read.position.sequence));
    }
    assert_eq!(sequences, (1..=30).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn what_was_stored_before_a_reconnect_is_suspect() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let log = open(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let other = self::log(&server).await?;
    let mut reader = log.read_events().await?;
    log.publisher().event(&event(1)).await?.stored().await?;
    let before = reader.next_batch(1).await?.remove(0);
    assert!(!before.position.suspect, "stored after we connected");
    before.settle().await;
    proxy.block();
    wait_until("the connection is lost", async || Ok(!log.is_connected())).await?;
    other.publisher().event(&event(2)).await?.stored().await?;
    proxy.cut();
    let between = reader.next_batch(1).await?.remove(0);
    assert_eq!((between.position.sequence, between.position.delivered), (2, 1));
    assert!(between.position.suspect, "another process may have had it meanwhile");
    between.settle().await;
    log.publisher().event(&event(3)).await?.stored().await?;
    let after = reader.next_batch(1).await?.remove(0);
    assert!(!after.position.suspect, "stored after we connected again");
    Ok(())
}

#[tokio::test]
async fn reading_goes_on_over_a_killed_server() -> Result<()> {
    let mut server = server().await?;
    let log = log(&server).await?;
    let mut reader = log.read_events().await?;
    for number in 0..5_u8 {
        log.publisher().event(&event(number)).await?.stored().await?;
        // A killed server may have forgotten what was settled, and hands it out again.
        loop {
            let read = timeout(Duration::from_secs(20), reader.next_batch(1)).await??.remove(0);
            let id = read.record.event.id;
            read.settle().await;
            if id == event(number).id {
                break;
            }
        }
        server.kill().await?;
        server.restart().await?;
    }
    Ok(())
}

#[tokio::test]
async fn poison_is_set_aside_with_its_place_and_passed_over() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let context = outsider(&server).await?;
    context.publish("fanfare.deliveries.1", "no task".into()).await?.await?;
    log.publisher().tasks(SHARD, &[task(1, 1)]).await?.stored().await?;
    let mut reader = log.read_tasks(SHARD).await?;
    let read = reader.next_batch(10).await?;
    assert_eq!(read.iter().map(|read| read.position.sequence).collect::<Vec<_>>(), [2]);
    let aside = context.get_stream("FANFARE_REJECTED").await?.get_raw_message(1).await?;
    assert_eq!(aside.subject.as_str(), "fanfare.aside.DELIVERIES");
    assert_eq!(aside.payload, "no task");
    let header = |name: &str| aside.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("Fanfare-Aside-Stream").as_deref(), Some("FANFARE_DELIVERIES"));
    assert_eq!(header("Fanfare-Aside-Sequence").as_deref(), Some("1"));
    assert_eq!(header("Fanfare-Aside-Subject").as_deref(), Some("fanfare.deliveries.1"));
    assert!(header("Fanfare-Aside-Error").is_some_and(|error| !error.is_empty()));
    wait_until("it is settled", async || Ok(messages(&context, "FANFARE_DELIVERIES").await? == 1))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_new_owner_gets_at_once_what_the_old_one_had() -> Result<()> {
    let server = server().await?;
    let (first, second) = (log(&server).await?, log(&server).await?);
    for number in 0..10 {
        first.publisher().tasks(SHARD, &[task(number, 1)]).await?.stored().await?;
    }
    let mut old = first.read_tasks(SHARD).await?;
    let mut had = old.next_batch(10).await?;
    while had.len() < 10 {
        had.extend(old.next_batch(10).await?);
    }
    let settled = had.remove(0);
    settled.settle().await;
    let context = outsider(&server).await?;
    wait_until("one is settled", async || Ok(messages(&context, "FANFARE_DELIVERIES").await? == 9))
        .await?;
    let mut new = second.read_tasks(SHARD).await?;
    let mut got = Vec::new();
    while got.len() < 9 {
        got.extend(timeout(Duration::from_secs(5), new.next_batch(10)).await??);
    }
    assert_eq!(got[0].position.sequence, 2);
    let ended = old.next_batch(1).await;
    assert!(matches!(ended, Err(ReadError::TakenOver { .. })), "another has it");
    // What the old one finishes late still counts.
    had.remove(0).settle().await;
    wait_until("another is settled", async || {
        Ok(messages(&context, "FANFARE_DELIVERIES").await? == 8)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_reader_that_stops_gives_back_what_it_fetched() -> Result<()> {
    let server = server().await?;
    let (first, second) = (log(&server).await?, log(&server).await?);
    let mut leaving = first.read_inbox().await?;
    for _ in 0..50 {
        first.publisher().inbox(&inbox("{}")).await?.stored().await?;
    }
    for read in leaving.next_batch(1).await? {
        read.settle().await;
    }
    leaving.stop().await;
    first.close().await;
    let mut staying = second.read_inbox().await?;
    let mut count = 0;
    while count < 49 {
        let batch = timeout(Duration::from_secs(5), staying.next_batch(50)).await??;
        count += batch.len();
    }
    Ok(())
}

#[tokio::test]
async fn acks_are_not_lost_by_closing() -> Result<()> {
    let server = server().await?;
    let settings = settings(&server);
    // A runtime of its own ends as a process does: what is queued then is gone.
    let work = move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let log = open(&settings).await?;
            for number in 0..20 {
                log.publisher().event(&event(number)).await?.stored().await?;
            }
            let mut reader = log.read_events().await?;
            let mut read = Vec::new();
            while read.len() < 20 {
                read.extend(reader.next_batch(20).await?);
            }
            for read in read {
                read.settle().await;
            }
            log.close().await;
            Ok(())
        })
    };
    tokio::task::spawn_blocking(work).await??;
    let context = outsider(&server).await?;
    assert_eq!(unsettled(&context, "FANFARE_EVENTS", "fan-out").await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_oldest_reference_of_both_queues_is_found() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    assert_eq!(log.oldest_unsettled(SHARD).await?, None);
    for number in 0..30 {
        log.publisher()
            .tasks(SHARD, &[task(number, 100 + u64::from(number))])
            .await?
            .stored()
            .await?;
    }
    assert_eq!(log.oldest_unsettled(SHARD).await?, Some(100));
    log.publisher().tasks(SHARD, &[task(40, 50)]).await?.stored().await?;
    assert_eq!(log.oldest_unsettled(SHARD).await?, Some(50));
    let schedules = log.schedules();
    schedules.put(SHARD, &retry(50, now(), 7)).await?.stored().await?;
    wait_until("it is due", async || Ok(log.oldest_unsettled(SHARD).await? == Some(7))).await?;
    Ok(())
}

#[tokio::test]
async fn the_oldest_reference_is_found_in_a_long_queue() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let publisher = log.publisher();
    let mut pending = Vec::new();
    for number in 0..2500_u64 {
        let mut task = task(u8::try_from(number % 250)?, 10_000 - number);
        task.generation = u32::try_from(number)?;
        pending.push(publisher.tasks(SHARD, std::slice::from_ref(&task)).await?);
        if pending.len() == 500 {
            for pending in pending.drain(..) {
                pending.stored().await?;
            }
        }
    }
    assert_eq!(log.oldest_unsettled(SHARD).await?, Some(7501));
    Ok(())
}

#[tokio::test]
async fn unsettled_records_come_again_after_the_wait() -> Result<()> {
    let server = server().await?;
    let settings = Settings { ack_wait: Duration::from_secs(1), ..settings(&server) };
    let log: EventLog = open(&settings).await?;
    log.publisher().event(&event(1)).await?.stored().await?;
    let mut reader = log.read_events().await?;
    assert_eq!(reader.next_batch(1).await?.len(), 1);
    let again = timeout(Duration::from_secs(20), reader.next_batch(1)).await??.remove(0);
    assert_eq!(again.position.delivered, 2);
    Ok(())
}

/// How long a caller waits who looks after other things in between.
const MOMENT: Duration = Duration::from_millis(10);

/// Calls and drops the call, again and again, until something was asked and many times after.
async fn call_and_drop(
    heard: &mut Overheard,
    mut call: impl AsyncFnMut() -> bool,
) -> Result<usize> {
    let mut asked = 0;
    wait_until("it is asked", async || {
        anyhow::ensure!(!call().await, "nothing could be answered");
        asked += heard.all().await?.len();
        Ok(asked > 0)
    })
    .await?;
    for _ in 0..30 {
        anyhow::ensure!(!call().await, "nothing could be answered");
    }
    Ok(asked + heard.all().await?.len())
}

#[tokio::test]
async fn dropped_calls_make_one_consumer_for_the_journal() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let log = patient(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let mut reader = log.journal(JournalFilter::All, From::New).await?;
    assert!(timeout(MOMENT, reader.next()).await.is_err(), "nothing is there");
    remove_consumers(&server, &log, "FANFARE_JOURNAL").await?;
    let mut made = overhear(&server, "$JS.API.CONSUMER.CREATE.>").await?;
    proxy.hold_answers();
    let calls = async || timeout(MOMENT, reader.next()).await.is_ok();
    assert_eq!(call_and_drop(&mut made, calls).await?, 1);
    proxy.release();
    let other = self::log(&server).await?;
    let mut writer = other.claim(SHARD, Column::Plans, "other", time(1)).await?;
    let written = writer.append(&[fact(1)]).await?;
    while reader.next().await?.sequence < written {}
    assert_eq!(made.all().await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn dropped_calls_open_a_queue_once() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let log = patient(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let mut reader = log.read_events().await?;
    assert!(timeout(MOMENT, reader.next_batch(1)).await.is_err(), "nothing is there");
    remove_consumers(&server, &log, "FANFARE_EVENTS").await?;
    let mut made = overhear(&server, "$JS.API.CONSUMER.*.FANFARE_EVENTS.>").await?;
    proxy.hold_answers();
    let calls = async || timeout(MOMENT, reader.next_batch(1)).await.is_ok();
    assert_eq!(call_and_drop(&mut made, calls).await?, 1);
    proxy.release();
    self::log(&server).await?.publisher().event(&event(1)).await?.stored().await?;
    assert_eq!(reader.next_batch(1).await?.remove(0).record.event.id, event(1).id);
    Ok(())
}

#[tokio::test]
async fn dropped_calls_do_not_set_poison_aside_again_and_again() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let log = open(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let mut reader = log.read_tasks(SHARD).await?;
    assert!(timeout(MOMENT, reader.next_batch(1)).await.is_err(), "nothing is there");
    let context = outsider(&server).await?;
    context.publish("fanfare.deliveries.1", "no task".into()).await?.await?;
    wait_until("it is on its way", async || {
        Ok(unsettled(&context, "FANFARE_DELIVERIES", "dispatcher-1").await? == 1)
    })
    .await?;
    log.journal_last().await?;
    let mut set_aside = overhear(&server, "fanfare.aside.>").await?;
    proxy.hold_answers();
    let calls = async || timeout(MOMENT, reader.next_batch(1)).await.is_ok();
    let sent = call_and_drop(&mut set_aside, calls).await?;
    // Without an acknowledgement it is sent again, but not with each of more than thirty calls.
    assert!(sent < 10, "it was sent {sent} times");
    proxy.release();
    self::log(&server).await?.publisher().tasks(SHARD, &[task(1, 1)]).await?.stored().await?;
    assert_eq!(reader.next_batch(1).await?.remove(0).position.sequence, 2);
    Ok(())
}

/// Removes a stream's consumers, whose readers ask for messages, and returns when `log` was told.
async fn remove_consumers(
    server: &fanfare_nats_server::Server,
    log: &EventLog,
    stream: &str,
) -> Result<()> {
    use futures_util::TryStreamExt as _;

    let stream = outsider(server).await?.get_stream(stream).await?;
    let names: Vec<String> = stream.consumer_names().try_collect().await?;
    for name in names {
        wait_until("its reader asks", async || {
            Ok(stream.consumer_info(&name).await?.num_waiting > 0)
        })
        .await?;
        stream.delete_consumer(&name).await?;
    }
    log.journal_last().await?;
    Ok(())
}
