//! What the API has answered, in numbers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::http::StatusCode;
use fanfare_delivery_log::Database;
use fanfare_event_log::{ConfigView, EventLog};
use fanfare_service::{
    Histogram, Metric, Metrics,
    metrics::{SOON, as_f64},
};
use tokio::sync::Semaphore;

use crate::{directory::Directory, errands::Errands, shares::Shares};

/// The classes of status, from 100 on.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts since the start of the process.
pub(crate) struct Counters {
    answers: [AtomicU64; CLASSES.len()],
    time: Histogram,
    /// Portal links that were made: to look, and to change things.
    links: [AtomicU64; 2],
}

impl Counters {
    /// Nothing was answered yet.
    pub(crate) fn new(metrics: &Metrics) -> Arc<Self> {
        let help = "Time from a request's head to its answer.";
        let time = metrics.histogram(Metric::new("fanfare.api.request", "s", help), SOON);
        let (answers, links) = (Default::default(), Default::default());
        let counters = Arc::new(Self { answers, time, links });
        let all = Arc::clone(&counters);
        metrics.counters(
            Metric::new("fanfare.api.requests", "{request}", "Requests by the answer's status."),
            "status",
            move |tell| {
                for (class, count) in CLASSES.into_iter().zip(&all.answers) {
                    tell(class, count.load(Relaxed));
                }
            },
        );
        let all = Arc::clone(&counters);
        let help = "Portal links that were made, by what they allow: to read, or to change things (admin).";
        metrics.counters(
            Metric::new("fanfare.api.portal_links", "{link}", help),
            "role",
            move |tell| {
                let [read, admin] = &all.links;
                tell("read", read.load(Relaxed));
                tell("admin", admin.load(Relaxed));
            },
        );
        counters
    }

    /// Counts a portal link.
    pub(crate) fn note_link(&self, may_change: bool) {
        let [read, admin] = &self.links;
        if may_change { admin } else { read }.fetch_add(1, Relaxed);
    }

    /// Counts an answer.
    pub(crate) fn note(&self, status: StatusCode, time: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(count) = self.answers.get(class) {
            count.fetch_add(1, Relaxed);
        }
        self.time.time(time);
    }
}

/// What there is only so much of.
pub(crate) struct Limited {
    /// One permit for each connection.
    pub(crate) connections: Arc<Semaphore>,
    /// How many connections there may be.
    pub(crate) connections_max: usize,
    /// Requests that read the journal.
    pub(crate) scans: Shares,
    /// Bytes of bodies.
    pub(crate) bodies: Shares,
    /// Batches of events on their way to ingest.
    pub(crate) batches: Shares,
}

/// Has what is in hand read.
pub(crate) fn register(metrics: &Metrics, view: ConfigView<Directory>, limited: &Limited) {
    let connections_max = limited.connections_max;
    let connections = Arc::clone(&limited.connections);
    metrics.gauge(
        Metric::new(
            "fanfare.api.config_revision",
            "",
            "The sequence of CONFIG up to which the API knows the configuration.",
        ),
        move || as_f64(usize::try_from(view.revision()).unwrap_or(usize::MAX)),
    );
    metrics.level(
        Metric::new("fanfare.api.connections", "{connection}", "Connections that are open."),
        move || connections_max.saturating_sub(connections.available_permits()),
    );
    metrics.level(
        Metric::new(
            "fanfare.api.connections.limit",
            "{connection}",
            "Connections that may be open; more wait to be accepted.",
        ),
        move || connections_max,
    );
    let (scans, scans_max) = (limited.scans.clone(), limited.scans.max());
    metrics.level(
        Metric::new("fanfare.api.scans", "{request}", "Requests that read the journal."),
        move || scans.taken(),
    );
    metrics.level(
        Metric::new(
            "fanfare.api.scans.limit",
            "{request}",
            "Requests that may read the journal at once; more wait.",
        ),
        move || scans_max,
    );
    let (bodies, bodies_max) = (limited.bodies.clone(), limited.bodies.max());
    metrics.level(
        Metric::new("fanfare.api.bodies.size", "By", "Bytes of bodies that there is room for."),
        move || bodies.taken(),
    );
    metrics.level(
        Metric::new(
            "fanfare.api.bodies.size.limit",
            "By",
            "Bytes of bodies that there may be room for; requests about one tenant get a quarter.",
        ),
        move || bodies_max,
    );
}

/// Has read what waits for the streams, for the delivery log, for ingest, and for its end.
pub(crate) fn register_waits(
    metrics: &Metrics,
    (log, database): (&EventLog, &Database),
    (batches, errands): (&Shares, &Errands),
) {
    let levels = database.clone();
    metrics.database("api", move || levels.levels());
    let (windows, limit) = (log.windows(), log.windows());
    metrics.writes("api", move || windows.under_way(), move || limit.limit());
    let (batches, batches_max) = (batches.clone(), batches.max());
    metrics.level(
        Metric::new(
            "fanfare.api.batches",
            "{batch}",
            "Batches of events that are on their way to ingest.",
        ),
        move || batches.taken(),
    );
    metrics.level(
        Metric::new(
            "fanfare.api.batches.limit",
            "{batch}",
            "Batches that may be on their way at once; one tenant's get half of it, and more wait.",
        ),
        move || batches_max,
    );
    metrics.level(
        Metric::new(
            "fanfare.api.errands",
            "{request}",
            "Requests under an Idempotency-Key that are carried out, or wait for that.",
        ),
        errands.in_hand(),
    );
    metrics.level(
        Metric::new("fanfare.api.errands.limit", "{request}", "How many may; more wait."),
        || Errands::MAX,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_the_class_of_their_status() {
        let metrics = Metrics::default();
        let counters = Counters::new(&metrics);
        for status in [200, 201, 404, 503] {
            counters.note(StatusCode::from_u16(status).unwrap(), Duration::from_millis(3));
        }
        let text = metrics.text();
        for (class, count) in [("1xx", 0), ("2xx", 2), ("3xx", 0), ("4xx", 1), ("5xx", 1)] {
            let line = format!("fanfare_api_requests_total{{status=\"{class}\"}} {count}");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert!(text.contains("fanfare_api_request_seconds_count 4"), "{text}");
        counters.note_link(true);
        let text = metrics.text();
        for (role, count) in [("read", 0), ("admin", 1)] {
            let line = format!("fanfare_api_portal_links_total{{role=\"{role}\"}} {count}");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
    }
}
