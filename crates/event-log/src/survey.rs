//! How full the streams are, and how far behind their readers: a look now and then, for metrics.

use std::collections::BTreeMap;

use fanfare_domain::{Timestamp, chain};
use futures_util::future::{join, join_all};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tracing::debug;

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
    /// Every stream of the installation that could be looked at.
    pub streams: Vec<StreamState>,
    /// Every reader of them.
    pub readers: Vec<ReaderState>,
    /// What all that the account keeps takes on disk; `None` if that could not be asked.
    pub storage: Option<Storage>,
    /// What could not be looked at: streams, and the account.
    pub unseen: Vec<&'static str>,
}

/// What an account keeps on disk, other installations' streams included. Where the account has a
/// limit for each number of replicas, this is about the one that is the fullest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// In bytes.
    pub bytes: u64,
    /// How much that may be; `None` without a limit. What the servers' disks hold, an account does
    /// not know.
    pub bytes_max: Option<u64>,
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

/// What there is of an account.
#[derive(Deserialize)]
struct Account {
    #[serde(flatten)]
    whole: Tier,
    #[serde(default)]
    tiers: Option<BTreeMap<String, Tier>>,
}

#[derive(Deserialize)]
struct Tier {
    #[serde(default)]
    storage: u64,
    limits: AccountLimits,
}

#[derive(Deserialize)]
struct AccountLimits {
    #[serde(default)]
    max_storage: i64,
}

/// The account among what could not be looked at.
const ACCOUNT: &str = "account";

impl EventLog {
    /// Looks at every stream and its readers, and at the account. Costs the servers two questions for
    /// each stream: not to be asked many times a second. What cannot be looked at is left out.
    ///
    /// # Errors
    ///
    /// If no stream can be looked at within seconds.
    pub async fn survey(&self) -> Result<Survey, ReadError> {
        let streams = join_all(Stream::ALL.map(|stream| self.look_at(stream)));
        let account = ask::<Account>(&self.inner.jetstream, "INFO");
        let (streams, account) = join(streams, account).await;
        let (mut survey, mut failure) = (Survey::default(), None);
        for (stream, found) in Stream::ALL.into_iter().zip(streams) {
            match found {
                Ok((state, readers)) => {
                    survey.streams.push(state);
                    for reader in readers {
                        survey.note(reader);
                    }
                }
                Err(error) => {
                    let stream = stream.as_str();
                    debug!(stream, error = chain(&error), "a stream cannot be looked at");
                    survey.unseen.push(stream);
                    failure = Some(error);
                }
            }
        }
        match account {
            Ok(account) => survey.storage = account.storage(),
            Err(error) => {
                debug!(error = chain(&error), "the account cannot be looked at");
                survey.unseen.push(ACCOUNT);
            }
        }
        match failure {
            Some(error) if survey.streams.is_empty() => Err(error),
            Some(_) | None => Ok(survey),
        }
    }

    async fn look_at(&self, stream: Stream) -> Result<(StreamState, Vec<ReaderState>), ReadError> {
        let name = self.topology().stream(stream);
        let info: Info = self.look(&name, "STREAM.INFO", None).await?;
        let (mut readers, mut seen) = (Vec::new(), 0);
        loop {
            let page: Page = self.look(&name, "CONSUMER.LIST", Some(seen)).await?;
            let consumers = page.consumers.unwrap_or_default();
            let count = consumers.len();
            readers.extend(consumers.into_iter().map(|consumer| consumer.state(stream)));
            seen += count;
            if count == 0 || seen >= page.total {
                return Ok((info.state(stream), readers));
            }
        }
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

impl Account {
    /// What is kept of what may be, of the tier that is the fullest if there are several.
    fn storage(self) -> Option<Storage> {
        let tiers = self.tiers.unwrap_or_default();
        let tiers = if tiers.is_empty() { vec![self.whole] } else { tiers.into_values().collect() };
        tiers.iter().map(Tier::storage).max_by_key(|storage| (storage.permille(), storage.bytes))
    }
}

impl Tier {
    fn storage(&self) -> Storage {
        let bytes_max = u64::try_from(self.limits.max_storage).ok().filter(|max| *max > 0);
        Storage { bytes: self.storage, bytes_max }
    }
}

impl Storage {
    /// How full it is, in thousandths.
    fn permille(&self) -> u64 {
        self.bytes_max.map_or(0, |max| self.bytes.saturating_mul(1_000) / max)
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
    use serde_json::Value;

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
    fn of_an_account_with_several_limits_the_one_that_is_the_fullest_counts() {
        let storage =
            |account: Value| serde_json::from_value::<Account>(account).unwrap().storage();
        let plain = |max| json!({"memory": 0, "storage": 70, "limits": {"max_storage": max}});
        let of = |bytes, bytes_max| Some(Storage { bytes, bytes_max });
        assert_eq!(storage(plain(-1)), of(70, None));
        assert_eq!(storage(plain(100)), of(70, Some(100)));
        let tiers = json!({
            "storage": 0, "limits": {"max_storage": 0},
            "tiers": {"R1": plain(100), "R3": plain(80)},
        });
        assert_eq!(storage(tiers), of(70, Some(80)));
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
