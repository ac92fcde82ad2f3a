//! Whoever has no key decides neither in which trace a request is nor whether that is exported; a
//! tenant decides on the trace, and the operator on both. What does not count is linked to.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::support::{
    Expected, Hooks, Options, Scene,
    scene::TENANT,
    spans::{Collector, Exported},
};

/// The span that a caller says it comes from, and what spans of such requests are called.
const CALLING: &str = "b7ad6b7169203331";
const REQUEST: &str = "POST /v1/tenants/{tenant}/events";

/// What a caller says of its trace: always that it is sampled.
fn traceparent(number: u8) -> String {
    format!("00-{}-{CALLING}-01", trace(number))
}

fn trace(number: u8) -> String {
    format!("{number:02x}").repeat(16)
}

/// Publishes an event over the API, or tries to; returns the status.
async fn publish(scene: &Scene, key: Option<&str>, number: u8) -> Result<u16> {
    let address = scene.api().address().context("the API's address")?;
    let url = format!("http://{address}/v1/tenants/{TENANT}/events");
    let request = reqwest::Client::new().post(url).header("traceparent", traceparent(number));
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    let body = json!({ "type": "order.paid", "data": number }).to_string();
    let request = request.header("content-type", "application/json").body(body);
    Ok(request.send().await?.status().as_u16())
}

/// The trace that the request of the event with this number said that it is in.
fn said(scene: &Scene, number: u8) -> Result<String> {
    let requests = scene.hooks.requests();
    let data = |body: &[u8]| {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        body["data"].as_u64()
    };
    let found = requests.iter().find(|request| data(&request.body) == Some(number.into()));
    let said = found.context("the request")?.header("traceparent").map(String::from);
    said.context("its trace")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_trace_counts_as_far_as_its_key_does() -> Result<()> {
    let collector = Collector::start().await?;
    let mut variables = collector.variables();
    let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    variables.push((String::from(sampler.0), String::from(sampler.1)));
    let options = Options { variables, ..Options::default() };
    let mut scene = Scene::set_with(options, Hooks::start().await?).await?;
    scene.subscribe("/good", &[">"], &[]).await?;
    let keys = format!("/v1/tenants/{TENANT}/keys");
    let key = scene.api().post(&keys, &json!({ "role": "publish" })).await?;
    let key = key["key"].as_str().context("a key")?;
    // What is published before is answered, so ingest is there.
    scene.api().publish(TENANT, "order.paid", "0", "first").await?;

    assert_eq!(publish(&scene, None, 1).await?, 401);
    assert_eq!(publish(&scene, Some("fk_unknown"), 2).await?, 401);
    assert_eq!(publish(&scene, Some(key), 3).await?, 202);
    assert_eq!(publish(&scene, Some(scene.api().key()), 4).await?, 202);
    scene.hooks_have(3).await;
    // The operator's is exported, and everything before it would be by now.
    let spans = collector.have(&[("POST", 1), ("process INBOX", 1), (REQUEST, 1)]).await;
    let ours = |span: &&Exported| span.service == "fanfare-api";
    let traces: Vec<_> = spans.iter().filter(ours).map(|span| span.trace.clone()).collect();
    assert!(traces.iter().all(|found| *found == trace(4)), "{spans:#?}");
    assert!(spans.iter().all(|span| span.trace == trace(4)), "{spans:#?}");

    let tenants = said(&scene, 3)?;
    assert!(tenants.starts_with(&format!("00-{}-", trace(3))) && tenants.ends_with("-00"));
    let operators = said(&scene, 4)?;
    assert!(operators.starts_with(&format!("00-{}-", trace(4))) && operators.ends_with("-01"));
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_does_not_count_is_linked_to() -> Result<()> {
    let collector = Collector::start().await?;
    let options = Options { variables: collector.variables(), ..Options::default() };
    let scene = Scene::set_with(options, Hooks::start().await?).await?;
    scene.api().publish(TENANT, "order.paid", "0", "first").await?;
    assert_eq!(publish(&scene, None, 1).await?, 401);
    assert_eq!(publish(&scene, Some(scene.api().key()), 2).await?, 202);
    let spans = collector.have(&[(REQUEST, 3)]).await;
    let answered = |status: &str| {
        let is_it = |span: &&Exported| {
            let found = span.attributes.get("http.response.status_code");
            span.name == REQUEST && found.is_some_and(|found| found == status)
        };
        spans.iter().filter(is_it).collect::<Vec<_>>()
    };
    let [refused] = *answered("401") else { panic!("{spans:#?}") };
    assert!(refused.trace != trace(1) && refused.parent.is_empty(), "{refused:#?}");
    assert_eq!(refused.links, [(trace(1), String::from(CALLING))]);
    let continued = answered("202").into_iter().find(|span| span.trace == trace(2));
    let continued = continued.context("the operator's")?;
    assert_eq!((continued.parent.as_str(), continued.links.len()), (CALLING, 0));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/tenants/{tenant}/events"),
        ("url.scheme", "http"),
        ("fanfare.tenant.id", TENANT),
    ] {
        let found = continued.attributes.get(name).map(String::as_str);
        assert_eq!(found, Some(value), "{name} of {continued:#?}");
    }
    ensure!(!continued.attributes.contains_key("url.path"), "what people put there by mistake");
    scene.finish(Expected::Calm).await
}
