//! Questions to the servers that the client has no words for.

use std::time::Duration;

use async_nats::{
    Message, RequestError,
    client::Request,
    jetstream::{self, Context, ErrorCode, response::Response, stream::Info},
};
use bytes::Bytes;
use fanfare_domain::Timestamp;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Denial;

/// What the subjects of the API begin with.
const PREFIX: &str = "$JS.API";
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// A question to the servers had no useful answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No answer.
    #[error("the servers did not answer")]
    Unanswered(#[from] RequestError),
    /// The answer is no.
    #[error(transparent)]
    Refused(jetstream::Error),
    /// Our user may not ask.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Something is not as the API has it.
    #[error("{what} makes no sense")]
    Senseless {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Option<serde_json::Error>,
    },
}

impl ApiError {
    /// Whether the same question may have another answer in a while.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unanswered(_) => true,
            Self::Refused(error) => error.code() >= 500 && !self.is_for_a_person(),
            Self::Denied(_) | Self::Senseless { .. } => false,
        }
    }

    /// Whether the server says that there is no such stream or consumer.
    pub(crate) fn is_not_found(&self) -> bool {
        self.is(ErrorCode::STREAM_NOT_FOUND) || self.is(ErrorCode::CONSUMER_NOT_FOUND)
    }

    /// Whether the server refused with this code.
    pub(crate) fn is(&self, code: ErrorCode) -> bool {
        match self {
            Self::Refused(error) => error.error_code() == code,
            Self::Unanswered(_) | Self::Denied(_) | Self::Senseless { .. } => false,
        }
    }

    /// Whether somebody has to do something about it.
    fn is_for_a_person(&self) -> bool {
        [
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ErrorCode::INSUFFICIENT_RESOURCES,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ]
        .into_iter()
        .any(|code| self.is(code))
    }
}

/// The subject of a question. `subject` is what follows the prefix of the API.
pub(crate) fn api_subject(subject: &str) -> String {
    format!("{PREFIX}.{subject}")
}

/// Asks the API of `JetStream` a question without a body. `subject` is what follows its prefix.
pub(crate) async fn ask<V: DeserializeOwned>(
    context: &Context,
    subject: &str,
) -> Result<V, ApiError> {
    request(context, subject, Bytes::new(), ANSWER).await
}

/// Asks the API of `JetStream` a question with a body.
pub(crate) async fn tell<T, V>(context: &Context, subject: &str, body: &T) -> Result<V, ApiError>
where
    T: Serialize + ?Sized,
    V: DeserializeOwned,
{
    tell_within(context, subject, body, ANSWER).await
}

/// The same, for what may take the servers longer.
pub(crate) async fn tell_within<T, V>(
    context: &Context,
    subject: &str,
    body: &T,
    answer: Duration,
) -> Result<V, ApiError>
where
    T: Serialize + ?Sized,
    V: DeserializeOwned,
{
    let body = serde_json::to_vec(body).map_err(|source| senseless("the question", source))?;
    request(context, subject, Bytes::from(body), answer).await
}

async fn request<V: DeserializeOwned>(
    context: &Context,
    subject: &str,
    body: Bytes,
    answer: Duration,
) -> Result<V, ApiError> {
    let answer = exchange(context, api_subject(subject), (body, answer)).await?;
    match serde_json::from_slice(&answer.payload) {
        Ok(Response::Ok(answer)) => Ok(answer),
        Ok(Response::Err { error }) => Err(ApiError::Refused(error)),
        Err(source) => Err(senseless("the answer", source)),
    }
}

// Not the client's own way, which cannot leave the body empty, as some questions must be.
fn exchange(
    context: &Context,
    subject: String,
    (body, answer): (Bytes, Duration),
) -> BoxFuture<'_, Result<Message, RequestError>> {
    Box::pin(async move {
        let request = Request::new().payload(body).timeout(Some(answer));
        context.client().send_request(subject, request).await
    })
}

fn senseless(what: &'static str, source: serde_json::Error) -> ApiError {
    ApiError::Senseless { what, source: Some(source) }
}

/// What a stream's leader says of it.
pub(crate) async fn stream_info(context: &Context, name: &str) -> Result<Info, ApiError> {
    ask(context, &format!("STREAM.INFO.{name}")).await
}

/// What the clock of a stream's leader says: the one that dates its messages.
pub(crate) async fn server_time(context: &Context, name: &str) -> Result<Timestamp, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        ts: Option<String>,
    }
    let answer: Answer = ask(context, &format!("STREAM.INFO.{name}")).await?;
    let time = answer.ts.as_deref().and_then(Timestamp::parse);
    time.ok_or(ApiError::Senseless { what: "the server's time", source: None })
}
