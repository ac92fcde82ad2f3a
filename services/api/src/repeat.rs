//! `Idempotency-Key` on every POST but the publishing of an event, which ingest knows by its key.
//!
//! ```text
//! first  ─▶ claim ─▶ the operation, to its end ─▶ its answer, sealed ─▶ the caller
//! repeat ─▶ answered: the same again · not yet: wait · another request: refused
//! ```
//!
//! An answer is final once the operation has begun to change something, or was refused for a reason
//! that stays. What failed before that leaves the key free, and so does a batch of which nothing was
//! taken. A process that dies in between leaves a
//! claim behind, and nobody knows what became of its request: the repeat is told so, and nothing
//! is done twice.

mod record;

use std::time::Duration;

use anyhow::anyhow;
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts as _, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request::Parts, response},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use fanfare_domain::chain;
use fanfare_event_log::{AnswerKey, HeldAnswer, Kept};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::warn;

use self::record::{Answer, Claim, Judgement, Record};
use crate::{
    app::App,
    caller::{Caller, InTenant, Publishes, WriteFlag},
    error::{ApiError, Code},
    extract::read,
    limits,
    routes::{endpoints::reveal, events},
    visit::{Visit, time_for},
};

/// The header that names a key.
pub(crate) const HEADER: &str = "idempotency-key";
/// On an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 256;
/// How long a repeat waits for the answer to the first request.
const WAIT: Duration = Duration::from_secs(20);
/// How often it looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may take to be stored.
const STORING: Duration = Duration::from_secs(10);
/// How long a claim counts after its request can have ended: clocks of machines differ.
const SLACK: Duration = Duration::from_secs(20);

/// On an answer inside the process: nothing was changed, and a repeat may fare better.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeavesKeyFree;

/// Answers a request that names a key as the first one with this key was answered.
pub(crate) async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    let path = request.extensions().get::<MatchedPath>().map(|path| String::from(path.as_str()));
    match path.as_deref() {
        // What is kept of an answer must not show secrets again: each time is on record.
        None | Some(events::PATH | reveal::PATH) => next.run(request).await,
        Some(path) => keyed(app, request, next, path).await.unwrap_or_else(ApiError::into_response),
    }
}

/// A request that names a key.
#[derive(Clone)]
struct Asked {
    app: App,
    parts: Parts,
    body: Bytes,
    next: Next,
    /// What the key is claimed with.
    claim: Claim,
    /// Where it is kept: the caller's, and the key.
    scope: String,
    key: String,
}

async fn keyed(app: App, request: Request, next: Next, path: &str) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let caller = admit(&mut parts, &app, path).await?;
    let key = key(&parts.headers)?;
    let bytes_max = events::bytes_max(&app, path);
    let body = read(Request::from_parts(parts.clone(), body), &app, bytes_max).await?;
    let until = app.now().saturating_add(time_for(Some(path)) + STORING + SLACK);
    let claim = Claim::new(record::fingerprint(&parts, &body), until);
    let asked = Asked { app, parts, body, next, claim, scope: caller.scope(), key };
    let began = Instant::now();
    let mut expected = 0;
    loop {
        let held = match asked.clone().begin(expected).await? {
            Begun::Answered(response) => return Ok(*response),
            Begun::Held(held) => held,
        };
        expected = match asked.wait(held, began).await? {
            Waited::Answered(response) => return Ok(*response),
            Waited::Free(sequence) => sequence,
        };
    }
}

/// Lets a caller in that may be told what was answered before, and may send what is read next.
async fn admit(parts: &mut Parts, app: &App, path: &str) -> Result<Caller, ApiError> {
    if path == events::batch::PATH {
        let access = InTenant::<Publishes>::from_request_parts(parts, app).await?;
        return Ok(access.caller);
    }
    let caller = Caller::from_request_parts(parts, app).await?;
    caller.confirm(app).await?;
    let holder = caller.holder(parts, app).await;
    parts.extensions.insert(holder);
    Ok(caller)
}

fn key(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(ApiError::value("Idempotency-Key", "it is given twice"));
    };
    let key = value.to_str().map_err(|why| ApiError::value("Idempotency-Key", why))?;
    limits::line("Idempotency-Key", key, KEY_BYTES_MAX)?;
    Ok(String::from(key))
}

/// What came of beginning with a request.
enum Begun {
    /// The key was claimed, and this is the request's answer.
    Answered(Box<Response>),
    /// It could not be claimed: this is kept under it.
    Held(Option<HeldAnswer>),
}

