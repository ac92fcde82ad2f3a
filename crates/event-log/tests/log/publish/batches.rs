//! Writing in batches: where it pays, whole or message by message, and never twice.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use async_nats::{
    Subscriber,
    jetstream::{self, message::StreamMessage, stream::Config},
};
use fanfare_domain::Event;
use fanfare_event_log::{
    Durability, EventLog, InboxMessage, Pending, PublishError, Publisher, Settings, Stored,
};
use fanfare_nats_server::{Binary, Options, Server, ServerOptions, StoreSync};
use fanfare_testkit::Proxy;
use futures_util::{
    StreamExt as _,
    future::{join_all, try_join_all},
};
use tokio::time::timeout;

use crate::support::{
    SHARD, delivery, fact, inbox, messages, now, numbered, open, outsider, retry, routed, server,
    settings, task, wait_until,
};

/// How many messages are written at once: more than go each by itself.
const MANY: u16 = 200;

/// A server that syncs each write.
async fn syncing() -> Result<Server> {
    let located = tokio::task::spawn_blocking(|| Binary::locate(&Options::from_env()));
    let options = ServerOptions { sync: StoreSync::Always, ..ServerOptions::default() };
    Server::start(&located.await??, options).await.context("start nats-server")
}

/// Settings that tell us so.
fn synced(server: &Server) -> Settings {
    let system_url = Some(server.system_url());
    Settings { durability: Durability::Site, system_url, ..settings(server) }
}

/// Sends on their way what `sending` does while the server acknowledges nothing: then messages
/// gather, however fast it is.
pub(super) async fn gather<T>(
    server: &mut Server,
    sending: impl Future<Output = Result<T>>,
) -> Result<T> {
    server.suspend()?;
    let sent = sending.await;
    server.resume()?;
    sent
}

/// Sends events on their way, all at once.
pub(super) async fn send(
    publisher: &Publisher,
    numbers: impl Iterator<Item = u16>,
) -> Result<Vec<Pending>> {
    let mut pending = Vec::new();
    for number in numbers {
        pending.push(publisher.event(&numbered(number)).await?);
    }
    Ok(pending)
}

pub(super) async fn stored(pending: Vec<Pending>) -> Result<Vec<Stored>> {
    Ok(try_join_all(pending.into_iter().map(Pending::stored)).await?)
}

/// All messages of a stream.
async fn kept(context: &jetstream::Context, stream: &str) -> Result<Vec<StreamMessage>> {
    let stream = context.get_stream(stream).await?;
    let state = &stream.cached_info().state;
    let sequences = state.first_sequence.max(1)..=state.last_sequence;
    Ok(try_join_all(sequences.map(|sequence| stream.get_raw_message(sequence))).await?)
}

/// How many messages each batch has that a stream holds something of.
pub(super) async fn batches(context: &jetstream::Context, stream: &str) -> Result<Vec<usize>> {
    let mut sizes = BTreeMap::new();
    for message in kept(context, stream).await? {
        if let Some(id) = message.headers.get("Nats-Batch-Id") {
            assert!(id.as_str().len() < 16, "each message keeps its id: {id}");
            *sizes.entry(id.as_str().to_owned()).or_default() += 1;
        }
    }
    Ok(sizes.into_values().collect())
}

/// The batches of events that come to a server, whatever becomes of them.
pub(super) struct Commits(Subscriber);

impl Commits {
    pub(super) async fn of_events(server: &Server) -> Result<Self> {
        let client = async_nats::connect(server.client_url()).await?;
        let commits = client.subscribe("fanfare.events.>").await?;
        client.flush().await?;
        Ok(Self(commits))
    }

