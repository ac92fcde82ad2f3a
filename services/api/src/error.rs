//! What can be wrong with a request, and how it is said (RFC 9457).
//!
//! Callers act on `code`, which never changes its meaning; `title` and `detail` are for people.
//! What went wrong inside is logged and never answered.

mod code;
#[cfg(test)]
mod tests;

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use fanfare_delivery_log::StoreError;
use fanfare_domain::{chain, url::UrlError};
use fanfare_event_log::{PublishError, ReadError, config::ChangeError};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

pub(crate) use code::Code;

/// A request that is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The code says it all.
    #[error("{}", .0.title())]
    Plain(Code),
    /// The code does not say it all.
    #[error("{}: {detail}", code.title())]
    Detailed {
        /// What is wrong.
        code: Code,
        /// More about it, for people.
        detail: String,
    },
    /// One value of the body, the query or a header is not admitted.
    #[error("{field}: {detail}")]
    Value {
        /// Where it stands, for example `event_types`.
        field: String,
        /// Why it is not admitted.
        detail: String,
    },
    /// The endpoint's URL is not admitted.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Ingest does not take the event.
    #[error("event refused: {reason}")]
    EventRefused {
        /// The stable name of the reason.
        reason: String,
        /// More about it, for people.
        detail: String,
    },
    /// The log does not answer, or takes nothing at this time.
    #[error("the log is unavailable")]
    Unavailable(#[source] anyhow::Error),
    /// The event was passed on, and what became of it is not known.
    #[error("it is not known what became of the event")]
    OutcomeUnknown(#[source] anyhow::Error),
    /// The delivery log cannot be read.
    #[error("the delivery log cannot be read")]
    DeliveryLog(#[source] StoreError),
    /// Something that should be possible failed.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

/// What is wrong with a request, as `application/problem+json` (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// A URI that stands for the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:fanfare:problem:endpoint_not_found")]
    kind: String,
    /// What the code means, for people.
    #[schema(example = "There is no such endpoint.")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What is wrong, for programs: a code never changes its meaning.
    #[schema(example = "endpoint_not_found")]
    code: &'static str,
    /// More about this very request, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Which value is not admitted, with `value_invalid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Why ingest does not take the event, with `event_refused`: a stable name.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ApiError {
    /// Says that a value is not admitted.
    pub(crate) fn value(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Value { field: field.into(), detail: why.to_string() }
    }

    /// Says within what a value stands that is not admitted.
    pub(crate) fn within(self, place: &str) -> Self {
        if let Self::Value { field, detail } = self {
            return Self::Value { field: format!("{place}.{field}"), detail };
        }
        self
    }

    /// Says more than the code.
    pub(crate) fn detailed(code: Code, detail: impl std::fmt::Display) -> Self {
        Self::Detailed { code, detail: detail.to_string() }
    }

    /// Returns the code.
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Plain(code) | Self::Detailed { code, .. } => *code,
            Self::Value { .. } => Code::ValueInvalid,
            Self::Url(refused) => Code::of_url(refused),
            Self::EventRefused { .. } => Code::EventRefused,
            Self::Unavailable(_) => Code::Unavailable,
            Self::OutcomeUnknown(_) => Code::OutcomeUnknown,
            Self::DeliveryLog(_) => Code::DeliveryLogUnavailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// Returns what is told of it.
    pub(crate) fn problem(self) -> Problem {
        let code = self.code();
        let (detail, field, reason) = match self {
            Self::Plain(_) | Self::Unavailable(_) | Self::OutcomeUnknown(_) | Self::Internal(_) => {
                (None, None, None)
            }
            Self::Detailed { detail, .. } => (Some(detail), None, None),
            Self::DeliveryLog(cause) => (Some(why_unreadable(&cause)), None, None),
            Self::Value { field, detail } => (Some(detail), Some(field), None),
            Self::Url(refused) => (Some(refused.to_string()), Some(String::from("url")), None),
            Self::EventRefused { reason, detail } => (Some(detail), None, Some(reason)),
        };
        Problem {
            kind: format!("urn:fanfare:problem:{}", code.as_str()),
            title: code.title(),
            status: code.status().as_u16(),
            code: code.as_str(),
            detail,
            field,
            reason,
        }
    }

    /// Notes in the log what is told to nobody else.
    pub(crate) fn log(&self) {
        match self {
            Self::Unavailable(cause) => {
                error!(error = format!("{cause:#}"), "the log is unavailable");
            }
            Self::OutcomeUnknown(cause) => {
                warn!(error = format!("{cause:#}"), "it is not known what became of an event");
            }
            Self::DeliveryLog(cause) => {
                warn!(error = chain(cause), "the delivery log cannot be read");
            }
            Self::Internal(cause) => error!(error = format!("{cause:#}"), "a request failed"),
            Self::Plain(_)
            | Self::Detailed { .. }
            | Self::Value { .. }
            | Self::Url(_)
            | Self::EventRefused { .. } => {}
        }
    }
}

/// Says why the delivery log cannot be read, where that is of use to a caller.
pub(crate) fn why_unreadable(cause: &StoreError) -> String {
    match cause {
        // What the database says is for the log: addresses and names may be in it.
        StoreError::Database(_) => {
            String::from("the database is away, or no projector has made its tables yet")
        }
        StoreError::Moved
        | StoreError::Newer { .. }
        | StoreError::Older { .. }
        | StoreError::Unmade
        | StoreError::Foreign
        | StoreError::Unknown
        | StoreError::TooManyTypes
        | StoreError::Malformed { .. } => cause.to_string(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let code = self.code();
        let mut response = (code.status(), Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if code.asks_for_patience() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self::Plain(code)
    }
}

impl From<ReadError> for ApiError {
    fn from(cause: ReadError) -> Self {
        Self::Unavailable(cause.into())
    }
}

impl From<PublishError> for ApiError {
    fn from(cause: PublishError) -> Self {
        Self::Unavailable(cause.into())
    }
}

impl From<StoreError> for ApiError {
    fn from(cause: StoreError) -> Self {
        match cause {
            StoreError::TooManyTypes => Self::value("type", cause),
            StoreError::Database(_)
            | StoreError::Moved
            | StoreError::Newer { .. }
            | StoreError::Older { .. }
            | StoreError::Unmade
            | StoreError::Foreign
            | StoreError::Unknown
            | StoreError::Malformed { .. } => Self::DeliveryLog(cause),
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(cause: ChangeError) -> Self {
        match cause {
            ChangeError::Conflict { .. } => Self::Plain(Code::ChangedMeanwhile),
            ChangeError::Refused(PublishError::TooLarge { .. }) => Self::Plain(Code::BodyTooLarge),
            ChangeError::Refused(_) => Self::Unavailable(cause.into()),
        }
    }
}
