//! What every scenario has: nats-server's binary, the receiver, the floors, and a place to say how
//! far it has come.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_nats_server::{Binary, Server, ServerOptions};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use tempfile::TempDir;

use super::{
    floor::Kind,
    hearing::Receiver,
    process::Meter,
    samples::{Samples, count},
};
use crate::output::Output;

/// How long a round may take before the benchmark gives up.
pub(crate) const ROUND_MAX: Duration = Duration::from_mins(5);

/// The group of the floors' requests at the receiver.
const GROUP: &str = "floor";

/// How large the scenarios are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// As documented.
    Full,
    /// Just large enough to see that everything works; the figures say little.
    Quick,
}

/// What a floor is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// How many requests.
    pub(crate) count: u64,
    /// How many may be in flight.
    pub(crate) in_flight: usize,
    /// How many a second; 0 is as many as can be.
    pub(crate) rate: u32,
    /// How long the receiver takes for each.
    pub(crate) wait: Duration,
}

/// One round of a floor.
#[derive(Clone, Debug)]
pub(crate) struct FloorRound {
    /// How many requests the receiver got.
    pub(crate) requests: u64,
    /// From the first request to the last.
    pub(crate) seconds: f64,
    /// Processor seconds of every process.
    pub(crate) cpu_seconds: f64,
    /// The requests.
    pub(crate) samples: Samples,
}

impl FloorRound {
    /// Requests per second.
    pub(crate) fn per_second(&self) -> f64 {
        count(self.requests) / self.seconds
    }

    /// Processor seconds per thousand requests.
    pub(crate) fn cpu_per_thousand(&self) -> f64 {
        self.cpu_seconds * 1_000.0 / count(self.requests)
    }
}

/// Both floors under one load.
#[derive(Clone, Debug)]
pub(crate) struct Floors {
    /// Work queue, request, one publish, ack.
    pub(crate) bare_loop: FloorRound,
    /// Requests and nothing else.
    pub(crate) post_only: FloorRound,
}

/// What a floor's process prints.
#[derive(Debug, Deserialize)]
struct FloorRun {
    seconds: f64,
    cpu_seconds: f64,
}

/// What every scenario has.
pub(crate) struct Lab {
    pub(crate) binary: Binary,
    pub(crate) receiver: Receiver,
    pub(crate) size: Size,
    /// How many bytes of data an event has.
    pub(crate) bytes: usize,
    /// Whether systems keep a delivery log.
    pub(crate) delivery_log: bool,
    bar: ProgressBar,
    output: Output,
    profiles: TempDir,
    /// Floors that were measured in this run.
    floors: Vec<(Load, Floors)>,
}

impl Lab {
    /// Finds nats-server and starts a receiver.
    pub(crate) async fn open(
        nats_server: Option<PathBuf>,
        size: Size,
        bytes: usize,
        output: Output,
    ) -> Result<Self> {
        let binary = crate::up::locate(nats_server, output).await?;
        let profiles = tempfile::Builder::new().prefix("fanfare-profiles-").tempdir();
        let profiles = profiles.context("make a temporary directory")?;
        for (name, text) in super::system::profiles() {
            std::fs::write(profiles.path().join(format!("{name}.toml")), text)
                .context("write the benchmark's profiles")?;
        }
        let receiver = Receiver::start()?;
        let bar = ProgressBar::hidden();
        let (delivery_log, floors) = (false, Vec::new());
        Ok(Self { binary, receiver, size, bytes, delivery_log, bar, output, profiles, floors })
    }

    /// The same, with systems that keep a delivery log if that is so.
    pub(crate) fn with_delivery_log(self, delivery_log: bool) -> Self {
        Self { delivery_log, ..self }
    }

    /// The directory with the benchmark's profiles.
    pub(crate) fn profiles(&self) -> &Path {
        self.profiles.path()
    }

    /// One of two numbers, by size.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        match self.size {
            Size::Full => full,
            Size::Quick => quick,
        }
    }

    /// Says that something of so many steps begins.
    pub(crate) fn begin(&mut self, title: &str, about: Duration, steps: u64) -> Result<()> {
        if self.output.json || !std::io::stderr().is_terminal() {
            if !self.output.json {
                self.output.note(&format!("{title}: about {} s", about.as_secs()));
            }
            return Ok(());
        }
        let template = "{spinner} {prefix} {bar:30} {pos}/{len} {msg} ({elapsed})";
        let style = ProgressStyle::with_template(template)?;
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        self.bar = bar.with_style(style).with_prefix(title.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(250));
        Ok(())
    }

    /// Says what comes next.
    pub(crate) fn step(&self, text: impl Into<String>) {
        self.bar.inc(1);
        self.bar.set_message(text.into());
    }

    /// Says that it is done.
    pub(crate) fn end(&mut self) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::hidden();
    }

    /// Measures both floors, unless this run has done so under the same load.
    pub(crate) async fn floors(&mut self, load: Load) -> Result<Floors> {
        if let Some((_, floors)) = self.floors.iter().find(|(known, _)| *known == load) {
            return Ok(floors.clone());
        }
        let floors = Floors {
            bare_loop: self.floor(Kind::Loop, load).await?,
            post_only: self.floor(Kind::Post, load).await?,
        };
        self.floors.push((load, floors.clone()));
        Ok(floors)
    }

    /// Runs a floor once.
    pub(crate) async fn floor(&self, kind: Kind, load: Load) -> Result<FloorRound> {
        let in_flight = u64::try_from(load.in_flight)?;
        let load = Load { count: (load.count / in_flight).max(1) * in_flight, ..load };
        self.receiver.reset().await?;
        let mut pids = vec![self.receiver.pid()];
        let server = match kind {
            Kind::Loop => {
                let server = Server::start(&self.binary, ServerOptions::default()).await;
                Some(server.context("start nats-server for the loop")?)
            }
            Kind::Post => None,
        };
        pids.extend(server.as_ref().and_then(Server::pid));
        let meter = Meter::start(&pids)?;
        let nats = server.as_ref().map(Server::client_url).unwrap_or_default();
        let run = self.run_floor(kind, &nats, load).await?;
        let cpu_seconds = meter.seconds()? + run.cpu_seconds;
        let samples = self.receiver.samples(GROUP).await?;
        let (came, wanted) = (samples.len(), load.count);
        ensure!(came == wanted, "the receiver got {came} of {wanted}");
        if let Some(mut server) = server {
            server.stop().await?;
        }
        Ok(FloorRound { requests: came, seconds: run.seconds, cpu_seconds, samples })
    }

    async fn run_floor(&self, kind: Kind, nats: &str, load: Load) -> Result<FloorRun> {
        let path = match load.wait.as_millis() {
            0 => format!("ok/{GROUP}"),
            millis => format!("wait/{millis}/{GROUP}"),
        };
        let run = tokio::process::Command::new(std::env::current_exe()?)
            .args(["bench", "floor", "--kind", kind.name()])
            .args(["--receiver", &format!("{}/{path}", self.receiver.url()), "--nats", nats])
            .args(["--count", &load.count.to_string(), "--rate", &load.rate.to_string()])
            .args(["--in-flight", &load.in_flight.to_string()])
            .args(["--bytes", &self.bytes.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(ROUND_MAX, run).await.context("the floor hangs")??;
        serde_json::from_slice(&output.stdout).context("read what the floor measured")
    }
}
