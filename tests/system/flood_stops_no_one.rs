//! A tenant that publishes far more than its endpoint takes does not stop the others: neither in
//! INBOX, which all share, nor in the one shard that all endpoints are in.

use std::time::Duration;

use anyhow::{Result, ensure};
use fanfare_testkit::wait_at_most;

use crate::support::{Answer, Expected, Hooks, Options, Planned, Route, Scene};

const FLOODING: &str = "flooding";
const FLOOD: usize = 4_000;
const CALM: usize = 100;

/// The least time that the flooded endpoint needs: 16 requests at once of 80 ms each.
const FLOOD_TAKES: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooding_tenant_delays_only_itself() -> Result<()> {
    let hooks = Hooks::answering(|request, _| match request.path.as_str() {
        "/flooded" => Answer::Late(200, Duration::from_millis(80)),
        _ => Answer::Status(200),
    });
    let options = Options { shards: 1, ..Options::default() };
    let profile = options.profile;
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    scene.subscribe("/calm", &[">"], &["10m"]).await?;
    scene.api().tenant(FLOODING, profile).await?;
    let flooded = scene.endpoint("/flooded", &[">"], &["10m"]);
    scene.api().endpoint(FLOODING, &flooded).await?;

    let flood: Vec<Planned> = (0..FLOOD)
        .map(|_| Ok(Planned { tenant: FLOODING.parse()?, ..scene.plan("a.b", Route::Inbox)? }))
        .collect::<Result<_>>()?;
    let producer = scene.producer();
    let calm = async {
        scene.hooks_have(20).await;
        let before = scene.hooks.seen_at("/flooded").len();
        let calm = (0..CALM).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<_>>()?;
        scene.publish(calm).await?;
        wait_at_most(FLOOD_TAKES, "the calm tenant's events to arrive", async || {
            let count = scene.hooks.seen_at("/calm").len();
            (count >= CALM).then_some(()).ok_or(count)
        })
        .await;
        let meanwhile = scene.hooks.seen_at("/flooded").len() - before;
        ensure!(meanwhile < FLOOD / 2, "{meanwhile} of the flood came before the calm tenant's");
        Ok(())
    };
    tokio::try_join!(producer.publish_all(flood), calm)?;

    wait_at_most(Duration::from_mins(2), "the flood to be delivered", async || {
        let count = scene.hooks.seen_at("/flooded").len();
        (count >= FLOOD).then_some(()).ok_or(count)
    })
    .await;
    scene.finish(Expected::Calm).await
}
