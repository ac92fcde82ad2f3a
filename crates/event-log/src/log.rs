//! The connection, and the door to everything else.

mod api;
mod connect;
mod denial;
mod link;
mod open;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_nats::{
    connection::State,
    jetstream::{
        self,
        message::StreamMessage,
        stream::{Info, RawMessageErrorKind},
    },
};
use fanfare_domain::{ShardCount, StoredEvent, Timestamp};
use futures_util::future::BoxFuture;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use self::{
    api::{ApiError, api_subject, ask, server_time, stream_info, tell, tell_within},
    link::{Connection, Link, Lost, number},
};
pub use self::{
    denial::{Act, Denial},
    open::{Lack, OpenError, Provisioned},
};
use crate::{
    ReadError, Settings,
    publish::{Windows, acks::Acks},
    read::Patience,
    topology::{Stream, Topology},
};

/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);

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
    /// How long one question about the newest message may take before it is asked again.
    pub(crate) patience: Duration,
    pub(crate) shards: ShardCount,
    pub(crate) inbox_identity: String,
    /// Who waits for which acknowledgement.
    pub(crate) acks: Arc<Acks>,
    pub(crate) link: Arc<Link>,
    /// Of all publishers.
    pub(crate) windows: Windows,
    /// The highest sequence of JOURNAL that this process knows of.
    pub(crate) journal_seen: AtomicU64,
    /// Cancelled when the log is being closed.
    pub(crate) closed: CancellationToken,
    /// Ends with the log.
    _tasks: JoinSet<()>,
}

impl EventLog {
    /// How many shards the installation has.
    pub fn shards(&self) -> ShardCount {
        self.inner.shards
    }

    /// How long events, facts and jobs are kept.
    pub fn retention(&self) -> Duration {
        self.inner.settings.retention
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

    /// Hands everything that was given to the connection, acks included, to the server. Call
    /// before the last clone is dropped: the client loses queued acks otherwise.
    ///
    /// Not so with writes that are on their way: nothing is sent or repeated any more, and who
    /// waits for one gets [`PublishError::Closed`](crate::PublishError::Closed) at once, whatever
    /// becomes of it. Of those, what was sent may be stored or not; what gathered behind a batch
    /// is not. So whoever has to know waits for [`Pending::stored`](crate::Pending::stored)
    /// before closing.
    ///
    /// Nothing can be written or read afterwards. Takes 5 s at most, which it needs only if
    /// there is no server.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
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
        })
    }

    /// Waits for an answer, but no longer than there is the connection that it was asked on.
    pub(crate) async fn answer<T>(&self, asked: impl Future<Output = T>) -> Result<T, Lost> {
        self.inner.link.answer(&self.inner.client, asked).await
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

    /// Reads one message, asking once.
    pub(crate) async fn try_get(
        &self,
        stream: Stream,
        which: Which<'_>,
    ) -> Result<Option<StreamMessage>, async_nats::Error> {
        self.try_get_from(&self.topology().stream(stream), which).await
    }

    /// The same, by the stream's name.
    pub(crate) fn try_get_from<'a>(
        &'a self,
        stream: &'a str,
        which: Which<'a>,
    ) -> BoxFuture<'a, Result<Option<StreamMessage>, async_nats::Error>> {
        Box::pin(async move {
            let handle = self.stream_named(stream).await?;
            let asking = async {
                match which {
                    // A replica that lags behind does not know what is new: only the leader can say no.
                    Which::Sequence(sequence) => match handle.direct_get(sequence).await {
                        Ok(message) => Ok(message),
                        Err(_) => handle.get_raw_message(sequence).await,
                    },
                    Which::First(subject) => {
                        handle.get_first_raw_message_by_subject(subject, 1).await
                    }
                    Which::From(subject, first) => {
                        handle.get_first_raw_message_by_subject(subject, first).await
                    }
                    Which::Last(subject) => handle.get_last_raw_message_by_subject(subject).await,
                }
            };
            match self.answer(asking).await? {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// The last sequence of a stream, by its leader. Loss of the connection is waited out.
    pub(crate) async fn last_sequence(&self, stream: Stream) -> Result<u64, ReadError> {
        Ok(self.info(stream).await?.state.last_sequence)
    }

    /// What a stream's leader says of it. Loss of the connection is waited out.
    pub(crate) fn info(&self, stream: Stream) -> BoxFuture<'_, Result<Info, ReadError>> {
        Box::pin(async move {
            let name = self.topology().stream(stream);
            let mut patience = Patience::new(self, name.clone());
            loop {
                match self.answer(stream_info(&self.inner.jetstream, &name)).await {
                    Ok(Ok(info)) => return Ok(info),
                    Ok(Err(error)) => patience.bear(error.into()).await?,
                    Err(lost) => patience.bear(lost.into()).await?,
                }
            }
        })
    }

    /// A handle that asks the server nothing when it is made.
    pub(crate) async fn stream(
        &self,
        stream: Stream,
    ) -> Result<jetstream::stream::Stream<()>, ReadError> {
        self.stream_named(&self.topology().stream(stream)).await
    }

    /// The same, by the stream's name.
    pub(crate) fn stream_named<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<jetstream::stream::Stream<()>, ReadError>> {
        Box::pin(async move {
            let handle = self.inner.jetstream.get_stream_no_info(name).await;
            let refused = |source: jetstream::context::GetStreamError| ReadError::Refused {
                stream: name.to_owned(),
                source: source.into(),
            };
            handle.map_err(refused)
        })
    }
}

/// Which message of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// The one with this sequence, from any replica that has it.
    Sequence(u64),
    /// The first under this subject, by the stream's leader.
    First(&'a str),
    /// The first under this subject from this sequence on, by the stream's leader. Costs nothing
    /// where the stream holds nothing behind it.
    From(&'a str, u64),
    /// The last under this subject, which may hold wildcards, by the stream's leader. With
    /// wildcards the server looks at every subject that there is.
    Last(&'a str),
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
