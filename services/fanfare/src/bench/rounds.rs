//! The rounds without a scenario: system, bare loop, POST only, in turn; then latency.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{
    Options,
    floor::Kind,
    lab::{FloorRound, Lab, Load, ROUND_MAX},
    process::{Meter, resident_bytes},
    report::{Latency, Measured, Memory, Round, Throughput},
    system::{CONCURRENCY_MAX, Endpoint, System, TENANT},
};

/// The group at the receiver.
const GROUP: &str = "round";

/// How long a round takes, for what is said at the beginning.
const ROUND: Duration = Duration::from_secs(15);

/// Measures everything that the options ask for.
pub(crate) async fn measure(options: &Options, mut lab: Lab) -> Result<Measured> {
    let latency = options.latency_seconds > 0;
    let rounds = options.endpoints.len() * options.rounds;
    let about =
        ROUND * u32::try_from(rounds)? + Duration::from_secs(options.latency_seconds.into());
    lab.begin("bench", about, u64::try_from(rounds * 3 + usize::from(latency))?)?;
    let bench = Bench { options, lab: &lab };
    let mut measured = Measured { throughput: Vec::new(), latency: None, memory: Vec::new() };
    for endpoints in &options.endpoints {
        measured.throughput.push(bench.throughput(*endpoints, &mut measured.memory).await?);
    }
    if latency {
        measured.latency = Some(bench.latency().await?);
    }
    lab.end();
    Ok(measured)
}

struct Bench<'a> {
    options: &'a Options,
    lab: &'a Lab,
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
            self.lab.step(title("system"));
            let done = self.system_round(&system, endpoints, self.options.deliveries).await?;
            all.system.push(done);
            self.lab.step(title("bare loop"));
            all.bare_loop.push(self.floor_round(Kind::Loop).await?);
            self.lab.step(title("POST only"));
            all.post_only.push(self.floor_round(Kind::Post).await?);
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
        let system = System::start(self.lab, self.options.in_flight).await?;
        let url = self.lab.receiver.url();
        let all = (0..endpoints).map(|number| Endpoint {
            tenant: TENANT,
            url: format!("{url}/ok/{GROUP}/{number}"),
            types: String::from(">"),
            concurrency: Some(self.options.in_flight.min(CONCURRENCY_MAX)),
        });
        system.site().endpoints(all).await?;
        Ok(system)
    }

    async fn system_round(&self, system: &System, endpoints: u64, count: u64) -> Result<Round> {
        let events = (count / endpoints).max(1);
        let deliveries = events * endpoints;
        let receiver = &self.lab.receiver;
        receiver.reset().await?;
        let producer = system.producer(self.lab, "invoice.paid").await?;
        let [services, nats] = system.pids()?;
        let meter = Meter::start(&[services, nats, receiver.pid()])?;
        let begun = Instant::now();
        producer.flood(events).await?;
        let accepted = begun.elapsed();
        receiver.wait_for(GROUP, deliveries, ROUND_MAX).await?;
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
        let Options { in_flight, deliveries, .. } = self.options;
        let load =
            Load { count: *deliveries, in_flight: *in_flight, rate: 0, wait: Duration::ZERO };
        let FloorRound { requests, seconds, cpu_seconds, .. } = self.lab.floor(kind, load).await?;
        Ok(Round {
            deliveries: requests,
            events: requests,
            seconds,
            cpu_seconds,
            accepted_seconds: 0.0,
        })
    }

    async fn latency(&self) -> Result<Latency> {
        self.lab.step("latency");
        let receiver = &self.lab.receiver;
        let system = self.system(1).await?;
        self.system_round(&system, 1, u64::from(self.options.rate)).await?;
        receiver.reset().await?;
        let producer = system.producer(self.lab, "invoice.paid").await?;
        let span = Duration::from_secs(self.options.latency_seconds.into());
        let published = producer.steadily(self.options.rate, span).await?;
        receiver.wait_for(GROUP, published, ROUND_MAX).await?;
        let samples = receiver.samples(GROUP).await?;
        system.stop().await?;
        let delays = samples.delays();
        Ok(Latency {
            requests: published,
            timed: samples.len(),
            p50_ms: delays.p50(),
            p99_ms: delays.p99(),
            p999_ms: delays.p999(),
        })
    }
}
