//! Whether the servers keep what a durability level promises.
//!
//! An acknowledgement of a NATS server does not mean that the message is on a disk, unless it is
//! told to sync every write. So at the levels that promise more than surviving a killed process,
//! every server is asked for its settings before anything is written.
//!
//! Servers that do not answer at that moment are not judged, and a warning says so: a service must
//! be able to start while a minority is down. So a server that joins later with other settings goes
//! unnoticed until the next start.

use std::{fmt, str::FromStr, time::Duration};

use async_nats::{Client, ConnectOptions, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::{Durability, Settings, user::log_in};

/// The oldest server that we work with: older ones lose scheduled messages.
pub const VERSION_MIN: Version = Version { major: 2, minor: 14, patch: 6 };

/// The fewest replicas with which a minority may fail.
pub const REPLICAS_MIN: usize = 3;

/// How long answers are waited for.
const GATHER: Duration = Duration::from_secs(1);
/// Where every server of the system answers for JetStream.
const QUESTION: &str = "$SYS.REQ.SERVER.PING.JSZ";

/// A version of a NATS server. What follows a `-` or `+` does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

/// Text that is not a version of the form `2.14.6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a version such as 2.14.6")]
pub struct MalformedVersion;

/// What one server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReport {
    /// Its name, or its id if it has none.
    pub server: String,
    /// Its version, as it says it.
    pub version: String,
    /// Whether it syncs every write to disk before it acknowledges it.
    pub sync_always: bool,
}

/// The servers do not keep what the level promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// The level needs more copies of each message.
    #[error(
        "durability `node` needs replicas = {REPLICAS_MIN} or more, and it is {replicas}: \
         set it, or choose durability `process` or `site`"
    )]
    TooFewReplicas {
        /// What is set.
        replicas: usize,
    },
    /// Fewer servers answered than acknowledge a message: a majority of the copies.
    #[error(
        "of the servers with JetStream {found} answered, and {needed} are needed: start the \
         others, or check that all are one cluster"
    )]
    TooFewServers {
        /// How many answered.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A server is too old.
    #[error("server {server} has version {found}: upgrade it to {VERSION_MIN} or newer")]
    TooOld {
        /// Which server.
        server: String,
        /// Its version.
        found: String,
    },
    /// A server acknowledges messages before they are on its disk.
    #[error(
        "server {server} acknowledges messages before they are on its disk: set `sync_interval: \
         always` in the `jetstream` block of its configuration, or choose durability `process`"
    )]
    NotSynced {
        /// Which server.
        server: String,
    },
}

/// It could not be verified that the servers keep what is promised, or they do not.
#[derive(Debug, thiserror::Error)]
pub enum DurabilityError {
    /// The servers do not keep it.
    #[error(transparent)]
    NotKept(#[from] NotKept),
    /// There is nowhere to ask.
    #[error(
        "durability `{level}` needs the servers' settings to be checked: set system_url to a \
         user of the system account, or choose durability `process`"
    )]
    NoSystemUrl {
        /// What was promised.
        level: &'static str,
    },
    /// The setting holds no URL.
    #[error("system_url is not a URL of a NATS server")]
    MalformedUrl {
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// No connection to the system account.
    #[error("cannot reach the system account to check the servers' settings")]
    Unreachable {
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The question could not be asked.
    #[error("cannot ask the servers for their settings")]
    Unasked {
        /// What the client said.
        #[source]
        source: async_nats::Error,
    },
}

/// Checks that the servers keep what the settings promise. Asks nobody at level `process`;
/// otherwise takes a second.
pub async fn verify(settings: &Settings) -> Result<(), DurabilityError> {
    let level = match settings.durability {
        Durability::Process => return Ok(()),
        Durability::Node => "node",
        Durability::Site => "site",
    };
    let url = settings.system_url.as_deref().ok_or(DurabilityError::NoSystemUrl { level })?;
    let reports = gather(url).await?;
    check(settings.durability, settings.replicas, &reports)?;
    if reports.len() < settings.replicas {
        let (answered, replicas) = (reports.len(), settings.replicas);
        warn!(answered, replicas, "some servers are down, and their settings were not checked");
    }
    Ok(())
}

/// Judges what the servers said of themselves. The first thing that is not kept is the error.
pub fn check(level: Durability, replicas: usize, reports: &[ServerReport]) -> Result<(), NotKept> {
    let needed = match level {
        Durability::Process => return Ok(()),
        Durability::Node if replicas < REPLICAS_MIN => {
            return Err(NotKept::TooFewReplicas { replicas });
        }
        Durability::Node | Durability::Site => replicas / 2 + 1,
    };
    for report in reports {
        let server = || report.server.clone();
        if report.version.parse::<Version>().is_ok_and(|version| version >= VERSION_MIN) {
            if !report.sync_always {
                return Err(NotKept::NotSynced { server: server() });
            }
        } else {
            return Err(NotKept::TooOld { server: server(), found: report.version.clone() });
        }
    }
    if reports.len() < needed {
        return Err(NotKept::TooFewServers { found: reports.len(), needed });
    }
    Ok(())
}

/// Asks every server with JetStream, and takes the answers of one second.
pub async fn gather(system_url: &str) -> Result<Vec<ServerReport>, DurabilityError> {
    let servers: Vec<ServerAddr> = system_url
        .split(',')
        .map(|url| url.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|source| DurabilityError::MalformedUrl { source })?;
    let options = ConnectOptions::new().name("fanfare durability check");
    let client = log_in(options, &servers)
        .connect(servers)
        .await
        .map_err(|source| DurabilityError::Unreachable { source })?;
    ask(&client).await.map_err(|source| DurabilityError::Unasked { source })
}

async fn ask(client: &Client) -> Result<Vec<ServerReport>, async_nats::Error> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    let options = Bytes::from_static(br#"{"config":true}"#);
    client.publish_with_reply(QUESTION, inbox, options).await?;
    client.flush().await?;
    let until = Instant::now() + GATHER;
    let mut reports = Vec::new();
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        match serde_json::from_slice::<Answer>(&answer.payload) {
            Ok(answer) => reports.extend(answer.report()),
            Err(error) => warn!(%error, "a server's answer about JetStream cannot be read"),
        }
    }
    Ok(reports)
}

