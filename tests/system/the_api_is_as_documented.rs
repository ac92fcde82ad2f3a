//! What the OpenAPI document says of the API holds for whatever is sent to it: a fuzzer makes
//! requests from the document, good ones and broken ones, and judges the answers by it.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use fanfare_delivery_log::{Database, Store};
use fanfare_testkit::wait_until;
use serde_json::json;
use tokio::process::Command;

use crate::support::{Expected, Installation, Service, foreign};

/// What has to hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,ignored_auth,\
                      unsupported_method,use_after_free";
/// How many requests are made up for each operation, beside those that the document itself gives
/// and those at the limits of each value.
const EXAMPLES: &str = "4";
/// Made up in the same way each time.
const SEED: &str = "20261122";
/// What would take away what the others need: the fuzzer's key, the tenant, the endpoint. And what is
/// answered by a dispatcher, which does not run, or has no end.
const EXCLUDED: [&str; 6] = [
    "delete_operator_key",
    "delete_tenant",
    "expunge_tenant",
    "delete_endpoint",
    "test_endpoint",
    "watch_deliveries",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_breaks_the_api_or_what_its_document_says() -> Result<()> {
    let Some(packages) = foreign::fuzzer("requests made up from the OpenAPI document").await?
    else {
        return Ok(());
    };
    let mut installation = Installation::start().await?;
    // Endpoints that are made up are not called.
    installation.stop(Service::Dispatcher).await?;
    installation.start_service(Service::Projector).await?;
    let api = installation.api();
    api.tenant("acme", "standard-webhooks").await?;
    log_is_there(&installation).await?;
    let endpoint = json!({ "url": "https://example.com/webhooks", "event_types": ["invoice.*"] });
    let made = api.endpoint("acme", &endpoint).await?;
    let address = api.address().context("the API listens")?;
    fuzz(&packages, &address, api.key(), &made.id).await?;
    // It still does what it should. Filters that were made up may complain of events.
    api.publish("acme", "invoice.paid", "{}", "after-all").await?;
    installation.finish(Expected::Turmoil).await
}

/// Waits until the projector has made the tables, without a question to the API: it would complain.
async fn log_is_there(installation: &Installation) -> Result<()> {
    let settings = installation.settings(Service::Projector);
    let url = settings.get("database").context("a database")?;
    let database = Database::to_read(&url.parse()?)?;
    let store = Store::of(&database);
    wait_until("the delivery log to be there", async || {
        store.progress().await.map(drop).map_err(|error| format!("{error:?}"))
    })
    .await;
    database.close().await;
    Ok(())
}

async fn fuzz(packages: &Path, address: &str, key: &str, endpoint: &str) -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory")?;
    // So that most requests are about something that is there.
    let settings =
        format!("[parameters]\n\"path.tenant\" = \"acme\"\n\"path.endpoint\" = \"{endpoint}\"\n");
    let file = directory.path().join("schemathesis.toml");
    std::fs::write(file, settings).context("write the fuzzer's settings")?;
    let mut command = Command::new("python3");
    command
        .args(["-m", "schemathesis.cli", "run", &format!("http://{address}/openapi.json")])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1"])
        .args(EXCLUDED.iter().flat_map(|id| ["--exclude-operation-id", *id]))
        .args(["--suppress-health-check", "all"])
        .args(["--request-timeout", "35", "--continue-on-failure", "--no-shrink", "--no-color"])
        .current_dir(directory.path())
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.context("run the fuzzer")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}\n{complaint}");
    Ok(())
}
