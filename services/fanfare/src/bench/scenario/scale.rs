//! More dispatcher processes, more deliveries: endpoints take their time, so that the limit is the
//! number of requests that a process may have in flight.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};

use crate::{
    bench::{
        cluster::{Cluster, Plan},
        hearing::Counter,
        lab::{Floors, Lab, Load, ROUND_MAX},
        plot::{Bars, Chart, Lines, Panel},
        process::Meter,
        producer::Producer,
        samples::{Samples, count},
        sheet::{Case, Figure, Sense, Sheet},
        system::{Endpoint, TENANT},
    },
    cli::Service,
};

/// How many shards there are.
const SHARDS: u32 = 64;
/// How many requests a dispatcher may have in flight.
const IN_FLIGHT: usize = 64;
/// How many endpoints there are, and to how many each event goes.
const ENDPOINTS: u64 = 512;
const WIDTH: u64 = 16;
/// How long an endpoint takes.
const TAKES: Duration = Duration::from_millis(50);
/// How many dispatchers, and what they should make of one's speed.
const DISPATCHERS: [(u32, Option<f64>); 3] = [(1, None), (2, Some(1.9)), (4, Some(3.6))];
/// What a dispatcher can deliver in a second at best.
const BEST: u64 = 1_280;
/// How long dispatchers have to share the shards before the load begins.
const SHARE: Duration = Duration::from_secs(4);
/// The group at the receiver.
const GROUP: &str = "slow";

/// One number of dispatchers.
struct Run {
    dispatchers: u32,
    per_second: f64,
    cpu_per_thousand: f64,
    samples: Samples,
}

/// Runs the scenario.
pub(super) async fn measure(lab: &mut Lab) -> Result<Sheet> {
    lab.step("floors");
    let load = Load { count: lab.pick(8_000, 640), in_flight: IN_FLIGHT, rate: 0, wait: TAKES };
    let floors = lab.floors(load).await?;
    let mut runs = Vec::new();
    for (dispatchers, _) in DISPATCHERS {
        lab.step(format!("{dispatchers} dispatchers"));
        runs.push(run(lab, dispatchers).await?);
    }
    lab.step("done");
    Ok(sheet(&runs, &floors))
}

async fn run(lab: &Lab, dispatchers: u32) -> Result<Run> {
    let (warm_up, window): (u64, u64) = (2_000, lab.pick(8_000, 1_500));
    let mut cluster = Cluster::start(lab, Plan { shards: SHARDS, in_flight: IN_FLIGHT }).await?;
    let url = lab.receiver.url();
    let wait = TAKES.as_millis();
    let endpoints = (0..ENDPOINTS).map(|number| Endpoint {
        tenant: TENANT,
        url: format!("{url}/wait/{wait}/{GROUP}/{number}"),
        types: format!("group.g{}", number / WIDTH),
        concurrency: None,
    });
    cluster.site().endpoints(endpoints).await?;
    for number in 0..dispatchers {
        cluster.add(Service::Dispatcher).await?;
        let ready = cluster.ready(if number == 0 { ROUND_MAX } else { SHARE }).await?;
        if number == 0 {
            ready.context("the first dispatcher is not ready")?;
        }
    }
    sleep(SHARE).await;
    lab.receiver.reset().await?;
    let producer = Producer::connect(&cluster.nats(), TENANT, "group.g0", lab.bytes).await?;
    let mut pids = cluster.pids();
    pids.push(lab.receiver.pid());
    // Enough that none runs out before the window ends, if the shards are not quite even.
    let seconds = (warm_up + window) / 1_000 + 2;
    let events = u64::from(dispatchers) * BEST * seconds / WIDTH;
    let types: Vec<String> =
        (0..ENDPOINTS / WIDTH).map(|group| format!("group.g{group}")).collect();
    let meter = Meter::start(&pids)?;
    producer.flood_types(events, TENANT, &types).await?;
    lab.receiver.wait_for(GROUP, 1, ROUND_MAX).await?;
    sleep(Duration::from_millis(warm_up)).await;
    let before = lab.receiver.counted(Counter::Taken, GROUP).await?;
    let counting = Instant::now();
    sleep(Duration::from_millis(window)).await;
    let after = lab.receiver.counted(Counter::Taken, GROUP).await?;
    let took = counting.elapsed().as_secs_f64();
    let cpu = meter.seconds()?;
    let samples = lab.receiver.samples(GROUP).await?;
    cluster.stop().await?;
    Ok(Run {
        dispatchers,
        per_second: count(after - before) / took,
        cpu_per_thousand: cpu * 1_000.0 / count(samples.len()),
        samples,
    })
}

impl Run {
    fn name(&self) -> String {
        match self.dispatchers {
            1 => String::from("1 dispatcher"),
            more => format!("{more} dispatchers"),
        }
    }
}

fn sheet(runs: &[Run], floors: &Floors) -> Sheet {
    let about = format!(
        "{ENDPOINTS} endpoints that take {} ms, {SHARDS} shards, events to {WIDTH} endpoints each, \
         at most {IN_FLIGHT} requests in flight per dispatcher process: {BEST}/s each at best.",
        TAKES.as_millis()
    );
    let mut sheet = Sheet::new("scale", about);
    let one = runs.first().map_or(f64::NAN, |run| run.per_second);
    let mut cases = Vec::new();
    for run in runs {
        let case = Case::new(run.name())
            .rate(run.per_second, run.cpu_per_thousand)
            .with(Figure::RATIO, run.per_second / one)
            .with(Figure::OF_LOOP, run.per_second / floors.bare_loop.per_second())
            .with(Figure::OF_POST, run.per_second / floors.post_only.per_second());
        cases.push(case);
    }
    cases.extend(floors.rates());
    sheet.table("Deliveries per second (floors: one process, as many in flight)", cases);
    for (run, (dispatchers, target)) in runs.iter().zip(DISPATCHERS) {
        if let Some(target) = target {
            let what = format!("{dispatchers} dispatchers, of one's deliveries/s");
            sheet.target(what, run.per_second / one, Sense::AtLeast, target);
        }
    }
    sheet.chart(chart(runs, one));
    sheet
}

fn chart(runs: &[Run], one: f64) -> Chart {
    let names: Vec<String> = runs.iter().map(Run::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bars = Bars::new("deliveries per second", &names);
    bars.series("measured", runs.iter().map(|run| run.per_second).collect());
    let ideal = runs.iter().map(|run| one * f64::from(run.dispatchers));
    bars.series("one's, times the number", ideal.collect());
    let mut lines = Lines::new("seconds", "deliveries per second");
    for run in runs {
        let end = run.samples.ends().map_or(0, |(_, end)| end);
        lines.series(run.name(), run.samples.rate_over_time(500, end));
    }
    let title = format!("Scale: endpoints that take {} ms", TAKES.as_millis());
    Chart::new("scale", title).with(Panel::Bars(bars)).with(Panel::Lines(lines))
}
