//! One endpoint's behaviour does not move another's latency: beside endpoints that never answer,
//! the others get what is theirs as fast as ever.

use std::{io::Write as _, time::Duration};

use anyhow::Result;
use fanfare_domain::Timestamp;

use crate::support::{
    Answer, Expected, Hooks, Options, Route, Scene, checker::fold, evidence, hooks::Seen,
};

const EVENTS: usize = 400;
const HEALTHY: [&str; 6] = ["/a", "/b", "/c", "/d", "/e", "/f"];
const SILENT: [&str; 2] = ["/silent-1", "/silent-2"];
/// How long the healthy endpoints may wait for the slowest of their first attempts on a machine
/// that does nothing else. The silent ones hold a request for three seconds, and have more waiting
/// than could be served in an hour.
const LATENCY_MAX: Duration = Duration::from_secs(3);
/// How much longer than without the silent ones, where the machine itself takes longer than that.
const SLOWER_MAX: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_never_answer_delay_only_themselves() -> Result<()> {
    let hooks = Hooks::answering(|request, _| match request.path.as_str() {
        path if SILENT.contains(&path) => Answer::Silence,
        _ => Answer::Status(200),
    });
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    for path in SILENT {
        scene.subscribe(path, &["mixed.*"], &["10m"]).await?;
    }
    for path in HEALTHY {
        scene.subscribe(path, &[">"], &["10m"]).await?;
    }
    let alone = slowest_of(&mut scene, "alone.a").await?;
    let mixed = slowest_of(&mut scene, "mixed.a").await?;
    writeln!(std::io::stderr(), "slow_endpoint_starves_no_one: alone {alone:?}, mixed {mixed:?}")?;
    assert!(mixed < LATENCY_MAX.max(alone * SLOWER_MAX), "{mixed:?}, {alone:?} without them");
    // The silent ones were tried, within their limit, and nothing of theirs is concluded.
    let histories = fold(&evidence::journal(&scene.log).await?);
    let concluded = histories.values().filter(|history| history.conclusion().is_some()).count();
    assert_eq!(concluded, 2 * HEALTHY.len() * EVENTS);
    scene.finish(Expected::Calm).await
}

/// Publishes events of a type, and returns the longest that one took from its acceptance to its
/// request at a healthy endpoint, once all have come there.
async fn slowest_of(scene: &mut Scene, kind: &str) -> Result<Duration> {
    let answered = |scene: &Scene| {
        let seen = scene.hooks.seen();
        seen.into_iter().filter(|seen| seen.answered.is_some()).collect::<Vec<_>>()
    };
    let before = answered(scene).len();
    let planned =
        (0..EVENTS).map(|_| scene.plan(kind, Route::Inbox)).collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    fanfare_testkit::wait_until("the healthy endpoints to have everything", async || {
        let count = answered(scene).len() - before;
        (count >= HEALTHY.len() * EVENTS).then_some(()).ok_or(count)
    })
    .await;
    let events = evidence::events(&scene.installation, &scene.log).await?;
    let accepted = |event| events.iter().find(|stored| Some(stored.event.id) == event);
    let latency = |seen: &Seen| {
        let from = accepted(seen.event).map_or(Timestamp::EPOCH, |stored| stored.accepted_at);
        seen.at.since(from)
    };
    Ok(answered(scene).iter().skip(before).map(latency).max().unwrap_or_default())
}
