//! Nine healthy endpoints beside one that misbehaves: do the nine notice?
//!
//! With and without take turns in one system, so that a machine whose speed drifts moves both. The
//! bad endpoint is made before its turn and deleted after it.

use std::time::Duration;

use anyhow::Result;
use tokio::{net::TcpSocket, time::sleep};

use super::{IN_FLIGHT, RATE, steady_load};
use crate::bench::{
    hearing::Counter,
    lab::{Floors, Lab},
    plot::{Bars, Chart, Panel},
    process::Meter,
    producer::Producer,
    samples::{Delays, count, median},
    sheet::{Case, Figure, Sense, Sheet},
    system::{Endpoint, System, TENANT},
};

/// How many healthy endpoints there are.
const HEALTHY: u64 = 9;
/// Their group at the receiver.
const GROUP: &str = "healthy";
/// How long what is under way has to arrive after a turn, before it counts as missing.
const LATE: Duration = Duration::from_secs(10);
/// How long the system gets to forget a bad endpoint.
const SETTLE: Duration = Duration::from_millis(1_200);
/// The rate of the long turns, for a fault that piles up slowly.
const LONG_RATE: u32 = 30;

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    Refuses,
    NeverAnswers,
    AnswersLate,
    Answers500,
    Drips,
}

impl Bad {
    const ALL: [Self; 5] =
        [Self::Refuses, Self::NeverAnswers, Self::AnswersLate, Self::Answers500, Self::Drips];

    const fn name(self) -> &'static str {
        match self {
            Self::Refuses => "refuses connections",
            Self::NeverAnswers => "never answers",
            Self::AnswersLate => "answers after 10 s",
            Self::Answers500 => "answers 500",
            Self::Drips => "drips a byte a second",
        }
    }

    /// Where such an endpoint is. `closed` is a port at which nobody listens.
    fn url(self, receiver: &str, closed: u16) -> String {
        match self {
            Self::Refuses => format!("http://127.0.0.1:{closed}/"),
            Self::NeverAnswers => format!("{receiver}/never/bad"),
            Self::AnswersLate => format!("{receiver}/wait/10000/bad"),
            Self::Answers500 => format!("{receiver}/status/500/bad"),
            Self::Drips => format!("{receiver}/drip/bad"),
        }
    }
}

/// What the healthy nine saw in one turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    delays: Delays,
    missing: u64,
    cpu_per_thousand: f64,
}

/// All turns of one kind.
struct Pairs {
    name: String,
    without: Vec<Turn>,
    with: Vec<Turn>,
}

/// The stage on which the turns happen.
struct Stage<'a> {
    lab: &'a Lab,
    system: System,
    producer: Producer,
    closed: u16,
}

/// Runs the scenario.
pub(super) async fn measure(lab: &mut Lab) -> Result<Sheet> {
    lab.step("floors");
    let rate = RATE * u32::try_from(HEALTHY)?;
    let floors = lab.floors(steady_load(lab, rate)).await?;
    // Bound and never listening: connections are refused, and nobody else gets the port.
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let closed = socket.local_addr()?.port();
    let system = System::start(lab, IN_FLIGHT).await?;
    let url = lab.receiver.url();
    let endpoints = (0..HEALTHY).map(|number| Endpoint {
        tenant: TENANT,
        url: format!("{url}/ok/{GROUP}/{number}"),
        types: String::from(">"),
        concurrency: None,
    });
    system.site().endpoints(endpoints).await?;
    let producer = system.producer(lab, "invoice.paid").await?;
    let stage = Stage { lab, system, producer, closed };
    stage.turn(None, RATE, Duration::from_secs(1)).await?;
    let mut all = Vec::new();
    let (pairs, span) = (lab.pick(5, 1), Duration::from_millis(lab.pick(1_500, 1_000)));
    for bad in Bad::ALL {
        all.push(stage.pairs(bad, pairs, (RATE, span)).await?);
    }
    lab.step("never answers, 30 events/s");
    let long = stage.long().await?;
    drop(socket);
    stage.system.stop().await?;
    Ok(sheet(lab, &all, &long, &floors))
}

