//! Attaching to an installation that is there already.

use std::time::Duration;

use async_nats::jetstream::{
    Context, ErrorCode,
    stream::{Compression as Compressed, Config, Info},
};
use fanfare_domain::ShardCount;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{Installation, OpenError, PATIENCE, Road};
use crate::{
    EventLog, Settings,
    log::{Link, api, timestamp},
    settings::{Compression, Durability},
    topology::{SHARDS, Stream, Topology},
};

/// How long servers that have no leader yet are waited for, and how long between two looks.
const START: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

impl EventLog {
    /// Connects to an installation that is there, as a client of it: makes, migrates and checks
    /// nothing, so that whoever has only a look at it cannot change it. A server that is not
    /// there is not waited for; one that has no leader yet is, for 5 s.
    ///
    /// Of the settings, only those of the connection and of this process count (`url`,
    /// `login`, `tls`, `inbox_prefix`, `prefix`, `window`, `ack_wait`); what they say of the streams is
    /// replaced by how the streams are. What was promised of the servers is not known, and counts as
    /// [`Durability::Process`].
    ///
    /// Fails with [`OpenError::NotInstalled`] where the streams are missing.
    pub fn attach<'a>(
        name: &'a str,
        settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Self, OpenError>> {
        Box::pin(async move {
            let now = Instant::now();
            let road = Road::to(name, settings, PATIENCE, now).await?;
            let (context, link) = (&road.jetstream, &*road.link);
            let look = Look { context, link, settings, deadline: now + START };
            let journal = look.at(Stream::Journal).await?;
            let inbox = look.at(Stream::Inbox).await?;
            let created = timestamp(inbox.created).as_nanos();
            let inbox_identity = format!("{}@{created}", inbox.config.name);
            let shards = shards(&journal.config)?;
            let settings = as_found(settings, shards, &journal.config, &inbox.config);
            road.lead(Installation { settings, checked: None, shards, inbox_identity }).await
        })
    }
}

struct Look<'a> {
    context: &'a Context,
    link: &'a Link,
    settings: &'a Settings,
    deadline: Instant,
}

impl Look<'_> {
    async fn at(&self, stream: Stream) -> Result<Info, OpenError> {
        let name = Topology::new(&self.settings.prefix).stream(stream);
        loop {
            let subject = api::api_subject(&format!("STREAM.INFO.{name}"));
            let error = tokio::select! {
                biased;
                answer = api::stream_info(self.context, &name) => match answer {
                    Ok(info) => return Ok(info),
                    Err(error) => error,
                },
                denial = self.link.denied(&subject) => return Err(denial.into()),
            };
            if !error.is_temporary() || Instant::now() >= self.deadline {
                return Err(self.failed(name, error));
            }
            debug!(%error, stream = name, "a stream cannot be looked at yet");
            sleep(PAUSE).await;
        }
    }

    fn failed(&self, stream: String, error: api::ApiError) -> OpenError {
        let url = self.settings.shown_url();
        if error.is_not_found() {
            return OpenError::NotInstalled { prefix: self.settings.prefix.clone(), url, stream };
        }
        if error.is(ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT)
            || error.is(ErrorCode::JETSTREAM_NOT_ENABLED)
        {
            return OpenError::NoJetStream { url, source: error.into() };
        }
        OpenError::Unseen { stream, source: error.into() }
    }
}

/// Returns the number of shards that the installation was made for.
fn shards(journal: &Config) -> Result<ShardCount, OpenError> {
    let said = journal.metadata.get(SHARDS).and_then(|text| text.parse().ok());
    said.ok_or_else(|| OpenError::Foreign { stream: journal.name.clone() })
}

/// Returns the settings by which the streams were made as they are.
fn as_found(settings: &Settings, shards: ShardCount, journal: &Config, inbox: &Config) -> Settings {
    Settings {
        durability: Durability::Process,
        shards,
        replicas: journal.num_replicas,
        duplicate_window: journal.duplicate_window,
        retention: journal.max_age,
        inbox_per_subject_max: inbox.max_messages_per_subject,
        stream_bytes_max: Some(journal.max_bytes).filter(|bytes| *bytes > 0),
        compression: match journal.compression {
            Some(Compressed::S2) => Compression::S2,
            Some(Compressed::None) | None => Compression::None,
        },
        ..settings.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn settings_are_as_the_streams_are() {
        let journal = Config {
            metadata: HashMap::from([(String::from(SHARDS), String::from("4"))]),
            num_replicas: 3,
            duplicate_window: Duration::from_secs(7),
            max_age: Duration::from_hours(1),
            max_bytes: 1 << 30,
            compression: Some(Compressed::S2),
            ..Config::default()
        };
        let inbox = Config { max_messages_per_subject: 77, ..Config::default() };
        let durability = Durability::Site;
        let asked = Settings { window: 5, durability, ..Settings::default() };
        let found = as_found(&asked, shards(&journal).unwrap(), &journal, &inbox);
        assert_eq!((found.shards.get(), found.replicas, found.window), (4, 3, 5));
        assert_eq!(found.duplicate_window, Duration::from_secs(7));
        assert_eq!(found.retention, Duration::from_hours(1));
        assert_eq!(found.inbox_per_subject_max, 77);
        assert_eq!(found.stream_bytes_max, Some(1 << 30));
        assert_eq!(found.compression, Compression::S2);
        assert_eq!(found.durability, Durability::Process, "nobody checked the servers");
        let unlimited = Config { max_bytes: -1, ..journal };
        let found = as_found(&asked, asked.shards, &unlimited, &inbox);
        assert_eq!(found.stream_bytes_max, None);
    }

    #[test]
    fn a_journal_without_shards_is_not_ours() {
        let error = shards(&Config { name: String::from("X"), ..Config::default() }).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { stream } if stream == "X"));
    }
}
