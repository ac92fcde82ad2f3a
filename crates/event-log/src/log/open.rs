//! Opening the log: as a service, which makes the streams, or as a client, which only looks.

mod attach;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_nats::jetstream;
use fanfare_domain::ShardCount;
use futures_util::future::BoxFuture;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Denial, EventLog, Inner, Link, connect};
use crate::{
    AccessError, Settings, bootstrap,
    durability::{self, Checked, DurabilityError, VERSION_MIN, Version},
    publish::{Windows, acks::Acks},
    topology::Topology,
};

/// How long a server that is starting is waited for.
const START: Duration = Duration::from_secs(30);
/// How long one question to the servers may take before it is asked again.
const ANSWER: Duration = Duration::from_secs(3);
/// The same of questions that others wait for: how far CONFIG has come, and who has a role.
const PATIENCE: Duration = Duration::from_secs(2);

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is none.
    #[error("not a URL of NATS servers: {url}")]
    MalformedUrl {
        /// The URL, without user and password.
        url: String,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// What lets us in cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No connection.
    #[error("cannot reach NATS at {url}")]
    Unreachable {
        /// Where it was looked for, without user and password.
        url: String,
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The servers are there, and the connection cannot be protected.
    #[error(
        "NATS at {url} and we do not trust each other: check log.ca_file, that the servers' \
         certificates name the hosts of log.url, and, where they ask for a certificate, \
         log.certificate_file and log.certificate_key_file"
    )]
    Tls {
        /// Where it is, without user and password.
        url: String,
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The servers are there, and refuse user, password or credentials.
    #[error(
        "NATS at {url} does not let us in as {who} ({kind}): check what log.nkey_file, \
         log.credentials_file, log.user and log.password_file or the URL say, and that the servers \
         know this user"
    )]
    Denied {
        /// Where it is, without user and password.
        url: String,
        /// As whom, without any secret.
        who: String,
        /// What the client said.
        kind: async_nats::ConnectErrorKind,
    },
    /// The server is too old.
    #[error(
        "NATS {found} is too old: {VERSION_MIN} or newer is needed, because older servers lose \
         scheduled messages, and with them retries"
    )]
    TooOld {
        /// The version that the server says it has.
        found: String,
    },
    /// The servers or the account are without `JetStream`.
    #[error("JetStream does not answer at {url}: enable it on the servers and for the account")]
    NoJetStream {
        /// Where it was asked, without user and password.
        url: String,
        /// What the client said.
        #[source]
        source: async_nats::Error,
    },
    /// The streams were made for another number of shards.
    #[error(
        "the installation {prefix} has {found} shards and the setting says {asked}: the number is \
         fixed when the streams are made. Set log.shards={found} (for `fanfare up`: [log] and \
         shards = {found} in the file given with --config), or use another prefix"
    )]
    ShardsDiffer {
        /// Which installation.
        prefix: String,
        /// What it has.
        found: String,
        /// What the settings say.
        asked: ShardCount,
    },
    /// A stream could not be made or put right.
    #[error("cannot make or update stream {stream}")]
    Stream {
        /// Which stream.
        stream: String,
        /// What the server or the client said.
        #[source]
        source: async_nats::Error,
    },
    /// The servers do not let our user do what has to be done.
    #[error(transparent)]
    Forbidden(#[from] Denial),
    /// A stream is missing, or not as the settings say, and our user may not change that.
    #[error(
        "stream {stream} {lack}, and this user of NATS may not make or change streams: run `fanfare \
         bootstrap` with the same [log] settings, as a user that may"
    )]
    Unprovisioned {
        /// Which stream.
        stream: String,
        /// What is wrong.
        lack: Lack,
    },
    /// There is nothing to attach to.
    #[error(
        "there is no Fanfare installation {prefix} at {url} (no stream {stream}): start one there \
         with `fanfare up` or the services, or name another prefix or other servers"
    )]
    NotInstalled {
        /// Which installation was looked for.
        prefix: String,
        /// Where it was looked for, without user and password.
        url: String,
        /// What is missing.
        stream: String,
    },
    /// A stream that is there could not be looked at.
    #[error("cannot see how stream {stream} is kept")]
    Unseen {
        /// Which stream.
        stream: String,
        /// What the server or the client said.
        #[source]
        source: async_nats::Error,
    },
    /// A stream of that name is there, and it is not Fanfare's.
    #[error(
        "stream {stream} does not say how many shards there are, so Fanfare did not make it: name \
         another prefix"
    )]
    Foreign {
        /// Which stream.
        stream: String,
    },
    /// The servers do not keep what was promised.
    #[error(transparent)]
    Durability(#[from] DurabilityError),
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It is there, and differs from what the settings say.
    #[error("differs from what the settings say ({})", .0.join(", "))]
    Different(
        /// In what, as the servers call it.
        Vec<String>,
    ),
}

