//! What the built binary says of itself: the help of every command, as people see it.
//!
//! After a change that is meant: `FANFARE_UPDATE_HELP=1 cargo test -p fanfare --test cli help`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Each command whose help is kept, as it is typed.
const COMMANDS: &[&str] = &[
    "",
    "up",
    "run",
    "delivery-log",
    "delivery-log rebuild",
    "bootstrap",
    "nats",
    "nats config",
    "nats permissions",
    "bench",
    "demo",
    "tenant",
    "tenant create",
    "tenant limit",
    "tenant plan",
    "tenant expunge",
    "tenant portal-link",
    "endpoint",
    "endpoint create",
    "endpoint update",
    "endpoint test",
    "endpoint filter-test",
    "endpoint pause",
    "endpoint rotate-secret",
    "endpoint reveal-secrets",
    "endpoint statistics",
    "event",
    "event send",
    "event list",
    "event-type",
    "event-type create",
    "event-type import",
    "apply",
    "listen",
    "watch",
    "delivery",
    "delivery list",
    "delivery get",
    "delivery watch",
    "delivery attempts",
    "delivery attempt",
    "trace",
    "dead-letter list",
    "audit",
    "delivery retry",
    "replay",
    "replay start",
    "replay redrive",
    "key",
    "key create",
    "key revoke",
];

pub(crate) fn fanfare(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fanfare")).args(arguments).env_clear().output().unwrap()
}

fn kept(command: &str) -> PathBuf {
    let name = if command.is_empty() { "fanfare" } else { command };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help");
    directory.join(format!("{}.txt", name.replace(' ', "-")))
}

#[test]
fn the_help_of_every_command_is_as_it_was_agreed_on() {
    let update = std::env::var_os("FANFARE_UPDATE_HELP").is_some();
    for command in COMMANDS {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = fanfare(&arguments);
        assert!(output.status.success(), "{command}");
        let said = String::from_utf8(output.stdout).unwrap();
        let path = kept(command);
        if update {
            std::fs::write(&path, &said).unwrap();
        }
        let agreed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(said, agreed, "the help of {command:?} differs from {}", path.display());
    }
}

#[test]
fn no_help_is_kept_of_a_command_that_is_gone() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let mut expected: Vec<PathBuf> = COMMANDS.iter().map(|command| kept(command)).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn exit_codes_tell_usage_from_failure() {
    assert_eq!(fanfare(&["--version"]).status.code(), Some(0));
    assert_eq!(fanfare(&["fly"]).status.code(), Some(2));
    assert_eq!(fanfare(&["tenant", "create", "a.b"]).status.code(), Some(2));
    assert_eq!(fanfare(&["tenant", "limit", "acme"]).status.code(), Some(2));
    let burst = ["endpoint", "create", "acme", "https://example.com/", "--rate-burst", "3"];
    assert_eq!(fanfare(&burst).status.code(), Some(2));
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let failed = fanfare(&["--json", "--data", data, "tenant", "list"]);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stderr).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(said["error"].as_str().unwrap().contains("fanfare up"), "{said}");
}
