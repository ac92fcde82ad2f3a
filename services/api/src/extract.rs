//! What handlers take from a request, with every refusal as a problem.

use std::str::FromStr;

use axum::{
    body::{self, Bytes, HttpBody as _},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, Method, header, request::Parts},
};
use fanfare_domain::{DeliveryId, EndpointId, EventId, EventType, JobId, KeyId};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    app::{App, BODY_TIMEOUT},
    caller::path_param,
    error::{ApiError, Code},
    visit::Visit,
};

/// A body: JSON, with nothing in it that the operation does not know.
pub(crate) struct Body<T>(pub(crate) T);

/// A body that may be left out.
pub(crate) struct OptionalBody<T>(pub(crate) T);

/// The query.
pub(crate) struct Params<T>(pub(crate) T);

/// The id that ends the path's prefix, for example `{endpoint}`. One that is malformed stands for
/// nothing that there is.
pub(crate) struct PathId<T>(pub(crate) T);

/// An id that stands in paths.
pub(crate) trait IdInPath: FromStr + Send {
    /// The parameter's name.
    const PARAM: &'static str;
    /// What is said if there is no such thing.
    const NOT_FOUND: Code;
}

impl IdInPath for EndpointId {
    const PARAM: &'static str = "endpoint";
    const NOT_FOUND: Code = Code::EndpointNotFound;
}
impl IdInPath for KeyId {
    const PARAM: &'static str = "key";
    const NOT_FOUND: Code = Code::KeyNotFound;
}
impl IdInPath for EventId {
    const PARAM: &'static str = "event";
    const NOT_FOUND: Code = Code::EventNotFound;
}
impl IdInPath for EventType {
    const PARAM: &'static str = "event_type";
    const NOT_FOUND: Code = Code::EventTypeNotFound;
}
impl IdInPath for DeliveryId {
    const PARAM: &'static str = "delivery";
    const NOT_FOUND: Code = Code::DeliveryNotFound;
}

impl IdInPath for JobId {
    const PARAM: &'static str = "replay";
    const NOT_FOUND: Code = Code::ReplayNotFound;
}

impl IdInPath for AttemptNumber {
    const PARAM: &'static str = "attempt";
    const NOT_FOUND: Code = Code::AttemptNotFound;
}

/// The number of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptNumber(pub(crate) u32);

impl FromStr for AttemptNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl<T: IdInPath> FromRequestParts<App> for PathId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = path_param(parts, app, T::PARAM).await?;
        text.parse().map(Self).map_err(|_| T::NOT_FOUND.into())
    }
}

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Query(params) = Query::from_request_parts(parts, app)
            .await
            .map_err(|refused| ApiError::detailed(Code::QueryMalformed, refused.body_text()))?;
        Ok(Self(params))
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        json(request, app, app.body_bytes_max()).await.map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let is_json = is_json(request.method(), request.headers());
        let bytes = read(request, app, app.body_bytes_max()).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if !is_json {
            return Err(Code::MediaTypeUnsupported.into());
        }
        parse(&bytes).map(Self)
    }
}

/// Reads JSON.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let malformed = |why: serde_json::Error| {
        ApiError::detailed(Code::BodyMalformed, without_strings(&why.to_string()))
    };
    serde_json::from_slice(bytes).map_err(malformed)
}

/// Leaves out what a body says: it may be a secret in the wrong place, and refusals are logged by those
/// who get them.
fn without_strings(why: &str) -> String {
    let (quote, text) = match why.strip_prefix("unknown variant ") {
        // Behind it stand the variants that there are, in quotes like it.
        Some(rest) => ('`', rest.split('`').nth(1)),
        None => ('"', why.find('"').zip(why.rfind('"')).and_then(|(at, end)| why.get(at + 1..end))),
    };
    let Some(text) = text else { return String::from(why) };
    why.replacen(&format!(" {quote}{text}{quote}"), "", 1)
}

/// Reads a body of JSON.
pub(crate) async fn json<T: DeserializeOwned>(
    request: Request,
    app: &App,
    bytes_max: usize,
) -> Result<T, ApiError> {
    let is_json = is_json(request.method(), request.headers());
    let bytes = read(request, app, bytes_max).await?;
    if !is_json {
        return Err(Code::MediaTypeUnsupported.into());
    }
    parse(&bytes)
}

