//! What an operator sees on the dashboards is what happened: a real Prometheus reads the metrics of a
//! running system and answers each of their queries, and PostgreSQL and SQLite answer those of the
//! endpoint.

mod source;
mod tables;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::{Postgres, wait_until};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    Answer, EAGER, Expected, Hooks, Options, Route, Scene, Service, binary,
    boards::{Board, OF_METRICS},
    log_file, logs,
    prometheus::{self, Prometheus},
    scene::TENANT,
};

/// How many events go to three endpoints each: one takes them at once, one at the third attempt, one
/// never.
const EVENTS: usize = 6;
/// How many are refused.
const REFUSED: usize = 2;

/// What the queries are answered, with totals in place of rates: the values by their labels.
type Wanted = (&'static str, &'static [(&'static str, f64)]);

/// One event more goes to an endpoint that hangs.
const WANTED: [Wanted; 49] = [
    ("sum(fanfare_ingest_accepted_total)", &[("", 7.0)]),
    ("sum(fanfare_ingest_duplicates_total)", &[("", 1.0)]),
    ("sum(fanfare_ingest_rejected_total)", &[("", 2.0)]),
    ("sum(fanfare_ingest_reported_total)", &[("", 0.0)]),
    ("sum by (reason) (fanfare_ingest_rejected_total) > 0", &[("duplicate_key", 2.0)]),
    ("sum(fanfare_ingest_reads_inbox)", &[("", 1.0)]),
    ("max(fanfare_log_stream_messages{stream=\"INBOX\"})", &[("", 0.0)]),
    ("sum(fanfare_fan_out_events_total)", &[("", 7.0)]),
    ("sum(fanfare_fan_out_deliveries_total{way=~\"task|feed|replay\"})", &[("", 19.0)]),
    (
        "sum by (way) (fanfare_fan_out_deliveries_total)",
        &[("task", 19.0), ("feed", 0.0), ("replay", 0.0), ("skipped", 0.0)],
    ),
    ("sum(fanfare_fan_out_width_sum) / sum(fanfare_fan_out_width_count)", &[("", 19.0 / 7.0)]),
    ("sum(fanfare_fan_out_conditions_asked_total)", &[("", 0.0)]),
    ("sum(fanfare_fan_out_conditions_failed_total)", &[("", 0.0)]),
    ("sum(fanfare_dispatcher_attempts_total)", &[("", 42.0)]),
    (
        "sum by (outcome) (fanfare_dispatcher_attempts_total) > 0",
        &[("accepted", 12.0), ("refused_5xx", 30.0)],
    ),
    (
        "sum(fanfare_dispatcher_attempts_total{outcome=\"accepted\"}) / \
         sum(fanfare_dispatcher_attempts_total)",
        &[("", 12.0 / 42.0)],
    ),
    ("sum(fanfare_dispatcher_conclusions_total)", &[("", 18.0)]),
    ("sum(fanfare_dispatcher_conclusions_total{conclusion=\"delivered\"})", &[("", 12.0)]),
    (
        "sum by (conclusion) (fanfare_dispatcher_conclusions_total)",
        &[("delivered", 12.0), ("exhausted", 6.0), ("refused", 0.0), ("cancelled", 0.0)],
    ),
    ("sum(fanfare_dispatcher_parked_total)", &[("", 0.0)]),
    ("sum by (reason) (fanfare_dispatcher_deferrals_total) > 0", &[]),
    ("sum(fanfare_dispatcher_in_flight)", &[("", 1.0)]),
    ("sum(fanfare_dispatcher_lanes_busy)", &[("", 1.0)]),
    ("sum(fanfare_dispatcher_lanes_quiet)", &[("", 0.0)]),
    ("sum(fanfare_dispatcher_feeds)", &[("", 0.0)]),
    ("sum(fanfare_dispatcher_breakers{state=\"open\"})", &[("", 0.0)]),
    (
        "sum by (kind) (fanfare_dispatcher_queued)",
        &[("first", 0.0), ("retry", 0.0), ("limited", 0.0)],
    ),
    ("max(fanfare_log_stream_messages{stream=\"DELIVERIES\"})", &[("", 1.0)]),
    ("sum(fanfare_retry_scheduler_plans_total)", &[("", 24.0)]),
    ("sum(fanfare_retry_scheduler_alarms_total)", &[("", 24.0)]),
    ("sum(fanfare_retry_scheduler_exhausted_total)", &[("", 6.0)]),
    ("sum(fanfare_retry_scheduler_disabled_total)", &[("", 0.0)]),
    ("sum(fanfare_retry_scheduler_waiting)", &[("", 0.0)]),
    ("sum(fanfare_retry_scheduler_parked)", &[("", 0.0)]),
    ("max(fanfare_log_stream_messages{stream=\"RETRIES\"})", &[("", 0.0)]),
    ("max(fanfare_log_stream_messages{stream=\"DEAD\"})", &[("", 6.0)]),
    ("max(fanfare_log_shards) - sum(fanfare_dispatcher_shards)", &[("", 0.0)]),
    ("max(fanfare_log_shards) - sum(fanfare_retry_scheduler_shards)", &[("", 0.0)]),
    (
        "max by (stream) (fanfare_log_stream_last_sequence) - on (stream) max by (stream) \
         (fanfare_projector_sequence)",
        &[("EVENTS", 0.0), ("JOURNAL", 0.0), ("CONFIG", 0.0)],
    ),
    ("max(fanfare_projector_lag_seconds)", &[("", 0.0)]),
    (
        "sum by (outcome) (fanfare_traces_spans_total)",
        &[("exported", 0.0), ("dropped", 0.0), ("refused", 0.0)],
    ),
    (
        "max(fanfare_log_stream_last_sequence{stream=\"CONFIG\"}) - \
         min(fanfare_dispatcher_config_revision)",
        &[("", 0.0)],
    ),
    ("max(fanfare_dispatcher_lookups / fanfare_dispatcher_lookups_limit)", &[("", 0.0)]),
    ("max(fanfare_api_batches / fanfare_api_batches_limit)", &[("", 0.0)]),
    ("max(fanfare_api_live_queue / fanfare_api_live_queue_limit)", &[("", 0.0)]),
    ("sum(fanfare_fan_out_replays)", &[("", 0.0)]),
    ("sum(fanfare_fan_out_costly)", &[("", 0.0)]),
    ("sum by (limit) (fanfare_api_rate_limited_total)", &[("caller", 0.0), ("address", 0.0)]),
    ("max(fanfare_ingest_requests / fanfare_ingest_requests_limit)", &[("", 0.0)]),
];

/// What is answered with nothing as long as all is well, or nobody sets a limit or exports spans.
const QUIET: [&str; 6] = [
    "max by (stream, reader) (fanfare_log_reader_pending) > 0",
    "max by (stream, reader) (fanfare_log_reader_redelivered) > 0",
    "max(fanfare_traces_queue / (fanfare_traces_queue_limit > 0))",
    "max(fanfare_traces_series / (fanfare_traces_series_limit > 0))",
    "max(fanfare_log_storage_bytes) / (max(fanfare_log_storage_limit_bytes) > 0)",
    "max by (stream) (fanfare_log_stream_size_bytes) / max by (stream) \
     (fanfare_log_stream_size_limit_bytes)",
];

/// How long rates are asked over: longer than all of it takes.
const WINDOW: (&str, f64) = ("10m", 600.0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboards_tell_what_happened() -> Result<()> {
    let postgres = Postgres::start("the dashboard of an endpoint").await?;
    let files = tempfile::tempdir().context("make a directory")?;
    let mut scene = scene(postgres.as_ref()).await?;
    let targets = targets(&scene).await;
    let prometheus = Prometheus::start("the dashboards' queries", &targets).await?;
    if let Some(prometheus) = &prometheus {
        reads_all(prometheus, targets.len()).await;
    }
    play(&mut scene).await?;
    if let Some(prometheus) = &prometheus {
        totals_are_right(prometheus).await?;
        rates_are_right(prometheus).await?;
        everything_is_answered(prometheus).await?;
        rules_are_well(prometheus).await?;
    }
    let mut settings = scene.installation.settings(Service::Projector);
    if let Some(postgres) = &postgres {
        tables::tell_the_same(&scene, &postgres.url()).await?;
        // The same streams once more, into a file.
        let file = format!("sqlite:{}", files.path().join("delivery-log.sqlite").display());
        settings.insert(String::from("database"), file);
        fold(&settings).await?;
    }
    let database = settings.get("database").context("a database")?;
    tables::tell_the_same(&scene, database).await?;
    // Who hangs lets go, so that the end need not wait for its time-out.
    let Scene { installation, log, hooks, .. } = scene;
    drop(hooks);
    log.close().await;
    installation.finish(Expected::Calm).await
}

/// Every service as a process that tells its numbers, the delivery log in PostgreSQL if it is there.
async fn scene(postgres: Option<&Postgres>) -> Result<Scene> {
    let hooks = Hooks::answering(|request, earlier| match request.path.as_str() {
        "/third" if earlier < 2 => Answer::Status(503),
        "/never" => Answer::Status(500),
        "/hangs" => Answer::Silence,
        _ => Answer::Status(200),
    });
    let variables = vec![(String::from("FANFARE_METRICS"), String::from("127.0.0.1:0"))];
    let database = postgres.map(Postgres::url);
    let options = Options { profile: EAGER, variables, database, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    for path in ["/good", "/third", "/never"] {
        scene.subscribe(path, &["order.*"], &["100ms", "100ms"]).await?;
    }
    let mut hangs = scene.endpoint("/hangs", &["hang.*"], &["1h"]);
    hangs["timeout_ms"] = json!(60_000);
    let made = scene.api().endpoint(TENANT, &hangs).await?;
    scene.note("/hangs", &["hang.*"], &made, &["1h"])?;
    scene.installation.start_service(Service::Projector).await?;
    Ok(scene)
}

/// Folds the streams into tables, as they are by now.
async fn fold(settings: &BTreeMap<String, String>) -> Result<()> {
    let mut command = Command::new(binary::fanfare().await?);
    command.args(["--json", "delivery-log", "rebuild"]);
    for (key, value) in settings {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let output = command.output().await.context("fold the streams")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Where each service tells its numbers.
async fn targets(scene: &Scene) -> Vec<String> {
    let services = Service::ALL.into_iter().chain([Service::Projector]);
    wait_until("every service to say where its numbers are", async || {
        let address = |service| {
            let lines = logs::read(&log_file(&scene.installation.logs(), service));
            let lines = lines.unwrap_or_default();
            let said = |line: &&logs::Line| {
                line.field("message") == Some("metrics and health can be read")
            };
            lines.iter().find(said).and_then(|line| line.field("address").map(String::from))
        };
        let all: Option<Vec<_>> = services.clone().map(address).collect();
        all.ok_or("not all")
    })
    .await
}

/// Waits until all have been read, so that counters are known from their beginning.
async fn reads_all(prometheus: &Prometheus, count: usize) {
    let wanted = f64::from(u32::try_from(count).unwrap_or_default());
    wait_until("prometheus to read all", async || {
        let up = prometheus.ask("sum(up)", None).await.map_err(|error| error.to_string())?;
        if up.get("") == Some(&wanted) { Ok(()) } else { Err(format!("{up:?}")) }
    })
    .await;
}

/// Has everything happen that the numbers are to tell.
async fn play(scene: &mut Scene) -> Result<()> {
    let routes = [Route::Request, Route::Inbox, Route::Http].into_iter().cycle().take(EVENTS);
    let planned = routes.map(|route| scene.plan("order.paid", route)).collect::<Result<_>>()?;
    scene.publish(planned).await?;
    // One attempt at /good, three at each of /third and /never.
    scene.hooks_have(EVENTS * 7).await;
    let once = scene.api().publish(TENANT, "hang.now", "{}", "hang").await?;
    let again = scene.api().publish(TENANT, "hang.now", "{}", "hang").await?;
    ensure!(once == again, "it is the same event");
    for number in 0..REFUSED {
        let key = format!("twice-{number}");
        let twice = scene.api().publish(TENANT, "a.b", r#"{"a":1,"a":2}"#, &key);
        ensure!(twice.await.is_err(), "a key that is there twice is refused");
    }
    scene.hooks_have(EVENTS * 7 + 1).await;
    Ok(())
}

/// A query with totals in place of rates.
fn totals(expression: &str) -> String {
    let (mut text, mut rest) = (String::new(), expression);
    while let Some((before, (inner, behind))) = rest
        .split_once("rate(")
        .and_then(|(before, after)| Some((before, after.split_once("[$__rate_interval])")?)))
    {
        text.extend([before, inner]);
        rest = behind;
    }
    text + rest
}

fn is_close(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= 0.02 * wanted.abs() + 1e-6
}

fn is_as_wanted(found: &prometheus::Answer, wanted: &[(&str, f64)]) -> bool {
    let wanted: BTreeMap<&str, f64> = wanted.iter().copied().collect();
    found.len() == wanted.len()
        && found.iter().all(|(labels, value)| {
            wanted.get(labels.as_str()).is_some_and(|wanted| is_close(*value, *wanted))
        })
}

/// Every query of the dashboards.
fn expressions() -> Result<Vec<String>> {
    let mut all = Vec::new();
    for name in OF_METRICS {
        let board = Board::read(name)?;
        all.extend(board.expressions()?.into_iter().map(|(_, text)| String::from(text)));
    }
    Ok(all)
}

/// Waits until what is known is told, each by a query that is on a dashboard.
async fn totals_are_right(prometheus: &Prometheus) -> Result<()> {
    let asked: Vec<String> = expressions()?.iter().map(|text| totals(text)).collect();
    for (query, _) in WANTED {
        ensure!(asked.iter().any(|text| text == query), "{query} is on no dashboard: {asked:#?}");
    }
    wait_until("prometheus to tell what happened", async || {
        let mut wrong = Vec::new();
        for (query, wanted) in WANTED {
            match prometheus.ask(query, None).await {
                Ok(found) if is_as_wanted(&found, wanted) => {}
                found => wrong.push(format!("{query}: {found:?}, not {wanted:?}")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    })
    .await;
    Ok(())
}

/// Checks the rates of counters as they stand on the dashboards, at the time when they were read last.
async fn rates_are_right(prometheus: &Prometheus) -> Result<()> {
    let mut checked = 0;
    for text in expressions()? {
        let query = totals(&text);
        let Some((_, wanted)) = WANTED.iter().find(|(known, _)| *known == query) else { continue };
        if !text.contains("rate(") || !text.contains("_total") {
            continue;
        }
        let metric = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let metric =
            metric.clone().find(|word| word.starts_with("fanfare_")).context("a metric")?;
        let read = prometheus.ask(&format!("max(timestamp({metric}))"), None).await?;
        let at = read.get("").copied().context("a time")?;
        let found = prometheus.ask(&text.replace("$__rate_interval", WINDOW.0), Some(at)).await?;
        // A share is the same of rates as of totals.
        let scale = if text.contains(" / ") { 1.0 } else { WINDOW.1 };
        let found = found.into_iter().map(|(labels, rate)| (labels, rate * scale)).collect();
        ensure!(is_as_wanted(&found, wanted), "{text}: {found:?}, not {wanted:?}");
        checked += 1;
    }
    ensure!(checked > 20, "{checked} rates were checked");
    Ok(())
}

/// Checks that each query is answered, and with something.
async fn everything_is_answered(prometheus: &Prometheus) -> Result<()> {
    for text in expressions()? {
        let query = totals(&text);
        let may_be_empty =
            QUIET.contains(&query.as_str()) || WANTED.contains(&(query.as_str(), &[]));
        for asked in [text.replace("$__rate_interval", WINDOW.0), totals(&text)] {
            let found = prometheus.ask(&asked, None).await.with_context(|| asked.clone())?;
            ensure!(may_be_empty || !found.is_empty(), "{asked} is answered with nothing");
        }
    }
    Ok(())
}

/// Waits until each rule was evaluated; none rings, and what they record is right.
async fn rules_are_well(prometheus: &Prometheus) -> Result<()> {
    let rules = wait_until("every rule to be evaluated", async || {
        let rules = prometheus.rules().await.map_err(|error| vec![error.to_string()])?;
        let is_well = |rule: &&Value| rule["health"] == "ok";
        let bad: Vec<_> =
            rules.iter().filter(|rule| !is_well(rule)).map(ToString::to_string).collect();
        if bad.is_empty() && !rules.is_empty() { Ok(rules) } else { Err(bad) }
    })
    .await;
    let rings = rules.iter().filter(|rule| rule["state"] == "firing");
    let rings: Vec<_> = rings.map(|rule| &rule["name"]).collect();
    ensure!(rings.is_empty(), "{rings:?} ring");
    let alerts = rules.iter().filter(|rule| rule["type"] == "alerting").count();
    ensure!(alerts > 20, "{alerts} alerts");
    let failed = "fanfare:failed_deliveries:ratio_rate1h";
    wait_until("the share of failed deliveries to be recorded", async || {
        match prometheus.ask(failed, None).await {
            Ok(found) if is_as_wanted(&found, &[("", 6.0 / 18.0)]) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    // A boundary that is called something else would leave the rule without an answer.
    let late = "fanfare:late_first_attempts:ratio_rate1h";
    wait_until("the share of late first attempts to be recorded", async || {
        match prometheus.ask(late, None).await {
            Ok(found) if found.get("").is_some_and(|share| (0.0..1.0).contains(share)) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    Ok(())
}

#[test]
fn rates_become_totals() {
    let text =
        "sum(rate(a_total{b=~\"c|d\"}[$__rate_interval])) / sum(rate(e_total[$__rate_interval]))";
    assert_eq!(totals(text), "sum(a_total{b=~\"c|d\"}) / sum(e_total)");
    assert_eq!(totals("max(a) > 0"), "max(a) > 0");
}
