//! Bodies that come slowly: what they take, and whom they hold up.

use anyhow::{Context as _, Result};
use fanfare_domain::{EventId, Timestamp};
use fanfare_event_log::{PublishAnswer, Request};
use fanfare_testkit::wait_until;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, timeout},
};

use crate::support::World;

/// What a server says that wants the body.
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
/// As much as a batch may have.
const LARGE: usize = 4 << 20;

/// A request for a batch whose body does not come.
struct Slow(TcpStream);

impl Slow {
    /// Sends the head, and asks whether the body is wanted.
    async fn begin(world: &World, tenant: &str, headers: &str, bytes: usize) -> Result<Self> {
        Self::begin_at(world, &format!("/v1/tenants/{tenant}/events/batch"), headers, bytes).await
    }

    /// The same of any POST.
    async fn begin_at(world: &World, path: &str, headers: &str, bytes: usize) -> Result<Self> {
        let mut stream = TcpStream::connect(world.api.address).await?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\n\
             Content-Type: application/json\r\nContent-Length: {bytes}\r\n\
             Expect: 100-continue\r\nConnection: close\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        Ok(Self(stream))
    }

    /// What the server says first.
    async fn first(&mut self) -> Result<String> {
        let mut bytes = vec![0; 4_096];
        let read = timeout(Duration::from_mins(1), self.0.read(&mut bytes)).await??;
        Ok(String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned())
    }

    /// Whether the server still waits for the body.
    fn is_waited_for(&self) -> bool {
        let read = self.0.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

#[tokio::test]
async fn slow_batches_of_one_tenant_stop_no_others() -> Result<()> {
    let world = World::new().await?;
    world.tenant("slow", "kryptos").await?;
    world.tenant("acme", "kryptos").await?;
    let headers = bearer(&world.operator);
    // In rounds: on a machine that is too busy a round may take longer than slow bodies may.
    wait_until("a batch to be taken while the slow ones come", async || {
        let round = async {
            let mut slow = Vec::new();
            for _ in 0..16 {
                let mut one = Slow::begin(&world, "slow", &headers, 1_000).await?;
                assert_eq!(one.first().await?, CONTINUE);
                slow.push(one);
            }
            let mut requests = world.log.requests().await?;
            let body = json!({"events": [{"type": "a", "data": 1}]});
            let batch = world.post("/v1/tenants/acme/events/batch", body);
            let ingest = async {
                let next = timeout(Duration::from_mins(1), requests.next());
                let Request { reply, .. } = next.await?.context("a request")?;
                let event = EventId::new(Timestamp::from_millis(7), [1; 10]);
                reply.send(&PublishAnswer::Accepted { event, duplicate: false }).await;
                anyhow::Ok(())
            };
            let (told, asked) = tokio::join!(batch, ingest);
            asked?;
            assert_eq!(told?.body["accepted"], 1);
            requests.stop().await;
            anyhow::Ok(slow.iter().all(Slow::is_waited_for))
        };
        match round.await {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_body_is_not_asked_for_from_who_may_not_send_it() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (_, reader) = world.key(Some("acme"), "read").await?;
    for headers in ["", "Idempotency-Key: k\r\n"] {
        let headers = format!("{}{headers}", bearer(&reader));
        let mut refused = Slow::begin(&world, "acme", &headers, LARGE).await?;
        let said = refused.first().await?;
        assert!(said.starts_with("HTTP/1.1 403"), "{headers} {said}");
    }
    Ok(())
}

#[tokio::test]
async fn the_bodies_of_a_tenant_take_a_part_of_the_memory_with_a_key_or_without() -> Result<()> {
    let world = World::new().await?;
    for tenant in ["large", "acme"] {
        world.tenant(tenant, "kryptos").await?;
    }
    wait_until("a body that there is no room for to be refused", async || {
        let round = async {
            let mut slow = Vec::new();
            for number in 0..8 {
                let key = format!("{}Idempotency-Key: {number}\r\n", bearer(&world.operator));
                let headers = if number % 2 == 0 { key } else { bearer(&world.operator) };
                let mut one = Slow::begin(&world, "large", &headers, LARGE).await?;
                assert_eq!(one.first().await?, CONTINUE);
                slow.push(one);
            }
            let mut ninth = Slow::begin(&world, "large", &bearer(&world.operator), LARGE).await?;
            let path = "/v1/tenants/acme/endpoints";
            let body = json!({"url": "https://example.com/hook", "event_types": ["a"]});
            let other = world.api.call(Method::POST, path, Some(&world.operator), body).await?;
            assert_eq!(other.status, StatusCode::CREATED, "others have room: {other:?}");
            let said = ninth.first().await?;
            drop(slow);
            anyhow::Ok(said)
        };
        match round.await {
            Ok(said) if said.starts_with("HTTP/1.1 503") && said.contains("\"busy\"") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn what_a_deleted_tenants_key_was_just_making_is_not_the_next_tenants() -> Result<()> {
    let world = World::new().await?;
    for (things, body) in [
        ("keys", json!({"role": "admin", "name": "late"})),
        ("endpoints", json!({"url": "https://example.com/", "event_types": ["a"]})),
        ("event-types", json!({"type": "a.b", "description": "late"})),
        ("replays", json!({"since": "2026-01-01T00:00:00Z"})),
    ] {
        world.tenant("acme", "kryptos").await?;
        let (_, key) = world.key(Some("acme"), "admin").await?;
        let (path, body) = (format!("/v1/tenants/acme/{things}"), body.to_string());
        let mut slow = Slow::begin_at(&world, &path, &bearer(&key), body.len()).await?;
        assert_eq!(slow.first().await?, CONTINUE, "its caller was let in");
        world.call(Method::DELETE, "/v1/tenants/acme", serde_json::Value::Null).await?;
        world.tenant("acme", "kryptos").await?;
        slow.0.write_all(body.as_bytes()).await?;
        let answer = slow.first().await?;
        assert!(answer.starts_with("HTTP/1.1 404"), "{things}: {answer}");
        if things != "replays" {
            assert_eq!(world.get(&path).await?.data().len(), 0, "{things}");
        }
        world.call(Method::DELETE, "/v1/tenants/acme", serde_json::Value::Null).await?;
    }
    Ok(())
}
