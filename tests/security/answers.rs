//! Answers of endpoints, and what they send in place of answers.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fanfare_domain::{EndpointId, fact::AttemptMade};
use fanfare_testkit::receiver::{Behaviour, Reply, tricks};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    names::told,
    raw,
    support::{EAGER, Service},
    table::{Family, Row, Seen},
    world::{World, new_endpoint},
};

const TENANT: &str = "answers";
const OTHERS: &str = "cookies";
/// How long an attempt may have taken. Its deadline is 2.5 s; a machine under load is late.
const LATE: Duration = Duration::from_secs(20);
/// How much is kept of an answer: its body, and its head.
const BODY_BYTES_MAX: usize = 16 << 10;
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How much memory all of it may cost the dispatcher, in bytes.
const MEMORY_MAX: u64 = 256 << 20;

const TIMED_OUT: &str = "timed_out";
const LOST: &str = "connection_lost";
const BROKEN: &str = "protocol_error";
const TLS: &str = "tls_failed";
const CERTIFICATE: &str = "certificate_invalid";
const ACCEPTED: &str = "accepted 200";

/// What must come of tricks, by their names.
const EXPECTED: [(&str, &[&str]); 16] = [
    (
        TIMED_OUT,
        &[
            "silence",
            "deafness",
            "slow-status",
            "slow-head",
            "slow-continues",
            "endless-continues",
            "endless-early-hints",
            "h2-silence",
            "h2-slow-head",
        ],
    ),
    (BROKEN, &["endless-header", "endless-headers", "endless-status-line"]),
    ("protocol_error or timed_out", &["endless-empty-lines"]),
    (
        ACCEPTED,
        &[
            "slow-body",
            "slow-announced-body",
            "slow-chunks",
            "close-in-body",
            "reset-in-body",
            "close-in-chunk",
            "gzip-bomb",
            "unknown-coding",
            "length-and-chunks",
            "second-answer",
            "early-hints",
            "huge-chunk-size",
            "chunk-size-of-words",
            "bare-line-feeds",
        ],
    ),
    ("refused 500", &["endless-refusal"]),
    ("refused 101", &["switching-protocols"]),
    ("refused 999", &["status-999"]),
    ("refused 503", &["retry-after-for-ever", "retry-after-negative"]),
    ("connection_lost or connect_failed", &["close-at-once", "reset-at-once", "reset-in-request"]),
    ("accepted 200 or connection_lost or protocol_error", &["answer-before-request"]),
    (CERTIFICATE, &["authority-unknown"]),
    ("certificate_invalid, and nothing is fetched", &[FETCHED]),
    (
        "timed_out or tls_failed",
        &["tls-silence", "tls-drip", "tls-endless-records", "tls-endless-alerts"],
    ),
    (
        "timed_out or protocol_error or connection_lost",
        &[
            "h2-settings",
            "h2-pings",
            "h2-unknown-frames",
            "h2-goaways",
            "h2-early-hints",
            "h2-windows",
        ],
    ),
    (
        "accepted 200 or protocol_error",
        &["h2-empty-data", "h2-endless-body", "h2-length-too-short"],
    ),
    ("accepted 200 or timed_out or connection_lost", &["h2-slow-body", "h2-reset-in-body"]),
];

/// What must come of the others, by how their names begin.
const BY_BEGINNING: [(&str, &str); 6] = [
    ("endless-", ACCEPTED),
    ("close-", LOST),
    ("reset-", LOST),
    ("certificate-", CERTIFICATE),
    ("tls-", TLS),
    ("h2-", "protocol_error or connection_lost"),
];

/// What must come of a trick.
fn expected(trick: &str) -> &'static str {
    let named = EXPECTED.iter().find(|(_, names)| names.contains(&trick));
    let begun = || BY_BEGINNING.iter().find(|(beginning, _)| trick.starts_with(beginning));
    named.map(|(expected, _)| *expected).or_else(|| begun().map(|it| it.1)).unwrap_or(BROKEN)
}

