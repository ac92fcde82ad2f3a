//! A session as in the README: a system, a receiver, an event, and what became of it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A command that goes on, and writes JSON lines.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// A running system.
struct Session {
    up: Running,
    data: PathBuf,
    _directory: TempDir,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line.unwrap()).unwrap()
    }

    /// Does what Ctrl-C does, and waits for an end in order.
    async fn interrupt(mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }
}

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.arg("--json").arg("--data").arg(data).args(arguments);
    command
}

impl Session {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let arguments = ["up", "--stop-with-stdin", "--nats-port", "0", "--listen", "127.0.0.1:0"];
        // Not killed when dropped: it ends in order, and its nats-server with it, because its
        // standard input is closed then.
        let mut up = Running::start(&mut command(&data, &arguments));
        up.next().await;
        Self { up, data, _directory: directory }
    }

    fn begin(&self, arguments: &[&str]) -> Running {
        Running::start(command(&self.data, arguments).kill_on_drop(true))
    }

    /// Ends the system in order.
    async fn end(mut self) {
        // Waiting closes its standard input first.
        let status = timeout(PATIENCE, self.up.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Runs a command to its end, and returns the document that it writes.
    async fn run(&self, arguments: &[&str]) -> Value {
        let run = command(&self.data, arguments).stdin(Stdio::null()).output();
        let output = timeout(PATIENCE, run).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command to its end, and returns what it writes for people.
    async fn says(&self, arguments: &[&str]) -> String {
        let mut run = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        run.arg("--data").arg(&self.data).args(arguments).stdin(Stdio::null());
        let output = timeout(PATIENCE, run.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command again and again until what it writes for people has this part.
    async fn comes_to_say(&self, arguments: &[&str], part: &str) -> String {
        let asking = async {
            loop {
                let mut run = Command::new(env!("CARGO_BIN_EXE_fanfare"));
                run.arg("--data").arg(&self.data).args(arguments).stdin(Stdio::null());
                let text = String::from_utf8(run.output().await.unwrap().stdout).unwrap();
                if text.contains(part) {
                    return text;
                }
            }
        };
        timeout(PATIENCE, asking).await.unwrap()
    }

    /// Runs a command that fails, and returns what it says.
    async fn refused(&self, arguments: &[&str]) -> String {
        let run = command(&self.data, arguments).stdin(Stdio::null()).output();
        let output = timeout(PATIENCE, run).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test]
async fn a_listener_gets_what_is_sent_and_leaves_nothing_behind() {
    let session = Session::start().await;
    let mut listener = session.begin(&["listen", "--fail", "1", "--retry-delays", "100ms"]);
    let endpoint = listener.next().await["endpoint_id"].as_str().map(String::from).unwrap();
    let mut watcher = session.begin(&["watch", "--tenant", "acme", "--since", "1m"]);
    let data = r#"{"invoice": 7, "amount": 42.50}"#;
    let sent = session.run(&["event", "send", "acme", "invoice.paid", data]).await;
    let event = sent["id"].as_str().unwrap();
    for (attempt, answer) in [(1, 500), (2, 200)] {
        let arrival = listener.next().await;
        assert_eq!((&arrival["attempt"], &arrival["answer"]), (&json!(attempt), &json!(answer)));
        assert_eq!(arrival["signature"], "verified");
        assert_eq!(arrival["event_type"], "invoice.paid");
        assert_eq!(arrival["headers"]["webhook-id"], event);
        let body: Value = serde_json::from_str(arrival["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["data"], json!({ "invoice": 7, "amount": 42.5 }));
    }
    let mut seen = Vec::new();
    while seen.last().is_none_or(|fact| *fact != "delivery_concluded") {
        let fact = watcher.next().await;
        assert_eq!(fact["event_id"], event);
        seen.push(fact["fact"].as_str().map(String::from).unwrap());
    }
    assert_eq!(seen.iter().filter(|fact| *fact == "attempt_made").count(), 2, "{seen:?}");
    let deliveries = session.run(&["delivery", "list", "acme", event]).await;
    assert_eq!(deliveries[0]["endpoint_id"], *endpoint);
    let delivery = deliveries[0]["id"].as_str().unwrap();
    let found = session.run(&["delivery", "get", "acme", delivery]).await;
    assert_eq!(found["delivery"]["state"], "delivered");
    assert_eq!(found["facts"].as_array().unwrap().len(), seen.len() - 1, "all but the routing");
    let shown = session.says(&["delivery", "list", "acme", event]).await;
    let ends: Vec<&str> = shown.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(ends, ["STATE", "delivered"], "{shown}");
    watcher.interrupt().await;
    listener.interrupt().await;
    assert_eq!(session.run(&["endpoint", "list", "acme"]).await, json!([]));
    session.end().await;
}

#[tokio::test]
async fn the_story_of_an_event_has_who_skipped_it_and_its_replays() {
    let session = Session::start().await;
    let mut listener = session.begin(&["listen"]);
    let listening = listener.next().await["endpoint_id"].as_str().map(String::from).unwrap();
    let made = ["endpoint", "create", "acme", "https://example.com/"];
    let paused = session.run(&made).await["id"].as_str().map(String::from).unwrap();
    session.run(&["endpoint", "pause", "acme", &paused, "--mode", "skip"]).await;
    let sent = session.run(&["event", "send", "acme", "invoice.paid", "{}"]).await;
    let event = sent["id"].as_str().unwrap();
    listener.next().await;
    let trace = ["trace", "acme", event];
    let told = session.run(&trace).await;
    assert_eq!(told["skipped_by"], json!([paused]));
    assert_eq!(told["deliveries"][0]["delivery"]["endpoint_id"], listening);
    let shown = session.says(&trace).await;
    for part in [
        "matched: 1 delivery, skipped by 1 endpoint",
        &format!("{paused}  skipped: the endpoint was paused"),
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    session.run(&["endpoint", "pause", "acme", &listening, "--mode", "skip"]).await;
    let skipped = session.run(&["event", "send", "acme", "invoice.paid", "{}"]).await;
    let other = ["trace", "acme", skipped["id"].as_str().unwrap()];
    session.comes_to_say(&other, "matched: no delivery, skipped by 2 endpoints").await;
    session.run(&["endpoint", "resume", "acme", &listening]).await;
    let replay = ["replay", "start", "acme", "--since", "1h", "--which", "all"];
    session.run(&[&replay[..], &["--endpoint", &listening]].concat()).await;
    let shown = session.comes_to_say(&trace, "replayed: 1 delivery").await;
    assert_eq!(shown.matches("trace ").count(), 2, "{shown}");
    listener.interrupt().await;
    session.end().await;
}

#[tokio::test]
async fn an_endpoint_that_is_told_to_take_batches_gets_them() {
    let session = Session::start().await;
    let mut listener = session.begin(&["listen"]);
    let endpoint = listener.next().await["endpoint_id"].as_str().map(String::from).unwrap();
    let update = ["endpoint", "update", "acme", &endpoint];
    let batch =
        ["--batch", "2", "--batch-wait", "30s", "--rate-limit", "10/s", "--concurrency", "4"];
    let changed = session.run(&[&update[..], &batch[..]].concat()).await;
    assert_eq!(changed["batch"], json!({ "max_events": 2, "max_wait_ms": 30_000 }));
    let limit = json!({ "requests": 10, "per": "second", "burst": 1 });
    assert_eq!((&changed["rate_limit"], &changed["concurrency"]), (&limit, &json!(4)));
    let mut sent = Vec::new();
    for data in ["1", "2"] {
        let answer = session.run(&["event", "send", "acme", "invoice.paid", data]).await;
        sent.push(answer["id"].as_str().map(String::from).unwrap());
    }
    let arrival = listener.next().await;
    assert_eq!(arrival["signature"], "verified");
    assert_eq!(arrival["event_type"], "2 events: invoice.paid");
    let body: Value = serde_json::from_str(arrival["body"].as_str().unwrap()).unwrap();
    let ids: Vec<_> = body.as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, sent);
    let part = ["--batch", "3", "--rate-burst", "5"];
    let changed = session.run(&[&update[..], &part[..]].concat()).await;
    assert_eq!(changed["batch"], json!({ "max_events": 3, "max_wait_ms": 30_000 }));
    assert_eq!(changed["rate_limit"], json!({ "requests": 10, "per": "second", "burst": 5 }));
    let none = ["--batch", "none", "--rate-limit", "none"];
    let changed = session.run(&[&update[..], &none[..]].concat()).await;
    assert_eq!((&changed["batch"], &changed["rate_limit"]), (&Value::Null, &Value::Null));
    assert_eq!(changed["concurrency"], 4);
    let alone = [&update[..], &["--rate-burst", "5"]].concat();
    assert!(session.refused(&alone).await.contains("no rate limit"));
    listener.interrupt().await;
    session.end().await;
}

#[tokio::test]
async fn a_tenants_limit_is_set_changed_in_part_and_removed() {
    let session = Session::start().await;
    session.run(&["tenant", "create", "acme", "--rate-limit", "20/s", "--rate-burst", "5"]).await;
    let limit = ["tenant", "limit", "acme"];
    for (words, expected) in [
        (&["100/minute"][..], json!({ "requests": 100, "per": "minute", "burst": 5 })),
        (&["--rate-burst", "7"], json!({ "requests": 100, "per": "minute", "burst": 7 })),
        (&["none"], Value::Null),
        (&["20/s"], json!({ "requests": 20, "per": "second", "burst": 1 })),
    ] {
        let changed = session.run(&[&limit[..], words].concat()).await;
        assert_eq!(changed["rate_limit"], expected, "{words:?}");
    }
    let renamed = session.run(&["tenant", "update", "acme", "--name", "ACME Corp."]).await;
    assert_eq!(
        (&renamed["name"], &renamed["profile"]),
        (&json!("ACME Corp."), &json!("standard-webhooks"))
    );
    session.end().await;
}

#[tokio::test]
async fn events_go_in_by_each_way_and_once_by_key() {
    let session = Session::start().await;
    session.run(&["tenant", "create", "acme", "--profile", "killb"]).await;
    let mut listener = session.begin(&["listen", "--types", "RAMP"]);
    listener.next().await;
    let send = ["event", "send", "acme", "RAMP.UPDATE", "--idempotency-key", "k"];
    let first = session.run(&[&send[..], &["--via", "api"]].concat()).await;
    let again = session.run(&[&send[..], &["--via", "nats", "--repeat", "3"]].concat()).await;
    assert_eq!(first["duplicate"], false);
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(3)));
    let last = ["event", "send", "acme", "RAMP.DELETE", "--via", "inbox"];
    assert_eq!(session.run(&last).await, json!({ "inbox_sequence": 1 }));
    let mut types = [listener.next().await, listener.next().await].map(|arrival| {
        assert_eq!(arrival["signature"], "verified");
        arrival["event_type"].as_str().map(String::from).unwrap()
    });
    types.sort();
    assert_eq!(types, ["RAMP.DELETE", "RAMP.UPDATE"]);
    listener.interrupt().await;
    session.end().await;
}

#[tokio::test]
async fn a_second_system_is_told_what_to_do_about_the_port_and_a_lost_key_is_not_replaced() {
    let session = Session::start().await;
    let running = std::fs::read(session.data.join("up.json")).unwrap();
    let running: Value = serde_json::from_slice(&running).unwrap();
    let listen = running["api"].as_str().unwrap().trim_start_matches("http://");
    let other = session.data.with_file_name("other");
    let arguments = ["up", "--nats-port", "0", "--listen", listen];
    let output = timeout(PATIENCE, command(&other, &arguments).output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("--listen 127.0.0.1:0"), "{said}");
    std::fs::remove_file(other.join("sealing.key")).unwrap();
    let output = timeout(PATIENCE, command(&other, &arguments).output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("sealing.key is missing"), "{said}");
    session.end().await;
}

#[tokio::test]
async fn a_file_is_applied_once_and_changes_only_what_differs() {
    let session = Session::start().await;
    let file = session.data.with_file_name("fanfare.toml");
    let declared = |plan: &str, url: &str, state: &str| {
        format!(
            r#"
            [[event_types]]
            type = "user.login"

            [[tenants]]
            id = "acme"
            profile = "kyberaccess"
            plan = "{plan}"
            endpoints_max = 5

            [[tenants.event_types]]
            type = "visitor.denied"
            schema = {{ type = "object" }}
            validation = "report"

            [[tenants.endpoints]]
            name = "lobby"
            url = "{url}"
            event_types = ["visitor.*"]
            retry = {{ delays = {{ list = ["60s"] }} }}
            metadata = {{ floor = "1" }}
            state = "{state}"
            "#
        )
    };
    let path = file.to_str().unwrap();
    let run = async |arguments: &[&str]| {
        let done = session.run(&[&["apply", "--file", path], arguments].concat()).await;
        let steps = done["steps"].as_array().unwrap().clone();
        let does = |step: &Value| String::from(step["does"].as_str().unwrap());
        (steps.iter().map(does).collect::<Vec<_>>(), done)
    };
    std::fs::write(&file, declared("starter", "https://example.com", "paused")).unwrap();
    let all = [
        "make event type user.login",
        "make tenant acme",
        "make event type visitor.denied",
        "make endpoint lobby, then pause it",
    ];
    assert_eq!(run(&[]).await.0, all);
    assert_eq!(run(&[]).await.0, all, "nothing is done without being told to");
    let (steps, done) = run(&["--yes"]).await;
    assert_eq!(steps, all);
    assert!(done["answers"][3]["secret"].is_string(), "{done}");
    assert_eq!(run(&["--yes"]).await.0, Vec::<String>::new());
    let listed = session.run(&["endpoint", "list", "acme"]).await;
    assert_eq!((&listed[0]["state"], &listed[0]["name"]), (&json!("paused"), &json!("lobby")));
    std::fs::write(&file, declared("starter", "https://example.com/b", "active")).unwrap();
    let (steps, _) = run(&["--yes"]).await;
    assert_eq!(steps, ["change endpoint lobby: url", "resume endpoint lobby"]);
    assert_eq!(run(&[]).await.0, Vec::<String>::new());
    std::fs::write(&file, declared("enterprise", "https://example.com/b", "active")).unwrap();
    assert_eq!(run(&["--yes"]).await.0, ["change tenant acme: endpoints_max, plan"]);
    assert_eq!(run(&[]).await.0, Vec::<String>::new(), "another plan leaves declared limits alone");
    session.end().await;
}

#[tokio::test]
async fn a_portal_link_is_used_like_a_key_and_a_secret_is_shown_again_with_a_reason() {
    let session = Session::start().await;
    session.run(&["tenant", "create", "acme", "--endpoints-max", "1"]).await;
    let changed = session.run(&["tenant", "plan", "acme", "--endpoints-max", "none"]).await;
    assert_eq!(changed["endpoints_max"], Value::Null);
    let link = ["tenant", "portal-link", "acme", "--role", "admin", "--user", "ada"];
    let link = session.run(&link).await;
    let token = link["token"].as_str().unwrap();
    let create = ["--key", token, "endpoint", "create", "acme", "https://example.com/"];
    let made = session.run(&create).await;
    let endpoint = made["id"].as_str().unwrap();
    let reveal = ["endpoint", "reveal-secrets", "acme", endpoint, "--reason", "a test"];
    session.refused(&reveal).await;
    let key = session.run(&["key", "create", "--reveals-secrets"]).await;
    let key = key["key"].as_str().unwrap();
    let shown = session.run(&[&["--key", key][..], &reveal].concat()).await;
    assert_eq!(shown["secrets"][0]["secret"], made["secret"]);
    session.end().await;
}
