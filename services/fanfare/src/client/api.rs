//! Calls of the REST API.

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::Value;

/// The API, and the key to it.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    /// Names an API by its URL, without `/v1`.
    pub(crate) fn new(base: &str, key: &str) -> Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("make an HTTP client")?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, key: key.to_owned() })
    }

    /// Asks for a resource.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Makes a resource, or has something done.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Changes a resource.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::PATCH, path, Some(body)).await
    }

    /// Deletes a resource.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::DELETE, path, None).await
    }

    /// Asks for all pages of a list.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=100{cursor}")).await?;
            if let Some(Value::Array(data)) = page.get("data") {
                items.extend(data.iter().cloned());
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        self.call_with(method, path, body, &[]).await
    }

    /// Calls with headers of the caller's.
    pub(crate) async fn call_with(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, &url).bearer_auth(&self.key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| {
            format!("reach the API at {} (is `fanfare up` running? --api names another)", self.base)
        })?;
        let status = answer.status();
        let text = answer.text().await.context("read the API's answer")?;
        let value = if text.is_empty() { Value::Null } else { read(&text)? };
        if !status.is_success() {
            bail!("{}", problem(&value).unwrap_or_else(|| format!("the API answered {status}")));
        }
        Ok(value)
    }
}

fn read(text: &str) -> Result<Value> {
    serde_json::from_str(text).context("the API's answer is not JSON: is it Fanfare's API?")
}

/// The words of an RFC 9457 problem.
fn problem(value: &Value) -> Option<String> {
    let text = |key| value.get(key).and_then(Value::as_str);
    let title = text("title")?;
    let code = text("code").map(|code| format!(" [{code}]")).unwrap_or_default();
    Some(match text("detail") {
        Some(detail) => format!("{title}: {detail}{code}"),
        None => format!("{title}{code}"),
    })
}
