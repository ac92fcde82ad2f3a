//! Calls of the REST API, as a program of the operator's would make them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fanfare_testkit::wait_at_most;
use reqwest::Method;
use serde_json::{Value, json};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long an event's publish is repeated.
const INSISTENCE: Duration = Duration::from_mins(2);

/// The API, and the operator's key to it.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    key: String,
    address: Option<String>,
}

/// An answer that is not a success.
#[derive(Debug, thiserror::Error)]
#[error("the API answered {status}: {body}")]
pub(crate) struct Refused {
    /// Its status.
    pub(crate) status: u16,
    /// Its body: a problem of RFC 9457.
    pub(crate) body: Value,
}

impl Refused {
    /// The stable code of the problem.
    pub(crate) fn code(&self) -> &str {
        self.body.get("code").and_then(Value::as_str).unwrap_or_default()
    }
}

/// An endpoint as the API made it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// Its id.
    pub(crate) id: String,
    /// Its secret in the clear.
    pub(crate) secret: String,
}

impl Api {
    /// Names an API by the operator's key; where it is comes later.
    pub(crate) fn new(key: &str) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
        let client = client.context("make an HTTP client")?;
        Ok(Self { client, key: String::from(key), address: None })
    }

    /// The operator's key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Where it listens, once that is known.
    pub(crate) fn address(&self) -> Option<String> {
        self.address.clone()
    }

    /// Says where it listens: an address and a port.
    pub(crate) fn set_address(&mut self, address: &str) {
        self.address = Some(String::from(address));
    }

    /// Tells whether it is ready; if not, what it says.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let asked = self.client.get(self.url("/readyz")).send().await;
        let answer = asked.map_err(|error| format!("{error:?}"))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(answer.text().await.unwrap_or_default())
    }

    /// Makes a tenant.
    pub(crate) async fn tenant(&self, id: &str, profile: &str) -> Result<()> {
        self.post("/v1/tenants", &json!({ "id": id, "profile": profile })).await?;
        Ok(())
    }

    /// Makes an endpoint.
    pub(crate) async fn endpoint(&self, tenant: &str, new: &Value) -> Result<Made> {
        let made = self.post(&format!("/v1/tenants/{tenant}/endpoints"), new).await?;
        Ok(Made { id: text(&made, "id")?, secret: text(&made, "secret")? })
    }

    /// Has something done with an endpoint: `pause`, `resume`, `enable`, `disable`.
    pub(crate) async fn act(
        &self,
        tenant: &str,
        endpoint: &str,
        action: &str,
        body: &Value,
    ) -> Result<Value> {
        self.post(&format!("/v1/tenants/{tenant}/endpoints/{endpoint}/{action}"), body).await
    }

    /// Asks for a resource.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None, None).await
    }

    /// Makes a resource, or has something done.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body.to_string()), None).await
    }

    /// Changes a resource.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::PATCH, path, Some(body.to_string()), None).await
    }

    /// Deletes a resource.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::DELETE, path, None, None).await
    }

    /// Publishes an event, with its data byte for byte, and returns its id. Repeats until there
    /// is an answer, which it may take a while to get while processes are being killed.
    pub(crate) async fn publish(
        &self,
        tenant: &str,
        event_type: &str,
        data: &str,
        key: &str,
    ) -> Result<String> {
        let body = format!(r#"{{"type":"{event_type}","data":{data}}}"#);
        let path = format!("/v1/tenants/{tenant}/events");
        let answered = wait_at_most(INSISTENCE, "an answer to a publish", async || {
            match self.call(Method::POST, &path, Some(body.clone()), Some(key)).await {
                Ok(answer) => Ok(text(&answer, "id")),
                Err(error) => match error.downcast_ref::<Refused>() {
                    Some(refused) if refused.status < 500 => Ok(Err(error)),
                    Some(_) | None => Err(format!("{error:#}")),
                },
            }
        });
        answered.await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        idempotency_key: Option<&str>,
    ) -> Result<Value> {
        let mut request = self.client.request(method, self.url(path)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.with_context(|| format!("call {path}"))?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| format!("read the answer of {path}"))?;
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
        if !status.is_success() {
            bail!(Refused { status: status.as_u16(), body });
        }
        Ok(body)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address.as_deref().unwrap_or("127.0.0.1:0"))
    }
}

/// The text of a member.
pub(crate) fn text(value: &Value, name: &str) -> Result<String> {
    let text = value.get(name).and_then(Value::as_str);
    text.map(String::from).with_context(|| format!("{name} is missing in {value}"))
}
