//! Three servers of one cluster for one test.

mod ports;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_domain::ShardCount;
use fanfare_event_log::{EventLog, Settings};
use fanfare_nats_server::{Binary, ClusterOptions, Server, ServerOptions, StartError, StoreSync};
use fanfare_service::random_bytes;
use futures_util::{TryStreamExt as _, future::try_join_all};

pub use self::ports::free_ports;
use crate::{NatsServer, streams, wait_until};

/// How many servers a cluster has.
const MEMBERS: usize = 3;

/// How often a cluster is started on other ports, if another program takes one of its own.
const STARTS: usize = 5;

/// Three nats-servers that are one cluster, each on free ports and a temporary directory. All end
/// when it is dropped.
pub struct NatsCluster {
    servers: Vec<Server>,
    secret: String,
}

impl NatsCluster {
    /// The names of the members.
    pub const NAMES: [&str; MEMBERS] = ["nats-1", "nats-2", "nats-3"];

    /// Starts a cluster of servers that sync alike, and waits until it has a leader.
    pub async fn start(sync: StoreSync) -> Result<Self> {
        Self::start_each([sync; MEMBERS]).await
    }

    /// Starts a cluster, and says for each server when it syncs.
    pub async fn start_each(syncs: [StoreSync; MEMBERS]) -> Result<Self> {
        let binary = NatsServer::binary().await?;
        for _ in 0..STARTS {
            match start(&binary, syncs).await {
                Err(StartError::PortTaken { .. }) => {}
                started => {
                    let (servers, secret) = started.context("start a cluster")?;
                    let cluster = Self { servers, secret };
                    cluster.settled().await;
                    return Ok(cluster);
                }
            }
        }
        bail!("no ports stay free for as long as a cluster takes to start")
    }

    /// Where clients connect: all members, with commas.
    pub fn url(&self) -> String {
        self.servers.iter().map(Server::client_url).collect::<Vec<_>>().join(",")
    }

    /// Where the system account is: all members, with commas. It stays good over restarts.
    pub fn system_url(&self) -> String {
        let urls = self
            .servers
            .iter()
            .map(|server| format!("nats://system:{}@{}", self.secret, server.client_address()));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Settings of a log on this cluster: 4 shards, on all members, everything else by default.
    ///
    /// # Panics
    ///
    /// Never: 4 shards are within the limits.
    pub fn log_settings(&self) -> Settings {
        let shards = ShardCount::new(4).expect("4 is between 1 and 256");
        Settings { url: self.url(), shards, replicas: MEMBERS, ..Settings::default() }
    }

    /// Opens a log on this cluster.
    pub async fn log(&self) -> Result<EventLog> {
        EventLog::open("test", &self.log_settings()).await.context("open the log")
    }

    /// A member.
    pub fn member(&mut self, name: &str) -> Result<&mut Server> {
        let place = Self::NAMES.iter().position(|known| *known == name);
        let server = place.and_then(|place| self.servers.get_mut(place));
        server.with_context(|| format!("no member is called {name}"))
    }

    /// Kills every member with SIGKILL, before any of them can notice.
    pub async fn kill_all(&mut self) -> Result<()> {
        try_join_all(self.servers.iter_mut().map(Server::kill)).await.context("kill a cluster")?;
        Ok(())
    }

    /// Starts every member that does not run, on its data and its ports.
    pub async fn restart_all(&mut self) -> Result<()> {
        let stopped = self.servers.iter_mut().filter(|server| server.pid().is_none());
        try_join_all(stopped.map(Server::restart)).await.context("restart a cluster")?;
        Ok(())
    }

    /// Deletes all that a member has stored, as if its disk were new. It must not run.
    pub async fn empty(&mut self, name: &str) -> Result<()> {
        let server = self.member(name)?;
        ensure!(server.pid().is_none(), "{name} runs");
        let store = server.data_dir().join("jetstream");
        tokio::fs::remove_dir_all(&store).await.context("empty a member's store")
    }

    /// Which member leads a stream; fails if none does.
    pub async fn leader(&self, stream: &str) -> Result<String> {
        let context = streams::connect(&self.url()).await?;
        let stream = context.get_stream(stream).await.context("find the stream")?;
        let cluster = stream.cached_info().cluster.as_ref();
        cluster.and_then(|cluster| cluster.leader.clone()).context("the stream has no leader")
    }

    /// Returns the last sequence of a stream.
    pub async fn last_sequence(&self, stream: &str) -> Result<u64> {
        streams::last_sequence(&self.url(), stream).await
    }

    /// Waits until every member that runs is healthy, and every stream that all members keep has
    /// a leader and, on the members that run, all that it holds.
    pub async fn settled(&self) {
        wait_until("a cluster to settle", async || {
            for (server, name) in self.servers.iter().zip(Self::NAMES) {
                if server.pid().is_some() {
                    server.healthy().await.map_err(|unhealthy| format!("{name}: {unhealthy}"))?;
                }
            }
            self.lagging().await.map_err(|error| format!("{error:#}"))
        })
        .await;
    }

    /// Fails if a stream has no leader, or a copy is not complete on a member that runs.
    async fn lagging(&self) -> Result<()> {
        let context = streams::connect(&self.url()).await?;
        let mut infos = context.streams();
        while let Some(info) = infos.try_next().await.context("list the streams")? {
            let name = &info.config.name;
            let cluster = info.cluster.with_context(|| format!("{name} is on no cluster"))?;
            ensure!(cluster.leader.is_some(), "{name} has no leader");
            let behind =
                cluster.replicas.iter().find(|peer| self.runs(&peer.name) && !peer.current);
            ensure!(behind.is_none(), "{name}: {behind:?}");
        }
        Ok(())
    }

    fn runs(&self, name: &str) -> bool {
        let named = self.servers.iter().zip(Self::NAMES).find(|(_, known)| *known == name);
        named.is_some_and(|(server, _)| server.pid().is_some())
    }
}

/// Starts the servers at the same time: each waits for the others.
async fn start(
    binary: &Binary,
    syncs: [StoreSync; MEMBERS],
) -> Result<(Vec<Server>, String), StartError> {
    let secret = data_encoding::HEXLOWER.encode(&random_bytes::<16>());
    // A member that is restarted finds its ports free: nothing else is given such a port.
    let ports = free_ports(3 * MEMBERS);
    let (clients, others) = ports.split_at(MEMBERS);
    let (monitors, routes) = others.split_at(MEMBERS);
    let places = NatsCluster::NAMES.iter().zip(syncs).zip(clients.iter().zip(monitors).zip(routes));
    let starts = places.map(|((name, sync), ((client, monitor), route))| {
        let cluster = ClusterOptions {
            name: String::from("fanfare"),
            port: *route,
            members: routes.to_vec(),
            secret: secret.clone(),
        };
        let options = ServerOptions {
            port: Some(*client),
            monitor_port: Some(*monitor),
            server_name: String::from(*name),
            sync,
            cluster: Some(cluster),
            ..ServerOptions::default()
        };
        Server::start(binary, options)
    });
    let servers = try_join_all(starts).await?;
    Ok((servers, secret))
}
