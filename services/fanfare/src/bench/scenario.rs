//! The scenarios: each starts what it needs, measures, and ends by itself.

mod backlog;
mod fan_out;
mod latency;
mod noisy;
mod pending;
mod retry_storm;
mod scale;
mod telemetry;
mod throughput;

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tokio::time::Instant;

use super::{
    lab::{Lab, Load},
    sheet::Sheet,
};

/// How many requests may be in flight where speed is measured, in system and floors alike.
const IN_FLIGHT: usize = 128;

/// Events per second where delays are measured.
const RATE: u32 = 100;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Deliveries per second, each event to 1, 10 or 1,000 endpoints (70 s).
    Throughput,
    /// From publish to receiver at a low, even rate (40 s).
    Latency,
    /// Nine healthy endpoints beside one that misbehaves, in five ways (180 s).
    Noisy,
    /// First attempts of others while 20,000 retries come due at once (40 s).
    RetryStorm,
    /// 100,000 events for one slow endpoint, beside a healthy one (85 s).
    Backlog,
    /// 1, 2 and 4 dispatcher processes, endpoints that take 50 ms (80 s).
    Scale,
    /// One event to 10,000 endpoints, and 100,000 endpoints in one installation (60 s).
    FanOut,
    /// What metrics, and traces of 10 % of the events, cost in processor time (110 s).
    Telemetry,
    /// A million scheduled retries: memory, restart, lateness (320 s).
    Pending,
}

impl Scenario {
    /// Every scenario, in the order of `--all`.
    pub(crate) const ALL: [Self; 9] = [
        Self::Throughput,
        Self::Latency,
        Self::Noisy,
        Self::RetryStorm,
        Self::Backlog,
        Self::Scale,
        Self::FanOut,
        Self::Telemetry,
        Self::Pending,
    ];

    /// The name on the command line, in JSON and in file names.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Noisy => "noisy",
            Self::RetryStorm => "retry-storm",
            Self::Backlog => "backlog",
            Self::Scale => "scale",
            Self::FanOut => "fan-out",
            Self::Telemetry => "telemetry",
            Self::Pending => "pending",
        }
    }

    /// How long it takes on two cores, and in how many steps it tells so.
    const fn length(self) -> (Duration, u64) {
        let (seconds, steps) = match self {
            Self::Throughput => (70, 27),
            Self::Latency => (40, 3),
            Self::Noisy => (180, 52),
            Self::RetryStorm => (40, 5),
            Self::Backlog => (85, 6),
            Self::Scale => (80, 5),
            Self::FanOut => (60, 6),
            Self::Telemetry => (110, 15),
            Self::Pending => (320, 6),
        };
        (Duration::from_secs(seconds), steps)
    }

    /// Runs it.
    pub(crate) async fn run(self, lab: &mut Lab) -> Result<Sheet> {
        let (about, steps) = self.length();
        lab.begin(self.name(), about, steps)?;
        let begun = Instant::now();
        let measured = match self {
            Self::Throughput => Box::pin(throughput::measure(lab)).await,
            Self::Latency => Box::pin(latency::measure(lab)).await,
            Self::Noisy => Box::pin(noisy::measure(lab)).await,
            Self::RetryStorm => Box::pin(retry_storm::measure(lab)).await,
            Self::Backlog => Box::pin(backlog::measure(lab)).await,
            Self::Scale => Box::pin(scale::measure(lab)).await,
            Self::FanOut => Box::pin(fan_out::measure(lab)).await,
            Self::Telemetry => Box::pin(telemetry::measure(lab)).await,
            Self::Pending => Box::pin(pending::measure(lab)).await,
        };
        lab.end();
        let mut sheet = measured.with_context(|| format!("measure {}", self.name()))?;
        sheet.took(begun.elapsed().as_secs_f64());
        Ok(sheet)
    }
}

/// The floors' load where speed is measured.
fn flood_load(lab: &Lab) -> Load {
    let count = lab.pick(20_000, 1_000);
    Load { count, in_flight: IN_FLIGHT, rate: 0, wait: Duration::ZERO }
}

/// The floors' load where delays are measured: requests per second, for some seconds.
fn steady_load(lab: &Lab, rate: u32) -> Load {
    let count = u64::from(rate) * lab.pick(8, 1);
    // One in flight: a count of requests that divides evenly. The rate bounds them.
    Load { count, in_flight: 1, rate, wait: Duration::ZERO }
}
