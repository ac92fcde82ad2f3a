//! What the API takes and serves: JSON, as data and nothing else, and only so much of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    raw::{self, Answer},
    support::{Api, EAGER},
    table::{Family, Row, Seen},
    tenants::operations,
    world::{World, new_endpoint},
};

const TENANT: &str = "served";
const MARKUP: &str = "<script>alert(document.domain)</script><img src=x onerror=alert(1)>";
const PATIENCE: Duration = Duration::from_mins(1);
/// How many keys are tried, at most, until there are too many.
const GUESSES_MAX: usize = 3_000;
const UNSUPPORTED: &str = "415 media_type_unsupported";
const SAFE: &str = "data, and nothing that a browser shows, keeps and hands on";

/// Heads of a request with a body of JSON.
const TYPES: [(&str, &str, &str); 13] = [
    ("application/json", "content-type: application/json\r\n", "202"),
    ("JSON in UTF-8", "content-type: application/json; charset=utf-8\r\n", "202"),
    ("no type", "", UNSUPPORTED),
    ("an empty type", "content-type: \r\n", UNSUPPORTED),
    ("text/plain, as a form of another site sends it", "content-type: text/plain\r\n", UNSUPPORTED),
    ("a form", "content-type: application/x-www-form-urlencoded\r\n", UNSUPPORTED),
    ("a form in parts", "content-type: multipart/form-data; boundary=x\r\n", UNSUPPORTED),
    ("text/html", "content-type: text/html\r\n", UNSUPPORTED),
    ("JSON in UTF-16", "content-type: application/json; charset=utf-16\r\n", UNSUPPORTED),
    ("JSON or text", "content-type: application/json, text/plain\r\n", UNSUPPORTED),
    ("two types", "content-type: application/json\r\ncontent-type: text/plain\r\n", UNSUPPORTED),
    ("a patch, to make something", "content-type: application/merge-patch+json\r\n", UNSUPPORTED),
    (
        "JSON that is compressed",
        "content-type: application/json\r\ncontent-encoding: gzip\r\n",
        UNSUPPORTED,
    ),
];

/// What every answer has.
const HEADERS: [(&str, &str); 6] = [
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
];

const REFUSED: &str = "the answer of every operation, without a key";
const ANSWERED: &str = "the answer of every operation that looks, with a key";
const NOWHERE: &str = "the answer where there is nothing";
const STREAMED: &str = "a stream of deliveries";
const SHOWN: &str =
    "markup as an event's data, a type's description, an endpoint's name and its answer";
const ORIGIN: &str = "a request of another site's page, with a key";
const GUESSES: &str = "keys that are none, one after the other, from one address";
const LIMITED: &str = "six requests with a key that may make five";
const STREAMS: &str = "five streams for one user of the tenant, by several links";

