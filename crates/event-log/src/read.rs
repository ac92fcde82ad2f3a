//! Durable reading with explicit settling.

mod aside;
mod headers;
mod ordered;
mod patience;
mod places;
mod queue;
mod settler;

use std::{collections::VecDeque, future::poll_fn, task::Poll, time::Duration};

use async_nats::jetstream::Message;
use fanfare_domain::{Timestamp, chain};
use fanfare_proto::DecodeError;
use futures_util::StreamExt as _;
use tokio_util::sync::ReusableBoxFuture;
use tracing::debug;

pub(crate) use self::{
    aside::Unreadable,
    ordered::{Numbered, Ordered, Selection, Start},
    patience::Patience,
    places::{FAN_OUT, INGEST},
    queue::{Place, Queue},
};
pub use self::{
    headers::{Headers, InboxMessage},
    settler::Settler,
};
use crate::{EventLog, PublishError, log::timestamp};

/// Reading failed in a way that waiting does not cure.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The server refused.
    #[error("the server refused to read {stream}")]
    Refused {
        /// Which stream.
        stream: String,
        /// What the client said.
        #[source]
        source: async_nats::Error,
    },
    /// A record that cannot be read, and must not be passed over: its cause says why. Where
    /// [`DecodeError::is_from_newer_version`] holds, an upgrade can go on from there.
    #[error("record {sequence} of {stream} cannot be read")]
    Unreadable {
        /// Which stream.
        stream: String,
        /// The record's sequence.
        sequence: u64,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// Another reader has taken the queue over; what was handed out to us it gets too.
    #[error("another reader took over {consumer} of {stream}")]
    TakenOver {
        /// Which stream.
        stream: String,
        /// The queue.
        consumer: String,
    },
    /// Something was handed out to us and got lost on the way, so that what came next is out of
    /// order. A reader that is opened anew gets it, and everything behind it.
    #[error("a message of {stream} was handed out by {consumer} and never came")]
    Broken {
        /// Which stream.
        stream: String,
        /// The queue.
        consumer: String,
    },
    /// A record that cannot be read could not be set aside.
    #[error("a record of {stream} could not be set aside")]
    NotSetAside {
        /// Which stream it was read from.
        stream: String,
        /// Why.
        #[source]
        source: PublishError,
    },
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
}

/// Where a record stands, and how it came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub stored_at: Timestamp,
    /// How often it was handed out, this time included.
    pub delivered: u64,
    /// How many more there were to be handed out at that moment, as the servers count them.
    pub pending: u64,
    /// Whether its consequences may be on record already, longer ago than the duplicate window:
    /// handed out before, or stored before this process connected (or connected again).
    pub suspect: bool,
}

/// A record whose consequences are not recorded yet.
pub struct Unsettled<T> {
    /// The record.
    pub record: T,
    /// Where it stands.
    pub position: Position,
    /// What settles it.
    pub settler: Settler,
}

impl<T> Unsettled<T> {
    /// Settles the record.
    pub async fn settle(self) {
        self.settler.settle().await;
    }
}

/// Makes a record of a message.
type Decode<T> = fn(&EventLog, &Message, Position) -> Result<T, NotDecoded>;

/// Why a message is no record.
enum NotDecoded {
    /// It is to be set aside.
    Poison(String),
    /// A newer version wrote it.
    Newer(DecodeError),
}

impl From<DecodeError> for NotDecoded {
    fn from(error: DecodeError) -> Self {
        if error.is_from_newer_version() { Self::Newer(error) } else { Self::Poison(chain(&error)) }
    }
}

/// A durable place in a stream. Records that cannot be decoded are set aside (copied to
/// `<prefix>.aside.<stream>` of REJECTED, then settled, with a warning) and never seen here.
pub struct Reader<T> {
    log: EventLog,
    queue: Queue,
    place: Place,
    decode: Decode<T>,
    /// Decoded, and not returned yet.
    ready: VecDeque<Unsettled<T>>,
    /// To be set aside.
    poison: VecDeque<(Unreadable, Settler)>,
    /// The setting aside of the first of them, kept over calls that are dropped.
    setting_aside: Option<ReusableBoxFuture<'static, Result<(), PublishError>>>,
    /// How many messages the consumer has handed out to us.
    handed_out: u64,
}

