//! Signatures: what a receiver is shown and takes, and which secrets sign what an endpoint is sent.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::{receiver::Received, wait_until};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    support::{EAGER, api::text, binary},
    table::{Family, Row, Seen},
    world::{World, new_endpoint},
};

const TENANT: &str = "signatures";
const PATH: &str = "/signed";
const PATIENCE: Duration = Duration::from_mins(1);

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const BODY: &str = r#"{"type":"a.b","data":{"number":7}}"#;

const IN_TIME: &str = "verified, in time";
const LATE: &str = "verified, but not in time";
const REFUSED: &str = "refused";

const OVERLAPS: &str = "a secret that was changed, while the old one is good for an hour";
const ENDED: &str =
    "a secret that was changed, when the second is over for which the old ones were good";
const AT_ONCE: &str = "a secret that was changed, with an old one that is good no longer";
const BOTH: &str = "signed by the new one and the old one, and by no other";
const NEWEST: &str = "signed by the new one alone, from then on";

/// A request that somebody shows a receiver.
struct Shown {
    id: String,
    timestamp: String,
    signatures: Option<String>,
    body: String,
}

/// What is done to a request that is right.
type Change = fn(&mut Shown) -> Result<()>;

/// Requests, what must come of them, and what is done to one that is right.
const SHOWN: [(&str, &str, Change); 22] = [
    ("a request that is right", IN_TIME, |_| Ok(())),
    ("the same, four and a half minutes later", IN_TIME, |it| it.sign(-270, SECRET)),
    ("the same, more than five minutes later", LATE, |it| it.sign(-301, SECRET)),
    ("one that is signed four and a half minutes from now", IN_TIME, |it| it.sign(270, SECRET)),
    ("one that is signed six minutes from now", LATE, |it| it.sign(360, SECRET)),
    ("the signature of another secret", REFUSED, |it| it.sign(0, OTHER)),
    ("the version v0 in place of v1", REFUSED, |it| it.change(|all| all.replace("v1,", "v0,"))),
    ("the version of Ed25519 in place of v1", REFUSED, |it| {
        it.change(|all| all.replace("v1,", "v1a,"))
    }),
    ("the version in upper case", REFUSED, |it| it.change(|all| all.replace("v1,", "V1,"))),
    ("no version", REFUSED, |it| it.change(|all| all.replace("v1,", ""))),
    ("no bytes behind the version", REFUSED, |it| it.change(|_| String::from("v1,"))),
    ("an empty list of signatures", REFUSED, |it| it.change(|_| String::new())),
    ("no list of signatures", REFUSED, |it| {
        it.signatures = None;
        Ok(())
    }),
    ("a signature without its last symbol", REFUSED, |it| {
        it.change(|all| String::from(all.get(..all.len() - 1).unwrap_or_default()))
    }),
    ("a signature with another symbol behind it", REFUSED, |it| it.change(|all| format!("{all}="))),
    ("signatures with commas between", REFUSED, |it| it.change(|all| format!("{all},{all}"))),
    ("100 signatures, and none is right", REFUSED, |it| {
        let wrong = Webhook::new(OTHER)?.sign(&it.id, it.timestamp.parse()?, BODY.as_bytes())?;
        it.change(|_| vec![wrong; 100].join(" "))
    }),
    ("100 signatures, and the last one is right", IN_TIME, |it| {
        let wrong = Webhook::new(OTHER)?.sign(&it.id, it.timestamp.parse()?, BODY.as_bytes())?;
        it.change(|right| format!("{} {right}", vec![wrong; 99].join(" ")))
    }),
    ("another body", REFUSED, |it| {
        it.body = it.body.replace('7', "8");
        Ok(())
    }),
    ("another id", REFUSED, |it| {
        it.id.push('x');
        Ok(())
    }),
    ("another time", REFUSED, |it| {
        it.timestamp = (it.timestamp.parse::<i64>()? + 1).to_string();
        Ok(())
    }),
    ("no time", REFUSED, |it| {
        it.timestamp = String::new();
        Ok(())
    }),
];

