//! The names under which the retry-scheduler's numbers are read.

use std::sync::Arc;

use fanfare_event_log::{ConfigView, EventLog};
use fanfare_service::{Metric, Metrics, metrics::as_f64};

use crate::{
    counters::{Count, Counters, Levels},
    directory::Directory,
    spans::Afterwards,
};

/// What is counted: its name, what it counts, what it means, and where it is.
type Counted = (&'static str, &'static str, &'static str, fn(&Counters) -> &Count);

const COUNTED: [Counted; 8] = [
    (
        "fanfare.retry_scheduler.batches",
        "{batch}",
        "Batches of the journal that were folded in.",
        |it| &it.batches,
    ),
    (
        "fanfare.retry_scheduler.plans",
        "{retry}",
        "Attempts that were given their time: retries, and what was put off.",
        |it| &it.plans,
    ),
    ("fanfare.retry_scheduler.alarms", "{message}", "Scheduled messages that were stored.", |it| {
        &it.alarms
    }),
    (
        "fanfare.retry_scheduler.rescues",
        "{message}",
        "Scheduled messages that had not fired and were published again.",
        |it| &it.rescues,
    ),
    (
        "fanfare.retry_scheduler.cancels",
        "{message}",
        "Scheduled messages that were cancelled.",
        |it| &it.cancels,
    ),
    (
        "fanfare.retry_scheduler.exhausted",
        "{delivery}",
        "Exhausted deliveries that operators were told of.",
        |it| &it.exhausted,
    ),
    (
        "fanfare.retry_scheduler.disabled",
        "{endpoint}",
        "Endpoints that were disabled because they kept failing.",
        |it| &it.disabled,
    ),
    (
        "fanfare.retry_scheduler.spans_left_out",
        "{delivery}",
        "Exhausted deliveries that sampling left out, and whose spans could not be made afterwards.",
        |it| &it.spans_left_out,
    ),
];

/// What shards have: its name, what it counts, what it means, and where it is.
type Held = (&'static str, &'static str, &'static str, fn(&Levels) -> usize);

const HELD: [Held; 4] = [
    (
        "fanfare.retry_scheduler.waiting",
        "{delivery}",
        "Deliveries that wait for their time: scheduled retries, and what was put off.",
        |it| it.waiting,
    ),
    (
        "fanfare.retry_scheduler.parked",
        "{delivery}",
        "Deliveries that wait for their endpoint to be resumed.",
        |it| it.parked,
    ),
    (
        "fanfare.retry_scheduler.under_way",
        "{message}",
        "Facts, scheduled messages and notices on their way to the log.",
        |it| it.under_way,
    ),
    (
        "fanfare.retry_scheduler.under_way.limit",
        "{message}",
        "How many may be on their way before the journal is read more slowly (in_flight_max).",
        |it| it.under_way_max,
    ),
];

/// Has everything read that is counted and held.
pub(crate) fn register(metrics: &Metrics, counters: &Arc<Counters>, view: ConfigView<Directory>) {
    for (name, unit, help, of) in COUNTED {
        let all = Arc::clone(counters);
        metrics.counter(Metric::new(name, unit, help), move || of(&all).get());
    }
    for (name, unit, help, of) in HELD {
        let all = Arc::clone(counters);
        metrics.level(Metric::new(name, unit, help), move || all.sum(of));
    }
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new("fanfare.retry_scheduler.shards", "{shard}", "Shards that this process has."),
        move || all.shards(),
    );
    let all = Arc::clone(counters);
    metrics.gauge(
        Metric::new(
            "fanfare.retry_scheduler.past_due",
            "s",
            "How long ago the oldest attempt was due that was not made, beyond sweep_grace; looked \
             at with each sweep.",
        ),
        move || all.past_due().as_secs_f64(),
    );
    metrics.gauge(
        Metric::new(
            "fanfare.retry_scheduler.config_revision",
            "",
            "The sequence of CONFIG up to which the retry-scheduler knows the configuration.",
        ),
        move || as_f64(usize::try_from(view.revision()).unwrap_or(usize::MAX)),
    );
}

/// Has read what waits for the streams, and for spans to be made.
pub(crate) fn register_waits(metrics: &Metrics, log: &EventLog, afterwards: &Afterwards) {
    let (windows, limit) = (log.windows(), log.windows());
    metrics.writes("retry-scheduler", move || windows.under_way(), move || limit.limit());
    metrics.level(
        Metric::new(
            "fanfare.retry_scheduler.spans",
            "{delivery}",
            "Exhausted deliveries that sampling left out, and whose spans are to be made.",
        ),
        afterwards.waiting(),
    );
    metrics.level(
        Metric::new(
            "fanfare.retry_scheduler.spans.limit",
            "{delivery}",
            "How many may wait for that; of more no spans are made.",
        ),
        || Afterwards::WAITING_MAX,
    );
}
