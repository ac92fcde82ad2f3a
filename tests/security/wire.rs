//! Requests to the API as no honest client writes them.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, interval},
};

use crate::{
    raw,
    table::{Family, Row, Seen},
    world::World,
};

const TENANT: &str = "wire";
/// How long who sends slowly may be borne with: twice what the API says, on a machine under load.
const PATIENCE: Duration = Duration::from_mins(1);
const SLOWLY: Duration = Duration::from_millis(200);

/// The second request of a pair: if it is answered, a body was taken for a request.
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";

/// Bytes for a connection, with what must come back. `{auth}` stands for a valid key.
const REQUESTS: [(&str, &str, &str); 25] = [
    (
        "both a length and chunks, and a request hidden behind them",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-type: application/json\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "chunks and a length, the other way round",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-type: application/json\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "the transfer coding xchunked",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "the transfer coding chunked, identity",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "a transfer coding with a space before its colon",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}transfer-encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "chunks in HTTP/1.0",
        "POST {path} HTTP/1.0\r\nhost: a\r\n{auth}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "two lengths that differ",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "a length with a plus",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-length: +5\r\n\r\nabcde{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "a negative length",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-length: -1\r\n\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "two lengths in one header",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-length: 5, 6\r\n\r\nabcdef{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "a length of 2^70",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-length: 1180591620717411303424\r\n\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "a chunk that ends with a line feed alone",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\n{}\n0\n\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "a chunk's size that is none",
        "POST {path} HTTP/1.1\r\nhost: a\r\n{auth}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n{smuggled}",
        "one answer: 400, and closed",
    ),
    (
        "a header over two lines",
        "GET /healthz HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
        "one answer: 400, and closed",
    ),
    (
        "a header's name with NUL",
        "GET /healthz HTTP/1.1\r\nhost: a\r\nx\0y: a\r\n\r\n",
        "one answer: 400, and closed",
    ),
    (
        "a header's value with NUL",
        "GET /healthz HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        "one answer: 400, and closed",
    ),
    (
        "a header without a colon",
        "GET /healthz HTTP/1.1\r\nhost: a\r\nabc\r\n\r\n",
        "one answer: 400, and closed",
    ),
    (
        "a version that there is not",
        "GET /healthz HTTP/9.9\r\nhost: a\r\n\r\n",
        "one answer: 400, and closed",
    ),
    (
        "a method with a space",
        "GE T /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
        "one answer: 400, and closed",
    ),
    (
        "the beginning of a TLS handshake",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n",
        "one answer: 400, and closed",
    ),
    ("the beginning of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "closed"),
    (
        "a method that there is not",
        "EVIL /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "one answer: 405, and closed",
    ),
    (
        "a proxy's request for somewhere else",
        "GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nhost: 169.254.169.254\r\nconnection: close\r\n\r\n",
        "one answer: 404, and closed",
    ),
    (
        "a tunnel to somewhere else",
        "CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: 169.254.169.254:80\r\nconnection: close\r\n\r\n",
        "one answer: 404, and closed",
    ),
    (
        "a path that leads up",
        "GET /v1/tenants/../../metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "one answer: 404, and closed",
    ),
];

const HEAD: &str = "a head of a mebibyte";
const HEADERS: &str = "10,000 headers";
const TARGET: &str = "a path of 100 KiB";
const SLOW_HEAD: &str = "a head a byte at a time, without end";
const SLOW_BODY: &str = "a body a byte at a time";
const IDLE: &str = "nothing at all";
const OTHERS: &str = "somebody else's request, while these go on";

