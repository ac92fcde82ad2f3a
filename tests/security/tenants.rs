//! One tenant with another's key, and with another's ids.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::wait_until;
use serde_json::{Value, json};

use crate::{
    raw,
    support::EAGER,
    table::{Family, Row, Seen},
    world::{World, new_endpoint},
};

const OWNER: &str = "owner";
const STRANGER: &str = "stranger";
/// The description of the API, which every operation is in.
const OPERATIONS: &str = include_str!("../../deploy/openapi.json");

const FOREIGN_KEY: &str = "every operation on a tenant, with another tenant's key";
const FOREIGN_IDS: &str =
    "every operation on something of a tenant, with its id and within another tenant";
const NO_TENANT: &str = "every operation on a tenant, for a tenant that there is not";
const NO_KEY: &str = "every operation but those for health, without a key";

pub(crate) fn family() -> Family {
    let advisory = "Convoy #2681, #2682, #2755, #2760";
    Family {
        title: "Tenants",
        how: "Of two tenants, one has an endpoint, a key, an event type, an event, a delivery and a replay. The \
              operations are those of the API's own description, so that none is forgotten.",
        rows: vec![
            Row::new(FOREIGN_KEY, "404 tenant_not_found").of(advisory),
            Row::new(FOREIGN_IDS, "404").of(advisory),
            Row::new(NO_TENANT, "404 tenant_not_found"),
            Row::new(NO_KEY, "401 unauthenticated").of("Mattermost GHSA-455c-vqrf-mghr"),
        ],
    }
}

/// An operation: its method, and its path with names of parameters.
pub(crate) type Operation = (String, String);

pub(crate) fn operations() -> Result<Vec<Operation>> {
    let description: Value = serde_json::from_str(OPERATIONS).context("read the description")?;
    let paths = description["paths"].as_object().context("it has paths")?;
    let mut all = Vec::new();
    for (path, methods) in paths {
        let methods = methods.as_object().context("a path has methods")?;
        let known = methods.keys().filter(|method| method.as_str() != "parameters");
        all.extend(known.map(|method| (method.to_uppercase(), path.clone())));
    }
    ensure!(all.len() > 40, "{} operations are not all", all.len());
    Ok(all)
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    for tenant in [OWNER, STRANGER] {
        world.api().tenant(tenant, EAGER).await?;
    }
    let ids = belongings(world).await?;
    let (path, role) = (format!("/v1/tenants/{STRANGER}/keys"), json!({ "role": "admin" }));
    let stranger =
        world.api().post(&path, &role).await?["key"].as_str().context("a key")?.to_owned();
    let mut asked: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (method, path) in operations()? {
        // Public keys are for everybody who knows an endpoint.
        let is_public = path.ends_with("/jwks.json");
        let open = ["/healthz", "/readyz", "/metrics"].contains(&path.as_str()) || is_public;
        if !open {
            let told = ask(world, (&method, &path), &ids, (OWNER, None)).await?;
            asked.entry(NO_KEY).or_default().push(told);
        }
        if !path.contains("{tenant}") || is_public {
            continue;
        }
        let told = ask(world, (&method, &path), &ids, (OWNER, Some(&stranger))).await?;
        asked.entry(FOREIGN_KEY).or_default().push(told);
        let told = ask(world, (&method, &path), &ids, ("nobody", Some(world.api().key()))).await?;
        // A tenant that is expunged is made of nothing but its expunging.
        if !path.ends_with("/expunge") {
            asked.entry(NO_TENANT).or_default().push(told);
        }
        let own = ["{endpoint}", "{key}", "{event}", "{delivery}", "{replay}", "{event_type}"];
        // No tenant's key shows secrets again: see the rows on keys.
        let open_to_none = path.ends_with("/reveal-secrets");
        if own.iter().any(|name| path.contains(name)) && !open_to_none {
            let told = ask(world, (&method, &path), &ids, (STRANGER, Some(&stranger))).await?;
            let status = told.split(' ').next().unwrap_or_default();
            let told = if status == "404" { String::from("404") } else { told };
            asked.entry(FOREIGN_IDS).or_default().push(told);
        }
    }
    let told = |(row, mut told): (&str, Vec<String>)| {
        told.sort_unstable();
        told.dedup();
        let same = told.iter().map(|told| told.split_once(": ").map_or(told.as_str(), |it| it.1));
        let mut same: Vec<_> = same.collect();
        same.sort_unstable();
        same.dedup();
        let said = if same.len() == 1 { same.concat() } else { told.join("; ") };
        (String::from(row), said)
    };
    Ok(asked.into_iter().map(told).collect())
}

