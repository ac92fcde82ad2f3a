//! A service as a process of its own.

use std::{
    collections::BTreeMap,
    fmt,
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a service may take to end in order.
const STOP: Duration = Duration::from_secs(30);

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    /// Takes events from producers.
    Ingest,
    /// Matches events with endpoints.
    FanOut,
    /// Makes the attempts.
    Dispatcher,
    /// Keeps retries until their time.
    RetryScheduler,
    /// Answers REST requests.
    Api,
    /// Keeps the delivery log. Nothing that delivers needs it: it runs only where a test asks.
    Projector,
}

impl Service {
    /// Every service that delivering needs.
    pub(crate) const ALL: [Self; 5] =
        [Self::Ingest, Self::FanOut, Self::Dispatcher, Self::RetryScheduler, Self::Api];

    /// The name, as `fanfare run` takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::FanOut => "fan-out",
            Self::Dispatcher => "dispatcher",
            Self::RetryScheduler => "retry-scheduler",
            Self::Api => "api",
            Self::Projector => "projector",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A running service. Dropping it kills it.
pub(crate) struct Process {
    service: Service,
    child: Mutex<Child>,
}

impl Process {
    /// Starts a service. What it says is appended to the file `log`.
    pub(crate) fn start(
        binary: &Path,
        service: Service,
        settings: &BTreeMap<String, String>,
        log: &Path,
    ) -> Result<Self> {
        Self::start_with(binary, service, (settings, &[]), log)
    }

    /// The same, with variables beside the settings.
    pub(crate) fn start_with(
        binary: &Path,
        service: Service,
        (settings, variables): (&BTreeMap<String, String>, &[(String, String)]),
        log: &Path,
    ) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        let errors = output.try_clone().context("share a log file")?;
        let mut command = Command::new(binary);
        command.arg("run").arg(service.name());
        for (key, value) in settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        if service == Service::Projector {
            // Tests ask it where it is before they kill it.
            command.args(["--metrics", "127.0.0.1:0"]);
        }
        // What is set around the tests must not reach the services.
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("FANFARE_") || name.starts_with("OTEL_")
        }) {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("start {service}"))?;
        Ok(Self { service, child: Mutex::new(child) })
    }

    /// Kills the process with SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(self) -> Result<()> {
        let Self { service, child } = self;
        let mut child = child.into_inner().unwrap_or_else(PoisonError::into_inner);
        child.start_kill().with_context(|| format!("kill {service}"))?;
        child.wait().await.with_context(|| format!("wait for {service}"))?;
        Ok(())
    }

    /// Asks the process to end, and waits until it has, in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let Self { service, child } = self;
        let mut child = child.into_inner().unwrap_or_else(PoisonError::into_inner);
        match timeout(STOP, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => bail!("{service} ended with {status}"),
            Ok(Err(error)) => Err(error).with_context(|| format!("wait for {service}")),
            Err(_) => bail!("{service} did not end within {STOP:?}"),
        }
    }

    /// Waits until the process has ended by itself; tells whether it says that all was well.
    pub(crate) async fn ended(self) -> Result<bool> {
        let Self { service, child } = self;
        let mut child = child.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ended = timeout(STOP, child.wait()).await;
        let status = ended.with_context(|| format!("{service} runs on"))?;
        Ok(status.with_context(|| format!("wait for {service}"))?.success())
    }

    /// Freezes the process: its connections stay open and nothing answers.
    pub(crate) fn suspend(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Fails if the process has ended by itself.
    pub(crate) fn check_alive(&self) -> Result<()> {
        match self.child().try_wait().with_context(|| format!("look at {}", self.service))? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself with {status}", self.service),
        }
    }

    /// The resident memory of the process, in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let pid = self.child().id().with_context(|| format!("{} has ended", self.service))?;
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kibibytes: u64 = kibibytes.context("find the memory")?.trim().parse()?;
        Ok(kibibytes * 1_024)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child().id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.with_context(|| format!("{} has ended", self.service))?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.service))
    }
}

/// The file that a service's log goes to.
pub(crate) fn log_file(directory: &Path, service: Service) -> PathBuf {
    directory.join(format!("{service}.log"))
}
