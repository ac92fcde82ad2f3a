//! What the process counts: one set of instruments, read by `/metrics` and pushed by OTLP.
//!
//! Most instruments *observe*: a service counts in atomics of its own, and is asked when somebody
//! reads. Only histograms are told of each value. Their lock and one addition are some 100 ns for
//! each reader (a debug build, two threads at once).
//!
//! **Names.** An instrument is called `fanfare.ingest.accepted`. In Prometheus that is
//! `fanfare_ingest_accepted_total`: counters end in `_total`, and `_seconds` and `_bytes` come from the
//! unit. No label is ever an id: what there is of each endpoint stands in the delivery log.

mod export;
mod own;

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider as _},
};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};
use prometheus::{Registry, TextEncoder};
use tokio::time::timeout;
use tracing::{debug, error};

use crate::{
    Joined,
    otlp::{ExportError, Instance},
};

/// The name of the meter, for those who get it by OTLP.
const SCOPE: &str = "fanfare";

/// How long the last push may take when the process ends.
const LAST_PUSH: Duration = Duration::from_secs(3);

/// Boundaries for what takes milliseconds when all is well, in seconds.
pub const SOON: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
    7_200.0,
];

/// Boundaries for what may take days, in seconds.
pub const EVENTUALLY: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0,
    21_600.0, 86_400.0, 259_200.0,
];

/// The instruments of a process. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Metrics {
    meter: Meter,
    provider: SdkMeterProvider,
    registry: Registry,
    /// Whether they are pushed somewhere.
    pushed: bool,
}

/// What a number is called, what it counts, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, words apart by points: `fanfare.dispatcher.past_due`.
    pub name: &'static str,
    /// `s`, `By`, or what is counted in braces: `{event}`.
    pub unit: &'static str,
    /// What it means, for people: one sentence.
    pub help: &'static str,
}

impl Metric {
    /// Describes a number.
    pub const fn new(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, unit, help }
    }
}

/// Says a number of a family, by the values of its labels.
pub type Tell<'a> = dyn FnMut(&[(&'static str, &str)], f64) + 'a;

/// Takes values one by one.
#[derive(Clone)]
pub struct Histogram(opentelemetry::metrics::Histogram<f64>);

/// For a process that pushes nothing, and for tests.
impl Default for Metrics {
    fn default() -> Self {
        Self::with(Resource::builder_empty().build(), |provider| provider)
    }
}

impl Metrics {
    /// Makes no instruments yet, and pushes them if the standard variables ask for that:
    /// `OTEL_METRICS_EXPORTER`, or an endpoint in `OTEL_EXPORTER_OTLP_ENDPOINT`.
    ///
    /// Must be called inside a Tokio runtime. The collector is not looked for: while it is away,
    /// nothing is pushed, and nothing waits for it.
    ///
    /// # Errors
    ///
    /// If the variables ask for what there is not.
    pub fn from_env(instance: &Instance) -> Result<Self, ExportError> {
        let Some(reader) = export::reader_from_env()? else { return Ok(Self::default()) };
        let metrics = Self::with(instance.resource(), |provider| provider.with_reader(reader));
        Ok(Self { pushed: true, ..metrics })
    }

    fn with(
        resource: Resource,
        readers: impl FnOnce(
            opentelemetry_sdk::metrics::MeterProviderBuilder,
        ) -> opentelemetry_sdk::metrics::MeterProviderBuilder,
    ) -> Self {
        let registry = Registry::new();
        let pull = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .expect("a new registry knows no names");
        let builder = SdkMeterProvider::builder().with_resource(resource).with_reader(pull);
        let provider = readers(builder).build();
        let metrics = Self { meter: provider.meter(SCOPE), provider, registry, pushed: false };
        let help = "Always 1: which version this process is of.";
        let build = Metric::new("fanfare.build_info", "", help);
        metrics.family(build, |tell| tell(&[("version", env!("CARGO_PKG_VERSION"))], 1.0));
        own::register(&metrics);
        metrics
    }