impl Stage<'_> {
    async fn pairs(&self, bad: Bad, count: usize, load: (u32, Duration)) -> Result<Pairs> {
        let (rate, span) = load;
        let mut pairs =
            Pairs { name: String::from(bad.name()), without: Vec::new(), with: Vec::new() };
        for pair in 1..=count {
            // The order changes, so that neither always comes after the other.
            for with in [pair % 2 == 0, pair % 2 != 0] {
                let word = if with { "with" } else { "without" };
                self.lab.step(format!("{}, pair {pair}: {word}", bad.name()));
                let turn = self.turn(with.then_some(bad), rate, span).await?;
                if with { pairs.with.push(turn) } else { pairs.without.push(turn) }
            }
        }
        Ok(pairs)
    }

    /// The same with a fault that needs time to pile up.
    async fn long(&self) -> Result<Pairs> {
        let without = Duration::from_secs(self.lab.pick(15, 2));
        let without = self.turn(None, LONG_RATE, without).await?;
        let with = Duration::from_secs(self.lab.pick(60, 4));
        let with = self.turn(Some(Bad::NeverAnswers), LONG_RATE, with).await?;
        let name = format!("never answers, {LONG_RATE}/s");
        Ok(Pairs { name, without: vec![without], with: vec![with] })
    }

    async fn turn(&self, bad: Option<Bad>, rate: u32, span: Duration) -> Result<Turn> {
        let (lab, site) = (self.lab, self.system.site());
        let mut made = None;
        if let Some(bad) = bad {
            let endpoint = Endpoint {
                tenant: TENANT,
                url: bad.url(lab.receiver.url(), self.closed),
                types: String::from(">"),
                concurrency: None,
            };
            made = Some(site.endpoint(&endpoint).await?);
        }
        lab.receiver.reset().await?;
        let [services, nats] = self.system.pids()?;
        let meter = Meter::start(&[services, nats, lab.receiver.pid()])?;
        let wanted = self.producer.steadily(rate, span).await? * HEALTHY;
        let came = lab.receiver.gather((Counter::Taken, GROUP), wanted, LATE).await?;
        let cpu_per_thousand = meter.seconds()? * 1_000.0 / count(wanted);
        let mut samples = lab.receiver.samples(GROUP).await?;
        let missing = wanted.saturating_sub(came);
        samples.add_missing(missing, 0, u32::try_from(LATE.as_micros())?);
        if let Some(path) = made {
            site.delete(&path).await?;
            sleep(SETTLE).await;
        }
        Ok(Turn { delays: samples.delays(), missing, cpu_per_thousand })
    }
}

impl Pairs {
    fn median(turns: &[Turn], of: impl Fn(Delays) -> f64) -> f64 {
        median(turns.iter().map(|turn| of(turn.delays)))
    }

    /// What p99 may be with the bad one: 1.2 times that without it, or 3 ms more.
    fn limit(without: f64) -> f64 {
        (without * 1.2).max(without + 3.0)
    }

    fn case(&self, floors: &Floors) -> Case {
        let p50 = Self::median(&self.with, Delays::p50);
        let (without, with) =
            (Self::median(&self.without, Delays::p99), Self::median(&self.with, Delays::p99));
        let missing = self.with.iter().map(|turn| count(turn.missing)).sum();
        Case::new(self.name.clone())
            .with(Figure::P50_WITHOUT, Self::median(&self.without, Delays::p50))
            .with(Figure::P50_WITH, p50)
            .with(Figure::P99_WITHOUT, without)
            .with(Figure::P99_WITH, with)
            .with(Figure::RATIO, with / without)
            .with(Figure::P50_OF_LOOP, p50 / floors.bare_loop.samples.delays().p50())
            .with(Figure::P50_OF_POST, p50 / floors.post_only.samples.delays().p50())
            .with(Figure::CPU, median(self.with.iter().map(|turn| turn.cpu_per_thousand)))
            .with(Figure::LATE, missing)
    }
}

fn sheet(lab: &Lab, all: &[Pairs], long: &Pairs, floors: &Floors) -> Sheet {
    let about = format!(
        "Delays of {HEALTHY} healthy endpoints at {RATE} events/s of {} bytes, without and with a \
         bad one beside them, median of {} interleaved pairs; and one long turn at {LONG_RATE}/s.",
        lab.bytes,
        all.first().map_or(0, |pairs| pairs.with.len())
    );
    let mut sheet = Sheet::new("noisy", about);
    let rows = || all.iter().chain(std::iter::once(long));
    sheet.table("The bad one ...", rows().map(|pairs| pairs.case(floors)).collect());
    sheet.table("Floors at the same rate", floors.delays().into());
    for pairs in rows() {
        let limit = Pairs::limit(Pairs::median(&pairs.without, Delays::p99));
        let what = format!("p99 of the healthy in ms, beside one that {}", pairs.name);
        sheet.target(what, Pairs::median(&pairs.with, Delays::p99), Sense::AtMost, limit);
    }
    let names: Vec<&str> = rows().map(|pairs| pairs.name.as_str()).collect();
    let mut bars = Bars::new("p99 of the healthy nine in ms", &names);
    let figure = |turns: fn(&Pairs) -> &[Turn]| {
        rows().map(|pairs| Pairs::median(turns(pairs), Delays::p99)).collect()
    };
    bars.series("without the bad one", figure(|pairs| &pairs.without));
    bars.series("with the bad one", figure(|pairs| &pairs.with));
    let title = "Noisy neighbour: healthy endpoints beside one that misbehaves";
    sheet.chart(Chart::new("noisy", title).with(Panel::Bars(bars)));
    sheet
}
