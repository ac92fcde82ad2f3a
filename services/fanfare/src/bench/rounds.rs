//! The rounds: system, bare loop, POST only, in turn.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream;
use bytes::Bytes;
use fanfare_nats_server::{Binary, Server, ServerOptions};
use fanfare_service::{Clock as _, SystemClock};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    Options, PUBLISH_WINDOW, data,
    floor::Kind,
    process::{Meter, resident_bytes},
    receiver::Counted,
    report::{Measured, Memory, Round, Throughput},
    system::{System, TENANT},
};
use crate::output::Output;

/// How long a round may take before the benchmark gives up.
const ROUND_MAX: Duration = Duration::from_mins(5);

/// How often the receiver is asked how much has come.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// What a floor's process prints.
#[derive(Debug, Deserialize)]
struct FloorRun {
    seconds: f64,
    cpu_seconds: f64,
}

/// The receiver's process.
struct Receiver {
    child: Child,
    url: String,
    client: reqwest::Client,
}

/// Measures everything that the options ask for.
pub(crate) async fn measure(options: &Options, output: Output) -> Result<Measured> {
    let binary = crate::up::locate(options.nats_server.clone(), output).await?;
    let receiver = Receiver::start()?;
    let steps =
        options.endpoints.len() * options.rounds * 3 + usize::from(options.latency_seconds > 0);
    let progress = progress_bar(steps, output)?;
    let mut measured = Measured { throughput: Vec::new(), latency: None, memory: Vec::new() };
    for endpoints in &options.endpoints {
        let bench = Bench { options, binary: &binary, receiver: &receiver, progress: &progress };
        measured.throughput.push(bench.throughput(*endpoints, &mut measured.memory).await?);
    }
    if options.latency_seconds > 0 {
        let bench = Bench { options, binary: &binary, receiver: &receiver, progress: &progress };
        measured.latency = Some(bench.latency().await?);
    }
    progress.finish_and_clear();
    Ok(measured)
}

fn progress_bar(steps: usize, output: Output) -> Result<ProgressBar> {
    if output.json {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(u64::try_from(steps)?);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?;
    Ok(bar.with_style(style))
}

struct Bench<'a> {
    options: &'a Options,
    binary: &'a Binary,
    receiver: &'a Receiver,
    progress: &'a ProgressBar,
}

