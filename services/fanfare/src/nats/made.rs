//! Makes the directory.
//!
//! ```text
//! nats.toml                  what it is made of
//! ca/                        the authority of a trial, and what the servers know each other by
//! servers/<name>/            all that a server needs, and nothing that another one has
//! users/<name>/              all that a service, a person or a producer needs
//! ```

use std::path::Path;

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use fanfare_event_log::{Role, Topology};
use fanfare_service::{Clock as _, SystemClock, random_bytes};

use super::{
    certificates::{For, Source},
    files,
    plan::{Plan, Server},
    render::{self, User, Users},
    users,
};

/// The users that people look after the servers with, and that services check them with.
const ADMIN: &str = "admin";
const SYSTEM: &str = "system";
const CHECK: &str = "check";
/// The file of a user's seed, and that of the check's.
const SEED: &str = "user.nk";
const CHECK_SEED: &str = "check.nk";
/// Where the secret of the servers is.
const SECRET: &str = "ca/routes.secret";

/// What is there now.
pub(super) struct Made {
    /// The servers.
    pub(super) servers: Vec<String>,
    /// The users.
    pub(super) users: Vec<String>,
    /// Those among them that are new, or have a new key.
    pub(super) new: Vec<String>,
}

/// Makes what is missing, and all that is made of other things.
pub(super) fn make(plan: &Plan, directory: &Path, certificates: Option<&Path>) -> Result<Made> {
    files::directory(&directory.join("ca"))?;
    let source = Source::open(directory, certificates, SystemClock.now())?;
    let mut made = Made { servers: Vec::new(), users: Vec::new(), new: Vec::new() };
    let users = Users {
        fanfare: fanfare_users(plan, (directory, &source), &mut made)?,
        system: system_users(plan, (directory, &source), &mut made)?,
    };
    hand_out_check(plan, directory)?;
    let secret = secret(directory)?;
    for server in &plan.servers {
        make_server(plan, server, (directory, &source), (&users, &secret))?;
        made.servers.push(server.name.clone());
    }
    plan.write(directory)?;
    Ok(made)
}

fn make_server(
    plan: &Plan,
    server: &Server,
    (directory, source): (&Path, &Source),
    (users, secret): (&Users, &str),
) -> Result<()> {
    let home = directory.join("servers").join(&server.name);
    files::directory(&home)?;
    let mut names = vec![server.host.clone()];
    for name in [server.name.as_str(), "localhost", "127.0.0.1"] {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    source.put(&server.name, &For::Server(&names), &home)?;
    files::write(&home.join(render::SERVER), &render::server(plan, server))?;
    files::write(&home.join(render::ACCOUNTS), &render::accounts(plan, users))?;
    if plan.servers.len() > 1 {
        let cluster = render::cluster(plan, server, secret);
        files::write_secret(&home.join(render::CLUSTER), &cluster)?;
    }
    Ok(())
}

fn fanfare_users(plan: &Plan, place: (&Path, &Source), made: &mut Made) -> Result<Vec<User>> {
    let topology = Topology::new(&plan.prefix);
    let mut users = Vec::new();
    for (role, permissions) in super::users(plan) {
        let name = role.to_string();
        let public_key = make_user(&name, place, made)?;
        let home = place.0.join("users").join(&name);
        match &role {
            Role::Operator | Role::Producer { .. } => {
                let context = render::context(plan, &name, &role.inbox(&topology));
                files::write(&home.join("nats-context.json"), &context)?;
            }
            Role::Ingest
            | Role::FanOut
            | Role::Dispatcher
            | Role::RetryScheduler
            | Role::Projector
            | Role::Api
            | Role::Bootstrap => {
                files::write(&home.join("log.toml"), &render::log(plan, &name))?;
            }
        }
        users.push(User { name, public_key, permissions: Some(permissions) });
    }
    users.push(unlimited(plan, ADMIN, place, made)?);
    Ok(users)
}

fn system_users(plan: &Plan, place: (&Path, &Source), made: &mut Made) -> Result<Vec<User>> {
    let public_key = make_user(CHECK, place, made)?;
    let permissions = Some(render::check(plan));
    let check = User { name: String::from(CHECK), public_key, permissions };
    Ok(vec![check, unlimited(plan, SYSTEM, place, made)?])
}

/// A user of its account that may do everything: for people, in need.
fn unlimited(plan: &Plan, name: &str, place: (&Path, &Source), made: &mut Made) -> Result<User> {
    let public_key = make_user(name, place, made)?;
    let context = render::context(plan, name, &format!("_INBOX.{}.{name}", plan.prefix));
    files::write(&place.0.join("users").join(name).join("nats-context.json"), &context)?;
    Ok(User { name: name.to_owned(), public_key, permissions: None })
}

fn make_user(name: &str, (directory, source): (&Path, &Source), made: &mut Made) -> Result<String> {
    let home = directory.join("users").join(name);
    files::directory(&home)?;
    let (public_key, new) = users::public_key(&home.join(SEED))?;
    source.put(name, &For::User, &home).with_context(|| format!("certify {name}"))?;
    made.users.push(name.to_owned());
    if new {
        made.new.push(name.to_owned());
    }
    Ok(public_key)
}

/// Gives the check's seed to each service.
fn hand_out_check(plan: &Plan, directory: &Path) -> Result<()> {
    let users = directory.join("users");
    let seed = users.join(CHECK).join(SEED);
    for (role, _) in super::users(plan) {
        let home = users.join(role.to_string());
        if home.join("log.toml").exists() {
            files::copy(&seed, &home.join(CHECK_SEED), true)?;
        }
    }
    Ok(())
}

/// What the servers know each other by.
fn secret(directory: &Path) -> Result<String> {
    let path = directory.join(SECRET);
    if !path.exists() {
        files::write_secret(&path, &format!("{}\n", HEXLOWER.encode(&random_bytes::<32>())))?;
    }
    Ok(files::read(&path)?.trim().to_owned())
}
