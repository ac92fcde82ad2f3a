//! Questions to the servers that the client has no words for.

use async_nats::{
    Subject,
    jetstream::{
        self, Context, ErrorCode, context::RequestError, response::Response, stream::Info,
    },
};
use fanfare_domain::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A question to the servers had no useful answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No answer.
    #[error("the servers did not answer")]
    Unanswered(#[from] RequestError),
    /// The answer is no.
    #[error(transparent)]
    Refused(jetstream::Error),
    /// The answer makes no sense.
    #[error("the answer lacks {what}")]
    Senseless {
        /// What it lacks.
        what: &'static str,
    },
}

impl ApiError {
    /// Whether the same question may have another answer in a while.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unanswered(_) => true,
            Self::Refused(error) => error.code() >= 500 && !self.is_short_of_storage(),
            Self::Senseless { .. } => false,
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
            Self::Unanswered(_) | Self::Senseless { .. } => false,
        }
    }

    fn is_short_of_storage(&self) -> bool {
        [
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ErrorCode::INSUFFICIENT_RESOURCES,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ]
        .into_iter()
        .any(|code| self.is(code))
    }
}

/// Asks the API of `JetStream`. `subject` is what follows its prefix.
pub(crate) async fn ask<T, V>(
    context: &Context,
    subject: impl Into<Subject>,
    question: &T,
) -> Result<V, ApiError>
where
    T: Serialize + ?Sized,
    V: DeserializeOwned,
{
    match context.request(subject.into(), question).await? {
        Response::Ok(answer) => Ok(answer),
        Response::Err { error } => Err(ApiError::Refused(error)),
    }
}

/// What a stream's leader says of it.
pub(crate) async fn stream_info(context: &Context, name: &str) -> Result<Info, ApiError> {
    ask(context, format!("STREAM.INFO.{name}"), &()).await
}

/// What the clock of a stream's leader says: the one that dates its messages.
pub(crate) async fn server_time(context: &Context, name: &str) -> Result<Timestamp, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        ts: Option<String>,
    }
    let answer: Answer = ask(context, format!("STREAM.INFO.{name}"), &()).await?;
    let time = answer.ts.as_deref().and_then(Timestamp::parse);
    time.ok_or(ApiError::Senseless { what: "the server's time" })
}
