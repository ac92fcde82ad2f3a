//! From publish to receiver, at a rate that everything keeps up with easily.

use std::time::Duration;

use anyhow::Result;

use super::{IN_FLIGHT, RATE, steady_load};
use crate::bench::{
    lab::{Floors, Lab, ROUND_MAX},
    plot::{Chart, Lines, Panel},
    process::Meter,
    samples::{Samples, count},
    sheet::{Case, Figure, Sense, Sheet},
    system::{Endpoint, System, TENANT},
};

/// The group at the receiver.
const GROUP: &str = "one";

/// The quantiles of the plot, by the share of deliveries that take longer: from half of them to
/// one in a thousand.
const TAIL: [f64; 16] = [
    0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.015, 0.01, 0.005, 0.003, 0.002, 0.001,
];

/// Runs the scenario.
pub(super) async fn measure(lab: &mut Lab) -> Result<Sheet> {
    let span = Duration::from_secs(lab.pick(20, 2));
    lab.step("floors");
    let floors = lab.floors(steady_load(lab, RATE)).await?;
    lab.step("system");
    let system = System::start(lab, IN_FLIGHT).await?;
    let endpoint = Endpoint {
        tenant: TENANT,
        url: format!("{}/ok/{GROUP}/1", lab.receiver.url()),
        types: String::from(">"),
        concurrency: None,
    };
    system.site().endpoint(&endpoint).await?;
    let producer = system.producer(lab, "invoice.paid").await?;
    // The first requests pay for connections and caches.
    lab.receiver.reset().await?;
    let warm = producer.steadily(RATE, Duration::from_secs(2)).await?;
    lab.receiver.wait_for(GROUP, warm, ROUND_MAX).await?;
    lab.receiver.reset().await?;
    let [services, nats] = system.pids()?;
    let meter = Meter::start(&[services, nats, lab.receiver.pid()])?;
    let published = producer.steadily(RATE, span).await?;
    lab.receiver.wait_for(GROUP, published, ROUND_MAX).await?;
    let cpu = meter.seconds()? * 1_000.0 / count(published);
    let samples = lab.receiver.samples(GROUP).await?;
    system.stop().await?;
    lab.step("done");
    Ok(sheet(lab, &samples, cpu, &floors))
}

fn sheet(lab: &Lab, samples: &Samples, cpu: f64, floors: &Floors) -> Sheet {
    let about = format!(
        "{} events of {} bytes at {RATE}/s to one endpoint; delays from publish to receiver.",
        samples.len(),
        lab.bytes
    );
    let mut sheet = Sheet::new("latency", about);
    let delays = samples.delays();
    let system = Case::new("system")
        .delays(delays)
        .with(Figure::CPU, cpu)
        .with(Figure::P50_OF_LOOP, delays.p50() / floors.bare_loop.samples.delays().p50())
        .with(Figure::P50_OF_POST, delays.p50() / floors.post_only.samples.delays().p50());
    sheet.table("Delays", std::iter::once(system).chain(floors.delays()).collect());
    sheet.target("p50 in ms", delays.p50(), Sense::AtMost, 3.0);
    sheet.target("p99 in ms", delays.p99(), Sense::AtMost, 15.0);
    let mut lines = Lines::new("percentile of deliveries, from p50", "delay in ms").log().tail();
    let all = [
        ("system", samples),
        ("bare loop", &floors.bare_loop.samples),
        ("POST only", &floors.post_only.samples),
    ];
    for (name, samples) in all {
        lines.series(name, tail(samples));
    }
    let title = format!("Latency from publish to receiver, at {RATE} events/s");
    sheet.chart(Chart::new("latency", title).with(Panel::Lines(lines)));
    sheet
}

/// Delays by how rare they are: (1/share, ms).
fn tail(samples: &Samples) -> Vec<(f64, f64)> {
    let delays = samples.delays_at(&TAIL.map(|share| 1.0 - share));
    TAIL.iter().zip(delays).map(|(share, delay)| (1.0 / share, delay)).collect()
}
