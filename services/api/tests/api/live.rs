//! Deliveries as they happen: nothing missed, nothing twice, nothing of others.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{
    EndpointId, EventId, Fact, Record, Timestamp, TraceContext, fact::EventRouted,
};
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use fanfare_testkit::wait_until;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Answer, World};

const LIVE: &str = "/v1/tenants/acme/live";
const PATIENCE: Duration = Duration::from_mins(1);

/// A message of a stream.
#[derive(Debug)]
struct Message {
    event: String,
    id: String,
    data: Value,
}

/// An open stream.
struct Stream {
    response: reqwest::Response,
    text: String,
    ready: VecDeque<Message>,
}

impl Stream {
    async fn open(world: &World, query: &str, key: &str, after: Option<&str>) -> Result<Self> {
        let request = world.api.request(Method::GET, &format!("{LIVE}{query}")).bearer_auth(key);
        let request = match after {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let response = request.send().await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self { response, text: String::new(), ready: VecDeque::new() };
        // What says where it begins.
        let first = stream.block().await?;
        ensure!(first.contains("id: "), "{first}");
        Ok(stream)
    }

    /// The next block of lines.
    async fn block(&mut self) -> Result<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = String::from(block);
                self.text = String::from(rest);
                return Ok(block);
            }
            let chunk =
                timeout(PATIENCE, self.response.chunk()).await.context("it is silent")??;
            self.text.push_str(std::str::from_utf8(&chunk.context("it ended")?)?);
        }
    }

    /// The next message with data.
    async fn next(&mut self) -> Result<Message> {
        while self.ready.is_empty() {
            let block = self.block().await?;
            let line = |name: &str| {
                let lines = block.lines().filter_map(|line| line.strip_prefix(name));
                lines.map(String::from).next().unwrap_or_default()
            };
            let data = line("data: ");
            if !data.is_empty() {
                let (event, id) = (line("event: "), line("id: "));
                self.ready.push_back(Message { event, id, data: serde_json::from_str(&data)? });
            }
        }
        self.ready.pop_front().context("a message")
    }
}

/// Puts an event with some targets on record, and returns it.
async fn route(world: &World, tenant: &str, targets: Vec<EndpointId>) -> Result<String> {
    let event = EventId::new(SystemClock.now(), random_bytes());
    let fact = Fact::EventRouted(EventRouted {
        event,
        tenant: tenant.parse()?,
        event_sequence: 1,
        config_revision: 1,
        generation: 0,
        targets,
        skipped: Vec::new(),
        held: Vec::new(),
        fed: Vec::new(),
        part: 0,
        parts: 1,
    });
    let record = Record { recorded_at: Timestamp::EPOCH, trace: TraceContext::default(), fact };
    world.log.publisher().routed(&[record]).await?.stored().await?;
    Ok(event.to_string())
}

async fn world() -> Result<(World, EndpointId, EndpointId)> {
    let world = World::new().await?;
    for tenant in ["acme", "other"] {
        world.tenant(tenant, "kryptos").await?;
    }
    let own = world.endpoint("acme").await?.parse()?;
    let others = world.endpoint("other").await?.parse()?;
    Ok((world, own, others))
}

#[tokio::test]
async fn who_comes_back_misses_nothing_and_sees_nothing_twice() -> Result<()> {
    let (world, endpoint, theirs) = world().await?;
    let second: EndpointId = world.endpoint("acme").await?.parse()?;
    route(&world, "acme", vec![endpoint]).await?;
    let operator = world.operator.clone();
    let mut stream = Stream::open(&world, "", &operator, None).await?;
    let first = route(&world, "acme", vec![endpoint, second]).await?;
    let one = stream.next().await?;
    assert_eq!(one.data["event_id"], first, "what was before is not told");
    assert_eq!(
        (&one.data["state"], &one.data["fact"]),
        (&json!("pending"), &json!("event_routed"))
    );
    drop(stream);
    let missed = route(&world, "acme", vec![endpoint]).await?;
    route(&world, "other", vec![theirs]).await?;
    // In the midst of what one message of the journal says.
    let mut stream = Stream::open(&world, "", &operator, Some(&one.id)).await?;
    let rest = stream.next().await?;
    assert_eq!(
        (&rest.data["event_id"], &rest.data["endpoint_id"]),
        (&json!(first), &json!(second.to_string()))
    );
    let next = stream.next().await?;
    assert_eq!(next.data["event_id"], missed);
    let fresh = route(&world, "acme", vec![endpoint]).await?;
    let last = stream.next().await?;
    assert_eq!(last.data["event_id"], fresh);
    for malformed in ["x", "1", "1.2.3"] {
        let request = world.api.request(Method::GET, LIVE).bearer_auth(&operator);
        let refused = request.header("last-event-id", malformed).send().await?;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{malformed}");
    }
    Ok(())
}

