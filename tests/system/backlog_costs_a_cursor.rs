//! A backlog of any size for one endpoint costs a bounded number of messages and nothing to the
//! others; when the endpoint is back, it gets what waited in the order of EVENTS. Killing the
//! dispatcher or fan-out in the middle changes nothing in this.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::EventId;
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::{wait_at_most, wait_until};
use serde_json::json;

use crate::support::{
    Answer, Expected, Hooks, Options, Planned, Route, Scene, Service,
    checker::fold,
    evidence,
    nemesis::{self, Kill, Victim},
};

const SHORT: usize = 5_000;
const LONG: usize = 20_000;
/// How many messages may wait for their time, and in both queues together once all is routed.
const RETRIES_MAX: u64 = 500;
const WAITING_MAX: u64 = 500;
/// The waits between attempts: what fails before the breaker opens is tried until the end.
const DELAYS: [&str; 60] = ["2s"; 60];
const HEALTHY: [&str; 2] = ["/a", "/b"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_endpoint_that_is_down_is_one_cursor() -> Result<()> {
    let events = if nemesis::is_long()? { LONG } else { SHORT };
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let hooks = Hooks::answering(move |request, _| match request.path.as_str() {
        "/down" if !up.load(Ordering::Acquire) => Answer::Status(500),
        _ => Answer::Status(200),
    });
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    for path in HEALTHY {
        scene.subscribe(path, &[">"], &DELAYS).await?;
    }
    let mut down = scene.endpoint("/down", &[">"], &DELAYS);
    down["concurrency"] = json!(1);
    let made = scene.api().endpoint("acme", &down).await?;
    scene.note("/down", &[">"], &made, &DELAYS)?;
    let begin = SystemClock.now();
    for (share, victim) in [(10, None), (4, Some(Service::Dispatcher)), (4, Some(Service::FanOut))]
    {
        publish(&mut scene, events / share).await?;
        if let Some(victim) = victim {
            strike(&mut scene, victim).await?;
        }
    }
    let left = events - scene.acknowledged.len();
    publish(&mut scene, left).await?;
    let retries = wait_for_the_healthy(&scene, events).await?;
    let waiting = settled(&scene).await;
    let routed = SystemClock.now();
    is_up.store(true, Ordering::Release);
    wait_until("the endpoint to get something", async || {
        let count = scene.hooks.seen_at("/down").len();
        (count > events / 3).then_some(()).ok_or(count)
    })
    .await;
    strike(&mut scene, Service::Dispatcher).await?;
    scene.concluded(Duration::from_mins(3)).await?;
    let report = scene.judge().await?;
    let in_order = check_order(&scene).await?;
    writeln!(
        std::io::stderr(),
        "backlog_costs_a_cursor: {events} events in {:?}, at most {retries} messages in RETRIES, \
         {waiting} in both queues with all of it waiting; {in_order} delivered in the order of \
         EVENTS, {} put off, {} duplicates",
        routed.since(begin),
        report.deferred,
        report.duplicates,
    )?;
    ensure!(in_order > events * 9 / 10, "only {in_order} were delivered by the feed");
    ensure!(retries <= RETRIES_MAX, "{retries} messages waited for their time");
    scene.api_agrees().await?;
    scene.finish(Expected::Turmoil).await
}

async fn publish(scene: &mut Scene, count: usize) -> Result<()> {
    let planned: Vec<Planned> =
        (0..count).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<_>>()?;
    scene.publish(planned).await
}

/// Kills a service, and starts it again.
async fn strike(scene: &mut Scene, service: Service) -> Result<()> {
    let at = SystemClock.now();
    scene.installation.kill(service).await?;
    scene.installation.start_service(service).await?;
    scene.kills.push(Kill { victim: Victim::Service(service), at, back: SystemClock.now() });
    Ok(())
}

/// Waits until the healthy endpoints have everything; returns how many messages were in RETRIES at
/// most meanwhile.
async fn wait_for_the_healthy(scene: &Scene, events: usize) -> Result<u64> {
    let mut most = 0;
    wait_at_most(Duration::from_mins(2), "the healthy endpoints to have everything", async || {
        let retries = scene.installation.server().messages("FANFARE_RETRIES").await;
        most = most.max(retries.map_err(|error| error.to_string())?);
        let counts = HEALTHY.map(|path| scene.hooks.seen_at(path).len());
        counts.iter().all(|count| *count >= events).then_some(()).ok_or(format!("{counts:?}"))
    })
    .await;
    Ok(most)
}

/// Waits until as few messages wait as may; returns how many then.
async fn settled(scene: &Scene) -> u64 {
    // What was handed out to a process that was killed comes back after a while.
    wait_at_most(Duration::from_mins(1), "few messages to wait", async || {
        let server = scene.installation.server();
        let tasks = server.messages("FANFARE_DELIVERIES").await.unwrap_or(u64::MAX);
        let retries = server.messages("FANFARE_RETRIES").await.unwrap_or(u64::MAX);
        let waiting = tasks.saturating_add(retries);
        if waiting <= WAITING_MAX { Ok(waiting) } else { Err(waiting) }
    })
    .await
}

/// Checks that what was neither put off nor tried before came in the order of EVENTS; returns how
/// many these were.
async fn check_order(scene: &Scene) -> Result<usize> {
    let histories = fold(&evidence::journal(&scene.log).await?);
    let direct: BTreeMap<EventId, u64> = histories
        .values()
        .filter(|history| history.attempts.len() == 1 && history.deferred.is_empty())
        .map(|history| (history.delivery.event, history.delivery.event_sequence))
        .collect();
    let (mut before, mut late) = (0, 0);
    let mut seen = std::collections::BTreeSet::new();
    for request in scene.hooks.seen_at("/down") {
        let event = request.event.context("a request names its event")?;
        let Some(sequence) = direct.get(&event) else { continue };
        // What failed, and was not put on record before a kill, was not delivered.
        if request.answered != Some(200) {
            continue;
        }
        // A duplicate, which a kill explains, says nothing.
        if seen.insert(event) {
            late += usize::from(*sequence < before);
            before = *sequence;
        }
    }
    // What a process had in hand that was killed comes again when others are on their way.
    ensure!(late * 100 < seen.len(), "{late} of {} came too late", seen.len());
    Ok(seen.len())
}
