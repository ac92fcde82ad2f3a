//! The names under which the dispatcher's numbers are read.

use std::sync::Arc;

use fanfare_event_log::ConfigView;
use fanfare_service::{
    Metric, Metrics,
    metrics::{EVENTUALLY, SOON, as_f64},
};

use crate::{
    attempt::Desk,
    counters::{Counters, ShardLevels, Times},
    registry::Registry,
    shard::{UNRECORDED_MAX, UNSETTLED_HARD_MAX},
};

/// Makes the histograms.
pub(crate) fn times(metrics: &Metrics) -> Times {
    Times {
        first_attempt: metrics.histogram(
            Metric::new(
                "fanfare.dispatcher.first_attempt",
                "s",
                "Time from an event's acceptance to the beginning of a delivery's first attempt.",
            ),
            SOON,
        ),
        conclusion: metrics.histogram(
            Metric::new(
                "fanfare.dispatcher.conclusion",
                "s",
                "Time from an event's acceptance to the end of a delivery.",
            ),
            EVENTUALLY,
        ),
        attempt: metrics.histogram(
            Metric::new(
                "fanfare.dispatcher.attempt",
                "s",
                "Time from the beginning of an attempt to its answer.",
            ),
            SOON,
        ),
    }
}

/// Has everything read that is counted and held.
pub(crate) fn register(metrics: &Metrics, desk: &Desk, view: ConfigView<Registry>) {
    done(metrics, desk.counters());
    process(metrics, desk);
    lanes(metrics, desk.counters());
    queues(metrics, desk.counters());
    ways_out(metrics, desk);
    metrics.gauge(
        Metric::new(
            "fanfare.dispatcher.config_revision",
            "",
            "The sequence of CONFIG up to which the dispatcher knows the configuration.",
        ),
        move || as_f64(usize::try_from(view.revision()).unwrap_or(usize::MAX)),
    );
}

/// What was done.
fn done(metrics: &Metrics, counters: &Arc<Counters>) {
    let all = Arc::clone(counters);
    metrics.counters(
        Metric::new(
            "fanfare.dispatcher.attempts",
            "{attempt}",
            "Attempts on record, by what came of them.",
        ),
        "outcome",
        move |tell| all.attempts().for_each(|(name, count)| tell(name, count)),
    );
    let all = Arc::clone(counters);
    metrics.counters(
        Metric::new(
            "fanfare.dispatcher.conclusions",
            "{delivery}",
            "Deliveries that have ended, by how.",
        ),
        "conclusion",
        move |tell| all.conclusions().for_each(|(name, count)| tell(name, count)),
    );
    let all = Arc::clone(counters);
    metrics.counters(
        Metric::new(
            "fanfare.dispatcher.deferrals",
            "{attempt}",
            "Attempts that were put off, by why.",
        ),
        "reason",
        move |tell| all.deferrals().for_each(|(name, count)| tell(name, count)),
    );
    let all = Arc::clone(counters);
    metrics.counter(
        Metric::new(
            "fanfare.dispatcher.parked",
            "{delivery}",
            "Deliveries that were parked because their endpoint is paused.",
        ),
        move || all.parked(),
    );
}

/// What the process holds, and may hold.
fn process(metrics: &Metrics, desk: &Desk) {
    let permits = Arc::clone(desk.permits());
    metrics.level(
        Metric::new("fanfare.dispatcher.in_flight", "{request}", "Requests in flight."),
        move || permits.held(),
    );
    let most = desk.permits().max();
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.in_flight.limit",
            "{request}",
            "Requests that may be in flight (in_flight_max).",
        ),
        move || most,
    );
    bounds(metrics, desk);
    let memory = Arc::clone(desk.memory());
    metrics.family(
        Metric::new(
            "fanfare.dispatcher.held",
            "{delivery}",
            "Deliveries in memory, by what they came with: a task, or a due message.",
        ),
        move |tell| {
            let held = memory.held();
            tell(&[("source", "task")], as_f64(held.tasks));
            tell(&[("source", "due")], as_f64(held.due));
        },
    );
    let limits = desk.memory().limits();
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.held.limit",
            "{delivery}",
            "Deliveries of each source that may be in memory (queued_max).",
        ),
        move || limits.deliveries,
    );
    let memory = Arc::clone(desk.memory());
    metrics.level(
        Metric::new("fanfare.dispatcher.held.size", "By", "Bytes of events in memory."),
        move || memory.held().bytes,
    );
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.held.size.limit",
            "By",
            "Bytes of events that may be in memory (queued_bytes_max).",
        ),
        move || limits.bytes,
    );
}

