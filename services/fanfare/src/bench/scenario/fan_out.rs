//! One event to very many endpoints, and very many endpoints in one installation.

use std::time::Duration;

use anyhow::Result;

use super::{IN_FLIGHT, RATE, flood_load, steady_load};
use crate::bench::{
    lab::{Floors, Lab, ROUND_MAX},
    plot::{Chart, Lines, Panel},
    process::Meter,
    samples::{Samples, count, median},
    sheet::{Case, Figure, Sheet},
    system::{Endpoint, System, TENANT},
};

/// The group of those that the wide event goes to, and of the one beside them.
const WIDE: &str = "wide";
const NARROW: &str = "narrow";
/// How often the wide event is sent.
const TIMES: usize = 3;

/// What one wide event made.
struct Wide {
    samples: Samples,
    cpu_seconds: f64,
}

/// What was measured with a number of endpoints in the installation.
struct Stage {
    endpoints: u64,
    wide: Vec<Wide>,
    /// Events to one endpoint: delays at an even rate, and processor seconds per 1,000.
    narrow: Samples,
    narrow_cpu: f64,
    /// The memory of the services and of nats-server.
    mebibytes: [f64; 2],
}

/// Runs the scenario.
pub(super) async fn measure(lab: &mut Lab) -> Result<Sheet> {
    let (wide, all) = lab.pick((10_000, 100_000), (200, 1_000));
    lab.step("floors");
    let floors = (lab.floors(steady_load(lab, RATE)).await?, lab.floors(flood_load(lab)).await?);
    let system = System::start(lab, IN_FLIGHT).await?;
    let url = lab.receiver.url();
    lab.step(format!("{wide} endpoints are made"));
    let endpoint = |path: String, types: String| Endpoint {
        tenant: TENANT,
        url: format!("{url}/{path}"),
        types,
        concurrency: None,
    };
    let narrow = endpoint(format!("ok/{NARROW}"), String::from("narrow.one"));
    system.site().endpoint(&narrow).await?;
    let first = (0..wide).map(|n| endpoint(format!("ok/{WIDE}/{n}"), String::from("wide.one")));
    system.site().endpoints(first).await?;
    lab.step("one event to all of them");
    let small = stage(lab, &system, wide, wide).await?;
    lab.step(format!("{all} endpoints are made"));
    // Every fifth wants everything of a kind, the others one type each of a thousand.
    let rest = (wide..all).map(|n| {
        let types =
            if n % 5 == 0 { String::from("rest.>") } else { format!("rest.t{}", n % 1_000) };
        endpoint(format!("ok/rest/{n}"), types)
    });
    system.site().endpoints(rest).await?;
    lab.step("the same event again");
    let large = stage(lab, &system, wide, all).await?;
    lab.step("done");
    system.stop().await?;
    Ok(sheet(lab, wide, &[small, large], &floors))
}

async fn stage(lab: &Lab, system: &System, width: u64, endpoints: u64) -> Result<Stage> {
    let producer = system.producer(lab, "wide.one").await?;
    let [services, nats] = system.pids()?;
    let pids = [services, nats, lab.receiver.pid()];
    let mut wide = Vec::new();
    for _ in 0..TIMES {
        lab.receiver.reset().await?;
        let meter = Meter::start(&pids)?;
        producer.one().await?;
        lab.receiver.wait_for(WIDE, width, ROUND_MAX).await?;
        let cpu_seconds = meter.seconds()?;
        wide.push(Wide { samples: lab.receiver.samples(WIDE).await?, cpu_seconds });
    }
    let narrow = producer.of(TENANT, "narrow.one");
    lab.receiver.reset().await?;
    let meter = Meter::start(&pids)?;
    let span = Duration::from_secs(lab.pick(8, 1));
    let events = narrow.steadily(RATE, span).await?;
    lab.receiver.wait_for(NARROW, events, ROUND_MAX).await?;
    let narrow_cpu = meter.seconds()? * 1_000.0 / count(events);
    let mebibytes = system.memory()?.map(|bytes| count(bytes >> 20));
    let narrow = lab.receiver.samples(NARROW).await?;
    Ok(Stage { endpoints, wide, narrow, narrow_cpu, mebibytes })
}

impl Stage {
    fn wide_case(&self, flood: &Floors) -> Case {
        let figure = |of: fn(&Wide) -> f64| median(self.wide.iter().map(of));
        let per_second = figure(Wide::per_second);
        Case::new(format!("{} in the installation", self.endpoints))
            .with(Figure::FIRST, figure(Wide::first))
            .with(Figure::LAST, figure(|wide| wide.samples.delays().max()))
            .rate(per_second, figure(Wide::cpu_per_thousand))
            .with(Figure::OF_LOOP, per_second / flood.bare_loop.per_second())
            .with(Figure::OF_POST, per_second / flood.post_only.per_second())
    }

    fn narrow_case(&self, steady: &Floors) -> Case {
        let delays = self.narrow.delays();
        let [services, nats] = self.mebibytes;
        Case::new(format!("{} in the installation", self.endpoints))
            .delays(delays)
            .with(Figure::CPU, self.narrow_cpu)
            .with(Figure::P50_OF_LOOP, delays.p50() / steady.bare_loop.samples.delays().p50())
            .with(Figure::P50_OF_POST, delays.p50() / steady.post_only.samples.delays().p50())
            .with(Figure::MEBIBYTES, services)
            .with(Figure::NATS_MEBIBYTES, nats)
    }
}

impl Wide {
    fn first(&self) -> f64 {
        self.samples.delays_at(&[0.0]).first().copied().unwrap_or(f64::NAN)
    }

    fn per_second(&self) -> f64 {
        count(self.samples.len()) * 1_000.0 / self.samples.delays().max()
    }

    fn cpu_per_thousand(&self) -> f64 {
        self.cpu_seconds * 1_000.0 / count(self.samples.len())
    }
}

fn sheet(lab: &Lab, width: u64, stages: &[Stage], (steady, flood): &(Floors, Floors)) -> Sheet {
    let about = format!(
        "One event of {} bytes to {width} endpoints, {IN_FLIGHT} in flight, median of {TIMES}; then \
         with many more endpoints that do not want it. Delays from publish to receiver.",
        lab.bytes
    );
    let mut sheet = Sheet::new("fan-out", about);
    let mut cases: Vec<Case> = stages.iter().map(|stage| stage.wide_case(flood)).collect();
    cases.extend(flood.rates());
    sheet.table(format!("One event to {width} endpoints"), cases);
    let mut cases: Vec<Case> = stages.iter().map(|stage| stage.narrow_case(steady)).collect();
    cases.extend(steady.delays());
    sheet.table(format!("Events to one endpoint at {RATE}/s"), cases);
    let mut lines = Lines::new("milliseconds since the publish", "deliveries so far");
    for stage in stages {
        if let Some(wide) = stage.wide.last() {
            let name = format!("{} endpoints in the installation", stage.endpoints);
            lines.series(name, so_far(&wide.samples));
        }
    }
    let title = format!("Fan-out: one event to {width} endpoints");
    sheet.chart(Chart::new("fan-out", title).with(Panel::Lines(lines)));
    sheet
}

/// How many deliveries were made by which time after the publish: at most 200 points.
fn so_far(samples: &Samples) -> Vec<(f64, f64)> {
    let shares: Vec<f64> = (0..=200_u32).map(|step| f64::from(step) / 200.0).collect();
    let delays = samples.delays_at(&shares);
    let all = count(samples.len());
    delays.into_iter().zip(shares).map(|(delay, share)| (delay, share * all)).collect()
}
