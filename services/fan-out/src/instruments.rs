//! The names under which fan-out's numbers are read.

use std::sync::Arc;

use fanfare_event_log::{ConfigView, EventLog};
use fanfare_service::{Histogram, Metric, Metrics, metrics::as_f64};

use crate::{conditions::Conditions, counters::Counters, replays::SURVEYED_MAX, routes::Routes};

/// Boundaries for how many endpoints an event has.
const WIDTHS: &[f64] =
    &[0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 5_000.0];

/// What is counted: its name, what it counts, what it means, and where it is.
type Counted = (&'static str, &'static str, &'static str, fn(&Counters) -> u64);

const COUNTED: [Counted; 5] = [
    (
        "fanfare.fan_out.events",
        "{event}",
        "Events whose routing was put on record.",
        Counters::events,
    ),
    (
        "fanfare.fan_out.repeated",
        "{event}",
        "Events that came again, with their routing on record.",
        Counters::repeated,
    ),
    (
        "fanfare.fan_out.handed_back",
        "{event}",
        "Events that were handed back because the rate limits of their tenants were out of reach.",
        Counters::handed_back,
    ),
    (
        "fanfare.fan_out.conditions_asked",
        "{condition}",
        "Times that an endpoint's condition was asked about an event.",
        Counters::conditions_asked,
    ),
    (
        "fanfare.fan_out.conditions_failed",
        "{condition}",
        "Times that a condition gave no answer, which counts as if it did not hold.",
        Counters::conditions_failed,
    ),
];

/// Makes the histogram of how many endpoints events have.
pub(crate) fn width(metrics: &Metrics) -> Histogram {
    let help = "Endpoints that an event is delivered to, by task or by feed.";
    metrics.histogram(Metric::new("fanfare.fan_out.width", "{endpoint}", help), WIDTHS)
}

/// Has everything read that is counted and held.
pub(crate) fn register(
    metrics: &Metrics,
    counters: &Arc<Counters>,
    view: ConfigView<Routes>,
    batches_max: usize,
) {
    for (name, unit, help, of) in COUNTED {
        let all = Arc::clone(counters);
        metrics.counter(Metric::new(name, unit, help), move || of(&all));
    }
    let all = Arc::clone(counters);
    metrics.counters(
        Metric::new(
            "fanfare.fan_out.deliveries",
            "{delivery}",
            "Deliveries, by the way they go: as a task, by a feed, by a replay, or skipped by a paused \
             endpoint.",
        ),
        "way",
        move |tell| all.deliveries().into_iter().for_each(|(way, count)| tell(way, count)),
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new("fanfare.fan_out.batches", "{batch}", "Batches that are being written."),
        move || all.batches(),
    );
    metrics.level(
        Metric::new(
            "fanfare.fan_out.batches.limit",
            "{batch}",
            "Batches that may be written at once (batches_max).",
        ),
        move || batches_max,
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.fan_out.costly",
            "{event}",
            "Events whose content conditions take long: they wait for their tenant's turn, or have it.",
        ),
        move || all.costly(),
    );
    replays(metrics, counters);
    metrics.gauge(
        Metric::new(
            "fanfare.fan_out.config_revision",
            "",
            "The sequence of CONFIG up to which fan-out knows the configuration.",
        ),
        move || as_f64(usize::try_from(view.revision()).unwrap_or(usize::MAX)),
    );
}

fn replays(metrics: &Metrics, counters: &Arc<Counters>) {
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.fan_out.replays",
            "{replay}",
            "Replays that are not over, told by the process that runs them.",
        ),
        move || all.replays().0,
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.fan_out.replays.surveyed",
            "{delivery}",
            "Deliveries on record that are remembered for replays which wait for their turn.",
        ),
        move || all.replays().1,
    );
    metrics.level(
        Metric::new(
            "fanfare.fan_out.replays.surveyed.limit",
            "{delivery}",
            "How many may be; beyond that a replay forgets, and waits until there is room.",
        ),
        || SURVEYED_MAX,
    );
}

/// Has read what waits for others: for the streams, and for a turn to ask conditions.
pub(crate) fn register_waits(metrics: &Metrics, log: &EventLog, conditions: &Conditions) {
    let (windows, limit) = (log.windows(), log.windows());
    metrics.writes("fan-out", move || windows.under_way(), move || limit.limit());
    let conditions = conditions.clone();
    metrics.level(
        Metric::new(
            "fanfare.fan_out.conditions",
            "{batch}",
            "Groups of events whose content conditions are being asked about.",
        ),
        move || conditions.under_way(),
    );
    metrics.level(
        Metric::new(
            "fanfare.fan_out.conditions.limit",
            "{batch}",
            "Groups that may be asked about at once; more wait, and other events pass them by.",
        ),
        || Conditions::AT_ONCE,
    );
}
