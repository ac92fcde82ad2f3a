//! Spans on their way to a collector.
//!
//! A service that has finished something says so in a [`Span`], which goes into a queue and is sent
//! from there, a batch at a time. Nothing waits: what finds the queue full is dropped and counted.
//! Without a collector nothing is sampled, no span is made, and nothing is computed.
//!
//! The spans of events are made whole, with ids that follow from what they are about, and not by
//! `tracing`: `tracing-opentelemetry` draws ids by chance, so that a span could not be known to the
//! service that makes the next one, nor made again. It is used where a span is only our own, that
//! of a request to the API: see [`requests`].

mod convert;
mod export;
pub mod requests;
mod series;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{
    TraceContext,
    trace::{Place, Sampler, span::Span},
};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

pub use export::Exporter;

use self::{export::Client, series::Series};
use crate::{
    ExportError, Metric, Metrics,
    otlp::{self, Collector, Instance, PATIENCE, Protocol, Signal, TlsVariables, variable},
    random_bytes,
};

/// The variables, of which OTLP's own ones are read where the exporter is made.
const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    timeout: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    insecure: "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    tls: TlsVariables {
        authorities: ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", otlp::AUTHORITIES],
        certificate: ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", otlp::CERTIFICATE],
        key: ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", otlp::KEY],
    },
    others: &[],
};
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";

/// The most spans that a queue or a batch may be told to hold.
const SPANS_MAX: usize = 1_000_000;

/// Where finished spans go. Cheap to clone; clones share the queue. The default is nowhere.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Shared>>);

struct Shared {
    sampler: Sampler,
    queue: mpsc::Sender<Item>,
    counts: Arc<Counts>,
}

/// A span on its way: boxed, so that an empty place in the queue is small.
enum Item {
    /// One of an event's.
    Event(Box<Span>),
    /// One that `tracing` made.
    Own(Box<SpanData>),
    /// Several, which are made when their turn comes.
    Series(Box<Series>),
}

#[derive(Default)]
struct Counts {
    exported: AtomicU64,
    /// There was no room in the queue.
    dropped: AtomicU64,
    /// The collector did not take them, or not in time.
    refused: AtomicU64,
    /// How many are still to be made of what is in the queue.
    in_series: AtomicUsize,
}

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    queue_max: usize,
    batch_max: usize,
    delay: Duration,
}

/// More than the specification's 2,048: fan-out finishes thousands of spans at once.
impl Default for Pace {
    fn default() -> Self {
        Self { queue_max: 16_384, batch_max: 512, delay: Duration::from_secs(5) }
    }
}

impl Traces {
    /// Exports nothing, unless the standard variables ask for it: `OTEL_TRACES_EXPORTER`, or an
    /// endpoint in `OTEL_EXPORTER_OTLP_ENDPOINT`. The exporter has to be run for anything to be
    /// sent: see [`Context::export_traces`](crate::Context::export_traces).
    ///
    /// Must be called inside a Tokio runtime. The collector is not looked for.
    ///
    /// # Errors
    ///
    /// If the variables ask for what there is not.
    pub fn from_env(instance: &Instance) -> Result<(Self, Option<Exporter>), ExportError> {
        let Some(collector) = TRACES.collector(variable)? else {
            return Ok((Self::default(), None));
        };
        let given = |name| variable(name).filter(|text| !text.trim().is_empty());
        let sampler = match given(SAMPLER) {
            Some(name) => Sampler::named(name.trim(), given(SAMPLER_ARGUMENT).as_deref())?,
            None => Sampler::default(),
        };
        let (traces, exporter) = Self::over(collector, sampler, Pace::read(given)?, instance)?;
        Ok((traces, Some(exporter)))
    }

    /// Exports to this address by HTTP, whatever the variables say of it.
    ///
    /// # Errors
    ///
    /// If the address is none.
    pub fn to(address: &str, service: &str) -> Result<(Self, Exporter), ExportError> {
        let collector = Collector::at(Protocol::Http, String::from(address), PATIENCE);
        Self::over(collector, Sampler::default(), Pace::default(), &Instance::of(service))
    }

    fn over(
        collector: Collector,
        sampler: Sampler,
        pace: Pace,
        instance: &Instance,
    ) -> Result<(Self, Exporter), ExportError> {
        let client = Client::new(collector, instance)?;
        let (queue, coming) = mpsc::channel(pace.queue_max);
        let counts = Arc::<Counts>::default();
        let exporter = Exporter::new(client, coming, pace, Arc::clone(&counts));
        Ok((Self(Some(Arc::new(Shared { sampler, queue, counts }))), exporter))
    }

