//! The connection, and the door to everything else.

mod api;
mod connect;
mod link;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_nats::{
    connection::State,
    jetstream::{self, message::StreamMessage, stream::RawMessageErrorKind},
};
use fanfare_domain::{ShardCount, StoredEvent, Timestamp};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::{
    api::{ApiError, ask, server_time, tell},
    link::Link,
};
use crate::{
    ReadError, Settings, bootstrap,
    durability::{self, DurabilityError, VERSION_MIN, Version},
    publish::acks::Acks,
    read::Patience,
    topology::{Stream, Topology},
};

/// How long a server that is starting is waited for.
const START: Duration = Duration::from_secs(30);
/// How long one question to the servers may take before it is asked again.
const ANSWER: Duration = Duration::from_secs(3);
/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);

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
    /// The credentials could not be read.
    #[error("cannot read NATS credentials from {path}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No connection.
    #[error("cannot reach NATS at {url}")]
    Unreachable {
        /// Where it was looked for, without user and password.
        url: String,
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
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
         fixed when the streams are made. Set shards = {found}, or use another prefix"
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
    /// The servers do not keep what was promised.
    #[error(transparent)]
    Durability(#[from] DurabilityError),
}

/// The event log. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct EventLog {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) topology: Topology,
    pub(crate) settings: Settings,
    pub(crate) shards: ShardCount,
    pub(crate) inbox_identity: String,
    /// Who waits for which acknowledgement.
    pub(crate) acks: Arc<Acks>,
    pub(crate) link: Arc<Link>,
    /// The highest sequence of JOURNAL that this process knows of.
    pub(crate) journal_seen: AtomicU64,
    /// Cancelled when the log is being closed.
    pub(crate) closed: CancellationToken,
    /// Ends with the log.
    _tasks: JoinSet<()>,
}

