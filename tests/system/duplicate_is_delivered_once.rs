//! An event that a producer sends again under the same idempotency key is accepted once, by
//! whichever way it comes, and all are told the same id.

use std::time::Duration;

use anyhow::Result;

use crate::support::{Expected, Planned, Route, Scene};

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_event_over_every_way_is_delivered_once() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.subscribe("/all", &[">"], &["1s"]).await?;
    let producer = scene.producer();
    for _ in 0..10 {
        let first = scene.plan("order.paid", Route::Http)?;
        let routes = [Route::Http, Route::Request, Route::Inbox, Route::Http, Route::Request];
        let again = routes.map(|route| Planned { route, ..first.clone() });
        let told = producer.publish_all(again).await?;
        let mut ids: Vec<_> = told.iter().filter_map(|told| told.event).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 1, "all are told the same id: {told:?}");
        scene.acknowledged.push(told.into_iter().find(|told| told.event.is_some()).expect("four"));
    }
    // What comes last in INBOX: when it is delivered, so is everything before it.
    let sentinel = scene.plan("order.sentinel", Route::Inbox)?;
    scene.publish(vec![sentinel]).await?;
    scene.concluded(PATIENCE).await?;
    let report = scene.judge().await?;
    assert_eq!(report.requests, 11);
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_holds_beyond_the_duplicate_window_and_a_restart() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.subscribe("/all", &[">"], &["1s"]).await?;
    let planned = scene.plan("order.paid", Route::Request)?;
    let again = planned.clone();
    scene.publish(vec![planned]).await?;
    scene.concluded(PATIENCE).await?;
    scene.installation.kill(crate::support::Service::Ingest).await?;
    // The time that passes is what is tried here.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    scene.installation.start_service(crate::support::Service::Ingest).await?;
    let told = scene.producer().publish(again).await?;
    assert_eq!(Some(told.event), scene.acknowledged.first().map(|first| first.event));
    let sentinel = scene.plan("order.sentinel", Route::Request)?;
    scene.publish(vec![sentinel]).await?;
    scene.concluded(PATIENCE).await?;
    let report = scene.judge().await?;
    assert_eq!(report.requests, 2);
    scene.finish(Expected::Turmoil).await
}
