//! The receiver's process, and what it is asked.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{receiver::Order, samples::Samples};

/// How often the receiver is asked how much has come, at first, and once that takes long.
const ASK_EVERY: Duration = Duration::from_millis(5);
const ASK_EVERY_LATER: Duration = Duration::from_millis(50);
/// How long that is.
const LATER: Duration = Duration::from_secs(15);

/// A running receiver. Dropping it ends it.
pub(crate) struct Receiver {
    child: Child,
    url: String,
    client: reqwest::Client,
}

/// What the receiver counts of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Requests that got what their path says.
    Taken,
    /// Requests that came too early or met a shut gate.
    Refused,
}

impl Counter {
    const fn name(self) -> &'static str {
        match self {
            Self::Taken => "count",
            Self::Refused => "refused",
        }
    }
}

impl Receiver {
    /// Starts one.
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "receiver"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the receiver")?;
        let stdout = child.stdout.take().context("the receiver's output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the receiver")?;
        let url = format!("http://{}", line.trim());
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, url, client })
    }

    /// Where it is, without a path.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Forgets everything; its time begins anew.
    pub(crate) async fn reset(&self) -> Result<()> {
        self.ask("/reset").await.map(drop)
    }

    /// Lets the gate of a group answer at once.
    pub(crate) async fn open(&self, group: &str) -> Result<()> {
        self.ask(&format!("/open/{group}")).await.map(drop)
    }

    /// Shuts the gate of a group: it wants to be asked again at that second since the epoch.
    pub(crate) async fn shut(&self, group: &str, retry_at: u64) -> Result<()> {
        self.ask(&format!("/shut/{group}/{retry_at}")).await.map(drop)
    }

    /// Lets the gate of a group answer after that long.
    pub(crate) async fn slow(&self, group: &str, wait: Duration) -> Result<()> {
        self.ask(&format!("/slow/{group}/{}", wait.as_millis())).await.map(drop)
    }

    /// Returns how many requests of a group there were.
    pub(crate) async fn counted(&self, counter: Counter, group: &str) -> Result<u64> {
        self.read(&format!("/{}/{group}", counter.name())).await
    }

    /// Returns the requests of a group.
    pub(crate) async fn samples(&self, group: &str) -> Result<Samples> {
        self.read(&format!("/samples/{group}")).await
    }

    /// Returns in which order the numbered events of a group came.
    pub(crate) async fn order(&self, group: &str) -> Result<Order> {
        self.read(&format!("/order/{group}")).await
    }

    /// Waits until that many requests of a group have come; fails after `patience`.
    pub(crate) async fn wait_for(
        &self,
        group: &str,
        requests: u64,
        patience: Duration,
    ) -> Result<()> {
        let counted = self.gather((Counter::Taken, group), requests, patience).await?;
        ensure!(
            counted >= requests,
            "the receiver got {counted} of {requests} requests in {patience:?}"
        );
        Ok(())
    }

    /// Waits until that many requests have come or patience ends, and returns how many came.
    pub(crate) async fn gather(
        &self,
        (counter, group): (Counter, &str),
        requests: u64,
        patience: Duration,
    ) -> Result<u64> {
        let begun = Instant::now();
        loop {
            let came = self.counted(counter, group).await?;
            if came >= requests || begun.elapsed() > patience {
                return Ok(came);
            }
            let long = begun.elapsed() > LATER;
            tokio::time::sleep(if long { ASK_EVERY_LATER } else { ASK_EVERY }).await;
        }
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_str(&self.ask(path).await?).context("read what the receiver says")
    }

    async fn ask(&self, path: &str) -> Result<String> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
