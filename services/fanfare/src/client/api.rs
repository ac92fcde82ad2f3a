//! Calls of the REST API.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use reqwest::Method;
use serde_json::{Value, value::RawValue};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request may take; the API itself gives up before.
const ANSWER: Duration = Duration::from_secs(40);

/// The API, and the key to it. Cheap to clone; clones share connections.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
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
            .timeout(ANSWER)
            .build()
            .context("make an HTTP client")?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, key: key.to_owned() })
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

    /// Makes a resource, or has something done.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Body::Value(body), &[]).await
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

    /// Deletes a resource.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::DELETE, path, Body::None, &[]).await
    }

    /// Asks for all pages of a list.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page = self.get(&format!("{path}?limit=100{cursor}")).await?;
            if let Some(Value::Array(data)) = page.get_mut("data").map(Value::take) {
                items.extend(data);
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
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
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, &url).bearer_auth(&self.key);
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
        let text = answer.text().await.context("read the API's answer")?;
        if status.is_success() {
            return if text.is_empty() { Ok(Value::Null) } else { read(&text) };
        }
        Err(match read(&text).ok().and_then(|value| Problem::read(status.as_u16(), &value)) {
            Some(problem) => problem.into(),
            None => anyhow!("{} answered {status}: is it Fanfare's API?", self.base),
        })
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
    use serde_json::json;

    use super::*;

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
