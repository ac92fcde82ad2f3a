//! Which endpoints are fed from EVENTS by their shard's owner, and the reading for it.
//!
//! The bucket of feeds holds one key for each, `<shard>.<endpoint>`, written by the shard's owner
//! by compare-and-set. Fan-out and owners follow all of it; fan-out confirms its view before it
//! routes, unless it knows of no feed and leaves nothing to any.

mod hints;
mod reading;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use fanfare_domain::{EndpointId, Feed, Shard};
use fanfare_proto::{DecodeError, decode_feed, encode_feed};
use tokio_util::sync::CancellationToken;

pub(crate) use self::reading::Message;
pub use self::{
    hints::FeedHints,
    reading::{Batch, Reach},
};
use crate::{
    EventLog, PublishError, ReadError, Topology,
    cas::{Cell, Held, Set, Write},
    read::{Numbered, Patience},
    topology::Bucket,
    view::{Fold, View},
};

/// A feed as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFeed {
    /// The feed.
    pub feed: Arc<Feed>,
    /// What the next write of it has to be made from.
    pub revision: u64,
}

/// How a write of a feed ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is stored, at this revision.
    Stored(u64),
    /// It is not what the caller expected.
    Conflict {
        /// What a write has to be made from.
        revision: u64,
        /// What is there; nothing if it was removed, or cannot be read.
        feed: Option<Box<Feed>>,
    },
}

/// All feeds of an installation.
#[derive(Debug, Default)]
pub struct Feeds {
    /// The key of each; what it begins with is the shard.
    feeds: HashMap<EndpointId, StoredFeed>,
    shards: HashMap<Shard, BTreeSet<EndpointId>>,
}

/// A view of all feeds. Cheap to clone.
#[derive(Clone)]
pub struct FeedsView {
    view: View<Feeds>,
}

impl Feeds {
    /// An endpoint's feed, if it has one.
    pub fn of(&self, endpoint: EndpointId) -> Option<&StoredFeed> {
        self.feeds.get(&endpoint)
    }

    /// The feeds of a shard.
    pub fn of_shard(&self, shard: Shard) -> impl Iterator<Item = &StoredFeed> {
        let endpoints = self.shards.get(&shard).into_iter().flatten();
        endpoints.filter_map(|endpoint| self.feeds.get(endpoint))
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.feeds.is_empty()
    }

    fn put(&mut self, shard: Shard, endpoint: EndpointId, stored: Option<StoredFeed>) {
        if let Some(stored) = stored {
            self.feeds.insert(endpoint, stored);
            self.shards.entry(shard).or_default().insert(endpoint);
            return;
        }
        self.feeds.remove(&endpoint);
        if let Some(endpoints) = self.shards.get_mut(&shard) {
            endpoints.remove(&endpoint);
        }
    }
}

impl Fold for Feeds {
    fn place(topology: &Topology) -> (String, Vec<String>) {
        let bucket = topology.bucket(Bucket::Feeds);
        (topology.bucket_stream(Bucket::Feeds), vec![format!("$KV.{bucket}.>")])
    }

    fn take(&mut self, numbered: &Numbered) -> Result<(), DecodeError> {
        let message = &numbered.message;
        let mut tokens = message.subject.rsplit('.');
        let endpoint = tokens.next().and_then(|token| token.parse().ok());
        let shard = tokens.next().and_then(|token| token.parse().ok()).map(Shard::from_index);
        // Nobody but us writes there.
        let (Some(endpoint), Some(shard)) = (endpoint, shard) else { return Ok(()) };
        let headers = message.headers.clone().unwrap_or_default();
        let held = Held::of(numbered.sequence, &headers, message.payload.clone());
        let stored = match held.value {
            Some(value) => {
                let feed = Arc::new(decode_feed(value)?);
                Some(StoredFeed { feed, revision: numbered.sequence })
            }
            None => None,
        };
        self.put(shard, endpoint, stored);
        Ok(())
    }
}

impl FeedsView {
    /// Folds all feeds, then returns the view and the future that follows what comes until `stop`;
    /// the caller spawns it. It behaves as that of a [`ConfigView`](crate::ConfigView).
    pub async fn start(
        log: &EventLog,
        stop: CancellationToken,
    ) -> Result<(Self, impl Future<Output = Result<(), ReadError>> + Send + use<>), ReadError> {
        let (view, follow) = View::start(Feeds::default(), log, stop).await?;
        Ok((Self { view }, follow))
    }

    /// Looks at the feeds. Never hold it over an await: the closure keeps that from happening.
    pub fn read<R>(&self, look: impl FnOnce(&Feeds) -> R) -> R {
        self.view.read(look)
    }

    /// The revision that the view has reached.
    pub fn revision(&self) -> u64 {
        self.view.revision()
    }

    /// Waits until the view has reached every write that was acknowledged before this call, as
    /// [`ConfigView::confirm`](crate::ConfigView::confirm) does. Cancel safe.
    pub async fn confirm(&self) -> Result<u64, ReadError> {
        self.view.confirm().await
    }
}

impl EventLog {
    /// Returns an endpoint's feed as it is stored, asking the bucket's leader. One that cannot be
    /// read is none.
    pub async fn feed(
        &self,
        shard: Shard,
        endpoint: EndpointId,
    ) -> Result<Option<Feed>, ReadError> {
        let cell = self.feed_cell(shard, endpoint);
        let mut patience = Patience::new(self, self.topology().bucket(Bucket::Feeds));
        let held = loop {
            match cell.get().await {
                Ok(held) => break held,
                Err(unanswered) => patience.bear(unanswered.source).await?,
            }
        };
        Ok(held.and_then(|held| decode_feed(held.value?).ok()))
    }

    /// Writes a feed, if it is still at the revision that this was made from; 0 for one that there
    /// is not. An unknown outcome is found out, for ever if need be: bound this from outside.
    pub async fn write_feed(
        &self,
        shard: Shard,
        feed: &Feed,
        expected: u64,
    ) -> Result<Written, PublishError> {
        self.set_feed((shard, feed.endpoint), expected, Write::Value(encode_feed(feed))).await
    }

    /// Removes a feed, as [`Self::write_feed`] writes one.
    pub async fn remove_feed(
        &self,
        shard: Shard,
        endpoint: EndpointId,
        expected: u64,
    ) -> Result<Written, PublishError> {
        self.set_feed((shard, endpoint), expected, Write::Deleted).await
    }

    async fn set_feed(
        &self,
        (shard, endpoint): (Shard, EndpointId),
        expected: u64,
        write: Write,
    ) -> Result<Written, PublishError> {
        match self.feed_cell(shard, endpoint).set(expected, &write).await? {
            Set::Stored(revision) => Ok(Written::Stored(revision)),
            Set::Conflict(held) => {
                let revision = held.as_ref().map_or(0, |held| held.sequence);
                let feed = held.and_then(|held| decode_feed(held.value?).ok());
                Ok(Written::Conflict { revision, feed: feed.map(Box::new) })
            }
        }
    }

    fn feed_cell(&self, shard: Shard, endpoint: EndpointId) -> Cell {
        self.key(&self.topology().bucket(Bucket::Feeds), &format!("{shard}.{endpoint}"))
    }
}