    /// Tells whether anything is exported at all.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells whether the spans of a place are exported.
    pub fn samples(&self, place: &Place) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.sampler.samples(place))
    }

    /// Returns what a caller said of its trace, but with our own decision on whether it is sampled, by
    /// chance: the caller has picked the trace's id. What it said, where nothing is exported: then others
    /// decide.
    pub fn decide_on(&self, said: TraceContext) -> TraceContext {
        match &self.0 {
            Some(shared) => said.decided(shared.sampler.draws(u64::from_be_bytes(random_bytes()))),
            None => said,
        }
    }

    /// Sends a span on its way, whatever the sampler says. It is made only if there is room for it.
    pub fn export(&self, make: impl FnOnce() -> Span) {
        self.offer(1, || Item::Event(Box::new(make())));
    }

    /// Sends so many spans on their way, in one place of the queue: they are made when their turn
    /// comes, beside all work. With a collector that hangs that is never: what `make` returns is
    /// kept until then, so it holds what the spans say, and no event.
    pub fn export_all<S>(&self, count: usize, make: impl FnOnce() -> S)
    where
        S: Iterator<Item = Span> + Send + 'static,
    {
        let Some(shared) = &self.0 else { return };
        let counts = &shared.counts;
        if !Series::has_room(counts, count, shared.queue.max_capacity()) {
            return counts.drop_some(count);
        }
        let series = || Series::new(Arc::clone(counts), count, Box::new(make()));
        self.offer(count, || Item::Series(Box::new(series())));
    }

    /// Puts something that stands for so many spans into the queue, if there is room.
    fn offer(&self, count: usize, item: impl FnOnce() -> Item) {
        let Some(shared) = &self.0 else { return };
        match shared.queue.try_reserve() {
            Ok(room) => room.send(item()),
            Err(_) => shared.counts.drop_some(count),
        }
    }

    /// Names what is counted.
    pub fn register(&self, metrics: &Metrics) {
        let counts = self.0.as_ref().map(|shared| Arc::clone(&shared.counts)).unwrap_or_default();
        let in_series = Arc::clone(&counts);
        let metric = Metric::new(
            "fanfare.traces.spans",
            "{span}",
            "Spans that were exported, dropped because the queue was full, or not taken by the \
             collector.",
        );
        metrics.counters(metric, "outcome", move |tell| {
            tell("exported", counts.exported.load(Ordering::Relaxed));
            tell("dropped", counts.dropped.load(Ordering::Relaxed));
            tell("refused", counts.refused.load(Ordering::Relaxed));
        });
        // Whoever only reads does not keep the queue open.
        let shared = self.0.as_ref().map(Arc::downgrade).unwrap_or_default();
        let read = move |of: fn(&mpsc::Sender<Item>) -> usize| {
            let shared = Weak::clone(&shared);
            move || shared.upgrade().map_or(0, |shared| of(&shared.queue))
        };
        let help = "Places that are taken in the queue of spans to be exported: by a span each, or by all \
                    those of one event's deliveries.";
        let metric = Metric::new("fanfare.traces.queue", "{span}", help);
        metrics.level(metric, read(|queue| queue.max_capacity() - queue.capacity()));
        let help = "Places that there are (OTEL_BSP_MAX_QUEUE_SIZE); what finds none is dropped. 0: no \
                    collector.";
        let metric = Metric::new("fanfare.traces.queue.limit", "{span}", help);
        metrics.level(metric, read(mpsc::Sender::max_capacity));
        let help = "Spans of events and their deliveries that are still to be made.";
        let metric = Metric::new("fanfare.traces.series", "{span}", help);
        metrics.level(metric, move || in_series.in_series.load(Ordering::Relaxed));
        let help = "Spans that may wait to be made, four for each place in the queue; more are dropped, \
                    but a single event may have more. 0: no collector.";
        let metric = Metric::new("fanfare.traces.series.limit", "{span}", help);
        metrics.level(metric, read(|queue| queue.max_capacity().saturating_mul(4)));
    }
}

impl Counts {
    fn drop_some(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

impl Pace {
    fn read(given: impl Fn(&'static str) -> Option<String>) -> Result<Self, ExportError> {
        let number = |variable, default: usize| match given(variable) {
            None => Ok(default),
            Some(text) => match text.trim().parse::<usize>() {
                Ok(number) if number > 0 => Ok(number.min(SPANS_MAX)),
                Ok(_) | Err(_) => Err(ExportError::NotANumber { variable, text }),
            },
        };
        let default = Self::default();
        let millis = usize::try_from(default.delay.as_millis()).unwrap_or(usize::MAX);
        let delay = number(DELAY, millis)?;
        Ok(Self {
            queue_max: number(QUEUE, default.queue_max)?,
            batch_max: number(BATCH, default.batch_max)?,
            delay: Duration::from_millis(u64::try_from(delay).unwrap_or(u64::MAX)),
        })
    }
}
