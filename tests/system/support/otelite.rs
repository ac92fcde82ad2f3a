//! A real backend for traces: otelite, which takes OTLP and is asked over an API of its own.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use fanfare_testkit::wait_until;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::binary::packages_dir;

/// The version that the test knows how to ask.
const VERSION: &str = "0.1.156";
/// How often other ports are tried.
const TRIES: u32 = 5;
/// How long a request to it may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A running backend. Dropping it kills it.
pub(crate) struct Otelite {
    _child: Child,
    api: String,
    grpc: u16,
    http: u16,
    client: reqwest::Client,
    _directory: TempDir,
}

impl Otelite {
    /// Starts it if it is on this machine; `None` after saying what is skipped.
    pub(crate) async fn start(what: &str) -> Result<Option<Self>> {
        let root = packages_dir()?.join(format!("otelite-{VERSION}"));
        let binary = root.join("bin/otelite");
        if !binary.is_file() {
            // Not the macro: what that writes is shown for failing tests only.
            writeln!(
                std::io::stderr(),
                "SKIPPED: {what}: there is no otelite: cargo install --locked --debug --version \
                 {VERSION} --root {} otelite",
                root.display(),
            )?;
            return Ok(None);
        }
        fanfare_service::install_crypto_provider();
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        for _ in 0..TRIES {
            let directory = tempfile::tempdir().context("make a directory")?;
            let [rest, grpc, http] = free_ports()?;
            let mut command = Command::new(&binary);
            command.args(["serve", "--addr", &format!("127.0.0.1:{rest}")]);
            command.env("OTELITE_OTLP_GRPC_PORT", grpc.to_string());
            command.env("OTELITE_OTLP_HTTP_PORT", http.to_string());
            command.env("OTELITE_DATA_DIR", directory.path()).env("HOME", directory.path());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.kill_on_drop(true).spawn().context("start otelite")?;
            let api = format!("http://127.0.0.1:{rest}");
            let lives = wait_until("otelite to answer", async || {
                // Somebody else may have taken one of its ports.
                if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                    return Ok(false);
                }
                let answer = client.get(format!("{api}/api/health")).send().await;
                answer.map(|_| true).map_err(|error| error.to_string())
            })
            .await;
            if lives {
                let (_child, _directory) = (child, directory);
                return Ok(Some(Self { _child, api, grpc, http, client, _directory }));
            }
        }
        bail!("otelite does not start")
    }

    /// The variables by which a process exports to it, over gRPC.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (String::from(name), value);
        vec![
            pair("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", self.grpc)),
            pair("OTEL_METRICS_EXPORTER", String::from("none")),
            pair("OTEL_BSP_SCHEDULE_DELAY", String::from("50")),
        ]
    }

    /// Where spans are sent to over HTTP.
    pub(crate) fn traces_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/traces", self.http)
    }

    /// The spans of a trace, as it tells of them, once there are so many.
    pub(crate) async fn spans(&self, trace: &str, wanted: usize) -> Vec<Value> {
        wait_until("the backend to have the trace", async || {
            let answer = self.client.get(format!("{}/api/traces/{trace}", self.api)).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            let body: Value = answer.json().await.map_err(|error| error.to_string())?;
            let spans = body["spans"].as_array().cloned().unwrap_or_default();
            if spans.len() >= wanted { Ok(spans) } else { Err(format!("{body:#}")) }
        })
        .await
    }
}

/// Ports that were free a moment ago.
fn free_ports() -> Result<[u16; 3]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a port");
    let listeners = [listen()?, listen()?, listen()?];
    let port = |listener: &TcpListener| Ok::<_, anyhow::Error>(listener.local_addr()?.port());
    let [one, two, three] = &listeners;
    Ok([port(one)?, port(two)?, port(three)?])
}