/// What came of waiting for somebody else's answer.
enum Waited {
    /// This is the answer.
    Answered(Box<Response>),
    /// There is none: the key can be claimed, from this sequence.
    Free(u64),
}

impl Asked {
    fn cell(&self) -> AnswerKey {
        self.app.log.answer_key(&self.scope, &self.key)
    }

    /// What an answer is sealed for.
    fn owner(&self) -> String {
        format!("answer/{}/{}", self.scope, self.key)
    }

    /// Claims the key and has the request carried out. From the claim to the answer's keeping that
    /// goes on whether or not the caller is still there.
    async fn begin(self, expected: u64) -> Result<Begun, ApiError> {
        let (begun, coming) = oneshot::channel();
        let errands = self.app.errands.clone();
        let errand = async move {
            let cell = self.cell();
            let claimed = timeout(STORING, cell.set(expected, self.claim.encode())).await;
            let told = match claimed {
                Ok(Ok(Kept::Stored(sequence))) => {
                    let response = self.answer_and_keep(&cell, sequence).await;
                    Ok(Begun::Answered(Box::new(response)))
                }
                Ok(Ok(Kept::Conflict(held))) => Ok(Begun::Held(held)),
                Ok(Err(refused)) => Err(ApiError::Unavailable(refused.into())),
                Err(elapsed) => Err(ApiError::Unavailable(elapsed.into())),
            };
            // Nobody waits for it any more if the caller has gone.
            drop(begun.send(told));
        };
        errands.send(errand).await.map_err(|stopping| ApiError::Unavailable(stopping.into()))?;
        let lost = |_| ApiError::Internal(anyhow!("a request ended without an answer"));
        coming.await.map_err(lost)?
    }

    /// Waits for the answer to the first request with the key, if there is to be one.
    async fn wait(&self, mut held: Option<HeldAnswer>, began: Instant) -> Result<Waited, ApiError> {
        loop {
            match Record::judge(held.as_ref(), &self.claim, self.app.now()) {
                Judgement::Free(sequence) => return Ok(Waited::Free(sequence)),
                Judgement::Answered(answer) => {
                    let opened = answer.open(&self.app.keyring, &self.owner());
                    let mut response = opened.ok_or(Code::IdempotencyUnknown)?;
                    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                    return Ok(Waited::Answered(Box::new(response)));
                }
                Judgement::Other => return Err(Code::IdempotencyReused.into()),
                Judgement::Unknown => return Err(Code::IdempotencyUnknown.into()),
                Judgement::Running if began.elapsed() > WAIT => {
                    return Err(Code::IdempotencyInProgress.into());
                }
                Judgement::Running => sleep(PAUSE).await,
            }
            held = self.cell().get().await?;
        }
    }

    /// Carries the request out and keeps its answer.
    async fn answer_and_keep(self, cell: &AnswerKey, sequence: u64) -> Response {
        let owner = self.owner();
        let Self { app, mut parts, body, next, claim, .. } = self;
        let writes = WriteFlag::default();
        parts.extensions.insert(writes.clone());
        // The body's room is kept as long as this runs, also when the caller has gone.
        let visit = Visit::of(&parts.extensions);
        let request = Request::from_parts(parts, Body::from(body));
        let ran = timeout_at(visit.until, next.run(request)).await;
        let response =
            ran.unwrap_or_else(|_elapsed| ApiError::from(Code::TimedOut).into_response());
        let (head, body) = response.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return ApiError::Internal(anyhow!("an answer broke off")).into_response();
        };
        let kept = if stays(&head, &writes) {
            match Answer::seal(&app.keyring, &owner, &head, &body, app.log.payload_max()) {
                Some(answer) if !head.status.is_server_error() => claim.answered(answer),
                Some(_) | None => claim.unknown(),
            }
        } else {
            Claim::free()
        };
        match timeout(STORING, cell.set(sequence, kept)).await {
            Ok(Ok(_)) => {}
            Ok(Err(cause)) => warn!(error = chain(&cause), "the answer to a request is not kept"),
            Err(_elapsed) => {
                warn!("the answer to a request is not kept: the servers do not answer");
            }
        }
        Response::from_parts(head, Body::from(body))
    }
}

/// Tells whether the key stands for what became of the request; otherwise it is free again.
fn stays(head: &response::Parts, writes: &WriteFlag) -> bool {
    let passing =
        [StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    if head.extensions.get::<LeavesKeyFree>().is_some() {
        return false;
    }
    writes.is_set() || !(head.status.is_server_error() || passing.contains(&head.status))
}
