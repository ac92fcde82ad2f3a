//! A later attempt begins no earlier than its endpoint's policy says, and hardly later: also when
//! everything was killed and started again in between.

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_testkit::wait_until;

use crate::support::{Answer, EAGER, Expected, Hooks, Options, Report, Route, Scene, Service};

const PATIENCE: Duration = Duration::from_mins(2);
/// How many deliveries fail.
const DELIVERIES: usize = 1_000;
/// How late the 99th of 100 later attempts may be.
const LATENESS_P99: Duration = Duration::from_millis(1_500);
const PATHS: [&str; 4] = ["/a", "/b", "/c", "/d"];

/// Sets the scene with endpoints that fail so many times, and publishes to them.
async fn failing(failures: usize, delays: &[&str]) -> Result<Scene> {
    let hooks = Hooks::answering(move |_, earlier| {
        Answer::Status(if earlier < failures { 500 } else { 200 })
    });
    let mut scene =
        Scene::set_with(Options { profile: EAGER, ..Options::default() }, hooks.await?).await?;
    for path in PATHS {
        scene.subscribe(path, &[">"], delays).await?;
    }
    let count = DELIVERIES / PATHS.len();
    let planned =
        (0..count).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    Ok(scene)
}

fn check(report: &Report, later: usize, what: &str) -> Result<()> {
    let (p50, p99) = (report.lateness_percentile(50), report.lateness_percentile(99));
    let max = report.lateness_percentile(100);
    writeln!(
        std::io::stderr(),
        "retries_are_on_time: {what}: {later} later attempts, late by p50 {p50:?}, p99 {p99:?}, max {max:?}",
    )?;
    assert_eq!(report.lateness.len(), later);
    assert_eq!(report.conclusions.get("delivered"), Some(&DELIVERIES));
    assert!(p99 < LATENESS_P99, "p99 is {p99:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_failing_deliveries_are_retried_on_time() -> Result<()> {
    let scene = failing(3, &["500ms", "1s", "2s"]).await?;
    scene.concluded(PATIENCE).await?;
    let report = scene.judge().await?;
    assert_eq!(report.duplicates, 0);
    check(&report, 3 * DELIVERIES, "undisturbed")?;
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_are_on_time_after_a_restart_of_everything() -> Result<()> {
    let mut scene = failing(1, &["15s"]).await?;
    wait_until("every first attempt to be made", async || {
        let count = scene.hooks.count();
        (count >= DELIVERIES).then_some(()).ok_or(count)
    })
    .await;
    wait_until("every plan to be on record", async || {
        let evidence = scene.evidence().await.map_err(|error| format!("{error:#}"))?;
        let histories = crate::support::checker::fold(&evidence.journal);
        let planned = histories.values().filter(|history| !history.plans.is_empty()).count();
        (planned == DELIVERIES).then_some(()).ok_or_else(|| planned.to_string())
    })
    .await;
    for service in Service::ALL {
        scene.installation.kill(service).await?;
    }
    scene.installation.nats().kill().await.context("kill nats-server")?;
    scene.installation.nats().restart().await.context("restart nats-server")?;
    scene.installation.start_all().await?;
    scene.concluded(PATIENCE).await?;
    let report = scene.judge().await?;
    assert_eq!(report.duplicates, 0, "every attempt was on record before the kill");
    check(&report, DELIVERIES, "after a restart of everything")?;
    scene.finish(Expected::Turmoil).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_asks_to_be_left_alone_is() -> Result<()> {
    let hooks = Hooks::answering(|_, earlier| match earlier {
        0 => Answer::RetryAfter(429, 2),
        _ => Answer::Status(200),
    });
    let mut scene =
        Scene::set_with(Options { profile: EAGER, ..Options::default() }, hooks.await?).await?;
    scene.subscribe("/busy", &[">"], &["100ms"]).await?;
    let planned = (0..20).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    scene.judge().await?;
    let seen = scene.hooks.seen_at("/busy");
    for second in seen.iter().filter(|seen| seen.answered == Some(200)) {
        let first = seen.iter().find(|first| first.event == second.event);
        let gap = second.at.since(first.context("a first attempt")?.at);
        assert!(gap >= Duration::from_secs(2), "{gap:?}");
    }
    assert_eq!(seen.len(), 40);
    scene.finish(Expected::Calm).await
}
