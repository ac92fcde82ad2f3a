//! Calls of the REST API.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use reqwest::{Method, header::ETAG};
use serde_json::{Value, value::RawValue};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request may take; the API itself gives up before.
const ANSWER: Duration = Duration::from_secs(40);
/// How long a stream may go on.
const FOREVER: Duration = Duration::from_hours(24 * 365);
/// How often a change is tried while others change the same thing.
const EDITS_MAX: usize = 5;

/// The API, and the key to it. Cheap to clone; clones share connections.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
    patience: Duration,
}

/// What the API says is wrong with a request (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The stable name of what is wrong, if the API gave one.
    pub(crate) code: Option<String>,
    /// What is wrong, for people: the details where there are some.
    words: String,
    /// Why an event is refused: a stable name.
    reason: Option<String>,
}

/// The body of a request.
#[derive(Clone, Copy)]
enum Body<'a> {
    None,
    Value(&'a Value),
    /// JSON as it is written, so that no number is read and written again on the way.
    Raw(&'a RawValue),
}

impl Api {
    /// Names an API by its URL, without `/v1`.
    pub(crate) fn new(base: &str, key: &str) -> Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build()
            .context("make an HTTP client")?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, key: key.to_owned(), patience: ANSWER })
    }

    /// The same API, whose answers may take that long.
    #[must_use]
    pub(crate) fn with_patience(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Asks for a resource.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, Body::None, &[]).await
    }

    /// Asks for a resource; `None` if the API says that there is none.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if Problem::of(&error).is_some_and(|problem| problem.status == 404) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a stream, which goes on until somebody ends it.
    pub(crate) async fn open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<reqwest::Response> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.get(&url).bearer_auth(&self.key).timeout(FOREVER);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().await.context("read the API's answer")?;
        Err(self.problem(status, &text))
    }

    /// Makes a resource, or has something done.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Body::Value(body), &[]).await
    }

    /// Has something done, with headers.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Value> {
        self.call(Method::POST, path, Body::Value(body), headers).await
    }

    /// Has something done with a body that is sent exactly as it is written, and with headers.
    pub(crate) async fn post_raw(
        &self,
        path: &str,
        body: &RawValue,
        headers: &[(&str, &str)],
    ) -> Result<Value> {
        self.call(Method::POST, path, Body::Raw(body), headers).await
    }

    /// Changes a resource: what the body leaves out stays.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::PATCH, path, Body::Value(body), &[]).await
    }

    /// Changes a resource by what `change` makes of it as it is; from the start, a few times, if
    /// somebody else changes it meanwhile.
    pub(crate) async fn edit(
        &self,
        path: &str,
        change: impl Fn(&Value) -> Result<Value>,
    ) -> Result<Value> {
        let mut tries = 1..=EDITS_MAX;
        loop {
            tries.next();
            let (current, tag) = self.exchange(Method::GET, path, Body::None, &[]).await?;
            let condition = tag.as_deref().map(|tag| ("If-Match", tag));
            let body = change(&current)?;
            let body = Body::Value(&body);
            match self.call(Method::PATCH, path, body, condition.as_slice()).await {
                Err(error) if !tries.is_empty() && is_outdated(&error) => {}
                done => return done,
            }
        }
    }

    /// Deletes a resource.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::DELETE, path, Body::None, &[]).await
    }

    /// Asks for all pages of a list.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>> {
        Ok(self.list_up_to(path, usize::MAX).await?.0)
    }

    /// Asks for the pages of a list until there are so many things; tells whether these are all. The path
    /// may have a query.
    pub(crate) async fn list_up_to(&self, path: &str, most: usize) -> Result<(Vec<Value>, bool)> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        let sign = if path.contains('?') { '&' } else { '?' };
        loop {
            let mut page = self.get(&format!("{path}{sign}limit=100{cursor}")).await?;
            if let Some(Value::Array(data)) = page.get_mut("data").map(Value::take) {
                items.extend(data);
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(_) if items.len() >= most => return Ok((items, false)),
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok((items, true)),
            }
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body<'_>,
        headers: &[(&str, &str)],
    ) -> Result<Value> {
        self.exchange(method, path, body, headers).await.map(|(value, _)| value)
    }

    /// Returns the API's answer, and which version of the resource it is, if the API says so.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Body<'_>,
        headers: &[(&str, &str)],
    ) -> Result<(Value, Option<String>)> {
        let url = format!("{}{path}", self.base);
        let request = self.client.request(method, &url).bearer_auth(&self.key);
        let mut request = request.timeout(self.patience);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request = match body {
            Body::None => request,
            Body::Value(value) => request.json(value),
            Body::Raw(raw) => request.json(raw),
        };
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let tag = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(String::from);
        let text = answer.text().await.context("read the API's answer")?;
        if status.is_success() {
            let value = if text.is_empty() { Value::Null } else { read(&text)? };
            return Ok((value, tag));
        }
        Err(self.problem(status, &text))
    }

    fn problem(&self, status: reqwest::StatusCode, text: &str) -> anyhow::Error {
        match read(text).ok().and_then(|value| Problem::read(status.as_u16(), &value)) {
            Some(problem) => problem.into(),
            None => anyhow!("{} answered {status}: is it Fanfare's API?", self.base),
        }
    }
}

