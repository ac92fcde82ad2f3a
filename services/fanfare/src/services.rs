//! The services: their settings, and how each is started.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use fanfare_domain::settings::{Effective, Settings};
use fanfare_service::{
    Context, Exporter, Instance, Metrics, SettingsFile, Sources, Traces, load_keyring,
    load_profiles, process_env, telemetry,
};

use crate::{
    cli::{Run, Service},
    output::Output,
};

/// How long work in flight may take to end after a stop was asked for.
pub(crate) const GRACE: Duration = Duration::from_secs(20);

/// What a service logs by itself.
const LOGGED: &str = "info,async_nats=warn,opentelemetry_sdk=warn";

/// The defaults of the section that all services share.
pub(crate) const LOG: &str = include_str!("../../../deploy/config/log.toml");

impl Service {
    /// Every service, in the order in which they are started.
    pub(crate) const ALL: [Self; 6] = [
        Self::Ingest,
        Self::FanOut,
        Self::RetryScheduler,
        Self::Dispatcher,
        Self::Projector,
        Self::Api,
    ];

    /// The name, as in settings, subjects of logs and `fanfare run`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::FanOut => "fan-out",
            Self::Dispatcher => "dispatcher",
            Self::RetryScheduler => "retry-scheduler",
            Self::Projector => "projector",
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
            Self::Projector => include_str!("../../../deploy/config/projector.toml"),
            Self::Api => include_str!("../../../deploy/config/api.toml"),
        }
    }

    /// The settings before anybody has said anything: the defaults.
    pub(crate) fn sources(self) -> Result<Sources> {
        Sources::new(self.name(), LOG)
            .and_then(|sources| sources.defaults(self.defaults()))
            .with_context(|| format!("read the defaults of {}", self.name()))
    }

    /// Tells whether the service seals or opens secrets.
    pub(crate) const fn opens_secrets(self) -> bool {
        match self {
            Self::Dispatcher | Self::Api => true,
            Self::Ingest | Self::FanOut | Self::RetryScheduler | Self::Projector => false,
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
            Self::Projector => fanfare_projector::start(context, load(sources)?).await,
            Self::Api => fanfare_api::start(context, load(sources)?).await,
        }
        .with_context(|| format!("start {}", self.name()))
    }

    /// Checks the settings and the files that they name, and connects to nothing. Returns every
    /// setting in effect.
    fn check(self, sources: Sources) -> Result<Effective> {
        let (log, shown) = match self {
            Self::Ingest => {
                let (settings, shown) = load_shown::<fanfare_ingest::Settings>(sources)?;
                load_profiles(settings.profiles_dir.as_deref())?;
                (settings.log, shown)
            }
            Self::FanOut => {
                let (settings, shown) = load_shown::<fanfare_fan_out::Settings>(sources)?;
                (settings.log, shown)
            }
            Self::Dispatcher => {
                let (settings, shown) = load_shown::<fanfare_dispatcher::Settings>(sources)?;
                load_keyring(&settings.sealing_key_file)?;
                load_profiles(settings.profiles_dir.as_deref())?;
                (settings.log, shown)
            }
            Self::RetryScheduler => {
                let (settings, shown) = load_shown::<fanfare_retry_scheduler::Settings>(sources)?;
                load_profiles(settings.profiles_dir.as_deref())?;
                (settings.log, shown)
            }
            Self::Projector => {
                let (settings, shown) = load_shown::<fanfare_projector::Settings>(sources)?;
                load_profiles(settings.profiles_dir.as_deref())?;
                (settings.log, shown)
            }
            Self::Api => {
                let (settings, shown) = load_shown::<fanfare_api::Settings>(sources)?;
                fanfare_api::check_files(&settings)?;
                (settings.log, shown)
            }
        };
        log.check_access().context("read what lets us in at NATS")?;
        Ok(shown)
    }
}

pub(crate) fn load<S: Settings>(sources: Sources) -> Result<S> {
    sources.load().context("read the settings")
}

fn load_shown<S: Settings>(sources: Sources) -> Result<(S, Effective)> {
    sources.load_shown().context("read the settings")
}

/// Sets up logging: what is asked for on the command line or in `FANFARE_LOG`, else variables such
/// as `FANFARE_TELEMETRY__FORMAT`, else this default. What is returned looks after it.
pub(crate) fn init_logging(
    default: &str,
    asked: Option<&str>,
    traces: &Traces,
) -> Result<telemetry::Logging> {
    let mut sources = Sources::new("telemetry", "")?.set("filter", default).env(&process_env()?);
    if let Some(filter) = asked {
        sources = sources.set("filter", filter);
    }
    telemetry::init(&load(sources)?, traces).context("set up logging")
}

/// Lays a file, the environment and what `--set` says over the defaults, in this order.
pub(crate) fn overlaid(
    mut sources: Sources,
    config: Option<&Path>,
    set: &[String],
) -> Result<Sources> {
    if let Some(path) = config {
        sources = sources.file(&SettingsFile::read(path)?)?;
    }
    sources = sources.env(&process_env()?);
    for pair in set {
        let Some((key, value)) = pair.split_once('=') else {
            bail!("--set takes KEY=VALUE, for example log.url=nats://127.0.0.1:4222");
        };
        sources = sources.set(key, value);
    }
    Ok(sources)
}

