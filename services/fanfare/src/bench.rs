//! `fanfare bench`: throw-away systems, and the floors below them, measured in one run.
//!
//! Every process is a child of this one: the system with its nats-server, the receiver, the floors
//! with a nats-server of their own. Whatever is compared takes turns, so that a machine whose speed
//! drifts moves all of it.
//!
//! ```text
//! scenario ─▶ lab: receiver, floors, progress ─▶ system (one process) or cluster (several)
//!    └──▶ sheet: tables, targets, plots
//! ```

mod cluster;
mod floor;
mod hearing;
mod lab;
mod machine;
mod plot;
mod process;
mod producer;
mod receiver;
mod report;
mod rounds;
mod samples;
mod scenario;
mod service;
mod sheet;
mod sink;
mod system;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    lab::{Lab, Size},
    machine::Machine,
    scenario::Scenario,
    sheet::Sheet,
};
use crate::output::Output;

/// The version of the JSON document of scenarios: raised when something in it changes its meaning.
const DOCUMENT_VERSION: u32 = 1;

/// The heading of the options that scenarios do not have.
const ROUND: &str = "Without a scenario";

/// What `fanfare bench --help` says first.
pub(crate) const ABOUT: &str = "\
Measure a throw-away system, and the floors below it

Without a scenario: rounds of throughput with 1 and 10 endpoints, then latency. Each scenario is
listed with the time that it takes on two cores; all of them take some 17 minutes.

Floors are what the machine does without Fanfare's logic, measured in the same run: the bare loop
takes messages off a JetStream work queue, POSTs each, publishes one message about it and acks; POST
only sends requests and nothing else. Processor time is that of all processes but the producer's.

With --json, scenarios make one document: `version`; `machine` (`cores`, `processor`,
`memory_bytes`, `kernel`, `load_before`, `nats_server`, `fanfare`, `build`); `quick`; and `scenarios`,
each with `scenario`, `about`, `seconds`, `tables` (`title`, and `cases` of `case` and `figures` by
name, null where there is none) and `targets` (`what`, `value`, `sense`, `limit`, `met`).";

/// Options of `fanfare bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// What to measure, one after the other.
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// Measure every scenario.
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    /// Run scenarios as small as can be, to see that they work; the figures say little.
    #[arg(long)]
    quick: bool,
    /// Write a plot of each scenario into this directory, as SVG.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// How many bytes of data an event has.
    #[arg(long, default_value_t = 500)]
    bytes: usize,
    /// Measure the system with its delivery log; what it costs comes on top of delivering.
    #[arg(long)]
    delivery_log: bool,
    /// The nats-server to run, instead of the one that is found or fetched.
    #[arg(long, env = "FANFARE_NATS_SERVER", hide_env_values = true, value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// How many endpoints each event goes to; several numbers with commas.
    #[arg(long, value_delimiter = ',', default_value = "1,10", help_heading = ROUND)]
    endpoints: Vec<u64>,
    /// How many deliveries a round makes.
    #[arg(long, default_value_t = 20_000, help_heading = ROUND)]
    deliveries: u64,
    /// How many rounds; the figure is the median.
    #[arg(long, default_value_t = 5, help_heading = ROUND)]
    rounds: usize,
    /// How many requests may be in flight.
    #[arg(long, default_value_t = 128, help_heading = ROUND)]
    in_flight: usize,
    /// Events per second while latency is measured.
    #[arg(long, default_value_t = 100, help_heading = ROUND)]
    rate: u32,
    /// How long latency is measured, in seconds; 0 leaves it out.
    #[arg(long, default_value_t = 20, help_heading = ROUND)]
    latency_seconds: u32,
}

/// Processes that the benchmark starts; not for people.
#[derive(Clone, Debug, Subcommand)]
enum Part {
    /// Answers as the path says.
    #[command(hide = true)]
    Receiver,
    /// Runs a floor once.
    #[command(hide = true)]
    Floor(floor::Options),
    /// Runs a service.
    #[command(hide = true)]
    Service(service::Options),
}

/// Runs the benchmark, or one of its processes.
pub(crate) async fn bench(options: Options, output: Output) -> Result<()> {
    match options.part {
        Some(Part::Receiver) => return receiver::serve(output).await,
        Some(Part::Floor(floor)) => return floor::run(floor, output).await,
        Some(Part::Service(service)) => return service::serve(service, output).await,
        None => {}
    }
    let scenarios = if options.all { Scenario::ALL.to_vec() } else { options.scenarios.clone() };
    // Dropping what is under way ends every process and removes every directory.
    tokio::select! {
        result = Box::pin(measure(&options, &scenarios, output)) => result,
        asked = asked_to_end() => {
            asked?;
            bail!("stopped")
        }
    }
}

async fn measure(options: &Options, scenarios: &[Scenario], output: Output) -> Result<()> {
    let size = if options.quick { Size::Quick } else { Size::Full };
    let lab = Lab::open(options.nats_server.clone(), size, options.bytes, output).await?;
    let lab = lab.with_delivery_log(options.delivery_log);
    if scenarios.is_empty() {
        return default_round(options, lab, output).await;
    }
    run(options, scenarios, lab, output).await
}

/// Waits until a signal asks for an end.
async fn asked_to_end() -> Result<()> {
    let take = |kind| signal(kind).context("listen to signals");
    let (mut interrupt, mut terminate) =
        (take(SignalKind::interrupt())?, take(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn default_round(options: &Options, lab: Lab, output: Output) -> Result<()> {
    ensure!(options.plots.is_none() && !options.quick, "--plots and --quick need a scenario");
    ensure!(options.rounds > 0 && options.deliveries > 0, "at least one round and one delivery");
    ensure!(options.in_flight > 0 && options.in_flight <= 1_024, "1 to 1,024 requests in flight");
    ensure!(
        options.endpoints.iter().all(|count| (1..=1_000).contains(count)),
        "1 to 1,000 endpoints"
    );
    let machine = Machine::look(lab.binary.path());
    let measured = Box::pin(rounds::measure(options, lab)).await?;
    report::show(options, &measured, &machine, output)
}

async fn run(
    options: &Options,
    scenarios: &[Scenario],
    mut lab: Lab,
    output: Output,
) -> Result<()> {
    let machine = Machine::look(lab.binary.path());
    if let Some(directory) = &options.plots {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("make {}", directory.display()))?;
    }
    output.say(&format!("{}\n", machine.line()));
    let mut sheets: Vec<Sheet> = Vec::new();
    for scenario in scenarios {
        let sheet = scenario.run(&mut lab).await?;
        if !output.json {
            sheet.show(output);
        }
        if let Some(directory) = &options.plots {
            for chart in sheet.charts() {
                let path = chart.save(directory, &machine.line())?;
                output.say(&format!("plot: {}\n", path.display()));
            }
        }
        sheets.push(sheet);
    }
    if output.json {
        output.document(&serde_json::json!({
            "version": DOCUMENT_VERSION,
            "machine": machine,
            "quick": options.quick,
            "scenarios": sheets,
        }));
    }
    Ok(())
}

/// How requests leave, in the floors as in the system: loopback is what the receiver is on.
fn egress_settings(in_flight: usize) -> fanfare_egress::Settings {
    fanfare_egress::Settings {
        addresses: crate::up::loopback_allowed(),
        idle_max_per_host: in_flight,
        idle_timeout: Duration::from_secs(30),
        ..fanfare_egress::Settings::default()
    }
}
