//! An installation of a test's own: a nats-server and every service as a process.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use data_encoding::HEXLOWER;
use fanfare_domain::ShardCount;
use fanfare_event_log::{Durability, EventLog};
use fanfare_service::random_bytes;
use fanfare_testkit::{NatsCluster, NatsServer, wait_until};
use tempfile::TempDir;

use super::{
    api::Api,
    binary,
    logs::{self, Level},
    process::{Process, Service, log_file},
    servers::{Count, Servers},
};

/// The networks of this machine alone, as a setting.
const LOOPBACK: &str = "127.0.0.0/8,::1/128";

/// The files of the keys, in the installation's directory.
const SEALING_KEY: &str = "sealing.key";
const OPERATOR_KEY: &str = "operator.key";
/// The file of the delivery log there.
const DELIVERY_LOG: &str = "delivery-log.sqlite";

/// A profile like `standard-webhooks`, but without a circuit breaker: every first attempt is made at
/// once, however many fail.
pub(crate) const EAGER: &str = "eager";
/// The same, with which an endpoint's history goes when it is deleted.
pub(crate) const ERASING: &str = "erasing";
/// Where the services find them.
const PROFILES: &str = "profiles";

/// How an installation differs from the ordinary one of a test.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What the services promise; the servers are set up to keep it.
    pub(crate) durability: Durability,
    /// How many servers there are; each keeps every stream.
    pub(crate) servers: Count,
    /// How many shards there are.
    pub(crate) shards: u16,
    /// The profile of a scene's tenant.
    pub(crate) profile: &'static str,
    /// How long the servers know an id again.
    pub(crate) duplicate_window: Duration,
    /// How long the server waits for a message to be settled before it hands it out again.
    pub(crate) ack_wait: Duration,
    /// Whether endpoints may be on this machine: for the API.
    pub(crate) api_allows_loopback: bool,
    /// Whether endpoints may be on this machine: for the dispatcher.
    pub(crate) dispatcher_allows_loopback: bool,
    /// Variables that the services get beside their settings.
    pub(crate) variables: Vec<(String, String)>,
    /// Where the delivery log is; a file of SQLite without.
    pub(crate) database: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Process,
            servers: Count::One,
            shards: 4,
            profile: "standard-webhooks",
            duplicate_window: Duration::from_secs(1),
            ack_wait: Duration::from_secs(5),
            api_allows_loopback: true,
            dispatcher_allows_loopback: true,
            variables: Vec::new(),
            database: None,
        }
    }
}

/// What the services may have said by the end of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Nothing above INFO.
    Calm,
    /// Warnings and errors about what a test did to them: servers and services that were killed.
    Turmoil,
}

/// A running installation. Everything ends with it; a test that gets to its end calls
/// [`Installation::finish`], and otherwise the ends of the logs are shown, and all of them kept if
/// `FANFARE_TEST_KEEP` is set.
pub(crate) struct Installation {
    processes: BTreeMap<Service, Process>,
    servers: Servers,
    api: Api,
    binary: PathBuf,
    options: Options,
    directory: TempDir,
    finished: bool,
}

impl Installation {
    /// Starts an ordinary installation.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts a server and all services, and waits until they run and the API is ready.
    pub(crate) async fn start_with(options: Options) -> Result<Self> {
        fanfare_service::install_crypto_provider();
        let binary = binary::fanfare().await?;
        let directory = tempfile::tempdir().context("make a directory")?;
        let hex = HEXLOWER.encode(&random_bytes::<32>());
        let key = format!("fk_{}", HEXLOWER.encode(&random_bytes::<32>()));
        fs::create_dir(directory.path().join("logs")).context("make a directory")?;
        fs::write(directory.path().join(SEALING_KEY), hex).context("write a key")?;
        fs::write(directory.path().join(OPERATOR_KEY), &key).context("write a key")?;
        write_profiles(&directory.path().join(PROFILES))?;
        let servers = Servers::start(options.servers, options.durability).await?;
        let api = Api::new(&key)?;
        let processes = BTreeMap::new();
        let mut installation =
            Self { processes, servers, api, binary, options, directory, finished: false };
        installation.provision().await?;
        installation.start_all().await?;
        installation.all_run().await?;
        Ok(installation)
    }

    /// Makes the streams where the services may not.
    async fn provision(&self) -> Result<()> {
        if let Servers::Locked(locked) = &self.servers {
            locked.bootstrap(&self.common()).await?;
        }
        Ok(())
    }

