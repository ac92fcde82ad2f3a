//! Whether a server that was started can be used yet.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::Version;

/// How long one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How far a server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It listens nowhere yet: it may be recovering its store.
    NotListening,
    /// It listens, but does not greet clients.
    NotGreeting,
    /// It greets clients, but JetStream is not up.
    NoJetStream,
}

/// A server that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) client: SocketAddr,
    pub(crate) monitor: SocketAddr,
    pub(crate) version: Version,
}

/// What a server writes when it listens.
#[derive(Deserialize)]
struct PortsFile {
    nats: Vec<String>,
    monitoring: Vec<String>,
}

/// The parts that concern us of what a server says to each new client.
#[derive(Deserialize)]
struct Greeting {
    version: String,
    #[serde(default)]
    jetstream: bool,
}

/// Looks whether the server with process id `pid` can be used.
pub(crate) async fn look(ports: &Path, pid: u32) -> Result<Ready, Stage> {
    let file = ports.join(format!("nats-server_{pid}.ports"));
    let text = fs::read_to_string(file).map_err(|_| Stage::NotListening)?;
    // The file may be half written.
    let ports: PortsFile = serde_json::from_str(&text).map_err(|_| Stage::NotListening)?;
    let client = address(&ports.nats).ok_or(Stage::NotListening)?;
    let monitor = address(&ports.monitoring).ok_or(Stage::NotListening)?;
    let line = timeout(QUESTION_TIMEOUT, first_line(client)).await.ok().flatten();
    let (version, jetstream) = line.as_deref().and_then(greeting).ok_or(Stage::NotGreeting)?;
    if !jetstream || !is_healthy(monitor).await {
        return Err(Stage::NoJetStream);
    }
    Ok(Ready { client, monitor, version })
}

/// Reads the address out of the first of `nats://127.0.0.1:4222` and the like.
fn address(urls: &[String]) -> Option<SocketAddr> {
    let (_, address) = urls.first()?.split_once("://")?;
    address.parse().ok()
}

async fn first_line(address: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect(address).await.ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line).await.ok()?;
    Some(line)
}

fn greeting(line: &str) -> Option<(Version, bool)> {
    let greeting: Greeting = serde_json::from_str(line.strip_prefix("INFO ")?).ok()?;
    Some((Version::parse(&greeting.version)?, greeting.jetstream))
}

/// Asks whether JetStream is enabled. The health of single streams is their users' affair.
async fn is_healthy(monitor: SocketAddr) -> bool {
    ask_health(monitor, "/healthz?js-enabled-only=true").await.is_ok()
}

/// Asks whether all is well, cluster and streams included; if not, returns what was answered.
pub(crate) async fn health(monitor: SocketAddr) -> Result<(), String> {
    ask_health(monitor, "/healthz").await
}

async fn ask_health(monitor: SocketAddr, path: &str) -> Result<(), String> {
    let answer = timeout(QUESTION_TIMEOUT, get(monitor, path)).await.ok().flatten();
    let answer = answer.unwrap_or_default();
    if answer.split_whitespace().nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Err(body.unwrap_or_default())
}

/// Asks the monitoring port, and returns the whole response as text.
pub(crate) async fn get(monitor: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(monitor).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {monitor}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut response).await.ok()?;
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_tells_the_version_and_whether_there_is_jetstream() {
        let line = r#"INFO {"server_id":"N","version":"2.15.1","jetstream":true,"port":1} "#;
        assert_eq!(greeting(line), Some((Version::PINNED, true)));
        assert_eq!(greeting(r#"INFO {"version":"2.15.1"}"#), Some((Version::PINNED, false)));
        assert_eq!(greeting("-ERR 'maximum connections exceeded'"), None);
    }

    #[test]
    fn an_address_is_read_from_a_url() {
        let urls = [String::from("nats://127.0.0.1:4222")];
        assert_eq!(address(&urls), Some(SocketAddr::from(([127, 0, 0, 1], 4222))));
        assert_eq!(address(&[]), None);
    }
}
