//! A group of endpoints comes back after hours, and everything that failed meanwhile is due at
//! once: first attempts of others must not wait for it.

use std::{ops::Range, time::Duration};

use anyhow::{Result, bail, ensure};
use fanfare_service::{Clock as _, Joined, SystemClock};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{IN_FLIGHT, RATE, flood_load, steady_load};
use crate::bench::{
    hearing::Counter,
    lab::{Floors, Lab, ROUND_MAX},
    plot::{Chart, Lines, Panel},
    producer::Producer,
    samples::{Samples, count},
    sheet::{Case, Figure, Sense, Sheet},
    system::{Endpoint, NO_BREAKER, System, TENANT},
};

/// The tenant whose endpoints fail, and the group of these at the receiver.
const STORM: &str = "storm";
/// The group of the others.
const OTHERS: &str = "others";
/// How many endpoints fail.
const WIDTH: u64 = 20;
/// How long the others are watched before anything happens, and after it.
const QUIET: Duration = Duration::from_secs(4);
/// How long what failed may take to arrive in the end.
const STORM_MAX: Duration = Duration::from_mins(1);

/// When what happened, in milliseconds since the receiver was reset.
struct Times {
    before: Range<u32>,
    failing: Range<u32>,
    storm: Range<u32>,
}

/// Runs the scenario.
pub(super) async fn measure(lab: &mut Lab) -> Result<Sheet> {
    lab.step("floors");
    let floors = (lab.floors(steady_load(lab, RATE)).await?, lab.floors(flood_load(lab)).await?);
    let system = System::start(lab, IN_FLIGHT).await?;
    let (site, url) = (system.site(), lab.receiver.url());
    site.tenant(STORM, Some(NO_BREAKER)).await?;
    site.endpoints((0..WIDTH).map(|number| Endpoint {
        tenant: STORM,
        url: format!("{url}/gate/{STORM}/{number}"),
        types: String::from(">"),
        concurrency: None,
    }))
    .await?;
    let endpoint = Endpoint {
        tenant: TENANT,
        url: format!("{url}/ok/{OTHERS}/1"),
        types: String::from(">"),
        concurrency: None,
    };
    site.endpoint(&endpoint).await?;
    let producer = system.producer(lab, "invoice.paid").await?;
    let storm = Producer::connect(system.nats(), STORM, "invoice.paid", lab.bytes).await?;
    let warm = producer.steadily(RATE, Duration::from_secs(1)).await?;
    lab.receiver.wait_for(OTHERS, warm, ROUND_MAX).await?;
    let events = lab.pick(1_000, 50);
    // The first retry is due 5 to 5.5 s after a failure at the earliest.
    let fill = Duration::from_secs(lab.pick(14, 8));
    lab.receiver.reset().await?;
    let begun = Instant::now();
    // A task of its own, so that it keeps time whatever the others do.
    let mut steady = JoinSet::new();
    steady.spawn(async move { producer.steadily(RATE, ROUND_MAX).await });
    let times = tokio::select! {
        times = act(lab, &storm, events, (begun, fill)) => times?,
        ended = steady.join_next() => {
            ended.map(Joined::joined).transpose()?.transpose()?;
            bail!("the storm did not end within {ROUND_MAX:?}");
        }
    };
    steady.shutdown().await;
    lab.step("done");
    let samples = [lab.receiver.samples(OTHERS).await?, lab.receiver.samples(STORM).await?];
    system.stop().await?;
    Ok(sheet(&samples, &times, events * WIDTH, &floors))
}

