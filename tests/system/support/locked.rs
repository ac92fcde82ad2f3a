//! Servers with the configuration that `fanfare nats config` makes: TLS with certificates on both
//! sides, a user for each service, and nobody else.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::{Client, ConnectOptions};
use fanfare_domain::settings::Source;
use fanfare_event_log::Settings;
use fanfare_testkit::{NatsServer, free_ports, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::binary;

/// How often servers are started on other ports, if another program takes one of their own.
const STARTS: usize = 5;

/// Running servers. Dropping them kills them.
pub(crate) struct Locked {
    servers: Vec<Child>,
    directory: TempDir,
}

impl Locked {
    /// Makes the configuration of so many servers with these options, and starts them.
    pub(crate) async fn start(count: usize, options: &[&str]) -> Result<Self> {
        for _ in 0..STARTS {
            let ports = free_ports(3 * count);
            let places = ports.chunks(3).enumerate().map(|(at, ports)| {
                format!("nats-{}=127.0.0.1:{}:{}:{}", at + 1, ports[0], ports[1], ports[2])
            });
            let directory = tempfile::tempdir().context("make a directory")?;
            let mut command = Command::new(binary::fanfare().await?);
            command.args(["nats", "config"]).arg(directory.path()).args(options);
            for place in places {
                command.args(["--server", &place]);
            }
            let mut locked = Self { servers: Vec::new(), directory };
            run(&mut command).await?;
            for at in 1..=count {
                locked.launch(&format!("nats-{at}")).await?;
            }
            if locked.are_up().await? {
                return Ok(locked);
            }
        }
        bail!("no ports stay free for as long as servers take to start")
    }

    async fn launch(&mut self, name: &str) -> Result<()> {
        let config = self.path().join("servers").join(name).join("nats-server.conf");
        let said = fs::File::create(self.log(name)).context("make a log")?;
        let mut command = Command::new(NatsServer::binary().await?.path());
        command.arg("-c").arg(config).stdin(Stdio::null());
        command.stdout(said.try_clone()?).stderr(said).kill_on_drop(true);
        self.servers.push(command.spawn().context("start nats-server")?);
        Ok(())
    }

    /// Waits until all serve clients; `false` if one of them found its port taken.
    async fn are_up(&mut self) -> Result<bool> {
        let logs: Vec<_> =
            (1..=self.servers.len()).map(|at| self.log(&format!("nats-{at}"))).collect();
        let servers = &mut self.servers;
        wait_until("servers to be ready", async || {
            for (server, log) in servers.iter_mut().zip(&logs) {
                let said = fs::read_to_string(log).unwrap_or_default();
                match server.try_wait() {
                    Ok(None) if said.contains("Server is ready") => {}
                    Ok(None) => return Err(said),
                    _ if said.contains("address already in use") => return Ok(Ok(false)),
                    _ => return Ok(Err(anyhow::anyhow!("nats-server gave up: {said}"))),
                }
            }
            Ok(Ok(true))
        })
        .await
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}.said"))
    }

    /// The directory of a user.
    pub(crate) fn user(&self, name: &str) -> PathBuf {
        self.path().join("users").join(name)
    }

    /// What all servers have said.
    pub(crate) fn said(&self) -> Result<String> {
        let logs =
            (1..=self.servers.len()).map(|at| fs::read_to_string(self.log(&format!("nats-{at}"))));
        Ok(logs.collect::<Result<String, _>>()?)
    }

    /// Calls `fanfare nats config` again, and has the servers read what it has made.
    pub(crate) async fn configure(&self, options: &[&str]) -> Result<()> {
        let mut command = Command::new(binary::fanfare().await?);
        run(command.args(["nats", "config"]).arg(self.path()).args(options)).await?;
        for server in &self.servers {
            let pid = server.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
            kill_process(pid.context("a server runs")?, Signal::HUP).context("signal a server")?;
        }
        Ok(())
    }

    /// Makes the streams, as the user that may.
    pub(crate) async fn bootstrap(&self, settings: &BTreeMap<String, String>) -> Result<String> {
        let mut command = Command::new(binary::fanfare().await?);
        command
            .args(["bootstrap", "--json", "--config"])
            .arg(self.user("bootstrap").join("log.toml"));
        for (key, value) in settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        run(&mut command).await
    }

    /// What a service is told of the servers.
    pub(crate) fn settings(&self, user: &str) -> Result<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.user(user).join("log.toml")).context("read a file")?;
        let table: toml::Table = text.parse().context("read a file")?;
        let log = table.get("log").and_then(toml::Value::as_table).context("a section")?;
        let text = |value: &toml::Value| match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Ok(log.iter().map(|(key, value)| (format!("log.{key}"), text(value))).collect())
    }

    /// The settings of a log as a user who may do everything.
    pub(crate) fn log_settings(&self) -> Result<Settings> {
        let admin = self.user("admin");
        let file = |name: &str| admin.join(name).display().to_string();
        let mut settings = BTreeMap::new();
        for (key, value) in self.settings("bootstrap")? {
            settings.insert(key.trim_start_matches("log.").to_owned(), value);
        }
        settings.insert(String::from("nkey_file"), file("user.nk"));
        settings.insert(String::from("shards"), String::from("4"));
        // Where services may answer.
        settings.insert(String::from("inbox_prefix"), String::from("_INBOX.fanfare.client.admin"));
        Source::new(settings, "").load().context("read the settings")
    }

    /// Connects as a user, whose answers come where they have to.
    pub(crate) async fn client(
        &self,
        user: &str,
        inbox: &str,
        options: ConnectOptions,
    ) -> Result<Client> {
        let home = self.user(user);
        let seed = fs::read_to_string(home.join("user.nk")).context("read a seed")?;
        let url = self.log_settings()?.url;
        let servers: Vec<&str> = url.split(',').collect();
        let options = options
            .nkey(seed.trim().to_owned())
            .require_tls(true)
            .add_root_certificates(home.join("ca.pem"))
            .add_client_certificate(home.join("certificate.pem"), home.join("certificate.key"))
            .custom_inbox_prefix(inbox);
        options.connect(servers).await.with_context(|| format!("connect as {user}"))
    }
}

/// Runs a program to its end, and returns what it says.
async fn run(command: &mut Command) -> Result<String> {
    let output = command.kill_on_drop(true).output().await.context("run fanfare")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).context("read what it says")
}
