//! Headers that a tenant gives an endpoint.

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::{
    table::{Family, Row, Seen},
    world::{World, new_endpoint, told},
};

const TENANT: &str = "headers";
const REFUSED: &str = "400 value_invalid";

/// Names and values that are refused.
const PAIRS: [(&str, &str); 48] = [
    ("x: a", "b"),
    ("x", "a\r\nHost: evil"),
    ("x", "a\nHost: evil"),
    ("x", "a\rHost: evil"),
    ("x", "a\0b"),
    ("x", "a\r\n b"),
    ("x", " a"),
    ("x", "a "),
    ("x", "a\tb"),
    ("x", "é"),
    ("x", "a\u{7f}"),
    ("x", "a\u{85}b"),
    ("x\r\nHost", "a"),
    ("x\n", "a"),
    ("x\0", "a"),
    ("x y", "a"),
    ("", "a"),
    ("ñame", "a"),
    ("x\u{ff1a}", "a"),
    (":authority", "a"),
    (":path", "/"),
    ("Host", "evil"),
    ("Content-Length", "0"),
    ("Content-Type", "text/html"),
    ("Content-Encoding", "gzip"),
    ("Transfer-Encoding", "chunked"),
    ("Connection", "upgrade"),
    ("TE", "trailers"),
    ("Trailer", "x"),
    ("Upgrade", "h2c"),
    ("HTTP2-Settings", "AAMAAABk"),
    ("Keep-Alive", "timeout=5"),
    ("Expect", "100-continue"),
    ("Proxy-Authorization", "Basic eDp5"),
    ("Proxy-Connection", "keep-alive"),
    ("Max-Forwards", "1"),
    ("Via", "1.1 x"),
    ("Range", "bytes=0-1"),
    ("Accept-Encoding", "gzip"),
    ("webhook-id", "a"),
    ("webhook-timestamp", "1"),
    ("webhook-signature", "v1,a"),
    ("WEBHOOK-SIGNATURE", "v1,a"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "a=b"),
    ("x{{event.id}}", "a"),
    ("x(y)", "a"),
    ("x,y", "a"),
];

/// Names that mean something to the log's servers, and nothing to anybody else.
const OF_THE_LOG: [&str; 6] = [
    "Nats-Rollup",
    "Nats-Schedule",
    "Nats-TTL",
    "Nats-Msg-Id",
    "Nats-Expected-Stream",
    "Nats-Trace-Dest",
];

/// The value that is looked for.
const NEEDLE: &str = "all-of-a-header-of-the-endpoint";

fn name(pair: &(&str, &str)) -> String {
    format!("{}: {}", pair.0, pair.1)
}

pub(crate) fn family() -> Family {
    let mut rows: Vec<_> =
        PAIRS.iter().map(|pair| Row::new(&name(pair), REFUSED).of(advisory(pair))).collect();
    rows.push(Row::new("64 headers", REFUSED));
    rows.push(Row::new("a value of 8 KiB", REFUSED));
    rows.push(Row::new("a name of 200 bytes", REFUSED));
    rows.push(Row::new("four headers of 4 KiB", REFUSED));
    rows.push(Row::new("X-A and x-a", REFUSED));
    for of_the_log in OF_THE_LOG {
        rows.push(Row::new(&format!("{of_the_log}: all"), "taken, and in no message's head"));
    }
    Family {
        title: "Headers of endpoints",
        how: "Given to the API for a new endpoint and for one that there is, in JSON.",
        rows,
    }
}

const fn advisory(pair: &(&str, &str)) -> &'static str {
    match pair.0.as_bytes() {
        [b'x', b':' | b'\r', ..] | [b'x', b'\n'] => "GitLab #550766",
        _ => "",
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, "standard-webhooks").await?;
    let base = world.strict.endpoint(TENANT, &new_endpoint("https://example.com/")).await?;
    let path = format!("/v1/tenants/{TENANT}/endpoints/{}", base.id);
    let mut all: Vec<_> =
        PAIRS.iter().map(|pair| (name(pair), json!({ pair.0: pair.1 }))).collect();
    let long = "a".repeat(4 << 10);
    let many = (0..64).map(|n| (format!("x-{n}"), json!("a"))).collect::<serde_json::Map<_, _>>();
    all.push((String::from("64 headers"), many.into()));
    all.push((String::from("a value of 8 KiB"), json!({ "x": "a".repeat(8 << 10) })));
    all.push((String::from("a name of 200 bytes"), json!({ "x".repeat(200): "a" })));
    all.push((
        String::from("four headers of 4 KiB"),
        json!({ "a": long, "b": long, "c": long, "d": long }),
    ));
    all.push((String::from("X-A and x-a"), json!({ "X-A": "1", "x-a": "2" })));
    let tried = stream::iter(all).map(|(name, headers)| {
        let path = path.clone();
        async move {
            let mut new = new_endpoint("https://example.com/");
            new["headers"] = headers.clone();
            let made = told(world.strict.endpoint(TENANT, &new).await)?;
            let changed = told(world.strict.patch(&path, &json!({ "headers": headers })).await)?;
            let same = if made == changed { made } else { format!("{made}, then {changed}") };
            Ok::<_, anyhow::Error>((name, same))
        }
    });
    let mut seen: Seen = tried.buffer_unordered(4).try_collect().await?;
    of_the_log(world, &mut seen).await?;
    Ok(seen)
}

/// Makes endpoints with headers of the log's, and looks for them in all messages.
async fn of_the_log(world: &World, seen: &mut Seen) -> Result<()> {
    let mut made = Vec::new();
    for name in OF_THE_LOG {
        let mut new = new_endpoint("https://example.com/");
        new["headers"] = json!({ name: NEEDLE });
        made.push((name, told(world.strict.endpoint(TENANT, &new).await)?));
    }
    let everything = world.installation.server().everything().await?;
    let holds = |text: &[u8]| text.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes());
    let found = everything.iter().any(|message| message.texts().any(holds));
    let place = if found { "in a message in the clear" } else { "in no message's head" };
    for (name, made) in made {
        seen.insert(format!("{name}: all"), format!("{made}, and {place}"));
    }
    Ok(())
}
