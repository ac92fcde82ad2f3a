//! Deliveries per second: each event to 1, 10 or 1,000 endpoints, as fast as all goes.

use anyhow::Result;
use tokio::time::Instant;

use super::{IN_FLIGHT, flood_load};
use crate::bench::{
    floor::Kind,
    lab::{FloorRound, Lab, ROUND_MAX},
    plot::{Bars, Chart, Panel},
    process::Meter,
    samples::{count, median},
    sheet::{Case, Figure, Sense, Sheet},
    system::{CONCURRENCY_MAX, Endpoint, System, TENANT},
};

/// To how many endpoints each event goes, and what the issue of it should be: deliveries per second
/// and processor time, of the bare loop's.
const WIDTHS: [(u64, Option<(f64, f64)>); 3] =
    [(1, Some((0.55, 1.8))), (10, Some((1.0, 1.0))), (1_000, None)];

/// The group at the receiver.
const GROUP: &str = "all";

/// One round of the system.
struct Round {
    per_second: f64,
    cpu_per_thousand: f64,
    accepted_per_second: f64,
}

/// All rounds of one width.
struct Rounds {
    system: Vec<Round>,
    bare_loop: Vec<FloorRound>,
    post_only: Vec<FloorRound>,
}

/// Runs the scenario.
pub(super) async fn measure(lab: &Lab) -> Result<Sheet> {
    let rounds = lab.pick(3, 1);
    let deliveries = lab.pick(20_000, 1_000);
    let mut sheet = Sheet::new(
        "throughput",
        format!(
            "{deliveries} deliveries of {} bytes, {IN_FLIGHT} in flight, median of {rounds} rounds \
             of system, bare loop and POST only in turn.",
            lab.bytes
        ),
    );
    let mut bars =
        Bars::new("deliveries per second", &["1 endpoint", "10 endpoints", "1,000 endpoints"]);
    let mut series: [Vec<f64>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for (width, targets) in WIDTHS {
        let all = rounds_of(lab, width, rounds, deliveries).await?;
        let cases = all.cases();
        if let Some((rate, cpu)) = targets {
            let what = format!("deliveries/s of the bare loop's, {width} per event");
            sheet.target(what, all.of_loop(), Sense::AtLeast, rate);
            let what = format!("CPU per delivery of the bare loop's, {width} per event");
            sheet.target(what, all.cpu_of_loop(), Sense::AtMost, cpu);
        }
        let speeds = [
            median(all.system.iter().map(|round| round.per_second)),
            median(all.bare_loop.iter().map(FloorRound::per_second)),
            median(all.post_only.iter().map(FloorRound::per_second)),
        ];
        for (values, speed) in series.iter_mut().zip(speeds) {
            values.push(speed);
        }
        let plural = if width == 1 { "" } else { "s" };
        sheet.table(format!("Each event to {width} endpoint{plural}"), cases);
    }
    for (name, values) in ["system", "bare loop", "POST only"].into_iter().zip(series) {
        bars.series(name, values);
    }
    sheet.chart(
        Chart::new("throughput", "Throughput: each event to 1, 10 or 1,000 endpoints")
            .with(Panel::Bars(bars)),
    );
    Ok(sheet)
}

async fn rounds_of(lab: &Lab, width: u64, rounds: usize, deliveries: u64) -> Result<Rounds> {
    let system = System::start(lab, IN_FLIGHT).await?;
    let url = lab.receiver.url();
    let endpoints = (0..width).map(|number| Endpoint {
        tenant: TENANT,
        url: format!("{url}/ok/{GROUP}/{number}"),
        types: String::from(">"),
        concurrency: Some(IN_FLIGHT.min(CONCURRENCY_MAX)),
    });
    system.site().endpoints(endpoints).await?;
    let mut all = Rounds { system: Vec::new(), bare_loop: Vec::new(), post_only: Vec::new() };
    // What the first requests pay for, connections and caches, is not the matter here.
    system_round(lab, &system, width, deliveries / 5).await?;
    for round in 1..=rounds {
        let title = |what| format!("{width} endpoints, round {round}: {what}");
        lab.step(title("system"));
        all.system.push(system_round(lab, &system, width, deliveries).await?);
        lab.step(title("bare loop"));
        all.bare_loop.push(lab.floor(Kind::Loop, flood_load(lab)).await?);
        lab.step(title("POST only"));
        all.post_only.push(lab.floor(Kind::Post, flood_load(lab)).await?);
    }
    system.stop().await?;
    Ok(all)
}

async fn system_round(lab: &Lab, system: &System, width: u64, wanted: u64) -> Result<Round> {
    let events = (wanted / width).max(1);
    let deliveries = events * width;
    lab.receiver.reset().await?;
    let producer = system.producer(lab, "invoice.paid").await?;
    let [services, nats] = system.pids()?;
    let meter = Meter::start(&[services, nats, lab.receiver.pid()])?;
    let begun = Instant::now();
    producer.flood(events).await?;
    let accepted = begun.elapsed();
    lab.receiver.wait_for(GROUP, deliveries, ROUND_MAX).await?;
    let taken = begun.elapsed();
    Ok(Round {
        per_second: count(deliveries) / taken.as_secs_f64(),
        cpu_per_thousand: meter.seconds()? * 1_000.0 / count(deliveries),
        accepted_per_second: count(events) / accepted.as_secs_f64(),
    })
}

impl Rounds {
    /// The middle one of the ratios of rounds that ran one after the other.
    fn ratio(&self, floor: &[FloorRound], of: impl Fn(&Round, &FloorRound) -> f64) -> f64 {
        median(self.system.iter().zip(floor).map(|(round, floor)| of(round, floor)))
    }

    fn of_loop(&self) -> f64 {
        self.ratio(&self.bare_loop, |round, floor| round.per_second / floor.per_second())
    }

    fn cpu_of_loop(&self) -> f64 {
        self.ratio(&self.bare_loop, |round, floor| {
            round.cpu_per_thousand / floor.cpu_per_thousand()
        })
    }

    fn cases(&self) -> Vec<Case> {
        let of_post =
            self.ratio(&self.post_only, |round, floor| round.per_second / floor.per_second());
        let figure = |of: fn(&Round) -> f64| median(self.system.iter().map(of));
        let system = Case::new("system")
            .rate(figure(|round| round.per_second), figure(|round| round.cpu_per_thousand))
            .with(Figure::OF_LOOP, self.of_loop())
            .with(Figure::OF_POST, of_post)
            .with(Figure::CPU_OF_LOOP, self.cpu_of_loop())
            .with(Figure::ACCEPTED, figure(|round| round.accepted_per_second));
        let floors = [("bare loop", &self.bare_loop), ("POST only", &self.post_only)];
        let floors = floors.map(|(name, rounds)| {
            Case::new(name).rate(
                median(rounds.iter().map(FloorRound::per_second)),
                median(rounds.iter().map(FloorRound::cpu_per_thousand)),
            )
        });
        std::iter::once(system).chain(floors).collect()
    }
}
