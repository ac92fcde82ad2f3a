//! Looks names up, with a limit on the time and on the number of answers.
//!
//! The name servers are asked directly, and each look-up waits on its own: names whose servers do
//! not answer cost a timer each, and do not hold up others. Answers are kept for as long as they say,
//! a minute at most; they are judged each time they are used.
//!
//! Endpoints' names stand for themselves. The domains that the machine's own configuration would try
//! with a name (`search`, which Kubernetes sets) are for the machine's neighbours: a name in one of
//! them is another host, that nobody has named. Only what has no dot can be a neighbour's.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
        ResolverOpts,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::Name,
    system_conf::read_system_conf,
};
use tokio::{sync::Semaphore, time::timeout};

/// The most addresses that a name may have.
const ADDRESSES_MAX: usize = 64;
/// How long an answer is kept at most, and how long it is kept that there is none.
const KEPT_MAX: Duration = Duration::from_mins(1);
const MISSING_KEPT_MAX: Duration = Duration::from_secs(5);
/// How many look-ups may be under way at once, in all and on a connection to a name server.
pub(crate) const LOOKUPS_MAX: usize = 4_096;

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// The name servers say that there is none, or failed.
    #[error("the host's name could not be resolved")]
    Failed,
    /// The name servers did not answer in time.
    #[error("the host's name was not resolved in time")]
    TimedOut,
    /// The name has more addresses than an honest one needs.
    #[error("the host's name has more than {ADDRESSES_MAX} addresses")]
    TooMany,
}

pub(crate) type Found = Result<Arc<[IpAddr]>, LookupError>;

/// Looks names up.
#[derive(Clone)]
pub(crate) struct Resolver {
    names: Names,
    permits: Arc<Semaphore>,
    timeout: Duration,
}

/// Who knows the names.
#[derive(Clone)]
enum Names {
    /// Name servers.
    Asked {
        resolver: Arc<TokioResolver>,
        /// Whether names without a dot may be of the system's own domains.
        neighbours: bool,
    },
    /// A test.
    #[cfg(test)]
    Told(fn(&str) -> Found),
}

impl Resolver {
    /// Asks these name servers, or those of the system if there are none, in that time.
    pub(crate) fn new(servers: &[SocketAddr], timeout: Duration) -> Result<Self, NetError> {
        let (config, options) = if servers.is_empty() {
            // Without any it is this machine's, as everywhere.
            read_system_conf().unwrap_or_else(|_| {
                let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
                (ResolverConfig::from_parts(None, Vec::new(), vec![local]), ResolverOpts::default())
            })
        } else {
            let servers = servers.iter().copied().map(name_server).collect();
            let mut options = ResolverOpts::default();
            options.use_hosts_file = ResolveHosts::Never;
            (ResolverConfig::from_parts(None, Vec::new(), servers), options)
        };
        Self::by(config, options, servers.is_empty(), timeout)
    }

    /// Asks whom a configuration names. `neighbours` says whether it is the system's.
    fn by(
        config: ResolverConfig,
        mut options: ResolverOpts,
        neighbours: bool,
        timeout: Duration,
    ) -> Result<Self, NetError> {
        // What is lost is asked for once more in time.
        options.timeout = timeout / 2;
        options.attempts = 1;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.positive_max_ttl = Some(KEPT_MAX);
        options.negative_max_ttl = Some(MISSING_KEPT_MAX);
        options.max_active_requests = LOOKUPS_MAX;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = Arc::new(builder.with_options(options).build()?);
        Ok(Self::of(Names::Asked { resolver, neighbours }, timeout))
    }

    fn of(names: Names, timeout: Duration) -> Self {
        Self { names, permits: Arc::new(Semaphore::new(LOOKUPS_MAX)), timeout }
    }

    /// Asks a test.
    #[cfg(test)]
    pub(crate) fn with(timeout: Duration, told: fn(&str) -> Found) -> Self {
        Self::of(Names::Told(told), timeout)
    }

    /// Returns how many names are being looked up.
    pub(crate) fn under_way(&self) -> usize {
        LOOKUPS_MAX.saturating_sub(self.permits.available_permits())
    }

    /// Returns the addresses of a name: at least one.
    pub(crate) async fn resolve(&self, name: &str) -> Found {
        let finding = async {
            let _permit = self.permits.acquire().await.map_err(|_| LookupError::Failed)?;
            self.names.find(name).await
        };
        timeout(self.timeout, finding).await.unwrap_or(Err(LookupError::TimedOut))
    }
}

impl Names {
    async fn find(&self, name: &str) -> Found {
        match self {
            Self::Asked { resolver, neighbours } => {
                let mut name = Name::from_ascii(name).map_err(|_| LookupError::Failed)?;
                name.set_fqdn(name.is_fqdn() || !neighbours || name.num_labels() > 1);
                match resolver.lookup_ip(name).await {
                    Ok(found) => gather(found.iter()),
                    Err(NetError::Timeout) => Err(LookupError::TimedOut),
                    Err(_) => Err(LookupError::Failed),
                }
            }
            #[cfg(test)]
            Self::Told(told) => told(name),
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    server.connections = server.connections.into_iter().map(at_port).collect();
    server
}

fn gather(answers: impl Iterator<Item = IpAddr>) -> Found {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in answers {
        if addresses.contains(&address) {
            continue;
        }
        if addresses.len() == ADDRESSES_MAX {
            return Err(LookupError::TooMany);
        }
        addresses.push(address);
    }
    if addresses.is_empty() { Err(LookupError::Failed) } else { Ok(addresses.into()) }
}

#[cfg(test)]
mod tests;
