//! Publishing events: passed on to ingest, which answers once they are stored. Looking at events:
//! see [`log`].

pub(crate) mod batch;
pub(crate) mod log;

use std::{collections::BTreeMap, time::Duration};

use anyhow::anyhow;
use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use fanfare_domain::{EventId, EventType, TenantId, Timestamp};
use fanfare_event_log::{
    Headers, InboxMessage, PublishAnswer, PublishRequestError, topology::header,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::{InTenant, Publishes},
    error::{ApiError, Code},
    extract::Body,
    limits, repeat,
};

/// Where single events are published.
pub(crate) const PATH: &str = "/v1/tenants/{tenant}/events";
/// How long ingest may take to answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long the event is looked for that a key stands for.
const LOOK: Duration = Duration::from_secs(2);
/// How far the clocks of two machines may be apart, for that look.
const SKEW: Duration = Duration::from_secs(5);
/// The longest idempotency key and ordering key, in bytes.
const KEY_BYTES_MAX: usize = 256;
/// The most attributes of an event.
const ATTRIBUTES_MAX: usize = 32;
/// The longest name of an attribute, in bytes.
const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;
/// The longest value of an attribute, in bytes.
const ATTRIBUTE_VALUE_BYTES_MAX: usize = 1_024;

/// An event to be published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEvent {
    /// What kind of thing happened: dot-separated words.
    #[serde(rename = "type")]
    #[schema(example = "invoice.paid")]
    event_type: String,
    /// What happened: any JSON value, kept byte for byte.
    #[schema(value_type = serde_json::Value, example = json!({"invoice": 7}))]
    data: Box<RawValue>,
    /// When it happened (RFC 3339); its acceptance if left out.
    #[schema(format = DateTime)]
    occurred_at: Option<String>,
    /// Events with the same key keep their order, as long as each is published once the one before
    /// is answered. Up to 256 bytes.
    ordering_key: Option<String>,
    /// The same as the header `Idempotency-Key`, of which only one can be given. Up to 256 bytes.
    idempotency_key: Option<String>,
    /// Short facts about the event beside its data: up to 32, with names of `a-z 0-9 - _ .` and
    /// values of up to 1,024 bytes.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcceptedEvent {
    /// Identifies the event.
    #[schema(example = "evt_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: String,
    /// Whether it was accepted before, under the same idempotency key.
    duplicate: bool,
}

