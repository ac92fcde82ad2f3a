//! A nats-server for one test.

use anyhow::{Context as _, Result};
use fanfare_domain::ShardCount;
use fanfare_event_log::{EventLog, Settings};
use fanfare_nats_server::{Binary, Options, Server, ServerOptions};

/// A nats-server on free ports and a temporary directory. Ends when dropped.
pub struct NatsServer {
    server: Server,
}

impl NatsServer {
    /// Starts a server with JetStream; the binary is found, or fetched once.
    pub async fn start() -> Result<Self> {
        Self::start_with(ServerOptions::default()).await
    }

    /// Starts a server with options of the test's.
    pub async fn start_with(options: ServerOptions) -> Result<Self> {
        let binary = Self::binary().await?;
        let server = Server::start(&binary, options).await.context("start nats-server")?;
        Ok(Self { server })
    }

    /// Finds or fetches the binary.
    pub async fn binary() -> Result<Binary> {
        let located = tokio::task::spawn_blocking(|| Binary::locate(&Options::from_env()));
        located.await?.context("find nats-server")
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        self.server.client_url()
    }

    /// Where the system account is. The password in it changes with every restart.
    pub fn system_url(&self) -> String {
        self.server.system_url()
    }

    /// The server itself, to kill, suspend or restart it.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Settings of a log on this server: 4 shards, everything else by default.
    ///
    /// # Panics
    ///
    /// Never: 4 shards are within the limits.
    pub fn log_settings(&self) -> Settings {
        let shards = ShardCount::new(4).expect("4 is between 1 and 256");
        Settings { url: self.url(), shards, ..Settings::default() }
    }

    /// Opens a log on this server.
    pub async fn log(&self) -> Result<EventLog> {
        EventLog::open("test", &self.log_settings()).await.context("open the log")
    }
}