/// Who may have how many requests in flight.
fn bounds(metrics: &Metrics, desk: &Desk) {
    let permits = Arc::clone(desk.permits());
    metrics.family(
        Metric::new(
            "fanfare.dispatcher.permits",
            "{request}",
            "Requests in flight that count against a bound: any; new and slow, what endpoints that have \
             not answered yet or are slow hold together; late, retries and what was put off.",
        ),
        move |tell| {
            for (kind, held, _) in permits.bounds() {
                tell(&[("kind", kind)], as_f64(held));
            }
        },
    );
    let permits = Arc::clone(desk.permits());
    metrics.family(
        Metric::new(
            "fanfare.dispatcher.permits.limit",
            "{request}",
            "The bound: at it, attempts to endpoints of that kind wait, and others go on. Of any, a \
             sixteenth is kept for endpoints with nothing in flight.",
        ),
        move |tell| {
            for (kind, _, limit) in permits.bounds() {
                tell(&[("kind", kind)], as_f64(limit));
            }
        },
    );
}

/// What goes out beside requests.
fn ways_out(metrics: &Metrics, desk: &Desk) {
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.lookups",
            "{name}",
            "Names of endpoints' hosts that are being looked up.",
        ),
        desk.lookups(),
    );
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.lookups.limit",
            "{name}",
            "Names that may be looked up at once; attempts wait for more.",
        ),
        || fanfare_egress::Client::LOOKUPS_MAX,
    );
    let (windows, limit) = (desk.log().windows(), desk.log().windows());
    metrics.writes("dispatcher", move || windows.under_way(), move || limit.limit());
}

/// What lanes hold.
fn lanes(metrics: &Metrics, counters: &Arc<Counters>) {
    let sum = |of: fn(&ShardLevels) -> usize| {
        let all = Arc::clone(counters);
        move || all.sum(of)
    };
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.lanes",
            "{endpoint}",
            "Endpoints of which this process knows something: each has a lane.",
        ),
        sum(|it| it.lanes.lanes),
    );
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.lanes.busy",
            "{endpoint}",
            "Lanes with something in flight.",
        ),
        sum(|it| it.lanes.busy),
    );
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.lanes.quiet",
            "{endpoint}",
            "Lanes that rest because their endpoint asked for it (Retry-After).",
        ),
        sum(|it| it.lanes.quiet),
    );
    let all = Arc::clone(counters);
    metrics.family(
        Metric::new("fanfare.dispatcher.breakers", "{endpoint}", "Lanes by their breaker."),
        move |tell| {
            for (state, at) in [("closed", 0), ("open", 1), ("half_open", 2)] {
                let count = |it: &ShardLevels| it.lanes.breakers.get(at).copied();
                tell(&[("state", state)], as_f64(all.sum(|it| count(it).unwrap_or_default())));
            }
        },
    );
    let all = Arc::clone(counters);
    metrics.family(
        Metric::new(
            "fanfare.dispatcher.queued",
            "{attempt}",
            "Attempts that wait in lanes, and those that wait for a tenant's rate limit.",
        ),
        move |tell| {
            let [first, retry] = [0, 1].map(|at: usize| {
                all.sum(|it| it.lanes.queued.get(at).copied().unwrap_or_default())
            });
            tell(&[("kind", "first")], as_f64(first));
            tell(&[("kind", "retry")], as_f64(retry));
            tell(&[("kind", "limited")], as_f64(all.sum(|it| it.early)));
        },
    );
    let all = Arc::clone(counters);
    metrics.family(
        Metric::new(
            "fanfare.dispatcher.past_due",
            "s",
            "How long the oldest attempt waits that nothing holds back but this process, by how its \
             endpoint is thought of: proven (it answered fast of late), new (it has not answered yet), \
             slow.",
        ),
        move |tell| {
            for (standing, waits) in all.past_due() {
                tell(&[("standing", standing.as_str())], waits.as_secs_f64());
            }
        },
    );
}

/// What shards hold, and may hold.
fn queues(metrics: &Metrics, counters: &Arc<Counters>) {
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new("fanfare.dispatcher.shards", "{shard}", "Shards that this process has."),
        move || all.shards(),
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.feeds",
            "{endpoint}",
            "Endpoints that are fed from EVENTS: they are behind, paused, or want order.",
        ),
        move || all.sum(|it| it.feeds),
    );
    let all = Arc::clone(counters);
    metrics.family(
        Metric::new(
            "fanfare.dispatcher.unsettled",
            "{message}",
            "Messages in hand that are not settled, by their queue.",
        ),
        move |tell| {
            for (source, at) in [("task", 0), ("due", 1)] {
                let count = |it: &ShardLevels| it.unsettled.get(at).copied();
                tell(&[("source", source)], as_f64(all.sum(|it| count(it).unwrap_or_default())));
            }
        },
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.unsettled.limit",
            "{message}",
            "Messages of each queue that may be in hand, for all shards together.",
        ),
        move || all.shards() * UNSETTLED_HARD_MAX,
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.unrecorded",
            "{delivery}",
            "Deliveries whose facts wait to be written to the journal.",
        ),
        move || all.sum(|it| it.unrecorded),
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.dispatcher.unrecorded.limit",
            "{delivery}",
            "How many may wait for that before no more attempts are begun, for all shards together.",
        ),
        move || all.shards() * UNRECORDED_MAX,
    );
}
