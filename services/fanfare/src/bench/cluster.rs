//! A system of several processes: nats-server, and each service by itself, some more than once.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_nats_server::{Server, ServerOptions, TerminalSignals};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{
    lab::Lab,
    process::resident_bytes,
    service::Said,
    system::{Site, TENANT},
};
use crate::{cli::Service, client::api::Api, data_dir::DataDir};

/// How long a service may take to begin, and to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a cluster is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How many shards there are.
    pub(crate) shards: u32,
    /// How many requests each dispatcher may have in flight.
    pub(crate) in_flight: usize,
}

/// A service's process.
struct Process {
    service: Service,
    child: Child,
    pid: u32,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// A running cluster. Dropping it ends it.
pub(crate) struct Cluster {
    processes: Vec<Process>,
    server: Server,
    plan: Plan,
    profiles: PathBuf,
    site: Site,
    // Goes last: the processes write into it.
    directory: TempDir,
}

impl Cluster {
    /// Starts NATS, one of each service but the dispatcher, and makes the tenant [`TENANT`].
    pub(crate) async fn start(lab: &Lab, plan: Plan) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("fanfare-").tempdir();
        let directory = directory.context("make a temporary directory")?;
        let data = DataDir::new(&directory.path().join("data"));
        data.prepare()?;
        let server = ServerOptions {
            data_dir: Some(data.nats()),
            terminal_signals: TerminalSignals::Shielded,
            ..ServerOptions::default()
        };
        let server = Server::start(&lab.binary, server).await.context("start nats-server")?;
        let key = fs::read_to_string(data.operator_key()).context("read the operator's key")?;
        let mut cluster = Self {
            processes: Vec::new(),
            server,
            plan,
            profiles: lab.profiles().to_owned(),
            // Nowhere, until the API says where it listens.
            site: Site::new(Api::new("http://127.0.0.1:0", key.trim())?),
            directory,
        };
        // The first one makes the streams.
        let api = cluster.add(Service::Api).await?.context("the API says where it listens")?;
        cluster.site = Site::new(Api::new(&api, key.trim())?);
        for service in [Service::Ingest, Service::FanOut, Service::RetryScheduler] {
            cluster.add(service).await?;
        }
        cluster.site.tenant(TENANT, None).await?;
        Ok(cluster)
    }

    /// Its API.
    pub(crate) const fn site(&self) -> &Site {
        &self.site
    }

    /// Where its NATS is.
    pub(crate) fn nats(&self) -> String {
        self.server.client_url()
    }

    /// Starts one more of a service. Returns the API's URL, if it is that.
    pub(crate) async fn add(&mut self, service: Service) -> Result<Option<String>> {
        let number = self.processes.len();
        let path = self.directory.path().join(format!("{number}-{}", service.name()));
        let config = path.with_extension("toml");
        fs::write(&config, self.settings(service)).context("write the settings")?;
        let log = path.with_extension("log");
        let stderr = fs::File::create(&log).context("make a service's log")?;
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        // What is set for another system must not reach this one.
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("FANFARE_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["bench", "service", service.name(), "--config"])
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start a service")?;
        let pid = child.id().context("the service runs")?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("the output is piped")?);
        let mut process = Process { service, child, pid, stdin, stdout };
        match timeout(PATIENCE, process.hear()).await {
            Ok(Ok(Said::Begun { api })) => {
                self.processes.push(process);
                Ok(api)
            }
            Ok(Ok(Said::Ready { .. }) | Err(_)) | Err(_) => {
                let told = fs::read_to_string(&log).unwrap_or_default();
                bail!("{} did not start: {}", service.name(), told.trim());
            }
        }
    }

    /// Waits until the process that was started last is ready, for so long at most. Returns how
    /// long that took from its start; `None` if it is not: a dispatcher without shards never is.
    pub(crate) async fn ready(&mut self, patience: Duration) -> Result<Option<Duration>> {
        let process = self.processes.last_mut().context("there is a process")?;
        match timeout(patience, process.hear()).await {
            Ok(Ok(Said::Ready { after_ms })) => Ok(Some(Duration::from_millis(after_ms))),
            Ok(Ok(Said::Begun { .. })) => bail!("a service begins twice"),
            Ok(Err(error)) => Err(error.context("a service ended")),
            Err(_) => Ok(None),
        }
    }

    /// Ends all processes of a service in order.
    pub(crate) async fn remove(&mut self, service: Service) -> Result<()> {
        let (gone, kept) = self.processes.drain(..).partition(|process| process.service == service);
        self.processes = kept;
        for process in gone {
            process.end().await?;
        }
        Ok(())
    }

    /// Every process, nats-server included.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let services = self.processes.iter().map(|process| process.pid);
        services.chain(self.server.pid()).collect()
    }

    /// The resident memory of each process, nats-server last.
    pub(crate) fn memory(&self) -> Result<Vec<(&'static str, u64)>> {
        let services = self.processes.iter().map(|process| (process.service.name(), process.pid));
        let all = services.chain(self.server.pid().map(|pid| ("nats-server", pid)));
        all.map(|(name, pid)| Ok((name, resident_bytes(pid)?))).collect()
    }

    /// Ends everything in order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        for service in Service::ALL {
            self.remove(service).await?;
        }
        self.server.stop().await.context("stop nats-server")
    }

    fn settings(&self, service: Service) -> String {
        let data = self.directory.path().join("data");
        let key = data.join("sealing.key");
        let (key, profiles) = (key.display(), self.profiles.display());
        let in_flight = self.plan.in_flight;
        let own = match service {
            Service::Ingest | Service::RetryScheduler => format!("profiles_dir = '{profiles}'\n"),
            Service::FanOut => String::new(),
            Service::Projector => {
                let file = self.directory.path().join("delivery-log.sqlite");
                format!("database = 'sqlite:{}'\n", file.display())
            }
            Service::Dispatcher => format!(
                "profiles_dir = '{profiles}'\nsealing_key_file = '{key}'\n\
                 in_flight_max = {in_flight}\n\
                 [egress]\nallow = \"127.0.0.0/8\"\nidle_max_per_host = {in_flight}\n"
            ),
            Service::Api => format!(
                "profiles_dir = '{profiles}'\nsealing_key_file = '{key}'\n\
                 operator_key_file = '{}'\nlisten = \"127.0.0.1:0\"\nallow = \"127.0.0.0/8\"\n",
                data.join("operator.key").display()
            ),
        };
        let (url, shards) = (self.nats(), self.plan.shards);
        format!("{own}[log]\nurl = '{url}'\nshards = {shards}\n")
    }
}

impl Process {
    /// The next thing that it says.
    async fn hear(&mut self) -> Result<Said> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.context("a service does not end")?.context("wait for its end")?;
        ensure!(status.success(), "{} ended with {status}", self.service.name());
        Ok(())
    }
}