/// `fanfare run`: one service until it is told to stop.
pub(crate) async fn run(options: Run, log: Option<&str>, output: Output) -> Result<()> {
    let service = options.service;
    let sources = overlaid(service.sources()?, options.config.as_deref(), &options.set)?;
    if options.check {
        output.settings(&service.check(sources)?);
        return Ok(());
    }
    let shown = sources.shown();
    let instance = Instance::of(service.name());
    let (traces, exporter) = Traces::from_env(&instance).context("set up traces")?;
    let logging = init_logging(LOGGED, log, &traces)?;
    tracing::info!(service = service.name(), settings = ?shown, "starting");
    let metrics = Metrics::from_env(&instance).context("set up metrics")?;
    let context = Context::new(service.name()).with_metrics(metrics.clone());
    let mut context = telling(context, (logging, traces, exporter));
    observe(&mut context, options.metrics).await?;
    service.start(&mut context, sources).await?;
    let ended = context.run_until_stopped(GRACE).await;
    metrics.shut_down().await;
    ended
}

/// Has a process log, and export spans.
pub(crate) fn telling(
    context: Context,
    (logging, traces, exporter): (telemetry::Logging, Traces, Option<Exporter>),
) -> Context {
    traces.register(context.metrics());
    let mut context = context.with_traces(traces);
    context.watch_logging(logging);
    if let Some(exporter) = exporter {
        context.export_traces(exporter);
    }
    context
}

/// Serves metrics and health where that is asked for; returns where.
pub(crate) async fn observe(
    context: &mut Context,
    listen: Option<SocketAddr>,
) -> Result<Option<SocketAddr>> {
    let Some(listen) = listen else { return Ok(None) };
    let listening = context.observe(listen).await;
    listening.map(Some).with_context(|| format!("serve metrics at {listen}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fanfare_domain::settings::Source;

    use super::*;

    #[test]
    fn the_file_of_shared_defaults_says_what_the_code_does() {
        struct Shared(fanfare_event_log::Settings);
        impl Settings for Shared {
            fn read(source: &mut Source) -> Self {
                Self(source.section("log"))
            }
        }
        let from_file: Shared = Sources::new("any", LOG).unwrap().load().unwrap();
        let from_code = fanfare_event_log::Settings::default();
        assert_eq!(format!("{:?}", from_file.0), format!("{from_code:?}"));
    }

    #[test]
    fn every_setting_in_effect_is_shown_with_its_value() {
        // Whoever runs one without a value knows that there is none; all others have defaults.
        let unset = [
            "egress.proxy",
            "egress.source",
            "log.ca_file",
            "log.certificate_file",
            "log.certificate_key_file",
            "log.credentials_file",
            "log.inbox_prefix",
            "log.nkey_file",
            "log.password_file",
            "log.stream_bytes_max",
            "log.system_credentials_file",
            "log.system_nkey_file",
            "log.system_password_file",
            "log.system_url",
            "log.system_user",
            "log.user",
            "operator_key",
            "operator_key_file",
            "profiles_dir",
            "webhook_origin",
        ];
        for service in Service::ALL {
            let mut sources = service.sources().unwrap();
            let directory = tempfile::tempdir().unwrap();
            if service.opens_secrets() {
                let path = directory.path().join("sealing.key");
                fs::write(&path, "ab".repeat(32)).unwrap();
                sources = sources.set("sealing_key_file", path.display().to_string());
            }
            let shown = service.check(sources).unwrap();
            for key in ["log.durability", "log.replicas", "log.shards", "log.retention"] {
                assert!(shown[key].is_some(), "{key} of {}", service.name());
            }
            let missing = shown.iter().filter(|(_, value)| value.is_none());
            for (key, _) in missing {
                assert!(
                    unset.contains(&key.as_str()),
                    "{key} of {} has no default",
                    service.name()
                );
            }
        }
    }

    #[test]
    fn files_that_the_settings_name_are_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("good.key"), "ab".repeat(32)).unwrap();
        fs::write(path("bad.key"), "no key").unwrap();
        let sources = |service: Service, key: &str| {
            let sources = service.sources().unwrap();
            if service.opens_secrets() {
                sources.set("sealing_key_file", path(key))
            } else {
                sources
            }
        };
        for service in Service::ALL {
            let check = |key: &str| service.check(sources(service, key));
            assert!(check("good.key").is_ok(), "{}", service.name());
            let asks = service.opens_secrets();
            assert_eq!((check("bad.key").is_err(), check("none.key").is_err()), (asks, asks));
            for file in ["credentials_file", "nkey_file", "system_nkey_file", "ca_file"] {
                let missing =
                    sources(service, "good.key").set(&format!("log.{file}"), path("none"));
                assert!(service.check(missing).is_err(), "{file} of {}", service.name());
            }
        }
        let api = sources(Service::Api, "good.key");
        assert!(Service::Api.check(api.clone().set("operator_key_file", path("none"))).is_err());
        assert!(Service::Api.check(api.set("profiles_dir", path("none"))).is_err());
    }
}