/// Answers that a well-behaved server gives on purpose.
fn replies(inside: &str) -> Vec<(&'static str, &'static str, Reply, &'static str)> {
    let to = |status| Reply::new(status).header("location", inside);
    let page = format!("<meta http-equiv=refresh content='0;url={inside}'>");
    let page = Reply::new(200).header("content-type", "text/html").body(page);
    let bytes: &[u8] = b"\x1b[31m\0\xff\xfe<script>alert(1)</script>=HYPERLINK(1)\r\nlevel=ERROR";
    vec![
        ("redirect-301", "301 to an address inside", to(301), "refused 301, once"),
        ("redirect-302", "302 to an address inside", to(302), "refused 302, once"),
        ("redirect-303", "303 to an address inside", to(303), "refused 303, once"),
        ("redirect-307", "307 to an address inside", to(307), "refused 307, once"),
        ("redirect-308", "308 to an address inside", to(308), "refused 308, once"),
        (
            "redirect-loop",
            "302 to itself",
            Reply::new(302).header("location", "/redirect-loop"),
            "refused 302, once",
        ),
        (
            "refresh",
            "a header Refresh",
            Reply::new(200).header("refresh", &format!("0;url={inside}")),
            "accepted 200, once",
        ),
        ("refreshing-page", "a page that refreshes itself", page, "accepted 200, once"),
        (
            "alt-svc",
            "a header Alt-Svc",
            Reply::new(200).header("alt-svc", "h2=\"127.0.0.2:443\"; ma=999"),
            "accepted 200, once",
        ),
        (
            "link",
            "a header Link",
            Reply::new(200).header("link", &format!("<{inside}>; rel=preload")),
            "accepted 200, once",
        ),
        (
            "cookie",
            "a cookie",
            Reply::new(200).header("set-cookie", "a=b; Path=/"),
            "accepted 200, once",
        ),
        (
            "bytes",
            "a body with escapes of a terminal, NUL, markup and what is not UTF-8",
            Reply::new(200).header("content-type", "text/html").body(bytes),
            "accepted 200, once, and shown as JSON that nobody guesses about",
        ),
    ]
}

/// A server that names itself as where a certificate is to be had.
const FETCHED: &str = "certificate-to-be-completed";
const ECHO: &str = "the request's own headers, among them a secret one";
const COOKIE_AGAIN: &str = "a cookie, and another request";
const MEMORY: &str = "all of these at once";
const SECRET: &str = "Bearer 7f3c9a51-not-for-the-journal";

