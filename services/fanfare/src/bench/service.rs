//! One service as a process of its own, as `fanfare run` has it, for scenarios with several.
//!
//! It lives as long as its standard input is open, and says on standard output when it has begun
//! and when it is ready.

use std::{io, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use fanfare_service::{Context, Health, Instance, SettingsFile, Traces};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    cli,
    output::Output,
    services::{GRACE, init_logging, telling},
};

/// How often a service is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// How long a service has to be ready without a break before it says so: one that waits for a role
/// is ready, and is not once it has the role and catches up.
const STEADY: Duration = Duration::from_millis(1_500);

/// Options of a service's process.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which service.
    #[arg(value_enum)]
    service: cli::Service,
    /// Its settings.
    #[arg(long)]
    config: PathBuf,
}

/// What the process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// It has begun; the API listens there.
    Begun {
        /// The API's URL, if it is the API.
        api: Option<String>,
    },
    /// It does its work, and has since then.
    Ready {
        /// Milliseconds from its start.
        after_ms: u64,
    },
}

/// Runs a service until standard input is closed.
pub(crate) async fn serve(options: Options, output: Output) -> Result<()> {
    let begun = Instant::now();
    let service = options.service;
    let (traces, exporter) =
        Traces::from_env(&Instance::of(service.name())).context("set up traces")?;
    let logging = init_logging("warn", None, &traces)?;
    let sources = service.sources()?.file(&SettingsFile::read(&options.config)?)?;
    let mut context = telling(Context::new(service.name()), (logging, traces, exporter));
    let api = match service {
        cli::Service::Api => {
            let address = service.start_api(&mut context, sources).await?;
            Some(format!("http://{address}"))
        }
        cli::Service::Ingest
        | cli::Service::FanOut
        | cli::Service::Dispatcher
        | cli::Service::RetryScheduler
        | cli::Service::Projector => {
            service.start(&mut context, sources).await?;
            None
        }
    };
    say(&Said::Begun { api }, output)?;
    let (stop, ended) = (context.stop(), context.support_stop());
    let health = context.health();
    context.spawn_support("parent", stop_with_stdin(stop, ended.clone()));
    context.spawn_support("readiness", tell_when_ready((begun, health), ended, output));
    context.run_until_stopped(GRACE).await
}

fn say(said: &Said, output: Output) -> Result<()> {
    output.document(&serde_json::to_value(said).context("say something")?);
    Ok(())
}

async fn tell_when_ready(
    (begun, health): (Instant, Health),
    ended: CancellationToken,
    output: Output,
) -> Result<()> {
    let mut since = Instant::now();
    while since.elapsed() < STEADY {
        tokio::select! {
            () = tokio::time::sleep(ASK_EVERY) => {}
            () = ended.cancelled() => return Ok(()),
        }
        if !health.is_ready() {
            since = Instant::now();
        }
    }
    let after_ms = since.duration_since(begun).as_millis();
    say(&Said::Ready { after_ms: u64::try_from(after_ms)? }, output)?;
    ended.cancelled().await;
    Ok(())
}

/// Asks for an end once standard input is closed: the benchmark is gone, or wants it to end.
async fn stop_with_stdin(stop: CancellationToken, ended: CancellationToken) -> Result<()> {
    let closed = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    tokio::select! {
        // An input that cannot be read is as good as closed.
        _closed = closed => stop.cancel(),
        () = ended.cancelled() => {}
    }
    ended.cancelled().await;
    Ok(())
}
