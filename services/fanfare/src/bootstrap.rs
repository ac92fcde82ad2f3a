//! `fanfare bootstrap`: makes the streams, as a user that may, so that the services need not.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use fanfare_domain::settings::{Settings, Source};
use fanfare_event_log::{EventLog, Provisioned};
use fanfare_service::{Sources, Traces};
use serde_json::json;

use crate::{
    output::Output,
    services::{LOG, init_logging, load, overlaid},
};

/// The name by which it connects, and of its settings.
const NAME: &str = "bootstrap";

/// Options of `fanfare bootstrap`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Settings: a TOML file with the section `[log]` of the services.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, over file and environment, for example `log.url=nats://10.0.0.5:4222`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The section that all services share.
struct Shared(fanfare_event_log::Settings);

impl Settings for Shared {
    fn read(source: &mut Source) -> Self {
        Self(source.section("log"))
    }
}

/// Makes the streams, or puts them right.
pub(crate) async fn bootstrap(options: Options, log: Option<&str>, output: Output) -> Result<()> {
    let _looked_after_by_nobody = init_logging("warn", log, &Traces::default())?;
    let defaults = Sources::new(NAME, LOG).context("read the defaults")?;
    let sources = overlaid(defaults, options.config.as_deref(), &options.set)?;
    let Shared(settings) = load(sources)?;
    let provisioned = Box::pin(EventLog::provision(NAME, &settings)).await;
    let Provisioned { made, updated, unchanged } = provisioned.context("make the streams")?;
    if output.json {
        output.document(&json!({ "made": made, "updated": updated, "unchanged": unchanged }));
        return Ok(());
    }
    output.fields(&[
        ("made", made.join(", ")),
        ("changed", updated.join(", ")),
        ("as they were", unchanged.join(", ")),
    ]);
    output.line(&format!(
        "The streams of {} at {} are as they should be.",
        settings.prefix,
        settings.shown_url()
    ));
    Ok(())
}