    /// Waits for one to be committed, and returns how many messages it has.
    pub(super) async fn next(&mut self) -> Result<usize> {
        let commit = async {
            loop {
                let message = self.0.next().await.context("the connection is open")?;
                let headers = message.headers.context("it has an id")?;
                if headers.get("Nats-Batch-Commit").is_some() {
                    let number = headers.get("Nats-Batch-Sequence").context("it is numbered")?;
                    return Ok(number.as_str().parse()?);
                }
            }
        };
        timeout(Duration::from_secs(20), commit).await.context("no batch came")?
    }
}

#[tokio::test]
async fn what_gathers_on_a_syncing_server_is_written_in_batches() -> Result<()> {
    let mut server = syncing().await?;
    let log = open(&synced(&server)).await?;
    let context = outsider(&server).await?;
    let publisher = log.publisher();
    let stored = stored(gather(&mut server, send(&publisher, 0..MANY)).await?).await?;
    let sizes = batches(&context, "FANFARE_EVENTS").await?;
    assert!(sizes.iter().sum::<usize>() >= 100, "{sizes:?}");
    assert!(sizes.iter().all(|&size| size >= 50), "a small batch does not pay: {sizes:?}");
    // Each message is where it is said to be, in the order in which they were written.
    for (number, stored) in (0..MANY).zip(stored) {
        assert_eq!(stored, Stored { sequence: u64::from(number) + 1, duplicate: false });
        let read = log.event(stored.sequence).await?.context("it is stored")?;
        assert_eq!(read.event.id, numbered(number).id);
    }
    Ok(())
}

#[tokio::test]
async fn few_messages_are_written_one_by_one() -> Result<()> {
    let server = syncing().await?;
    let log = open(&synced(&server)).await?;
    let context = outsider(&server).await?;
    let publisher = log.publisher();
    for numbers in [0..1, 1..31, 31..61] {
        stored(send(&publisher, numbers).await?).await?;
    }
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, 61);
    assert!(batches(&context, "FANFARE_EVENTS").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_server_with_default_sync_is_never_sent_a_batch() -> Result<()> {
    let server = server().await?;
    let log = open(&settings(&server)).await?;
    let context = outsider(&server).await?;
    stored(send(&log.publisher(), 0..MANY).await?).await?;
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, u64::from(MANY));
    assert!(batches(&context, "FANFARE_EVENTS").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_batch_that_holds_something_known_is_resolved_one_by_one() -> Result<()> {
    let mut server = syncing().await?;
    let log = open(&synced(&server)).await?;
    let publisher = log.publisher();
    // Both are in the first batch: one that was written before, and one that is written twice.
    let (before, twice) = (60, 70);
    let known = publisher.event(&numbered(before)).await?.stored().await?;
    let numbers = || (0..=twice).chain(twice..MANY);
    let stored = stored(gather(&mut server, send(&publisher, numbers())).await?).await?;
    for (number, stored) in numbers().zip(&stored) {
        let read = log.event(stored.sequence).await?.context("it is stored")?;
        assert_eq!(read.event.id, numbered(number).id);
    }
    let duplicates: Vec<_> = stored.iter().filter(|stored| stored.duplicate).collect();
    assert_eq!(duplicates.len(), 2);
    assert_eq!(duplicates[0].sequence, known.sequence);
    assert_eq!(duplicates[1].sequence, stored[usize::from(twice)].sequence);
    let fresh = stored.iter().filter(|stored| !stored.duplicate).map(|stored| stored.sequence);
    assert!(fresh.is_sorted(), "the order of calls is kept");
    let kept = kept(&outsider(&server).await?, "FANFARE_EVENTS").await?;
    assert_eq!(kept.len(), usize::from(MANY));
    let in_batch = |sequence: u64| {
        let message = kept.iter().find(|message| message.sequence == sequence);
        message.is_some_and(|message| message.headers.get("Nats-Batch-Id").is_some())
    };
    assert!(!stored[50..100].iter().any(|stored| in_batch(stored.sequence)));
    Ok(())
}

/// The acknowledgement of a batch is lost with the connection.
#[tokio::test]
async fn a_batch_of_unknown_outcome_is_not_written_twice() -> Result<()> {
    let server = syncing().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let log = open(&Settings { url: proxy.url(), ..synced(&server) }).await?;
    let context = outsider(&server).await?;
    proxy.swallow_answers();
    let pending = send(&log.publisher(), 0..MANY).await?;
    let batch = async || Ok(batches(&context, "FANFARE_EVENTS").await?.len() == 1);
    wait_until("a batch is stored", batch).await?;
    proxy.cut();
    let stored = stored(pending).await?;
    assert!(stored.iter().any(|stored| stored.duplicate), "what was stored is known again");
    for (number, stored) in (0..MANY).zip(stored) {
        let read = log.event(stored.sequence).await?.context("it is stored")?;
        assert_eq!(read.event.id, numbered(number).id);
    }
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, u64::from(MANY));
    Ok(())
}

/// Nothing gets through until the server has forgotten the ids.
#[tokio::test]
async fn a_batch_repeated_after_the_duplicate_window_is_looked_for_first() -> Result<()> {
    let server = syncing().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let settings =
        Settings { url: proxy.url(), duplicate_window: Duration::from_secs(1), ..synced(&server) };
    let log = open(&settings).await?;
    let context = outsider(&server).await?;
    proxy.swallow_answers();
    let pending = send(&log.publisher(), 0..MANY).await?;
    let batch = async || Ok(batches(&context, "FANFARE_EVENTS").await?.len() == 1);
    wait_until("a batch is stored", batch).await?;
    let (sent, forgotten) = (now(), Duration::from_secs(2));
    wait_until("the window has passed", async || Ok(now().since(sent) > forgotten)).await?;
    proxy.cut();
    let stored = stored(pending).await?;
    assert!(stored.iter().filter(|stored| stored.duplicate).count() >= 50, "{stored:?}");
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, u64::from(MANY));
    Ok(())
}

