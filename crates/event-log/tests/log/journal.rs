//! The journal: one writer per column, read in order from any place.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use fanfare_domain::{Conclusion, Fact, Outcome, Record, Shard, fact::AttemptMade};
use fanfare_event_log::{
    AppendError, Column, JournalBatch, JournalFilter, JournalReader, JournalWriter, ReadError,
    Settings, journal::From,
};
use fanfare_testkit::Proxy;
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

use crate::support::{
    SHARD, attempt, ended, fact, forgetful, log, made, messages, now, open, outsider, routed,
    server, settings, time, wait_until,
};

/// Everything up to the journal's end, as of now.
async fn rest(reader: &mut JournalReader, last: u64) -> Result<Vec<JournalBatch>> {
    let mut batches = Vec::new();
    while let Some(batch) = timeout(Duration::from_secs(20), reader.next_until(last)).await?? {
        batches.push(batch);
    }
    Ok(batches)
}

fn sequences(batches: &[JournalBatch]) -> Vec<u64> {
    batches.iter().map(|batch| batch.sequence).collect()
}

fn epoch(record: &Record) -> Option<u64> {
    if let Fact::ShardClaimed(claimed) = &record.fact { Some(claimed.epoch) } else { None }
}

#[tokio::test]
async fn a_later_claim_supersedes_an_earlier_one() -> Result<()> {
    let server = server().await?;
    let (first, second) = (log(&server).await?, log(&server).await?);
    let mut old = first.claim(SHARD, Column::Attempts, "old", time(0)).await?;
    assert_eq!((old.epoch(), old.claimed_at()), (1, 1));
    assert_eq!(old.append(&[fact(1), fact(2)]).await?, 2);
    let mut new = second.claim(SHARD, Column::Attempts, "new", time(1)).await?;
    assert_eq!((new.epoch(), new.claimed_at()), (2, 3));
    let Err(AppendError::Superseded { owner, epoch, .. }) = old.append(&[fact(3)]).await else {
        panic!("the old owner could write");
    };
    assert_eq!((owner.as_str(), epoch), ("new", 2));
    assert_eq!(new.append(&[fact(4)]).await?, 4);
    let refused = old.append(&[fact(3)]).await;
    assert!(matches!(refused, Err(AppendError::Superseded { .. })), "also behind facts");
    let context = outsider(&server).await?;
    assert_eq!(messages(&context, "FANFARE_JOURNAL").await?, 4);
    Ok(())
}

#[tokio::test]
async fn other_columns_and_shards_are_claimed_on_their_own() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut attempts = log.claim(SHARD, Column::Attempts, "a", time(0)).await?;
    let mut plans = log.claim(SHARD, Column::Plans, "b", time(0)).await?;
    let mut other = log.claim(Shard::from_index(2), Column::Attempts, "c", time(0)).await?;
    for writer in [&mut attempts, &mut plans, &mut other] {
        assert_eq!(writer.epoch(), 1);
        writer.append(&[fact(1)]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn of_many_claims_at_once_each_gets_an_epoch_and_the_last_one_writes() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let owners = ["a", "b", "c", "d", "e", "f"];
    let claims = owners.map(|owner| log.claim(SHARD, Column::Plans, owner, time(0)));
    let mut writers = futures_util::future::try_join_all(claims).await?;
    let epochs: BTreeSet<u64> = writers.iter().map(JournalWriter::epoch).collect();
    assert_eq!(epochs, (1..=6).collect());
    let mut wrote = Vec::new();
    for writer in &mut writers {
        if writer.append(&[fact(1)]).await.is_ok() {
            wrote.push(writer.epoch());
        }
    }
    assert_eq!(wrote, [6]);
    Ok(())
}

#[tokio::test]
async fn read_briefly_an_accepted_attempt_lacks_what_was_said_and_a_failed_one_is_whole()
-> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut writer = log.claim(SHARD, Column::Attempts, "me", time(0)).await?;
    let accepted = attempt(1, Outcome::Accepted { status: 200 });
    let refused = attempt(2, Outcome::Refused { status: 500, retry_after: None });
    let facts = |accepted: &AttemptMade| {
        let first = [made(accepted.clone()), ended(1, Conclusion::Delivered)];
        first.into_iter().chain([made(refused.clone()), ended(2, Conclusion::Refused)])
    };
    let whole: Vec<Record> = facts(&accepted).collect();
    let sequence = writer.append(&whole).await?;
    let brief = AttemptMade {
        url: Arc::default(),
        signature: String::new(),
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        ..accepted.clone()
    };
    let from = From::Sequence(sequence);
    let mut reader = log.journal(JournalFilter::All, from).await?.brief();
    assert_eq!(reader.next().await?.facts, facts(&brief).collect::<Vec<_>>());
    let mut reader = log.journal(JournalFilter::All, from).await?;
    assert_eq!(reader.next().await?.facts, whole);
    Ok(())
}

