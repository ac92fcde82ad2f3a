//! What is sent again by hand looks as each profile says: some count from the beginning, some give it
//! another id.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::{
    receiver::{Behaviour, Received, Receiver},
    wait_at_most,
};
use serde_json::{Value, json};

use crate::support::{Expected, Installation};

const PATIENCE: Duration = Duration::from_mins(1);

/// Has an event fail twice, sends it again by hand, and returns the three requests.
async fn redriven(profile: &str, event_type: &str, endpoint: &Value) -> Result<Vec<Arc<Received>>> {
    let installation = Installation::start().await?;
    let (api, receiver) = (installation.api(), Receiver::start().await?);
    receiver.answer(Behaviour::status(500));
    api.tenant("acme", profile).await?;
    let mut new = endpoint.clone();
    new["url"] = json!(receiver.url("/hook"));
    new["retry"] = json!({ "delays": { "list": ["200ms"] }, "retry_on": "anything" });
    let made = api.endpoint("acme", &new).await?;
    let event = api.publish("acme", event_type, r#"{"amount":98.5}"#, "key").await?;
    let path = format!("/v1/tenants/acme/events/{event}/deliveries");
    wait_at_most(PATIENCE, "the delivery to fail for good", async || {
        let told = async |path: &str| api.get(path).await.map_err(|error| format!("{error:#}"));
        let found = told(&path).await?;
        let Some(id) = found["data"][0]["id"].as_str() else { return Err(found.to_string()) };
        let found = told(&format!("/v1/tenants/acme/deliveries/{id}")).await?;
        let is_over = found["state"] == "exhausted";
        is_over.then_some(()).ok_or(found.to_string())
    })
    .await;
    receiver.answer(Behaviour::status(200));
    let redrive = json!({ "endpoint_id": made.id });
    api.post("/v1/tenants/acme/dead-letters/redrive", &redrive).await?;
    let requests = receiver.wait_for(3, PATIENCE).await?;
    installation.finish(Expected::Calm).await?;
    Ok(requests)
}

fn body(request: &Received) -> Result<Value> {
    serde_json::from_slice(&request.body).context("a body")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killb_counts_attempts_from_the_beginning_under_the_same_id() -> Result<()> {
    let endpoint =
        json!({ "event_types": ["RAMP"], "secret": "a secret of the caller's, long enough" });
    let requests = redriven("killb", "RAMP.UPDATE", &endpoint).await?;
    let bodies = requests.iter().map(|request| body(request)).collect::<Result<Vec<_>>>()?;
    let attempts: Vec<_> = bodies.iter().map(|body| body["attempts"].as_u64()).collect();
    assert_eq!(attempts, [Some(0), Some(1), Some(0)]);
    for member in ["id", "createdAt", "updatedAt", "data"] {
        ensure!(bodies.iter().all(|body| body[member] == bodies[0][member]), "{bodies:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kyberaccess_gives_it_another_id_and_the_same_body() -> Result<()> {
    let endpoint = json!({ "event_types": ["*"] });
    let requests = redriven("kyberaccess", "visitor.denied", &endpoint).await?;
    ensure!(requests.iter().all(|request| request.body == requests[0].body), "{requests:?}");
    let ids = requests.iter().map(|request| request.header("x-kyberaccess-delivery"));
    let ids = ids.collect::<Option<Vec<_>>>().context("an id of the delivery")?;
    ensure!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
    Ok(())
}
