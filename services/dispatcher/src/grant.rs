//! Access tokens: asked for with an endpoint's client credentials (RFC 6749, section 4.4), and kept
//! in memory until shortly before their time is over.
//!
//! Whoever gives out tokens is a stranger as endpoints are: the request goes through the same
//! client, is no longer than the attempt, follows no redirect, and what is read of its answer has a
//! limit. At any time one token is asked for; those who wait get what comes of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanfare_domain::{
    Fault,
    endpoint::{ClientCredentials, CredentialsPlace},
    seal::Clear,
};
use fanfare_egress::{Answer, Client, Failure, Identity, Request, Url, Wanted};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use url::form_urlencoded;

use crate::erased::{self, secret_header};

/// How long a token is used that does not say for how long it is good.
const UNSAID: Duration = Duration::from_mins(10);
/// How long a token is used at most.
const USED_MAX: Duration = Duration::from_hours(24);
/// How much earlier than it must a token is replaced: a tenth of its time, this at most.
const EARLY_MAX: Duration = Duration::from_mins(1);
/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// What is wrong with a request for a token, by RFC 6749, section 5.2. Others are not repeated:
/// nobody knows what is in them.
const ERRORS: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "temporarily_unavailable",
];

/// Asks for an endpoint's tokens, and keeps the last one.
pub(crate) struct Grant {
    token_url: Url,
    headers: HeaderMap,
    form: Bytes,
    slot: Mutex<Slot>,
    /// The number of the last token that the endpoint refused.
    rejected: AtomicU64,
}

/// What came of the last request for a token.
#[derive(Debug, Default)]
struct Slot {
    token: Option<Arc<Token>>,
    failed: Option<(Instant, String)>,
    numbered: u64,
}

/// An access token.
pub(crate) struct Token {
    number: u64,
    given_at: Instant,
    good_until: Instant,
    clear: Clear,
    header: HeaderValue,
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum NoToken {
    /// The request that it was for is no longer wanted.
    Withdrawn,
    /// For a reason, in words for the endpoint's owner.
    Failed(String),
}

/// An answer that gives a token (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct Given {
    access_token: String,
    token_type: String,
    expires_in: Option<serde_json::Value>,
}

/// An answer that does not.
#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// What a token is asked with, beside the credentials.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// The client that all requests go through.
    pub(crate) client: &'a Client,
    /// What the endpoint has of TLS that others do not.
    pub(crate) identity: Option<&'a Arc<Identity>>,
    /// Whether the attempt is still wanted.
    pub(crate) wanted: &'a Wanted,
    /// When the attempt ends.
    pub(crate) until: Instant,
}

impl Grant {
    /// Prepares to ask. None if the credentials cannot stand in a request.
    pub(crate) fn new(credentials: &ClientCredentials, secret: &Clear) -> Option<Self> {
        let token_url = credentials.token_url.parse().ok()?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form = "application/x-www-form-urlencoded";
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(form));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !credentials.scopes.is_empty() {
            form.append_pair("scope", &credentials.scopes.join(" "));
        }
        form.extend_pairs(&credentials.parameters);
        let secret = escape(secret.expose());
        let form = match credentials.place {
            CredentialsPlace::Header => {
                let id = escape(&credentials.client_id);
                headers.insert(AUTHORIZATION, basic(id.expose(), secret.expose())?);
                Bytes::from(form.finish())
            }
            CredentialsPlace::Body => {
                let form = form.append_pair("client_id", &credentials.client_id).finish();
                let all = [&form, "&client_secret=", secret.expose()].concat();
                erased::bytes(Clear::new(all))
            }
        };
        let (slot, rejected) = (Mutex::default(), AtomicU64::new(0));
        Some(Self { token_url, headers, form, slot, rejected })
    }

    /// Returns a token that is good, by asking for one if there is none.
    ///
    /// Cancel safe: a request that is dropped has asked for a token that nobody uses.
    pub(crate) async fn token(&self, asking: Asking<'_>) -> Result<Arc<Token>, NoToken> {
        let began = Instant::now();
        let late = || NoToken::Failed(String::from("there was no token within the time-out"));
        let mut slot =
            timeout_at(asking.until, self.slot.lock()).await.map_err(|_elapsed| late())?;
        if let Some(token) = slot.token.as_ref().filter(|token| self.is_good(token)) {
            return Ok(Arc::clone(token));
        }
        // Whoever waited meanwhile would only hear the same.
        if let Some((_, why)) = slot.failed.as_ref().filter(|(at, _)| *at >= began) {
            return Err(NoToken::Failed(why.clone()));
        }
        match self.ask(asking, slot.numbered + 1).await {
            Ok(token) => {
                let token = Arc::new(token);
                slot.numbered = token.number;
                (slot.token, slot.failed) = (Some(Arc::clone(&token)), None);
                Ok(token)
            }
            Err(NoToken::Failed(why)) => {
                slot.failed = Some((Instant::now(), why.clone()));
                Err(NoToken::Failed(why))
            }
            Err(NoToken::Withdrawn) => Err(NoToken::Withdrawn),
        }
    }

    /// Uses a token no more that the endpoint refused.
    pub(crate) fn reject(&self, token: &Token) {
        self.rejected.fetch_max(token.number, Ordering::AcqRel);
    }

    fn is_good(&self, token: &Token) -> bool {
        let is_refused = token.number <= self.rejected.load(Ordering::Acquire);
        !is_refused && Instant::now() < token.good_until
    }

    async fn ask(&self, asking: Asking<'_>, number: u64) -> Result<Token, NoToken> {
        let asked_at = Instant::now();
        let request = Request {
            method: Method::POST,
            url: self.token_url.clone(),
            headers: self.headers.clone(),
            body: self.form.clone(),
            deadline: asking.until.saturating_duration_since(asked_at),
            identity: asking.identity.cloned(),
        };
        let answer = asking.client.send_while(request, Arc::clone(asking.wanted)).await;
        let answer = answer.ok_or(NoToken::Withdrawn)?;
        read(&answer, asked_at, number).map_err(NoToken::Failed)
    }
}

