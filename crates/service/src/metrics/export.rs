//! Pushing by OTLP, if the standard variables ask for it.
//!
//! A thread of its own reads the instruments and pushes them, once a minute unless
//! `OTEL_METRIC_EXPORT_INTERVAL` says otherwise. A collector that is away or slow holds up that
//! thread and nothing else.

use opentelemetry_otlp::{MetricExporter, WithHttpConfig as _};
use opentelemetry_sdk::metrics::{PeriodicReader, Temporality};

use crate::otlp::{ExportError, OnRuntime, Protocol, Signal, variable};

/// The variables, of which OTLP's own ones are read where the exporter is made.
const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    // Those who ask get it, whatever the variables say.
    others: &["prometheus"],
};

/// Returns what pushes, if anything is to be pushed.
pub(super) fn reader_from_env() -> Result<Option<PeriodicReader<MetricExporter>>, ExportError> {
    let builder = MetricExporter::builder().with_temporality(Temporality::Cumulative);
    let exporter = match METRICS.wanted(variable)? {
        None => return Ok(None),
        Some(Protocol::Grpc) => builder.with_tonic().build(),
        Some(Protocol::Http) => builder.with_http().with_http_client(OnRuntime::new()?).build(),
    };
    let exporter = exporter.map_err(ExportError::Unusable)?;
    Ok(Some(PeriodicReader::builder(exporter).build()))
}
