//! The names under which ingest's numbers are read, and those of the streams.

use std::sync::Arc;

use fanfare_domain::ShardCount;
use fanfare_event_log::{ConfigView, ReaderState, Storage, StreamState};
use fanfare_service::{Metric, Metrics, metrics::as_f64};

use crate::{Settings, counters::Counters, directory::Directory, survey::Seen};

/// What is counted: its name, what it counts, what it means, and where it is.
type Counted = (&'static str, &'static str, &'static str, fn(&Counters) -> u64);

const COUNTED: [Counted; 4] = [
    ("fanfare.ingest.accepted", "{event}", "Events that were stored.", Counters::accepted),
    (
        "fanfare.ingest.duplicates",
        "{event}",
        "Messages and requests that repeated an event which was stored before.",
        Counters::duplicates,
    ),
    (
        "fanfare.ingest.unavailable",
        "{request}",
        "Requests that were answered with: repeat it later.",
        Counters::unavailable,
    ),
    (
        "fanfare.ingest.reported",
        "{event}",
        "Events that were taken though they do not follow the schema of their type.",
        Counters::reported,
    ),
];

/// A number of a stream.
type OfStream = (&'static str, &'static str, &'static str, fn(&StreamState) -> Option<u64>);

const OF_STREAMS: [OfStream; 5] = [
    ("fanfare.log.stream.messages", "{message}", "Messages in a stream.", |it| Some(it.messages)),
    ("fanfare.log.stream.size", "By", "Bytes in a stream.", |it| Some(it.bytes)),
    (
        "fanfare.log.stream.size.limit",
        "By",
        "Bytes that a stream may hold, of streams that have a limit. A full one refuses.",
        |it| it.bytes_max,
    ),
    (
        "fanfare.log.stream.last_sequence",
        "",
        "The sequence of the last message that a stream took.",
        |it| Some(it.last_sequence),
    ),
    (
        "fanfare.log.stream.oldest_age",
        "s",
        "How old a stream's oldest message is. INBOX and DELIVERIES hold what nobody has settled.",
        |it| Some(it.oldest_seconds),
    ),
];

/// A number of a reader.
type OfReader = (&'static str, &'static str, &'static str, fn(&ReaderState) -> Option<u64>);

const OF_READERS: [OfReader; 4] = [
    (
        "fanfare.log.reader.pending",
        "{message}",
        "Messages that a reader of a stream was not handed yet: its lag.",
        |it| Some(it.pending),
    ),
    (
        "fanfare.log.reader.unsettled",
        "{message}",
        "Messages that a reader was handed and has not settled.",
        |it| Some(it.unsettled),
    ),
    (
        "fanfare.log.reader.unsettled.limit",
        "{message}",
        "Messages that a reader may have unsettled.",
        |it| it.unsettled_max,
    ),
    (
        "fanfare.log.reader.redelivered",
        "{message}",
        "Messages that a reader has not settled and that were handed out more than once.",
        |it| Some(it.redelivered),
    ),
];

/// Has everything read that is counted and in hand.
pub(crate) fn register(
    metrics: &Metrics,
    counters: &Arc<Counters>,
    view: ConfigView<Directory>,
    settings: &Settings,
) {
    for (name, unit, help, of) in COUNTED {
        let all = Arc::clone(counters);
        metrics.counter(Metric::new(name, unit, help), move || of(&all));
    }
    let all = Arc::clone(counters);
    metrics.counters(
        Metric::new(
            "fanfare.ingest.rejected",
            "{event}",
            "Messages and requests that were refused, by the reason.",
        ),
        "reason",
        move |tell| all.rejected().for_each(|(reason, count)| tell(reason, count)),
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.ingest.reads_inbox",
            "",
            "1 if it is this process that reads INBOX, 0 if it stands by.",
        ),
        move || usize::from(all.reads_inbox()),
    );
    metrics.gauge(
        Metric::new(
            "fanfare.ingest.config_revision",
            "",
            "The sequence of CONFIG up to which ingest knows the configuration.",
        ),
        move || number(view.revision()),
    );
    in_hand(metrics, counters, settings);
}

fn in_hand(metrics: &Metrics, counters: &Arc<Counters>, settings: &Settings) {
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new(
            "fanfare.ingest.batches",
            "{batch}",
            "Batches of INBOX that are being written.",
        ),
        move || all.batches(),
    );
    let batches_max = settings.batches_max;
    metrics.level(
        Metric::new(
            "fanfare.ingest.batches.limit",
            "{batch}",
            "Batches that may be written at once (batches_max).",
        ),
        move || batches_max,
    );
    let all = Arc::clone(counters);
    metrics.level(
        Metric::new("fanfare.ingest.requests", "{request}", "Requests in hand."),
        move || all.requests().0,
    );
    let requests_max = settings.requests_max;
    metrics.level(
        Metric::new(
            "fanfare.ingest.requests.limit",
            "{request}",
            "Requests that may be in hand (requests_max). More are refused.",
        ),
        move || requests_max,
    );
    let all = Arc::clone(counters);
    metrics.gauge(
        Metric::new("fanfare.ingest.requests.size", "By", "Bytes of requests in hand."),
        move || number(all.requests().1),
    );
    let bytes_max = settings.requests_bytes_max;
    metrics.gauge(
        Metric::new(
            "fanfare.ingest.requests.size.limit",
            "By",
            "Bytes of requests that may be in hand (requests_bytes_max).",
        ),
        move || number(bytes_max),
    );
}

/// Has what was seen of the streams read, and how many shards there are.
pub(crate) fn register_streams(metrics: &Metrics, seen: &Seen, shards: ShardCount) {
    metrics.level(
        Metric::new("fanfare.log.shards", "{shard}", "Shards that the installation has."),
        move || usize::from(shards.get()),
    );
    let looks = seen.clone();
    metrics.counter(
        Metric::new(
            "fanfare.log.survey.failures",
            "{look}",
            "Looks at the streams that did not see all of them; numbers of what was not seen are not \
             told.",
        ),
        move || looks.failures(),
    );
    register_storage(metrics, seen);
    for (name, unit, help, of) in OF_STREAMS {
        let seen = seen.clone();
        metrics.family(Metric::new(name, unit, help), move |tell| {
            seen.read(|survey| {
                for stream in &survey.streams {
                    if let Some(value) = of(stream) {
                        tell(&[("stream", stream.stream)], number(value));
                    }
                }
            });
        });
    }
    for (name, unit, help, of) in OF_READERS {
        let seen = seen.clone();
        metrics.family(Metric::new(name, unit, help), move |tell| {
            seen.read(|survey| {
                for reader in &survey.readers {
                    if let Some(value) = of(reader) {
                        let labels = [("stream", reader.stream), ("reader", &*reader.reader)];
                        tell(&labels, number(value));
                    }
                }
            });
        });
    }
}

/// Has read what the account keeps.
fn register_storage(metrics: &Metrics, seen: &Seen) {
    let tell = |of: fn(&Storage) -> u64| {
        let seen = seen.clone();
        move || {
            let mut found = None;
            seen.read(|survey| found = survey.storage.as_ref().map(|storage| number(of(storage))));
            found
        }
    };
    metrics.gauge(
        Metric::new(
            "fanfare.log.storage",
            "By",
            "Bytes that the account of NATS keeps on disk, in all its streams.",
        ),
        tell(|storage| storage.bytes),
    );
    metrics.gauge(
        Metric::new(
            "fanfare.log.storage.limit",
            "By",
            "Bytes that the account may keep; then every stream refuses. 0: it has no limit but the \
             servers' disks.",
        ),
        tell(|storage| storage.bytes_max.unwrap_or_default()),
    );
}

fn number(count: u64) -> f64 {
    as_f64(usize::try_from(count).unwrap_or(usize::MAX))
}
