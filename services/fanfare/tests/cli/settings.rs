//! What is said of settings and of calls that are wrong, before anything is started.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::help::fanfare;

/// A directory with a sealing key in it.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("sealing.key"), "ab".repeat(32)).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        shown(&self.path(name))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a command that must fail, and returns its exit code and what it said.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = fanfare(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_check_prints_every_setting_in_effect_and_no_secret() {
    let place = Place::new();
    let key = format!("sealing_key_file={}", shown(&place.path("sealing.key")));
    let operator = format!("operator_key=fk_{}", "0f".repeat(32));
    let api = ["run", "api", "--check", "--set", &key, "--set", &operator];
    let password = ["--set", "log.url=nats://me:hunter2@a:4222"];
    let output = fanfare(&[&api[..], &password].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "log.durability = process",
        "log.replicas = 1",
        "log.shards = 16",
        "log.retention = 30d",
        "log.url = nats://***@a:4222",
        "# log.credentials_file is not set",
        "operator_key = ***",
        "listen = 127.0.0.1:8080",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("0f0f"), "{text}");
    let output = fanfare(&[&["--json"], &api[..], &password].concat());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["log.shards"], "16");
    assert_eq!((&json["operator_key"], &json["profiles_dir"]), (&"***".into(), &Value::Null));
}

#[test]
fn a_check_judges_urls_numbers_and_the_files_that_are_named() {
    let place = Place::new();
    let missing = format!("sealing_key_file={}", shown(&place.path("none.key")));
    let bad = format!("sealing_key_file={}", place.file("bad.key", "no key"));
    for (service, set, words) in [
        ("ingest", "log.url=http://foo", "log.url (from the command line): not nats://"),
        ("ingest", "batches_max=many", "not a whole number between 1 and 64"),
        ("ingest", "log.shard=4", "did you mean log.shards?"),
        ("dispatcher", &*missing, "openssl rand -hex 32"),
        ("api", &*missing, "No such file"),
        ("api", &*bad, "a sealing key is 64 hexadecimal digits"),
    ] {
        let (code, said) = refused(&["run", service, "--check", "--set", set]);
        assert_eq!(code, Some(1), "{said}");
        // What is noted of several settings has no layer.
        let words = words.replace(" (from the command line)", "");
        assert!(said.replace(" (from the command line)", "").contains(&words), "{set}: {said}");
    }
}

#[test]
fn a_file_for_up_has_no_table_that_nobody_reads() {
    let place = Place::new();
    let file = place.file("up.toml", "[dispatchr]\nin_flight_max = 3");
    let data = shown(&place.path("data"));
    let (code, said) = refused(&["--data", &data, "up", "--config", &file]);
    assert_eq!(code, Some(1));
    assert!(said.contains("unknown table dispatchr (did you mean [dispatcher]?)"), "{said}");
}

#[test]
fn up_does_not_replace_a_lost_sealing_key() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("data/nats/jetstream")).unwrap();
    let data = shown(&place.path("data"));
    let (code, said) = refused(&["--data", &data, "up"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("sealing.key is missing") && said.contains("Put the file back"),
        "{said}"
    );
    assert!(!place.path("data/sealing.key").exists());
}

#[test]
fn a_single_machine_cannot_be_durable_as_a_cluster_is() {
    let place = Place::new();
    let data = shown(&place.path("data"));
    let (_, said) = refused(&["--data", &data, "up", "--durability", "node"]);
    assert!(said.contains("--nats-url") && said.contains("--durability site"), "{said}");
}

#[test]
fn programs_are_told_in_json_how_they_called_wrongly() {
    for (arguments, words) in [
        (&["--json", "fly"][..], "unrecognized subcommand 'fly'"),
        (&["tenant", "list", "--json", "--api", "foo"], "not a URL"),
        (&["--json", "tenant"], "Make and look after tenants"),
    ] {
        let (code, said) = refused(arguments);
        assert_eq!(code, Some(2), "{said}");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert!(said["error"].as_str().unwrap().contains(words), "{said}");
        assert_eq!(said["code"], "usage");
    }
    let (_, said) = refused(&["event", "send", "acme", "a", "--", "--json"]);
    assert!(said.starts_with("error: "), "{said}");
    assert!(fanfare(&["--json", "--version"]).stdout.starts_with(b"fanfare "));
}

#[test]
fn a_missing_operators_key_is_named_with_its_cause_first() {
    let place = Place::new();
    let data = shown(&place.path("data"));
    let (_, said) = refused(&["--data", &data, "tenant", "list"]);
    let (cause, advice) = (said.find("No such file").unwrap(), said.find("fanfare up").unwrap());
    assert!(cause < advice, "{said}");
}

#[test]
fn servers_that_are_away_are_told_of_at_once_and_without_the_password() {
    // Nobody listens at port 1.
    let url = "log.url=nats://me:hunter2@127.0.0.1:1";
    let mut service = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["--log", "warn", "run", "fan-out", "--set", url])
        .env_clear()
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(service.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let still_trying = service.try_wait().unwrap().is_none();
    service.kill().unwrap();
    service.wait().unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(still_trying, "{said}");
    assert_eq!(
        (&said["level"], &said["fields"]["url"]),
        (&"WARN".into(), &"nats://127.0.0.1:1".into())
    );
    assert!(!said.to_string().contains("hunter2"), "{said}");
}
