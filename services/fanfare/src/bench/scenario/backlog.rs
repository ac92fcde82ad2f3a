//! A backlog for one slow endpoint: what it costs, what it does to another endpoint, and how it
//! drains once the endpoint is quick again.

use std::{ops::Range, time::Duration};

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream;
use fanfare_service::Joined;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{IN_FLIGHT, RATE, flood_load, steady_load};
use crate::bench::{
    hearing::Counter,
    lab::{Floors, Lab, ROUND_MAX},
    plot::{Chart, Lines, Panel},
    producer::Producer,
    receiver::Order,
    samples::{Samples, count},
    sheet::{Case, Figure, Sense, Sheet},
    system::{Endpoint, System, TENANT},
};

/// The slow endpoint's group, and the healthy one's.
const SLOW: &str = "slow";
const HEALTHY: &str = "healthy";
/// How long the slow endpoint takes for each event; within the time-out.
const TAKES: Duration = Duration::from_secs(5);
/// How long the healthy endpoint is watched alone, and with the backlog standing.
const WATCH: Duration = Duration::from_secs(6);
/// How long the backlog may take to drain before the rest is left.
const DRAIN_MAX: Duration = Duration::from_mins(1);

/// What was seen from outside the receiver.
struct Seen {
    spans: [Range<u32>; 4],
    accepted_per_second: f64,
    /// Messages that wait in the log, and the memory of the services and of nats-server.
    standing: [f64; 3],
    drained: Range<u32>,
    order: Order,
}

/// Runs the scenario.
pub(super) async fn measure(lab: &mut Lab) -> Result<Sheet> {
    let events = lab.pick(100_000, 2_000);
    lab.step("floors");
    let floors = (lab.floors(steady_load(lab, RATE)).await?, lab.floors(flood_load(lab)).await?);
    let system = System::start(lab, IN_FLIGHT).await?;
    let url = lab.receiver.url();
    for (path, types) in [(format!("gate/{SLOW}"), "bulk.>"), (format!("ok/{HEALTHY}"), "steady.>")]
    {
        let endpoint = Endpoint {
            tenant: TENANT,
            url: format!("{url}/{path}/1"),
            types: String::from(types),
            concurrency: None,
        };
        system.site().endpoint(&endpoint).await?;
    }
    let steady = system.producer(lab, "steady.beat").await?;
    let bulk = system.producer(lab, "bulk.sent").await?;
    let warm = steady.steadily(RATE, Duration::from_secs(1)).await?;
    lab.receiver.wait_for(HEALTHY, warm, ROUND_MAX).await?;
    lab.receiver.reset().await?;
    let begun = Instant::now();
    // A task of its own, so that it keeps time whatever the others do.
    let mut beat = JoinSet::new();
    beat.spawn(async move { steady.steadily(RATE, ROUND_MAX).await });
    let seen = tokio::select! {
        seen = act(lab, &system, &bulk, (events, begun)) => seen?,
        ended = beat.join_next() => {
            ended.map(Joined::joined).transpose()?.transpose()?;
            bail!("the backlog took longer than {ROUND_MAX:?}");
        }
    };
    beat.shutdown().await;
    lab.step("done");
    let samples = [lab.receiver.samples(HEALTHY).await?, lab.receiver.samples(SLOW).await?];
    system.stop().await?;
    Ok(sheet(&samples, &seen, events, &floors))
}

async fn act(
    lab: &Lab,
    system: &System,
    bulk: &Producer,
    (events, begun): (u64, Instant),
) -> Result<Seen> {
    let now = || u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
    lab.step("alone");
    lab.receiver.slow(SLOW, TAKES).await?;
    sleep(WATCH).await;
    lab.step("the backlog grows");
    let growing = now();
    bulk.flood(events).await?;
    let grown = now();
    lab.step("the backlog stands");
    sleep(WATCH).await;
    let [services, nats] = system.memory()?.map(|bytes| count(bytes >> 20));
    let standing = [waiting(system.nats()).await?, services, nats];
    let draining = now();
    lab.step("the backlog drains");
    lab.receiver.open(SLOW).await?;
    lab.receiver.gather((Counter::Taken, SLOW), events, DRAIN_MAX).await?;
    let drained = now();
    Ok(Seen {
        // What was sent just before is caught by what comes.
        spans: [0..growing.saturating_sub(500), growing..grown, grown..draining, draining..drained],
        accepted_per_second: count(events) * 1_000.0 / f64::from(grown - growing),
        standing,
        drained: draining..drained,
        order: lab.receiver.order(SLOW).await?,
    })
}