#[tokio::test]
async fn batches_over_a_killed_server_are_there_exactly_once() -> Result<()> {
    let mut server = server().await?;
    let log = open(&forgetful(&server)).await?;
    let mut writer = log.claim(SHARD, Column::Attempts, "me", time(0)).await?;
    let mut expected = vec![writer.claimed_at()];
    for number in 0..3 {
        let (facts, killed) = tokio::join!(
            async {
                let mut sequences = Vec::new();
                for step in 0..20 {
                    sequences.push(writer.append(&[fact(number * 20 + step)]).await?);
                }
                anyhow::Ok(sequences)
            },
            async {
                server.kill().await?;
                server.restart().await?;
                anyhow::Ok(())
            }
        );
        killed?;
        expected.extend(facts?);
    }
    let mut reader = log.journal(JournalFilter::All, From::Sequence(1)).await?;
    let batches = rest(&mut reader, log.journal_last().await?).await?;
    assert_eq!(sequences(&batches), expected);
    let facts: Vec<_> = batches.into_iter().skip(1).flat_map(|batch| batch.facts).collect();
    assert_eq!(facts, (0..60).map(fact).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_batch_whose_acknowledgement_is_lost_counts_once() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let log = open(&Settings { url: proxy.url(), ..forgetful(&server) }).await?;
    let context = outsider(&server).await?;
    let mut writer = log.claim(SHARD, Column::Attempts, "me", time(0)).await?;
    proxy.swallow_answers();
    let facts = [fact(1)];
    let (sequence, cut) = tokio::join!(writer.append(&facts), async {
        let stored = async || Ok(messages(&context, "FANFARE_JOURNAL").await? == 2);
        wait_until("the batch is stored", stored).await?;
        proxy.cut();
        anyhow::Ok(())
    });
    cut?;
    assert_eq!(sequence?, 2);
    assert_eq!(writer.append(&[fact(2)]).await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_batch_that_nobody_waited_for_does_not_stop_the_writer() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut writer = log.claim(SHARD, Column::Attempts, "me", time(0)).await?;
    {
        let facts = [fact(1)];
        let mut append = Box::pin(writer.append(&facts));
        // Polled once: it is on its way.
        assert!(futures_util::poll!(&mut append).is_pending());
    }
    writer.append(&[fact(2)]).await?;
    let mut reader = log.journal(JournalFilter::All, From::Sequence(2)).await?;
    let batches = rest(&mut reader, log.journal_last().await?).await?;
    let facts: Vec<_> = batches.into_iter().flat_map(|batch| batch.facts).collect();
    assert_eq!(facts, [fact(1), fact(2)]);
    Ok(())
}

#[tokio::test]
async fn an_empty_journal_is_read_to_its_end_at_once() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    for from in [From::Sequence(0), From::Sequence(1), From::Time(now()), From::New] {
        let mut reader = log.journal(JournalFilter::All, from).await?;
        assert_eq!(rest(&mut reader, log.journal_last().await?).await?, []);
        assert_eq!(rest(&mut reader, 1000).await?, [], "there is nothing to wait for");
    }
    Ok(())
}

#[tokio::test]
async fn a_filter_ends_where_its_last_batch_is() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut attempts = log.claim(SHARD, Column::Attempts, "a", time(0)).await?;
    attempts.append(&[fact(1)]).await?;
    let mut plans = log.claim(SHARD, Column::Plans, "p", time(0)).await?;
    for number in 0..5 {
        log.publisher().routed(&[routed(number, 0, 1)]).await?.stored().await?;
    }
    let mut other = log.claim(Shard::from_index(3), Column::Plans, "o", time(0)).await?;
    let last = log.journal_last().await?;
    assert_eq!(last, 9);
    for (filter, expected) in [
        (JournalFilter::All, vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (JournalFilter::Shard(SHARD), vec![1, 2, 3]),
        (JournalFilter::Column(SHARD, Column::Plans), vec![3]),
        (JournalFilter::Deliveries, vec![1, 2, 3, 9]),
        (JournalFilter::Routed, vec![4, 5, 6, 7, 8]),
        (JournalFilter::Shard(Shard::from_index(0)), vec![]),
    ] {
        let mut reader = log.journal(filter.clone(), From::Sequence(1)).await?;
        assert_eq!(sequences(&rest(&mut reader, last).await?), expected, "{filter:?}");
        assert_eq!(sequences(&rest(&mut reader, last).await?), [0; 0], "{filter:?}");
    }
    // An end before the last batch; then the rest, and what comes.
    let mut reader = log.journal(JournalFilter::Deliveries, From::Sequence(2)).await?;
    assert_eq!(sequences(&rest(&mut reader, 3).await?), [2, 3]);
    assert_eq!(sequences(&rest(&mut reader, 8).await?), [0; 0]);
    plans.append(&[fact(2)]).await?;
    other.append(&[fact(3)]).await?;
    assert_eq!(reader.next().await?.sequence, 9);
    let batch = reader.next().await?;
    assert_eq!((batch.sequence, batch.column), (10, Some((SHARD, Column::Plans))));
    assert_eq!(sequences(&rest(&mut reader, log.journal_last().await?).await?), [11]);
    Ok(())
}

#[tokio::test]
async fn reading_begins_at_a_time_or_with_what_comes() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut writer = log.claim(SHARD, Column::Attempts, "a", time(0)).await?;
    writer.append(&[fact(1)]).await?;
    let second = log.journal_batch(2).await?.expect("it is stored");
    assert_eq!(second.facts, [fact(1)]);
    assert_eq!(log.journal_batch(3).await?, None);
    let mut from_time = log.journal(JournalFilter::All, From::Time(second.stored_at)).await?;
    let mut from_new = log.journal(JournalFilter::All, From::New).await?;
    writer.append(&[fact(2)]).await?;
    assert_eq!(from_time.next().await?, second);
    assert_eq!(from_time.next().await?.facts, [fact(2)]);
    assert_eq!(from_new.next().await?.facts, [fact(2)]);
    Ok(())
}

