//! What was delivered is found in lists, and shown whole, by the API and on the command line: events,
//! deliveries, attempts, dead letters, statistics, and who changed what.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fanfare_delivery_log::{Database, Store};
use fanfare_domain::Timestamp;
use fanfare_testkit::wait_until;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    Answer, ERASING, Expected, Hooks, Options, Refused, Route, Scene, Service, api::Made,
    api::text, binary, scene::TENANT,
};

const PATIENCE: Duration = Duration::from_mins(1);
const SECRET: &str = "very-secret-token";

/// Asks for all pages of a list, some things at a time.
async fn all(scene: &Scene, path: &str) -> Result<Vec<Value>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let sign = if path.contains('?') { '&' } else { '?' };
        let page = scene.api().get(&format!("{path}{sign}limit=3{cursor}")).await?;
        found.extend(page["data"].as_array().context("a page")?.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

/// Waits until a list has so many things.
async fn listed(scene: &Scene, path: &str, wanted: usize) -> Result<Vec<Value>> {
    let found = wait_until("the list to be complete", async || match all(scene, path).await {
        Ok(found) if found.len() == wanted => Ok(found),
        Ok(found) => Err(format!("{} of {wanted}: {found:?}", found.len())),
        Err(error) => Err(format!("{error:#}")),
    });
    Ok(found.await)
}

fn tenant(rest: &str) -> String {
    format!("/v1/tenants/{TENANT}/{rest}")
}

/// Asks for something of the tenant's that is refused; returns the code of the problem.
async fn refusal(scene: &Scene, rest: &str) -> Result<String> {
    match scene.api().get(&tenant(rest)).await {
        Ok(found) => anyhow::bail!("{rest} is answered: {found}"),
        Err(error) => Ok(String::from(error.downcast::<Refused>()?.code())),
    }
}

/// Runs the client, and returns what it printed as JSON.
async fn client(scene: &Scene, arguments: &[&str]) -> Result<Value> {
    let address = scene.api().address().context("the API's address")?;
    let mut command = Command::new(binary::fanfare().await?);
    command.args(["--json", "--api", &format!("http://{address}"), "--key", scene.api().key()]);
    let output = command.args(arguments).output().await.context("run the client")?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs the client, and returns what people see.
async fn shown(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let address = scene.api().address().context("the API's address")?;
    let mut command = Command::new(binary::fanfare().await?);
    command.args(["--api", &format!("http://{address}"), "--key", scene.api().key()]);
    let output = command.args(arguments).output().await.context("run the client")?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// One endpoint that refuses each event once, and one that refuses everything.
async fn scene() -> Result<(Scene, Made, Made)> {
    scene_of(Options::default().profile).await
}

/// The same, for a tenant of a profile.
async fn scene_of(profile: &'static str) -> Result<(Scene, Made, Made)> {
    let hooks = Hooks::answering(|request, earlier| match request.path.as_str() {
        "/good" if earlier > 0 => Answer::Status(200),
        _ => Answer::Status(500),
    });
    let mut scene =
        Scene::set_with(Options { profile, ..Options::default() }, hooks.await?).await?;
    scene.installation.start_service(Service::Projector).await?;
    log_is_there(&scene).await?;
    let mut good = scene.endpoint("/good", &[">"], &["1s"]);
    good["headers"] = json!({"x-token": SECRET, "user-agent": "acme/1.0"});
    let good = {
        let made = scene.api().endpoint(TENANT, &good).await?;
        scene.note("/good", &[">"], &made, &["1s"])?;
        made
    };
    let bad = scene.subscribe("/bad", &["invoice.>"], &["1s"]).await?;
    Ok((scene, good, bad))
}

/// Waits until the projector has made the tables.
async fn log_is_there(scene: &Scene) -> Result<()> {
    let settings = scene.installation.settings(Service::Projector);
    let url = settings.get("database").context("a database")?;
    let (database, streams) = (Database::to_read(&url.parse()?)?, scene.streams().await?);
    wait_until("the delivery log to be there", async || {
        let attached = Store::attach(&database, &streams).await;
        attached.map(drop).map_err(|error| format!("{error:?}"))
    })
    .await;
    database.close().await;
    Ok(())
}

async fn publish(scene: &mut Scene) -> Result<()> {
    let orders = (0..4).map(|_| "order.paid");
    let planned = orders.chain((0..2).map(|_| "invoice.sent"));
    let planned = planned.map(|event_type| scene.plan(event_type, Route::Request));
    let planned = planned.collect::<Result<_>>()?;
    scene.publish(planned).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_and_events_are_found_and_attempts_are_shown_as_they_were_sent() -> Result<()> {
    let (mut scene, good, bad) = scene().await?;
    publish(&mut scene).await?;
    scene.concluded(PATIENCE).await?;
    let ended = listed(&scene, &tenant("deliveries?state=delivered,exhausted"), 8).await?;
    filters_narrow(&scene, &good, &bad).await?;
    for one in &ended {
        let by_id = scene.api().get(&tenant(&format!("deliveries/{}", text(one, "id")?))).await?;
        for (name, value) in by_id.as_object().context("a delivery")? {
            assert_eq!(one.get(name), Some(value), "{name}: the same in a list");
        }
    }
    let invoice = ended.iter().find(|one| one["event_type"] == "invoice.sent").context("one")?;
    let event = scene.api().get(&tenant(&format!("events/{}", text(invoice, "event_id")?))).await?;
    assert_eq!(
        (event["available"].as_bool(), &event["type"]),
        (Some(true), &json!("invoice.sent"))
    );
    assert!(event["data"]["number"].is_number(), "{event}");
    let good_one = ended.iter().find(|one| one["endpoint_id"] == good.id.as_str());
    attempts_are_whole(&scene, good_one.context("a delivery")?).await?;
    let page = client(&scene, &["delivery", "list", TENANT, "--state", "exhausted"]).await?;
    assert_eq!(page.as_array().map(Vec::len), Some(2));
    scene.finish(Expected::Calm).await
}

async fn filters_narrow(scene: &Scene, good: &Made, bad: &Made) -> Result<()> {
    let events = all(scene, &tenant("events")).await?;
    let at = text(events.first().context("an event")?, "accepted_at")?;
    let at = Timestamp::parse(&at).context("a time")?;
    let minute = Duration::from_mins(1);
    let (before, behind) = (at.saturating_sub(minute), at.saturating_add(minute));
    let order = events.iter().find(|one| one["type"] == "order.paid").context("an order")?;
    let id = text(order, "id")?;
    let beginning: String = id.chars().take(29).collect();
    for (path, expected) in [
        (String::from("deliveries"), 8),
        (format!("deliveries?endpoint={}", bad.id), 2),
        (String::from("deliveries?type=order.*"), 4),
        (String::from("deliveries?type=invoice.sent&state=exhausted"), 2),
        (String::from("deliveries?type=invoice.sent&state=pending"), 0),
        (String::from("deliveries?search=PAID"), 4),
        (format!("deliveries?event={id}"), 1),
        (format!("deliveries?search={beginning}"), 1),
        (format!("deliveries?until={before}"), 0),
        (format!("deliveries?since={before}&until={behind}"), 8),
        (format!("events?since={behind}"), 0),
        (format!("endpoints/{}/deliveries", good.id), 6),
        (format!("endpoints/{}/deliveries?type=order.paid", good.id), 4),
        (String::from("events"), 6),
        (String::from("events?type=*.sent"), 2),
        (String::from("events?search=order"), 4),
        (String::from("dead-letters"), 2),
        (format!("dead-letters?endpoint={}", good.id), 0),
    ] {
        let found = all(scene, &tenant(&path)).await?;
        assert_eq!(found.len(), expected, "{path}: {found:?}");
    }
    assert_eq!(refusal(scene, "deliveries?state=done").await?, "value_invalid");
    Ok(())
}

async fn attempts_are_whole(scene: &Scene, delivery: &Value) -> Result<()> {
    let id = text(delivery, "id")?;
    let attempts = all(scene, &tenant(&format!("deliveries/{id}/attempts"))).await?;
    let statuses: Vec<_> = attempts.iter().map(|one| one["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(500), Some(200)]);
    for number in 1..=2 {
        let path = tenant(&format!("deliveries/{id}/attempts/{number}"));
        let attempt = scene.api().get(&path).await?;
        let request = &attempt["request"];
        assert_eq!(request["fidelity"], "verified", "{attempt}");
        let header = |name: &str| {
            let headers = request["headers"].as_array().cloned().unwrap_or_default();
            headers.into_iter().find(|header| header["name"] == name).unwrap_or_default()
        };
        let signature = text(&header("webhook-signature"), "value")?;
        let requests = scene.hooks.requests();
        let got = requests.iter().find(|got| got.header("webhook-signature") == Some(&signature));
        let got = got.context("a request with this signature")?;
        assert_eq!(request["body"].as_str().map(str::as_bytes), Some(&*got.body));
        for shown in request["headers"].as_array().context("headers")? {
            let (name, value) = (text(shown, "name")?, text(shown, "value")?);
            if shown["hidden"] == true {
                assert_eq!((name.as_str(), value.as_str()), ("x-token", "***"));
            } else {
                assert_eq!(got.header(&name), Some(value.as_str()), "{name}");
            }
        }
        assert_eq!(header("user-agent")["value"], "acme/1.0");
        assert_eq!(attempt["response"]["status"], statuses[number - 1].unwrap_or_default());
        assert!(!attempt.to_string().contains(SECRET));
        let number = number.to_string();
        let same = client(scene, &["delivery", "attempt", TENANT, &id, &number]).await?;
        assert_eq!(same, attempt);
    }
    let seen = shown(scene, &["delivery", "attempt", TENANT, &id, "1"]).await?;
    assert!(seen.contains("HTTP 500") && seen.contains("webhook-signature:"), "{seen}");
    let missing = format!("deliveries/{id}/attempts/3");
    assert_eq!(refusal(scene, &missing).await?, "attempt_not_found");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_and_dead_letters_count_what_happened() -> Result<()> {
    let (mut scene, good, bad) = scene().await?;
    publish(&mut scene).await?;
    scene.concluded(PATIENCE).await?;
    let dead = listed(&scene, &tenant("dead-letters"), 2).await?;
    assert!(dead.iter().all(|one| one["endpoint_id"] == bad.id.as_str()), "{dead:?}");
    assert!(dead.iter().all(|one| one["last_status"] == 500), "{dead:?}");
    listed(&scene, &tenant("deliveries?state=delivered"), 6).await?;
    for (endpoint, rate, attempts) in [(&good, 1.0, 12), (&bad, 0.0, 4)] {
        let path = tenant(&format!("endpoints/{}/statistics?window=1h", endpoint.id));
        let found = scene.api().get(&path).await?;
        assert_eq!(found["success_rate"].as_f64(), Some(rate), "{found}");
        assert_eq!(found["attempts"]["total"], attempts, "{found}");
        assert!(found["latency_ms"]["p99"].as_u64() >= found["latency_ms"]["p50"].as_u64());
    }
    let found = client(&scene, &["endpoint", "statistics", TENANT, &good.id]).await?;
    assert_eq!(found["attempts"]["by_status"], json!({"200": 6, "500": 6}));
    assert_eq!(found["deliveries"]["delivered"], 6);
    let told = client(&scene, &["dead-letter", "list", TENANT, "--endpoint", &bad.id]).await?;
    assert_eq!(told.as_array().map(Vec::len), Some(2));
    let path = format!("endpoints/{}/statistics?window=2h", bad.id);
    assert_eq!(refusal(&scene, &path).await?, "query_malformed");
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_tells_who_changed_what_and_outlives_a_rebuild() -> Result<()> {
    let (scene, good, bad) = scene().await?;
    let path = tenant(&format!("endpoints/{}", good.id));
    scene.api().patch(&path, &json!({"name": "renamed", "concurrency": 3})).await?;
    scene.api().post(&format!("{path}/rotate-secret"), &json!({})).await?;
    scene.api().delete(&tenant(&format!("endpoints/{}", bad.id))).await?;
    let changes = listed(&scene, &tenant("audit?kind=endpoint"), 5).await?;
    let names: Vec<_> = changes.iter().map(|one| text(one, "action")).collect::<Result<_>>()?;
    assert_eq!(names, ["deleted", "updated", "updated", "created", "created"]);
    let (rotated, renamed) = (&changes[1], &changes[2]);
    assert_eq!(renamed["before"]["name"], "");
    assert_eq!(
        (&renamed["after"]["name"], &renamed["after"]["concurrency"]),
        (&json!("renamed"), &json!(3))
    );
    assert_ne!(rotated["before"]["secrets"], rotated["after"]["secrets"]);
    assert_eq!((&changes[0]["id"], &changes[0]["after"]), (&json!(bad.id), &Value::Null));
    assert!(text(renamed, "who")?.starts_with("key_"), "{renamed}");
    let whole = client(&scene, &["audit", "--tenant", TENANT]).await?.to_string();
    for hidden in [SECRET, &good.secret, &bad.secret] {
        assert!(!whole.contains(hidden), "a secret is in the audit");
    }
    let tenants = all(&scene, "/v1/audit?kind=tenant").await?;
    assert!(tenants.iter().any(|one| one["id"] == TENANT), "{tenants:?}");
    rebuild(&scene).await?;
    let again = listed(&scene, &tenant("audit?kind=endpoint"), 5).await?;
    assert_eq!(again, changes);
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_endpoint_has_no_history_also_after_a_rebuild() -> Result<()> {
    let (mut scene, good, bad) = scene_of(ERASING).await?;
    publish(&mut scene).await?;
    scene.concluded(PATIENCE).await?;
    let before = listed(&scene, &tenant("deliveries?state=delivered,exhausted"), 8).await?;
    let gone = before.iter().find(|one| one["endpoint_id"] == bad.id.as_str()).context("one")?;
    scene.api().delete(&tenant(&format!("endpoints/{}", bad.id))).await?;
    for rest in ["", "/facts", "/attempts", "/attempts/1"] {
        let path = format!("deliveries/{}{rest}", text(gone, "id")?);
        assert_eq!(refusal(&scene, &path).await?, "delivery_not_found", "{path}");
    }
    for rest in ["deliveries", "statistics"] {
        let path = format!("endpoints/{}/{rest}", bad.id);
        assert_eq!(refusal(&scene, &path).await?, "endpoint_not_found", "{path}");
    }
    // At once, whether or not the log has forgotten it yet.
    assert_eq!(all(&scene, &tenant("deliveries")).await?.len(), 6);
    assert_eq!(all(&scene, &tenant("dead-letters")).await?.len(), 0);
    let of_event = tenant(&format!("events/{}/deliveries", text(gone, "event_id")?));
    let left = all(&scene, &of_event).await?;
    assert!(left.len() == 1 && left[0]["endpoint_id"] == good.id.as_str(), "{left:?}");
    rebuild(&scene).await?;
    listed(&scene, &tenant("deliveries?state=delivered"), 6).await?;
    assert_eq!(all(&scene, &tenant("deliveries")).await?.len(), 6);
    scene.finish(Expected::Calm).await
}

/// Makes the log anew as a person would, with everything running.
async fn rebuild(scene: &Scene) -> Result<()> {
    let mut command = Command::new(binary::fanfare().await?);
    command.args(["--json", "delivery-log", "rebuild"]);
    for (key, value) in &scene.installation.settings(Service::Projector) {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let output = command.output().await.context("rebuild the log")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
