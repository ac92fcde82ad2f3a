//! `fanfare dead-letter`.

use anyhow::Result;
use clap::Subcommand;

use super::{
    api::Api,
    delivery::{DeadLetters, dead_letters},
};
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  fanfare dead-letter list acme
  fanfare dead-letter list acme --endpoint ep_01jd3x6y8kqz7v5m2n4p6r8t0w --since 24h";

/// What can be done with dead letters: deliveries of which every attempt failed.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the dead letters of a tenant, newest event first.
    #[command(after_help = EXAMPLES)]
    List(Box<DeadLetters>),
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    let Command::List(options) = command;
    dead_letters(&options, api, output).await
}
