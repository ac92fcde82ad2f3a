//! HTTP by hand, byte for byte.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::Api;

/// How long an answer is waited for, and then the connection's end.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status; `None` if the connection ended without one.
    pub(crate) status: Option<u16>,
    /// The head, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// What came behind the head until the connection ended.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Takes an answer apart.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = bytes.split_at(end.unwrap_or(bytes.len()));
        let head = String::from_utf8_lossy(head).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), String::from(value.trim())))
        };
        let body = body.get(4..).unwrap_or_default().to_vec();
        Self { status, headers: lines.filter_map(pair).collect(), body }
    }

    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The status, and the code of the problem if there is one.
    pub(crate) fn told(&self) -> String {
        let Some(status) = self.status else { return String::from("closed") };
        let problem: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let code = problem.as_ref().and_then(|problem| problem["code"].as_str());
        code.map_or_else(|| status.to_string(), |code| format!("{status} {code}"))
    }

    /// How many answers came, one behind the other.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.status.is_some()) + self.text().matches("HTTP/1.1 ").count()
    }
}

/// Sends bytes, and reads until the other side closes.
pub(crate) async fn send(api: &Api, bytes: &[u8]) -> Result<Answer> {
    let mut stream = connect(api).await?;
    // A server that has heard enough may close before all is written.
    stream.write_all(bytes).await.ok();
    finish(&mut stream).await
}

/// Connects.
pub(crate) async fn connect(api: &Api) -> Result<TcpStream> {
    let address = api.address().context("the API listens")?;
    TcpStream::connect(address).await.context("connect to the API")
}

/// Reads until the other side closes.
pub(crate) async fn finish(stream: &mut TcpStream) -> Result<Answer> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A reset is an end, too.
    read.context("the API keeps the connection")?.ok();
    Ok(Answer::read(&bytes))
}

/// Makes a request with the operator's key, which is the last on its connection.
pub(crate) fn request(api: &Api, method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let key = api.key();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {key}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Sends the head of a request and not its body, for one that is to be refused before it is read.
pub(crate) async fn announce(api: &Api, bytes: &[u8]) -> Result<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let head = bytes.get(..end.context("a request has a head")? + 4).unwrap_or_default();
    send(api, head).await
}

/// Asks for a resource.
pub(crate) async fn get(api: &Api, path: &str) -> Result<Answer> {
    send(api, &request(api, "GET", path, "", b"")).await
}
