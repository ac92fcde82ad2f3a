//! Makes and migrates the streams: idempotent, and safe to run by all services at once.
//!
//! What is there is compared with what is declared ([`streams`]); what differs is put right. Two
//! processes that make the same stream at once are told so by the server, and look again. Where all
//! is as declared, nothing but looking has to be allowed.

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
    Lack, OpenError, Provisioned, Settings,
    log::{ApiError, Link, api_subject, ask, tell, timestamp},
    topology::{Bucket, SHARDS, Stream, Topology},
};

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of the installation once its streams exist.
pub(crate) struct Found {
    pub(crate) shards: ShardCount,
    pub(crate) inbox_identity: String,
    pub(crate) provisioned: Provisioned,
}

/// What was done about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    Made,
    Updated,
}

/// Makes what is missing and puts right what differs. Waits until the deadline for servers that
/// have no leader yet.
pub(crate) async fn run(
    (context, link): (&Context, &Link),
    topology: &Topology,
    settings: &Settings,
    deadline: Instant,
) -> Result<Found, OpenError> {
    let servers = Servers { context, link, deadline };
    servers.are_there(settings).await?;
    let payload_max = context.client().max_payload();
    // First, because it says how many shards there are: a process with another setting must not
    // get as far as touching the other streams.
    let journal = streams::stream(Stream::Journal, topology, settings, payload_max);
    let journal = servers.ensure(journal, |found| check_shards(found, settings).map(drop)).await?;
    let shards = check_shards(&journal.0.config, settings)?;
    let others = Stream::ALL.into_iter().filter(|&stream| stream != Stream::Journal);
    let configs = others
        .map(|stream| streams::stream(stream, topology, settings, payload_max))
        .chain(Bucket::ALL.map(|bucket| streams::bucket(bucket, topology, settings)));
    let mut all = try_join_all(configs.map(|config| servers.ensure(config, |_| Ok(())))).await?;
    let name = topology.stream(Stream::Inbox);
    let inbox = all.iter().find(|(info, _)| info.config.name == name);
    let created = inbox.map(|(info, _)| timestamp(info.created)).unwrap_or_default();
    let inbox_identity = format!("{name}@{}", created.as_nanos());
    all.push(journal);
    Ok(Found { shards, inbox_identity, provisioned: provisioned(all) })
}

fn provisioned(all: Vec<(Info, Done)>) -> Provisioned {
    let mut provisioned = Provisioned::default();
    for (info, done) in all {
        let list = match done {
            Done::Nothing => &mut provisioned.unchanged,
            Done::Made => &mut provisioned.made,
            Done::Updated => &mut provisioned.updated,
        };
        list.push(info.config.name);
    }
    provisioned
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
    link: &'a Link,
    deadline: Instant,
}

impl Servers<'_> {
    /// Waits until there is `JetStream`.
    async fn are_there(&self, settings: &Settings) -> Result<(), OpenError> {
        loop {
            match self.answer_to("INFO", ask::<Account>(self.context, "INFO")).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_temporary() && Instant::now() < self.deadline => {
                    debug!(%error, "JetStream is not there yet");
                    sleep(PAUSE).await;
                }
                Err(ApiError::Denied(denial)) => return Err(denial.into()),
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
    ) -> Result<(Info, Done), OpenError> {
        loop {
            let error = match self.look(&wanted.name).await {
                Ok(None) => match self.tell("CREATE", &wanted).await {
                    Ok(info) => {
                        info!(stream = wanted.name, "made a stream");
                        return Ok((info, Done::Made));
                    }
                    // Another process made it in this moment.
                    Err(error) if error.is(ErrorCode::STREAM_NAME_EXIST) => continue,
                    Err(ApiError::Denied(_)) => return Err(lacks(&wanted, Lack::Missing)),
                    Err(error) => error,
                },
                Ok(Some(found)) => {
                    check(&found.config)?;
                    let right = streams::put_right(&found.config, &wanted);
                    if right == found.config {
                        return Ok((found, Done::Nothing));
                    }
                    match self.tell("UPDATE", &right).await {
                        Ok(info) => {
                            info!(stream = wanted.name, "updated a stream");
                            return Ok((info, Done::Updated));
                        }
                        Err(ApiError::Denied(_)) => {
                            let different = streams::differences(&found.config, &right);
                            return Err(lacks(&wanted, Lack::Different(different)));
                        }
                        Err(error) => error,
                    }
                }
                Err(ApiError::Denied(denial)) => return Err(denial.into()),
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
        let question = format!("STREAM.INFO.{name}");
        match self.answer_to(&question, ask(self.context, &question)).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn tell(&self, what: &str, config: &Config) -> Result<Info, ApiError> {
        let question = format!("STREAM.{what}.{}", config.name);
        self.answer_to(&question, tell(self.context, &question, config)).await
    }

    /// Waits for an answer, but no longer than until the servers say that this may not be asked.
    async fn answer_to<T>(
        &self,
        question: &str,
        asked: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let subject = api_subject(question);
        tokio::select! {
            biased;
            answer = asked => answer,
            denial = self.link.denied(&subject) => Err(ApiError::Denied(denial)),
        }
    }
}

fn lacks(wanted: &Config, lack: Lack) -> OpenError {
    OpenError::Unprovisioned { stream: wanted.name.clone(), lack }
}
