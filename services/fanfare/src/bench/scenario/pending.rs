//! A million deliveries that wait for their next attempt: what they cost, how long a restart takes
//! with them, and how late 50,000 are that fall due within a minute.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use fanfare_service::{Clock as _, SystemClock};
use tokio::time::{Instant, sleep};

use super::{IN_FLIGHT, flood_load, steady_load};
use crate::{
    bench::{
        cluster::{Cluster, Plan},
        hearing::Counter,
        lab::{Floors, Lab, ROUND_MAX},
        plot::{Bars, Chart, Lines, Panel},
        producer::{Producer, Stamp},
        samples::{Samples, count},
        sheet::{Case, Figure, Sense, Sheet},
        system::{Endpoint, ON_TIME},
    },
    cli::Service,
};

/// The tenant whose deliveries are retried when the endpoint says, and the group at the receiver.
const TENANT: &str = "later";
const GROUP: &str = "later";
/// How many endpoints there are: each event makes that many retries.
const ENDPOINTS: u64 = 1_000;
/// How many events may be on their way at once while the retries are made.
const AHEAD: u64 = 8;
/// How many shards there are.
const SHARDS: u32 = 16;
/// How far ahead those lie that are only to be kept.
const FAR: Duration = Duration::from_hours(6);
/// How long until the first of those falls due that are to be delivered.
const LEAD: Duration = Duration::from_secs(15);
/// How late the last one may be.
const LATE_MAX: Duration = Duration::from_secs(20);
/// How long services have for a restart.
const RESTART_MAX: Duration = Duration::from_mins(2);
/// What every service together may take, in MiB, and how late 99 of 100 may be, in milliseconds.
const MEBIBYTES_MAX: f64 = 300.0;
const LATENESS_MAX: f64 = 1_500.0;

/// How many events: to be kept, and to fall due within a span.
#[derive(Clone, Copy)]
struct Amount {
    kept: u64,
    due: u64,
    span: Duration,
}