/// Lets the group fail and come back.
async fn act(
    lab: &Lab,
    storm: &Producer,
    events: u64,
    (begun, fill): (Instant, Duration),
) -> Result<Times> {
    let now = || u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
    lab.step("quiet");
    sleep(QUIET).await;
    lab.step("the group fails");
    let failing = now();
    let back = SystemClock.now().saturating_add(fill).as_secs() + 1;
    lab.receiver.shut(STORM, back).await?;
    storm.flood(events).await?;
    let refused = (Counter::Refused, STORM);
    let wanted = events * WIDTH;
    let came = lab.receiver.gather(refused, wanted, fill.saturating_sub(QUIET / 4)).await?;
    ensure!(came > 0, "nothing was refused");
    let failed = now();
    let wait = Duration::from_millis(
        (back * 1_000).saturating_sub(SystemClock.now().as_millis()).saturating_sub(300),
    );
    sleep_until(Instant::now() + wait).await;
    lab.step("the group is back");
    lab.receiver.open(STORM).await?;
    sleep(Duration::from_millis(300)).await;
    let came_back = now();
    lab.receiver.gather((Counter::Taken, STORM), wanted, STORM_MAX).await?;
    // A storm that is over at once is watched a little longer, to have requests to judge by.
    let over = now().max(came_back + 3_000);
    sleep(Duration::from_millis((over - now()).into())).await;
    sleep(QUIET).await;
    // What was sent just before is caught by what comes.
    let before = 0..failing.saturating_sub(500);
    Ok(Times { before, failing: failing..failed, storm: came_back..over })
}

fn sheet(
    [others, storm]: &[Samples; 2],
    times: &Times,
    wanted: u64,
    (floors, flood): &(Floors, Floors),
) -> Sheet {
    let about = format!(
        "{wanted} deliveries to {WIDTH} endpoints fail and ask for the same second; meanwhile one \
         endpoint of another tenant gets {RATE} events/s."
    );
    let mut sheet = Sheet::new("retry-storm", about);
    let row = |name: &str, span: &Range<u32>| {
        let delays = others.sent_within(span).delays();
        Case::new(name)
            .delays(delays)
            .with(Figure::P50_OF_LOOP, delays.p50() / floors.bare_loop.samples.delays().p50())
            .with(Figure::P50_OF_POST, delays.p50() / floors.post_only.samples.delays().p50())
    };
    let mut cases = vec![
        row("before", &times.before),
        row("while the group fails", &times.failing),
        row("while the group comes back", &times.storm),
    ];
    cases.extend(floors.delays());
    sheet.table("Delays of the other endpoint's first attempts", cases);
    let drained = storm.ends().map_or(f64::NAN, |(_, last)| {
        f64::from(last.saturating_sub(times.storm.start)).max(1.0) / 1_000.0
    });
    let per_second = count(storm.len()) / drained;
    let case = Case::new("the group's retries")
        .with(Figure::REQUESTS, count(storm.len()))
        .with(Figure::SECONDS, drained)
        .with(Figure::PER_SECOND, per_second)
        .with(Figure::OF_LOOP, per_second / flood.bare_loop.per_second())
        .with(Figure::OF_POST, per_second / flood.post_only.per_second());
    sheet.table("Until all that had failed was delivered", vec![case]);
    let p99 = |span: &Range<u32>| others.sent_within(span).delays().p99();
    let limit = (p99(&times.before) * 1.2).max(p99(&times.before) + 3.0);
    let what = "p99 in ms of the other endpoint during the storm";
    sheet.target(what, p99(&times.storm), Sense::AtMost, limit);
    let mut delays = Lines::new("seconds", "delay of others in ms").log();
    delays.series("p50", others.over_time(500, |step| step.delays().p50()));
    delays.series("p99", others.over_time(500, |step| step.delays().p99()));
    let mut rates = Lines::new("seconds", "requests per second");
    for (span, what) in [(&times.failing, "the group fails"), (&times.storm, "it is back")] {
        delays.mark(f64::from(span.start) / 1_000.0, what);
        rates.mark(f64::from(span.start) / 1_000.0, what);
    }
    let end = others.ends().map_or(0, |(_, end)| end);
    rates.series("others", others.rate_over_time(500, end));
    rates.series("the group that comes back", storm.rate_over_time(500, end));
    let chart = Chart::new("retry-storm", "Retry storm: a group comes back, others go on")
        .with(Panel::Lines(delays))
        .with(Panel::Lines(rates));
    sheet.chart(chart);
    sheet
}
