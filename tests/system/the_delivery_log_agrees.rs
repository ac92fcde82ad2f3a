//! What the delivery log says is what the journal says, and what the endpoints got. Killing the
//! projector loses and repeats nothing, deliveries do not wait for it, and a log that is made anew
//! is the same.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_delivery_log::{
    AttemptRow, Cursor, Database, Filter, Listed, Progress, Store, as_sent, batch_as_sent,
};
use fanfare_domain::{Profile, profile::Profiles};
use fanfare_testkit::wait_until;
use serde_json::json;
use tokio::process::Command;

use crate::support::{
    Answer, Expected, Hooks, Options, Route, Scene, Service, binary, checker::fold, evidence,
    log_file, logs, scene::tenant, up::number,
};

const PATIENCE: Duration = Duration::from_mins(1);
/// How often the projector is killed, and how many events there are each time.
const KILLS: usize = 6;
const EVENTS: usize = 12;

/// Deliveries and their attempts, as the log has them.
type Content = Vec<(Listed, Vec<AttemptRow>)>;

/// Endpoints that refuse each event once, one of them with batches.
async fn scene() -> Result<Scene> {
    let hooks = Hooks::answering(|_, earlier| Answer::Status(if earlier == 0 { 500 } else { 200 }));
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    scene.subscribe("/one", &[">"], &["1s", "1s", "1s"]).await?;
    let mut batches = scene.endpoint("/batches", &[">"], &["1s", "1s", "1s"]);
    batches["batch"] = json!({"max_events": 5, "max_wait_ms": 50});
    let made = scene.api().endpoint("acme", &batches).await?;
    scene.note("/batches", &[">"], &made, &["1s", "1s", "1s"])?;
    Ok(scene)
}

async fn publish(scene: &mut Scene) -> Result<()> {
    let planned = (0..EVENTS).map(|_| scene.plan("order.paid", Route::Request));
    scene.publish(planned.collect::<Result<_>>()?).await
}

/// Where a projector tells its numbers, for each that was started.
fn addresses(scene: &Scene) -> Vec<String> {
    let log = log_file(&scene.installation.logs(), Service::Projector);
    let lines = logs::read(&log).unwrap_or_default();
    lines.iter().filter_map(|line| line.field("address").map(String::from)).collect()
}

/// Starts the projector, with all that is in the streams behind it.
async fn start(scene: &mut Scene, store: &Store) -> Result<String> {
    let before = addresses(scene).len();
    scene.installation.start_service(Service::Projector).await?;
    let address = wait_until("the projector to say where its numbers are", async || {
        addresses(scene).get(before).cloned().ok_or(before)
    });
    let address = address.await;
    reach_the_ends(scene, store).await;
    Ok(address)
}

/// Kills the projector when it has facts in its hands that it cannot write.
async fn kill_in_the_middle(
    scene: &mut Scene,
    (database, store): (&Database, &Store),
) -> Result<()> {
    let address = start(scene, store).await?;
    let before = store.progress().await?;
    let held = database.hold_up().await?;
    publish(scene).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    wait_until("the projector to have something to write", async || {
        let asked = client.get(format!("http://{address}/metrics")).send().await;
        let text = asked.map_err(|error| error.to_string())?.text().await;
        let text = text.map_err(|error| error.to_string())?;
        let behind = number(&text, "fanfare_projector_lag_seconds");
        if behind > Some(0.0) { Ok(()) } else { Err(format!("{behind:?}")) }
    })
    .await;
    scene.installation.kill(Service::Projector).await?;
    drop(held);
    ensure!(store.progress().await? == before, "it had written what it had in its hands");
    Ok(())
}

/// Waits until the log has all that is in the streams; returns what it has.
async fn caught_up(scene: &Scene, store: &Store) -> Result<Content> {
    reach_the_ends(scene, store).await;
    content(store).await
}

async fn reach_the_ends(scene: &Scene, store: &Store) {
    wait_until("the delivery log to catch up", async || {
        let ends = async {
            let (events, journal) =
                (scene.log.events_last().await?, scene.log.journal_last().await?);
            let config = scene.log.config_last().await?;
            anyhow::Ok((Progress { events, journal, config }, store.progress().await?))
        };
        match ends.await {
            Ok((ends, found)) if ends == found => Ok(()),
            ends => Err(format!("{ends:?}")),
        }
    })
    .await;
}

