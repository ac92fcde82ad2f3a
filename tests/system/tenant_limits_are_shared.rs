//! A tenant's rate limit holds for all its endpoints together, with two fan-outs that share it, and
//! no other tenant notices.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::Timestamp;
use serde_json::json;

use crate::support::{Expected, Hooks, Options, Planned, Route, Scene, Service, Subscriber};

const PATHS: [&str; 5] = ["/a", "/b", "/c", "/d", "/e"];
const OTHER: &str = "other";
const OTHERS_PATH: &str = "/other";

/// Deliveries in a second, and the time over which they count.
const RATE: usize = 20;
const WINDOW: Duration = Duration::from_secs(30);
/// How many events there are, of the limited tenant and of the other.
const EVENTS: usize = 134;
const OTHERS: usize = 100;
/// How late an alarm clock may be, and a request on its way.
const LATE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_rate_holds_over_all_its_endpoints_and_two_fan_outs() -> Result<()> {
    let options = Options { profile: "eager", ..Options::default() };
    let mut scene = Scene::set_with(options, Hooks::start().await?).await?;
    let limit = json!({ "rate_limit": { "requests": RATE, "per": "second" } });
    scene.api().patch("/v1/tenants/acme", &limit).await?;
    for path in PATHS {
        scene.subscribe(path, &[">"], &["1s"]).await?;
    }
    subscribe_other(&mut scene).await?;
    let second = scene.installation.another(Service::FanOut)?;
    // One by one, so that both fan-outs get some.
    for number in 0..EVENTS.max(OTHERS) {
        let mut planned = Vec::new();
        if number < EVENTS {
            planned.push(scene.plan("a.b", Route::Inbox)?);
        }
        if number < OTHERS {
            planned.push(Planned { tenant: OTHER.parse()?, ..scene.plan("a.b", Route::Inbox)? });
        }
        scene.publish(planned).await?;
    }
    scene.concluded(Duration::from_mins(1)).await?;

    let times = times(&scene, &PATHS);
    ensure!(times.len() == EVENTS * PATHS.len(), "{} requests", times.len());
    holds_over_every_window(&times)?;
    let begin = times.first().context("requests came")?.saturating_add(Duration::from_secs(1));
    let counted = times.iter().filter(|at| **at >= begin && at.since(begin) < WINDOW).count();
    let expected = RATE * usize::try_from(WINDOW.as_secs())?;
    ensure!(counted.abs_diff(expected) <= expected / 20, "{counted} in {WINDOW:?}");

    // With the other's share of the limit they would have taken a third of the time.
    let others = self::times(&scene, &[OTHERS_PATH]);
    let end = others.last().context("requests came")?;
    let meanwhile = times.iter().filter(|at| *at <= end).count();
    ensure!(others.len() == OTHERS, "{} requests of the other tenant", others.len());
    ensure!(meanwhile < times.len() / 3, "{meanwhile} requests before the other's last");
    let report = scene.judge().await?;
    ensure!(report.duplicates == 0, "{} were made twice", report.duplicates);
    second.stop().await?;
    scene.finish(Expected::Calm).await
}

/// Over any stretch no more than the rate allows, and what was late by then.
fn holds_over_every_window(times: &[Timestamp]) -> Result<()> {
    for (first, from) in times.iter().enumerate() {
        for (count, to) in (1_u32..).zip(&times[first..]) {
            let span = to.since(*from) + LATE;
            let allowed = span.as_secs_f64() * f64::from(u32::try_from(RATE)?) + 1.0;
            ensure!(f64::from(count) <= allowed, "{count} requests within {span:?}");
        }
    }
    Ok(())
}

/// Makes the other tenant, with one endpoint and no limit.
async fn subscribe_other(scene: &mut Scene) -> Result<()> {
    scene.api().tenant(OTHER, "eager").await?;
    let made = scene.api().endpoint(OTHER, &scene.endpoint(OTHERS_PATH, &[">"], &["1s"])).await?;
    scene.subscribers.push(Subscriber {
        id: made.id.parse().context("an endpoint's id")?,
        tenant: OTHER.parse()?,
        filters: vec![">".parse()?],
        path: String::from(OTHERS_PATH),
        attempts_max: 2,
    });
    Ok(())
}

/// When requests came to these paths, in order.
fn times(scene: &Scene, paths: &[&str]) -> Vec<Timestamp> {
    let paths: BTreeSet<_> = paths.iter().collect();
    let seen = paths.iter().flat_map(|path| scene.hooks.seen_at(path));
    let mut times: Vec<_> = seen.map(|seen| seen.at).collect();
    times.sort_unstable();
    times
}
