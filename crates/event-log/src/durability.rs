//! Whether the servers keep what a durability level promises.
//!
//! An acknowledgement of a NATS server does not mean that the message is on a disk, unless it is
//! told to sync every write. So at the levels that promise more than surviving a killed process,
//! every server is asked for its settings before anything is written.
//!
//! Servers that do not answer at that moment are not judged, and a warning says so: a service must
//! be able to start while a minority is down. They are judged later: all are asked again every
//! minute and whenever a connection was lost and is back, for as long as the log is open. What is
//! then not kept is an error in the process's own log each time. The process goes on.

mod reports;
mod watch;

use std::{fmt, str::FromStr, time::Duration};

use fanfare_domain::chain;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

pub(crate) use self::reports::{CHECK, QUESTION};
pub use self::reports::{ServerReport, gather};
pub(crate) use self::watch::watch;
use crate::{AccessError, Durability, Settings};

/// The oldest server that we work with: older ones lose scheduled messages.
pub const VERSION_MIN: Version = Version { major: 2, minor: 14, patch: 6 };

/// The fewest replicas with which a minority may fail.
pub const REPLICAS_MIN: usize = 3;

/// How long a service that starts asks again while too few servers answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits before it does.
const AGAIN: Duration = Duration::from_millis(200);

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
    /// What lets us in there cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
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

impl DurabilityError {
    /// Whether the next answer may be another one, with nobody doing anything about it.
    const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NotKept(NotKept::TooFewServers { .. })
                | Self::Unreachable { .. }
                | Self::Unasked { .. }
        )
    }
}

/// Checks once that the servers keep what the settings promise. Asks nobody at level `process`;
/// otherwise takes a second.
pub async fn verify(settings: &Settings) -> Result<(), DurabilityError> {
    if settings.durability == Durability::Process {
        return Ok(());
    }
    verified(settings).await.map(drop)
}

/// As [`verify`], but servers that are not there or do not answer are asked again for a few
/// seconds: a busy one may not make it in its second, and a service that is restarted while
/// another is down must not end because of that. Returns who keeps it, and `None` if nobody was
/// asked.
pub(crate) async fn at_start(settings: &Settings) -> Result<Option<Checked>, DurabilityError> {
    if settings.durability == Durability::Process {
        return Ok(None);
    }
    let until = Instant::now() + PATIENCE;
    let checked = loop {
        match verified(settings).await {
            Err(error) if error.may_pass() && Instant::now() < until => {
                debug!(error = chain(&error), "asking the servers for their settings again");
                sleep(AGAIN).await;
            }
            judged => break judged?,
        }
    };
    checked.tell(settings.durability);
    Ok(Some(checked))
}

/// Asks the servers, and returns who keeps what the settings promise.
async fn verified(settings: &Settings) -> Result<Checked, DurabilityError> {
    let reports = gather(settings).await?;
    check(settings.durability, settings.replicas, &reports)?;
    Ok(Checked::of(settings.replicas, reports))
}

/// The servers that were found to keep what is promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Their names, sorted.
    servers: Vec<String>,
    /// How many there are, as far as is known: those that are down are not known of before they
    /// have been in the cluster once.
    of: usize,
}

impl Checked {
    fn of(replicas: usize, reports: Vec<ServerReport>) -> Self {
        let known = reports.iter().filter_map(|report| report.cluster_size).max();
        let of = known.unwrap_or_default().max(replicas).max(reports.len());
        let mut servers: Vec<_> = reports.into_iter().map(|report| report.server).collect();
        servers.sort_unstable();
        Self { servers, of }
    }

    fn is_complete(&self) -> bool {
        self.servers.len() >= self.of
    }

    fn tell(&self, level: Durability) {
        let (checked, servers, of) = (self.servers.len(), self.servers.join(", "), self.of);
        if self.is_complete() {
            info!(%level, checked, servers, "the servers keep what is promised");
        } else {
            warn!(
                %level, checked, of, servers,
                "some servers are down, and their settings were not checked: they will be"
            );
        }
    }
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
        let (server, version) = (name.to_owned(), version.to_owned());
        ServerReport { server, version, sync_always, cluster_size: None }
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
    fn a_server_of_which_nobody_heard_is_missed() {
        let of = |replicas, sizes: &[Option<usize>]| {
            let reports = sizes.iter().zip(["a", "b", "c", "d", "e"]).rev();
            let reports = reports.map(|(&cluster_size, name)| ServerReport {
                cluster_size,
                ..server(name, "", true)
            });
            Checked::of(replicas, reports.collect())
        };
        for (replicas, sizes, all, complete) in [
            (1, &[None][..], 1, true),
            (3, &[None, None], 3, false),
            (3, &[Some(3), Some(3), Some(3)], 3, true),
            (3, &[Some(3), Some(3)], 3, false),
            // Three copies on five servers: the ones that did not answer may have them.
            (3, &[Some(5), Some(5), Some(5)], 5, false),
            (3, &[Some(4), None, Some(5), Some(5)], 5, false),
            (3, &[Some(5); 5], 5, true),
            // Without a cluster's word, those that answered are all that is known.
            (1, &[None, None], 2, true),
        ] {
            let found = of(replicas, sizes);
            assert_eq!((found.of, found.is_complete()), (all, complete), "{sizes:?}");
            assert!(found.servers.is_sorted() && found.servers.len() == sizes.len());
        }
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
