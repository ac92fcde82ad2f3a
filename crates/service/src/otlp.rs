//! Whether OTLP is spoken, how, and as whom: what the standard variables say of every signal.
//!
//! What is exported is read and sent beside the work. A collector that is away or slow holds up
//! that, and nothing else.

mod http;

use std::{env, ffi::OsString, time::Duration};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;

pub(crate) use http::OnRuntime;

use crate::random_bytes;

const DISABLED: &str = "OTEL_SDK_DISABLED";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const SERVICE: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// How long a collector may take over a batch, unless the variables say otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What is exported.
pub(crate) struct Signal {
    /// The variable that names exporters.
    pub(crate) exporter: &'static str,
    /// The variable with its own address; [`ENDPOINT`] holds for all.
    pub(crate) endpoint: &'static str,
    /// The variable with its own protocol; [`PROTOCOL`] holds for all.
    pub(crate) protocol: &'static str,
    /// The variable with its own time-out; [`TIMEOUT`] holds for all.
    pub(crate) timeout: &'static str,
    /// Names of exporters that need no OTLP.
    pub(crate) others: &'static [&'static str],
}

/// How it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC.
    Grpc,
    /// Protocol buffers over HTTP.
    Http,
}

/// Where it is sent, and how.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    /// How.
    pub(crate) protocol: Protocol,
    /// Where, if not where the variables say.
    pub(crate) address: Option<String>,
    /// How long it may take over a batch, connecting and repeating included.
    pub(crate) patience: Duration,
}