/// What [`EventLog::provision`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// The streams that it made, buckets included.
    pub made: Vec<String>,
    /// The streams that it changed.
    pub updated: Vec<String>,
    /// Those that were as they should be.
    pub unchanged: Vec<String>,
}

/// What is known of an installation.
struct Installation {
    settings: Settings,
    /// Who keeps what was promised, if that was checked.
    checked: Option<Checked>,
    shards: ShardCount,
    inbox_identity: String,
}

/// A connection, before anything is known of the installation.
struct Road {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    acks: Arc<Acks>,
    link: Arc<Link>,
    patience: Duration,
}

impl EventLog {
    /// Connects (waiting up to 30 s for a server that is starting), checks the servers' version
    /// and durability, and makes or migrates the streams. `name` is shown by `nats` tools.
    ///
    /// For as long as it is open, durability is [checked again](crate::durability) now and then.
    pub async fn open(name: &str, settings: &Settings) -> Result<Self, OpenError> {
        Self::open_patiently(name, settings, PATIENCE).await
    }

    /// As [`Self::open`], but leases and views of the configuration ask again only after
    /// `patience` without an answer, and all else no sooner. So a test can tell a question that
    /// is asked again because of something from one that only waited long enough.
    #[doc(hidden)]
    pub fn open_patiently<'a>(
        name: &'a str,
        settings: &'a Settings,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Self, OpenError>> {
        Box::pin(async move {
            let deadline = Instant::now() + START;
            let road = Road::to(name, settings, patience, deadline).await?;
            let checked = durability::at_start(settings).await?;
            let topology = Topology::new(&settings.prefix);
            let servers = (&road.jetstream, &*road.link);
            let found = bootstrap::run(servers, &topology, settings, deadline).await?;
            let (shards, inbox_identity) = (found.shards, found.inbox_identity);
            let settings = settings.clone();
            let log = road.lead(Installation { settings, checked, shards, inbox_identity }).await?;
            let settings = &log.inner.settings;
            info!(url = settings.shown_url(), prefix = settings.prefix, "the event log is open");
            Ok(log)
        })
    }
}

impl EventLog {
    /// Makes the streams, or puts them right, as a user that may; then the services need not be
    /// allowed to. Checks what [`Self::open`] does, and waits as long.
    pub async fn provision(name: &str, settings: &Settings) -> Result<Provisioned, OpenError> {
        let deadline = Instant::now() + START;
        let road = Road::to(name, settings, PATIENCE, deadline).await?;
        durability::at_start(settings).await?;
        let topology = Topology::new(&settings.prefix);
        let servers = (&road.jetstream, &*road.link);
        Ok(bootstrap::run(servers, &topology, settings, deadline).await?.provisioned)
    }
}

impl Road {
    async fn to(
        name: &str,
        settings: &Settings,
        patience: Duration,
        deadline: Instant,
    ) -> Result<Self, OpenError> {
        let acks = Arc::new(Acks::default());
        let link = Arc::new(Link::new(Arc::clone(&acks)));
        let client = connect::connect(name, settings, &link, deadline).await?;
        check_version(&client)?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(ANSWER.max(patience))
            .build(client.clone());
        Ok(Self { client, jetstream, acks, link, patience })
    }

    async fn lead(self, installation: Installation) -> Result<EventLog, OpenError> {
        let Self { client, jetstream, acks, link, patience } = self;
        let Installation { settings, checked, shards, inbox_identity } = installation;
        let mut tasks = JoinSet::new();
        let receiving = acks.receive(&client).await.map_err(|source| OpenError::NoJetStream {
            url: settings.shown_url(),
            source: source.into(),
        })?;
        tasks.spawn(receiving);
        let closed = CancellationToken::new();
        let watching = durability::watch(settings.clone(), checked, link.connects());
        let watching = closed.clone().run_until_cancelled_owned(watching);
        tasks.spawn(async move {
            let _closed = watching.await;
        });
        let windows = Windows::new(settings.window);
        let inner = Inner {
            client,
            jetstream,
            topology: Topology::new(&settings.prefix),
            settings,
            patience,
            shards,
            inbox_identity,
            acks,
            link,
            windows,
            journal_seen: AtomicU64::new(0),
            closed,
            _tasks: tasks,
        };
        Ok(EventLog { inner: Arc::new(inner) })
    }
}

fn check_version(client: &async_nats::Client) -> Result<(), OpenError> {
    let found = client.server_info().version;
    if found.parse::<Version>().is_ok_and(|version| version >= VERSION_MIN) {
        return Ok(());
    }
    Err(OpenError::TooOld { found })
}
