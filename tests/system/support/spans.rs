//! A collector of spans: what services export by OTLP, as a test can ask for it.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use fanfare_testkit::{
    receiver::{Behaviour, Receiver, Reply},
    wait_until,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1 as otlp,
};
use prost::Message as _;

/// What a collector answers in gRPC: an empty message, and all is well.
pub(crate) fn taken() -> Behaviour {
    let reply = Reply::new(200).header("content-type", "application/grpc");
    Behaviour::Reply(reply.header("grpc-status", "0").body(vec![0; 5]))
}

/// A span that was exported.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    /// Who exported it.
    pub(crate) service: String,
    /// Its name.
    pub(crate) name: String,
    /// Its trace, its own id, and that of the span above it; hexadecimal.
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    /// Trace and span of each link.
    pub(crate) links: Vec<(String, String)>,
    /// Its attributes, as text.
    pub(crate) attributes: BTreeMap<String, String>,
    /// The names of its events.
    pub(crate) events: Vec<String>,
    /// When it began and ended, in nanoseconds.
    pub(crate) times: (u64, u64),
    /// Whether it is said to have failed, and what is said of why.
    pub(crate) failed: bool,
    pub(crate) why: String,
}

/// Takes spans over HTTP.
pub(crate) struct Collector(Receiver);

impl Collector {
    /// Starts one.
    pub(crate) async fn start() -> Result<Self> {
        Receiver::start().await.map(Self)
    }

    /// The variables by which a process exports to it.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (String::from(name), value);
        let url = self.0.url("");
        vec![
            pair("OTEL_EXPORTER_OTLP_ENDPOINT", String::from(url.trim_end_matches('/'))),
            pair("OTEL_EXPORTER_OTLP_PROTOCOL", String::from("http/protobuf")),
            pair("OTEL_METRICS_EXPORTER", String::from("none")),
            pair("OTEL_BSP_SCHEDULE_DELAY", String::from("50")),
        ]
    }

    /// Everything that has come so far, as it came: paths and bodies.
    pub(crate) fn bodies(&self) -> Vec<(String, Bytes)> {
        let requests = self.0.requests();
        requests.iter().map(|request| (request.path.clone(), request.body.clone())).collect()
    }

    /// What has come so far.
    pub(crate) fn spans(&self) -> Vec<Exported> {
        let requests = self.0.requests();
        let ours = requests.iter().filter(|request| request.path == "/v1/traces");
        let bodies = ours.map(|request| ExportTraceServiceRequest::decode(request.body.clone()));
        bodies.filter_map(Result::ok).flat_map(spans).collect()
    }

    /// Waits until so many spans of that name have come; returns all that have.
    pub(crate) async fn have(&self, wanted: &[(&str, usize)]) -> Vec<Exported> {
        wait_until("spans to come", async || {
            let spans = self.spans();
            let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
            let missing: Vec<_> = wanted
                .iter()
                .filter(|(name, number)| count(name) < *number)
                .map(|(name, number)| format!("{} of {number} {name}", count(name)))
                .collect();
            if missing.is_empty() { Ok(spans) } else { Err(missing) }
        })
        .await
    }
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Exported> {
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let about = resource.resource.map(|resource| texts(&resource.attributes));
        let service = about.and_then(|about| about.get("service.name").cloned());
        let service = service.unwrap_or_default();
        for scope in resource.scope_spans {
            spans.extend(scope.spans.into_iter().map(|span| exported(&service, span)));
        }
    }
    spans
}

fn exported(service: &str, span: otlp::Span) -> Exported {
    let link =
        |link: &otlp::span::Link| (HEXLOWER.encode(&link.trace_id), HEXLOWER.encode(&link.span_id));
    Exported {
        service: String::from(service),
        trace: HEXLOWER.encode(&span.trace_id),
        id: HEXLOWER.encode(&span.span_id),
        parent: HEXLOWER.encode(&span.parent_span_id),
        links: span.links.iter().map(link).collect(),
        attributes: texts(&span.attributes),
        events: span.events.into_iter().map(|event| event.name).collect(),
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        failed: span.status.as_ref().is_some_and(|status| status.code == 2),
        why: span.status.map(|status| status.message).unwrap_or_default(),
        name: span.name,
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| {
        let text = match pair.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            other @ (Value::BoolValue(_)
            | Value::DoubleValue(_)
            | Value::ArrayValue(_)
            | Value::KvlistValue(_)
            | Value::BytesValue(_)
            | Value::StringValueStrindex(_)) => format!("{other:?}"),
        };
        Some((pair.key.clone(), text))
    };
    attributes.iter().filter_map(text).collect()
}