impl EventLog {
    /// Connects (waiting up to 30 s for a server that is starting), checks the servers' version
    /// and durability, and makes or migrates the streams. `name` is shown by `nats` tools.
    pub async fn open(name: &str, settings: &Settings) -> Result<Self, OpenError> {
        let deadline = Instant::now() + START;
        let acks = Arc::new(Acks::default());
        let link = Arc::new(Link::new(Arc::clone(&acks)));
        let client = connect::connect(name, settings, &link, deadline).await?;
        check_version(&client)?;
        durability::verify(settings).await?;
        let jetstream =
            jetstream::context::ContextBuilder::new().timeout(ANSWER).build(client.clone());
        let topology = Topology::new(&settings.prefix);
        let found = bootstrap::run(&jetstream, &topology, settings, deadline).await?;
        let unreachable = |source: async_nats::SubscribeError| OpenError::NoJetStream {
            url: settings.shown_url(),
            source: source.into(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(acks.receive(&client).await.map_err(unreachable)?);
        info!(url = settings.shown_url(), prefix = settings.prefix, "the event log is open");
        let inner = Inner {
            client,
            jetstream,
            topology,
            settings: settings.clone(),
            shards: found.shards,
            inbox_identity: found.inbox_identity,
            acks,
            link,
            journal_seen: AtomicU64::new(0),
            closed: CancellationToken::new(),
            _tasks: tasks,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How many shards the installation has.
    pub fn shards(&self) -> ShardCount {
        self.inner.shards
    }

    /// The names of the installation.
    pub fn topology(&self) -> &Topology {
        &self.inner.topology
    }

    /// The most bytes that the servers take in one message, headers included.
    pub fn payload_max(&self) -> usize {
        self.inner.client.max_payload()
    }

    /// The identity of INBOX for event ids: its name and time of creation.
    pub fn inbox_identity(&self) -> &str {
        &self.inner.inbox_identity
    }

    /// Reads one event by its sequence; `None` if it is no longer in the log.
    pub async fn event(&self, sequence: u64) -> Result<Option<StoredEvent>, ReadError> {
        let Some(message) = self.get(Stream::Events, Which::Sequence(sequence)).await? else {
            return Ok(None);
        };
        let stored_at = timestamp(message.time);
        fanfare_proto::decode_event(message.payload, sequence, stored_at).map(Some).map_err(
            |source| ReadError::Unreadable {
                stream: self.topology().stream(Stream::Events),
                sequence,
                source,
            },
        )
    }

    /// Tells whether the connection is up at this moment.
    pub fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == State::Connected
    }

    /// Hands everything that was queued, acks included, to the server. Call before the last
    /// clone is dropped: the client loses queued acks otherwise.
    ///
    /// Nothing can be written or read afterwards. Takes 5 s at most, which it needs only if
    /// there is no server.
    pub async fn close(&self) {
        self.inner.closed.cancel();
        let client = &self.inner.client;
        let handing_over = async {
            client.flush().await.map_err(async_nats::Error::from)?;
            // An answer to a question asked last means that all before it was taken.
            ask::<serde_json::Value>(&self.inner.jetstream, "INFO").await?;
            client.drain().await.map_err(async_nats::Error::from)
        };
        match timeout(CLOSE, handing_over).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "queued acknowledgements may be lost"),
            Err(_) => warn!("queued acknowledgements may be lost: the servers do not answer"),
        }
    }

    /// Reads one message. Loss of the connection is waited out.
    pub(crate) async fn get(
        &self,
        stream: Stream,
        which: Which<'_>,
    ) -> Result<Option<StreamMessage>, ReadError> {
        let mut patience = Patience::new(self, self.topology().stream(stream));
        loop {
            match self.try_get(stream, which).await {
                Ok(found) => return Ok(found),
                Err(error) => patience.bear(error).await?,
            }
        }
    }

    async fn try_get(
        &self,
        stream: Stream,
        which: Which<'_>,
    ) -> Result<Option<StreamMessage>, async_nats::Error> {
        let handle = self.stream(stream).await?;
        let asked = match which {
            // A replica that lags behind does not know what is new: only the leader can say no.
            Which::Sequence(sequence) => match handle.direct_get(sequence).await {
                Ok(message) => Ok(message),
                Err(_) => handle.get_raw_message(sequence).await,
            },
            Which::First(subject) => handle.get_first_raw_message_by_subject(subject, 1).await,
            Which::Last(subject) => handle.get_last_raw_message_by_subject(subject).await,
        };
        match asked {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The last sequence of a stream, by its leader. Loss of the connection is waited out.
    pub(crate) async fn last_sequence(&self, stream: Stream) -> Result<u64, ReadError> {
        let name = self.topology().stream(stream);
        let mut patience = Patience::new(self, name.clone());
        loop {
            match api::stream_info(&self.inner.jetstream, &name).await {
                Ok(info) => return Ok(info.state.last_sequence),
                Err(error) => patience.bear(error.into()).await?,
            }
        }
    }

    /// A handle that asks the server nothing when it is made.
    pub(crate) async fn stream(
        &self,
        stream: Stream,
    ) -> Result<jetstream::stream::Stream<()>, ReadError> {
        self.stream_named(&self.topology().stream(stream)).await
    }

    /// The same, by the stream's name.
    pub(crate) async fn stream_named(
        &self,
        name: &str,
    ) -> Result<jetstream::stream::Stream<()>, ReadError> {
        let handle = self.inner.jetstream.get_stream_no_info(name).await;
        let refused = |source: jetstream::context::GetStreamError| ReadError::Refused {
            stream: name.to_owned(),
            source: source.into(),
        };
        handle.map_err(refused)
    }
}

/// Which message of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// The one with this sequence, from any replica that has it.
    Sequence(u64),
    /// The first under this subject, by the stream's leader.
    First(&'a str),
    /// The last under this subject, which may hold wildcards, by the stream's leader.
    Last(&'a str),
}

fn check_version(client: &async_nats::Client) -> Result<(), OpenError> {
    let found = client.server_info().version;
    if found.parse::<Version>().is_ok_and(|version| version >= VERSION_MIN) {
        return Ok(());
    }
    Err(OpenError::TooOld { found })
}

/// Converts a time of the client's.
pub(crate) fn timestamp(time: async_nats::datetime::DateTime) -> Timestamp {
    Timestamp::from_nanos(u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default())
}

/// Converts a time for the client; the epoch for what it cannot express.
pub(crate) fn date_time(time: Timestamp) -> async_nats::datetime::DateTime {
    let nanos = i128::from(time.as_nanos());
    async_nats::datetime::from_nanos(nanos).expect("64 bits of nanoseconds end in the year 2554")
}