impl Api {
    /// Says why no answer came, in the words of whoever found out.
    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let base = &self.base;
        if error.is_timeout() {
            anyhow!("the API at {base} does not answer")
        } else {
            anyhow!(
                "reach the API at {base} (is `fanfare up` running? --api names another): {cause}"
            )
        }
    }
}

/// Tells whether a change was refused because it was to be made from an earlier version.
fn is_outdated(error: &anyhow::Error) -> bool {
    Problem::of(error).is_some_and(|problem| problem.is("precondition_failed"))
}

fn read(text: &str) -> Result<Value> {
    serde_json::from_str(text).context("the API's answer is not JSON: is it Fanfare's API?")
}

impl Problem {
    /// Returns the problem that the API answered with, if it is that.
    pub(crate) fn of(error: &anyhow::Error) -> Option<&Self> {
        error.downcast_ref()
    }

    /// Tells whether the problem is of that code.
    pub(crate) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    fn read(status: u16, value: &Value) -> Option<Self> {
        let text = |key| value.get(key).and_then(Value::as_str).map(String::from);
        let (title, code) = (text("title")?, text("code"));
        let words = match (text("detail"), text("field")) {
            (Some(detail), Some(field)) if code.as_deref() == Some("value_invalid") => {
                format!("{field}: {detail}")
            }
            (Some(detail), _) => detail,
            (None, _) => String::from(title.trim_end_matches('.')),
        };
        Some(Self { status, code, words, reason: text("reason") })
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        match (&self.code, &self.reason) {
            (Some(code), Some(reason)) => write!(f, " [{code}: {reason}]"),
            (Some(code), None) => write!(f, " [{code}]"),
            (None, _) => Ok(()),
        }
    }
}

/// Returns a text of an answer, or nothing where there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Reads a request, up to the end of its JSON if it has a body.
    async fn request(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        loop {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "a whole request");
            let text = String::from_utf8(read.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if head.starts_with("GET") || body.ends_with('}') {
                return text;
            }
        }
    }

    /// An API that shows a resource as versions 1, 2, 3 …, and admits a change of one of them only.
    async fn changing(listener: TcpListener, admitted: usize, requests: &Mutex<Vec<String>>) {
        let mut version = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = request(&mut stream).await;
            let (status, body) = if asked.starts_with("GET") {
                version += 1;
                ("200 OK", json!({ "version": version }))
            } else if version == admitted {
                ("200 OK", json!({ "changed": version }))
            } else {
                let code = "precondition_failed";
                ("412 Precondition Failed", json!({ "title": "It has changed.", "code": code }))
            };
            requests.lock().unwrap().push(asked);
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {status}\r\netag: \"{version}\"\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    async fn edited(admitted: usize) -> (Result<Value>, Vec<String>) {
        fanfare_service::install_crypto_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::new(&format!("http://{}", listener.local_addr().unwrap()), "key").unwrap();
        let requests = Mutex::new(Vec::new());
        let change = |current: &Value| Ok(json!({ "from": current.get("version") }));
        let result = tokio::select! {
            result = api.edit("/thing", change) => result,
            () = changing(listener, admitted, &requests) => unreachable!("it serves on"),
        };
        (result, requests.into_inner().unwrap())
    }

    #[tokio::test]
    async fn an_edit_starts_again_if_somebody_else_was_faster() {
        let (result, requests) = edited(2).await;
        assert_eq!(result.unwrap(), json!({ "changed": 2 }));
        let changes: Vec<_> = requests.iter().filter(|asked| asked.starts_with("PATCH")).collect();
        assert_eq!((requests.len(), changes.len()), (4, 2));
        for (change, version) in changes.into_iter().zip(["1", "2"]) {
            assert!(change.contains(&format!("if-match: \"{version}\"\r\n")), "{change}");
            assert!(change.ends_with(&format!("{{\"from\":{version}}}")), "{change}");
        }
    }

    #[tokio::test]
    async fn an_edit_gives_up_in_the_end() {
        let (result, requests) = edited(EDITS_MAX + 1).await;
        assert!(is_outdated(&result.unwrap_err()));
        assert_eq!(requests.len(), 2 * EDITS_MAX);
    }

    fn problem(value: &Value) -> Problem {
        Problem::read(400, value).unwrap()
    }

    #[test]
    fn a_problem_is_shown_with_what_matters() {
        let title = "A value is not admitted.";
        let invalid = json!({
            "title": title, "code": "value_invalid", "field": "secret", "detail": "it is too short",
        });
        assert!(problem(&invalid).is("value_invalid"));
        let refused = json!({
            "title": title, "code": "event_refused", "detail": "no JSON", "reason": "malformed_json",
        });
        let plain = json!({ "title": "There is no such tenant.", "code": "tenant_not_found" });
        for (value, expected) in [
            (invalid, "secret: it is too short [value_invalid]"),
            (refused, "no JSON [event_refused: malformed_json]"),
            (plain, "There is no such tenant [tenant_not_found]"),
        ] {
            assert_eq!(problem(&value).to_string(), expected);
        }
        assert_eq!(Problem::read(502, &json!({"message": "bad gateway"})), None);
    }
}