impl Bench<'_> {
    async fn throughput(&self, endpoints: u64, memory: &mut Vec<Memory>) -> Result<Throughput> {
        let system = self.system(endpoints).await?;
        let mut all = Throughput {
            endpoints,
            system: Vec::new(),
            bare_loop: Vec::new(),
            post_only: Vec::new(),
        };
        // What the first requests pay for, connections and caches, is not the matter here.
        self.system_round(&system, endpoints, self.options.deliveries / 5).await?;
        for round in 1..=self.options.rounds {
            let title = |what| format!("{endpoints} endpoints, round {round}: {what}");
            self.progress.set_message(title("system"));
            let done = self.system_round(&system, endpoints, self.options.deliveries).await?;
            all.system.push(done);
            self.progress.inc(1);
            self.progress.set_message(title("bare loop"));
            all.bare_loop.push(self.floor_round(Kind::Loop).await?);
            self.progress.inc(1);
            self.progress.set_message(title("POST only"));
            all.post_only.push(self.floor_round(Kind::Post).await?);
            self.progress.inc(1);
        }
        let [services, nats] = system.pids()?;
        *memory = vec![
            Memory { process: "fanfare (all services)", resident_bytes: resident_bytes(services)? },
            Memory { process: "nats-server", resident_bytes: resident_bytes(nats)? },
        ];
        system.stop().await?;
        Ok(all)
    }

    async fn system(&self, endpoints: u64) -> Result<System> {
        System::start(self.options, self.binary.path(), &self.receiver.url, endpoints).await
    }

    async fn system_round(&self, system: &System, endpoints: u64, count: u64) -> Result<Round> {
        let events = (count / endpoints).max(1);
        let deliveries = events * endpoints;
        self.receiver.ask("/reset").await?;
        let producer = Producer::connect(system.nats()).await?;
        let [services, nats] = system.pids()?;
        let meter = Meter::start(&[services, nats, self.receiver.child.id()])?;
        let begun = Instant::now();
        producer.publish(events, self.options.bytes).await?;
        let accepted = begun.elapsed();
        self.receiver.wait_for(deliveries).await?;
        let taken = begun.elapsed();
        Ok(Round {
            deliveries,
            events,
            seconds: taken.as_secs_f64(),
            cpu_seconds: meter.seconds()?,
            accepted_seconds: accepted.as_secs_f64(),
        })
    }

    async fn floor_round(&self, kind: Kind) -> Result<Round> {
        let in_flight = u64::try_from(self.options.in_flight)?;
        let count = (self.options.deliveries / in_flight).max(1) * in_flight;
        self.receiver.ask("/reset").await?;
        let receiver_pid = self.receiver.child.id();
        let mut pids = vec![receiver_pid];
        let server = match kind {
            Kind::Loop => {
                let server = Server::start(self.binary, ServerOptions::default()).await;
                Some(server.context("start nats-server for the loop")?)
            }
            Kind::Post => None,
        };
        pids.extend(server.as_ref().and_then(Server::pid));
        let meter = Meter::start(&pids)?;
        let nats = server.as_ref().map(Server::client_url).unwrap_or_default();
        let run = self.run_floor(kind, &nats, count).await?;
        let cpu_seconds = meter.seconds()? + run.cpu_seconds;
        let counted = self.receiver.counted().await?;
        ensure!(counted.requests == count, "the receiver got {} of {count}", counted.requests);
        if let Some(mut server) = server {
            server.stop().await?;
        }
        Ok(Round {
            deliveries: count,
            events: count,
            seconds: run.seconds,
            cpu_seconds,
            accepted_seconds: 0.0,
        })
    }

    async fn run_floor(&self, kind: Kind, nats: &str, count: u64) -> Result<FloorRun> {
        let kind = match kind {
            Kind::Loop => "loop",
            Kind::Post => "post",
        };
        let run = tokio::process::Command::new(std::env::current_exe()?)
            .args(["bench", "floor", "--kind", kind])
            .args(["--receiver", &format!("{}/floor", self.receiver.url), "--nats", nats])
            .args(["--count", &count.to_string()])
            .args(["--in-flight", &self.options.in_flight.to_string()])
            .args(["--bytes", &self.options.bytes.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(ROUND_MAX, run).await.context("the floor hangs")??;
        serde_json::from_slice(&output.stdout).context("read what the floor measured")
    }

    async fn latency(&self) -> Result<Counted> {
        self.progress.set_message("latency");
        let system = self.system(1).await?;
        self.system_round(&system, 1, u64::from(self.options.rate)).await?;
        self.receiver.ask("/reset").await?;
        self.receiver.ask("/time").await?;
        let producer = Producer::connect(system.nats()).await?;
        let count = self.options.rate * self.options.latency_seconds;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.options.rate.max(1));
        for _ in 0..count {
            ticks.tick().await;
            producer.publish_one(self.options.bytes).await?;
        }
        self.receiver.wait_for(u64::from(count)).await?;
        system.stop().await?;
        self.progress.inc(1);
        self.receiver.counted().await
    }
}

/// Publishes events as any producer with a NATS client does.
struct Producer {
    jetstream: jetstream::Context,
    subject: String,
}

impl Producer {
    async fn connect(url: &str) -> Result<Self> {
        let client = async_nats::connect(url).await.context("connect the producer")?;
        let subject = format!("fanfare.inbox.{TENANT}.invoice.paid");
        Ok(Self { jetstream: jetstream::new(client), subject })
    }

    /// Publishes events, and waits until the last is acknowledged.
    async fn publish(&self, events: u64, bytes: usize) -> Result<()> {
        let body = Bytes::from(data(bytes, 0));
        stream::iter(0..events)
            .map(|_| {
                let body = body.clone();
                async move {
                    let subject = self.subject.clone();
                    anyhow::Ok(self.jetstream.publish(subject, body).await?.await?)
                }
            })
            .buffer_unordered(PUBLISH_WINDOW)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .context("publish")
    }

    /// Publishes one event that carries the present time; its acknowledgement is not waited for.
    async fn publish_one(&self, bytes: usize) -> Result<()> {
        let body = Bytes::from(data(bytes, SystemClock.now().as_nanos()));
        // Dropping the future of the acknowledgement does not undo the publish.
        drop(self.jetstream.publish(self.subject.clone(), body).await.context("publish")?);
        Ok(())
    }
}

impl Receiver {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "receiver"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the receiver")?;
        let stdout = child.stdout.take().context("the receiver's output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the receiver")?;
        let url = format!("http://{}", line.trim());
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, url, client })
    }

    async fn ask(&self, path: &str) -> Result<String> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    async fn counted(&self) -> Result<Counted> {
        serde_json::from_str(&self.ask("/").await?).context("read the receiver's counts")
    }

    /// Waits until that many requests have come.
    async fn wait_for(&self, requests: u64) -> Result<()> {
        let begun = Instant::now();
        loop {
            let counted = self.counted().await?.requests;
            if counted >= requests {
                return Ok(());
            }
            if begun.elapsed() > ROUND_MAX {
                bail!("the receiver got {counted} of {requests} requests in {ROUND_MAX:?}");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