impl Token {
    /// The value of the header `authorization`.
    pub(crate) const fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Whether it was given before then, so that it may have been revoked since.
    pub(crate) fn is_from_before(&self, instant: Instant) -> bool {
        self.given_at < instant
    }

    /// The token itself, to be taken out of what an endpoint says.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.clear.expose().as_bytes()
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").finish_non_exhaustive()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The answer to an attempt for which there was no token.
pub(crate) fn unanswered(why: String, spent: Duration) -> Answer {
    let failure = Failure::new(Fault::AuthenticationFailed, why);
    Answer { duration: spent, ..Answer::failed(failure) }
}

/// Returns a header of basic authentication (RFC 7617). None if it is too long.
pub(crate) fn basic(name: &str, password: &str) -> Option<HeaderValue> {
    let pair = Clear::new([name, password].join(":"));
    let encoded = Clear::new(data_encoding::BASE64.encode(pair.expose().as_bytes()));
    secret_header(Clear::new(["Basic ", encoded.expose()].concat()))
}

/// Returns a header with a token (RFC 6750). None if it is none.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    secret_header(Clear::new(["Bearer ", token].concat()))
}

/// Escapes a text as in a form. There is room for all of it from the beginning: text that grows leaves
/// copies behind.
fn escape(text: &str) -> Clear {
    let mut escaped = String::with_capacity(3 * text.len());
    escaped.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    Clear::new(escaped)
}

/// Reads a token, or says why there is none. Nothing of the answer is repeated but its status and
/// an error that everybody knows.
fn read(answer: &Answer, asked_at: Instant, number: u64) -> Result<Token, String> {
    let head = answer.result.as_ref().map_err(|failure| format!("no token: {}", failure.detail))?;
    if !(200..300).contains(&head.status) {
        let status = head.status;
        let refused = serde_json::from_slice::<Refused>(&answer.body).ok();
        let error = refused.and_then(|it| ERRORS.into_iter().find(|known| *known == it.error));
        return Err(match error {
            Some(error) => format!("the token endpoint answered {status} ({error})"),
            None => format!("the token endpoint answered {status}"),
        });
    }
    if answer.truncated {
        return Err(String::from("the token endpoint's answer is too long, or not whole"));
    }
    let given: Given = serde_json::from_slice(&answer.body)
        .map_err(|_| String::from("the token endpoint's answer has no token"))?;
    if !given.token_type.eq_ignore_ascii_case("bearer") {
        return Err(String::from("the token endpoint's token is none for bearers"));
    }
    let clear = Clear::new(given.access_token);
    let is_plain = clear.expose().bytes().all(|byte| byte.is_ascii_graphic());
    let is_short = (1..=TOKEN_BYTES_MAX).contains(&clear.expose().len());
    let header = Some(clear.expose()).filter(|_| is_plain && is_short).and_then(bearer);
    let header = header.ok_or("the token endpoint's token cannot stand in a header")?;
    let (given_at, good_until) = (Instant::now(), asked_at + used_for(given.expires_in.as_ref()));
    Ok(Token { number, given_at, good_until, clear, header })
}

/// How long a token is used. Some servers write a number as text.
fn used_for(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = expires_in.and_then(|value| match value.as_str() {
        Some(text) => text.trim().parse::<f64>().ok(),
        None => value.as_f64(),
    });
    let Some(seconds) = seconds else { return UNSAID };
    let good = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(USED_MAX).min(USED_MAX);
    good.saturating_sub((good / 10).min(EARLY_MAX))
}

#[cfg(test)]
mod tests;
