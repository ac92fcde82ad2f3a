//! `fanfare delivery-log`: looking after the tables in which deliveries are searched for.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use fanfare_projector::{Settings, Whose};
use fanfare_service::{Clock as _, SettingsFile, SystemClock, Traces, process_env};
use serde_json::json;

use crate::{
    cli::{Connection, Service},
    data_dir::DataDir,
    output::Output,
    services::{init_logging, load},
};

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Drop it, and make it anew from the streams.
    ///
    /// What the streams have forgotten (log.retention) is not in it afterwards. Deliveries go on
    /// meanwhile, and so may the projector. Without settings, the log of the `fanfare up` that runs on
    /// the data directory is meant.
    Rebuild(Options),
}

/// Options of `fanfare delivery-log rebuild`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Settings: a TOML file of the projector's keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, over file and environment, for example `database=sqlite:delivery-log.sqlite`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Drop also tables of another installation, of streams that were replaced, or of anything else
    /// that has their names. Without this, such tables are left alone.
    #[arg(long)]
    pub(crate) take_over: bool,
}

/// Does what was asked for.
pub(crate) async fn run(
    command: Command,
    connection: &Connection,
    log: Option<&str>,
    output: Output,
) -> Result<()> {
    let Command::Rebuild(options) = command;
    let _looked_after_by_nobody = init_logging("warn", log, &Traces::default())?;
    let settings = settings(&options, connection)?;
    let mut bar = output.progress(0);
    let show = |folded: fanfare_projector::Folded| bar.reach(folded.done, folded.of);
    let whose = if options.take_over { Whose::Anybodys } else { Whose::Ours };
    let now = SystemClock.now();
    let rebuilt = Box::pin(fanfare_projector::rebuild(&settings, whose, now, show)).await?;
    let took = bar.end();
    let progress = rebuilt.progress;
    if output.json {
        output.document(&json!({
            "database": settings.database.to_string(),
            "events": progress.events,
            "journal": progress.journal,
            "seconds": took.as_secs_f64(),
        }));
        return Ok(());
    }
    output.line(&format!(
        "The delivery log at {} is made anew, up to event {} and message {} of the journal, in {:.1} s.",
        settings.database,
        progress.events,
        progress.journal,
        took.as_secs_f64()
    ));
    Ok(())
}

/// The projector's settings: a file, variables and options; without a word about streams and tables,
/// those of the running `up`. Never the streams of one and the tables of another.
fn settings(options: &Options, connection: &Connection) -> Result<Settings> {
    let mut sources = Service::Projector.sources()?;
    if let Some(path) = &options.config {
        sources = sources.file(&SettingsFile::read(path)?)?;
    }
    sources = sources.env(&process_env()?);
    let named = |key: &str| {
        let by_option =
            options.set.iter().any(|pair| pair.split_once('=').is_some_and(|it| it.0 == key));
        by_option || sources.said_by(key).is_some()
    };
    match (named("log.url"), named("database")) {
        (true, true) => {}
        (false, false) => {
            let data = DataDir::new(&connection.data);
            if let Some(running) = data.running() {
                sources = sources.set("log.url", running.nats);
                sources = sources.set("database", data.delivery_log_url());
            }
        }
        (true, false) => bail!("log.url is given: give database too, the tables to be made anew"),
        (false, true) => {
            bail!("database is given: give log.url too, the NATS that it is made from")
        }
    }
    for pair in &options.set {
        let Some((key, value)) = pair.split_once('=') else {
            bail!("--set takes KEY=VALUE, for example database=sqlite:delivery-log.sqlite");
        };
        sources = sources.set(key, value);
    }
    load(sources)
}