impl<T> Reader<T> {
    async fn open(log: &EventLog, place: Place, decode: Decode<T>) -> Result<Self, ReadError> {
        let queue = Queue::open(log, place.clone()).await?;
        let (ready, poison) = (VecDeque::new(), VecDeque::new());
        let log = log.clone();
        let setting_aside = None;
        Ok(Self { log, queue, place, decode, ready, poison, setting_aside, handed_out: 0 })
    }

    /// Waits for a record, and returns it with what else is there, up to `max` (at least 1).
    ///
    /// Loss of the connection is waited out. Cancel safe: a record that was taken and not
    /// returned comes with the next call.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Unsettled<T>>, ReadError> {
        let max = max.max(1);
        loop {
            self.set_poison_aside().await?;
            if !self.ready.is_empty() {
                let count = max.min(self.ready.len());
                return Ok(self.ready.drain(..count).collect());
            }
            self.fetch(max).await?;
        }
    }

    /// Stops reading, and asks for what was fetched ahead to be handed out again at once, to
    /// others. Without it that happens after the settings' `ack_wait`.
    pub async fn stop(self) {
        let Self { log, queue, ready, .. } = self;
        for unsettled in ready {
            unsettled.settler.redeliver(Duration::ZERO).await;
        }
        for message in queue.stop().await {
            if let Some(settler) = Settler::of(&log, &message) {
                settler.redeliver(Duration::ZERO).await;
            }
        }
    }

    async fn fetch(&mut self, max: usize) -> Result<(), ReadError> {
        let (messages, since) = self.queue.next(max).await?;
        let mut broken = false;
        for message in messages {
            let Some((position, settler, number)) = place_of(&self.log, &message, since) else {
                debug!(subject = %message.subject, "passed over what is no message of a stream");
                continue;
            };
            self.handed_out += 1;
            if self.place.unbroken && number != self.handed_out {
                broken = true;
                break;
            }
            match (self.decode)(&self.log, &message, position) {
                Ok(record) => self.ready.push_back(Unsettled { record, position, settler }),
                Err(NotDecoded::Poison(error)) => {
                    let sequence = position.sequence;
                    let aside = Unreadable::new(self.place.stream, sequence, &message, error);
                    self.poison.push_back((aside, settler));
                }
                Err(NotDecoded::Newer(source)) => {
                    let stream = self.log.topology().stream(self.place.stream);
                    let sequence = position.sequence;
                    return Err(ReadError::Unreadable { stream, sequence, source });
                }
            }
        }
        if broken { Err(self.queue.broken()) } else { Ok(()) }
    }

    async fn set_poison_aside(&mut self) -> Result<(), ReadError> {
        while let Some((record, settler)) = self.poison.front() {
            let setting_aside = self.setting_aside.get_or_insert_with(|| {
                ReusableBoxFuture::new(self.log.clone().set_aside(record.clone()))
            });
            let set_aside = setting_aside.await;
            self.setting_aside = None;
            set_aside.map_err(|source| ReadError::NotSetAside {
                stream: self.log.topology().stream(self.place.stream),
                source,
            })?;
            settler.clone().settle().await;
            self.poison.pop_front();
        }
        Ok(())
    }
}

/// Where a message stands, what settles it, and its number among all that its consumer handed out.
fn place_of(
    log: &EventLog,
    message: &Message,
    since: Option<Timestamp>,
) -> Option<(Position, Settler, u64)> {
    let info = message.info().ok()?;
    let stored_at = timestamp(info.published);
    let delivered = u64::try_from(info.delivered).unwrap_or_default();
    let position = Position {
        sequence: info.stream_sequence,
        stored_at,
        delivered,
        pending: info.pending,
        suspect: delivered > 1 || since.is_none_or(|since| stored_at < since),
    };
    Some((position, Settler::of(log, message)?, info.consumer_sequence))
}

/// How often the client connected: another number means another connection.
pub(crate) fn connects(log: &EventLog) -> u64 {
    crate::log::number(&log.inner.client)
}

/// Returns what a stream has at this moment, without waiting.
async fn ready_now<S>(stream: &mut S) -> Option<Option<S::Item>>
where
    S: futures_util::Stream + Unpin,
{
    poll_fn(|context| match stream.poll_next_unpin(context) {
        Poll::Ready(item) => Poll::Ready(Some(item)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
