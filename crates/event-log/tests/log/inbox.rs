//! INBOX has one reader at a time, who reads it without a gap.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_event_log::{EventLog, InboxMessage, ReadError, Reader};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::support::{inbox, log, outsider, server, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

async fn publish(log: &EventLog, count: usize) -> Result<()> {
    for _ in 0..count {
        log.publisher().inbox(&inbox("{}")).await?.stored().await?;
    }
    Ok(())
}

/// Reads so many messages, and returns their sequences.
async fn read(reader: &mut Reader<InboxMessage>, count: usize) -> Result<Vec<u64>> {
    let mut sequences = Vec::new();
    while sequences.len() < count {
        let batch = timeout(PATIENCE, reader.next_batch(100)).await??;
        sequences.extend(batch.iter().map(|read| read.position.sequence));
    }
    Ok(sequences)
}

#[tokio::test]
async fn whoever_takes_it_over_gets_everything_unsettled_from_the_oldest_on() -> Result<()> {
    let server = server().await?;
    let (first, second) = (log(&server).await?, log(&server).await?);
    publish(&first, 20).await?;
    let mut old = first.read_inbox().await?;
    let mut had = timeout(PATIENCE, old.next_batch(10)).await??;
    let settled = had.remove(0);
    settled.settle().await;
    let context = outsider(&server).await?;
    wait_until("one is settled", async || {
        let mut stream = context.get_stream("FANFARE_INBOX").await?;
        Ok(stream.info().await?.state.messages == 19)
    })
    .await?;
    let mut new = second.read_inbox().await?;
    assert_eq!(read(&mut new, 19).await?, (2..=20).collect::<Vec<_>>());
    publish(&first, 3).await?;
    let batch = timeout(PATIENCE, new.next_batch(1)).await??;
    assert!(batch.iter().all(|read| !read.position.suspect), "stored after it was taken over");
    let mut ended = timeout(PATIENCE, old.next_batch(100)).await?;
    while ended.is_ok() {
        // What it had fetched ahead.
        ended = timeout(PATIENCE, old.next_batch(100)).await?;
    }
    assert!(matches!(ended, Err(ReadError::TakenOver { .. })), "another has it");
    Ok(())
}

#[tokio::test]
async fn all_that_was_there_when_it_was_opened_is_suspect() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    for _ in 0..2 {
        // The same connection: whoever read it in between did so by another one.
        let mut reader = log.read_inbox().await?;
        publish(&log, 1).await?;
        let batch = timeout(PATIENCE, reader.next_batch(10)).await??;
        let new: BTreeSet<bool> = batch.iter().map(|read| read.position.suspect).collect();
        assert!(new.contains(&false), "stored after we opened it");
        drop(reader);
        let mut reader = log.read_inbox().await?;
        let batch = timeout(PATIENCE, reader.next_batch(10)).await??;
        assert!(batch.iter().all(|read| read.position.suspect && read.position.delivered == 1));
    }
    Ok(())
}

#[tokio::test]
async fn a_message_that_never_came_ends_the_reading_before_what_is_behind_it() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut reader = log.read_inbox().await?;
    publish(&log, 1).await?;
    assert_eq!(read(&mut reader, 1).await?, [1]);
    // Somebody else is given messages of the same consumer, as if they were lost on their way.
    let stream = outsider(&server).await?.get_stream("FANFARE_INBOX").await?;
    let consumer: async_nats::jetstream::consumer::PullConsumer =
        stream.get_consumer("ingest").await.map_err(anyhow::Error::from_boxed)?;
    let other = consumer.fetch().max_messages(2).expires(PATIENCE).messages().await?;
    wait_until("two ask for messages", async || {
        Ok(stream.consumer_info("ingest").await?.num_waiting > 1)
    })
    .await?;
    publish(&log, 10).await?;
    let mut read_before = Vec::new();
    let ended = loop {
        match timeout(PATIENCE, reader.next_batch(1)).await? {
            Ok(batch) => read_before.extend(batch.iter().map(|read| read.position.sequence)),
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, ReadError::Broken { .. }), "{ended:?}");
    let expected: Vec<u64> = (2..).take(read_before.len()).collect();
    assert_eq!(read_before, expected, "nothing behind the gap was read");
    drop(other);
    let mut again = log.read_inbox().await?;
    assert_eq!(read(&mut again, 11).await?, (1..=11).collect::<Vec<_>>());
    Ok(())
}

/// One that stands for the post and tells when it has it. Dropping it is like dying.
struct Candidate {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), ReadError>>,
}

impl Candidate {
    fn stands(
        log: &EventLog,
        name: &'static str,
        told: &mpsc::Sender<(&'static str, bool)>,
    ) -> Self {
        let stop = CancellationToken::new();
        let (membership, driver) = log.stand_for("post", name, stop.clone());
        let (mut tasks, told) = (JoinSet::new(), told.clone());
        tasks.spawn(driver);
        tasks.spawn(membership.work(move |duty| {
            let told = told.clone();
            async move {
                let _unheard = told.send((name, true)).await;
                duty.stop.cancelled().await;
                let _unheard = told.send((name, false)).await;
                Ok(())
            }
        }));
        Self { stop, tasks }
    }

    async fn leave(mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_post_is_one_members_and_soon_anothers_when_that_one_leaves_or_dies() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    ensure!(log.shards().get() > 1, "a post is not a shard");
    let (told, mut news) = mpsc::channel(16);
    let first = Candidate::stands(&log, "first", &told);
    assert_eq!(timeout(PATIENCE, news.recv()).await?, Some(("first", true)));
    let mut candidates = vec![("first", first)];
    for name in ["second", "third"] {
        candidates.push((name, Candidate::stands(&log, name, &told)));
    }
    let mut holder = "first";
    for dies in [false, true] {
        // Those that came may have been given it, in order.
        while let Ok(Some((name, has_it))) = timeout(Duration::from_secs(3), news.recv()).await {
            ensure!(has_it || name == holder, "{name} gave up what it did not have");
            holder = if has_it { name } else { "" };
        }
        let at = candidates.iter().position(|(name, _)| *name == holder).context("it is held")?;
        let (_, leaving) = candidates.remove(at);
        let left_at = Instant::now();
        if dies {
            drop(leaving);
        } else {
            leaving.leave().await?;
            assert_eq!(timeout(PATIENCE, news.recv()).await?, Some((holder, false)));
        }
        let (next, has_it) = timeout(PATIENCE, news.recv()).await?.context("one gets it")?;
        assert!(has_it && next != holder, "{next}");
        let limit = Duration::from_secs(if dies { 5 } else { 1 });
        assert!(left_at.elapsed() < limit, "it took {:?}", left_at.elapsed());
        holder = next;
    }
    Ok(())
}
