//! An HTTP server that does to requests whatever a test tells it to, and remembers them.
//!
//! It stands in for a tenant's server: `HTTP/1.1` and `HTTP/2`, in clear or over TLS with a
//! certificate of its own authority, on a port of its own. It listens on loopback only, keeps at
//! most [`Receiver::RECORDED_MAX`] requests, and is gone when it is dropped.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use fanfare_testkit::receiver::{Behaviour, Receiver};
//! # async fn example() -> anyhow::Result<()> {
//! let receiver = Receiver::start().await?;
//! receiver.answer(Behaviour::statuses([500, 500, 200]));
//! // … let something send to receiver.url("/hook") …
//! let requests = receiver.wait_for(3, Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```

mod behaviour;
mod body;
mod certificate;
mod hostile;
mod raw;
mod record;
mod serve;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_rustls::TlsAcceptor;

pub use behaviour::{Behaviour, Gate, Reply};
pub use certificate::{Certificate, ClientIdentity};
pub use hostile::{Cover, Hostile, Step, Trick, trick, tricks};
pub use raw::{RawReceiver, Script};
pub use record::{Received, TooFew};

use certificate::Identity;
use record::Records;
use serve::Rules;

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    authority: Option<String>,
    client: Option<ClientIdentity>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// How a receiver is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In clear: `HTTP/1.1`, and `HTTP/2` for those that begin with it.
    Plain,
    /// Over TLS, offering `HTTP/2` and `HTTP/1.1`.
    Tls(Certificate),
    /// Over TLS, offering `HTTP/1.1` only.
    TlsHttp1(Certificate),
    /// Over TLS, offering `HTTP/2` and `HTTP/1.1` to clients that show a certificate of the
    /// receiver's authority.
    Mutual(Certificate),
}

/// What the connections have in common.
#[derive(Debug, Default)]
struct Shared {
    records: Records,
    rules: Rules,
}

impl Receiver {
    /// How many requests are kept; later ones are answered and counted, not kept.
    pub const RECORDED_MAX: usize = 100_000;
    /// The longest request body that is taken, in bytes; a longer one is cut off.
    pub const BODY_BYTES_MAX: usize = 16 << 20;

    /// Starts a receiver in clear that answers everything with 200.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Transport::Plain).await
    }

    /// Starts a receiver that answers everything with 200.
    pub async fn start_with(transport: Transport) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a receiver")?;
        let address = listener.local_addr().context("read a receiver's address")?;
        let made = |kind| Identity::make(kind, address).map(Some);
        let (identity, protocols) = match transport {
            Transport::Plain => (None, [].as_slice()),
            Transport::Tls(kind) | Transport::Mutual(kind) => {
                (made(kind)?, ["h2", "http/1.1"].as_slice())
            }
            Transport::TlsHttp1(kind) => (made(kind)?, ["http/1.1"].as_slice()),
        };
        let authority = identity.as_ref().map(|identity| identity.authority.clone());
        let client = identity.as_ref().map(|identity| identity.client.clone());
        let demands = matches!(transport, Transport::Mutual(_));
        let tls = identity.map(|identity| identity.serve(protocols, demands)).transpose()?;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve::accept(listener, tls.map(TlsAcceptor::from), Arc::clone(&shared)));
        Ok(Self { address, authority, client, shared, _tasks: tasks })
    }

    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of a path, with the address as host.
    pub fn url(&self, path: &str) -> String {
        self.url_as("127.0.0.1", path)
    }

    /// Returns the URL of a path, with another name for this host.
    pub fn url_as(&self, host: &str, path: &str) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}{path}", self.address.port())
    }

    /// Returns the certificate of the receiver's own authority, in PEM; `None` in clear.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Returns a certificate of the receiver's own authority for a client to show, with its key;
    /// `None` in clear.
    pub const fn client(&self) -> Option<&ClientIdentity> {
        self.client.as_ref()
    }

    /// Sets what is done with requests that no [`Self::answer_at`] is about.
    pub fn answer(&self, behaviour: Behaviour) {
        self.shared.rules.set(None, behaviour);
    }

    /// Sets what is done with requests to a path (without a query).
    pub fn answer_at(&self, path: &str, behaviour: Behaviour) {
        self.shared.rules.set(Some(path), behaviour);
    }

    /// Returns the requests so far, in the order in which their bodies were complete.
    pub fn requests(&self) -> Vec<Arc<Received>> {
        self.shared.records.all()
    }

    /// Returns how many requests there were.
    pub fn count(&self) -> usize {
        self.shared.records.count()
    }

    /// Returns how many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.shared.records.connections()
    }

    /// Returns the most requests that waited for their answer's head at one time.
    pub fn in_flight_max(&self) -> usize {
        self.shared.records.in_flight_max()
    }

    /// Waits until there were `wanted` requests, and returns all; fails once `within` has passed.
    ///
    /// Cancel safe: nothing is taken out.
    pub async fn wait_for(
        &self,
        wanted: usize,
        within: Duration,
    ) -> Result<Vec<Arc<Received>>, TooFew> {
        match timeout(within, self.shared.records.reached(wanted)).await {
            Ok(()) => Ok(self.requests()),
            Err(_) => Err(TooFew { wanted, seen: self.count() }),
        }
    }
}

#[cfg(test)]
mod tests;