    /// Has a number read that only grows.
    pub fn counter(&self, metric: Metric, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let builder = self.meter.u64_observable_counter(metric.name);
        let builder = builder.with_description(metric.help).with_unit(metric.unit);
        builder.with_callback(move |observer| observer.observe(read(), &[])).build();
    }

    /// Has numbers read that only grow, one for each value of a label.
    pub fn counters(
        &self,
        metric: Metric,
        label: &'static str,
        read: impl Fn(&mut dyn FnMut(&'static str, u64)) + Send + Sync + 'static,
    ) {
        let builder = self.meter.u64_observable_counter(metric.name);
        let builder = builder.with_description(metric.help).with_unit(metric.unit);
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            read(&mut |value, count| observer.observe(count, &[KeyValue::new(label, value)]));
        };
        builder.with_callback(observe).build();
    }

    /// Has seconds read that only add up; there are none while it reads `None`.
    fn seconds(&self, metric: Metric, read: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        let builder = self.meter.f64_observable_counter(metric.name);
        let builder = builder.with_description(metric.help).with_unit(metric.unit);
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
            if let Some(seconds) = read() {
                observer.observe(seconds, &[]);
            }
        };
        builder.with_callback(observe).build();
    }

    /// Has read how many messages a service has on their way to the streams, and how many it may
    /// have: past that, whoever wants to write waits.
    pub fn writes(
        &self,
        writer: &'static str,
        under_way: impl Fn() -> usize + Send + Sync + 'static,
        limit: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        let help = "Messages on their way to the streams, by the service that writes them.";
        self.family(Metric::new("fanfare.writes", "{message}", help), move |tell| {
            tell(&[("writer", writer)], as_f64(under_way()));
        });
        let help = "Messages that a service may have on their way. At the limit it waits.";
        self.family(Metric::new("fanfare.writes.limit", "{message}", help), move |tell| {
            tell(&[("writer", writer)], as_f64(limit()));
        });
    }

    /// Has read how many connections to the database of the delivery log a service uses, and may use:
    /// past that, whoever wants to ask waits.
    pub fn database(
        &self,
        user: &'static str,
        levels: impl Fn() -> (usize, usize) + Clone + Send + Sync + 'static,
    ) {
        let help = "Connections to the database of the delivery log that are in use, by the service \
                    that uses them.";
        let metric = Metric::new("fanfare.delivery_log.connections", "{connection}", help);
        let in_use = levels.clone();
        self.family(metric, move |tell| tell(&[("user", user)], as_f64(in_use().0)));
        let help = "Connections that a service may use. At the limit, questions wait.";
        let metric = Metric::new("fanfare.delivery_log.connections.limit", "{connection}", help);
        self.family(metric, move |tell| tell(&[("user", user)], as_f64(levels().1)));
    }

    /// Has a number read that goes up and down; there is none while it reads `None`.
    pub fn gauge<N: Into<Option<f64>>>(
        &self,
        metric: Metric,
        read: impl Fn() -> N + Send + Sync + 'static,
    ) {
        self.family(metric, move |tell| {
            let value: Option<f64> = read().into();
            if let Some(value) = value {
                tell(&[], value);
            }
        });
    }

    /// Has a count read that goes up and down.
    pub fn level(&self, metric: Metric, read: impl Fn() -> usize + Send + Sync + 'static) {
        self.gauge(metric, move || as_f64(read()));
    }

    /// Has numbers read that go up and down, by labels.
    pub fn family(&self, metric: Metric, read: impl Fn(&mut Tell<'_>) + Send + Sync + 'static) {
        let builder = self.meter.f64_observable_gauge(metric.name);
        let builder = builder.with_description(metric.help).with_unit(metric.unit);
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
            read(&mut |labels, value| {
                let label = |(name, value): &(&'static str, &str)| {
                    KeyValue::new(*name, String::from(*value))
                };
                observer.observe(value, &labels.iter().map(label).collect::<Vec<_>>());
            });
        };
        builder.with_callback(observe).build();
    }

    /// Makes a histogram with these boundaries.
    pub fn histogram(&self, metric: Metric, boundaries: &[f64]) -> Histogram {
        let builder = self.meter.f64_histogram(metric.name);
        let builder = builder.with_description(metric.help).with_unit(metric.unit);
        Histogram(builder.with_boundaries(boundaries.to_vec()).build())
    }

