//! Which streams tell what happened, and how far they go: for those who keep what they read elsewhere.

use crate::{EventLog, ReadError, log::timestamp, topology::Stream};

/// The streams that tell what happened, as they are at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// EVENTS.
    pub events: Mark,
    /// JOURNAL.
    pub journal: Mark,
    /// CONFIG.
    pub config: Mark,
}

/// A stream as it is at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its name and when it was made: another stream of that name differs. One that is restored from
    /// a backup does not, but may end earlier than it did.
    pub stream: String,
    /// The sequence of the last message that it took.
    pub last: u64,
}

impl EventLog {
    /// Asks the streams' leaders. A server that led a stream, was stopped for a while and does not know
    /// that it leads no more may tell an old end. Loss of the connection is waited out.
    pub async fn marks(&self) -> Result<Marks, ReadError> {
        Ok(Marks {
            events: self.mark(Stream::Events).await?,
            journal: self.mark(Stream::Journal).await?,
            config: self.mark(Stream::Config).await?,
        })
    }

    async fn mark(&self, stream: Stream) -> Result<Mark, ReadError> {
        let info = self.info(stream).await?;
        let made_at = timestamp(info.created).as_nanos();
        let stream = format!("{}@{made_at}", info.config.name);
        Ok(Mark { stream, last: info.state.last_sequence })
    }
}