/// Killed when the batch has come to it, and before anybody hears what became of it.
#[tokio::test]
async fn batches_written_over_a_killed_server_are_there_exactly_once() -> Result<()> {
    let mut server = syncing().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let settings =
        Settings { url: proxy.url(), duplicate_window: Duration::from_secs(1), ..synced(&server) };
    let log = open(&settings).await?;
    let publisher = log.publisher();
    for round in 0..2 {
        let mut commits = Commits::of_events(&server).await?;
        proxy.hold_answers();
        let pending = send(&publisher, round * 120..(round + 1) * 120).await?;
        assert!(commits.next().await? >= 50);
        server.kill().await?;
        proxy.cut();
        server.restart().await?;
        stored(pending).await?;
    }
    let context = outsider(&server).await?;
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, 240);
    Ok(())
}

/// So few of them fill a batch that more would be waited for in vain.
#[tokio::test]
async fn large_messages_are_written_in_batches_too() -> Result<()> {
    let mut server = syncing().await?;
    let log = open(&synced(&server)).await?;
    let context = outsider(&server).await?;
    let publisher = log.publisher();
    let sending = async {
        let mut pending = Vec::new();
        for number in 0..100 {
            let data = vec![b' '; 32 * 1024].into();
            pending.push(publisher.event(&Event { data, ..numbered(number) }).await?);
        }
        Ok(pending)
    };
    stored(gather(&mut server, sending).await?).await?;
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, 100);
    let sizes = batches(&context, "FANFARE_EVENTS").await?;
    assert!(!sizes.is_empty() && sizes.iter().all(|size| (16..50).contains(size)), "{sizes:?}");
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_is_refused_message_by_message() -> Result<()> {
    let mut server = syncing().await?;
    let log: EventLog = open(&synced(&server)).await?;
    let context = outsider(&server).await?;
    let found = context.get_stream("FANFARE_EVENTS").await?.cached_info().config.clone();
    context.update_stream(&Config { max_messages: 120, ..found }).await?;
    let publisher = log.publisher();
    let pending = gather(&mut server, send(&publisher, 0..MANY)).await?;
    let outcomes = join_all(pending.into_iter().map(Pending::stored)).await;
    let (stored, refused) = outcomes.split_at(120);
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    let full = |outcome: &Result<_, _>| matches!(outcome, Err(PublishError::Full { .. }));
    assert!(refused.iter().all(full), "{refused:?}");
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, 120);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_takes_no_batches_any_more_gets_single_messages() -> Result<()> {
    let mut server = syncing().await?;
    let log = open(&synced(&server)).await?;
    let context = outsider(&server).await?;
    let found = context.get_stream("FANFARE_EVENTS").await?.cached_info().config.clone();
    context.update_stream(&Config { allow_atomic_publish: false, ..found }).await?;
    let publisher = log.publisher();
    for numbers in [0..MANY, MANY..MANY + 20] {
        stored(gather(&mut server, send(&publisher, numbers)).await?).await?;
    }
    assert_eq!(messages(&context, "FANFARE_EVENTS").await?, u64::from(MANY) + 20);
    assert!(batches(&context, "FANFARE_EVENTS").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn every_kind_of_record_may_be_in_a_batch() -> Result<()> {
    let mut server = syncing().await?;
    let log = open(&synced(&server)).await?;
    let context = outsider(&server).await?;
    let publisher = log.publisher();
    let sending = async {
        let mut pending = Vec::new();
        for number in 0..120 {
            let bad = InboxMessage { tenant: format!("t{number}"), ..inbox("{") };
            pending.push(publisher.inbox(&inbox("{}")).await?);
            pending.push(publisher.tasks(SHARD, &[task(number, 1)]).await?);
            pending.push(publisher.routed(&[routed(number, 0, 1)]).await?);
            pending.push(publisher.rejected(&bad, "unknown_tenant", "no").await?);
            pending.push(publisher.dead(&delivery(number), &[fact(number)]).await?);
        }
        Ok(pending)
    };
    let stored = stored(gather(&mut server, sending).await?).await?;
    assert!(stored.iter().all(|stored| !stored.duplicate));
    for stream in ["INBOX", "DELIVERIES", "JOURNAL", "REJECTED", "DEAD"] {
        let stream = format!("FANFARE_{stream}");
        assert_eq!(messages(&context, &stream).await?, 120, "{stream}");
        let sizes = batches(&context, &stream).await?;
        assert!(sizes.iter().sum::<usize>() >= 50, "{stream}: {sizes:?}");
    }
    Ok(())
}

/// The server takes one schedule for each subject in a batch, and refuses it otherwise.
#[tokio::test]
async fn schedules_in_batches_are_replaced_and_fire() -> Result<()> {
    let mut server = syncing().await?;
    let log = open(&synced(&server)).await?;
    let context = outsider(&server).await?;
    let (schedules, soon) = (log.schedules(), now());
    let sending = async {
        let mut pending = Vec::new();
        for (due_at, sequence) in [(soon.saturating_add(Duration::from_hours(1)), 1), (soon, 2)] {
            for number in 0..120 {
                let retry = retry(number, due_at, sequence);
                pending.push(schedules.put(SHARD, &retry).await?);
            }
        }
        Ok(pending)
    };
    stored(gather(&mut server, sending).await?).await?;
    let due = log.topology().retry_due(SHARD);
    let stream = context.get_stream("FANFARE_RETRIES").await?;
    let fired = async || {
        let state = stream.get_info().await?.state;
        let last = stream.get_last_raw_message_by_subject(&due).await;
        Ok(state.messages == 120 && last.is_ok_and(|last| last.sequence == state.last_sequence))
    };
    wait_until("all that is left has fired", fired).await?;
    assert_eq!(log.schedules().get(SHARD, delivery(0).id).await?, None);
    Ok(())
}