    /// Returns every number in the text format of Prometheus.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|cause| {
            error!(%cause, "the metrics cannot be written down");
            String::new()
        })
    }

    /// Pushes what was not pushed yet, for some seconds at most. Nothing is pushed afterwards.
    pub async fn shut_down(self) {
        if !self.pushed {
            return;
        }
        let provider = self.provider;
        // It waits for the collector by itself, and for longer.
        let ending = tokio::task::spawn_blocking(move || provider.shutdown());
        match timeout(LAST_PUSH, ending).await.map(Joined::joined) {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(cause))) => debug!(%cause, "the last metrics were not pushed"),
            Ok(Err(cause)) => debug!(%cause, "the last metrics were not pushed"),
            Err(_elapsed) => debug!("the last metrics were not pushed in time"),
        }
    }
}

impl Histogram {
    /// Takes a value.
    pub fn record(&self, value: f64) {
        self.0.record(value, &[]);
    }

    /// Takes a time.
    pub fn time(&self, time: Duration) {
        self.record(time.as_secs_f64());
    }

    /// Takes a count.
    pub fn count(&self, count: usize) {
        self.record(as_f64(count));
    }
}

/// A count as metrics have it: exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "a count beyond 2⁵³ may be off by one")]
pub fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    const fn metric(name: &'static str, unit: &'static str) -> Metric {
        Metric::new(name, unit, "What it means.")
    }

    #[test]
    fn what_is_counted_is_read_when_it_is_asked_for() {
        let (metrics, count) = (Metrics::default(), Arc::new(AtomicU64::new(0)));
        let read = Arc::clone(&count);
        metrics.counter(metric("fanfare.some.events", "{event}"), move || {
            read.load(Ordering::Relaxed)
        });
        metrics.counters(metric("fanfare.some.refused", "{event}"), "reason", |tell| {
            tell("late", 2);
            tell("large", 0);
        });
        metrics.gauge(metric("fanfare.some.age", "s"), || Some(1.5));
        metrics.gauge(metric("fanfare.some.absent", "s"), || None::<f64>);
        metrics.level(metric("fanfare.some.held", "By"), || 7);
        count.store(3, Ordering::Relaxed);
        let text = metrics.text();
        for line in [
            "# HELP fanfare_some_events_total What it means.",
            "# TYPE fanfare_some_events_total counter",
            "fanfare_some_events_total 3",
            "fanfare_some_refused_total{reason=\"late\"} 2",
            "fanfare_some_refused_total{reason=\"large\"} 0",
            "fanfare_some_age_seconds 1.5",
            "fanfare_some_held_bytes 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(text.contains("fanfare_build_info{version=\""), "{text}");
        assert!(!text.contains("absent") && !text.contains("otel_scope"), "{text}");
        count.store(4, Ordering::Relaxed);
        assert!(metrics.text().contains("fanfare_some_events_total 4"));
    }

    #[test]
    fn a_histogram_has_the_boundaries_that_it_was_given() {
        let metrics = Metrics::default();
        let times = metrics.histogram(metric("fanfare.some.time", "s"), &[0.5, 2.0]);
        times.time(Duration::from_millis(200));
        times.record(1.0);
        times.count(9);
        let text = metrics.text();
        for line in [
            "fanfare_some_time_seconds_bucket{le=\"0.5\"} 1",
            "fanfare_some_time_seconds_bucket{le=\"2\"} 2",
            "fanfare_some_time_seconds_bucket{le=\"+Inf\"} 3",
            "fanfare_some_time_seconds_count 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn several_services_may_tell_parts_of_one_family() {
        let metrics = Metrics::default();
        for service in ["a", "b"] {
            metrics.family(metric("fanfare.some.revision", ""), move |tell| {
                tell(&[("service", service)], 5.0);
            });
        }
        let text = metrics.text();
        let lines = text.lines().filter(|line| line.starts_with("fanfare_some_revision{"));
        assert_eq!(lines.count(), 2, "{text}");
    }
}
