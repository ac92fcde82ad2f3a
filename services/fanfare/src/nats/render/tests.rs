//! The example in the repository, and what is read of what is made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fanfare_event_log::Role;

use super::*;
use crate::nats::users;

/// The example in the repository is made of this plan, with placeholders for keys and secrets.
fn plan() -> Plan {
    toml::from_str(
        r#"
        prefix = "fanfare"
        at = "/etc/fanfare-nats"
        store = "/var/lib/nats"
        producers = ["acme"]
        requesters = ["globex"]
        [[server]]
        name = "nats-1"
        host = "nats-1.internal"
        port = 4222
        routes = 6222
        monitoring = 8222
        [[server]]
        name = "nats-2"
        host = "nats-2.internal"
        port = 4222
        routes = 6222
        monitoring = 8222
        [[server]]
        name = "nats-3"
        host = "nats-3.internal"
        port = 4222
        routes = 6222
        monitoring = 8222
        "#,
    )
    .unwrap()
}

fn user(name: &str, permissions: Option<Permissions>) -> User {
    let public_key = format!("<public key of {name}>");
    User { name: name.to_owned(), public_key, permissions }
}

fn example() -> Vec<(&'static str, String)> {
    let plan = plan();
    let fanfare = users(&plan).into_iter();
    let mut fanfare: Vec<_> =
        fanfare.map(|(role, may)| user(&role.to_string(), Some(may))).collect();
    fanfare.push(user("admin", None));
    let system = vec![user("check", Some(check(&plan))), user("system", None)];
    let users = Users { fanfare, system };
    let first = &plan.servers[0];
    vec![
        ("servers/nats-1/nats-server.conf", server(&plan, first)),
        ("servers/nats-1/accounts.conf", accounts(&plan, &users)),
        ("servers/nats-1/cluster.conf", cluster(&plan, first, "<secret>")),
        ("users/ingest/log.toml", log(&plan, "ingest")),
        ("users/producer-acme/nats-context.json", {
            let role = plan.producers().next().unwrap();
            context(&plan, "producer-acme", &role.inbox(&Topology::new(&plan.prefix)))
        }),
    ]
}

/// After a change that is meant: `FANFARE_WRITE_NATS=1 cargo test -p fanfare example_in_the_repository`.
#[test]
fn the_example_in_the_repository_is_what_is_made() {
    let directory: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../deploy/nats/example"].iter().collect();
    let write = fanfare_service::process_env().unwrap().contains_key("FANFARE_WRITE_NATS");
    for (name, text) in example() {
        let path: PathBuf = directory.join(name);
        if write {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "{name} has changed: see above this test");
    }
}

#[test]
fn no_user_is_without_permissions_but_for_people_in_need() {
    let plan = plan();
    assert_eq!(users(&plan).len(), Role::FIXED.len() + 2);
    for (role, may) in users(&plan) {
        assert!(!may.publish.is_empty() && !may.subscribe.is_empty(), "{role}");
        let everything = |subjects: &std::collections::BTreeSet<String>| {
            subjects.iter().any(|subject| subject.starts_with(['>', '*']) || subject == "_INBOX.>")
        };
        assert!(!everything(&may.publish) && !everything(&may.subscribe), "{role}");
    }
}

#[test]
fn what_a_service_is_told_is_read_by_it() {
    use fanfare_service::{SettingsFile, Sources};

    let file = SettingsFile::parse("log.toml", &log(&plan(), "ingest")).unwrap();
    let sources = Sources::new("any", "").unwrap().file(&file).unwrap();
    let shown = sources.shown();
    assert_eq!(shown["log.replicas"], "3");
    assert_eq!(shown["log.durability"], "node");
    assert!(shown["log.url"].starts_with("nats://nats-1.internal:4222,"));
}