/// Reads a body, once there is room for it. Whose it is has to be known by then.
pub(crate) async fn read(request: Request, app: &App, bytes_max: usize) -> Result<Bytes, ApiError> {
    // What is too large is refused before it is read, where the caller says so.
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(Code::BodyTooLarge.into());
    }
    if !is_plain(request.headers()) {
        return Err(Code::MediaTypeUnsupported.into());
    }
    let (parts, body) = request.into_parts();
    let upper = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = upper.unwrap_or(bytes_max).min(bytes_max);
    Visit::of(&parts.extensions).make_room(app, &parts.extensions, bytes).await?;
    let read = body::to_bytes(body, bytes_max);
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(refused)) => Err(broken(&refused).into()),
        Err(_elapsed) => Err(Code::BodyTimedOut.into()),
    }
}

/// Tells a body that is too large from one that broke off.
fn broken(refused: &axum::Error) -> Code {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(refused);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return Code::BodyTooLarge;
        }
        cause = error.source();
    }
    Code::BodyMalformed
}

/// Tells whether a body is said to be JSON: once, and in no encoding but that of JSON. A patch may say
/// that it is one.
fn is_json(method: &Method, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let mut parts = value.to_str().unwrap_or_default().split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let is_patch =
        *method == Method::PATCH && essence.eq_ignore_ascii_case("application/merge-patch+json");
    let is_utf8 = |parameter: &str| {
        let known = ["charset=utf-8", "charset=\"utf-8\""];
        parameter.is_empty() || known.iter().any(|known| parameter.eq_ignore_ascii_case(known))
    };
    (essence.eq_ignore_ascii_case("application/json") || is_patch) && parts.all(is_utf8)
}

/// Tells whether a body is what it says without being decompressed first.
fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A member of a merge patch (RFC 7396). Needs `#[serde(default)]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Patched<T> {
    /// It is left out: what is there stays.
    #[default]
    Absent,
    /// It is `null`: what is there is taken away.
    Null,
    /// It is this.
    Value(T),
}

impl<T> Patched<T> {
    /// Returns what it is, if it is something.
    pub(crate) const fn value(&self) -> Option<&T> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }

    /// Changes a value as the patch says, by way of a check.
    pub(crate) fn apply<S>(
        &self,
        value: &mut Option<S>,
        check: impl FnOnce(&T) -> Result<S, ApiError>,
    ) -> Result<(), ApiError> {
        match self {
            Self::Absent => {}
            Self::Null => *value = None,
            Self::Value(new) => *value = Some(check(new)?),
        }
        Ok(())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patched<T> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        Option::deserialize(source).map(|value| value.map_or(Self::Null, Self::Value))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Role {
        Admin,
        Read,
    }

    #[test]
    fn only_json_is_json() {
        for (text, by_post, by_patch) in [
            ("application/json", true, true),
            ("Application/JSON; charset=utf-8", true, true),
            ("application/json;charset=\"UTF-8\";", true, true),
            ("application/merge-patch+json", false, true),
            ("application/json; charset=utf-16", false, false),
            ("application/json; charset=utf-7", false, false),
            ("application/json, text/html", false, false),
            ("application/json; boundary=x", false, false),
            ("application/jsonp", false, false),
            ("text/json", false, false),
            ("text/plain", false, false),
            ("application/x-www-form-urlencoded", false, false),
            ("", false, false),
        ] {
            let mut headers =
                HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))]);
            assert_eq!(is_json(&Method::POST, &headers), by_post, "{text}");
            assert_eq!(is_json(&Method::PATCH, &headers), by_patch, "{text}");
            headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            assert!(!is_json(&Method::POST, &headers), "twice, and first {text}");
        }
        assert!(!is_json(&Method::POST, &HeaderMap::new()));
    }

    #[test]
    fn a_refusal_says_what_was_expected_and_not_what_came() {
        let parsed = |text: &str| parse::<std::collections::BTreeMap<String, u8>>(text.as_bytes());
        for text in [r#""hunter2""#, r#"{"a":"hunter2"}"#, r#"{"a":"hun\"ter2 \" x"}"#] {
            let refused = parsed(text).unwrap_err().to_string();
            assert!(refused.contains("invalid type: string, expected"), "{refused}");
            assert!(!refused.contains("hun") && !refused.contains("ter2"), "{refused}");
        }
        let role = serde_json::from_str::<Patched<Role>>(r#""hunter2""#).unwrap_err().to_string();
        let expected = "unknown variant, expected `admin` or `read`";
        assert!(without_strings(&role).starts_with(expected), "{role}");
        assert!(parsed("{").unwrap_err().to_string().contains("EOF"));
    }

    #[test]
    fn nothing_is_decompressed() {
        for (text, expected) in [("identity", true), ("gzip", false), ("identity, br", false)] {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(text))]);
            assert_eq!(is_plain(&headers), expected, "{text}");
        }
        assert!(is_plain(&HeaderMap::new()));
    }
}