pub(crate) fn family() -> Family {
    let mut rows: Vec<_> =
        TYPES.iter().map(|(name, _, expected)| Row::new(name, expected)).collect();
    for name in [REFUSED, ANSWERED, NOWHERE, STREAMED, SHOWN] {
        rows.push(Row::new(name, SAFE));
    }
    rows.push(Row::new(ORIGIN, "no leave is given"));
    rows.push(Row::new(GUESSES, "429 rate_limited, and a valid key is let in all the same"));
    rows.push(Row::new(LIMITED, "five are answered; 429 rate_limited, and other keys are not"));
    rows.push(Row::new(STREAMS, "four are; 429 streams_limit, and another user has theirs"));
    Family {
        title: "What the API takes and serves",
        how: "Asked of it over its socket. Bodies are JSON and say so; answers are data, whoever has put what \
              into them; and how much one caller gets is limited.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    let api = world.api();
    api.tenant(TENANT, EAGER).await?;
    let mut seen = Seen::new();
    let path = format!("/v1/tenants/{TENANT}/events");
    for (name, head, _) in TYPES {
        let body = json!({ "type": "a.b", "data": 1 }).to_string();
        let answer =
            raw::send(api, &raw::request(api, "POST", &path, head, body.as_bytes())).await?;
        seen.insert(String::from(name), answer.told());
    }
    let mut put = |name: &str, told: String| drop(seen.insert(String::from(name), told));
    let (refused, answered) = everything(api).await?;
    put(REFUSED, refused);
    put(ANSWERED, answered);
    let nowhere = raw::get(api, "/console/%3Cscript%3E").await?;
    put(NOWHERE, judged(&[("404", nowhere)]));
    put(STREAMED, streamed(api).await?);
    put(SHOWN, shown(world).await?);
    let origin = "origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n";
    let answer = raw::send(api, &raw::request(api, "GET", "/v1/tenants", origin, b"")).await?;
    let leave = answer.headers.iter().any(|(name, _)| name.starts_with("access-control-"));
    put(ORIGIN, String::from(if leave { "leave is given" } else { "no leave is given" }));
    put(GUESSES, guesses(&world.strict).await?);
    put(LIMITED, limited(api).await?);
    put(STREAMS, streams(api).await?);
    Ok(seen)
}

/// Says what is wrong with the heads of answers, or that nothing is.
fn judged(answers: &[(&str, Answer)]) -> String {
    let mut wrong = Vec::new();
    for (name, answer) in answers {
        for (header, value) in HEADERS {
            if answer.header(header) != Some(value) {
                wrong.push(format!("{name}: {header} is {:?}", answer.header(header)));
            }
        }
        let given = answer.headers.iter().map(|(name, _)| name.as_str());
        let bad = ["set-cookie", "server", "x-powered-by"];
        let given = given.filter(|name| bad.contains(name) || name.starts_with("access-control-"));
        wrong.extend(given.map(|header| format!("{name}: {header}")));
        let known = ["application/json", "application/problem+json", "text/event-stream"];
        let kind = answer.header("content-type");
        let is_metrics = name.contains("/metrics") && kind.is_some_and(|it| it.contains("0.0.4"));
        let is_empty = answer.status == Some(204);
        if !is_metrics && !is_empty && !kind.is_some_and(|kind| known.contains(&kind)) {
            wrong.push(format!("{name}: {kind:?}"));
        }
    }
    if wrong.is_empty() { String::from(SAFE) } else { wrong.join("; ") }
}

/// Asks for every operation without a key, and for those that look with one.
async fn everything(api: &Api) -> Result<(String, String)> {
    let (mut refused, mut answered) = (Vec::new(), Vec::new());
    let operations = operations()?;
    for (method, path) in &operations {
        let filled = path.replace("{tenant}", TENANT).replace(['{', '}'], "");
        let text = format!("{method} {filled} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        refused.push((path.as_str(), raw::send(api, text.as_bytes()).await?));
        if method == "GET" && !path.ends_with("/live") {
            answered.push((path.as_str(), raw::get(api, &filled).await?));
        }
    }
    Ok((judged(&refused), judged(&answered)))
}

/// Reads the head of a stream.
async fn streamed(api: &Api) -> Result<String> {
    let answer = open(api, api.key()).await?.1;
    Ok(judged(&[("a stream", answer)]))
}

/// Opens a stream of deliveries, as long as what is returned is there.
async fn open(api: &Api, key: &str) -> Result<(TcpStream, Answer)> {
    let mut stream = raw::connect(api).await?;
    let head = format!(
        "GET /v1/tenants/{TENANT}/live HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut bytes = Vec::new();
    let read = async {
        let mut chunk = [0; 4_096];
        while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            let count = stream.read(&mut chunk).await?;
            ensure!(count > 0, "the stream ended within its head");
            bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(PATIENCE, read).await.context("a stream has a head")??;
    Ok((stream, Answer::read(&bytes)))
}

/// Puts markup wherever a tenant can put a text, and looks at it in every way that there is.
async fn shown(world: &World) -> Result<String> {
    let (api, base) = (world.api(), format!("/v1/tenants/{TENANT}"));
    let mut new = new_endpoint(&world.receiver.url("/served"));
    new["name"] = json!(MARKUP);
    new["description"] = json!(MARKUP);
    new["metadata"] = json!({ "note": MARKUP });
    let endpoint = api.endpoint(TENANT, &new).await?.id;
    let kind = json!({ "type": "mark.up", "description": MARKUP });
    api.post(&format!("{base}/event-types"), &kind).await?;
    let data = json!({ "text": MARKUP }).to_string();
    let event = api.publish(TENANT, "mark.up", &data, "markup").await?;
    let made = world.attempts(endpoint.parse()?, 1).await;
    let delivery = made.first().context("an attempt")?.delivery.id;
    let attempt = format!("{base}/deliveries/{delivery}/attempts/1");
    fanfare_testkit::wait_until("the attempt to be shown", async || {
        let found = api.get(&attempt).await.map_err(|error| format!("{error:#}"))?;
        let said = found.to_string().contains("onerror");
        if said { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    let mut answers = Vec::new();
    for path in [
        format!("{base}/endpoints/{endpoint}"),
        format!("{base}/endpoints"),
        format!("{base}/event-types/mark.up"),
        format!("{base}/events/{event}"),
        attempt.clone(),
        format!("{base}/deliveries/{delivery}"),
        format!("{base}/events?search=%3Cscript%3E"),
        format!("{base}/deliveries?type=%3Cscript%3E"),
        format!("{base}/endpoints/%3Cscript%3E"),
    ] {
        answers.push(raw::get(api, &path).await?);
    }
    let said = answers.iter().filter(|answer| answer.text().contains("onerror")).count();
    ensure!(said >= 4, "the markup is in {said} answers only");
    let named: Vec<_> = answers.into_iter().map(|answer| ("an answer", answer)).collect();
    Ok(judged(&named))
}

/// Shows keys that are none until that is refused, and then one that is valid.
async fn guesses(api: &Api) -> Result<String> {
    let head = |key: &str| {
        format!(
            "GET /v1/tenants HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
        )
    };
    for number in 0..GUESSES_MAX {
        let answer = raw::send(api, head(&format!("fk_{number:064x}")).as_bytes()).await?;
        if answer.told() == "401 unauthenticated" {
            continue;
        }
        let told = answer.told();
        let waits = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
        ensure!(waits.is_some_and(|wait| wait > 0), "{answer:?}");
        let valid = raw::send(api, head(api.key()).as_bytes()).await?;
        let let_in = if valid.status == Some(200) { "is let in" } else { "is not let in" };
        return Ok(format!("{told}, and a valid key {let_in} all the same"));
    }
    Ok(format!("{GUESSES_MAX} were looked up"))
}

/// Uses a key up.
async fn limited(api: &Api) -> Result<String> {
    let limit = json!({ "requests": 1, "per": "minute", "burst": 5 });
    let keys = format!("/v1/tenants/{TENANT}/keys");
    let new = json!({ "role": "read", "rate_limit": limit });
    let made = api.post(&keys, &new).await?;
    let other = api.post(&keys, &json!({ "role": "read" })).await?;
    let ask = async |key: &Value| {
        let key = key["key"].as_str().context("a key")?;
        let text = format!(
            "GET /v1/tenants/{TENANT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
        );
        raw::send(api, text.as_bytes()).await
    };
    for number in 1..=5 {
        let answer = ask(&made).await?;
        if answer.status != Some(200) {
            return Ok(format!("request {number}: {}", answer.told()));
        }
        ensure!(answer.header("ratelimit-policy") == Some("\"caller\";q=1;w=60"), "{answer:?}");
        ensure!(answer.header("ratelimit").is_some(), "{answer:?}");
    }
    let answer = ask(&made).await?;
    let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
    ensure!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{answer:?}");
    ensure!(answer.header("ratelimit").is_some_and(|left| left.contains("r=0;")), "{answer:?}");
    let others = if ask(&other).await?.status == Some(200) { "are not" } else { "are too" };
    Ok(format!("five are answered; {}, and other keys {others}", answer.told()))
}

/// Opens streams by the links of one user.
async fn streams(api: &Api) -> Result<String> {
    let link = async |user: &str| {
        let path = format!("/v1/tenants/{TENANT}/portal-links");
        let made = api.post(&path, &json!({ "user": user })).await?;
        made["token"].as_str().map(String::from).context("a link has a token")
    };
    let mut held = Vec::new();
    for _ in 0..4 {
        let (stream, answer) = open(api, &link("ada").await?).await?;
        if answer.status != Some(200) {
            return Ok(answer.told());
        }
        held.push(stream);
    }
    let one_more = format!(
        "GET /v1/tenants/{TENANT}/live HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        link("ada").await?
    );
    let refused = raw::send(api, one_more.as_bytes()).await?.told();
    let (_other, answer) = open(api, &link("grace").await?).await?;
    let has = if answer.status == Some(200) { "has theirs" } else { "has not" };
    Ok(format!("four are; {refused}, and another user {has}"))
}