pub(crate) fn family() -> Family {
    let trick = |trick: fanfare_testkit::receiver::Trick| {
        Row::named(trick.name, trick.what, expected(trick.name))
    };
    let mut rows: Vec<_> = tricks().into_iter().map(trick).collect();
    let reply = |(name, what, _, expected): (&str, &str, Reply, &str)| {
        let row = Row::named(name, &format!("answers with {what}"), expected);
        let advisory = "Grafana GHSA-9rrr-6fq2-4f99, Gitea CVE-2026-104636";
        match name {
            name if name.starts_with("redirect-") => row.of(advisory),
            "bytes" => row.of("Jenkins CVE-2022-25185"),
            _ => row,
        }
    };
    rows.extend(replies("http://127.0.0.2/").into_iter().map(reply));
    rows.push(Row::named(
        "echo",
        &format!("answers with {ECHO}"),
        "accepted 200, with *** in place of the secret",
    ));
    rows.push(Row::named(
        "cookie-again",
        &format!("answers with {COOKIE_AGAIN}"),
        "two requests without a cookie",
    ));
    rows.push(Row::named("memory", MEMORY, "less than 256 MiB more of memory").of("Outpost #975"));
    Family {
        title: "Answers",
        how: "Each endpoint does one of this to its only attempt. It ends within its deadline as one fact in the \
              journal; at most 16 KiB of a body and 8 KiB of a head are in it. A body that does not end, or that \
              breaks off, does not change what the status said.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, EAGER).await?;
    let inside = format!("http://{}/", world.sink.address());
    let mut endpoints = Vec::new();
    for (trick, server) in &world.hostile {
        let id = world.endpoint(TENANT, &server.url("/hook")).await?;
        endpoints.push((String::from(trick.name), id));
    }
    let mut replying = Vec::new();
    for (name, _, reply, _) in replies(&inside) {
        let path = format!("/{name}");
        world.receiver.answer_at(&path, Behaviour::Reply(reply));
        let id = world.endpoint(TENANT, &world.receiver.url(&path)).await?;
        replying.push((String::from(name), id));
    }
    let echoing = echoing(world).await?;
    let before = world.installation.memory(Service::Dispatcher)?;
    world.api().publish(TENANT, "a.b", "{}", "answers").await?;
    let judged = endpoints.into_iter().map(|(name, id)| async move {
        let made = only(world, id).await?;
        Ok::<_, anyhow::Error>((name, told(&made)))
    });
    let mut seen: Seen = try_join_all(judged).await?.into_iter().collect();
    let servers = world.hostile.iter().filter(|(trick, _)| trick.name == FETCHED);
    let connections: u64 = servers.map(|(_, server)| server.connections()).sum();
    if let Some(told) = seen.get_mut(FETCHED) {
        let fetched = if connections == 1 { "nothing is fetched" } else { "something is fetched" };
        *told = format!("{told}, and {fetched}");
    }
    let after = world.installation.memory(Service::Dispatcher)?;
    let more = after.saturating_sub(before);
    let told_of_it = if more < MEMORY_MAX { "less than 256 MiB more of memory" } else { "more" };
    seen.insert(String::from("memory"), String::from(told_of_it));
    for (name, id) in replying {
        let made = only(world, id).await?;
        seen.insert(name.clone(), replied(world, &name, &made).await?);
    }
    let made = only(world, echoing).await?;
    let body = String::from_utf8_lossy(&made.response_body);
    let hides = body.contains("authorization: ***") && !format!("{made:?}").contains("7f3c9a51");
    let echo = if hides { "with *** in place of the secret" } else { body.as_ref() };
    seen.insert(String::from("echo"), format!("{}, {echo}", told(&made)));
    seen.insert(String::from("cookie-again"), again(world).await?);
    Ok(seen)
}

/// An endpoint with a secret header that answers with the headers of its requests.
async fn echoing(world: &World) -> Result<EndpointId> {
    let echo = Behaviour::ask(|request| {
        let lines = request.headers.iter().map(|(name, value)| {
            format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
        });
        let authorization = request.header("authorization").unwrap_or_default();
        let reply = Reply::new(200).header("x-echo", authorization);
        Behaviour::Reply(reply.body(Bytes::from(lines.collect::<String>())))
    });
    world.receiver.answer_at("/echo", echo);
    let mut new = new_endpoint(&world.receiver.url("/echo"));
    new["headers"] = json!({ "Authorization": SECRET });
    Ok(world.api().endpoint(TENANT, &new).await?.id.parse()?)
}

/// Returns the only attempt, and checks what holds for all.
async fn only(world: &World, id: EndpointId) -> Result<AttemptMade> {
    let made = world.attempts(id, 1).await.into_iter().next().context("an attempt")?;
    ensure!(made.duration < LATE, "{} took {:?}", made.url, made.duration);
    ensure!(made.response_body.len() <= BODY_BYTES_MAX, "{}: too much of a body", made.url);
    let head = made.response_headers.iter().map(|(name, value)| name.len() + value.len());
    ensure!(head.sum::<usize>() <= HEAD_BYTES_MAX, "{}: too much of a head", made.url);
    Ok(made)
}

/// Says what came of an answer, and how many requests there were.
async fn replied(world: &World, name: &str, made: &AttemptMade) -> Result<String> {
    let path = format!("/{name}");
    let requests = world.receiver.requests();
    let count = requests.iter().filter(|request| request.path == path).count();
    let times = if count == 1 { String::from("once") } else { format!("{count} times") };
    let said = format!("{}, {times}", told(made));
    if name != "bytes" {
        return Ok(said);
    }
    let path = format!("/v1/tenants/{TENANT}/deliveries/{}/facts", made.delivery.id);
    let answer = raw::get(world.api(), &path).await?;
    let plain = answer.header("content-type") == Some("application/json")
        && answer.header("x-content-type-options") == Some("nosniff")
        && answer.body.iter().all(|byte| *byte >= b' ')
        && answer.text().contains("\\u001b[31m\\u0000");
    let shown = if plain { "shown as JSON that nobody guesses about" } else { "shown otherwise" };
    Ok(format!("{said}, and {shown}"))
}

/// Sends another event where the first was answered with a cookie.
async fn again(world: &World) -> Result<String> {
    let reply = Reply::new(200).header("set-cookie", "session=stolen; Path=/");
    world.receiver.answer_at("/cookie-again", Behaviour::Reply(reply));
    let mut new = new_endpoint(&world.receiver.url("/cookie-again"));
    new["event_types"] = json!(["cookie.again"]);
    world.api().tenant(OTHERS, EAGER).await?;
    let id = world.api().endpoint(OTHERS, &new).await?.id.parse()?;
    for count in 1..=2 {
        let key = format!("cookie-{count}");
        world.api().publish(OTHERS, "cookie.again", "{}", &key).await?;
        world.attempts(id, count).await;
    }
    let requests = world.receiver.requests();
    let requests = requests.iter().filter(|request| request.path == "/cookie-again");
    let cookies: Vec<_> = requests.map(|request| request.header("cookie")).collect();
    Ok(match cookies.as_slice() {
        [None, None] => String::from("two requests without a cookie"),
        other => format!("{other:?}"),
    })
}
