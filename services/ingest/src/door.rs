//! The ways in from outside, each on a connection of its own.
//!
//! What strangers send can break the connection that it comes by. So nothing else goes by these:
//! a broken one is made anew, and what came by it and was not settled comes again.

use std::time::Duration;

use anyhow::Context as _;
use fanfare_domain::chain;
use fanfare_event_log::{EventLog, InboxMessage, Reader, Requests, Settings};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long to wait before trying again to open a door.
const PAUSE: Duration = Duration::from_secs(1);

/// What comes by a door.
pub(crate) trait Entry: Sized + Send {
    /// What the connection is called.
    const NAME: &'static str;

    /// Begins to take what comes.
    fn open(log: &EventLog) -> impl Future<Output = anyhow::Result<Self>> + Send;
}

impl Entry for Reader<InboxMessage> {
    const NAME: &'static str = "ingest-inbox";

    async fn open(log: &EventLog) -> anyhow::Result<Self> {
        log.read_inbox().await.context("read the inbox")
    }
}

impl Entry for Requests {
    const NAME: &'static str = "ingest-requests";

    async fn open(log: &EventLog) -> anyhow::Result<Self> {
        log.requests().await.context("take requests")
    }
}

/// A way in.
pub(crate) struct Door<E> {
    /// What comes.
    pub(crate) entry: E,
    /// By which connection.
    pub(crate) log: EventLog,
    settings: Settings,
    connections: u64,
}

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// As it was.
    Calm,
    /// It was lost and made again.
    Reconnected,
    /// It will never do anything again.
    Dead,
}

impl<E: Entry> Door<E> {
    /// Opens a door.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let log = EventLog::open(E::NAME, settings).await.context("open the event log")?;
        let entry = E::open(&log).await?;
        let connections = log.connections();
        Ok(Self { entry, log, settings: settings.clone(), connections })
    }

    /// Opens a door by a connection that there is.
    pub(crate) async fn open_by(log: EventLog, settings: &Settings) -> anyhow::Result<Self> {
        let connections = log.connections();
        let entry = E::open(&log).await?;
        Ok(Self { entry, log, settings: settings.clone(), connections })
    }

    /// Opens a door as soon as that is possible; `None` if `stop` came first.
    pub(crate) async fn open_at_last(
        settings: &Settings,
        stop: &CancellationToken,
    ) -> Option<Self> {
        loop {
            match stop.run_until_cancelled(Box::pin(Self::open(settings))).await? {
                Ok(door) => return Some(door),
                Err(error) => {
                    let error = chain(error.as_ref());
                    warn!(error, connection = E::NAME, "cannot make the connection yet");
                }
            }
            stop.run_until_cancelled(sleep(PAUSE)).await?;
        }
    }

    /// Opens it again after its connection has died; `None` if `stop` came first.
    pub(crate) async fn open_again(self, stop: &CancellationToken) -> Option<Self> {
        let settings = self.settings.clone();
        drop(self);
        warn!(connection = E::NAME, "a message broke the connection, which is made anew");
        Self::open_at_last(&settings, stop).await
    }

    /// Looks how the connection is, compared with the last look.
    pub(crate) async fn look(&mut self) -> Condition {
        if !self.log.is_alive().await {
            return Condition::Dead;
        }
        let connections = self.log.connections();
        if std::mem::replace(&mut self.connections, connections) == connections {
            Condition::Calm
        } else {
            Condition::Reconnected
        }
    }
}
