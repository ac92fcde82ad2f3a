//! What it costs to be watched: processor time with metrics and traces, of that with neither.
//!
//! Two systems take turns with the same load, one of which is scraped, pushes its metrics, and exports
//! the traces of a tenth of the events. Which of them comes first changes with each pair.

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
/// The group at the receiver.
const GROUP: &str = "watched";
/// What a system tells of its spans.
const SPANS: &str = "fanfare_traces_spans_total{outcome=";

/// One round of a system.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    /// Processor seconds of the services, nats-server and the receiver, per 1,000 deliveries.
    cpu: f64,
    /// The same without the receiver.
    cpu_ours: f64,
}

/// A round without and one with telemetry, one after the other.
struct Pair {
    without: Round,
    with: Round,
}

/// What came of spans.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spans {
    exported: f64,
    lost: f64,
}

/// Runs the scenario.
pub(super) async fn measure(lab: &Lab) -> Result<Sheet> {
    let (pairs, deliveries) = (lab.pick(7, 1), lab.pick(20_000, 1_000));
    let mut sink = Sink::start().await?;
    let without = System::start(lab, IN_FLIGHT).await?;
    let with = watched(lab, &sink).await?;
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
        round(lab, system, deliveries / 5).await?;
    }
    let mut done = Vec::new();
    for pair in 1..=pairs {
        let title = |what| format!("pair {pair}: {what} telemetry");
        let pair = if pair % 2 == 1 {
            lab.step(title("without"));
            let without = round(lab, &without, deliveries).await?;
            lab.step(title("with"));
            Pair { without, with: round(lab, &with, deliveries).await? }
        } else {
            lab.step(title("with"));
            let with = round(lab, &with, deliveries).await?;
            lab.step(title("without"));
            Pair { without: round(lab, &without, deliveries).await?, with }
        };
        done.push(pair);
    }
    let spans = spans(&reqwest::get(&url).await?.text().await?).context("spans are counted")?;
    ensure!(spans.exported > 0.0, "no span was exported");
    ensure!(spans.lost == 0.0, "{} spans were lost: this is no measure", spans.lost);
    without.stop().await?;
    with.stop().await?;
    lab.step("done");
    Ok(sheet(lab, &done, (spans, sink.counts())))
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

async fn round(lab: &Lab, system: &System, deliveries: u64) -> Result<Round> {
    lab.receiver.reset().await?;
    let producer = system.producer(lab, "invoice.paid").await?;
    let [services, nats] = system.pids()?;
    let (ours, receiver) = (Meter::start(&[services, nats])?, Meter::start(&[lab.receiver.pid()])?);
    let begun = Instant::now();
    producer.flood(deliveries).await?;
    lab.receiver.wait_for(GROUP, deliveries, ROUND_MAX).await?;
    let taken = begun.elapsed();
    let per_thousand = |seconds: f64| seconds * 1_000.0 / count(deliveries);
    let ours = ours.seconds()?;
    Ok(Round {
        per_second: count(deliveries) / taken.as_secs_f64(),
        cpu: per_thousand(ours + receiver.seconds()?),
        cpu_ours: per_thousand(ours),
    })
}

/// Reads what a system tells of its spans.
fn spans(text: &str) -> Option<Spans> {
    let of = |outcome: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{SPANS}\"{outcome}\"")))?;
        line.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    Some(Spans { exported: of("exported")?, lost: of("dropped")? + of("refused")? })
}

fn ratio(pairs: &[Pair], of: fn(&Round) -> f64) -> f64 {
    median(pairs.iter().map(|pair| of(&pair.with) / of(&pair.without)))
}

fn sheet(lab: &Lab, pairs: &[Pair], (spans, (exports, scrapes)): (Spans, (u64, u64))) -> Sheet {
    let about = format!(
        "{} pairs of rounds, each of as many deliveries of {} bytes to one endpoint, {IN_FLIGHT} in \
         flight: without telemetry, and with metrics read and pushed every {} s and {} % of the \
         traces exported by gRPC. Medians; the collector's processor time is not counted.",
        pairs.len(),
        lab.bytes,
        EVERY.as_secs(),
        10,
    );
    let mut sheet = Sheet::new("telemetry", about);
    let cost = ratio(pairs, |round| round.cpu);
    let middle = |of: fn(&Pair) -> Round| {
        let figure = |figure: fn(&Round) -> f64| median(pairs.iter().map(|pair| figure(&of(pair))));
        (figure(|round| round.per_second), figure(|round| round.cpu))
    };
    let (without, with) = (middle(|pair| pair.without), middle(|pair| pair.with));
    let cases = vec![
        Case::new("without").rate(without.0, without.1),
        Case::new("with")
            .rate(with.0, with.1)
            .with(Figure::CPU_RATIO, cost)
            .with(Figure::CPU_RATIO_OURS, ratio(pairs, |round| round.cpu_ours))
            .with(Figure::SPANS, spans.exported)
            .with(Figure::EXPORTS, count(exports))
            .with(Figure::SCRAPES, count(scrapes)),
    ];
    sheet.table("What telemetry costs", cases);
    let each = pairs.iter().zip(1..).map(|(Pair { without, with }, number)| {
        Case::new(format!("pair {number}"))
            .with(Figure::CPU_WITHOUT, without.cpu)
            .with(Figure::CPU_WITH, with.cpu)
            .with(Figure::CPU_RATIO, with.cpu / without.cpu)
    });
    sheet.table("Each pair", each.collect());
    sheet.target("CPU per delivery with telemetry, of that without", cost, Sense::AtMost, COST_MAX);
    let names: Vec<String> = (1..=pairs.len()).map(|number| format!("pair {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bars = Bars::new("CPU s per 1,000 deliveries", &names);
    bars.series("without", pairs.iter().map(|pair| pair.without.cpu).collect());
    bars.series("with", pairs.iter().map(|pair| pair.with.cpu).collect());
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
        let round = |cpu| Round { per_second: 1.0, cpu, cpu_ours: cpu };
        let pairs = [(1.0, 1.02), (2.0, 2.2), (4.0, 4.0)]
            .map(|(without, with)| Pair { without: round(without), with: round(with) });
        assert!((ratio(&pairs, |round| round.cpu) - 1.02).abs() < 1e-9);
    }
}