/// The standard variables ask for what there is not.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An exporter that is not known.
    #[error("{variable} is {name}, and can be {known}")]
    ExporterUnknown {
        /// Where it was asked for.
        variable: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A protocol that is not spoken.
    #[error("{variable} is {name}, and can be grpc or http/protobuf")]
    ProtocolUnknown {
        /// Where it was asked for.
        variable: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A sampler that there is not.
    #[error("OTEL_TRACES_SAMPLER")]
    Sampler(#[from] fanfare_domain::trace::SamplerError),
    /// A number that is none.
    #[error("{variable} is {text}, and must be a whole number from 1 on")]
    NotANumber {
        /// Where it was asked for.
        variable: &'static str,
        /// What was asked for.
        text: String,
    },
    /// There is no HTTP client to send with.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// The address of the collector, or what else OTLP's variables say, makes no sense.
    #[error("the variables OTEL_EXPORTER_OTLP_* cannot be used")]
    Unusable(#[source] ExporterBuildError),
}

/// Reads a variable of the process.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(OsString::into_string).and_then(Result::ok)
}

impl Collector {
    /// Tells an exporter where to send, and how long that may take.
    pub(crate) fn configure<B: WithExportConfig>(&self, exporter: B) -> B {
        let exporter = exporter.with_timeout(self.patience);
        match &self.address {
            Some(address) => exporter.with_endpoint(address),
            None => exporter,
        }
    }

    /// Makes what sends over HTTP. Must be called inside a Tokio runtime.
    pub(crate) fn http_client(&self) -> Result<OnRuntime, ExportError> {
        OnRuntime::new(self.patience)
    }
}

impl Signal {
    /// Returns where it is to be exported, if it is.
    pub(crate) fn collector(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Collector>, ExportError> {
        let Some(protocol) = self.wanted(&variable)? else { return Ok(None) };
        let patience = self.patience(variable)?;
        Ok(Some(Collector { protocol, address: None, patience }))
    }

    /// Returns how long a collector may take.
    fn patience(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Duration, ExportError> {
        for name in [self.timeout, TIMEOUT] {
            let Some(text) = variable(name).filter(|text| !text.trim().is_empty()) else {
                continue;
            };
            return match text.trim().parse() {
                Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
                Ok(_) | Err(_) => Err(ExportError::NotANumber { variable: name, text }),
            };
        }
        Ok(PATIENCE)
    }

    fn wanted(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Protocol>, ExportError> {
        // An empty variable is as good as none, says the specification.
        let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        if variable(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let wanted = match variable(self.exporter) {
            None => [self.endpoint, ENDPOINT].into_iter().any(|name| variable(name).is_some()),
            Some(names) => self.names_otlp(&names)?,
        };
        if !wanted {
            return Ok(None);
        }
        let protocol =
            [self.protocol, PROTOCOL].into_iter().find_map(|name| Some((name, variable(name)?)));
        match protocol {
            None => Ok(Some(Protocol::Grpc)),
            Some((variable, name)) => match name.trim() {
                "grpc" => Ok(Some(Protocol::Grpc)),
                "http/protobuf" => Ok(Some(Protocol::Http)),
                _ => Err(ExportError::ProtocolUnknown { variable, name }),
            },
        }
    }

    fn names_otlp(&self, names: &str) -> Result<bool, ExportError> {
        let mut wanted = false;
        for name in names.split(',').map(str::trim) {
            if name == "otlp" {
                wanted = true;
            } else if name != "none" && !self.others.contains(&name) {
                let known = [&["otlp", "none"], self.others].concat().join(", ");
                let (variable, name) = (self.exporter, String::from(name));
                return Err(ExportError::ExporterUnknown { variable, name, known });
            }
        }
        Ok(wanted)
    }
}

/// Returns who it comes from: `fanfare-<service>`, unless the variables say otherwise.
pub(crate) fn resource(service: &str) -> Resource {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNAL: Signal = Signal {
        exporter: "OTEL_METRICS_EXPORTER",
        endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
        others: &["prometheus"],
    };

    fn wanted(variables: &[(&str, &str)]) -> Result<Option<Protocol>, ExportError> {
        SIGNAL.wanted(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, text)| String::from(*text))
        })
    }

    #[test]
    fn nothing_is_exported_unless_it_is_asked_for() {
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[("OTEL_METRICS_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")],
            &[("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "otlp")],
            &[("OTEL_METRICS_EXPORTER", "prometheus")],
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
            &[("OTEL_TRACES_EXPORTER", "otlp")],
        ] {
            assert_eq!(wanted(variables).unwrap(), None, "{variables:?}");
        }
        for variables in [
            &[("OTEL_METRICS_EXPORTER", "otlp")][..],
            &[("OTEL_METRICS_EXPORTER", "prometheus, otlp")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")],
            &[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://a:4317")],
            &[("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        ] {
            assert_eq!(wanted(variables).unwrap(), Some(Protocol::Grpc), "{variables:?}");
        }
    }

    #[test]
    fn a_signals_own_protocol_goes_before_that_of_all() {
        let (all, own) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL");
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a");
        let http = wanted(&[endpoint, (all, "http/protobuf")]).unwrap();
        assert_eq!(http, Some(Protocol::Http));
        let grpc = wanted(&[endpoint, (all, "http/protobuf"), (own, "grpc")]).unwrap();
        assert_eq!(grpc, Some(Protocol::Grpc));
    }

    #[test]
    fn a_signals_own_time_out_goes_before_that_of_all() {
        let patience = |variables: &[(&str, &str)]| {
            SIGNAL.patience(|name| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, text)| String::from(*text))
            })
        };
        let (all, own) = (TIMEOUT, "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT");
        assert_eq!(patience(&[(own, " ")]).unwrap(), PATIENCE);
        assert_eq!(patience(&[(all, "70")]).unwrap(), Duration::from_millis(70));
        assert_eq!(patience(&[(all, "70"), (own, "8")]).unwrap(), Duration::from_millis(8));
        for bad in ["0", "10s", "-1"] {
            let error = patience(&[(all, bad)]).unwrap_err().to_string();
            assert!(error.contains(all), "{error}");
        }
    }

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        for (variables, word) in [
            (&[("OTEL_METRICS_EXPORTER", "console")][..], "console"),
            (
                &[
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                ],
                "http/json",
            ),
        ] {
            assert!(wanted(variables).unwrap_err().to_string().contains(word), "{variables:?}");
        }
    }
}
