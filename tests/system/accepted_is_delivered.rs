//! An event whose publish was acknowledged is, for every endpoint that matched, brought to a
//! recorded conclusion.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::support::{
    Answer, EAGER, Expected, Hooks, Options, Route, Scene,
    api::text,
    checker::fold,
    foreign::{self, Language},
    scene::TENANT,
};

const PATIENCE: Duration = Duration::from_mins(1);
const ROUTES: [Route; 3] = [Route::Inbox, Route::Request, Route::Http];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_event_reaches_every_endpoint_that_wants_it_once() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.subscribe("/all", &[">"], &["1s"]).await?;
    scene.subscribe("/orders", &["order.*"], &["1s"]).await?;
    scene.subscribe("/paid", &["invoice.paid", "order.paid"], &["1s"]).await?;
    scene.subscribe("/none", &["never.happens"], &["1s"]).await?;
    let types = ["order.paid", "order.made", "invoice.paid", "user.created"];
    let planned = (0..300)
        .map(|number: usize| scene.plan(types[number % types.len()], ROUTES[number % ROUTES.len()]))
        .collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    let report = scene.judge().await?;
    assert_eq!(report.duplicates, 0);
    assert_eq!(report.conclusions.get("delivered"), Some(&(300 + 150 + 150)));
    assert_eq!(scene.hooks.seen_at("/none"), []);
    tell_of_one(&scene).await?;
    scene.api_agrees().await?;
    scene.finish(Expected::Calm).await
}

/// What the API says of an event's deliveries is what the journal says.
async fn tell_of_one(scene: &Scene) -> Result<()> {
    let evidence = scene.evidence().await?;
    let event = evidence.events.first().context("there are events")?.event.id;
    let histories = fold(&evidence.journal);
    let own = histories.values().filter(|history| history.delivery.event == event);
    let mut known: Vec<String> = own.map(|history| history.delivery.id.to_string()).collect();
    let path = format!("/v1/tenants/{TENANT}/events/{event}/deliveries");
    let answer = scene.api().get(&path).await?;
    let list = answer["data"].as_array().context("a list")?;
    let mut told = list.iter().map(|one| text(one, "id")).collect::<Result<Vec<_>>>()?;
    known.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, known);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_endpoints_get_every_attempt_that_their_policy_allows() -> Result<()> {
    let hooks = Hooks::answering(|request, earlier| match (request.path.as_str(), earlier) {
        ("/recovers", 0..2) => Answer::Status(503),
        ("/breaks", 0) => Answer::Reset,
        ("/never", _) => Answer::Status(500),
        _ => Answer::Status(200),
    });
    let options = Options { profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    for path in ["/recovers", "/breaks", "/never"] {
        scene.subscribe(path, &[">"], &["200ms", "400ms"]).await?;
    }
    let planned = (0..30).map(|_| scene.plan("a.b", Route::Inbox)).collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    let report = scene.judge().await?;
    assert_eq!(report.duplicates, 0);
    assert_eq!(report.conclusions.get("delivered"), Some(&60));
    assert_eq!(report.conclusions.get("exhausted"), Some(&30));
    assert_eq!(report.attempts, 30 * (3 + 2 + 3));
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_in_python_needs_a_nats_client_and_nothing_else() -> Result<()> {
    let what = "publishing with nats-py";
    let Some(packages) = foreign::packages(Language::Python, what).await? else { return Ok(()) };
    let mut scene = Scene::set().await?;
    scene.subscribe("/all", &[">"], &["1s"]).await?;
    let documents: Vec<String> =
        (0..20).map(|number| format!(r#"{{"number": {number}, "from": "nats-py ☂"}}"#)).collect();
    let subject = format!("fanfare.inbox.{TENANT}.order.made");
    let arguments = [scene.installation.nats_url(), subject];
    let arguments = arguments.each_ref().map(String::as_str);
    let stored =
        foreign::run(&packages, "python/producer.py", &arguments, &documents.join("\n")).await?;
    assert_eq!(stored.lines().count(), documents.len(), "{stored}");
    fanfare_testkit::wait_until("the webhooks to arrive", async || {
        let count = scene.hooks.count();
        (count >= documents.len()).then_some(()).ok_or(count)
    })
    .await;
    let evidence = scene.evidence().await?;
    let mut found: Vec<_> =
        evidence.events.iter().map(|stored| String::from_utf8_lossy(&stored.event.data)).collect();
    let mut sent: Vec<_> = documents.iter().map(String::as_str).collect();
    found.sort();
    sent.sort_unstable();
    assert_eq!(found, sent);
    scene.finish(Expected::Calm).await
}
