//! The command-line client: tenants, endpoints, events, deliveries and keys through the API; deliveries
//! as they happen through the journal; a receiver for trying things out; a tour.

mod again;
pub(crate) mod api;
mod apply;
mod audit;
mod connection;
mod dead_letter;
mod delivery;
mod demo;
mod endpoint;
mod event;
mod event_type;
mod fact;
mod key;
mod listen;
mod listing;
mod nats;
mod options;
mod rate;
mod receiver;
mod replay;
mod sealing;
mod setting;
mod stop;
mod tenant;
mod text;
mod trace;
mod watch;

use anyhow::Result;
use clap::Subcommand;

use crate::{cli::Connection, output::Output};

/// What the client can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it all in half a minute: a throw-away system, three receivers, one event.
    Demo(demo::Options),
    /// Make and look after tenants: your customers, who own endpoints and events.
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Make and look after endpoints: URLs of a tenant that want some event types.
    #[command(subcommand)]
    Endpoint(endpoint::Command),
    /// Send events, and look at them.
    #[command(subcommand)]
    Event(event::Command),
    /// Keep catalogues of event types: what events look like.
    #[command(subcommand)]
    EventType(event_type::Command),
    /// Make tenants, event types and endpoints what a file says. Nothing is deleted.
    #[command(after_help = apply::EXAMPLES)]
    Apply(apply::Options),
    /// Receive webhooks here, and show what arrives.
    Listen(listen::Options),
    /// Show what becomes of deliveries, as it happens.
    Watch(watch::Options),
    /// Look at deliveries, end them, or try them again.
    #[command(subcommand)]
    Delivery(delivery::Command),
    /// Tell the story of a delivery, or of all of an event, as a tree with times.
    #[command(after_help = trace::EXAMPLES)]
    Trace(trace::Options),
    /// Deliver past events again.
    #[command(subcommand)]
    Replay(replay::Command),
    /// Look at dead letters: deliveries of which every attempt failed.
    #[command(subcommand)]
    DeadLetter(dead_letter::Command),
    /// Show who changed what of the configuration, when and why, newest first.
    Audit(audit::Options),
    /// Make and look after API keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Look after the keys that seal endpoints' secrets.
    #[command(subcommand)]
    Keys(sealing::Command),
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, connection: &Connection, output: Output) -> Result<()> {
    match command {
        Command::Demo(options) => Box::pin(demo::demo(options, connection, output)).await,
        Command::Tenant(command) => tenant::run(command, &connection.open_api()?, output).await,
        Command::Endpoint(command) => endpoint::run(command, &connection.open_api()?, output).await,
        Command::Event(command) => Box::pin(event::run(command, connection, output)).await,
        Command::EventType(command) => {
            event_type::run(command, &connection.open_api()?, output).await
        }
        Command::Apply(options) => apply::apply(options, &connection.open_api()?, output).await,
        Command::Listen(options) => Box::pin(listen::listen(options, connection, output)).await,
        Command::Watch(options) => Box::pin(watch::watch(options, connection, output)).await,
        Command::Delivery(command) => delivery::run(command, &connection.open_api()?, output).await,
        Command::Trace(options) => trace::trace(&options, &connection.open_api()?, output).await,
        Command::Replay(command) => replay::run(command, &connection.open_api()?, output).await,
        Command::DeadLetter(command) => {
            dead_letter::run(command, &connection.open_api()?, output).await
        }
        Command::Audit(options) => audit::audit(&options, &connection.open_api()?, output).await,
        Command::Key(command) => key::run(command, &connection.open_api()?, output).await,
        Command::Keys(command) => sealing::run(command, &connection.open_api()?, output).await,
    }
}
