//! The system under test: `fanfare up` as a child on a temporary directory, with a tenant and its
//! endpoints.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::Options;
use crate::{client::api::Api, up::Running};

/// The tenant of all events.
pub(crate) const TENANT: &str = "bench";

/// A running system. Ends when dropped.
pub(crate) struct System {
    child: Child,
    running: Running,
    api: Api,
    // Goes last: the processes write into it.
    _directory: TempDir,
}

impl System {
    /// Starts a system with that many endpoints, all at the receiver.
    pub(crate) async fn start(options: &Options, nats_server: &Path, receiver: &str, endpoints: u64) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let settings = directory.path().join("settings.toml");
        std::fs::write(&settings, settings_text(options)).context("write the settings")?;
        let data = directory.path().join("data");
        let mut child = Command::new(std::env::current_exe().context("find this program")?)
            .args(["--json", "up", "--nats-port", "0", "--listen", "127.0.0.1:0", "--config"])
            .arg(&settings)
            .arg("--data")
            .arg(&data)
            .arg("--nats-server")
            .arg(nats_server)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the system")?;
        let stdout = child.stdout.take().context("the system's output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the system")?;
        let running: Running = serde_json::from_str(&line).context("the system did not start")?;
        let key = std::fs::read_to_string(data.join("operator.key")).context("read the key")?;
        let api = Api::new(&running.api, key.trim())?;
        let system = Self { child, running, api, _directory: directory };
        system.make_endpoints(options, receiver, endpoints).await?;
        Ok(system)
    }

    async fn make_endpoints(&self, options: &Options, receiver: &str, count: u64) -> Result<()> {
        self.api.post("/v1/tenants", &json!({ "id": TENANT })).await.context("make a tenant")?;
        let path = format!("/v1/tenants/{TENANT}/endpoints");
        for number in 0..count {
            let endpoint = json!({
                "url": format!("{receiver}/{number}"),
                "event_types": [">"],
                "concurrency": options.in_flight,
            });
            self.api.post(&path, &endpoint).await.context("make an endpoint")?;
        }
        Ok(())
    }

    /// Where its NATS is.
    pub(crate) fn nats(&self) -> &str {
        &self.running.nats
    }

    /// Its processes: the services, and nats-server.
    pub(crate) fn pids(&self) -> Result<[u32; 2]> {
        Ok([self.running.pid, self.running.nats_pid.context("the system runs its own NATS")?])
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("stop the system")?;
        let status = self.child.wait().context("wait for the system's end")?;
        ensure!(status.success(), "the system ended with {status}");
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Only where `stop` was not reached; the child may be gone already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// As many requests in flight as the floors have, and endpoints on this machine.
fn settings_text(options: &Options) -> String {
    format!(
        "[dispatcher]\nin_flight_max = {0}\n[dispatcher.egress]\nidle_max_per_host = {0}\n",
        options.in_flight
    )
}
