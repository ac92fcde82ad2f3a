//! How often callers may ask, and from how many connections.

use std::num::NonZeroU32;

use anyhow::{Context as _, Result};
use fanfare_api::Rate;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::support::{Answer, Api, World};

const KEYS: &str = "/v1/tenants/acme/keys";
const LINKS: &str = "/v1/tenants/acme/portal-links";

/// One a minute, two at once: nobody is slow enough for it to matter when each comes.
fn few() -> Value {
    json!({"requests": 1, "per": "minute", "burst": 2})
}

async fn look(api: &Api, key: &str) -> Result<Answer> {
    api.call(Method::GET, "/v1/tenants/acme", Some(key), Value::Null).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Asks three times with what may ask twice.
async fn used_up(api: &Api, key: &str) -> Result<()> {
    for left in ["\"caller\";r=1;t=60", "\"caller\";r=0;t=120"] {
        let answer = look(api, key).await?;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(header(&answer, "ratelimit-policy"), "\"caller\";q=1;w=60");
        // Time goes on between the two.
        let begin = left.split("t=").next().context("a beginning")?;
        assert!(header(&answer, "ratelimit").starts_with(begin), "{answer:?}");
    }
    let refused = look(api, key).await?;
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    let wait: u64 = header(&refused, "retry-after").parse()?;
    assert!((1..=60).contains(&wait), "{refused:?}");
    assert_eq!(header(&refused, "cache-control"), "no-store");
    Ok(())
}

#[tokio::test]
async fn each_key_and_each_link_has_a_limit_of_its_own() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    for place in [KEYS, "/v1/keys"] {
        let limited = json!({"role": "read", "rate_limit": few()});
        let made = world.post(place, limited).await?;
        assert_eq!(made.body["rate_limit"], few(), "{made:?}");
        used_up(&world.api, &made.text("key")).await?;
    }
    for _ in 0..2 {
        let link = world.post(LINKS, json!({"user": "ada", "rate_limit": few()})).await?;
        used_up(&world.api, &link.text("token")).await?;
    }
    // Another process counts by itself, and reads the same token.
    let link = world.post(LINKS, json!({"rate_limit": few()})).await?.text("token");
    used_up(&world.api, &link).await?;
    let another = world.another().await?;
    used_up(&another, &link).await?;
    let free = look(&world.api, &world.operator).await?;
    assert_eq!((free.status, header(&free, "ratelimit")), (StatusCode::OK, ""));
    another.stop().await
}

#[tokio::test]
async fn what_has_no_limit_of_its_own_has_that_of_the_settings() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (_, key) = world.key(Some("acme"), "admin").await?;
    let usual = look(&world.api, &key).await?;
    assert_eq!(header(&usual, "ratelimit-policy"), "\"caller\";q=1000;w=1");
    let token = world.post(LINKS, json!({})).await?.text("token");
    let usual = look(&world.api, &token).await?;
    assert_eq!(header(&usual, "ratelimit-policy"), "\"caller\";q=3000;w=60");
    let strict = world.another_with(|settings| {
        settings.tenant_key_rate = "1/m".parse().unwrap_or(Rate(None));
        settings.portal_link_rate = "1/m".parse().unwrap_or(Rate(None));
    });
    let strict = strict.await?;
    for shown in [&key, &token] {
        assert_eq!(look(&strict, shown).await?.status, StatusCode::OK);
        assert_eq!(look(&strict, shown).await?.code(), "rate_limited");
    }
    for _ in 0..3 {
        assert_eq!(look(&strict, &world.operator).await?.status, StatusCode::OK);
    }
    strict.stop().await
}

