//! What a directory is made of: the file `nats.toml` in it, which the options add to.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::TenantId;
use fanfare_event_log::{Role, permissions::Ways};
use serde::{Deserialize, Serialize};

use super::{Options, files};

/// The name of the file.
const FILE: &str = "nats.toml";
/// What stands above it.
const HEADER: &str = "\
# What `fanfare nats config` makes this directory of. Edit it, and call that again: who is not in it
# any more has no user any more.

";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// What the installation's subjects begin with.
    pub(super) prefix: String,
    /// Where the directory is on the machines that use it.
    pub(super) at: PathBuf,
    /// Where the servers keep their streams; beside their configuration if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<PathBuf>,
    /// The tenants with a producer that may publish to INBOX too.
    #[serde(default)]
    producers: Vec<String>,
    /// The tenants with a producer that may publish by requests alone.
    #[serde(default)]
    requesters: Vec<String>,
    /// The servers.
    #[serde(default, rename = "server")]
    pub(super) servers: Vec<Server>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// Its name.
    pub(super) name: String,
    /// Where clients and the other servers reach it.
    pub(super) host: String,
    /// The port for clients.
    pub(super) port: u16,
    /// The port for the other servers.
    pub(super) routes: u16,
    /// The port for monitoring, on the server's own machine only.
    pub(super) monitoring: u16,
}

/// Text that is no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not NAME=HOST[:PORT[:ROUTES[:MONITORING]]], such as nats-1=10.0.0.1")]
pub(crate) struct MalformedServer;

impl Plan {
    /// Reads the plan of a directory; that of three servers and no producer if there is none.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(Self {
                prefix: String::from("fanfare"),
                at: PathBuf::new(),
                store: None,
                producers: Vec::new(),
                requesters: Vec::new(),
                servers: Vec::new(),
            });
        }
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Takes what the options say; `here` is where the directory is made.
    pub(super) fn extend(&mut self, options: &Options, here: &Path) -> Result<()> {
        if let Some(prefix) = &options.prefix {
            self.prefix.clone_from(prefix);
        }
        if let Some(at) = &options.at {
            self.at.clone_from(at);
        } else if self.at.as_os_str().is_empty() {
            here.clone_into(&mut self.at);
        }
        if let Some(store) = &options.store {
            self.store = Some(store.clone());
        }
        if !options.servers.is_empty() {
            self.servers.clone_from(&options.servers);
        } else if self.servers.is_empty() {
            self.servers = ["nats-1", "nats-2", "nats-3"].map(Server::of).to_vec();
        }
        for tenant in &options.requesters {
            add(&mut self.requesters, tenant);
        }
        for tenant in &options.producers {
            add(&mut self.producers, tenant);
        }
        self.judge()
    }

    fn judge(&self) -> Result<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(plain);
        let is_prefix = is_plain(&self.prefix) && self.prefix.len() <= 32;
        let is_lower = !self.prefix.bytes().any(|byte| byte.is_ascii_uppercase());
        ensure!(is_prefix && is_lower, "the prefix is not 1 to 32 of a-z, 0-9, - and _");
        ensure!(self.at.is_absolute(), "{} is not an absolute path", self.at.display());
        for server in &self.servers {
            ensure!(is_plain(&server.name), "{} is no name of a server", server.name);
            let same = self.servers.iter().filter(|other| other.name == server.name).count();
            ensure!(same == 1, "two servers are called {}", server.name);
        }
        let count = self.servers.len();
        ensure!(
            count % 2 == 1,
            "{count} servers bear the loss of no more than one less: take 1, 3 or 5"
        );
        let both = self.requesters.iter().find(|tenant| self.producers.contains(tenant));
        ensure!(
            both.is_none(),
            "{} is a producer and a requester",
            both.cloned().unwrap_or_default()
        );
        self.tenants().map(drop)
    }

    /// Writes it.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let text = toml::to_string(self).context("write the plan")?;
        files::write(&directory.join(FILE), &format!("{HEADER}{text}"))
    }

    fn tenants(&self) -> Result<Vec<(TenantId, Ways)>> {
        let all = self.producers.iter().map(|tenant| (tenant, Ways::All));
        let all = all.chain(self.requesters.iter().map(|tenant| (tenant, Ways::Requests)));
        let read = |(tenant, ways): (&String, Ways)| {
            let tenant = tenant.parse().with_context(|| format!("{tenant} is no tenant's id"))?;
            Ok((tenant, ways))
        };
        all.map(read).collect()
    }

    /// The users of producers.
    pub(super) fn producers(&self) -> impl Iterator<Item = Role> + use<> {
        let tenants = self.tenants().unwrap_or_default().into_iter();
        tenants.map(|(tenant, ways)| Role::Producer { tenant, ways })
    }

    /// What clients are told, in the form of a URL.
    pub(super) fn url(&self) -> String {
        let urls = self.servers.iter().map(|server| format!("nats://{}", server.at(server.port)));
        urls.collect::<Vec<_>>().join(",")
    }

    /// How many servers keep each stream.
    pub(super) fn replicas(&self) -> usize {
        self.servers.len().min(3)
    }

    /// What these servers can promise.
    pub(super) fn durability(&self) -> &'static str {
        if self.servers.len() < 3 { "site" } else { "node" }
    }
}

