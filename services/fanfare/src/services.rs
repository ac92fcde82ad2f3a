//! The services: their settings, and how each is started.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use fanfare_domain::settings::Settings;
use fanfare_service::{Context, SettingsFile, Sources, process_env, telemetry};

use crate::cli::{Run, Service};

/// How long work in flight may take to end after a stop was asked for.
pub(crate) const GRACE: Duration = Duration::from_secs(20);

impl Service {
    /// Every service, in the order in which they are started.
    pub(crate) const ALL: [Self; 5] =
        [Self::Ingest, Self::FanOut, Self::RetryScheduler, Self::Dispatcher, Self::Api];

    /// The name, as in settings, subjects of logs and `fanfare run`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::FanOut => "fan-out",
            Self::Dispatcher => "dispatcher",
            Self::RetryScheduler => "retry-scheduler",
            Self::Api => "api",
        }
    }

    /// The defaults, every key with its reason.
    const fn defaults(self) -> &'static str {
        match self {
            Self::Ingest => include_str!("../../../deploy/config/ingest.toml"),
            Self::FanOut => include_str!("../../../deploy/config/fan-out.toml"),
            Self::Dispatcher => include_str!("../../../deploy/config/dispatcher.toml"),
            Self::RetryScheduler => include_str!("../../../deploy/config/retry-scheduler.toml"),
            Self::Api => include_str!("../../../deploy/config/api.toml"),
        }
    }

    /// The settings before what the command line says: defaults, then the environment.
    pub(crate) fn sources(self) -> Result<Sources> {
        let sources = Sources::new(self.name(), self.defaults())
            .with_context(|| format!("read the defaults of {}", self.name()))?;
        Ok(sources)
    }

    /// Tells whether the service seals or opens secrets.
    pub(crate) const fn opens_secrets(self) -> bool {
        match self {
            Self::Dispatcher | Self::Api => true,
            Self::Ingest | Self::FanOut | Self::RetryScheduler => false,
        }
    }

    /// Starts the API, and returns where it listens.
    pub(crate) async fn start_api(
        self,
        context: &mut Context,
        sources: Sources,
    ) -> Result<SocketAddr> {
        fanfare_api::bind_and_start(context.service(self.name()), load(sources)?)
            .await
            .context("start api")
    }

    /// Starts the service on a context.
    pub(crate) async fn start(self, context: &mut Context, sources: Sources) -> Result<()> {
        let context = context.service(self.name());
        match self {
            Self::Ingest => fanfare_ingest::start(context, load(sources)?).await,
            Self::FanOut => fanfare_fan_out::start(context, load(sources)?).await,
            Self::Dispatcher => fanfare_dispatcher::start(context, load(sources)?).await,
            Self::RetryScheduler => fanfare_retry_scheduler::start(context, load(sources)?).await,
            Self::Api => fanfare_api::start(context, load(sources)?).await,
        }
        .with_context(|| format!("start {}", self.name()))
    }

    /// Checks the settings without starting anything.
    fn check(self, sources: Sources) -> Result<()> {
        match self {
            Self::Ingest => load::<fanfare_ingest::Settings>(sources).map(drop),
            Self::FanOut => load::<fanfare_fan_out::Settings>(sources).map(drop),
            Self::Dispatcher => load::<fanfare_dispatcher::Settings>(sources).map(drop),
            Self::RetryScheduler => load::<fanfare_retry_scheduler::Settings>(sources).map(drop),
            Self::Api => load::<fanfare_api::Settings>(sources).map(drop),
        }
    }
}

fn load<S: Settings>(sources: Sources) -> Result<S> {
    sources.load().context("read the settings")
}

/// Sets up logging: what is asked for on the command line or in `FANFARE_LOG`, else variables such
/// as `FANFARE_TELEMETRY__FORMAT`, else this default.
pub(crate) fn init_logging(default: &str, asked: Option<&str>) -> Result<()> {
    let mut sources = Sources::new("telemetry", "")?.set("filter", default).env(&process_env()?);
    if let Some(filter) = asked {
        sources = sources.set("filter", filter);
    }
    telemetry::init(&load(sources)?).context("set up logging")
}

/// `fanfare run`: one service until it is told to stop.
pub(crate) async fn run(options: Run, log: Option<&str>) -> Result<()> {
    let service = options.service;
    let mut sources = service.sources()?;
    if let Some(path) = &options.config {
        sources = sources.file(&SettingsFile::read(path)?)?;
    }
    sources = sources.env(&process_env()?);
    for pair in &options.set {
        let Some((key, value)) = pair.split_once('=') else {
            bail!("--set takes KEY=VALUE, for example log.url=nats://127.0.0.1:4222");
        };
        sources = sources.set(key, value);
    }
    let shown = sources.shown();
    if options.check {
        service.check(sources)?;
        return crate::output::settings(&shown);
    }
    init_logging("info,async_nats=warn", log)?;
    tracing::info!(service = service.name(), settings = ?shown, "starting");
    let mut context = Context::new(service.name());
    service.start(&mut context, sources).await?;
    context.run_until_stopped(GRACE).await
}

/// Settings as text, for the log and `--check`.
pub(crate) type Shown = BTreeMap<String, String>;
