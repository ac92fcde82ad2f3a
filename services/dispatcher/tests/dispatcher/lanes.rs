//! What holds requests back, as the receiver sees it.

use std::{num::NonZeroU32, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Fact, RetryDue, Task,
    endpoint::{RateLimit, RatePeriod},
    fact::DeferReason,
};
use fanfare_event_log::journal::{From, JournalFilter};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::{
    receiver::{Behaviour, Received},
    wait_until,
};
use tokio::time::Instant;

use crate::world::World;

const LONG: Duration = Duration::from_secs(30);

fn times(requests: &[std::sync::Arc<Received>]) -> Vec<Instant> {
    requests.iter().map(|request| request.at).collect()
}

fn is_of(request: &Received, task: &Task) -> bool {
    request.header("webhook-id") == Some(task.event.event.id.to_string().as_str())
}

async fn deferrals(world: &World, count: usize) -> Result<Vec<DeferReason>> {
    let mut journal = world.log.journal(JournalFilter::Deliveries, From::Sequence(1)).await?;
    let mut found = Vec::new();
    let reading = async {
        while found.len() < count {
            for record in journal.next().await?.facts {
                if let Fact::DeliveryDeferred(deferred) = record.fact {
                    found.push(deferred.reason);
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LONG, reading).await.context("too few are put off")??;
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_on_concurrency_is_never_exceeded() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.concurrency = Some(5);
    world.put_endpoint(false).await?;
    world.receiver.answer(Behaviour::status(200).after(Duration::from_millis(20)));
    for number in 0..60 {
        world.send(number).await?;
    }
    let dispatcher = world.run().await?;
    assert!(world.receiver.wait_for(60, LONG).await.is_ok());
    assert_eq!(world.receiver.in_flight_max(), 5);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_that_is_lowered_holds_for_what_waits() -> Result<()> {
    let mut world = World::new().await?;
    world.receiver.answer(Behaviour::status(200).after(Duration::from_millis(50)));
    let dispatcher = world.run().await?;
    for number in 0..60 {
        world.send(number).await?;
    }
    world.receiver.wait_for(16, LONG).await?;
    world.endpoint.concurrency = Some(1);
    world.put_endpoint(false).await?;
    // The change is in force within a second of its acknowledgement.
    wait_until("the change to be in force", async || {
        let text = dispatcher.metrics.text();
        let series = "fanfare_dispatcher_config_revision ";
        let mut known = text.lines().filter_map(|line| line.strip_prefix(series)?.parse().ok());
        match known.next() {
            Some(known) if world.revision <= known => Ok(()),
            other => Err(other),
        }
    })
    .await;
    for number in 60..90 {
        world.send(number).await?;
    }
    let _clocks = world.set_alarm_clocks();
    let requests = world.receiver.wait_for(90, LONG).await?;
    for pair in times(&requests[76..]).windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(40), "{:?}", pair[1] - pair[0]);
    }
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_also_for_what_is_put_off() -> Result<()> {
    let mut world = World::new().await?;
    let (requests, burst) = (NonZeroU32::new(10).context("not zero")?, NonZeroU32::MIN);
    world.endpoint.rate_limit = Some(RateLimit { requests, per: RatePeriod::Second, burst });
    world.put_endpoint(false).await?;
    for number in 0..70 {
        world.send(number).await?;
    }
    let _clocks = world.set_alarm_clocks();
    let dispatcher = world.run().await?;
    let reasons = deferrals(&world, 30).await?;
    assert!(reasons.iter().all(|reason| *reason == DeferReason::RateLimit), "{reasons:?}");
    let times = times(&world.receiver.wait_for(70, LONG).await?);
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            let allowed = (*to - *from).as_secs_f64() * 10.0 * 1.05;
            // One at the beginning, and two whose way to the receiver was the shorter one.
            let count = u32::try_from(last - first)?;
            assert!(f64::from(count) <= allowed + 2.0, "{count} in {:?}", *to - *from);
        }
    }
    let took = times[69] - times[0];
    assert!(took <= Duration::from_secs(14), "it is twice as slow as it may be: {took:?}");
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_waits_for_the_time_that_its_tenants_limit_keeps_for_it() -> Result<()> {
    let world = World::new().await?;
    let dispatcher = world.run().await?;
    let _clocks = world.set_alarm_clocks();
    let (begin, now) = (Instant::now(), SystemClock.now());
    let waits = [6_000, 1_200, 600, 0].map(Duration::from_millis);
    let mut tasks = Vec::new();
    for (number, wait) in (1..).zip(waits) {
        let not_before = now.saturating_add(wait);
        tasks.push(world.send_at(world.endpoint.id, number, Some(not_before)).await?);
    }
    let requests = world.receiver.wait_for(4, LONG).await?;
    assert!(is_of(&requests[3], &tasks[0]), "the one that waits longest is the last");
    for (task, wait) in tasks.iter().zip(waits) {
        let request = requests.iter().find(|request| is_of(request, task));
        let request = request.with_context(|| format!("{wait:?}"))?;
        // The two clocks were read one after the other.
        let waited = request.at - begin + Duration::from_millis(5);
        assert!(waited >= wait, "{waited:?} and not {wait:?}");
    }
    assert_eq!(deferrals(&world, 1).await?, [DeferReason::TenantRateLimit]);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_holds_first_attempts_until_a_retry_succeeds() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.concurrency = Some(1);
    world.put_endpoint(false).await?;
    world.receiver.answer(Behaviour::status(500));
    let mut tasks = Vec::new();
    for number in 0..40 {
        tasks.push(world.send(number).await?);
    }
    let dispatcher = world.run().await?;
    let story = world.story(tasks[9].targets[0].delivery).await?;
    let Some(Fact::AttemptMade(made)) = story.last() else { anyhow::bail!("{story:?}") };
    world.receiver.answer(Behaviour::status(200));
    let retry = RetryDue {
        delivery: made.delivery.clone(),
        attempt: 2,
        due_at: SystemClock.now(),
        journal_sequence: 1,
        trace: fanfare_domain::TraceContext::default(),
        batch: None,
    };
    let shard = world.log.shards().of(world.endpoint.id);
    world.log.schedules().put(shard, &retry).await?.stored().await?;
    let requests = world.receiver.wait_for(41, LONG).await?;
    // Ten failed in a row. What came next is the retry, and not one of the thirty that waited.
    assert!(is_of(&requests[10], &tasks[9]), "request 11 is not the probe");
    for task in &tasks[10..] {
        let sent = requests[11..].iter().filter(|request| is_of(request, task)).count();
        assert_eq!(sent, 1);
    }
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_to_be_left_alone_is() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.concurrency = Some(1);
    world.put_endpoint(false).await?;
    world.receiver.answer(Behaviour::ask(|request| match request.number {
        1 => Behaviour::retry_after(429, "8"),
        _ => Behaviour::status(200),
    }));
    for number in 0..6 {
        world.send(number).await?;
    }
    let _clocks = world.set_alarm_clocks();
    let dispatcher = world.run().await?;
    let reasons = deferrals(&world, 5).await?;
    assert!(reasons.iter().all(|reason| *reason == DeferReason::RetryAfter), "{reasons:?}");
    let times = times(&world.receiver.wait_for(6, LONG).await?);
    assert!(times[1] - times[0] >= Duration::from_millis(7_900), "{:?}", times[1] - times[0]);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asked_to_be_left_alone_is_so_by_the_next_owner() -> Result<()> {
    let world = World::new().await?;
    world.receiver.answer(Behaviour::retry_after(503, "3600"));
    let first = world.send(0).await?;
    let dispatcher = world.run().await?;
    world.story(first.targets[0].delivery).await?;
    dispatcher.stop().await?;
    for number in 1..4 {
        let dispatcher = world.run().await?;
        world.send(number).await?;
        let reasons = deferrals(&world, usize::try_from(number)?).await?;
        assert!(reasons.iter().all(|reason| *reason == DeferReason::RetryAfter), "{reasons:?}");
        dispatcher.stop().await?;
    }
    assert_eq!(world.receiver.requests().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_never_answer_do_not_delay_a_healthy_one() -> Result<()> {
    let mut world = World::new().await?;
    world.endpoint.timeout = Some(Duration::from_secs(8));
    world.put_endpoint(false).await?;
    world.receiver.answer_at("/silent", Behaviour::Silent);
    let mut silent = Vec::new();
    for number in 1..=12 {
        silent.push(world.add_endpoint(100 + number, "/silent").await?);
    }
    for number in 0..20 {
        for (which, endpoint) in (1_u64..).zip(&silent) {
            world.send_to(*endpoint, which * 1_000 + number).await?;
        }
    }
    let dispatcher = world.run().await?;
    world.receiver.wait_for(24, LONG).await?;
    // Far more wait than there are permits, and none has come back yet.
    let mut slowest = Duration::ZERO;
    for number in 0..30 {
        let at = Instant::now();
        let task = world.send(number).await?;
        let story = world.story(task.targets[0].delivery).await?;
        assert!(matches!(story.last(), Some(Fact::DeliveryConcluded(_))), "{story:?}");
        slowest = slowest.max(at.elapsed());
    }
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    dispatcher.stop().await
}
