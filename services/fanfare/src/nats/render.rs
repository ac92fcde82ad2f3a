//! The text of the files: what servers are told, and what services are told of them.
//!
//! Separate lines throughout: in the servers' language a value can swallow what follows it on its line.

use std::fmt::Write as _;

use fanfare_event_log::{Permissions, Topology, permissions};

use super::{
    certificates::{AUTHORITY, CERTIFICATE, KEY},
    plan::{Plan, Server},
};

/// The names of the files of a server.
pub(super) const SERVER: &str = "nats-server.conf";
pub(super) const ACCOUNTS: &str = "accounts.conf";
pub(super) const CLUSTER: &str = "cluster.conf";

/// The user by which servers know each other.
const ROUTES: &str = "routes";

/// A user, as the servers know it.
pub(super) struct User {
    /// Its name, for those who read the file.
    pub(super) name: String,
    /// Its public key.
    pub(super) public_key: String,
    /// What it may do; everything if `None`.
    pub(super) permissions: Option<Permissions>,
}

/// Who is in which account.
pub(super) struct Users {
    /// The account of the streams.
    pub(super) fanfare: Vec<User>,
    /// The system account.
    pub(super) system: Vec<User>,
}

/// The configuration of a server, which includes the others.
pub(super) fn server(plan: &Plan, server: &Server) -> String {
    let home = plan.at.join("servers").join(&server.name);
    let file = |name: &str| quote(&home.join(name).to_string_lossy());
    let store = match &plan.store {
        Some(store) => store.join(&server.name),
        None => home.join("data"),
    };
    let mut text = format!(
        "# Made by `fanfare nats config`, and made anew by it: changes belong into nats.toml.\n\
         server_name: {name}\n\
         listen: {listen}\n\
         # For monitoring; it tells much and asks nobody who they are, so: from this machine only.\n\
         http: {http}\n\
         max_payload: 1048576\n\
         \n\
         jetstream {{\n\
         \x20 store_dir: {store}\n\
         \x20 # What was acknowledged is on the disk: durability node and site need it.\n\
         \x20 sync_interval: always\n\
         }}\n\
         \n\
         tls {{\n{tls}}}\n\
         \n\
         include \"{ACCOUNTS}\"\n",
        name = quote(&server.name),
        listen = quote(&socket(server.listens(), server.port)),
        http = quote(&format!("127.0.0.1:{}", server.monitoring)),
        store = quote(&store.to_string_lossy()),
        tls = tls([file(CERTIFICATE), file(KEY), file(AUTHORITY)]),
    );
    if plan.servers.len() > 1 {
        let _written = writeln!(text, "include \"{CLUSTER}\"");
    }
    text
}

/// How a server finds the others. `secret` is what they know each other by: the certificates of
/// clients are of the same authority.
pub(super) fn cluster(plan: &Plan, server: &Server, secret: &str) -> String {
    let home = plan.at.join("servers").join(&server.name);
    let file = |name: &str| quote(&home.join(name).to_string_lossy());
    let tls = tls([file(CERTIFICATE), file(KEY), file(AUTHORITY)]);
    let mut text = format!(
        "# Holds a secret: for the servers alone.\n\
         cluster {{\n\
         \x20 name: {name}\n\
         \x20 listen: {listen}\n\
         \x20 # Clients are told all servers.\n\
         \x20 no_advertise: true\n\
         \x20 authorization {{\n\
         \x20   user: \"{ROUTES}\"\n\
         \x20   password: {password}\n\
         \x20 }}\n\
         \x20 tls {{\n{tls}\x20 }}\n\
         \x20 routes: [\n",
        name = quote(&plan.prefix),
        listen = quote(&socket(server.listens(), server.routes)),
        password = quote(secret),
        tls = tls.replace("  ", "    "),
    );
    for other in &plan.servers {
        let url = format!("nats-route://{ROUTES}:{secret}@{}", other.at(other.routes));
        let _written = writeln!(text, "    {}", quote(&url));
    }
    text + "  ]\n}\n"
}