    /// What all services are told of the streams.
    fn common(&self) -> BTreeMap<String, String> {
        let millis = |span: Duration| format!("{}ms", span.as_millis());
        let pairs = [
            ("log.shards", self.options.shards.to_string()),
            ("log.duplicate_window", millis(self.options.duplicate_window)),
            ("log.ack_wait", millis(self.options.ack_wait)),
        ];
        pairs.map(|(key, value)| (String::from(key), value)).into()
    }

    /// Starts every service that does not run, and waits until the API is ready.
    pub(crate) async fn start_all(&mut self) -> Result<()> {
        for service in Service::ALL {
            if !self.processes.contains_key(&service) {
                self.launch(service)?;
            }
        }
        self.api_ready().await
    }

    /// Starts a service that does not run. The API is ready when this returns; the others are
    /// not waited for.
    pub(crate) async fn start_service(&mut self, service: Service) -> Result<()> {
        self.launch(service)?;
        if service == Service::Api { self.api_ready().await } else { Ok(()) }
    }

    /// Kills a service with SIGKILL.
    pub(crate) async fn kill(&mut self, service: Service) -> Result<()> {
        self.running(service)?.kill().await
    }

    /// Asks a service to end, and waits until it has.
    pub(crate) async fn stop(&mut self, service: Service) -> Result<()> {
        self.running(service)?.stop().await
    }

    /// The resident memory of a service, in bytes.
    pub(crate) fn memory(&self, service: Service) -> Result<u64> {
        self.processes.get(&service).with_context(|| format!("{service} does not run"))?.memory()
    }

    /// Starts another process of a service, which is the test's to end.
    pub(crate) fn another(&self, service: Service) -> Result<Process> {
        let log = self.logs().join(format!("{service}-another.log"));
        Process::start(&self.binary, service, &self.settings(service), &log)
    }

    /// Takes a service out of the installation: it is the test's to end.
    pub(crate) fn take(&mut self, service: Service) -> Result<Process> {
        self.running(service)
    }

    /// The only server, to kill or restart it.
    pub(crate) fn nats(&mut self) -> &mut fanfare_nats_server::Server {
        self.servers.one_mut().server()
    }

    /// The only server as the testkit knows it, to look into its streams.
    pub(crate) fn server(&self) -> &NatsServer {
        self.servers.one()
    }

    /// The three servers.
    pub(crate) fn cluster(&mut self) -> &mut NatsCluster {
        self.servers.three()
    }

    /// All servers, however many.
    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// All servers, to kill or restart them.
    pub(crate) fn servers_mut(&mut self) -> &mut Servers {
        &mut self.servers
    }

    /// Where the servers are.
    pub(crate) fn nats_url(&self) -> String {
        self.servers.url()
    }

