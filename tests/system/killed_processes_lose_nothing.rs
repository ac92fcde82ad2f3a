//! Killing any process, at any point, changes nothing: nothing that was acknowledged is lost, and
//! a duplicate comes only where a crash fell between an answer and its record.
//!
//! The run is a function of its seed, which is printed: `FANFARE_TEST_SEED=… cargo test …` plays
//! it again, as far as the machine's timing allows. `FANFARE_TEST_LONG=1` runs the long version.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::receiver::Received;
use tokio::time::{Instant, sleep};

use crate::support::{
    Answer, EAGER, Expected, Hooks, Options, Planned, Report, Route, Scene, Service,
    nemesis::{self, Blow, Kill, Victim},
};

/// How large a run is.
#[derive(Clone, Copy, Debug)]
struct Size {
    events: usize,
    kills_of_each: usize,
}

const SHORT: Size = Size { events: 1_000, kills_of_each: 4 };
const LONG: Size = Size { events: 5_000, kills_of_each: 12 };

/// What each endpoint wants, and how many of a thousand of its answers are failures.
const ENDPOINTS: [(&str, &[&str], u64); 10] = [
    ("/all", &[">"], 0),
    ("/orders", &["order.>"], 0),
    ("/paid", &["*.paid"], 0),
    ("/invoices", &["invoice.*"], 0),
    ("/two", &["order.made", "user.created"], 0),
    ("/users", &["user.>"], 0),
    ("/none", &["never.>"], 0),
    ("/sometimes", &[">"], 200),
    ("/often", &["order.>", "invoice.>"], 500),
    ("/mostly", &["order.paid"], 800),
];
const DELAYS: [&str; 5] = ["300ms", "600ms", "1s", "1s", "2s"];
const TYPES: [&str; 5] =
    ["order.paid", "order.made", "invoice.paid", "invoice.sent", "user.created"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_every_duplicate_has_its_crash() -> Result<()> {
    let seed = nemesis::seed()?;
    let size = if nemesis::is_long()? { LONG } else { SHORT };
    say(&format!("seed {seed}: FANFARE_TEST_SEED={seed} plays it again; {size:?}"))?;
    let hooks = Hooks::answering(move |request, earlier| answer(seed, request, earlier)).await?;
    let options = Options { profile: EAGER, ..Options::default() };
    let window = options.duplicate_window;
    let mut scene = Scene::set_with(options, hooks).await?;
    for (path, filters, _) in ENDPOINTS {
        scene.subscribe(path, filters, &DELAYS).await?;
    }
    run(&mut scene, &nemesis::plan(seed, size.kills_of_each, window), size).await?;
    restart_everything(&mut scene, window).await?;
    scene.concluded(Duration::from_mins(3)).await?;
    let judged = scene.judge().await.with_context(|| format!("seed {seed}"));
    if judged.is_err() {
        explain(&scene).await?;
    }
    let report = judged?;
    scene.api_agrees().await.with_context(|| format!("seed {seed}"))?;
    tell(&scene, &report)?;
    scene.finish(Expected::Turmoil).await
}

/// Publishes a share of the events during each kill.
async fn run(scene: &mut Scene, blows: &[Blow], size: Size) -> Result<()> {
    let share = size.events.div_ceil(blows.len());
    let mut left = size.events;
    for blow in blows {
        let count = share.min(left);
        left -= count;
        let planned = plan(scene, count)?;
        let producer = scene.producer();
        let (published, kills) =
            tokio::join!(producer.publish_all(planned), strike_during(scene, count, blow));
        let (published, kills) = (published?, kills?);
        scene.acknowledged.extend(published);
        scene.kills.extend(kills);
    }
    Ok(())
}

fn plan(scene: &Scene, count: usize) -> Result<Vec<Planned>> {
    let routes = [Route::Inbox, Route::Inbox, Route::Request, Route::Http];
    let types = TYPES.iter().cycle().zip(routes.iter().cycle());
    types.take(count).map(|(event_type, route)| scene.plan(event_type, *route)).collect()
}

/// Waits for the moment that the plan says, and strikes.
async fn strike_during(scene: &mut Scene, events: usize, blow: &Blow) -> Result<Vec<Kill>> {
    let begun = (Instant::now(), scene.hooks.count());
    // Each event goes to four or five of the endpoints.
    let wanted = events * 4 * usize::try_from(blow.moment)? / 1_000;
    // While the victims before are coming back there may be no requests: that is a moment too.
    while scene.hooks.count() < begun.1 + wanted && begun.0.elapsed() < MOMENT_MAX {
        sleep(Duration::from_millis(1)).await;
    }
    nemesis::strike(&mut scene.installation, blow).await
}

/// The longest that a moment is waited for.
const MOMENT_MAX: Duration = Duration::from_secs(2);

/// Kills everything at once, and starts it again after the duplicate window.
async fn restart_everything(scene: &mut Scene, window: Duration) -> Result<()> {
    let at = SystemClock.now();
    for service in Service::ALL {
        scene.installation.kill(service).await?;
    }
    scene.installation.nats().kill().await.context("kill nats-server")?;
    // Longer than the servers remember ids: that time is what is tried.
    sleep(window + Duration::from_millis(200)).await;
    scene.installation.nats().restart().await.context("restart nats-server")?;
    scene.installation.start_all().await?;
    let back = SystemClock.now();
    scene.kills.push(Kill { victim: Victim::Service(Service::Dispatcher), at, back });
    Ok(())
}

/// Decides by chance, and the same for the same seed, whether an endpoint fails.
fn answer(seed: u64, request: &Received, earlier: usize) -> Answer {
    let endpoint = ENDPOINTS.iter().find(|(path, ..)| *path == request.path);
    let failures = endpoint.map_or(0, |(.., failures)| *failures);
    let mut hasher = DefaultHasher::new();
    (seed, &request.path, request.header("webhook-id"), earlier).hash(&mut hasher);
    let chance = hasher.finish();
    if chance % 1_000 >= failures {
        return Answer::Status(200);
    }
    match chance / 1_000 % 4 {
        0 => Answer::Reset,
        1 => Answer::Status(503),
        2 => Answer::Status(404),
        _ => Answer::Status(500),
    }
}

/// Says what was killed when, and which ids are in EVENTS more than once.
async fn explain(scene: &Scene) -> Result<()> {
    for kill in &scene.kills {
        say(&format!("{} was killed at {} and back at {}", kill.victim, kill.at, kill.back))?;
    }
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for message in scene.installation.server().everything().await? {
        if message.stream == "FANFARE_EVENTS" {
            let id = message.headers.into_iter().find(|(name, _)| name == "Nats-Msg-Id");
            let place = format!("{} at {}", message.sequence, message.stored_at);
            places.entry(id.map(|(_, id)| id).unwrap_or_default()).or_default().push(place);
        }
    }
    for (id, places) in places.iter().filter(|(_, places)| places.len() > 1) {
        say(&format!("{id} is in EVENTS as {}", places.join(" and as ")))?;
    }
    Ok(())
}

fn tell(scene: &Scene, report: &Report) -> Result<()> {
    ensure!(report.conclusions.len() > 1, "no endpoint failed: {report:?}");
    let (p50, p99) = (report.lateness_percentile(50), report.lateness_percentile(99));
    say(&format!(
        "{} kills; {:?}; {} attempts, {} requests, {} duplicates ({:.2} per kill), {} put off; \
         later attempts late by p50 {p50:?}, p99 {p99:?}",
        scene.kills.len(),
        report.conclusions,
        report.attempts,
        report.requests,
        report.duplicates,
        f64::from(u32::try_from(report.duplicates)?) / f64::from(u32::try_from(scene.kills.len())?),
        report.deferred,
    ))
}

/// Says something past the test harness's capture, which shows nothing of tests that pass.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "killed_processes_lose_nothing: {text}")?)
}