/// How many messages wait in the log for the dispatchers, now or later.
async fn waiting(nats: &str) -> Result<f64> {
    let client = async_nats::connect(nats).await.context("connect to NATS")?;
    let jetstream = jetstream::new(client);
    let mut messages = 0.0;
    for stream in ["FANFARE_DELIVERIES", "FANFARE_RETRIES"] {
        let stream = jetstream.get_stream(stream).await.context("find a stream")?;
        messages += count(stream.cached_info().state.messages);
    }
    Ok(messages)
}

fn sheet(
    [healthy, slow]: &[Samples; 2],
    seen: &Seen,
    events: u64,
    (floors, flood): &(Floors, Floors),
) -> Sheet {
    let about = format!(
        "{events} events for one endpoint that takes {} s for each, then none; beside it a healthy \
         one at {RATE} events/s.",
        TAKES.as_secs()
    );
    let mut sheet = Sheet::new("backlog", about);
    let names =
        ["alone", "while the backlog grows", "while it stands", "while it drains"].into_iter();
    let mut cases: Vec<Case> = names
        .zip(&seen.spans)
        .map(|(name, span)| {
            let delays = healthy.sent_within(span).delays();
            let of_loop = delays.p50() / floors.bare_loop.samples.delays().p50();
            let of_post = delays.p50() / floors.post_only.samples.delays().p50();
            Case::new(name)
                .delays(delays)
                .with(Figure::P50_OF_LOOP, of_loop)
                .with(Figure::P50_OF_POST, of_post)
        })
        .collect();
    cases.extend(floors.delays());
    sheet.table("Delays of the healthy endpoint", cases);
    let [messages, services, nats] = seen.standing;
    let case = Case::new("backlog")
        .with(Figure::ACCEPTED, seen.accepted_per_second)
        .with(Figure::MESSAGES, messages)
        .with(Figure::MEBIBYTES, services)
        .with(Figure::NATS_MEBIBYTES, nats);
    sheet.table("Once it stands", vec![case]);
    let drained = slow.within(&seen.drained).len();
    let seconds = f64::from(seen.drained.end - seen.drained.start) / 1_000.0;
    let per_second = count(drained) / seconds;
    let case = Case::new("drained")
        .with(Figure::REQUESTS, count(drained))
        .with(Figure::SECONDS, seconds)
        .with(Figure::PER_SECOND, per_second)
        .with(Figure::OF_LOOP, per_second / flood.bare_loop.per_second())
        .with(Figure::OF_POST, per_second / flood.post_only.per_second())
        .with(Figure::BEHIND, count(seen.order.behind))
        .with(Figure::FURTHEST, count(seen.order.furthest));
    sheet.table("Once the endpoint is quick", vec![case]);
    let p99 = |span: &Range<u32>| healthy.sent_within(span).delays().p99();
    let [alone, _, standing, _] = &seen.spans;
    let limit = (p99(alone) * 1.2).max(p99(alone) + 3.0);
    let what = "p99 in ms of the healthy endpoint while the backlog stands";
    sheet.target(what, p99(standing), Sense::AtMost, limit);
    sheet.chart(chart(healthy, slow, &seen.spans));
    sheet
}

fn chart(healthy: &Samples, slow: &Samples, spans: &[Range<u32>; 4]) -> Chart {
    let mut delays = Lines::new("seconds", "delay of the healthy endpoint in ms").log();
    delays.series("p50", healthy.over_time(1_000, |step| step.delays().p50()));
    delays.series("p99", healthy.over_time(1_000, |step| step.delays().p99()));
    let mut rates = Lines::new("seconds", "deliveries per second");
    let [_, growing, standing, draining] = spans;
    for (span, what) in [(growing, "grows"), (standing, "stands"), (draining, "drains")] {
        delays.mark(f64::from(span.start) / 1_000.0, what);
        rates.mark(f64::from(span.start) / 1_000.0, what);
    }
    let end = healthy.ends().map_or(0, |(_, end)| end);
    rates.series("healthy", healthy.rate_over_time(1_000, end));
    rates.series("the one with the backlog", slow.rate_over_time(1_000, end));
    Chart::new("backlog", "Backlog of one endpoint, beside a healthy one")
        .with(Panel::Lines(delays))
        .with(Panel::Lines(rates))
}
