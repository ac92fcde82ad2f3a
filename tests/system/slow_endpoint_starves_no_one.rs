//! One endpoint's behaviour does not move another's latency: beside endpoints that never answer,
//! the others get what is theirs as fast as ever.

use std::{io::Write as _, time::Duration};

use anyhow::Result;
use fanfare_domain::Timestamp;

use crate::support::{Answer, Expected, Hooks, Options, Route, Scene, checker::fold, evidence};

const EVENTS: usize = 400;
/// How long the healthy endpoints may wait for the slowest of their first attempts. The silent ones
/// hold a request for three seconds, and have more waiting than could be served in an hour.
const LATENCY_MAX: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_never_answer_delay_only_themselves() -> Result<()> {
    let hooks = Hooks::answering(|request, _| match request.path.as_str() {
        "/silent-1" | "/silent-2" => Answer::Silence,
        _ => Answer::Status(200),
    });
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    for path in ["/silent-1", "/silent-2"] {
        scene.subscribe(path, &[">"], &["10m"]).await?;
    }
    let healthy = ["/a", "/b", "/c", "/d", "/e", "/f"];
    for path in healthy {
        scene.subscribe(path, &[">"], &["10m"]).await?;
    }
    let planned =
        (0..EVENTS).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    fanfare_testkit::wait_until("the healthy endpoints to have everything", async || {
        let seen = scene.hooks.seen();
        let count = seen.iter().filter(|seen| seen.answered.is_some()).count();
        (count >= healthy.len() * EVENTS).then_some(()).ok_or(count)
    })
    .await;
    let events = evidence::events(&scene.installation, &scene.log).await?;
    let accepted = |event| events.iter().find(|stored| Some(stored.event.id) == event);
    let mut latencies: Vec<Duration> = Vec::new();
    for seen in scene.hooks.seen().iter().filter(|seen| seen.answered.is_some()) {
        let from = accepted(seen.event).map_or(Timestamp::EPOCH, |stored| stored.accepted_at);
        latencies.push(seen.at.since(from));
    }
    latencies.sort_unstable();
    let (p50, max) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
    writeln!(std::io::stderr(), "slow_endpoint_starves_no_one: p50 {p50:?}, max {max:?}")?;
    assert!(max < LATENCY_MAX, "{max:?}");
    // The silent ones were tried, within their limit, and nothing of theirs is concluded.
    let histories = fold(&evidence::journal(&scene.log).await?);
    let concluded = histories.values().filter(|history| history.conclusion().is_some()).count();
    assert_eq!(concluded, healthy.len() * EVENTS);
    scene.finish(Expected::Calm).await
}
