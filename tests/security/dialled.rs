//! The same addresses, where the API lets them pass: the dispatcher is on its own.

use anyhow::{Context as _, Result};
use fanfare_domain::{EndpointId, Outcome, fact::AttemptMade};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use crate::{
    support::{EAGER, Refused},
    table::{Family, Row, Seen},
    urls::LITERALS,
    world::{INSIDE, OUTSIDE, World, new_endpoint},
};

const TENANT: &str = "dialled";
/// How many endpoints are tried at once.
const AT_ONCE: usize = 2;
/// What must come of a test event and of a delivery.
const REFUSED: &str = "address_forbidden twice, and nothing sent";

/// Ports of this machine that are open, closed, and not allowed.
const OPEN: &str = "an address inside with an open port";
const CLOSED: &str = "the same address with a closed port";
const NEIGHBOUR: &str = "an allowed address with a port that is not allowed";
const DENIED: &str = "an allowed address that is denied by another rule";
/// Where it is asked whether we may send.
const ASKED: [&str; 2] =
    ["whether we may send to an address inside", "the same of 169.254.169.254"];
const NOT_ASKED: &str = "address_forbidden, and nothing sent";

fn urls(world: &World) -> Vec<(String, String)> {
    let (port, closed) = (world.sink.address().port(), 9);
    let mut urls: Vec<_> =
        LITERALS.iter().map(|url| (String::from(*url), String::from(*url))).collect();
    urls.push((String::from(OPEN), format!("http://{INSIDE}:{port}/")));
    urls.push((String::from(CLOSED), format!("http://{INSIDE}:{closed}/")));
    urls.push((String::from(NEIGHBOUR), format!("http://{OUTSIDE}:{closed}/")));
    urls.push((String::from(DENIED), world.denied.url("/")));
    urls
}

pub(crate) fn family() -> Family {
    let row = |url: &&str| {
        let row = Row::new(url, REFUSED);
        let shown = "agentfield #418, OmniRoute #3281";
        if url.contains("169.254.169.254/") { row.of(shown) } else { row }
    };
    let mut rows: Vec<_> = LITERALS.iter().map(row).collect();
    rows.push(Row::new(OPEN, REFUSED).of("Harbor GHSA-33p6-fx42-7rf5"));
    rows.push(Row::new(CLOSED, REFUSED).of("Harbor GHSA-33p6-fx42-7rf5"));
    rows.push(Row::new(NEIGHBOUR, REFUSED).of("GitLab #293733"));
    rows.push(Row::new(DENIED, REFUSED));
    rows.extend(ASKED.map(|name| Row::new(name, NOT_ASKED)));
    Family {
        title: "Addresses that are dialled",
        how: "Given to an API whose operator allows everything, so that they are stored. A test event and a \
              delivery are both refused by the dispatcher, with the same words for all: what is open inside \
              cannot be told from what is not. There is no answer, and nothing to show of one. The same goes for \
              the question whether we may send (CloudEvents' OPTIONS).",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, EAGER).await?;
    let urls = urls(world);
    let made = stream::iter(&urls).map(|(name, url)| async move {
        let id = world.endpoint(TENANT, url).await?;
        Ok::<_, anyhow::Error>((name, id))
    });
    let made: Vec<(&String, EndpointId)> = made.buffered(AT_ONCE).try_collect().await?;
    world.api().publish(TENANT, "a.b", "{}", "dialled").await?;
    let tried = stream::iter(made).map(|(name, id)| async move {
        let test = tested(world, id).await?;
        let attempts = world.attempts(id, 1).await;
        let delivery = told(attempts.first().context("an attempt")?);
        let seen = match (test, delivery) {
            (test, delivery) if test == delivery => format!("{test} twice, and nothing sent"),
            (test, delivery) => format!("{test} in the test, {delivery} in the delivery"),
        };
        Ok::<_, anyhow::Error>((name.clone(), seen))
    });
    let mut seen: Seen = tried.buffer_unordered(AT_ONCE).try_collect().await?;
    let inside = [world.sink.address().to_string(), String::from("169.254.169.254")];
    for (name, host) in ASKED.into_iter().zip(inside) {
        seen.insert(String::from(name), asked(world, &format!("http://{host}/")).await?);
    }
    if world.denied.connections() > 0 {
        seen.insert(String::from(DENIED), String::from("a connection"));
    }
    if world.sink.connections() > 0 {
        seen.insert(String::from(OPEN), String::from("a connection"));
    }
    Ok(seen)
}

/// Sends a test event, and says what came of it.
async fn tested(world: &World, id: EndpointId) -> Result<String> {
    let sample = json!({ "event_type": "a.b" });
    let tried = world.api().act(TENANT, &id.to_string(), "test", &sample).await?;
    let attempt = &tried["attempt"];
    let fault = attempt["fault"].as_str().unwrap_or("no fault");
    let silent = attempt["status"].is_null()
        && attempt["response_body"] == ""
        && attempt["response_headers"].as_array().is_some_and(Vec::is_empty)
        && attempt["detail"].as_str().is_some_and(is_discreet);
    Ok(if silent { String::from(fault) } else { Value::to_string(attempt) })
}

/// Asks an endpoint whether we may send to it, and says what came of it.
async fn asked(world: &World, url: &str) -> Result<String> {
    let mut new = new_endpoint(url);
    new["validation"] = json!("cloudevents");
    let id = world.api().endpoint(TENANT, &new).await?.id;
    let error = world.api().act(TENANT, &id, "validate", &json!({})).await.err();
    let refused = error.context("it allows it")?.downcast::<Refused>()?;
    let told = refused.body["detail"].as_str().and_then(|detail| detail.split_once(": "));
    Ok(match told.filter(|(_, detail)| is_discreet(detail)) {
        Some((fault, _)) => format!("{fault}, and nothing sent"),
        None => refused.body.to_string(),
    })
}

fn told(made: &AttemptMade) -> String {
    let silent = made.response_body.is_empty()
        && made.response_headers.is_empty()
        && is_discreet(&made.detail);
    match &made.outcome {
        Outcome::Failed(fault) if silent => String::from(fault.as_str()),
        Outcome::Failed(_) | Outcome::Accepted { .. } | Outcome::Refused { .. } => {
            format!("{made:?}")
        }
    }
}

/// What is told of an address says nothing of who is there.
fn is_discreet(detail: &str) -> bool {
    detail.starts_with("the address is not allowed: ")
}
