//! What it costs to be watched: processor time with metrics and traces, of that with neither.
//!
//! Two systems take turns with the same load, one of which is scraped, pushes its metrics, and exports
//! the traces of a tenth of the events. Turns are short, and which of the two comes first changes: a
//! machine that others use too is faster and slower by a quarter from one second to the next. Each pair
//! has systems of its own, since two processes of the same program differ by some hundredths, each for
//! as long as it lives.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use super::IN_FLIGHT;
use crate::bench::{
    lab::{Lab, ROUND_MAX},
    plot::{Bars, Chart, Panel},
    process::Meter,
    samples::{count, median},
    sheet::{Case, Figure, Sense, Sheet},
    sink::Sink,
    system::{CONCURRENCY_MAX, Endpoint, System, TENANT},
};

/// The share of events whose traces are exported.
const SAMPLED: &str = "0.1";
/// How often metrics are read and pushed: more often than is usual.
const EVERY: Duration = Duration::from_secs(5);
/// The most that telemetry may cost.
const COST_MAX: f64 = 1.05;
/// How late the first spans may be exported, and how often it is asked whether they were.
const LATE: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(200);
/// The group at the receiver.
const GROUP: &str = "watched";
/// What a system tells of its spans.
const SPANS: &str = "fanfare_traces_spans_total{outcome=";

/// What a system did in a pair of runs.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    deliveries: u64,
    /// How long its turns took.
    taken: Duration,
    /// Processor seconds of the receiver in its turns.
    receiver: f64,
    /// Processor seconds of the services and nats-server in all of the pair: what is told late, in the
    /// other's turn, counts too.
    ours: f64,
}

impl Run {
    fn per_second(&self) -> f64 {
        count(self.deliveries) / self.taken.as_secs_f64()
    }

    /// Processor seconds of the services, nats-server and the receiver, per 1,000 deliveries.
    fn cpu(&self) -> f64 {
        self.cpu_ours() + self.receiver * 1_000.0 / count(self.deliveries)
    }

    /// The same without the receiver.
    fn cpu_ours(&self) -> f64 {
        self.ours * 1_000.0 / count(self.deliveries)
    }
}

/// What was done without and with telemetry, in turns.
struct Pair {
    without: Run,
    with: Run,
    told: Told,
}

/// What a system told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    spans: f64,
    exports: u64,
    scrapes: u64,
}

/// What came of spans.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spans {
    exported: f64,
    lost: f64,
}

/// Runs the scenario.
pub(super) async fn measure(lab: &Lab) -> Result<Sheet> {
    let mut pairs = Vec::new();
    for number in 1..=lab.pick(7, 1) {
        lab.step(format!("pair {number}"));
        pairs.push(pair(lab).await?);
    }
    lab.step("done");
    Ok(sheet(lab, &pairs))
}

/// Has two systems take turns.
async fn pair(lab: &Lab) -> Result<Pair> {
    let (turns, deliveries) = (lab.pick(8, 2), lab.pick(8_000, 1_000));
    let mut sink = Sink::start().await?;
    let (without, with) = (System::start(lab, IN_FLIGHT).await?, watched(lab, &sink).await?);
    let url = format!("{}/metrics", with.metrics().context("the system's metrics are served")?);
    sink.scrape(url.clone(), EVERY)?;
    for system in [&without, &with] {
        let endpoint = Endpoint {
            tenant: TENANT,
            url: format!("{}/ok/{GROUP}/1", lab.receiver.url()),
            types: String::from(">"),
            concurrency: Some(IN_FLIGHT.min(CONCURRENCY_MAX)),
        };
        system.site().endpoint(&endpoint).await?;
        // What the first requests pay for, connections and caches, is not the matter here.
        turn(lab, system, deliveries, &mut Run::default()).await?;
    }
    let mut pair = Pair { without: Run::default(), with: Run::default(), told: Told::default() };
    let meters = (meter(&without)?, meter(&with)?);
    for number in 0..turns {
        // Without, with, with, without: a change of pace tells on both.
        let mut both = [(&without, &mut pair.without), (&with, &mut pair.with)];
        if number % 2 == 1 {
            both.reverse();
        }
        for (system, run) in both {
            turn(lab, system, deliveries, run).await?;
        }
    }
    (pair.without.ours, pair.with.ours) = (meters.0.seconds()?, meters.1.seconds()?);
    let spans = exported(&url).await?;
    ensure!(spans.lost == 0.0, "{} spans were lost: this is no measure", spans.lost);
    let (exports, scrapes) = sink.counts();
    pair.told = Told { spans: spans.exported, exports, scrapes };
    without.stop().await?;
    with.stop().await?;
    Ok(pair)
}

/// Waits until spans were exported, which is done some seconds late.
async fn exported(url: &str) -> Result<Spans> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let until = Instant::now() + LATE;
    loop {
        let text = client.get(url).send().await?.text().await?;
        let spans = spans(&text).context("spans are counted")?;
        if spans.exported > 0.0 || spans.lost > 0.0 {
            return Ok(spans);
        }
        ensure!(Instant::now() < until, "no span was exported");
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// A system that tells everything.
async fn watched(lab: &Lab, sink: &Sink) -> Result<System> {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", String::from(sink.address())),
        ("OTEL_TRACES_SAMPLER", String::from("parentbased_traceidratio")),
        ("OTEL_TRACES_SAMPLER_ARG", String::from(SAMPLED)),
        ("OTEL_METRIC_EXPORT_INTERVAL", EVERY.as_millis().to_string()),
    ];
    System::start_with(lab, IN_FLIGHT, (&["--metrics", "127.0.0.1:0"], &variables)).await
}

