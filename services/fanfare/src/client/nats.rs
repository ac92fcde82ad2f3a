//! The event log of an installation that is there already.
//!
//! Opening a log makes its streams and puts them right by the settings given. A client has no
//! business to do that: so it first looks at how the streams are, and opens the log with settings
//! that say the same.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::{
    ConnectOptions,
    jetstream::{
        self,
        context::GetStreamErrorKind,
        stream::{Compression, Config},
    },
};
use fanfare_event_log::{
    EventLog, Settings,
    settings::Compression as Kept,
    topology::{Stream, Topology},
};

use super::connection::Nats;

/// The metadata of JOURNAL that holds the number of shards.
const SHARDS: &str = "fanfare-shards";

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Opens the log of the installation at `url`. Fails if there is none.
pub(crate) async fn open(url: &str, nats: &Nats) -> Result<EventLog> {
    let connection = connect(url, nats).await?;
    let settings = settings_of(&connection, url, nats).await?;
    EventLog::open("client", &settings).await.context("open the event log")
}

/// Connects to NATS itself, for what is not the event log's business.
pub(crate) async fn connect(url: &str, nats: &Nats) -> Result<jetstream::Context> {
    let mut options = ConnectOptions::new().name("fanfare-client").connection_timeout(CONNECT);
    if let Some(path) = &nats.credentials {
        options = options
            .credentials_file(path)
            .await
            .with_context(|| format!("read NATS credentials from {}", path.display()))?;
    }
    let servers: Vec<&str> = url.split(',').map(str::trim).collect();
    let client = options.connect(servers.as_slice()).await.with_context(|| {
        format!("reach NATS at {} (is `fanfare up` running? --nats-url names another)", shown(url))
    })?;
    Ok(jetstream::new(client))
}

async fn settings_of(context: &jetstream::Context, url: &str, nats: &Nats) -> Result<Settings> {
    let topology = Topology::new(&nats.prefix);
    let configuration = async |stream| -> Result<Config> {
        let name = topology.stream(stream);
        match context.get_stream(&name).await {
            Ok(found) => Ok(found.cached_info().config.clone()),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(_) => bail!(
                    "there is no Fanfare installation {:?} at {} (no stream {name})",
                    nats.prefix,
                    shown(url)
                ),
                GetStreamErrorKind::EmptyName
                | GetStreamErrorKind::InvalidStreamName
                | GetStreamErrorKind::Request => {
                    Err(error).with_context(|| format!("ask for {name}"))
                }
            },
        }
    };
    let (journal, inbox) =
        (configuration(Stream::Journal).await?, configuration(Stream::Inbox).await?);
    let settings = Settings {
        url: url.to_owned(),
        credentials_file: nats.credentials.clone(),
        prefix: nats.prefix.clone(),
        ..Settings::default()
    };
    same_as(&journal, &inbox, settings)
}

/// Completes settings by which nothing changes about streams that are so.
fn same_as(journal: &Config, inbox: &Config, settings: Settings) -> Result<Settings> {
    let shards =
        journal.metadata.get(SHARDS).context("JOURNAL does not say how many shards there are")?;
    Ok(Settings {
        shards: shards.parse().context("JOURNAL names no number of shards")?,
        replicas: journal.num_replicas,
        duplicate_window: journal.duplicate_window,
        retention: journal.max_age,
        inbox_per_subject_max: inbox.max_messages_per_subject,
        stream_bytes_max: Some(journal.max_bytes).filter(|bytes| *bytes > 0),
        compression: match journal.compression {
            Some(Compression::S2) => Kept::S2,
            Some(Compression::None) | None => Kept::None,
        },
        ..settings
    })
}

/// A URL without user and password.
fn shown(url: &str) -> String {
    Settings { url: url.to_owned(), ..Settings::default() }.shown_url()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn settings_say_what_the_streams_are_like() {
        let journal = Config {
            metadata: HashMap::from([(String::from(SHARDS), String::from("4"))]),
            num_replicas: 3,
            duplicate_window: Duration::from_secs(7),
            max_age: Duration::from_hours(1),
            max_bytes: 1 << 30,
            compression: Some(Compression::S2),
            ..Config::default()
        };
        let inbox = Config { max_messages_per_subject: 77, ..Config::default() };
        let settings = same_as(&journal, &inbox, Settings::default()).unwrap();
        assert_eq!(settings.shards.get(), 4);
        assert_eq!(settings.replicas, 3);
        assert_eq!(settings.duplicate_window, Duration::from_secs(7));
        assert_eq!(settings.retention, Duration::from_hours(1));
        assert_eq!(settings.inbox_per_subject_max, 77);
        assert_eq!(settings.stream_bytes_max, Some(1 << 30));
        assert_eq!(settings.compression, Kept::S2);
        let unlimited = Config { max_bytes: -1, ..journal };
        let settings = same_as(&unlimited, &inbox, Settings::default()).unwrap();
        assert_eq!(settings.stream_bytes_max, None);
        assert!(same_as(&Config::default(), &inbox, Settings::default()).is_err());
    }
}
