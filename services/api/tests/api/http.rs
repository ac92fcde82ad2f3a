//! What is the same for every request: refusals as problems, limits, headers, health.

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, World, holds};

#[tokio::test]
async fn every_refusal_is_a_problem() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let post = |body: &'static str, kind: &'static str| {
        let request = world.api.request(Method::POST, "/v1/tenants").bearer_auth(&world.operator);
        Answer::of(request.header("content-type", kind).body(body))
    };
    let json = "application/json";
    for (answer, status, code) in [
        (world.get("/v1/nothing").await?, 404, "not_found"),
        (world.get("/").await?, 404, "not_found"),
        (world.call(Method::PUT, "/v1/tenants", Value::Null).await?, 405, "method_not_allowed"),
        (post("{", json).await?, 400, "body_malformed"),
        (post("{\"id\":7}", json).await?, 400, "body_malformed"),
        (post("{\"id\":\"a\",\"more\":1}", json).await?, 400, "body_malformed"),
        (post("{\"id\":\"a\",\"id\":\"b\"}", json).await?, 400, "body_malformed"),
        (post("", json).await?, 400, "body_malformed"),
        (post("id=a", "application/x-www-form-urlencoded").await?, 415, "media_type_unsupported"),
        (post("{\"id\":\"a\"}", "text/plain").await?, 415, "media_type_unsupported"),
        (world.get("/v1/tenants/a%2eb").await?, 404, "tenant_not_found"),
        (world.get("/v1/tenants/acme/endpoints/ep_x").await?, 404, "endpoint_not_found"),
        (world.get("/v1/tenants/%ff").await?, 404, "not_found"),
    ] {
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.body["status"], status);
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_announced_or_not() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let text = format!("{{\"type\":\"a\",\"data\":\"{}\"}}", "x".repeat(2 << 20));
    let chunks = futures_util::stream::iter(
        text.clone()
            .into_bytes()
            .chunks(64 << 10)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect::<Vec<_>>(),
    );
    for body in [reqwest::Body::from(text), reqwest::Body::wrap_stream(chunks)] {
        let request = world.api.request(Method::POST, "/v1/tenants/acme/events");
        let request =
            request.bearer_auth(&world.operator).header("content-type", "application/json");
        let answer = Answer::of(request.body(body)).await?;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
        );
    }
    Ok(())
}

#[tokio::test]
async fn health_is_told_without_a_key() -> Result<()> {
    let mut world = World::new().await?;
    for path in ["/healthz", "/readyz"] {
        let answer = world.api.call(Method::GET, path, None, Value::Null).await?;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.body["ready"], true);
    }
    world.nats.server().kill().await?;
    fanfare_testkit::wait_until("the loss to be noticed", async || {
        let answer = world.api.call(Method::GET, "/readyz", None, Value::Null).await;
        match answer {
            Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let live = world.api.call(Method::GET, "/healthz", None, Value::Null).await?;
    assert_eq!(live.status, StatusCode::OK, "it lives, and waits for the log");
    Ok(())
}

#[tokio::test]
async fn an_operator_reads_metrics_also_while_the_log_is_away() -> Result<()> {
    let mut world = World::new().await?;
    world.get("/v1/tenants").await?;
    let before =
        world.api.call(Method::GET, "/metrics", Some(&world.operator), Value::Null).await?;
    let text = before.body.as_str().unwrap_or_default();
    assert!(text.contains("fanfare_api_requests_total{status=\"2xx\"}"), "{before:?}");
    assert_eq!(before.headers["content-type"], fanfare_service::METRICS_TYPE);
    world.nats.server().kill().await?;
    let after = world.api.call(Method::GET, "/metrics", Some(&world.operator), Value::Null).await?;
    assert_eq!(after.status, StatusCode::OK, "{after:?}");
    Ok(())
}

#[tokio::test]
async fn a_connection_is_counted_while_it_is_open_and_none_before() -> Result<()> {
    let world = World::new().await?;
    let key = &world.operator;
    let head = format!(
        "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    let answer = raw(&world, head.as_bytes()).await?;
    assert!(answer.contains("\nfanfare_api_connections 1\n"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn the_document_is_served() -> Result<()> {
    let world = World::new().await?;
    let answer = world.api.call(Method::GET, "/openapi.json", None, Value::Null).await?;
    let document: Value = serde_json::from_str(&fanfare_api::openapi_document())?;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, document));
    Ok(())
}

/// Writes bytes to the API, and returns what it writes until it closes.
async fn raw(world: &World, bytes: &[u8]) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(world.api.address).await?;
    stream.write_all(bytes).await?;
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    tokio::time::timeout(std::time::Duration::from_mins(1), read).await??;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused() -> Result<()> {
    let world = World::new().await?;
    for head in [
        "POST /v1/tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "POST /v1/tenants HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "GET  /v1/tenants HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/tenants HTTP/1.1\r\nHost : a\r\n\r\n",
    ] {
        let answer = raw(&world, head.as_bytes()).await?;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stop_does_not_wait_for_idle_connections() -> Result<()> {
    let world = World::new().await?;
    let _idle = tokio::net::TcpStream::connect(world.api.address).await?;
    world.tenant("acme", "kryptos").await?;
    let stopping = world.api.stop();
    tokio::time::timeout(std::time::Duration::from_secs(8), stopping).await?
}

#[tokio::test]
async fn a_reason_is_kept_with_the_change() -> Result<()> {
    let world = World::new().await?;
    let request = world.api.request(Method::POST, "/v1/tenants").bearer_auth(&world.operator);
    let request = request.header("fanfare-reason", "ticket 4711").json(&json!({"id": "acme"}));
    assert_eq!(Answer::of(request).await?.status, StatusCode::CREATED);
    let stored = world.nats.everything().await?;
    assert!(stored.iter().any(|message| holds(message, "ticket 4711")));
    Ok(())
}
