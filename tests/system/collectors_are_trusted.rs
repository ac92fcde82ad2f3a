//! Over TLS, a collector has to be who the variables say, and gets our certificate if it asks for one.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use fanfare_testkit::{
    receiver::{Behaviour, Certificate, Receiver, Transport},
    wait_until,
};
use serde_json::json;

use crate::support::{
    Hooks,
    spans::taken,
    up::{Up, number},
};

/// How a protocol says that a body is compressed, and where it puts spans.
struct Spoken {
    protocol: &'static str,
    encoding: &'static str,
    path: &'static str,
    answer: Behaviour,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_over_grpc_is_trusted_and_knows_us() -> Result<()> {
    exported(Spoken {
        protocol: "grpc",
        encoding: "grpc-encoding",
        path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        answer: taken(),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_over_http_is_trusted_and_knows_us() -> Result<()> {
    exported(Spoken {
        protocol: "http/protobuf",
        encoding: "content-encoding",
        path: "/v1/traces",
        answer: Behaviour::status(200),
    })
    .await
}

fn written(directory: &Path, name: &str, text: &str) -> Result<String> {
    let path = directory.join(name);
    fs::write(&path, text).context("write a file")?;
    Ok(path.display().to_string())
}

/// Spans go to a collector that we trust and that asks for a certificate; metrics go to another one, which
/// somebody else vouches for, and never come there.
async fn exported(spoken: Spoken) -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let file = |name: &str, text: &str| written(directory.path(), name, text);
    let trusted = Receiver::start_with(Transport::Mutual(Certificate::Valid)).await?;
    let stranger = Receiver::start_with(Transport::Tls(Certificate::Valid)).await?;
    trusted.answer(spoken.answer);
    let authority = file("authority.pem", trusted.authority().context("an authority")?)?;
    let client = trusted.client().context("a client")?;
    let (certificate, key) =
        (file("client.pem", &client.certificate)?, file("client.key", &client.key)?);
    let traces = match spoken.protocol {
        "grpc" => trusted.url(""),
        _ => trusted.url(spoken.path),
    };
    let up = Up::start(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &traces),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &stranger.url("")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", spoken.protocol),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &authority),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
    ])
    .await?;
    let hooks = Hooks::start().await?;
    up.api.tenant("acme", "standard-webhooks").await?;
    let new = json!({ "url": hooks.url("/good"), "event_types": [">"] });
    up.api.endpoint("acme", &new).await?;
    up.api.publish("acme", "some.thing", "{}", "key").await?;
    wait_until("spans to be taken, and the stranger to be tried", async || {
        let text = up.text().await.map_err(|error| format!("{error:#}"))?;
        let exported = number(&text, "fanfare_traces_spans_total{outcome=\"exported\"}");
        // The request, the taking in, the matching, the delivery and the attempt.
        let is_well = exported.is_some_and(|exported| exported >= 5.0);
        let tried = stranger.connections();
        if is_well && tried > 0 { Ok(()) } else { Err(format!("{exported:?}, {tried}")) }
    })
    .await;
    let requests = trusted.requests();
    let mut spans = requests.iter().filter(|request| request.path == spoken.path);
    assert!(spans.any(|request| request.header(spoken.encoding) == Some("gzip")), "{requests:?}");
    assert_eq!(stranger.count(), 0, "a stranger gets nothing");
    up.end().await
}