/// Publishes an event. Once it is answered, the event is stored, and every endpoint that wants it
/// gets it.
///
/// The limits are those of events that come by way of NATS: data of up to 512 KiB, unless ingest is
/// told otherwise.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/events", tag = "events", request_body = NewEvent,
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "Of several events with the same key within a day, one is accepted, and \
                all are answered with its id; one of another type or with other data is refused. Up \
                to 256 bytes"),
        ("traceparent" = Option<String>, Header, description = "The trace that the event belongs to"),
    ),
    responses((status = 202, body = AcceptedEvent)),
)]
pub(crate) async fn publish_event(
    State(app): State<App>,
    access: InTenant<Publishes>,
    headers: HeaderMap,
    Body(new): Body<NewEvent>,
) -> Result<(StatusCode, Json<AcceptedEvent>), ApiError> {
    let message = message(access.id().as_str(), &headers, new)?;
    let accepted = publish(&app, &message, TIMEOUT).await?;
    if accepted.duplicate {
        refuse_other(&app, access.id(), &message, &accepted).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Returns how large the body of a request to a path may be, in bytes.
pub(crate) fn bytes_max(app: &App, path: &str) -> usize {
    if path == batch::PATH { batch::BYTES_MAX } else { app.body_bytes_max() }
}

/// Has ingest take an event.
async fn publish(
    app: &App,
    message: &InboxMessage,
    timeout: Duration,
) -> Result<AcceptedEvent, ApiError> {
    match app.log.publish_request(message, timeout).await.map_err(refused)? {
        PublishAnswer::Accepted { event, duplicate } => {
            Ok(AcceptedEvent { id: event.to_string(), duplicate })
        }
        PublishAnswer::Refused { code, reason, detail } => Err(match code {
            404 => Code::TenantNotFound.into(),
            413 => ApiError::detailed(Code::BodyTooLarge, detail),
            500.. => ApiError::Internal(anyhow!("{reason}: {detail}")),
            _ => ApiError::EventRefused { reason: reason.into_owned(), detail },
        }),
        PublishAnswer::Unavailable { detail } => Err(ApiError::Unavailable(anyhow!(detail))),
    }
}

/// Refuses an event that is another one than the one that its key stands for. If that one is not
/// found soon, the two count as the same, as everywhere else.
async fn refuse_other(
    app: &App,
    tenant: &TenantId,
    message: &InboxMessage,
    accepted: &AcceptedEvent,
) -> Result<(), ApiError> {
    let Ok(id) = accepted.id.parse::<EventId>() else { return Ok(()) };
    let look = app.log.event_on_record(tenant, id, id.time().saturating_sub(SKEW));
    let Ok(Ok(Some(first))) = tokio::time::timeout(LOOK, look).await else { return Ok(()) };
    let same = first.event.event_type.as_str() == message.event_type
        && first.event.data == message.payload;
    if same { Ok(()) } else { Err(Code::IdempotencyReused.into()) }
}

/// Makes the message that a producer on NATS would have sent.
fn message(tenant: &str, headers: &HeaderMap, new: NewEvent) -> Result<InboxMessage, ApiError> {
    let event_type: EventType =
        new.event_type.parse().map_err(|why| ApiError::value("type", why))?;
    let mut pairs = vec![pair(header::CONTENT_TYPE, "application/json")];
    if let Some(at) = new.occurred_at {
        Timestamp::parse(&at)
            .ok_or_else(|| ApiError::value("occurred_at", "it is not a time as of RFC 3339"))?;
        pairs.push((String::from(header::OCCURRED_AT), at));
    }
    if let Some(key) = new.ordering_key {
        limits::line("ordering_key", &key, KEY_BYTES_MAX)?;
        pairs.push((String::from(header::ORDERING_KEY), key));
    }
    if let Some(key) = idempotency_key(headers, new.idempotency_key)? {
        pairs.push((String::from(header::IDEMPOTENCY_KEY), key));
    }
    pairs.extend(attributes(new.attributes)?);
    for name in [header::TRACEPARENT, header::TRACESTATE] {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        pairs.extend(value.map(|value| pair(name, value)));
    }
    let payload = Bytes::from(String::from(Box::<str>::from(new.data)));
    Ok(InboxMessage {
        tenant: String::from(tenant),
        event_type: String::from(event_type.as_str()),
        headers: Headers::new(pairs),
        payload,
    })
}

fn idempotency_key(
    headers: &HeaderMap,
    member: Option<String>,
) -> Result<Option<String>, ApiError> {
    let (field, key) = match (headers.get(repeat::HEADER), member) {
        (None, None) => return Ok(None),
        (None, Some(key)) => ("idempotency_key", key),
        (Some(_), Some(_)) => {
            return Err(ApiError::value("idempotency_key", "it is given as a header too"));
        }
        (Some(value), None) => {
            let key = value.to_str().map_err(|why| ApiError::value("Idempotency-Key", why))?;
            ("Idempotency-Key", String::from(key))
        }
    };
    limits::line(field, &key, KEY_BYTES_MAX)?;
    Ok(Some(key))
}

fn attributes(attributes: BTreeMap<String, String>) -> Result<Vec<(String, String)>, ApiError> {
    if attributes.len() > ATTRIBUTES_MAX {
        let why = format!("{} are more than {ATTRIBUTES_MAX}", attributes.len());
        return Err(ApiError::value("attributes", why));
    }
    let admitted =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let mut pairs = Vec::new();
    for (name, value) in attributes {
        limits::line("attributes", &name, ATTRIBUTE_NAME_BYTES_MAX)?;
        if !name.bytes().all(admitted) {
            return Err(ApiError::value("attributes", "a name has a-z, 0-9, -, _ and . only"));
        }
        if !value.is_empty() {
            limits::line("attributes", &value, ATTRIBUTE_VALUE_BYTES_MAX)?;
        }
        pairs.push((format!("{}{name}", header::ATTRIBUTE_PREFIX), value));
    }
    Ok(pairs)
}

fn pair(name: &str, value: &str) -> (String, String) {
    (String::from(name), String::from(value))
}

fn refused(cause: PublishRequestError) -> ApiError {
    match cause {
        PublishRequestError::MalformedHeader { name } => {
            ApiError::value(name, "it cannot be carried")
        }
        PublishRequestError::TooLarge => Code::BodyTooLarge.into(),
        PublishRequestError::TimedOut | PublishRequestError::UnreadableAnswer => {
            ApiError::OutcomeUnknown(cause.into())
        }
        PublishRequestError::MalformedSubject => ApiError::Internal(cause.into()),
        PublishRequestError::Unsent { .. } => ApiError::Unavailable(cause.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(json: &str) -> NewEvent {
        serde_json::from_str(json).unwrap()
    }

    fn code(result: Result<InboxMessage, ApiError>) -> Code {
        result.unwrap_err().code()
    }

    #[test]
    fn data_is_passed_on_byte_for_byte() {
        let json =
            r#"{"type":"a.b","data":{"n": 1.10e2,  "big":12345678901234567890,"u":"\u00e9"}}"#;
        let message = message("acme", &HeaderMap::new(), new(json)).unwrap();
        let data = r#"{"n": 1.10e2,  "big":12345678901234567890,"u":"\u00e9"}"#;
        assert_eq!(message.payload, data);
        assert_eq!((message.tenant.as_str(), message.event_type.as_str()), ("acme", "a.b"));
    }

    #[test]
    fn what_stands_beside_the_data_becomes_headers() {
        let json = r#"{"type":"a","data":null,"occurred_at":"2026-11-22T06:15:03Z",
            "ordering_key":"o","attributes":{"region":"eu"}}"#;
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", "k".parse().unwrap());
        headers.insert("traceparent", "00-x".parse().unwrap());
        headers.insert("nats-rollup", "all".parse().unwrap());
        let message = message("acme", &headers, new(json)).unwrap();
        for (name, value) in [
            (header::IDEMPOTENCY_KEY, "k"),
            (header::OCCURRED_AT, "2026-11-22T06:15:03Z"),
            (header::ORDERING_KEY, "o"),
            ("Fanfare-Attribute-region", "eu"),
            (header::TRACEPARENT, "00-x"),
        ] {
            assert_eq!(message.headers.get(name), Some(value), "{name}");
        }
        assert_eq!(message.headers.get("nats-rollup"), None);
    }

    #[test]
    fn what_nats_would_carry_is_taken() {
        let value = "v".repeat(1_024);
        let json = format!(r#"{{"type":"a","data":1,"attributes":{{"a":"{value}","b":""}}}}"#);
        let message = message("acme", &HeaderMap::new(), new(&json)).unwrap();
        assert_eq!(message.headers.get("Fanfare-Attribute-a"), Some(value.as_str()));
        assert_eq!(message.headers.get("Fanfare-Attribute-b"), Some(""));
    }

    #[test]
    fn what_could_break_a_header_is_refused() {
        let long = "k".repeat(257);
        for json in [
            r#"{"type":"a","data":1,"ordering_key":"a\r\nNats-Rollup: all"}"#,
            r#"{"type":"a","data":1,"ordering_key":""}"#,
            r#"{"type":"a","data":1,"attributes":{"a:b":"x"}}"#,
            r#"{"type":"a","data":1,"attributes":{"a":"x\ny"}}"#,
            r#"{"type":"a","data":1,"occurred_at":"yesterday"}"#,
            r#"{"type":"a.>","data":1}"#,
            &format!(r#"{{"type":"a","data":1,"ordering_key":"{long}"}}"#),
        ] {
            assert_eq!(
                code(message("acme", &HeaderMap::new(), new(json))),
                Code::ValueInvalid,
                "{json}"
            );
        }
        let headers = HeaderMap::from_iter([(
            axum::http::HeaderName::from_static("idempotency-key"),
            long.parse().unwrap(),
        )]);
        let event = new(r#"{"type":"a","data":1}"#);
        assert_eq!(code(message("acme", &headers, event)), Code::ValueInvalid);
    }
}
