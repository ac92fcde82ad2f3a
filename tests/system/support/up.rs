//! `fanfare up`: everything in one process, as people try it, and what it tells of itself.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::wait_until;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{Api, binary};

/// How long it may take to start, and to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `fanfare up`.
pub(crate) struct Up {
    child: Child,
    pub(crate) api: Api,
    metrics: String,
    client: reqwest::Client,
    _directory: TempDir,
}

impl Up {
    /// Starts it, with these variables.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Result<Self> {
        fanfare_service::install_crypto_provider();
        let directory = tempfile::tempdir().context("make a directory")?;
        let data = directory.path().join("data");
        let settings = directory.path().join("up.toml");
        fs::write(&settings, "[log]\nstream_bytes_max = 1073741824\n").context("write settings")?;
        let mut command = Command::new(binary::fanfare().await?);
        command.arg("--json").arg("--data").arg(&data).args(["up", "--stop-with-stdin"]);
        command.args(["--nats-port", "0", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
        command.arg("--config").arg(&settings).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("an output")?).lines();
        let line = timeout(PATIENCE, lines.next_line()).await??.context("it says where it is")?;
        let running: Value = serde_json::from_str(&line)?;
        let place = |name: &str| running[name].as_str().map(String::from).context("a place");
        let key = fs::read_to_string(data.join("operator.key")).context("read the key")?;
        let mut api = Api::new(key.trim())?;
        api.set_address(place("api")?.trim_start_matches("http://"));
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, api, metrics: place("metrics")?, client, _directory: directory })
    }

    /// Asks those who answer without a key; returns the status and the body.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String)> {
        let answer = self.client.get(format!("{}{path}", self.metrics)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// All metrics.
    pub(crate) async fn text(&self) -> Result<String> {
        Ok(self.get("/metrics").await?.1)
    }

    /// Waits until every number is as expected.
    pub(crate) async fn tells(&self, expected: &[(&str, f64)]) {
        wait_until("the metrics to tell what happened", async || {
            let text = self.text().await.map_err(|error| vec![format!("{error:#}")])?;
            let differs = |(series, value): &(&str, f64)| {
                let found = number(&text, series);
                (found != Some(*value)).then(|| format!("{series} {found:?}, not {value}"))
            };
            let wrong: Vec<_> = expected.iter().filter_map(differs).collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        })
        .await;
    }

    /// Ends it in order.
    pub(crate) async fn end(mut self) -> Result<()> {
        // Waiting closes its standard input first, and that ends it in order.
        let status = timeout(PATIENCE, self.child.wait()).await.context("it runs on")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

/// The number of a series.
pub(crate) fn number(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.find(|(name, _)| *name == series).and_then(|(_, value)| value.parse().ok())
}
