//! An endpoint that asks for order gets the events of one key strictly in the order of EVENTS, each
//! only once the delivery of the one before it has concluded, retries included; other keys go on.
//! Killing dispatchers, fan-out and the retry-scheduler changes nothing in this.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{EventId, Timestamp};
use fanfare_service::{Clock as _, SystemClock};
use serde_json::json;

use crate::support::{
    Answer, EAGER, Expected, Hooks, Options, Planned, Route, Scene, Service,
    checker::{History, fold},
    evidence,
    nemesis::{Kill, Victim},
};

/// How many events each key gets, how many keys there are, and in how many rounds they come.
const EVENTS: usize = 12;
const KEYS: usize = 8;
const ROUNDS: usize = 4;
const DELAYS: [&str; 4] = ["300ms", "300ms", "500ms", "500ms"];
/// The endpoints, and what order they ask for.
const ENDPOINTS: [(&str, &str); 3] = [("/key", "key"), ("/all", "all"), ("/none", "none")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_key_come_one_after_the_other_under_kills() -> Result<()> {
    let hooks = Hooks::answering(|request, earlier| {
        let mut hasher = DefaultHasher::new();
        request.header("webhook-id").hash(&mut hasher);
        let fails = hasher.finish().is_multiple_of(5) && request.path != "/all";
        if fails && earlier < 2 { Answer::Status(500) } else { Answer::Status(200) }
    });
    let options = Options { profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    for (path, ordering) in ENDPOINTS {
        let mut endpoint = scene.endpoint(path, &[">"], &DELAYS);
        endpoint["ordering"] = json!(ordering);
        let made = scene.api().endpoint("acme", &endpoint).await?;
        scene.note(path, &[">"], &made, &DELAYS)?;
    }
    let victims = [Service::Dispatcher, Service::FanOut, Service::RetryScheduler];
    for victim in victims.into_iter().cycle().take(ROUNDS) {
        let planned = plan(&scene, EVENTS / ROUNDS)?;
        scene.publish(planned).await?;
        let at = SystemClock.now();
        scene.installation.kill(victim).await?;
        scene.installation.start_service(victim).await?;
        let back = SystemClock.now();
        scene.kills.push(Kill { victim: Victim::Service(victim), at, back });
    }
    scene.concluded(Duration::from_mins(2)).await?;
    let report = scene.judge().await?;
    let most = check_order(&scene).await?;
    writeln!(
        std::io::stderr(),
        "order_is_kept: {} attempts, {} requests, {} duplicates; up to {most} keys at once",
        report.attempts,
        report.requests,
        report.duplicates,
    )?;
    ensure!(report.attempts > ENDPOINTS.len() * EVENTS * KEYS, "nothing was tried again");
    ensure!(most > 1, "keys waited for each other");
    scene.finish(Expected::Turmoil).await
}

fn plan(scene: &Scene, count: usize) -> Result<Vec<Planned>> {
    let one = |number: usize| -> Result<Planned> {
        let ordering_key = Some(format!("key-{}", number % KEYS));
        Ok(Planned { ordering_key, ..scene.plan("a.b", Route::Inbox)? })
    };
    (0..count * KEYS).map(one).collect()
}

/// Checks the order of what each key got; returns how many keys had a delivery that was begun and
/// not concluded at the same time.
async fn check_order(scene: &Scene) -> Result<usize> {
    let histories = fold(&evidence::journal(&scene.log).await?);
    let events = evidence::events(&scene.installation, &scene.log).await?;
    let keys: BTreeMap<EventId, String> = events
        .iter()
        .filter_map(|stored| Some((stored.event.id, stored.event.ordering_key.clone()?)))
        .collect();
    let mut most = 0;
    for (subscriber, (path, ordering)) in scene.subscribers.iter().zip(ENDPOINTS) {
        let mut lines: BTreeMap<&str, Vec<(u64, Timestamp, Timestamp)>> = BTreeMap::new();
        for history in histories.values().filter(|it| it.delivery.endpoint == subscriber.id) {
            let key = keys.get(&history.delivery.event).context("an event has its key")?;
            let line = if ordering == "all" { "" } else { key.as_str() };
            lines.entry(line).or_default().push(span(history)?);
        }
        for spans in lines.values_mut() {
            spans.sort_unstable();
        }
        if ordering == "key" {
            most = together(&lines);
        }
        if ordering == "none" {
            continue;
        }
        for (line, spans) in lines {
            for pair in spans.windows(2) {
                let ((first, _, end), (second, begin, _)) = (pair[0], pair[1]);
                ensure!(begin >= end, "{path} {line}: {second} was begun before {first} was over");
            }
        }
    }
    Ok(most)
}

/// A delivery's event, when its first request was begun, and when its last one was over.
fn span(history: &History) -> Result<(u64, Timestamp, Timestamp)> {
    let first = history.attempts.first().context("a delivery has an attempt")?;
    let last = history.attempts.last().context("a delivery has an attempt")?;
    let end = last.started_at.saturating_add(last.duration);
    Ok((history.delivery.event_sequence, first.started_at, end))
}

/// How many lines had something under way at the same time, at most.
fn together(lines: &BTreeMap<&str, Vec<(u64, Timestamp, Timestamp)>>) -> usize {
    let begins = lines.values().flatten().map(|(_, begin, _)| *begin);
    let at = |time: Timestamp| {
        let is_busy = |spans: &&Vec<(u64, Timestamp, Timestamp)>| {
            spans.iter().any(|(_, begin, end)| *begin <= time && time < *end)
        };
        lines.values().filter(is_busy).count()
    };
    begins.map(at).max().unwrap_or_default()
}
