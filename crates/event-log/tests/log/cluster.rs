use crate::support::{SHARD, event, fact, messages, now, open, retry, task, time, wait_until};
use anyhow::Result;
use fanfare_domain::ShardCount;
use fanfare_event_log::{Column, JournalFilter, Pending, Settings, journal::From};
use std::{process::Command, time::Duration};
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster() -> Result<()> {
    let url = "nats://127.0.0.1:35221,nats://127.0.0.1:35222,nats://127.0.0.1:35223";
    let prefix = format!("c{}", now().as_millis() % 100000);
    let upper = prefix.to_uppercase();
    let settings = Settings {
        url: url.into(),
        prefix: prefix.clone(),
        replicas: 3,
        shards: ShardCount::new(4)?,
        duplicate_window: Duration::from_secs(2),
        ..Settings::default()
    };
    let begun = Instant::now();
    let (log, other) = tokio::try_join!(open(&settings), open(&settings))?;
    println!("open R3 twice: {:?}", begun.elapsed());
    let context = async_nats::jetstream::new(
        async_nats::connect(
            url.split(',').map(|u| u.parse().unwrap()).collect::<Vec<async_nats::ServerAddr>>(),
        )
        .await?,
    );
    let publisher = log.publisher();
    let mut writer = log.claim(SHARD, Column::Attempts, "me", time(0)).await?;
    let mut reader = log.journal(JournalFilter::All, From::Sequence(1)).await?;
    let mut events = other.read_events().await?;
    let mut tasks = log.read_tasks(SHARD).await?;
    let mut due = log.read_due(SHARD).await?;
    for round in 0..6_u8 {
        let stream =
            ["EVENTS", "JOURNAL", "DELIVERIES", "EVENTS", "JOURNAL", "RETRIES"][usize::from(round)];
        let leader = context
            .get_stream(format!("{upper}_{stream}"))
            .await?
            .cached_info()
            .cluster
            .clone()
            .unwrap()
            .leader
            .unwrap();
        let n = leader.trim_start_matches('n').to_owned();
        let begun = Instant::now();
        let pid = std::fs::read_to_string(format!("/tmp/r3/n{n}.pid"))?.trim().to_owned();
        let signal = if round % 3 == 2 { "-STOP" } else { "-KILL" };
        let mut pending = Vec::new();
        for i in 0..30 {
            pending.push(publisher.event(&event(round * 30 + i)).await?);
        }
        Command::new("kill").args([signal, &pid]).status()?;
        let (a, b) = tokio::join!(
            futures_util::future::join_all(pending.into_iter().map(Pending::stored)),
            async {
                for i in 0..20 {
                    writer.append(&[fact(round * 20 + i)]).await?;
                }
                anyhow::Ok(())
            }
        );
        for a in a {
            a?;
        }
        b?;
        println!(
            "round {round} {stream} {signal} leader {leader}: written after {:?}",
            begun.elapsed()
        );
        publisher.task(SHARD, &task(round, 1)).await?.stored().await?;
        let t = timeout(Duration::from_secs(60), tasks.next_batch(1)).await??.remove(0);
        t.settle().await;
        log.schedules().put(SHARD, &retry(round, now(), 5)).await?.stored().await?;
        let d = timeout(Duration::from_secs(60), due.next_batch(1)).await??.remove(0);
        d.settle().await;
        println!("  task and due after {:?}", begun.elapsed());
        let last = log.journal_last().await?;
        let mut n_batches = 0;
        while let Some(_) = timeout(Duration::from_secs(60), reader.next_until(last)).await?? {
            n_batches += 1;
        }
        println!("  journal read after {:?}: {n_batches}", begun.elapsed());
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 30 {
            for e in timeout(Duration::from_secs(90), events.next_batch(100)).await?? {
                let id = e.record.event.id;
                if (0..30).any(|i| event(round * 30 + i).id == id) {
                    seen.insert(id);
                }
                e.settle().await;
            }
        }
        println!("  events read after {:?}", begun.elapsed());
        if signal == "-STOP" {
            Command::new("kill").args(["-CONT", &pid]).status()?;
        } else {
            Command::new("/tmp/r3/start.sh").arg(&n).status()?;
        }
        wait_until("all current", async || {
            let Ok(mut s) = context.get_stream(format!("{upper}_EVENTS")).await else {
                return Ok(false);
            };
            let Ok(i) = s.info().await else { return Ok(false) };
            let c = i.cluster.clone().unwrap();
            Ok(c.leader.is_some() && c.replicas.iter().all(|r| r.current))
        })
        .await?;
    }
    assert_eq!(messages(&context, &format!("{upper}_EVENTS")).await?, 180);
    wait_until("121", async || Ok(messages(&context, &format!("{upper}_JOURNAL")).await? == 121))
        .await?;
    log.close().await;
    other.close().await;
    Ok(())
}

#[tokio::test]
async fn dump() -> Result<()> {
    let context = async_nats::jetstream::new(async_nats::connect("nats://127.0.0.1:35221").await?);
    let name = std::fs::read_to_string("/tmp/r3/prefix")?;
    let stream = context.get_stream(format!("{}_EVENTS", name.trim())).await?;
    let last = stream.cached_info().state.last_sequence;
    println!("{:?}", stream.cached_info().cluster);
    let mut seen = std::collections::BTreeMap::new();
    for sequence in 1..=last {
        let m = stream.get_raw_message(sequence).await?;
        let id = m.headers.get("Nats-Msg-Id").unwrap().to_string();
        let first = *seen.entry(id.clone()).or_insert(sequence);
        println!("{sequence} {} {id} {}", m.time, if first == sequence { String::new() } else { format!("DUP of {first}") });
    }
    Ok(())
}