async fn content(store: &Store) -> Result<Content> {
    let mut content = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = store.deliveries(&Filter::of(tenant()?), after, 50).await?;
        for row in page.rows {
            let attempts = store.attempts(row.delivery.id, 100).await?;
            content.push((row, attempts));
        }
        after = page.next;
        if after.is_none() {
            return Ok(content);
        }
    }
}

/// Checks that the log says of every delivery what the journal says.
async fn agrees(scene: &Scene, content: &Content) -> Result<()> {
    let histories = fold(&evidence::journal(&scene.log).await?);
    ensure!(content.len() == histories.len(), "{} of {}", content.len(), histories.len());
    for (row, attempts) in content {
        let history = histories.get(&row.delivery.id).context("a delivery of the journal")?;
        let ended = history.conclusion().context("a conclusion")?;
        assert_eq!(row.delivery.standing.state.as_str(), ended.conclusion.as_str());
        assert_eq!(row.delivery.standing.reason, Some(ended.reason));
        let logged: Vec<_> = attempts.iter().map(|row| (row.number, row.outcome.clone())).collect();
        let made = history.attempts.iter().map(|made| (made.attempt, made.outcome.clone()));
        assert_eq!(logged, made.collect::<Vec<_>>());
        assert_eq!(row.last.as_ref(), logged.last().map(|(_, outcome)| outcome));
    }
    Ok(())
}

/// Checks that the log shows every request exactly as the endpoints got it.
async fn shows_requests(scene: &Scene, store: &Store, content: &Content) -> Result<usize> {
    let profiles = Profiles::built_in();
    let profile = Arc::clone(profiles.get(Profile::DEFAULT).context("the profile")?);
    let got: BTreeMap<String, _> = scene
        .hooks
        .requests()
        .into_iter()
        .map(|request| {
            (String::from(request.header("webhook-signature").unwrap_or_default()), request)
        })
        .collect();
    let mut batches = 0;
    for (row, attempts) in content {
        for attempt in attempts {
            let mut events = Vec::new();
            let together = match attempt.batch {
                Some(batch) => store.in_batch(batch.id, attempt.number).await?,
                None => vec![row.delivery.clone()],
            };
            for delivery in together {
                let stored = scene.log.event(delivery.event_sequence).await?.context("an event")?;
                events.push((stored.event, delivery.id));
            }
            let request = if attempt.batch.is_some() {
                batches += 1;
                batch_as_sent(&profile, attempt, &events)?.context("the batch")?
            } else {
                as_sent(&profile, attempt, &events[0].0)?
            };
            let received = got.get(&attempt.signature).context("a request with this signature")?;
            assert_eq!(request.body, received.body);
            for (name, value) in &request.headers {
                assert_eq!(received.header(name), Some(value.as_str()), "{name}");
            }
        }
    }
    Ok(batches)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_delivery_log_says_is_what_happened() -> Result<()> {
    let mut scene = scene().await?;
    let settings = scene.installation.settings(Service::Projector);
    let url = settings.get("database").context("a database")?;
    let database = Database::new(&url.parse()?)?;
    let store = Store::of(&database);
    for _ in 0..KILLS {
        kill_in_the_middle(&mut scene, (&database, &store)).await?;
    }
    // Nobody waits for it.
    publish(&mut scene).await?;
    scene.concluded(PATIENCE).await?;
    scene.judge().await?;
    start(&mut scene, &store).await?;
    let before = content(&store).await?;
    ensure!(before.len() == 2 * EVENTS * (KILLS + 1), "{} deliveries", before.len());
    agrees(&scene, &before).await?;
    let batches = shows_requests(&scene, &store, &before).await?;
    ensure!(batches > EVENTS, "{batches} attempts in batches");
    scene.installation.stop(Service::Projector).await?;
    rebuild(&settings).await?;
    assert_eq!(caught_up(&scene, &store).await?, before, "made anew it is the same");
    database.close().await;
    scene.finish(Expected::Turmoil).await
}

/// Makes the log anew as a person would.
async fn rebuild(settings: &BTreeMap<String, String>) -> Result<()> {
    let mut command = Command::new(binary::fanfare().await?);
    command.args(["--json", "delivery-log", "rebuild"]);
    for (key, value) in settings {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let output = command.output().await.context("rebuild the log")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(said["events"].as_u64().is_some_and(|events| events > 0), "{said}");
    Ok(())
}
