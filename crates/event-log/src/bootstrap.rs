//! Makes and migrates the streams: idempotent, and safe to run by all services at once.
//!
//! What is there is compared with what is declared ([`streams`]); what differs is put right. Two
//! processes that make the same stream at once are told so by the server, and look again.

mod streams;

pub(crate) use self::streams::INBOX_HEADROOM;

use std::time::Duration;

use async_nats::jetstream::{
    Context, ErrorCode,
    account::Account,
    stream::{Config, Info},
};
use fanfare_domain::ShardCount;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use crate::{
    OpenError, Settings,
    log::{ApiError, ask, tell, timestamp},
    topology::{Bucket, SHARDS, Stream, Topology},
};

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of the installation once its streams exist.
pub(crate) struct Found {
    pub(crate) shards: ShardCount,
    pub(crate) inbox_identity: String,
}

/// Makes what is missing and puts right what differs. Waits until the deadline for servers that
/// have no leader yet.
pub(crate) async fn run(
    context: &Context,
    topology: &Topology,
    settings: &Settings,
    deadline: Instant,
) -> Result<Found, OpenError> {
    let servers = Servers { context, deadline };
    servers.answer(settings).await?;
    let payload_max = context.client().max_payload();
    // First, because it says how many shards there are: a process with another setting must not
    // get as far as touching the other streams.
    let journal = streams::stream(Stream::Journal, topology, settings, payload_max);
    let journal = servers.ensure(journal, |found| check_shards(found, settings).map(drop)).await?;
    let shards = check_shards(&journal.config, settings)?;
    let others = Stream::ALL.into_iter().filter(|&stream| stream != Stream::Journal);
    let configs = others
        .map(|stream| streams::stream(stream, topology, settings, payload_max))
        .chain(Bucket::ALL.map(|bucket| streams::bucket(bucket, topology, settings)));
    let infos = try_join_all(configs.map(|config| servers.ensure(config, |_| Ok(())))).await?;
    let name = topology.stream(Stream::Inbox);
    let inbox = infos.iter().find(|info| info.config.name == name);
    let created = inbox.map(|info| timestamp(info.created)).unwrap_or_default();
    Ok(Found { shards, inbox_identity: format!("{name}@{}", created.as_nanos()) })
}

/// Returns the number of shards that the installation was made for.
fn check_shards(found: &Config, settings: &Settings) -> Result<ShardCount, OpenError> {
    let text = found.metadata.get(SHARDS).cloned().unwrap_or_default();
    match text.parse::<ShardCount>() {
        Ok(shards) if shards == settings.shards => Ok(shards),
        Ok(_) | Err(_) => Err(OpenError::ShardsDiffer {
            prefix: settings.prefix.clone(),
            found: text,
            asked: settings.shards,
        }),
    }
}

struct Servers<'a> {
    context: &'a Context,
    deadline: Instant,
}

impl Servers<'_> {
    /// Waits until there is `JetStream`.
    async fn answer(&self, settings: &Settings) -> Result<(), OpenError> {
        loop {
            match ask::<Account>(self.context, "INFO").await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_temporary() && Instant::now() < self.deadline => {
                    debug!(%error, "JetStream is not there yet");
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    let url = settings.shown_url();
                    return Err(OpenError::NoJetStream { url, source: error.into() });
                }
            }
        }
    }

    /// Makes the stream as declared, whatever is there. `check` may refuse what is there.
    async fn ensure(
        &self,
        wanted: Config,
        check: impl Fn(&Config) -> Result<(), OpenError> + Send,
    ) -> Result<Info, OpenError> {
        loop {
            let error = match self.look(&wanted.name).await {
                Ok(None) => match self.tell("CREATE", &wanted).await {
                    Ok(info) => {
                        info!(stream = wanted.name, "made a stream");
                        return Ok(info);
                    }
                    // Another process made it in this moment.
                    Err(error) if error.is(ErrorCode::STREAM_NAME_EXIST) => continue,
                    Err(error) => error,
                },
                Ok(Some(found)) => {
                    check(&found.config)?;
                    let right = streams::put_right(&found.config, &wanted);
                    if right == found.config {
                        return Ok(found);
                    }
                    match self.tell("UPDATE", &right).await {
                        Ok(info) => {
                            info!(stream = wanted.name, "updated a stream");
                            return Ok(info);
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if !error.is_temporary() || Instant::now() >= self.deadline {
                return Err(OpenError::Stream { stream: wanted.name, source: error.into() });
            }
            debug!(%error, stream = wanted.name, "a stream cannot be made yet");
            sleep(PAUSE).await;
        }
    }

    async fn look(&self, name: &str) -> Result<Option<Info>, ApiError> {
        match ask(self.context, &format!("STREAM.INFO.{name}")).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn tell(&self, what: &str, config: &Config) -> Result<Info, ApiError> {
        tell(self.context, &format!("STREAM.{what}.{}", config.name), config).await
    }
}
