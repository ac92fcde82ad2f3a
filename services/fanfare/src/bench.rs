//! `fanfare bench`: a throw-away system, and the floors below it, measured in one run.
//!
//! Every process is a child of this one: the system (`fanfare up`, with its nats-server), the
//! receiver, the floors with a nats-server of their own. Rounds of system and floors take turns,
//! so that a machine whose speed drifts moves all of them; the figure is the median round's.

mod floor;
mod process;
mod receiver;
mod report;
mod rounds;
mod system;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use crate::output::Output;

/// How many publishes of the producer may be unconfirmed, in system and floor alike.
pub(crate) const PUBLISH_WINDOW: usize = 256;

/// Options of `fanfare bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// How many endpoints each event goes to; several numbers with commas.
    #[arg(long, value_delimiter = ',', default_value = "1,10")]
    endpoints: Vec<u64>,
    /// How many deliveries a round makes.
    #[arg(long, default_value_t = 20_000)]
    deliveries: u64,
    /// How many rounds; the figure is the median.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many requests may be in flight.
    #[arg(long, default_value_t = 128)]
    in_flight: usize,
    /// How many bytes of data an event has.
    #[arg(long, default_value_t = 500)]
    bytes: usize,
    /// Events per second while latency is measured.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long latency is measured, in seconds; 0 leaves it out.
    #[arg(long, default_value_t = 20)]
    latency_seconds: u32,
    /// The nats-server to run, instead of the one that is found or fetched.
    #[arg(long, env = "FANFARE_NATS_SERVER", hide_env_values = true, value_name = "FILE")]
    nats_server: Option<std::path::PathBuf>,
}

/// Processes that the benchmark starts; not for people.
#[derive(Clone, Debug, Subcommand)]
enum Part {
    /// Answers 200 to everything.
    #[command(hide = true)]
    Receiver,
    /// Runs a floor once.
    #[command(hide = true)]
    Floor(floor::Options),
}

/// Runs the benchmark, or one of its processes.
pub(crate) async fn bench(options: Options, output: Output) -> Result<()> {
    match options.part {
        Some(Part::Receiver) => return receiver::serve(output).await,
        Some(Part::Floor(floor)) => return floor::run(floor, output).await,
        None => {}
    }
    ensure!(options.rounds > 0 && options.deliveries > 0, "at least one round and one delivery");
    ensure!(options.in_flight > 0 && options.in_flight <= 1_024, "1 to 1,024 requests in flight");
    ensure!(
        options.endpoints.iter().all(|count| (1..=1_000).contains(count)),
        "1 to 1,000 endpoints"
    );
    let measured = rounds::measure(&options, output).await?;
    report::show(&options, &measured, output)
}

/// An event's data: a JSON object of about that many bytes, with the producer's time in it.
pub(crate) fn data(bytes: usize, sent_at: u64) -> String {
    let head = format!("{{{}{sent_at},\"fill\":\"", receiver::SENT_AT);
    let fill = "x".repeat(bytes.saturating_sub(head.len() + 2));
    format!("{head}{fill}\"}}")
}

/// How requests leave, in the floors as in the system: loopback is what the receiver is on.
pub(crate) fn egress_settings(in_flight: usize) -> fanfare_egress::Settings {
    fanfare_egress::Settings {
        addresses: crate::up::loopback_allowed(),
        idle_max_per_host: in_flight,
        idle_timeout: Duration::from_secs(30),
        ..fanfare_egress::Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_of_the_size_asked_for() {
        let data = data(500, 1_700_000_000_000_000_000);
        assert_eq!(data.len(), 500);
        assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok());
    }
}