    /// The API. A clone stays good over restarts.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// Where the logs are.
    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.path().join("logs")
    }

    /// Opens the event log with the settings of the services.
    pub(crate) async fn log(&self) -> Result<EventLog> {
        let settings = fanfare_event_log::Settings {
            duplicate_window: self.options.duplicate_window,
            ack_wait: self.options.ack_wait,
            shards: ShardCount::new(self.options.shards)?,
            durability: self.options.durability,
            system_url: Some(self.servers.system_url()),
            ..self.servers.log_settings()
        };
        EventLog::open("test", &settings).await.context("open the event log")
    }

    /// Checks that all processes are still there and have said nothing unexpected, and ends them.
    pub(crate) async fn finish(mut self, expected: Expected) -> Result<()> {
        self.check_alive()?;
        for service in Service::ALL {
            if self.processes.contains_key(&service) {
                self.stop(service).await?;
            }
        }
        if expected == Expected::Calm {
            self.check_calm()?;
        }
        self.finished = true;
        Ok(())
    }

    /// Fails if a service has ended by itself.
    pub(crate) fn check_alive(&self) -> Result<()> {
        self.processes.values().try_for_each(Process::check_alive)
    }

    fn check_calm(&self) -> Result<()> {
        for path in logs::files(&self.logs())? {
            for line in logs::read(&path)? {
                ensure!(line.level == Level::Normal, "{}: {}", path.display(), line.text);
            }
        }
        Ok(())
    }

    fn launch(&mut self, service: Service) -> Result<()> {
        ensure!(!self.processes.contains_key(&service), "{service} runs already");
        let log = log_file(&self.logs(), service);
        let settings = (&self.settings(service), &*self.options.variables);
        let process = Process::start_with(&self.binary, service, settings, &log)?;
        self.processes.insert(service, process);
        Ok(())
    }

    fn running(&mut self, service: Service) -> Result<Process> {
        self.processes.remove(&service).with_context(|| format!("{service} does not run"))
    }

    /// What a service is told.
    pub(crate) fn settings(&self, service: Service) -> BTreeMap<String, String> {
        let mut settings = self.servers.settings_of(service, self.options.durability);
        settings.extend(self.common());
        let mut set = |key: &str, value: String| settings.insert(String::from(key), value);
        let sqlite = || format!("sqlite:{}", self.directory.path().join(DELIVERY_LOG).display());
        let database = self.options.database.clone().unwrap_or_else(sqlite);
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        match service {
            Service::FanOut => {}
            Service::Projector => {
                set("profiles_dir", file(PROFILES));
                set("database", database);
                // More transactions, and so more places to be killed at.
                set("batch_max", String::from("16"));
                set("batch_wait", String::from("10ms"));
            }
            Service::Ingest => {
                set("profiles_dir", file(PROFILES));
            }
            Service::RetryScheduler => {
                set("profiles_dir", file(PROFILES));
                // Restarts are to find snapshots, also in a short run.
                set("snapshot_interval", String::from("1s"));
            }
            Service::Dispatcher => {
                set("profiles_dir", file(PROFILES));
                set("sealing_key_file", file(SEALING_KEY));
                if self.options.dispatcher_allows_loopback {
                    set("egress.allow", String::from(LOOPBACK));
                }
            }
            Service::Api => {
                set("profiles_dir", file(PROFILES));
                set("sealing_key_file", file(SEALING_KEY));
                set("operator_key_file", file(OPERATOR_KEY));
                set("database", database);
                set("endpoint_https", String::from("optional"));
                set("endpoint_ports", String::from("1-65535"));
                // Clients know the API by its first port.
                let address = self.api.address();
                set("listen", address.unwrap_or_else(|| String::from("127.0.0.1:0")));
                if self.options.api_allows_loopback {
                    set("allow", String::from(LOOPBACK));
                }
            }
        }
        settings
    }

    /// Waits until every service has said that it runs. One that is asked to end before that is
    /// ended by the signal itself.
    async fn all_run(&self) -> Result<()> {
        wait_until("every service to run", async || {
            if let Err(ended) = self.check_alive() {
                return Ok(Err(ended));
            }
            let runs = |service: &Service| {
                let lines = logs::read(&log_file(&self.logs(), *service)).unwrap_or_default();
                lines.iter().any(|line| line.field("message") == Some("running"))
            };
            let waiting: Vec<_> = Service::ALL.into_iter().filter(|one| !runs(one)).collect();
            if waiting.is_empty() { Ok(Ok(())) } else { Err(waiting) }
        })
        .await
    }

    /// Learns where the API listens, and waits until it is ready.
    async fn api_ready(&mut self) -> Result<()> {
        let log = log_file(&self.logs(), Service::Api);
        let process = self.processes.get(&Service::Api).context("the API runs")?;
        let api = &mut self.api;
        wait_until("the API to be ready", async || {
            if let Err(ended) = process.check_alive() {
                return Ok(Err(ended));
            }
            if api.address().is_none() {
                let lines = logs::read(&log).unwrap_or_default();
                let listens = |line: &&logs::Line| line.field("message") == Some("listening");
                let said = lines.iter().find(listens);
                let Some(address) = said.and_then(|line| line.field("address")) else {
                    return Err(lines.last().map(|line| line.text.clone()).unwrap_or_default());
                };
                api.set_address(address);
            }
            api.ready().await.map(Ok)
        })
        .await
    }
}

/// Writes the profiles [`EAGER`] and [`ERASING`] into a new directory.
fn write_profiles(directory: &Path) -> Result<()> {
    let text = include_str!("../../../deploy/profiles/standard-webhooks.toml");
    let eager = text
        .replacen("name = \"standard-webhooks\"", &format!("name = \"{EAGER}\""), 1)
        .replacen("breaker = \"on\"", "breaker = \"off\"", 1);
    ensure!(
        eager.contains("breaker = \"off\"") && eager.contains(EAGER),
        "the profile has changed"
    );
    fs::create_dir(directory).context("make a directory")?;
    let erasing = eager
        .replacen(&format!("name = \"{EAGER}\""), &format!("name = \"{ERASING}\""), 1)
        .replacen("after_deletion = \"keep\"", "after_deletion = \"delete\"", 1);
    ensure!(
        erasing.contains("= \"delete\"") && erasing.contains(ERASING),
        "the profile has changed"
    );
    fs::write(directory.join("erasing.toml"), erasing).context("write a profile")?;
    fs::write(directory.join("eager.toml"), eager).context("write a profile")
}

impl Drop for Installation {
    fn drop(&mut self) {
        if !self.finished {
            logs::show(&self.logs());
            if std::env::var_os("FANFARE_TEST_KEEP").is_some() {
                self.directory.disable_cleanup(true);
            }
        }
    }
}
