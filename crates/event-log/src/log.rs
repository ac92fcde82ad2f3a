//! The connection, and the door to everything else.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use fanfare_domain::{Shard, ShardCount, StoredEvent, Timestamp};

use crate::{Settings, topology::Topology};

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No connection.
    #[error("cannot reach NATS at {url}")]
    Unreachable {
        /// Where it was looked for, without user and password.
        url: String,
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
    },
    // helper: add TooOld{found, needed}, NoJetStream, ShardsDiffer{found, asked} (says what to do), Durability(..), Bootstrap(..)
}

/// The event log. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct EventLog {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: async_nats::jetstream::Context,
    pub(crate) topology: Topology,
    pub(crate) settings: Settings,
    pub(crate) shards: ShardCount,
}

impl EventLog {
    /// Connects (waiting up to 30 s for a server that is starting), checks the servers' version
    /// and durability, and makes or migrates the streams. `name` is shown by `nats` tools.
    pub async fn open(name: &str, settings: &Settings) -> Result<Self, OpenError> {
        let _ = (name, settings);
        todo!()
    }

    /// How many shards the installation has.
    pub fn shards(&self) -> ShardCount {
        self.inner.shards
    }

    /// The names of the installation.
    pub fn topology(&self) -> &Topology {
        &self.inner.topology
    }

    /// The most bytes that the servers take in one message.
    pub fn payload_max(&self) -> usize {
        self.inner.client.max_payload()
    }

    /// The identity of INBOX for event ids: its name and time of creation.
    pub fn inbox_identity(&self) -> &str {
        todo!()
    }

    /// Reads one event by its sequence; `None` if it is no longer in the log.
    pub async fn event(&self, sequence: u64) -> Result<Option<StoredEvent>, crate::ReadError> {
        let _ = sequence;
        todo!()
    }

    /// Tells whether the connection is up at this moment.
    pub fn is_connected(&self) -> bool {
        todo!()
    }

    /// Hands everything that was queued, acks included, to the server. Call before the last
    /// clone is dropped: the client loses queued acks otherwise.
    pub async fn close(&self) {
        todo!()
    }
}
