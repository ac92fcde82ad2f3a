//! Every number that an operator sees is what happened, and every number is described.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::{
    receiver::{Behaviour, Receiver},
    wait_until,
};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::support::{
    Answer, Hooks,
    boards::{Board, OF_METRICS, observability},
    spans::taken,
    up::Up,
};

const PATIENCE: Duration = Duration::from_mins(1);
/// How long the tests of all rules may take.
const PATIENCE_OF_RULES: Duration = Duration::from_mins(5);

/// Where every number is described. `FANFARE_WRITE_METRICS=1` has the table written.
const DESCRIBED: &str = "metrics.md";

/// Endpoints: one that takes everything, one that fails, one that never answers.
async fn set(up: &Up, hooks: &Hooks) -> Result<()> {
    up.api.tenant("acme", "standard-webhooks").await?;
    for (path, filter) in [("/takes", ">"), ("/fails", "order.*"), ("/hangs", "hang.*")] {
        let retry = json!({"delays": {"list": ["1h"]}, "retry_on": "anything"});
        let new = json!({
            "url": hooks.url(path), "event_types": [filter], "retry": retry, "timeout_ms": 60_000,
        });
        up.api.endpoint("acme", &new).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_happened() -> Result<()> {
    let hooks = Hooks::answering(|request, _| match request.path.as_str() {
        "/fails" => Answer::Status(503),
        "/hangs" => Answer::Silence,
        _ => Answer::Status(200),
    });
    let (up, hooks) = (Up::start(&[]).await?, hooks.await?);
    set(&up, &hooks).await?;
    for number in 0..5 {
        up.api.publish("acme", "order.paid", "{}", &format!("key-{number}")).await?;
    }
    up.api.publish("acme", "order.paid", "{}", "key-0").await?;
    up.api.publish("acme", "hang.now", "{}", "key-hang").await?;
    let twice = up.api.publish("acme", "order.paid", r#"{"a":1,"a":2}"#, "key-twice").await;
    ensure!(twice.is_err(), "a key that is there twice is refused");
    up.tells(&[
        ("fanfare_ingest_accepted_total", 6.0),
        ("fanfare_ingest_duplicates_total", 1.0),
        ("fanfare_ingest_rejected_total{reason=\"duplicate_key\"}", 1.0),
        ("fanfare_ingest_rejected_total{reason=\"too_large\"}", 0.0),
        ("fanfare_ingest_reads_inbox", 1.0),
        ("fanfare_fan_out_events_total", 6.0),
        ("fanfare_fan_out_deliveries_total{way=\"task\"}", 12.0),
        ("fanfare_fan_out_width_count", 6.0),
        ("fanfare_fan_out_width_sum", 12.0),
        ("fanfare_dispatcher_attempts_total{outcome=\"accepted\"}", 6.0),
        ("fanfare_dispatcher_attempts_total{outcome=\"refused_5xx\"}", 5.0),
        ("fanfare_dispatcher_conclusions_total{conclusion=\"delivered\"}", 6.0),
        ("fanfare_dispatcher_first_attempt_seconds_count", 11.0),
        ("fanfare_dispatcher_in_flight", 1.0),
        ("fanfare_dispatcher_lanes_busy", 1.0),
        ("fanfare_dispatcher_held{source=\"task\"}", 1.0),
        ("fanfare_dispatcher_breakers{state=\"closed\"}", 3.0),
        ("fanfare_retry_scheduler_plans_total", 5.0),
        ("fanfare_retry_scheduler_waiting", 5.0),
        ("fanfare_projector_lag_seconds", 0.0),
        ("fanfare_log_stream_messages{stream=\"RETRIES\"}", 5.0),
        ("fanfare_log_stream_messages{stream=\"DELIVERIES\"}", 1.0),
        ("fanfare_log_stream_last_sequence{stream=\"EVENTS\"}", 6.0),
        ("fanfare_projector_sequence{stream=\"EVENTS\"}", 6.0),
        ("fanfare_log_reader_pending{reader=\"fan-out\",stream=\"EVENTS\"}", 0.0),
        ("fanfare_log_stream_size_limit_bytes{stream=\"EVENTS\"}", 1_073_741_824.0),
    ])
    .await;
    let text = up.text().await?;
    assert_eq!(up.get("/healthz").await?.0, 200);
    assert_eq!(up.get("/readyz").await?.0, 200);
    assert!(!text.contains("acme"), "no label is a name: {text}");
    described(&text)?;
    known(&text)?;
    promtool(&["check", "metrics"], &text).await?;
    // Who hangs lets go, so that the end need not wait for its time-out.
    drop(hooks);
    up.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_the_same_numbers_and_may_hang() -> Result<()> {
    let (collector, hooks) = (Receiver::start().await?, Hooks::start().await?);
    collector.answer(taken());
    let place = collector.url("");
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", &*place), ("OTEL_METRIC_EXPORT_INTERVAL", "200")];
    let up = Up::start(&variables).await?;
    set(&up, &hooks).await?;
    up.api.publish("acme", "some.thing", "{}", "key").await?;
    let words = ["fanfare-up", "fanfare.ingest.accepted", "fanfare.dispatcher.first_attempt"];
    wait_until("the collector to get what is counted", async || {
        let requests = collector.requests();
        let last = requests.last().ok_or_else(|| String::from("nothing"))?;
        let has = |word: &&str| last.body.windows(word.len()).any(|it| it == word.as_bytes());
        let is_export =
            last.path == "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
        let missing: Vec<_> = words.iter().filter(|word| !has(word)).collect();
        if is_export && missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    // From now on it takes what comes and says nothing.
    collector.answer(Behaviour::Silent);
    let before = collector.count();
    for number in 0..20 {
        up.api.publish("acme", "some.thing", "{}", &format!("key-{number}")).await?;
    }
    up.tells(&[("fanfare_dispatcher_attempts_total{outcome=\"accepted\"}", 21.0)]).await;
    collector.wait_for(before + 1, PATIENCE).await?;
    up.end().await
}

/// Checks that the table of all numbers is what there is.
fn described(text: &str) -> Result<()> {
    let path = observability().join(DESCRIBED);
    let page = fs::read_to_string(&path).with_context(|| format!("read {DESCRIBED}"))?;
    let (before, rest) = page.split_once(BEGIN).context("the table begins")?;
    let (_, after) = rest.split_once(END).context("the table ends")?;
    let expected = format!("{before}{BEGIN}\n{}{END}{after}", table(text));
    if fanfare_service::process_env()?.contains_key("FANFARE_WRITE_METRICS") {
        fs::write(&path, &expected)?;
    } else {
        assert!(page == expected, "{DESCRIBED} does not describe what there is:\n{expected}");
    }
    Ok(())
}

/// Checks that whatever the dashboards, the alerts and the runbook look at is there.
fn known(text: &str) -> Result<()> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let series: BTreeSet<&str> = series.filter_map(|line| line.split(['{', ' ']).next()).collect();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families = families.filter_map(|line| line.split(' ').next());
    let named: BTreeSet<&str> = families.chain(series.iter().copied()).collect();
    for name in OF_METRICS {
        let board = Board::read(name)?;
        for (panel, expression) in board.expressions()? {
            let unknown: Vec<_> = words(expression).difference(&series).copied().collect();
            ensure!(unknown.is_empty(), "{name}: {panel} looks at {unknown:?}");
            ensure!(!words(expression).is_empty(), "{name}: {panel} looks at nothing");
        }
    }
    all_is_looked_at(text)?;
    // A text may speak of a histogram, which has no series of that name.
    for (file, there) in [("prometheus/alerts.yml", &series), ("runbook.md", &named)] {
        let page = fs::read_to_string(observability().join(file)).context(file)?;
        let used = words(&page);
        ensure!(used.len() > 10, "{file} looks at {used:?}");
        let unknown: Vec<_> = used.difference(there).collect();
        ensure!(unknown.is_empty(), "{file} looks at {unknown:?}, which is not there");
    }
    Ok(())
}

/// Checks that there is a panel or an alert for each number of ours.
fn all_is_looked_at(text: &str) -> Result<()> {
    let mut pages = vec![fs::read_to_string(observability().join("prometheus/alerts.yml"))?];
    for name in OF_METRICS {
        let board = Board::read(name)?;
        pages.extend(board.expressions()?.into_iter().map(|(_, asked)| String::from(asked)));
    }
    let used: BTreeSet<&str> = pages.iter().flat_map(|page| words(page)).collect();
    let is_of = |word: &str, family: &str| {
        let rest = word.strip_prefix(family);
        rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
    };
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE fanfare_"));
    let families = families.filter_map(|line| line.split(' ').next());
    let unseen: Vec<_> = families
        .map(|rest| format!("fanfare_{rest}"))
        .filter(|family| !used.iter().any(|word| is_of(word, family)))
        .collect();
    ensure!(unseen.is_empty(), "nobody looks at {unseen:?}");
    Ok(())
}

/// The names of metrics in a text.
fn words(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("fanfare_") || word.starts_with("process_")).collect()
}

const BEGIN: &str = "<!-- every metric -->";
const END: &str = "<!-- end -->";

/// One row for each family: its name, its type, its labels and what it means.
fn table(text: &str) -> String {
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let name = name.trim_end_matches("_bucket");
        let pairs = rest.split_once('}').map_or("", |(pairs, _)| pairs);
        let names = pairs.split(',').filter_map(|pair| pair.split_once('='));
        labels.entry(name).or_default().extend(names.map(|(label, _)| label));
    }
    let mut rows = vec![String::from("| metric | type | by | what it is |\n|---|---|---|---|\n")];
    let mut help = "";
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let labels = labels.get(name).into_iter().flatten();
            let labels: Vec<_> =
                labels.filter(|label| **label != "le").map(|label| format!("`{label}`")).collect();
            rows.push(format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
        }
    }
    rows.concat()
}

#[tokio::test]
async fn alerts_ring_when_they_should() -> Result<()> {
    promtool(&["check", "config", "prometheus.yml"], "").await?;
    promtool(&["check", "config", "prometheus-collector.yml"], "").await?;
    promtool(&["test", "rules", "alerts.test.yml"], "").await
}

/// Has Prometheus's own tool look at something, where it is installed.
async fn promtool(arguments: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(observability().join("prometheus"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Not the macro: what that writes is shown for failing tests only.
            writeln!(std::io::stderr(), "SKIPPED: promtool {arguments:?}: it is not there")?;
            return Ok(());
        }
        Err(error) => return Err(error).context("run promtool"),
    };
    let mut standard_input = child.stdin.take().context("an input")?;
    standard_input.write_all(input.as_bytes()).await?;
    drop(standard_input);
    let output = timeout(PATIENCE_OF_RULES, child.wait_with_output()).await??;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success(), "promtool {arguments:?}: {said}");
    Ok(())
}