pub(crate) fn family() -> Family {
    let mut rows: Vec<_> =
        REQUESTS.iter().map(|(name, _, expected)| Row::new(name, expected)).collect();
    rows.push(Row::new(HEAD, "one answer: 431, and closed or closed"));
    rows.push(Row::new(HEADERS, "one answer: 431, and closed or closed"));
    rows.push(Row::new(
        TARGET,
        "one answer: 414, and closed or one answer: 431, and closed or closed",
    ));
    rows.push(Row::new(SLOW_HEAD, "given up within a minute"));
    rows.push(Row::new(SLOW_BODY, "one answer: 408, and closed"));
    rows.push(Row::new(IDLE, "given up within a minute"));
    rows.push(Row::new(OTHERS, "answered at once"));
    Family {
        title: "Requests to the API, byte for byte",
        how: "Written to its socket. A request that can be read in two ways is answered once, and the connection \
              closed: what hides behind it is not taken for another.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, "standard-webhooks").await?;
    let path = format!("/v1/tenants/{TENANT}/events");
    let auth = format!("authorization: Bearer {}\r\n", world.api().key());
    let written = REQUESTS.map(|(name, text, _)| {
        let text = text.replace("{path}", &path).replace("{auth}", &auth);
        let text = text.replace("{smuggled}", SMUGGLED);
        async move { Ok::<_, anyhow::Error>((name, once(world, text.as_bytes()).await?)) }
    });
    let large = [
        (HEAD, format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(1 << 20))),
        (HEADERS, format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: a\r\n".repeat(10_000))),
        (TARGET, format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100 << 10))),
    ];
    let large = large.map(|(name, text)| async move {
        Ok::<_, anyhow::Error>((name, once(world, text.as_bytes()).await?))
    });
    let slow = async {
        let head = slowly(world, b"GET /healthz HTTP/1.1\r\nhost: a\r\n", b"x: a\r\n");
        let begun = raw::request(
            world.api(),
            "POST",
            &path,
            "content-type: application/json\r\n",
            &[b' '; 4_000],
        );
        let begun = begun.get(..begun.len() - 4_000).unwrap_or_default().to_vec();
        let body = slowly(world, &begun, b" ");
        let idle = slowly(world, b"", b"");
        let others = async {
            let begun = Instant::now();
            let answer = raw::get(world.api(), "/healthz").await?;
            let at_once = answer.status == Some(200) && begun.elapsed() < Duration::from_secs(8);
            Ok(if at_once { String::from("answered at once") } else { answer.told() })
        };
        let (head, body, idle, others) = tokio::try_join!(head, body, idle, others)?;
        let given_up = |told: String| match told.as_str() {
            "closed" | "one answer: 408, and closed" => String::from("given up within a minute"),
            _ => told,
        };
        Ok(vec![
            (SLOW_HEAD, given_up(head)),
            (SLOW_BODY, body),
            (IDLE, given_up(idle)),
            (OTHERS, others),
        ])
    };
    let (written, large, slow) =
        tokio::try_join!(try_join_all(written), try_join_all(large), slow)?;
    let all = written.into_iter().chain(large).chain(slow);
    Ok(all.map(|(name, told)| (String::from(name), told)).collect())
}

async fn once(world: &World, bytes: &[u8]) -> Result<String> {
    Ok(told(&raw::send(world.api(), bytes).await?))
}

fn told(answer: &raw::Answer) -> String {
    match (answer.count(), answer.status) {
        (0, _) | (_, None) => String::from("closed"),
        (1, Some(status)) => format!("one answer: {status}, and closed"),
        (count, Some(status)) => format!("{count} answers: {status} first"),
    }
}

/// Writes what begins a request, and then this again and again, until the connection ends.
async fn slowly(world: &World, first: &[u8], again: &[u8]) -> Result<String> {
    let mut stream = raw::connect(world.api()).await?;
    stream.write_all(first).await?;
    let (mut reading, mut writing) = stream.split();
    let write = async {
        let mut ticks = interval(SLOWLY);
        loop {
            ticks.tick().await;
            if writing.write_all(again).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let read = async {
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut bytes).await.ok();
        bytes
    };
    let bytes = tokio::select! {
        () = write => Vec::new(),
        bytes = tokio::time::timeout(PATIENCE, read) => bytes?,
    };
    Ok(told(&raw::Answer::read(&bytes)))
}
