//! Whether OTLP is spoken, how, and as whom: what the standard variables say of every signal.
//!
//! What is exported is read and sent beside the work. A collector that is away or slow holds up
//! that, and nothing else.

mod http;
mod tls;

use std::{env, ffi::OsString, io, path::PathBuf, time::Duration};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;

pub(crate) use self::{
    http::OnRuntime,
    tls::{Tls, Variables as TlsVariables},
};

use crate::random_bytes;

const DISABLED: &str = "OTEL_SDK_DISABLED";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const INSECURE: &str = "OTEL_EXPORTER_OTLP_INSECURE";
/// Who may vouch for the collector, our own certificate and its key: files, for all signals.
pub(crate) const AUTHORITIES: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
pub(crate) const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
pub(crate) const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";
const SERVICE: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// How long a collector may take over a batch, unless the variables say otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// As whom a process speaks to collectors: one for all signals, so that what it counts and what it does
/// are found together.
#[derive(Clone, Debug)]
pub struct Instance(Resource);

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
    /// The variable that says whether an address without a protocol is spoken to without TLS;
    /// [`INSECURE`] holds for all.
    pub(crate) insecure: &'static str,
    /// The variables that say who is who over TLS.
    pub(crate) tls: TlsVariables,
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
    /// Who is who over TLS.
    tls: Tls,
    /// Whether it is spoken to over TLS.
    is_over_tls: bool,
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
    /// A file that cannot be read.
    #[error("the file {path} that {variable} names cannot be read")]
    FileUnreadable {
        /// Where it is named.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A file that holds something else.
    #[error("what {variable} names, with its key if it has one, is nothing of use in PEM")]
    NotPem {
        /// Where it is named.
        variable: &'static str,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("{variable} is set alone: a client's certificate and its key belong together")]
    HalfAnIdentity {
        /// What there is.
        variable: &'static str,
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
    /// One at this address, of which nothing else is known.
    pub(crate) fn at(protocol: Protocol, address: String, patience: Duration) -> Self {
        let is_over_tls = is_over_tls(&address, false);
        Self { protocol, address: Some(address), patience, tls: Tls::default(), is_over_tls }
    }

    /// Tells an exporter that speaks gRPC where to send, how long that may take, and whom to trust.
    pub(crate) fn configure_grpc<B: WithExportConfig + WithTonicConfig>(&self, exporter: B) -> B {
        let exporter = self.configure(exporter);
        if self.is_over_tls { exporter.with_tls_config(self.tls.over_grpc()) } else { exporter }
    }

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
        OnRuntime::new(self.patience, &self.tls)
    }
}

impl Signal {
    /// Returns where it is to be exported, if it is.
    pub(crate) fn collector(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Collector>, ExportError> {
        let Some(protocol) = self.wanted(&variable)? else { return Ok(None) };
        let (patience, tls) = (self.patience(&variable)?, Tls::read(&self.tls, &variable)?);
        let is_over_tls = self.is_over_tls(variable);
        Ok(Some(Collector { protocol, address: None, patience, tls, is_over_tls }))
    }

    /// Tells whether the collector that the variables name is spoken to over TLS.
    fn is_over_tls(&self, variable: impl Fn(&str) -> Option<String>) -> bool {
        let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let first = |names: [&str; 2]| names.into_iter().find_map(variable);
        let insecure = first([self.insecure, INSECURE]);
        let insecure = insecure.is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
        first([self.endpoint, ENDPOINT]).is_some_and(|address| is_over_tls(&address, insecure))
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

/// Tells whether an address is spoken to over TLS. One that names no protocol is, unless it is said not to
/// be.
fn is_over_tls(address: &str, insecure: bool) -> bool {
    match address.trim().split_once("://") {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("https"),
        None => !insecure,
    }
}

impl Instance {
    /// Speaks as `fanfare-<service>`, with a number of its own and our version, unless the variables
    /// say otherwise.
    pub fn of(service: &str) -> Self {
        Self(resource(service))
    }

    /// The same, as exporters take it.
    pub(crate) fn resource(&self) -> Resource {
        self.0.clone()
    }
}

fn resource(service: &str) -> Resource {
    let given = variable(ATTRIBUTES).unwrap_or_default();
    let is_named = variable(SERVICE).is_some_and(|name| !name.is_empty());
    let instance = format!("{:016x}", u64::from_be_bytes(random_bytes()));
    let name = format!("fanfare-{service}");
    let own = [
        ("service.name", Some(name).filter(|_| !is_named)),
        ("service.version", Some(String::from(env!("CARGO_PKG_VERSION")))),
        ("service.instance.id", Some(instance)),
    ];
    let own = own.into_iter().filter(|(key, _)| !gives(&given, key));
    let own = own.filter_map(|(key, value)| Some(KeyValue::new(key, value?)));
    Resource::builder().with_attributes(own).build()
}

/// Tells whether text of the form `key=value,…` has a key.
fn gives(attributes: &str, key: &str) -> bool {
    let mut pairs = attributes.split(',').filter_map(|pair| pair.split_once('='));
    pairs.any(|(own, _)| own.trim() == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNAL: Signal = Signal {
        exporter: "OTEL_METRICS_EXPORTER",
        endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
        insecure: "OTEL_EXPORTER_OTLP_METRICS_INSECURE",
        tls: TlsVariables {
            authorities: ["OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", AUTHORITIES],
            certificate: ["OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", CERTIFICATE],
            key: ["OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", KEY],
        },
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
    fn tls_is_spoken_where_the_address_says_so_or_says_nothing() {
        let is_over_tls = |variables: &[(&str, &str)]| {
            SIGNAL.is_over_tls(|name| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, text)| String::from(*text))
            })
        };
        let own = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        for (variables, expected) in [
            (&[][..], false),
            (&[(ENDPOINT, "http://a:4317")], false),
            (&[(ENDPOINT, "HTTPS://a:4317")], true),
            (&[(ENDPOINT, "https://a:4317"), (own, "http://a:4317")], false),
            (&[(ENDPOINT, "a:4317")], true),
            (&[(ENDPOINT, "a:4317"), (INSECURE, "true")], false),
            (&[(ENDPOINT, "https://a:4317"), (INSECURE, "true")], true),
        ] {
            assert_eq!(is_over_tls(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn what_attributes_give_is_not_ours_to_say() {
        let given = "deployment.environment.name=a, service.instance.id=pod-1,x=service.name=y";
        for (key, is_given) in
            [("service.instance.id", true), ("service.name", false), ("service.version", false)]
        {
            assert_eq!(gives(given, key), is_given, "{key}");
        }
        assert!(!gives("", "service.name") && gives("service.name=", "service.name"));
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