#[tokio::test]
async fn a_reader_misses_and_repeats_nothing_over_a_killed_server() -> Result<()> {
    let mut server = server().await?;
    let log = log(&server).await?;
    let mut reader = log.journal(JournalFilter::Column(SHARD, Column::Attempts), From::New).await?;
    let mut writer = log.claim(SHARD, Column::Attempts, "a", time(0)).await?;
    assert_eq!(epoch(&reader.next().await?.facts[0]), Some(1));
    for round in 0..3 {
        writer.append(&[fact(round * 2)]).await?;
        let batch = timeout(Duration::from_secs(20), reader.next()).await??;
        assert_eq!(batch.facts, [fact(round * 2)]);
        writer.append(&[fact(round * 2 + 1)]).await?;
        server.kill().await?;
        server.restart().await?;
        let last = log.journal_last().await?;
        let batches = rest(&mut reader, last).await?;
        assert_eq!(sequences(&batches), [last]);
        assert_eq!(batches[0].facts, [fact(round * 2 + 1)]);
    }
    Ok(())
}

/// What the server had sent when the connection broke is lost, and the server does not know.
#[tokio::test]
async fn what_was_under_way_when_the_connection_broke_is_read_again() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let reading = open(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let writing = log(&server).await?;
    let mut writer = writing.claim(SHARD, Column::Attempts, "a", time(0)).await?;
    let mut reader = reading.journal(JournalFilter::All, From::Sequence(1)).await?;
    assert_eq!(reader.next().await?.sequence, 1);
    proxy.swallow_answers();
    writer.append(&[fact(1)]).await?;
    let context = outsider(&server).await?;
    let sent = async || {
        let stream = context.get_stream("FANFARE_JOURNAL").await?;
        let consumers: Vec<_> = stream.consumers().try_collect().await?;
        Ok(consumers.iter().any(|consumer| consumer.delivered.stream_sequence == 2))
    };
    wait_until("it is sent", sent).await?;
    proxy.cut();
    let batch = timeout(Duration::from_secs(20), reader.next()).await??;
    assert_eq!(batch.facts, [fact(1)]);
    Ok(())
}

#[tokio::test]
async fn facts_that_nobody_can_read_are_set_aside_and_passed_over() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let context = outsider(&server).await?;
    context.publish("fanfare.journal.1.attempts", "no facts".into()).await?.await?;
    let mut writer = log.claim(SHARD, Column::Attempts, "a", time(0)).await?;
    let mut reader = log.journal(JournalFilter::All, From::Sequence(1)).await?;
    assert_eq!(reader.next().await?.sequence, 2);
    let aside = context.get_stream("FANFARE_REJECTED").await?.get_raw_message(1).await?;
    assert_eq!(aside.subject.as_str(), "fanfare.aside.JOURNAL");
    // A stranger's message in the column is no claim.
    context.publish("fanfare.journal.1.attempts", "no facts".into()).await?.await?;
    assert_eq!(writer.append(&[fact(1)]).await?, 4);
    Ok(())
}

#[tokio::test]
async fn facts_of_a_newer_version_stop_the_reader_and_stay() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let context = outsider(&server).await?;
    // A batch of one fact with a body that this version does not know: field 100.
    let newer: &[u8] = &[0x0a, 0x03, 0xa0, 0x06, 0x01];
    context.publish("fanfare.journal.1.attempts", newer.into()).await?.await?;
    let mut reader = log.journal(JournalFilter::All, From::Sequence(1)).await?;
    for _ in 0..2 {
        let Err(ReadError::Unreadable { sequence, source, .. }) = reader.next().await else {
            panic!("it was read, or passed over");
        };
        assert!(sequence == 1 && source.is_from_newer_version());
    }
    assert_eq!(messages(&context, "FANFARE_REJECTED").await?, 0);
    Ok(())
}
