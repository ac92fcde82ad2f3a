//! The servers of an installation: one, or a cluster of three that all keep every stream.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fanfare_event_log::{Durability, Settings};
use fanfare_nats_server::{ServerOptions, StoreSync};
use fanfare_testkit::{NatsCluster, NatsServer};

use super::{locked::Locked, process::Service};

/// How many servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// One.
    One,
    /// A cluster of three.
    Three,
    /// So many as `fanfare nats config` makes them, with these options.
    Locked(usize, &'static [&'static str]),
}

/// See the module.
pub(crate) enum Servers {
    /// One.
    One(Box<NatsServer>),
    /// A cluster of three.
    Three(NatsCluster),
    /// As `fanfare nats config` makes them.
    Locked(Box<Locked>),
}

impl Servers {
    /// Starts servers that keep what is promised.
    pub(crate) async fn start(count: Count, durability: Durability) -> Result<Self> {
        let sync = match durability {
            Durability::Process => StoreSync::Interval,
            Durability::Node | Durability::Site => StoreSync::Always,
        };
        match count {
            Count::One => {
                let options = ServerOptions { sync, ..ServerOptions::default() };
                Ok(Self::from(NatsServer::start_with(options).await?))
            }
            Count::Three => Ok(Self::Three(NatsCluster::start(sync).await?)),
            Count::Locked(count, options) => {
                Ok(Self::Locked(Box::new(Locked::start(count, options).await?)))
            }
        }
    }

    /// Where they are.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
            Self::Locked(_) => self.log_settings().url,
        }
    }

    /// Where their system account is. With one server it changes when that is restarted.
    pub(crate) fn system_url(&self) -> String {
        match self {
            Self::One(server) => server.system_url(),
            Self::Three(cluster) => cluster.system_url(),
            Self::Locked(_) => self.url(),
        }
    }

    /// Settings of a log on them.
    pub(crate) fn log_settings(&self) -> Settings {
        match self {
            Self::One(server) => server.log_settings(),
            Self::Three(cluster) => cluster.log_settings(),
            Self::Locked(locked) => locked.log_settings().expect("the configuration was made"),
        }
    }

    /// The same as a service takes them, with what is promised.
    pub(crate) fn settings(&self, durability: Durability) -> BTreeMap<&'static str, String> {
        let settings = self.log_settings();
        let mut texts = BTreeMap::from([
            ("log.url", settings.url),
            ("log.shards", settings.shards.to_string()),
            ("log.replicas", settings.replicas.to_string()),
            ("log.durability", durability.to_string()),
        ]);
        if durability != Durability::Process {
            texts.insert("log.system_url", self.system_url());
        }
        texts
    }

    /// The same for one service.
    pub(crate) fn settings_of(
        &self,
        service: Service,
        durability: Durability,
    ) -> BTreeMap<String, String> {
        if let Self::Locked(locked) = self {
            return locked.settings(service.name()).expect("the configuration was made");
        }
        let settings = self.settings(durability).into_iter();
        settings.map(|(key, value)| (String::from(key), value)).collect()
    }

    /// Those of `fanfare nats config`.
    pub(crate) fn locked(&self) -> &Locked {
        match self {
            Self::Locked(locked) => locked,
            Self::One(_) | Self::Three(_) => unreachable!("a test of locked servers has others"),
        }
    }

    /// Returns the last sequence of a stream.
    pub(crate) async fn last_sequence(&self, stream: &str) -> Result<u64> {
        match self {
            Self::One(server) => server.last_sequence(stream).await,
            Self::Three(cluster) => cluster.last_sequence(stream).await,
            Self::Locked(_) => anyhow::bail!("only users of theirs may look into {stream}"),
        }
    }

    /// Kills all with SIGKILL at once.
    pub(crate) async fn kill_all(&mut self) -> Result<()> {
        match self {
            Self::One(server) => server.server().kill().await.context("kill nats-server"),
            Self::Three(cluster) => cluster.kill_all().await,
            Self::Locked(_) => anyhow::bail!("these servers are left alone"),
        }
    }

    /// Starts all that do not run, on their data.
    pub(crate) async fn restart_all(&mut self) -> Result<()> {
        match self {
            Self::One(server) => server.server().restart().await.context("restart nats-server"),
            Self::Three(cluster) => cluster.restart_all().await,
            Self::Locked(_) => anyhow::bail!("these servers are left alone"),
        }
    }

    /// Waits until all is well with those that run.
    pub(crate) async fn settled(&self) {
        match self {
            // It is not told to be ready before.
            Self::One(_) | Self::Locked(_) => {}
            Self::Three(cluster) => cluster.settled().await,
        }
    }

    /// The only one.
    pub(crate) fn one(&self) -> &NatsServer {
        match self {
            Self::One(server) => server,
            Self::Three(_) | Self::Locked(_) => unreachable!("a test of one server has others"),
        }
    }

    /// The only one, to do something to it.
    pub(crate) fn one_mut(&mut self) -> &mut NatsServer {
        match self {
            Self::One(server) => server,
            Self::Three(_) | Self::Locked(_) => unreachable!("a test of one server has others"),
        }
    }

    /// The cluster.
    pub(crate) fn three(&mut self) -> &mut NatsCluster {
        match self {
            Self::One(_) | Self::Locked(_) => unreachable!("a test of three servers has others"),
            Self::Three(cluster) => cluster,
        }
    }
}

impl From<NatsServer> for Servers {
    fn from(server: NatsServer) -> Self {
        Self::One(Box::new(server))
    }
}