fn tls([certificate, key, authority]: [String; 3]) -> String {
    format!(
        "\x20 cert_file: {certificate}\n\
         \x20 key_file: {key}\n\
         \x20 ca_file: {authority}\n\
         \x20 verify: true\n"
    )
}

/// The accounts, and the users in them.
pub(super) fn accounts(plan: &Plan, users: &Users) -> String {
    let mut text = String::from(
        "# Made by `fanfare nats config`, and made anew by it: changes belong into nats.toml.\n\
         # The keys here are public. What belongs to each is in the directory of its user.\n\
         accounts {\n",
    );
    let account = plan.prefix.to_ascii_uppercase();
    let _written = writeln!(text, "  {account} {{\n    jetstream: enabled\n    users: [");
    users.fanfare.iter().for_each(|user| text.push_str(&one(user)));
    let _written = writeln!(text, "    ]\n  }}\n  SYS {{\n    users: [");
    users.system.iter().for_each(|user| text.push_str(&one(user)));
    text + "    ]\n  }\n}\nsystem_account: SYS\n"
}

fn one(user: &User) -> String {
    let User { name, public_key, permissions } = user;
    let key = quote(public_key);
    let mut text = format!("      # {name}\n      {{\n        nkey: {key}\n");
    if let Some(Permissions { publish, publish_not, subscribe }) = permissions {
        let subjects = |set: &std::collections::BTreeSet<String>| {
            let quoted = set.iter().map(|subject| format!("\n              {}", quote(subject)));
            quoted.collect::<String>()
        };
        let _written = writeln!(
            text,
            "        permissions {{\n          publish {{\n            allow: [{}\n            ]",
            subjects(publish)
        );
        if !publish_not.is_empty() {
            let _written =
                writeln!(text, "            deny: [{}\n            ]", subjects(publish_not));
        }
        let _written = writeln!(
            text,
            "          }}\n          subscribe {{\n            allow: [{}\n            ]\n          }}\n        }}",
            subjects(subscribe)
        );
    }
    text + "      }\n"
}

/// The section `[log]` of a service, or of `fanfare bootstrap`.
pub(super) fn log(plan: &Plan, user: &str) -> String {
    let home = plan.at.join("users").join(user);
    let file = |name: &str| toml_quote(&home.join(name).to_string_lossy());
    let url = toml_quote(&plan.url());
    format!(
        "# Made by `fanfare nats config`: how {user} finds NATS, and as whom it comes there.\n\
         [log]\n\
         url = {url}\n\
         prefix = {prefix}\n\
         nkey_file = {nkey}\n\
         tls = \"required\"\n\
         ca_file = {ca}\n\
         certificate_file = {certificate}\n\
         certificate_key_file = {key}\n\
         durability = \"{durability}\"\n\
         replicas = {replicas}\n\
         # Who asks the servers whether they keep this, and may do nothing else.\n\
         system_url = {url}\n\
         system_nkey_file = {check}\n",
        prefix = toml_quote(&plan.prefix),
        nkey = file("user.nk"),
        ca = file(AUTHORITY),
        certificate = file(CERTIFICATE),
        key = file(KEY),
        durability = plan.durability(),
        replicas = plan.replicas(),
        check = file("check.nk"),
    )
}

/// A context of the `nats` tool, which also says to other software what it has to.
pub(super) fn context(plan: &Plan, user: &str, inbox: &str) -> String {
    let home = plan.at.join("users").join(user);
    let file = |name: &str| home.join(name).display().to_string();
    let context = serde_json::json!({
        "description": format!("{user} of {}", plan.prefix),
        "url": plan.url(),
        "nkey": file("user.nk"),
        "ca": file(AUTHORITY),
        "cert": file(CERTIFICATE),
        "key": file(KEY),
        "inbox_prefix": inbox,
    });
    format!("{context:#}\n")
}

/// What the check of durability may do.
pub(super) fn check(plan: &Plan) -> Permissions {
    permissions::check(&Topology::new(&plan.prefix))
}

fn socket(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Writes text as the servers' language has it.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn toml_quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
