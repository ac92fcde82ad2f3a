//! Pushing by OTLP, if the standard variables ask for it.
//!
//! A thread of its own reads the instruments and pushes them, once a minute unless
//! `OTEL_METRIC_EXPORT_INTERVAL` says otherwise. A collector that is away or slow holds up that
//! thread and nothing else.

use std::env;

use opentelemetry::KeyValue;
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, Temporality},
};

use crate::random_bytes;

/// The variables, of which OTLP's own ones are read where the exporter is made.
const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_METRICS_EXPORTER";
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const SERVICE: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The standard variables ask for what there is not.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An exporter that is not known.
    #[error("{EXPORTER} is {name}, and can be otlp, prometheus or none")]
    ExporterUnknown {
        /// What was asked for.
        name: String,
    },
    /// A protocol that is not spoken.
    #[error("{variable} is {name}, and can be grpc")]
    ProtocolUnknown {
        /// Where it was asked for.
        variable: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The address of the collector, or what else OTLP's variables say, makes no sense.
    #[error("the variables OTEL_EXPORTER_OTLP_* cannot be used")]
    Unusable(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// Returns what pushes, if anything is to be pushed.
pub(super) fn reader_from_env() -> Result<Option<PeriodicReader<MetricExporter>>, ExportError> {
    let variable = |name: &str| env::var_os(name).and_then(|text| text.into_string().ok());
    if !is_wanted(variable)? {
        return Ok(None);
    }
    let exporter = MetricExporter::builder()
        .with_tonic()
        .with_temporality(Temporality::Cumulative)
        .build()
        .map_err(ExportError::Unusable)?;
    Ok(Some(PeriodicReader::builder(exporter).build()))
}

/// Returns who the metrics come from: `fanfare-<service>`, unless the variables say otherwise.
pub(super) fn resource(service: &str) -> Resource {
    let is_named = env::var_os(SERVICE).is_some()
        || env::var_os(ATTRIBUTES)
            .is_some_and(|text| text.to_string_lossy().contains("service.name="));
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new(
            "service.instance.id",
            format!("{:016x}", u64::from_be_bytes(random_bytes())),
        ),
    ]);
    if is_named {
        return builder.build();
    }
    builder.with_service_name(format!("fanfare-{service}")).build()
}

/// Tells whether metrics are to be pushed.
fn is_wanted(variable: impl Fn(&str) -> Option<String>) -> Result<bool, ExportError> {
    // An empty variable is as good as none, says the specification.
    let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
    if variable(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    let wanted = match variable(EXPORTER) {
        None => ENDPOINTS.into_iter().any(|name| variable(name).is_some()),
        Some(names) => {
            let mut wanted = false;
            for name in names.split(',').map(str::trim) {
                match name {
                    "otlp" => wanted = true,
                    // Those who ask get it, whatever the variables say.
                    "none" | "prometheus" => {}
                    _ => return Err(ExportError::ExporterUnknown { name: String::from(name) }),
                }
            }
            wanted
        }
    };
    let protocol = PROTOCOLS.into_iter().find_map(|name| Some((name, variable(name)?)));
    match protocol.filter(|(_, name)| wanted && name != "grpc") {
        Some((variable, name)) => Err(ExportError::ProtocolUnknown { variable, name }),
        None => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(variables: &[(&str, &str)]) -> Result<bool, ExportError> {
        is_wanted(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, text)| String::from(*text))
        })
    }

    #[test]
    fn nothing_is_pushed_unless_it_is_asked_for() {
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[("OTEL_METRICS_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")],
            &[("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "otlp")],
            &[("OTEL_METRICS_EXPORTER", "prometheus")],
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
            &[("OTEL_TRACES_EXPORTER", "otlp")],
        ] {
            assert!(!wanted(variables).unwrap(), "{variables:?}");
        }
        for variables in [
            &[("OTEL_METRICS_EXPORTER", "otlp")][..],
            &[("OTEL_METRICS_EXPORTER", "prometheus, otlp")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")],
            &[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://a:4317")],
            &[("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        ] {
            assert!(wanted(variables).unwrap(), "{variables:?}");
        }
    }

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        for (variables, word) in [
            (&[("OTEL_METRICS_EXPORTER", "console")][..], "console"),
            (
                &[
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ],
                "http/protobuf",
            ),
        ] {
            assert!(wanted(variables).unwrap_err().to_string().contains(word), "{variables:?}");
        }
    }
}