fn add(list: &mut Vec<String>, tenant: &TenantId) {
    let tenant = tenant.to_string();
    if !list.contains(&tenant) {
        list.push(tenant);
    }
}

impl Server {
    fn of(name: &str) -> Self {
        let (name, host) = (name.to_owned(), name.to_owned());
        Self { name, host, port: 4222, routes: 6222, monitoring: 8222 }
    }

    /// The host and a port, as they stand in a URL.
    pub(super) fn at(&self, port: u16) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            Ok(IpAddr::V4(_)) | Err(_) => format!("{}:{port}", self.host),
        }
    }

    /// Where the server listens: only on the machine itself if that is where its clients are.
    pub(super) fn listens(&self) -> &str {
        let address = self.host.parse::<IpAddr>();
        let is_local = address.is_ok_and(|address| address.is_loopback());
        if is_local { &self.host } else { "0.0.0.0" }
    }
}

impl FromStr for Server {
    type Err = MalformedServer;

    fn from_str(text: &str) -> Result<Self, MalformedServer> {
        let (name, place) = text.split_once('=').ok_or(MalformedServer)?;
        let (host, ports) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(MalformedServer)?,
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        if name.is_empty() || host.is_empty() {
            return Err(MalformedServer);
        }
        let mut server = Self { host: host.to_owned(), ..Self::of(name) };
        let places = [&mut server.port, &mut server.routes, &mut server.monitoring];
        let mut given = ports.split(':').skip(1);
        for place in places {
            let Some(port) = given.next() else { break };
            *place = port.parse().ok().filter(|port| *port > 0).ok_or(MalformedServer)?;
        }
        if given.next().is_some() || (!ports.is_empty() && !ports.starts_with(':')) {
            return Err(MalformedServer);
        }
        Ok(server)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_name_a_host_and_maybe_ports() {
        let read = |text: &str| text.parse::<Server>();
        let server = |host: &str, port, routes, monitoring| {
            let host = host.to_owned();
            Ok(Server { name: String::from("n"), host, port, routes, monitoring })
        };
        assert_eq!(read("n=a.example"), server("a.example", 4222, 6222, 8222));
        assert_eq!(read("n=10.0.0.1:1"), server("10.0.0.1", 1, 6222, 8222));
        assert_eq!(read("n=[::1]:1:2:3"), server("::1", 1, 2, 3));
        assert_eq!(read("n=[::1]").unwrap().at(5), "[::1]:5");
        for bad in ["n", "=a", "n=", "n=a:x", "n=a:1:2:3:4", "n=a:0", "n=[::1]x", "n=[::1"] {
            assert_eq!(read(bad), Err(MalformedServer), "{bad}");
        }
    }

    #[test]
    fn who_listens_for_this_machine_listens_nowhere_else() {
        let listens = |text: &str| text.parse::<Server>().unwrap().listens().to_owned();
        assert_eq!(listens("n=127.0.0.1"), "127.0.0.1");
        assert_eq!(listens("n=10.0.0.1"), "0.0.0.0");
        assert_eq!(listens("n=nats-1.internal"), "0.0.0.0");
    }
}