/// What a server answers: the parts that matter. What is `false` it leaves out.
#[derive(Deserialize)]
struct Answer {
    server: AnswerServer,
    #[serde(default)]
    data: AnswerData,
}

#[derive(Deserialize)]
struct AnswerServer {
    #[serde(default)]
    name: String,
    id: String,
    ver: String,
}

#[derive(Default, Deserialize)]
struct AnswerData {
    #[serde(default)]
    disabled: bool,
    config: Option<AnswerConfig>,
}

#[derive(Deserialize)]
struct AnswerConfig {
    #[serde(default)]
    sync_always: bool,
}

impl Answer {
    /// `None` for a server that keeps no messages.
    fn report(self) -> Option<ServerReport> {
        let config = self.data.config.filter(|_| !self.data.disabled)?;
        let AnswerServer { name, id, ver } = self.server;
        Some(ServerReport {
            server: if name.is_empty() { id } else { name },
            version: ver,
            sync_always: config.sync_always,
        })
    }
}

impl FromStr for Version {
    type Err = MalformedVersion;

    fn from_str(text: &str) -> Result<Self, MalformedVersion> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = plain.split('.').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).ok_or(MalformedVersion);
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if numbers.next().is_none() { Ok(version) } else { Err(MalformedVersion) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, version: &str, sync_always: bool) -> ServerReport {
        ServerReport { server: name.to_owned(), version: version.to_owned(), sync_always }
    }

    #[test]
    fn what_is_promised_is_checked_server_by_server() {
        use Durability::{Node, Process, Site};

        let good = || server("a", "2.15.1", true);
        let lazy = || server("b", "2.15.1", false);
        let old = || server("c", "2.14.5", true);
        let not_synced = NotKept::NotSynced { server: String::from("b") };
        let too_old = NotKept::TooOld { server: String::from("c"), found: String::from("2.14.5") };
        for (level, replicas, servers, expected) in [
            (Process, 1, vec![lazy(), old()], Ok(())),
            (Process, 1, vec![], Ok(())),
            (Site, 1, vec![good()], Ok(())),
            (Site, 1, vec![], Err(NotKept::TooFewServers { found: 0, needed: 1 })),
            (Site, 1, vec![good(), lazy()], Err(not_synced.clone())),
            (Site, 3, vec![good()], Err(NotKept::TooFewServers { found: 1, needed: 2 })),
            (Site, 1, vec![old()], Err(too_old.clone())),
            (Node, 1, vec![good()], Err(NotKept::TooFewReplicas { replicas: 1 })),
            (Node, 3, vec![good()], Err(NotKept::TooFewServers { found: 1, needed: 2 })),
            (Node, 5, vec![good(), good()], Err(NotKept::TooFewServers { found: 2, needed: 3 })),
            (Node, 3, vec![good(), good()], Ok(())),
            (Node, 3, vec![good(), good(), good()], Ok(())),
            (Node, 3, vec![good(), good(), lazy()], Err(not_synced)),
            (Node, 3, vec![good(), good(), old()], Err(too_old)),
        ] {
            assert_eq!(check(level, replicas, &servers), expected, "{level:?} {servers:?}");
        }
    }

    #[test]
    fn answers_are_read_as_servers_give_them() {
        let always = r#"{"server":{"name":"n1","host":"h","id":"NDCN","ver":"2.15.1","jetstream":true},
            "data":{"memory":0,"config":{"max_memory":1,"sync_interval":120000000000,"sync_always":true,"strict":true}}}"#;
        let lazy = r#"{"server":{"name":"n1","id":"NDCN","ver":"2.15.1"},
            "data":{"config":{"sync_interval":120000000000}}}"#;
        let without = r#"{"server":{"name":"n1","id":"NDCN","ver":"2.15.1"},"data":{"disabled":true,"config":{}}}"#;
        let read = |text| serde_json::from_str::<Answer>(text).unwrap().report();
        assert_eq!(read(always), Some(server("n1", "2.15.1", true)));
        assert_eq!(read(lazy), Some(server("n1", "2.15.1", false)));
        assert_eq!(read(without), None);
    }

    #[test]
    fn versions_are_compared_by_number() {
        let version = |text: &str| text.parse::<Version>();
        assert!(version("2.14.10").unwrap() > VERSION_MIN);
        assert!(version("v2.14.6-RC.1").unwrap() >= VERSION_MIN);
        assert!(version("2.9.99").unwrap() < VERSION_MIN);
        for bad in ["", "2.14", "2.14.x", "2.14.6.1", "latest"] {
            assert_eq!(version(bad), Err(MalformedVersion), "{bad}");
        }
    }
}
