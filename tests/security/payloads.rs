//! Events that producers publish.

use anyhow::Result;

use crate::{
    raw,
    table::{Family, Row, Seen},
    world::World,
};

const TENANT: &str = "payloads";

const MALFORMED: &str = "400 body_malformed";
const INVALID: &str = "400 value_invalid";
const REFUSED: &str = "422 event_refused";
const TAKEN: &str = "202";

/// Bodies that are larger are not sent.
const UNSENT: usize = 4 << 20;

/// An event's body, whole.
struct Payload {
    name: &'static str,
    headers: &'static str,
    body: Vec<u8>,
    expected: &'static str,
}

const JSON: &str = "content-type: application/json\r\n";

fn body(name: &'static str, body: impl Into<Vec<u8>>, expected: &'static str) -> Payload {
    Payload { name, headers: JSON, body: body.into(), expected }
}

/// An event with this data.
fn data(name: &'static str, data: impl AsRef<[u8]>, expected: &'static str) -> Payload {
    let whole = [br#"{"type":"a.b","data":"#, data.as_ref(), b"}"].concat();
    Payload { name, headers: JSON, body: whole, expected }
}

/// An event of this type, as JSON has it.
fn of_type(name: &'static str, text: &str, expected: &'static str) -> Payload {
    body(name, format!(r#"{{"type":"{text}","data":1}}"#), expected)
}

fn with(name: &'static str, headers: &'static str, expected: &'static str) -> Payload {
    Payload { name, headers, body: br#"{"type":"a.b","data":1}"#.to_vec(), expected }
}

fn member(name: &'static str, member: &str, expected: &'static str) -> Payload {
    body(name, format!(r#"{{"type":"a.b","data":1,{member}}}"#), expected)
}

fn payloads() -> Vec<Payload> {
    let mut all = of_json();
    all.extend(of_types());
    all.extend(around());
    all.extend(said_beside());
    all
}

fn of_json() -> Vec<Payload> {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        body("an empty body", "", MALFORMED),
        body("a body that is no JSON", "type=a.b", MALFORMED),
        body("JSON that is cut off", r#"{"type":"a.b","data":{"a""#, MALFORMED),
        body("two JSON values", r#"{"type":"a.b","data":1}{"type":"a.b","data":2}"#, MALFORMED),
        body("an array in place of an event", r#"[{"type":"a.b","data":1}]"#, MALFORMED),
        body(
            "a member that nobody knows",
            r#"{"type":"a.b","data":1,"tenant":"other"}"#,
            MALFORMED,
        ),
        body("a member twice", r#"{"type":"a.b","data":1,"data":2}"#, MALFORMED),
        body("no type", r#"{"data":1}"#, MALFORMED),
        body("no data", r#"{"type":"a.b"}"#, MALFORMED),
        body("a byte-order mark", b"\xef\xbb\xbf{\"type\":\"a.b\",\"data\":1}", MALFORMED),
        body("UTF-16", b"{\0\"\0t\0", MALFORMED),
        data("bytes that are not UTF-8", b"\"\xff\xfe\"", MALFORMED),
        data("overlong UTF-8", b"\"\xc0\xaf\"", MALFORMED),
        data("a surrogate as UTF-8", b"\"\xed\xa0\x80\"", MALFORMED),
        data("a NUL byte", b"\"\0\"", MALFORMED),
        data("a line's end in a string", b"\"a\nb\"", MALFORMED),
        data(
            "10,000 arrays in each other",
            nested(10_000),
            "400 body_malformed or 422 event_refused",
        ),
        data("200 arrays in each other", nested(200), "400 body_malformed or 422 event_refused"),
        data("a key twice", r#"{"a":1,"a":2}"#, REFUSED),
        data("a key twice, once escaped", r#"{"a":1,"\u0061":2}"#, REFUSED),
        data(
            "a lone surrogate, escaped",
            r#""\ud800""#,
            "400 body_malformed or 422 event_refused or 202",
        ),
        data("NaN", "NaN", MALFORMED),
        data("a number with a leading zero", "01", MALFORMED),
        data("a number in hexadecimal", "0x1", MALFORMED),
        data("a comment", "1/*2*/", MALFORMED),
        data("a comma too many", "[1,]", MALFORMED),
        data("1e400, kept as it is", "1e400", TAKEN),
        data("a number of 1,000 digits, kept as it is", "9".repeat(1_000), TAKEN),
        data("data of 600 KiB", format!("\"{}\"", "a".repeat(600 << 10)), "413 body_too_large"),
        data("a body of 5 MiB", format!("\"{}\"", "a".repeat(5 << 20)), "413 body_too_large"),
    ]
}

fn of_types() -> Vec<Payload> {
    let long = "a".repeat(300);
    vec![
        of_type("the type *", "*", INVALID),
        of_type("the type >", ">", INVALID),
        of_type("the type a.>", "a.>", INVALID),
        of_type("the type a.*.b", "a.*.b", INVALID),
        of_type("a type with a space", "a b", INVALID),
        of_type("a type with a line's end", "a\\r\\nb", INVALID),
        of_type("the type $JS.API", "$JS.API.STREAM.DELETE", INVALID),
        of_type("a type that begins with a dot", ".a", INVALID),
        of_type("a type with an empty word", "a..b", INVALID),
        of_type("the type ../../other", "../../other", INVALID),
        of_type("a type with NUL", "a\\u0000b", INVALID),
        of_type("a type that is not ASCII", "é", INVALID),
        of_type("a type with markup", "<script>", INVALID),
        of_type("a type of 300 bytes", &long, INVALID),
        of_type("an empty type", "", INVALID),
    ]
}

fn around() -> Vec<Payload> {
    vec![
        with("text/plain", "content-type: text/plain\r\n", "415 media_type_unsupported"),
        with(
            "a form's content type",
            "content-type: application/x-www-form-urlencoded\r\n",
            "415 media_type_unsupported",
        ),
        with(
            "application/jsonp",
            "content-type: application/jsonp\r\n",
            "415 media_type_unsupported",
        ),
        with("no content type", "", "415 media_type_unsupported"),
        Payload {
            name: "a gzip of ten mebibytes that would be ten gibibytes",
            headers: "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            body: vec![0; 10 << 20],
            expected: "413 body_too_large",
        },
        Payload {
            name: "a small body that says it is a gzip",
            headers: "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            body: br#"{"type":"a.b","data":1}"#.to_vec(),
            expected: "415 media_type_unsupported",
        },
    ]
}

fn said_beside() -> Vec<Payload> {
    let long = "k".repeat(64 << 10);
    let many: Vec<_> = (0..33).map(|n| format!(r#""a{n}":"b""#)).collect();
    vec![
        with(
            "an idempotency key with a control character",
            "content-type: application/json\r\nidempotency-key: a\tb\r\n",
            INVALID,
        ),
        with(
            "an empty idempotency key",
            "content-type: application/json\r\nidempotency-key: \r\n",
            INVALID,
        ),
        with(
            "an idempotency key that is not ASCII",
            "content-type: application/json\r\nidempotency-key: \u{e9}\r\n",
            INVALID,
        ),
        member("an idempotency key of 64 KiB", &format!(r#""idempotency_key":"{long}""#), INVALID),
        member("an ordering key of 64 KiB", &format!(r#""ordering_key":"{long}""#), INVALID),
        member(
            "an ordering key with a line's end",
            r#""ordering_key":"a\r\nNats-Rollup: all""#,
            INVALID,
        ),
        member("a time that is none", r#""occurred_at":"yesterday""#, INVALID),
        member(
            "an attribute's name with a line's end",
            r#""attributes":{"a\r\nNats-Rollup":"all"}"#,
            INVALID,
        ),
        member(
            "an attribute's value with a line's end",
            r#""attributes":{"a":"b\r\nNats-Rollup: all"}"#,
            INVALID,
        ),
        member("33 attributes", &format!(r#""attributes":{{{}}}"#, many.join(",")), INVALID),
        with(
            "a traceparent that is none",
            "content-type: application/json\r\ntraceparent: 00-zz\r\n",
            TAKEN,
        ),
        with(
            "headers of the log's servers",
            "content-type: application/json\r\nnats-rollup: all\r\nnats-ttl: 1\r\nnats-msg-id: a\r\nnats-expected-stream: b\r\n",
            TAKEN,
        ),
        with(
            "another host's name",
            "content-type: application/json\r\nx-forwarded-host: evil\r\nx-original-url: /v1/keys\r\n",
            TAKEN,
        ),
    ]
}

pub(crate) fn family() -> Family {
    let row = |payload: Payload| Row::new(payload.name, payload.expected);
    Family {
        title: "Events",
        how: "Published by HTTP. What is taken is kept byte for byte; what is not is refused as a whole.",
        rows: payloads().into_iter().map(row).collect(),
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, "standard-webhooks").await?;
    let path = format!("/v1/tenants/{TENANT}/events");
    let mut seen = Seen::new();
    // What is too large is refused before it is read: its body is not even sent.
    for payload in payloads() {
        let bytes = raw::request(world.api(), "POST", &path, payload.headers, &payload.body);
        let answer = if payload.body.len() > UNSENT {
            raw::announce(world.api(), &bytes).await?
        } else {
            raw::send(world.api(), &bytes).await?
        };
        seen.insert(String::from(payload.name), answer.told());
    }
    Ok(seen)
}
