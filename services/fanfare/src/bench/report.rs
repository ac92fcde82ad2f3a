//! The benchmark's figures, as a table and as JSON.

use anyhow::Result;
use serde::Serialize;

use super::{Options, machine::Machine, samples::count};
use crate::output::{Output, Tone};

/// One round of one thing.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    /// How many requests the receiver got.
    pub(crate) deliveries: u64,
    /// How many events the producer published.
    pub(crate) events: u64,
    /// From the first publish to the last request.
    pub(crate) seconds: f64,
    /// Processor seconds of every process but the producer's own.
    pub(crate) cpu_seconds: f64,
    /// Until the last event was acknowledged to the producer; 0 where nothing is published.
    pub(crate) accepted_seconds: f64,
}

/// All rounds of the system and its floors with one number of endpoints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Throughput {
    /// How many endpoints each event went to.
    pub(crate) endpoints: u64,
    /// The system.
    pub(crate) system: Vec<Round>,
    /// Work queue, request, one publish, ack.
    pub(crate) bare_loop: Vec<Round>,
    /// Requests and nothing else.
    pub(crate) post_only: Vec<Round>,
}

/// Delays from publish to receiver.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    /// How many events were published.
    pub(crate) requests: u64,
    /// How many requests carried a time.
    pub(crate) timed: u64,
    /// Half of them took no longer than this, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99 % of them took no longer than this, in milliseconds.
    pub(crate) p99_ms: f64,
    /// 99.9 % of them took no longer than this, in milliseconds.
    pub(crate) p999_ms: f64,
}

/// A process's memory at the end.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    /// Which process.
    pub(crate) process: &'static str,
    /// Its resident memory.
    pub(crate) resident_bytes: u64,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// Throughput, for each number of endpoints.
    pub(crate) throughput: Vec<Throughput>,
    /// Latency at the fixed rate, one endpoint.
    pub(crate) latency: Option<Latency>,
    /// Memory, per process.
    pub(crate) memory: Vec<Memory>,
}

impl Round {
    fn per_second(&self) -> f64 {
        count(self.deliveries) / self.seconds
    }

    fn cpu_per_thousand(&self) -> f64 {
        self.cpu_seconds * 1_000.0 / count(self.deliveries)
    }
}

/// The middle one of the rounds' figures.
fn median(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The middle one of the ratios of rounds that ran one after the other.
fn ratio(ours: &[Round], floor: &[Round]) -> f64 {
    let mut ratios: Vec<f64> = ours
        .iter()
        .zip(floor)
        .map(|(ours, floor)| ours.per_second() / floor.per_second())
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Shows what was measured.
pub(crate) fn show(
    options: &Options,
    measured: &Measured,
    machine: &Machine,
    output: Output,
) -> Result<()> {
    if output.json {
        output.document(&document(options, measured, machine)?);
        return Ok(());
    }
    output.line(&format!("{}\n", machine.line()));
    for throughput in &measured.throughput {
        heading(options, throughput, output);
        let rows = [
            ("system", &throughput.system),
            ("bare loop", &throughput.bare_loop),
            ("POST only", &throughput.post_only),
        ];
        let rows: Vec<_> = rows.iter().map(|(name, rounds)| row(name, rounds)).collect();
        output.table(&["", "accepted/s", "delivered/s", "CPU s per 1,000"], &rows);
        let system = &throughput.system;
        output.line(&format!(
            "ratio: {:.2} of the bare loop, {:.2} of POST only\n",
            ratio(system, &throughput.bare_loop),
            ratio(system, &throughput.post_only),
        ));
    }
    if let Some(latency) = &measured.latency {
        let title = format!("Latency, publish to receiver, at {} events/s", options.rate);
        output.line(&output.tone(Tone::Strong, &title));
        let cells =
            [latency.p50_ms, latency.p99_ms, latency.p999_ms].map(|ms| format!("{ms:.2} ms"));
        output.table(&["p50", "p99", "p99.9"], &[cells.to_vec()]);
        output.line("");
    }
    output.line(&output.tone(Tone::Strong, "Resident memory"));
    let rows: Vec<_> = measured
        .memory
        .iter()
        .map(|memory| vec![String::from(memory.process), mebibytes(memory.resident_bytes)])
        .collect();
    output.table(&["process", "resident"], &rows);
    Ok(())
}

fn heading(options: &Options, throughput: &Throughput, output: Output) {
    let plural = if throughput.endpoints == 1 { "endpoint" } else { "endpoints" };
    let title = format!(
        "Each event to {} {plural}: {} deliveries of {} bytes, {} in flight, median of {} rounds",
        throughput.endpoints, options.deliveries, options.bytes, options.in_flight, options.rounds,
    );
    output.line(&output.tone(Tone::Strong, &title));
}

fn row(name: &str, rounds: &[Round]) -> Vec<String> {
    let accepted = median(rounds, |round| {
        if round.accepted_seconds > 0.0 {
            count(round.events) / round.accepted_seconds
        } else {
            f64::NAN
        }
    });
    vec![
        String::from(name),
        if accepted.is_nan() { String::from("-") } else { format!("{accepted:.0}") },
        format!("{:.0}", median(rounds, Round::per_second)),
        format!("{:.3}", median(rounds, Round::cpu_per_thousand)),
    ]
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn document(
    options: &Options,
    measured: &Measured,
    machine: &Machine,
) -> Result<serde_json::Value> {
    let ratios: Vec<_> = measured
        .throughput
        .iter()
        .map(|throughput| {
            serde_json::json!({
                "endpoints": throughput.endpoints,
                "delivered_per_second": median(&throughput.system, Round::per_second),
                "cpu_seconds_per_1000": median(&throughput.system, Round::cpu_per_thousand),
                "of_bare_loop": ratio(&throughput.system, &throughput.bare_loop),
                "of_post_only": ratio(&throughput.system, &throughput.post_only),
            })
        })
        .collect();
    Ok(serde_json::json!({
        "machine": machine,
        "settings": {
            "deliveries": options.deliveries,
            "rounds": options.rounds,
            "in_flight": options.in_flight,
            "data_bytes": options.bytes,
            "rate": options.rate,
        },
        "medians": ratios,
        "measured": serde_json::to_value(measured)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(seconds: f64) -> Round {
        Round {
            deliveries: 1_000,
            events: 1_000,
            seconds,
            cpu_seconds: seconds,
            accepted_seconds: 0.0,
        }
    }

    #[test]
    fn the_figure_is_the_middle_round() {
        let rounds = [round(4.0), round(1.0), round(2.0)];
        assert!((median(&rounds, Round::per_second) - 500.0).abs() < 1e-9);
        assert!((ratio(&rounds, &[round(1.0), round(1.0), round(1.0)]) - 0.5).abs() < 1e-9);
    }
}
