//! A dispatcher that was stopped for a while and wakes sends nothing of what another has taken
//! over meanwhile: the claim guards the records, and the lease the requests.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use fanfare_service::{Clock as _, SystemClock};

use crate::support::{
    Answer, Expected, Hooks, Options, Planned, Route, Scene, Service,
    nemesis::{Kill, Victim},
};

const PATIENCE: Duration = Duration::from_mins(1);
const EVENTS: usize = 200;

fn plan(scene: &Scene) -> Result<Vec<Planned>> {
    (0..EVENTS).map(|_| scene.plan("a.b", Route::Inbox)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_takes_over_and_the_first_stays_silent_when_it_wakes() -> Result<()> {
    let hooks = Hooks::answering(|_, earlier| match earlier {
        0 => Answer::Status(500),
        _ => Answer::Status(200),
    });
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    for path in ["/a", "/b", "/c"] {
        scene.subscribe(path, &[">"], &["500ms", "1s"]).await?;
    }
    let another = scene.installation.another(Service::Dispatcher)?;
    let planned = plan(&scene)?;
    scene.publish(planned).await?;
    scene.hooks_have(EVENTS).await;
    // In the midst of its work.
    let first = scene.installation.take(Service::Dispatcher)?;
    first.suspend()?;
    let at = SystemClock.now();
    let planned = plan(&scene)?;
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    let back = SystemClock.now();
    scene.kills.push(Kill { victim: Victim::Service(Service::Dispatcher), at, back });
    let concluded: BTreeSet<_> = scene.hooks.seen().iter().filter_map(|seen| seen.event).collect();
    first.resume()?;
    // When these have arrived, whatever the first had left would have arrived too.
    let planned = plan(&scene)?;
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    let seen = scene.hooks.seen();
    let late = seen.iter().filter(|seen| {
        seen.at > back && seen.event.is_some_and(|event| concluded.contains(&event))
    });
    assert_eq!(late.count(), 0, "requests of what was concluded before it woke");
    scene.judge().await?;
    another.stop().await?;
    // It may have ended by itself when it saw that it lost its role.
    first.kill().await?;
    scene.finish(Expected::Turmoil).await
}