/// Makes one thing of each kind for a tenant; returns their ids by the names of parameters.
async fn belongings(world: &World) -> Result<BTreeMap<&'static str, String>> {
    let base = format!("/v1/tenants/{OWNER}");
    let endpoint = world.endpoint(OWNER, &world.receiver.url("/owned")).await?;
    let key = world.api().post(&format!("{base}/keys"), &json!({ "role": "read" })).await?;
    let kind = json!({ "type": "secret.plans" });
    world.api().post(&format!("{base}/event-types"), &kind).await?;
    let event = world.api().publish(OWNER, "secret.plans", "{}", "owned").await?;
    let made = world.attempts(endpoint, 1).await;
    let delivery = made.first().context("an attempt")?.delivery.id;
    let attempts = format!("{base}/deliveries/{delivery}/attempts");
    wait_until("the delivery log to have it", async || {
        let found = world.api().get(&attempts).await.map_err(|error| format!("{error:#}"))?;
        let there = found["data"].as_array().is_some_and(|list| !list.is_empty());
        if there { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    let path = format!("{base}/endpoints/{endpoint}/replay");
    let replay = world.api().post(&path, &json!({ "since": "2026-01-01T00:00:00Z" })).await?;
    let text = |value: &Value| value["id"].as_str().map(String::from).context("it has an id");
    Ok(BTreeMap::from([
        ("endpoint", endpoint.to_string()),
        ("key", text(&key)?),
        ("event_type", String::from("secret.plans")),
        ("event", event),
        ("delivery", delivery.to_string()),
        ("replay", text(&replay)?),
        ("attempt", String::from("1")),
    ]))
}

/// Asks for an operation on these things, as a tenant's; says what came of it.
async fn ask(
    world: &World,
    (method, path): (&str, &str),
    ids: &BTreeMap<&'static str, String>,
    (tenant, key): (&str, Option<&str>),
) -> Result<String> {
    let mut at = path.replace("{tenant}", tenant);
    for (name, id) in ids {
        at = at.replace(&format!("{{{name}}}"), id);
    }
    let auth = key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
    let body = body(path);
    let head = format!(
        "{method} {at} HTTP/1.1\r\nhost: a\r\n{auth}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = raw::send(world.api(), head.as_bytes()).await?;
    let told = answer.told();
    // Where it was let in, the row is to say where.
    Ok(if told.starts_with('4') { told } else { format!("{method} {path}: {told}") })
}

/// A body that the operation takes, so that it is not the body that is refused.
fn body(path: &str) -> String {
    let end = path.rsplit('/').next().unwrap_or_default();
    let body = match end {
        "endpoints" => new_endpoint("https://example.com/"),
        "events" => json!({ "type": "a.b", "data": 1 }),
        "batch" => json!({ "events": [{ "type": "a.b", "data": 1 }] }),
        "test" if path.contains("filter") && path.contains("{endpoint}") => {
            json!({ "type": "a.b", "data": 1 })
        }
        "test" if path.contains("filter") => json!({ "event": { "type": "a.b", "data": 1 } }),
        "test" => json!({ "event_type": "a.b" }),
        "keys" => json!({ "role": "read" }),
        "event-types" => json!({ "type": "a.b" }),
        "replays" | "replay" => json!({ "since": "2026-01-01T00:00:00Z" }),
        "expunge" => json!({ "confirm": "owner" }),
        _ => json!({}),
    };
    body.to_string()
}