#[tokio::test]
async fn no_tenant_gives_itself_more_than_it_has() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let new = |requests: u32, per: &str| json!({"role": "admin", "rate_limit": {"requests": requests, "per": per}});
    let link = |requests: u32| json!({"rate_limit": {"requests": requests, "per": "second"}});
    let (_, usual) = world.key(Some("acme"), "admin").await?;
    let own = world.post(KEYS, new(300, "minute")).await?.text("key");
    let wide = world.post(KEYS, new(5_000, "second")).await?.text("key");
    let make = async |key: &str, place: &str, body: Value| {
        world.api.call(Method::POST, place, Some(key), body).await
    };
    for (key, place, body, is_allowed) in [
        (&usual, KEYS, new(1_000, "second"), true),
        (&usual, KEYS, new(1_001, "second"), false),
        (&own, KEYS, new(5, "second"), true),
        (&own, KEYS, new(6, "second"), false),
        (&wide, KEYS, new(5_000, "second"), true),
        (&usual, LINKS, link(50), true),
        (&usual, LINKS, link(51), false),
        (&world.operator, LINKS, link(10_000), true),
        (&world.operator, KEYS, new(10_000, "second"), true),
    ] {
        let answer = make(key, place, body.clone()).await?;
        if is_allowed {
            assert_eq!(answer.status, StatusCode::CREATED, "{body} {answer:?}");
        } else {
            assert_eq!((answer.code(), &*answer.text("field")), ("value_invalid", "rate_limit"));
        }
    }
    let inherited = make(&own, KEYS, json!({"role": "read"})).await?;
    let expected = json!({"requests": 300, "per": "minute", "burst": 300});
    assert_eq!(inherited.body["rate_limit"], expected);
    for bad in [json!({"requests": 0, "per": "second"}), json!({"requests": 10, "per": "hour"})] {
        let refused = world.post("/v1/keys", json!({"role": "read", "rate_limit": bad})).await?;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn who_shows_too_much_that_lets_nobody_in_is_refused_and_others_are_not() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let strict = world.another_with(|settings| {
        settings.stranger_rate = "3/m".parse().unwrap_or(Rate(None));
    });
    let strict = strict.await?;
    for number in 0..6_u8 {
        let answer = look(&strict, &fanfare_api::generate_key([number; 32])).await?;
        let expected = if number < 3 { "unauthenticated" } else { "rate_limited" };
        assert_eq!(answer.code(), expected, "{number}");
    }
    let token = world.post(LINKS, json!({})).await?.text("token");
    assert_eq!(look(&strict, &format!("{token}A")).await?.code(), "rate_limited");
    for valid in [&world.operator, &token] {
        assert_eq!(look(&strict, valid).await?.status, StatusCode::OK);
    }
    // What could be no key costs nothing, and is refused as ever.
    let nothing = strict.call(Method::GET, "/v1/tenants", None, Value::Null).await?;
    assert_eq!(nothing.code(), "unauthenticated");
    assert_eq!(look(&strict, "fk_short").await?.code(), "unauthenticated");
    let metrics = strict.call(Method::GET, "/metrics", Some(&world.operator), Value::Null).await?;
    let metrics = metrics.body.as_str().unwrap_or_default();
    assert!(metrics.contains("fanfare_api_rate_limited_total{limit=\"address\"} 4"), "{metrics}");
    strict.stop().await
}

#[tokio::test]
async fn an_address_has_so_many_connections() -> Result<()> {
    let world = World::new().await?;
    let few = world.another_with(|settings| {
        settings.connections_per_address = NonZeroU32::MIN.saturating_add(1);
    });
    let few = few.await?;
    let (first, second) =
        (TcpStream::connect(few.address).await?, TcpStream::connect(few.address).await?);
    let mut third = TcpStream::connect(few.address).await?;
    let mut rest = Vec::new();
    let read = timeout(std::time::Duration::from_mins(1), third.read_to_end(&mut rest)).await?;
    // It is closed in order, or reset.
    assert!(read.is_err() || rest.is_empty());
    drop((first, second));
    fanfare_testkit::wait_until("their places to be free", async || {
        let answer = few.call(Method::GET, "/healthz", None, Value::Null).await;
        answer.map(|answer| answer.status).map_err(|error| format!("{error:#}"))
    })
    .await;
    few.stop().await
}