/// Measures a system's processes.
fn meter(system: &System) -> Result<Meter> {
    Meter::start(&system.pids()?)
}

async fn turn(lab: &Lab, system: &System, deliveries: u64, run: &mut Run) -> Result<()> {
    lab.receiver.reset().await?;
    let producer = system.producer(lab, "invoice.paid").await?;
    let receiver = Meter::start(&[lab.receiver.pid()])?;
    let begun = Instant::now();
    producer.flood(deliveries).await?;
    lab.receiver.wait_for(GROUP, deliveries, ROUND_MAX).await?;
    run.taken += begun.elapsed();
    run.receiver += receiver.seconds()?;
    run.deliveries += deliveries;
    Ok(())
}

/// Reads what a system tells of its spans.
fn spans(text: &str) -> Option<Spans> {
    let of = |outcome: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{SPANS}\"{outcome}\"")))?;
        line.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    Some(Spans { exported: of("exported")?, lost: of("dropped")? + of("refused")? })
}

fn ratio(pairs: &[Pair], of: fn(&Run) -> f64) -> f64 {
    median(pairs.iter().map(|pair| of(&pair.with) / of(&pair.without)))
}

fn sheet(lab: &Lab, pairs: &[Pair]) -> Sheet {
    let about = format!(
        "{} pairs of runs that take turns, each of {} deliveries of {} bytes to one endpoint, {IN_FLIGHT} \
         in flight: without telemetry, and with metrics read and pushed every {} s and {} % of the \
         traces exported by gRPC. Medians; the collector's processor time is not counted.",
        pairs.len(),
        pairs.first().map_or(0, |pair| pair.with.deliveries),
        lab.bytes,
        EVERY.as_secs(),
        10,
    );
    let mut sheet = Sheet::new("telemetry", about);
    let cost = ratio(pairs, Run::cpu);
    let middle = |of: fn(&Pair) -> Run| {
        let figure = |figure: fn(&Run) -> f64| median(pairs.iter().map(|pair| figure(&of(pair))));
        (figure(Run::per_second), figure(Run::cpu))
    };
    let (without, with) = (middle(|pair| pair.without), middle(|pair| pair.with));
    let cases = vec![
        Case::new("without").rate(without.0, without.1),
        Case::new("with")
            .rate(with.0, with.1)
            .with(Figure::CPU_RATIO, cost)
            .with(Figure::CPU_RATIO_OURS, ratio(pairs, Run::cpu_ours))
            .with(Figure::SPANS, pairs.iter().map(|pair| pair.told.spans).sum())
            .with(Figure::EXPORTS, count(pairs.iter().map(|pair| pair.told.exports).sum()))
            .with(Figure::SCRAPES, count(pairs.iter().map(|pair| pair.told.scrapes).sum())),
    ];
    sheet.table("What telemetry costs", cases);
    let each = pairs.iter().zip(1..).map(|(Pair { without, with, .. }, number)| {
        Case::new(format!("pair {number}"))
            .with(Figure::CPU_WITHOUT, without.cpu())
            .with(Figure::CPU_WITH, with.cpu())
            .with(Figure::CPU_RATIO, with.cpu() / without.cpu())
    });
    sheet.table("Each pair", each.collect());
    sheet.target("CPU per delivery with telemetry, of that without", cost, Sense::AtMost, COST_MAX);
    let names: Vec<String> = (1..=pairs.len()).map(|number| format!("pair {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bars = Bars::new("CPU s per 1,000 deliveries", &names);
    bars.series("without", pairs.iter().map(|pair| pair.without.cpu()).collect());
    bars.series("with", pairs.iter().map(|pair| pair.with.cpu()).collect());
    let title = "Metrics, and traces of 10 % of the events: what they cost";
    sheet.chart(Chart::new("telemetry", title).with(Panel::Bars(bars)));
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_off_the_metrics() {
        let told = |dropped| {
            spans(&format!(
                "# TYPE fanfare_traces_spans_total counter\n{SPANS}\"dropped\"}} {dropped}\n\
                 {SPANS}\"exported\"}} 1200\n{SPANS}\"refused\"}} 2\n"
            ))
        };
        assert_eq!(told(3), Some(Spans { exported: 1_200.0, lost: 5.0 }));
        assert_eq!(spans(""), None);
    }

    #[test]
    fn the_cost_is_the_middle_of_the_ratios_of_pairs() {
        let run = |ours| Run { deliveries: 1_000, ours, ..Run::default() };
        let pairs = [(1.0, 1.02), (2.0, 2.2), (4.0, 4.0)]
            .map(|(without, with)| (run(without), run(with)))
            .map(|(without, with)| Pair { without, with, told: Told::default() });
        assert!((ratio(&pairs, Run::cpu) - 1.02).abs() < 1e-9);
    }
}
