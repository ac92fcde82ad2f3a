//! `fanfare nats`: the configuration of servers on which each service has a user of its own, with the
//! permissions that it needs and no others.

mod certificates;
mod files;
mod made;
mod plan;
mod render;
mod users;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use fanfare_domain::TenantId;
use fanfare_event_log::{
    Permissions, Role, Topology,
    permissions::{self, Ways},
};
use serde_json::json;

use self::plan::{Plan, Server};
use crate::output::{Output, Tone};

const EXAMPLES: &str = "\
Examples:
  fanfare nats config nats --server nats-1=10.0.0.1 --server nats-2=10.0.0.2 --server nats-3=10.0.0.3
  fanfare nats config nats --producer acme       again, with one producer more
  fanfare nats config trial --server nats-1=127.0.0.1      one server, to try it out";

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the configuration of NATS servers, with users, keys and certificates, in a directory.
    ///
    /// What is there is kept: called again it adds what is new, and makes what was removed anew.
    #[command(after_help = EXAMPLES)]
    Config(Options),
    /// List what each user of NATS may publish and subscribe to.
    Permissions(Listing),
}

/// Options of `fanfare nats config`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where it is made.
    pub(super) directory: PathBuf,
    /// A server: its name, its host, and its ports for clients, other servers and monitoring
    /// [default: nats-1, nats-2 and nats-3, at hosts of these names, ports 4222, 6222 and 8222].
    #[arg(long = "server", value_name = "NAME=HOST[:PORT[:ROUTES[:MONITORING]]]")]
    pub(super) servers: Vec<Server>,
    /// A tenant whose events the operator's own software publishes, to INBOX and by requests.
    #[arg(long = "producer", value_name = "TENANT")]
    pub(super) producers: Vec<TenantId>,
    /// A tenant whose own software publishes its events: by requests alone.
    #[arg(long = "requester", value_name = "TENANT")]
    pub(super) requesters: Vec<TenantId>,
    /// What the installation's subjects begin with [default: fanfare].
    #[arg(long, value_name = "PREFIX")]
    pub(super) prefix: Option<String>,
    /// Where the directory is on the machines that use it [default: where it is made].
    #[arg(long, value_name = "DIR")]
    pub(super) at: Option<PathBuf>,
    /// Where the servers keep their streams, each in a directory of its own
    /// [default: `data` beside its configuration].
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Take certificates and keys from this directory, instead of making some for a trial: `ca.pem`,
    /// and NAME.pem with NAME.key for each server and user.
    #[arg(long, value_name = "DIR")]
    pub(super) certificates: Option<PathBuf>,
}

/// Options of `fanfare nats permissions`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Listing {
    /// Only of this user, for example `ingest` or `producer-acme`.
    user: Option<String>,
    /// A tenant that has a producer.
    #[arg(long = "producer", value_name = "TENANT")]
    producers: Vec<TenantId>,
    /// What the installation's subjects begin with.
    #[arg(long, default_value = "fanfare", value_name = "PREFIX")]
    prefix: String,
}

/// Does what was asked for.
pub(crate) fn run(command: Command, output: Output) -> Result<()> {
    match command {
        Command::Config(options) => config(&options, output),
        Command::Permissions(listing) => list(&listing, output),
    }
}

fn config(options: &Options, output: Output) -> Result<()> {
    files::directory(&options.directory)?;
    let at = options.directory.canonicalize().context("find the directory")?;
    let mut plan = Plan::read(&options.directory)?;
    plan.extend(options, &at)?;
    let made = made::make(&plan, &options.directory, options.certificates.as_deref())?;
    if output.json {
        output.document(&json!({
            "directory": at, "servers": made.servers, "users": made.users, "new": made.new,
        }));
        return Ok(());
    }
    output.line(&format!("The configuration of NATS is in {}.", options.directory.display()));
    output.line("");
    output.fields(&[
        ("  servers", made.servers.join(", ")),
        ("  users", made.users.join(", ")),
        ("  new", made.new.join(", ")),
        ("  durability", String::from(plan.durability())),
    ]);
    let first = plan.servers.first().map(|server| server.name.as_str()).unwrap_or_default();
    let at = &plan.at;
    output.line("");
    output.line(&output.tone(Tone::Strong, "Next:"));
    let of = |user: &str| format!("{}/users/{user}/log.toml", at.display());
    output.commands(&[
        (format!("nats-server -c {}/servers/{first}/nats-server.conf", at.display()), "each"),
        (format!("fanfare bootstrap --config {}", of("bootstrap")), "makes the streams, once"),
        (format!("fanfare run ingest --config {}", of("ingest")), "and so each service"),
    ]);
    Ok(())
}

/// Every user, with what it may do.
fn users(plan: &Plan) -> Vec<(Role, Permissions)> {
    let topology = Topology::new(&plan.prefix);
    let roles = Role::FIXED.into_iter().chain(plan.producers());
    roles.map(|role| (role.clone(), role.permissions(&topology))).collect()
}

fn list(listing: &Listing, output: Output) -> Result<()> {
    let topology = Topology::new(&listing.prefix);
    let producers = listing.producers.iter();
    let producers =
        producers.map(|tenant| Role::Producer { tenant: tenant.clone(), ways: Ways::All });
    let all = Role::FIXED.into_iter().chain(producers);
    let mut all: Vec<_> = all.map(|role| (role.to_string(), role.permissions(&topology))).collect();
    all.push((String::from("check"), permissions::check(&topology)));
    if let Some(user) = &listing.user {
        all.retain(|(name, _)| name == user);
        anyhow::ensure!(!all.is_empty(), "there is no user {user}; a producer needs --producer");
    }
    if output.json {
        let users = all.iter().map(|(user, may)| {
            json!({
                "user": user, "publish": may.publish, "publish_not": may.publish_not,
                "subscribe": may.subscribe,
            })
        });
        output.document(&users.collect());
        return Ok(());
    }
    for (user, may) in &all {
        output.line(&output.tone(Tone::Strong, user));
        for (what, subjects) in [
            ("publish", &may.publish),
            ("never publish", &may.publish_not),
            ("subscribe", &may.subscribe),
        ] {
            for subject in subjects {
                output.line(&format!("  {what:<13}  {subject}"));
            }
        }
    }
    Ok(())
}