pub(crate) fn family() -> Family {
    let mut rows: Vec<_> =
        SHOWN.iter().map(|(name, expected, _)| Row::new(name, expected)).collect();
    rows.push(Row::new(OVERLAPS, BOTH));
    rows.push(Row::new(ENDED, NEWEST));
    rows.push(Row::new(AT_ONCE, NEWEST));
    Family {
        title: "Signatures",
        how: "Shown to our own receiver (`fanfare listen`), which knows the secret; it says whether a signature is \
              right, and whether it was made within five minutes of its arrival. And what the dispatcher signs with \
              while an endpoint's secret is changed.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    let mut seen = Seen::new();
    let mut listener = Listener::start().await?;
    for (name, _, change) in SHOWN {
        let mut shown = Shown::right()?;
        change(&mut shown)?;
        seen.insert(String::from(name), listener.told(&shown).await?);
    }
    rotated(world, &mut seen).await?;
    Ok(seen)
}

impl Shown {
    fn right() -> Result<Self> {
        let mut shown = Self {
            id: String::from("msg_p5jXN8AQM9LWM0D4loKWxJek"),
            timestamp: String::new(),
            signatures: None,
            body: String::from(BODY),
        };
        shown.sign(0, SECRET)?;
        Ok(shown)
    }

    /// Signs it, as of so many seconds from now.
    fn sign(&mut self, seconds: i64, secret: &str) -> Result<()> {
        let now = i64::try_from(SystemClock.now().as_millis() / 1_000)?;
        let at = now + seconds;
        let signature = Webhook::new(secret)?.sign(&self.id, at, self.body.as_bytes())?;
        (self.timestamp, self.signatures) = (at.to_string(), Some(signature));
        Ok(())
    }

    /// Writes other signatures in place of its own.
    fn change(&mut self, change: impl FnOnce(&str) -> String) -> Result<()> {
        let signatures = self.signatures.take().context("it is signed")?;
        self.signatures = Some(change(&signatures));
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { id, timestamp, signatures, body } = self;
        let line = |name: &str, value: &str| format!("{name}: {value}\r\n");
        let at = Some(timestamp).filter(|text| !text.is_empty());
        let at = at.map(|text| line("webhook-timestamp", text)).unwrap_or_default();
        let signed = signatures.as_ref().map(|text| line("webhook-signature", text));
        let (id, length) =
            (line("webhook-id", id), line("content-length", &body.len().to_string()));
        let own = [id, at, signed.unwrap_or_default(), length].concat();
        format!("POST / HTTP/1.1\r\nhost: a\r\n{own}connection: close\r\n\r\n{body}").into_bytes()
    }
}

/// A running `fanfare listen`.
struct Listener {
    address: String,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Listener {
    async fn start() -> Result<Self> {
        let mut command = Command::new(binary::fanfare().await?);
        command.args(["--json", "listen", "--no-register", "--secret", SECRET]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("start a receiver")?;
        let lines = BufReader::new(child.stdout.take().context("what it says")?).lines();
        let mut listener = Self { address: String::new(), lines, _child: child };
        let url = text(&listener.next().await?, "listening")?;
        let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
        listener.address = String::from(address.context("it says where it listens")?);
        Ok(listener)
    }

    async fn next(&mut self) -> Result<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.context("a line")??;
        Ok(serde_json::from_str(&line.context("it has ended")?)?)
    }

    /// Shows it a request; returns what it says of that.
    async fn told(&mut self, shown: &Shown) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address).await.context("connect")?;
        stream.write_all(&shown.bytes()).await.context("show a request")?;
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.context("an answer")??;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        let said = self.next().await?;
        Ok(match (said["signature"].as_str(), said["timely"].as_bool()) {
            (Some("verified"), Some(true)) => String::from(IN_TIME),
            (Some("verified"), Some(false)) => String::from(LATE),
            (Some("refused"), _) => String::from(REFUSED),
            _ => said.to_string(),
        })
    }
}

/// Changes an endpoint's secret, and looks at what signs.
async fn rotated(world: &World, seen: &mut Seen) -> Result<()> {
    let api = world.api();
    api.tenant(TENANT, EAGER).await?;
    let made = api.endpoint(TENANT, &new_endpoint(&world.receiver.url(PATH))).await?;
    let mut secrets = vec![made.secret.clone()];
    for (name, overlap, good) in [(OVERLAPS, 3_600, 2), (ENDED, 1, 1), (AT_ONCE, 0, 1)] {
        let body = json!({ "overlap_s": overlap });
        let changed = api.act(TENANT, &made.id, "rotate-secret", &body).await?;
        secrets.insert(0, text(&changed, "secret")?);
        let wanted: Vec<_> = (0..good).map(Some).collect();
        wait_until("requests to be signed by the secrets that are good", async || {
            let signers = sent(world, &secrets).await.map_err(|error| format!("{error:#}"))?;
            if signers == wanted { Ok(()) } else { Err(format!("{signers:?}")) }
        })
        .await;
        let mut told = if good == 2 { BOTH } else { NEWEST };
        for _ in 0..3 {
            if sent(world, &secrets).await? != wanted {
                told = "signed by others again";
            }
        }
        seen.insert(String::from(name), String::from(told));
    }
    Ok(())
}

/// Has an event sent; returns which of the secrets have signed it, in the order of the signatures:
/// none for a signature by none of them.
async fn sent(world: &World, secrets: &[String]) -> Result<Vec<Option<usize>>> {
    let own = || -> Vec<Arc<Received>> {
        let requests = world.receiver.requests().into_iter();
        requests.filter(|request| request.path == PATH).collect()
    };
    let before = own().len();
    world.api().publish(TENANT, "a.b", "{}", &format!("signed-{before}")).await?;
    let request =
        wait_until("the next request", async || own().get(before).map(Arc::clone).ok_or(before))
            .await;
    let header = |name: &str| request.header(name).context("a header");
    let (id, at) = (header("webhook-id")?, header("webhook-timestamp")?.parse()?);
    let sign = |secret: &String| Ok(Webhook::new(secret)?.sign(id, at, &request.body)?);
    let known = secrets.iter().map(sign).collect::<Result<Vec<String>>>()?;
    let signatures = header("webhook-signature")?.split(' ');
    Ok(signatures.map(|signature| known.iter().position(|own| own == signature)).collect())
}
