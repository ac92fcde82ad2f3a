//! No request to a paused, disabled or deleted endpoint begins later than one second after the
//! change was acknowledged, under load; what came meanwhile is skipped or held as was asked for.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{DeliveryId, Fact, Timestamp};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::wait_until;
use serde_json::json;

use crate::support::{
    Expected, Hooks, Options, Planned, Route, Scene, api::Made, checker::fold, evidence,
    scene::TENANT,
};

/// By when the last request begins, after the change was acknowledged.
const PROMISE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_mins(1);
/// How many events are published before, and as many after the change.
const EVENTS: usize = 300;

/// Publishes a share of events.
async fn publish(scene: &mut Scene, count: usize) -> Result<()> {
    let planned: Vec<Planned> =
        (0..count).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<_>>()?;
    scene.publish(planned).await
}

/// Publishes, makes a change in the midst of it, publishes on for longer than the promise, and
/// waits until another endpoint has everything. Returns when the change was acknowledged.
async fn change_under_load(
    scene: &mut Scene,
    path: &str,
    change: impl AsyncFnOnce(&Scene) -> Result<()>,
) -> Result<Timestamp> {
    publish(scene, EVENTS).await?;
    wait_until("some requests", async || {
        let count = scene.hooks.seen_at(path).len();
        (count > EVENTS / 10).then_some(()).ok_or(count)
    })
    .await;
    change(scene).await?;
    let at = SystemClock.now();
    // Load goes on until well after the promise.
    while SystemClock.now().since(at) < 2 * PROMISE {
        publish(scene, 20).await?;
    }
    let total = scene.acknowledged.len();
    wait_until("the endpoint beside it to have everything", async || {
        let count = scene.hooks.seen_at("/other").len();
        (count >= total).then_some(()).ok_or(count)
    })
    .await;
    Ok(at)
}

/// Checks on both sides that nothing began too late: by the journal and by the receiver.
async fn check_silence(scene: &Scene, endpoint: &Made, path: &str, at: Timestamp) -> Result<()> {
    let limit = at.saturating_add(PROMISE);
    let late = scene.hooks.seen_at(path).into_iter().filter(|seen| seen.at > limit).count();
    ensure!(late == 0, "{late} requests came later than {PROMISE:?} after the change");
    let journal = evidence::journal(&scene.log).await?;
    let histories = fold(&journal);
    let own = histories.values().filter(|one| one.delivery.endpoint.to_string() == endpoint.id);
    for made in own.flat_map(|history| &history.attempts) {
        ensure!(made.started_at <= limit, "an attempt began at {}: {made:?}", made.started_at);
    }
    Ok(())
}

async fn scene() -> Result<(Scene, Made)> {
    let mut scene = Scene::set_with(Options::default(), Hooks::start().await?).await?;
    let endpoint = scene.subscribe("/one", &[">"], &["1s", "1s"]).await?;
    scene.subscribe("/other", &[">"], &["1s", "1s"]).await?;
    Ok((scene, endpoint))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_endpoint_that_skips_gets_nothing_more_of_that_time() -> Result<()> {
    let (mut scene, endpoint) = scene().await?;
    let id = endpoint.id.clone();
    let at = change_under_load(&mut scene, "/one", async |scene| {
        scene.api().act(TENANT, &id, "pause", &json!({ "mode": "skip" })).await.map(drop)
    })
    .await?;
    check_silence(&scene, &endpoint, "/one", at).await?;
    let before = scene.hooks.seen_at("/one").len();
    scene.api().act(TENANT, &endpoint.id, "resume", &json!({})).await?;
    publish(&mut scene, 10).await?;
    wait_until("the events after the resumption", async || {
        let count = scene.hooks.seen_at("/one").len();
        (count >= before + 10).then_some(()).ok_or(count)
    })
    .await;
    let seen = scene.hooks.seen_at("/one").len();
    assert_eq!(seen, before + 10, "what was skipped does not come later");
    check_skipped(&scene, &endpoint).await?;
    scene.finish(Expected::Calm).await
}

/// Every delivery of the endpoint is concluded, and events that got none are on record as skipped.
async fn check_skipped(scene: &Scene, endpoint: &Made) -> Result<()> {
    let journal = evidence::journal(&scene.log).await?;
    let id = endpoint.id.parse().context("an endpoint's id")?;
    let facts = journal.iter().flat_map(|batch| &batch.facts).map(|record| &record.fact);
    let (mut targets, mut skipped) = (BTreeSet::new(), 0);
    for fact in facts {
        if let Fact::EventRouted(routed) = fact {
            if routed.targets.contains(&id) {
                targets.insert(DeliveryId::of(routed.event, id, 0));
            }
            skipped += usize::from(routed.skipped.contains(&id));
            ensure!(!routed.held.contains(&id), "an endpoint that skips holds nothing");
        }
    }
    ensure!(skipped > 0, "no event was skipped");
    ensure!(targets.len() + skipped == scene.acknowledged.len(), "{targets:?} and {skipped}");
    wait_until("every delivery of the paused endpoint to be concluded", async || {
        let Ok(journal) = evidence::journal(&scene.log).await else { return Err(0) };
        let histories = fold(&journal);
        let own = histories.values().filter(|history| history.delivery.endpoint == id);
        let concluded = own.filter(|history| history.conclusion().is_some()).count();
        (concluded == targets.len()).then_some(()).ok_or(concluded)
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_endpoint_that_holds_gets_everything_once_it_is_resumed() -> Result<()> {
    let (mut scene, endpoint) = scene().await?;
    let id = endpoint.id.clone();
    let at = change_under_load(&mut scene, "/one", async |scene| {
        scene.api().act(TENANT, &id, "pause", &json!({ "mode": "hold" })).await.map(drop)
    })
    .await?;
    check_silence(&scene, &endpoint, "/one", at).await?;
    let before = scene.hooks.seen_at("/one").len();
    assert!(before < scene.acknowledged.len(), "there is something to hold");
    scene.api().act(TENANT, &endpoint.id, "resume", &json!({})).await?;
    publish(&mut scene, 10).await?;
    scene.concluded(PATIENCE).await?;
    scene.judge().await?;
    assert_eq!(scene.hooks.seen_at("/one").len(), scene.acknowledged.len(), "each came once");
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_endpoint_gets_nothing() -> Result<()> {
    let (mut scene, endpoint) = scene().await?;
    let id = endpoint.id.clone();
    let at = change_under_load(&mut scene, "/one", async |scene| {
        scene.api().act(TENANT, &id, "disable", &json!({})).await.map(drop)
    })
    .await?;
    check_silence(&scene, &endpoint, "/one", at).await?;
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_endpoint_gets_nothing() -> Result<()> {
    let (mut scene, endpoint) = scene().await?;
    let path = format!("/v1/tenants/{TENANT}/endpoints/{}", endpoint.id);
    let at = change_under_load(&mut scene, "/one", async |scene| {
        scene.api().delete(&path).await.map(drop)
    })
    .await?;
    check_silence(&scene, &endpoint, "/one", at).await?;
    scene.finish(Expected::Calm).await
}
