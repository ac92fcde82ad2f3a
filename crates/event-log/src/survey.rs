//! How full the streams are, and how far behind their readers: a look now and then, for metrics.

use fanfare_domain::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    EventLog, ReadError, cas,
    log::{ApiError, ask, tell},
    topology::Stream,
};

/// The name under which readers are found that go by no name of their own.
const FOLLOWERS: &str = "followers";

/// What there is at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Every stream of the installation.
    pub streams: Vec<StreamState>,
    /// Every reader of them.
    pub readers: Vec<ReaderState>,
}

/// How full a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Its name without the prefix of the installation.
    pub stream: &'static str,
    /// The messages that it holds.
    pub messages: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// What they may take; `None` without a limit.
    pub bytes_max: Option<u64>,
    /// The sequence of the last message that it took.
    pub last_sequence: u64,
    /// How old its oldest message is, in seconds, by the server's clock; 0 if it is empty.
    pub oldest_seconds: u64,
}

/// How far a reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderState {
    /// The stream's name without the prefix of the installation.
    pub stream: &'static str,
    /// The reader's name. What follows a stream for itself and settles nothing is `followers`,
    /// however many there are: the one that is furthest behind counts.
    pub reader: String,
    /// Messages that it was not handed yet.
    pub pending: u64,
    /// Messages that it was handed and has not settled.
    pub unsettled: u64,
    /// How many of those it may have; `None` without a limit.
    pub unsettled_max: Option<u64>,
    /// How many of those were handed out more than once.
    pub redelivered: u64,
}

#[derive(Deserialize)]
struct Info {
    config: StreamConfig,
    state: State,
    ts: Option<String>,
}

#[derive(Deserialize)]
struct StreamConfig {
    max_bytes: i64,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    last_seq: u64,
    first_ts: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    total: usize,
    #[serde(default)]
    consumers: Option<Vec<Consumer>>,
}

#[derive(Deserialize)]
struct Consumer {
    num_pending: u64,
    num_ack_pending: u64,
    num_redelivered: u64,
    config: ConsumerConfig,
}

#[derive(Deserialize)]
struct ConsumerConfig {
    #[serde(default)]
    durable_name: Option<String>,
    #[serde(default)]
    max_ack_pending: i64,
}

impl EventLog {
    /// Looks at every stream and its readers. Costs the servers two questions for each stream: not
    /// to be asked many times a second.
    ///
    /// # Errors
    ///
    /// If a question is not answered within seconds.
    pub async fn survey(&self) -> Result<Survey, ReadError> {
        let mut survey = Survey::default();
        for stream in Stream::ALL {
            let name = self.topology().stream(stream);
            let info: Info = self.look(&name, "STREAM.INFO", None).await?;
            survey.streams.push(info.state(stream));
            let mut seen = 0;
            loop {
                let page: Page = self.look(&name, "CONSUMER.LIST", Some(seen)).await?;
                let consumers = page.consumers.unwrap_or_default();
                let count = consumers.len();
                for consumer in consumers {
                    survey.note(consumer.state(stream));
                }
                seen += count;
                if count == 0 || seen >= page.total {
                    break;
                }
            }
        }
        Ok(survey)
    }

    async fn look<V: DeserializeOwned>(
        &self,
        name: &str,
        what: &str,
        offset: Option<usize>,
    ) -> Result<V, ReadError> {
        let subject = format!("{what}.{name}");
        let asked: Result<V, ApiError> = match offset {
            None => ask(&self.inner.jetstream, &subject).await,
            Some(offset) => {
                tell(&self.inner.jetstream, &subject, &json!({ "offset": offset })).await
            }
        };
        asked.map_err(|error| cas::refused(name, error))
    }
}

impl Survey {
    /// Adds a reader; of several followers of a stream, the one that is furthest behind stays.
    fn note(&mut self, reader: ReaderState) {
        let same = |other: &&mut ReaderState| {
            (other.stream, &*other.reader) == (reader.stream, &*reader.reader)
        };
        match self.readers.iter_mut().find(same) {
            Some(known) if known.pending >= reader.pending => {}
            Some(known) => *known = reader,
            None => self.readers.push(reader),
        }
    }
}

impl Info {
    fn state(self, stream: Stream) -> StreamState {
        let Self { config, state, ts } = self;
        let time = |text: Option<String>| text.as_deref().and_then(Timestamp::parse);
        let age = time(ts).zip(time(state.first_ts)).map(|(now, first)| now.since(first));
        StreamState {
            stream: stream.as_str(),
            messages: state.messages,
            bytes: state.bytes,
            bytes_max: u64::try_from(config.max_bytes).ok(),
            last_sequence: state.last_seq,
            oldest_seconds: age.filter(|_| state.messages > 0).unwrap_or_default().as_secs(),
        }
    }
}

impl Consumer {
    fn state(self, stream: Stream) -> ReaderState {
        let Self { num_pending, num_ack_pending, num_redelivered, config } = self;
        let name = config.durable_name.filter(|name| !name.is_empty());
        ReaderState {
            stream: stream.as_str(),
            reader: name.unwrap_or_else(|| String::from(FOLLOWERS)),
            pending: num_pending,
            unsettled: num_ack_pending,
            unsettled_max: u64::try_from(config.max_ack_pending).ok().filter(|max| *max > 0),
            redelivered: num_redelivered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_stream_has_no_oldest_message() {
        let info = |messages: u64, first: &str| -> StreamState {
            let info = json!({
                "config": {"max_bytes": -1},
                "state": {"messages": messages, "bytes": 0, "last_seq": 9, "first_ts": first},
                "ts": "2026-11-22T10:00:30.5Z",
            });
            serde_json::from_value::<Info>(info).unwrap().state(Stream::Deliveries)
        };
        let state = info(0, "0001-01-01T00:00:00Z");
        assert_eq!((state.oldest_seconds, state.bytes_max), (0, None));
        assert_eq!(info(1, "2026-11-22T10:00:00Z").oldest_seconds, 30);
    }

    #[test]
    fn of_followers_the_last_one_counts() {
        let mut survey = Survey::default();
        for (name, pending) in
            [(None, 3), (Some("fan-out"), 1), (None, 8), (None, 2), (Some(""), 5)]
        {
            let config =
                ConsumerConfig { durable_name: name.map(String::from), max_ack_pending: -1 };
            let (num_ack_pending, num_redelivered) = (0, 0);
            let consumer =
                Consumer { num_pending: pending, num_ack_pending, num_redelivered, config };
            survey.note(consumer.state(Stream::Events));
        }
        let found: Vec<_> = survey.readers.iter().map(|it| (&*it.reader, it.pending)).collect();
        assert_eq!(found, [(FOLLOWERS, 8), ("fan-out", 1)]);
    }
}