#[tokio::test]
async fn a_place_that_there_is_not_yet_is_refused() -> Result<()> {
    let (world, endpoint, _) = world().await?;
    let operator = world.operator.clone();
    let mut stream = Stream::open(&world, "", &operator, None).await?;
    route(&world, "acme", vec![endpoint]).await?;
    let one = stream.next().await?;
    // As after the journal was restored from a copy.
    for beyond in ["999.0", "18446744073709551615.0"] {
        let request = world.api.request(Method::GET, LIVE).bearer_auth(&operator);
        let refused = Answer::of(request.header("last-event-id", beyond)).await?;
        assert_eq!((refused.status, refused.code()), (StatusCode::GONE, "place_gone"));
    }
    Stream::open(&world, "", &operator, Some(&one.id)).await.map(drop)
}

#[tokio::test]
async fn filters_deleted_endpoints_and_other_tenants_are_left_out() -> Result<()> {
    let (world, endpoint, theirs) = world().await?;
    let second: EndpointId = world.endpoint("acme").await?.parse()?;
    let (_, key) = world.key(Some("acme"), "read").await?;
    let mut all = Stream::open(&world, "", &key, None).await?;
    let query = format!("?endpoint={second}&state=pending,delivered");
    let mut some = Stream::open(&world, &query, &key, None).await?;
    route(&world, "other", vec![theirs]).await?;
    let both = route(&world, "acme", vec![endpoint, second]).await?;
    let place = format!("/v1/tenants/acme/endpoints/{endpoint}");
    for expected in [endpoint, second] {
        let told = all.next().await?.data;
        assert_eq!(
            (&told["event_id"], &told["endpoint_id"]),
            (&json!(both), &json!(expected.to_string()))
        );
    }
    assert_eq!(some.next().await?.data["endpoint_id"], second.to_string());
    world.call(Method::DELETE, &place, Value::Null).await?;
    let later = route(&world, "acme", vec![endpoint, second]).await?;
    for stream in [&mut all, &mut some] {
        let told = stream.next().await?.data;
        assert_eq!(
            (&told["event_id"], &told["endpoint_id"]),
            (&json!(later), &json!(second.to_string()))
        );
    }
    for query in ["?state=done", "?endpoint=x", "?type=a..b", "?what=1"] {
        let request = world.api.request(Method::GET, &format!("{LIVE}{query}"));
        let refused = request.bearer_auth(&key).send().await?;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_ends_with_its_key_its_tenant_and_the_service() -> Result<()> {
    let (world, endpoint, _) = world().await?;
    let (id, key) = world.key(Some("acme"), "read").await?;
    let end = SystemClock.now().saturating_add(Duration::from_secs(6)).to_string();
    let expiring = json!({"role": "read", "expires_at": end});
    let expiring = world.post("/v1/tenants/acme/keys", expiring).await?.text("key");
    let operator = world.operator.clone();
    let mut revoked = Stream::open(&world, "", &key, None).await?;
    let mut expired = Stream::open(&world, "", &expiring, None).await?;
    let mut stays = Stream::open(&world, "", &operator, None).await?;
    world.call(Method::DELETE, &format!("/v1/tenants/acme/keys/{id}"), Value::Null).await?;
    for stream in [&mut revoked, &mut expired] {
        let end = stream.next().await?;
        assert_eq!((end.event.as_str(), &end.data["reason"]), ("end", &json!("unauthorized")));
        assert!(stream.block().await.is_err(), "nothing is behind the end");
    }
    let event = route(&world, "acme", vec![endpoint]).await?;
    let told = stays.next().await?;
    assert_eq!(told.data["event_id"], event);
    world.api.stop().await?;
    let end = stays.next().await?;
    assert_eq!((end.event.as_str(), &end.data["reason"]), ("end", &json!("interrupted")));
    assert_eq!(end.id.split('.').next(), told.id.split('.').next(), "one can go on there");
    Ok(())
}

/// Opens a stream and takes nothing of it.
async fn stuck(world: &World) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(world.api.address).await?;
    let key = &world.operator;
    let head = format!("GET {LIVE} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    ensure!(first == *b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&first));
    Ok(stream)
}

#[tokio::test]
async fn a_tenant_has_so_many_streams_and_those_who_take_nothing_lose_theirs() -> Result<()> {
    let (world, _, _) = world().await?;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(stuck(&world).await?);
    }
    let look = async || {
        let request = world.api.request(Method::GET, LIVE).bearer_auth(&world.operator);
        request.send().await.map(|answer| answer.status()).map_err(|error| error.to_string())
    };
    assert_eq!(look().await, Ok(StatusCode::TOO_MANY_REQUESTS));
    // More than the buffers of connections hold.
    let targets = || (0..1_000).map(|_| EndpointId::new(SystemClock.now(), random_bytes()));
    for _ in 0..40 {
        route(&world, "acme", targets().collect()).await?;
    }
    wait_until("the streams to be closed", async || match look().await {
        Ok(StatusCode::OK) => Ok(()),
        other => Err(other),
    })
    .await;
    drop(streams);
    Ok(())
}
