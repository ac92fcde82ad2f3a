//! Who may import whom: the table of ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Our crates that a crate may depend on, in the order of the layers.
const OURS: &[(&str, &[&str])] = &[
    ("fanfare-domain", &[]),
    ("fanfare-nats-server", &[]),
    ("fanfare-proto", &["fanfare-domain"]),
    ("fanfare-event-log", &["fanfare-domain", "fanfare-proto"]),
    ("fanfare-service", &["fanfare-domain"]),
    ("fanfare-egress", &["fanfare-domain"]),
    ("fanfare-delivery-log", &["fanfare-domain"]),
    (
        "fanfare-testkit",
        &[
            "fanfare-domain",
            "fanfare-proto",
            "fanfare-event-log",
            "fanfare-service",
            "fanfare-nats-server",
        ],
    ),
    ("fanfare-ingest", SERVICE),
    ("fanfare-fan-out", SERVICE),
    (
        "fanfare-dispatcher",
        &["fanfare-domain", "fanfare-event-log", "fanfare-service", "fanfare-egress"],
    ),
    ("fanfare-retry-scheduler", SERVICE),
    (
        "fanfare-projector",
        &["fanfare-domain", "fanfare-event-log", "fanfare-service", "fanfare-delivery-log"],
    ),
    (
        "fanfare-api",
        &["fanfare-domain", "fanfare-event-log", "fanfare-service", "fanfare-delivery-log"],
    ),
];

/// What every service may depend on: never another service, never the wire types.
const SERVICE: &[&str] = &["fanfare-domain", "fanfare-event-log", "fanfare-service"];

/// Crates of others that a crate of ours must not name.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("fanfare-domain", &["tokio", "async-nats", "axum", "reqwest", "tracing", "rand", "prost"]),
    ("fanfare-proto", &["tokio", "async-nats"]),
    ("fanfare-event-log", &["axum", "reqwest", "hyper"]),
    ("fanfare-service", &["async-nats", "prost"]),
    ("fanfare-egress", &["async-nats", "prost"]),
    ("fanfare-delivery-log", &["async-nats", "prost", "axum", "reqwest"]),
    ("fanfare-ingest", WIRE),
    ("fanfare-fan-out", WIRE),
    ("fanfare-dispatcher", WIRE),
    ("fanfare-retry-scheduler", WIRE),
    ("fanfare-projector", &["async-nats", "prost", "reqwest", "sqlx"]),
    ("fanfare-api", &["async-nats", "prost", "sqlx"]),
];

const WIRE: &[&str] = &["async-nats", "prost", "reqwest"];

/// The normal and build dependencies of each of our crates.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
        .arg(manifest)
        .output()
        .context("run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read its output")?;
    let mut found = BTreeMap::new();
    for package in list(&metadata, "packages")? {
        let names = list(package, "dependencies")?
            .iter()
            .filter(|dependency| dependency.get("kind").and_then(Value::as_str) != Some("dev"))
            .filter_map(|dependency| text(dependency, "name").map(String::from))
            .collect();
        found.insert(String::from(text(package, "name").context("name")?), names);
    }
    Ok(found)
}

fn list<'a>(value: &'a Value, key: &'static str) -> Result<&'a Vec<Value>> {
    value.get(key).and_then(Value::as_array).context(key)
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

#[test]
fn crates_import_only_the_layers_below_them() -> Result<()> {
    let found = dependencies()?;
    for (name, allowed) in OURS {
        let used = found.get(*name).with_context(|| format!("{name} is not in the workspace"))?;
        for dependency in used.iter().filter(|used| used.starts_with("fanfare")) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not import {dependency}");
        }
    }
    let may_import_all = ["fanfare", "fanfare-tests", "fanfare-fuzzing"];
    for name in found.keys().filter(|name| !may_import_all.contains(&name.as_str())) {
        assert!(OURS.iter().any(|(known, _)| known == name), "{name} is in no layer");
    }
    Ok(())
}

#[test]
fn crates_leave_alone_what_is_not_their_business() -> Result<()> {
    let found = dependencies()?;
    for (name, forbidden) in FORBIDDEN {
        let used = found.get(*name).with_context(|| format!("{name} is not in the workspace"))?;
        for dependency in *forbidden {
            assert!(!used.contains(*dependency), "{name} must not import {dependency}");
        }
    }
    Ok(())
}
