//! Requests to the API and their answers, every byte of them.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fanfare_testkit::wait_until;
use reqwest::{Client, Method, Response};
use tokio::task::JoinSet;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(50);
/// Headers that tell one answer from the next whatever was asked.
const OF_THE_MOMENT: [&str; 4] = ["date", "ratelimit", "ratelimit-policy", "retry-after"];

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    /// What it shows to be let in.
    pub(super) key: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Ask {
    pub(super) fn new(method: Method, path: String, key: &str) -> Self {
        Self { method, path, key: String::from(key), headers: Vec::new(), body: None }
    }

    /// The same request with other texts in place of some.
    pub(super) fn with(&self, pairs: &[(String, String)]) -> Self {
        let swap = |text: &String| swapped(text, pairs);
        Self {
            method: self.method.clone(),
            path: swap(&self.path),
            key: self.key.clone(),
            headers: self.headers.iter().map(|(name, value)| (*name, swap(value))).collect(),
            body: self.body.as_ref().map(swap),
        }
    }

    /// Tells whether a text stands in it: an answer may say it again.
    pub(super) fn says(&self, text: &str) -> bool {
        self.path.contains(text)
            || self.body.as_ref().is_some_and(|body| body.contains(text))
            || self.headers.iter().any(|(_, value)| value.contains(text))
    }

    fn request(&self, client: &Client, address: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{address}{}", self.path);
        let mut request = client.request(self.method.clone(), url).bearer_auth(&self.key);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        match &self.body {
            Some(body) => request.header("content-type", "application/json").body(body.clone()),
            None => request,
        }
    }

    /// Sends it. Of an answer without end, what says where it begins is read.
    pub(super) async fn send(&self, client: &Client, address: &str) -> Result<Told> {
        let answered = async {
            let mut answer = self.request(client, address).send().await?;
            let mut told = Told::head(&answer);
            let has_no_end = told.header("content-type").starts_with(b"text/event-stream");
            while let Some(chunk) = answer.chunk().await? {
                told.body.extend_from_slice(&chunk);
                if has_no_end && told.body.windows(2).any(|pair| pair == b"\n\n") {
                    break;
                }
            }
            Ok::<_, reqwest::Error>(told)
        };
        let answered = tokio::time::timeout(TIMEOUT, answered).await;
        answered.with_context(|| format!("no answer to {self}"))?.with_context(|| self.to_string())
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, key, headers, body } = self;
        let key: String = key.chars().take(8).collect();
        write!(f, "{method} {path} by {key}… {headers:?} {}", body.as_deref().unwrap_or_default())
    }
}

impl Told {
    fn head(answer: &Response) -> Self {
        let headers = answer.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        Self { status: answer.status().as_u16(), headers: headers.collect(), body: Vec::new() }
    }

    pub(super) fn header(&self, name: &str) -> &[u8] {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or(&[], |(_, value)| value.as_slice())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What is the same for all who ask the same, some texts swapped.
    pub(super) fn comparable(&self, pairs: &[(String, String)]) -> String {
        let kept = self.headers.iter().filter(|(name, _)| !OF_THE_MOMENT.contains(&name.as_str()));
        let mut headers: Vec<_> = kept
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
            .collect();
        headers.sort_unstable();
        swapped(&format!("{} {headers:?}\n{}", self.status, self.text()), pairs)
    }
}

fn swapped(text: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(String::from(text), |text, (from, to)| text.replace(from, to))
}

/// A stream of deliveries that is read as long as this is there.
pub(super) struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    _reading: JoinSet<()>,
}

impl Stream {
    /// Opens it, and waits until it has said where it begins.
    pub(super) async fn open(ask: &Ask, client: &Client, address: &str) -> Result<Self> {
        let mut answer = ask.request(client, address).send().await?.error_for_status()?;
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (taken, mut reading) = (Arc::clone(&bytes), JoinSet::new());
        reading.spawn(async move {
            while let Ok(Some(chunk)) = answer.chunk().await {
                taken.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk);
            }
        });
        let stream = Self { bytes, _reading: reading };
        stream.says("id: ").await;
        Ok(stream)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first place that it has said.
    pub(super) fn place(&self) -> Result<String> {
        let text = String::from_utf8_lossy(&self.bytes()).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("id: "));
        line.map(String::from).context("a stream says its place")
    }

    /// Waits until it says this.
    pub(super) async fn says(&self, text: &str) {
        wait_until("a stream to say something", async || {
            let bytes = self.bytes();
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            if found { Ok(()) } else { Err(bytes.len()) }
        })
        .await;
    }
}
