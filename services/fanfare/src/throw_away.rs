//! A throw-away system: `fanfare up` as a child process on a temporary directory.
//!
//! It lives as long as its standard input is open. So it ends in order when it is dropped, and also
//! when this process dies in whatever way.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{client::api::Api, up::Running};

/// How long the system may take to start.
const START: Duration = Duration::from_mins(2);
/// How long the system may take to end.
const END: Duration = Duration::from_mins(1);
/// How long dropping waits for the end, in steps of a millisecond, before it kills.
const DROP_STEPS: u32 = 5_000;
/// How many lines of the system's log are shown if it does not start.
const LOG_LINES: usize = 5;

/// A running system. Dropping it ends it; [`ThrowAway::stop`] also says whether it ended well.
pub(crate) struct ThrowAway {
    child: Child,
    /// The system ends when this is closed.
    stdin: Option<ChildStdin>,
    /// Kept, so that nothing it says later fails.
    _stdout: BufReader<ChildStdout>,
    running: Running,
    data: PathBuf,
    log: PathBuf,
    // Goes last: the processes write into it.
    _directory: TempDir,
}

impl ThrowAway {
    /// Starts a system. `settings` is TOML with a table for each service, `options` are further ones
    /// of `up`. It exports nothing, whatever the variables of this process say.
    pub(crate) async fn start(
        nats_server: &Path,
        settings: &str,
        options: &[&str],
    ) -> Result<Self> {
        Self::start_with(nats_server, settings, (options, &[])).await
    }

    /// The same, with variables.
    pub(crate) async fn start_with(
        nats_server: &Path,
        settings: &str,
        (options, variables): (&[&str], &[(&str, String)]),
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("fanfare-").tempdir();
        let directory = directory.context("make a temporary directory")?;
        let settings_file = directory.path().join("settings.toml");
        std::fs::write(&settings_file, settings).context("write the settings")?;
        let data = directory.path().join("data");
        let log = directory.path().join("up.log");
        let stderr = std::fs::File::create(&log).context("make the system's log")?;
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        // What is set for another system must not reach this one.
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("FANFARE_") || name.starts_with("OTEL_")
        }) {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut child = command
            .args(["--json", "up", "--stop-with-stdin", "--nats-port", "0"])
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(&settings_file)
            .arg("--data")
            .arg(&data)
            .arg("--nats-server")
            .arg(nats_server)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Ctrl-C is for this process, which then ends that one.
            .process_group(0)
            .spawn()
            .context("start the system")?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().context("the output is piped")?);
        let running = match timeout(START, hello(&mut stdout)).await {
            Ok(Ok(running)) => running,
            Ok(Err(_)) => bail!("the system did not start: {}", last_lines(&log)),
            Err(_) => bail!("the system did not start within {START:?}: {}", last_lines(&log)),
        };
        Ok(Self { child, stdin, _stdout: stdout, running, data, log, _directory: directory })
    }

    /// Returns where everything is.
    pub(crate) const fn running(&self) -> &Running {
        &self.running
    }

    /// Returns the data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Returns its API, with the operator's key.
    pub(crate) fn api(&self) -> Result<Api> {
        let path = self.data.join("operator.key");
        let key = std::fs::read_to_string(&path);
        Api::new(&self.running.api, key.with_context(|| format!("read {}", path.display()))?.trim())
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        let ended = timeout(END, self.child.wait()).await;
        let status = ended.context("the system does not end")?.context("wait for its end")?;
        ensure!(status.success(), "the system ended with {status}: {}", last_lines(&self.log));
        Ok(())
    }
}

impl Drop for ThrowAway {
    fn drop(&mut self) {
        drop(self.stdin.take());
        for _ in 0..DROP_STEPS {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It may have ended just now.
        let _gone = self.child.start_kill();
    }
}

async fn hello(stdout: &mut BufReader<ChildStdout>) -> Result<Running> {
    let mut line = String::new();
    stdout.read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
}
