//! What `fanfare apply` says when it fails in the middle.

use std::{
    path::Path,
    process::{Output, Stdio},
};

use fanfare_testkit::receiver::{Behaviour, Received, Receiver, Reply};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::session::PATIENCE;

const FILE: &str = r#"
    [[tenants]]
    id = "acme"

    [[tenants.endpoints]]
    name = "lobby"
    url = "https://example.com/"
    event_types = ["*"]
    state = "paused"
"#;

/// An API that has the tenant, makes endpoints, and cannot pause them.
fn answer(request: &Received) -> Behaviour {
    let (status, body) = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/v1/tenants/acme") => (200, json!({ "id": "acme" })),
        ("GET", _) => (200, json!({ "data": [], "next_cursor": null })),
        ("POST", "/v1/tenants/acme/endpoints") => {
            (201, json!({ "id": "ep_1", "name": "lobby", "secret": "whsec_once" }))
        }
        _ => (503, json!({ "status": 503, "code": "unavailable", "title": "Try again." })),
    };
    let reply = Reply::new(status).header("content-type", "application/json");
    Behaviour::Reply(reply.body(body.to_string()))
}

async fn apply(api: &str, directory: &Path, global: &[&str]) -> Output {
    let file = directory.join("fanfare.toml");
    std::fs::write(&file, FILE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(global).arg("--data").arg(directory).args(["--api", api, "--key", "fk_test"]);
    command.arg("apply").arg("--file").arg(&file).arg("--yes").stdin(Stdio::null());
    timeout(PATIENCE, command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_secret_is_shown_also_if_the_rest_fails() {
    fanfare_service::install_crypto_provider();
    let (receiver, directory) = (Receiver::start().await.unwrap(), tempfile::tempdir().unwrap());
    receiver.answer(Behaviour::ask(answer));
    let said = apply(&receiver.url(""), directory.path(), &[]).await;
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("whsec_once"), "{said:?}");
    let said = apply(&receiver.url(""), directory.path(), &["--json"]).await;
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let document: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(document["answers"][0]["secret"], "whsec_once");
    assert_eq!(document["applied"], false);
    assert!(document["error"].as_str().unwrap().contains("then pause it"), "{document}");
    let told: Value = serde_json::from_slice(&said.stderr).unwrap();
    assert_eq!((&told["status"], &told["code"]), (&json!(503), &json!("unavailable")));
}