/// What was seen.
struct Seen {
    fill: Duration,
    memory: [Vec<(&'static str, u64)>; 2],
    restarts: Vec<(&'static str, Duration)>,
    lateness: Samples,
    missing: u64,
}

/// Runs the scenario.
pub(super) async fn measure(lab: &mut Lab) -> Result<Sheet> {
    let amount = lab.pick(
        Amount { kept: 1_000, due: 50, span: Duration::from_mins(1) },
        Amount { kept: 5, due: 5, span: Duration::from_secs(5) },
    );
    lab.step("floors");
    let rate = u32::try_from(amount.due * ENDPOINTS / amount.span.as_secs())?;
    let floors = (lab.floors(steady_load(lab, rate)).await?, lab.floors(flood_load(lab)).await?);
    let mut cluster = Cluster::start(lab, Plan { shards: SHARDS, in_flight: IN_FLIGHT }).await?;
    cluster.add(Service::Dispatcher).await?;
    cluster.ready(ROUND_MAX).await?.context("the dispatcher is not ready")?;
    prepare(lab, &cluster, amount).await?;
    let seen = act(lab, &mut cluster, amount).await?;
    lab.step("done");
    cluster.stop().await?;
    Ok(sheet(&seen, amount, &floors))
}

/// The step between one endpoint's due time and the next one's, in microseconds: an event's
/// retries spread over the time until the next event's.
fn step_micros(amount: Amount) -> u128 {
    amount.span.as_micros() / u128::from(amount.due * ENDPOINTS)
}

async fn prepare(lab: &Lab, cluster: &Cluster, amount: Amount) -> Result<()> {
    lab.step("endpoints");
    cluster.site().tenant(TENANT, Some(ON_TIME)).await?;
    let url = lab.receiver.url();
    let step = step_micros(amount);
    let endpoints = (0..ENDPOINTS).map(|number| Endpoint {
        tenant: TENANT,
        url: format!("{url}/due/{step}/{number}/{GROUP}"),
        types: String::from(">"),
        concurrency: None,
    });
    cluster.site().endpoints(endpoints).await
}

async fn act(lab: &Lab, cluster: &mut Cluster, amount: Amount) -> Result<Seen> {
    let producer = Producer::connect(&cluster.nats(), TENANT, "invoice.paid", lab.bytes).await?;
    let fresh = cluster.memory()?;
    lab.step(format!("{} retries are made", amount.kept * ENDPOINTS));
    lab.receiver.reset().await?;
    let begun = Instant::now();
    let far = SystemClock.now().saturating_add(FAR).as_millis();
    fill_up(lab, &producer, amount.kept, Stamp { due: Some(far), ..Stamp::default() }).await?;
    scheduled(&cluster.nats(), amount.kept * ENDPOINTS).await?;
    let fill = begun.elapsed();
    let laden = cluster.memory()?;
    lab.step("services start again");
    let mut restarts = Vec::new();
    for service in [Service::RetryScheduler, Service::Dispatcher] {
        cluster.remove(service).await?;
        cluster.add(service).await?;
        let took = cluster.ready(RESTART_MAX).await?;
        restarts.push((service.name(), took.context("a service is not ready after its restart")?));
    }
    lab.step(format!("{} fall due", amount.due * ENDPOINTS));
    let first = SystemClock.now().saturating_add(LEAD).as_millis();
    let apart = u64::try_from(amount.span.as_millis())? / amount.due;
    let due = |number: u64| Some(first + (number - 1) * apart);
    producer.flood_of(amount.due, |number| Stamp { due: due(number), ..Stamp::default() }).await?;
    let wanted = amount.due * ENDPOINTS;
    let patience = LEAD + amount.span + LATE_MAX;
    let came = lab.receiver.gather((Counter::Taken, GROUP), wanted, patience).await?;
    Ok(Seen {
        fill,
        memory: [fresh, laden],
        restarts,
        lateness: lab.receiver.samples(GROUP).await?,
        missing: wanted.saturating_sub(came),
    })
}

/// Publishes events whose deliveries all fail, a few at a time: a lane that is full defers, and what
/// is deferred waits in the same stream as what has failed. That is the matter of `backlog`.
async fn fill_up(lab: &Lab, producer: &Producer, events: u64, stamp: Stamp) -> Result<()> {
    let mut published = 0;
    while published < events {
        let some = AHEAD.min(events - published);
        producer.flood_of(some, |_| stamp).await?;
        published += some;
        let wanted = published.saturating_sub(AHEAD / 2) * ENDPOINTS;
        let refused = (Counter::Refused, GROUP);
        let came = lab.receiver.gather(refused, wanted, RESTART_MAX).await?;
        ensure!(came >= wanted, "{came} of {wanted} attempts in {RESTART_MAX:?}");
    }
    Ok(())
}

/// Waits until that many messages are scheduled.
async fn scheduled(nats: &str, wanted: u64) -> Result<()> {
    let client = async_nats::connect(nats).await.context("connect to NATS")?;
    let jetstream = jetstream::new(client);
    let mut stream = jetstream.get_stream("FANFARE_RETRIES").await.context("find RETRIES")?;
    let mut moved = (Instant::now(), 0);
    loop {
        let messages = stream.info().await.context("look at RETRIES")?.state.messages;
        if messages >= wanted {
            return Ok(());
        }
        if messages > moved.1 {
            moved = (Instant::now(), messages);
        }
        let still = moved.0.elapsed();
        ensure!(still < RESTART_MAX, "{messages} of {wanted} retries, and no more for {still:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

fn mebibytes(bytes: u64) -> f64 {
    count(bytes >> 20)
}

fn sheet(seen: &Seen, amount: Amount, (steady, flood): &(Floors, Floors)) -> Sheet {
    let (kept, due) = (amount.kept * ENDPOINTS, amount.due * ENDPOINTS);
    let about = format!(
        "{kept} scheduled retries, each service a process of its own; then {due} more that fall due \
         within {} s.",
        amount.span.as_secs()
    );
    let mut sheet = Sheet::new("pending", about);
    let per_second = count(kept) / seen.fill.as_secs_f64();
    let case = Case::new("failed, and scheduled")
        .with(Figure::REQUESTS, count(kept))
        .with(Figure::SECONDS, seen.fill.as_secs_f64())
        .with(Figure::PER_SECOND, per_second)
        .with(Figure::OF_LOOP, per_second / flood.bare_loop.per_second())
        .with(Figure::OF_POST, per_second / flood.post_only.per_second());
    let cases = std::iter::once(case).chain(flood.rates()).collect();
    sheet.table("Until all were scheduled", cases);
    let [fresh, full] = &seen.memory;
    let cases = full
        .iter()
        .map(|(name, bytes)| Case::new(*name).with(Figure::MEBIBYTES, mebibytes(*bytes)));
    sheet.table("Memory with all of them", cases.collect());
    let cases = seen
        .restarts
        .iter()
        .map(|(name, took)| Case::new(*name).with(Figure::SECONDS, took.as_secs_f64()));
    sheet.table("From the start of a process until it is ready", cases.collect());
    let delays = seen.lateness.delays();
    let case = Case::new("system").delays(delays).with(Figure::LATE, count(seen.missing));
    let cases = std::iter::once(case).chain(steady.delays()).collect();
    sheet.table("Lateness of those that fell due (floors: delay at the same rate)", cases);
    let services = full.iter().filter(|(name, _)| *name != "nats-server");
    let all = services.map(|(_, bytes)| mebibytes(*bytes)).sum();
    sheet.target("MiB of all services together", all, Sense::AtMost, MEBIBYTES_MAX);
    let late = if seen.missing * 100 > due { f64::INFINITY } else { delays.p99() };
    sheet.target("p99 of lateness in ms", late, Sense::AtMost, LATENESS_MAX);
    let names: Vec<&str> = full.iter().map(|(name, _)| *name).collect();
    let mut bars = Bars::new("resident memory in MiB", &names);
    bars.series("fresh", fresh.iter().map(|(_, bytes)| mebibytes(*bytes)).collect());
    let series = full.iter().map(|(_, bytes)| mebibytes(*bytes)).collect();
    bars.series(format!("with {kept} scheduled retries"), series);
    let mut lines = Lines::new("seconds", "lateness in ms").log();
    let from_first = from_first(&seen.lateness);
    lines.series("p50", from_first.over_time(1_000, |step| step.delays().p50()));
    lines.series("p99", from_first.over_time(1_000, |step| step.delays().p99()));
    let title = format!("Pending: {kept} scheduled retries, {due} fall due");
    sheet.chart(Chart::new("pending", title).with(Panel::Bars(bars)).with(Panel::Lines(lines)));
    sheet
}

/// The same requests, with the time since the first of them.
fn from_first(samples: &Samples) -> Samples {
    let first = samples.ends().map_or(0, |(first, _)| first);
    samples.shifted(first)
}
