//! The codes of problems.

use axum::http::StatusCode;
use fanfare_domain::url::UrlError;

/// What is wrong with a request.
///
/// | status | code | title |
/// | --- | --- | --- |
/// | 400 | `body_malformed` | The body is not the JSON that this operation takes. |
/// | 400 | `query_malformed` | The query is not what this operation takes. |
/// | 400 | `cursor_invalid` | The cursor is none that this list gave out. |
/// | 400 | `value_invalid` | A value is not admitted. |
/// | 400 | `profile_forbids` | The tenant's profile does not allow it. |
/// | 400 | `batch_unsupported` | The profile has no batches. |
/// | 400 | `batch_and_ordering` | An endpoint takes batches or wants order, not both. |
/// | 400 | `url_too_long` | The URL is too long. |
/// | 400 | `url_character_invalid` | The URL has a character that it cannot have. |
/// | 400 | `url_scheme_invalid` | The URL must begin with https:// or http://. |
/// | 400 | `url_https_required` | The URL must begin with https://. |
/// | 400 | `url_credentials_forbidden` | The URL has a user name or a password. |
/// | 400 | `url_fragment_forbidden` | The URL has a fragment. |
/// | 400 | `url_host_invalid` | The URL has no valid host and port. |
/// | 400 | `url_localhost_forbidden` | The URL leads to this machine. |
/// | 400 | `url_address_forbidden` | The URL's address is not allowed. |
/// | 400 | `url_port_forbidden` | The URL's port is not allowed. |
/// | 401 | `unauthenticated` | A valid API key is needed: Authorization: Bearer fk_… |
/// | 403 | `forbidden` | The API key does not allow this. |
/// | 404 | `not_found` | There is nothing at this path. |
/// | 404 | `tenant_not_found` | There is no such tenant. |
/// | 404 | `endpoint_not_found` | There is no such endpoint. |
/// | 404 | `key_not_found` | There is no such API key. |
/// | 404 | `event_not_found` | No event of this id has been routed. |
/// | 404 | `event_type_not_found` | There is no such event type in this catalogue. |
/// | 404 | `delivery_not_found` | There is no such delivery. |
/// | 404 | `attempt_not_found` | There is no such attempt. |
/// | 404 | `replay_not_found` | There is no such replay. |
/// | 405 | `method_not_allowed` | The path does not have this method. |
/// | 408 | `body_timed_out` | The body did not arrive in time. |
/// | 409 | `tenant_exists` | There is a tenant with this id. |
/// | 409 | `tenant_expunging` | The tenant of this id is being expunged: wait until that is done. |
/// | 409 | `tenant_expunged_recently` | The tenant of this id was expunged not long ago: its id rests. |
/// | 409 | `event_type_exists` | The event type is in this catalogue. |
/// | 409 | `event_types_limit` | The catalogue has no room for another event type. |
/// | 409 | `keys_limit` | There are as many API keys as there may be: delete some. |
/// | 409 | `tenant_not_empty` | The tenant has endpoints: delete them first. |
/// | 409 | `profile_fixed` | The tenant has endpoints, and so keeps its profile. |
/// | 409 | `active_endpoints_limit` | The profile allows no more active endpoints. |
/// | 409 | `endpoints_limit` | The tenant may have no more endpoints. |
/// | 409 | `endpoint_disabled` | The endpoint is disabled: enable it first. |
/// | 409 | `endpoint_paused` | The endpoint is paused: resume it first. |
/// | 409 | `endpoint_unvalidated` | The endpoint has not allowed us to send: validate it first. |
/// | 409 | `validation_refused` | The endpoint does not allow us to send. |
/// | 409 | `replays_limit` | The tenant has as many replays under way as it may: wait, or cancel some. |
/// | 409 | `delivery_concluded` | The delivery has ended. |
/// | 409 | `delivery_under_way` | The delivery has not ended. |
/// | 409 | `delivery_behind_others` | The delivery waits for its turn at the endpoint. |
/// | 409 | `changed_meanwhile` | It was changed by others at the same time: try again. |
/// | 409 | `idempotency_in_progress` | The first request with this Idempotency-Key is not answered yet: try again. |
/// | 409 | `idempotency_unknown` | The answer to the first request with this Idempotency-Key is not known: look, and use another key. |
/// | 410 | `place_gone` | It cannot be gone on from this place: begin anew, and look up what happened meanwhile. |
/// | 412 | `precondition_failed` | It has changed since the version that If-Match names. |
/// | 413 | `body_too_large` | The body is too large. |
/// | 415 | `media_type_unsupported` | The body must be application/json. |
/// | 422 | `event_refused` | The event cannot be taken. |
/// | 422 | `idempotency_reused` | The Idempotency-Key came with another request before. |
/// | 429 | `streams_limit` | Too many streams are open: try again later. |
/// | 429 | `rate_limited` | Requests come faster than they may: wait as long as Retry-After says. |
/// | 429 | `too_often` | This is asked for too often: try again later. |
/// | 500 | `internal` | Something went wrong on our side. |
/// | 503 | `unavailable` | The service cannot do this at the moment: try again. |
/// | 503 | `busy` | Too much of this kind is under way: try again. |
/// | 503 | `timed_out` | The request took too long. |
/// | 503 | `journal_too_long` | There is too much to read for one request. |
/// | 503 | `delivery_log_unavailable` | The delivery log cannot be read at the moment; deliveries are made all the same. |
/// | 504 | `outcome_unknown` | It is not known whether the event was taken: publish it again with the same Idempotency-Key. |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    BodyMalformed,
    QueryMalformed,
    CursorInvalid,
    ValueInvalid,
    ProfileForbids,
    BatchUnsupported,
    BatchAndOrdering,
    UrlTooLong,
    UrlCharacter,
    UrlScheme,
    UrlHttpsRequired,
    UrlCredentials,
    UrlFragment,
    UrlHost,
    UrlLocalhost,
    UrlAddress,
    UrlPort,
    Unauthenticated,
    Forbidden,
    NotFound,
    TenantNotFound,
    EndpointNotFound,
    KeyNotFound,
    EventNotFound,
    EventTypeNotFound,
    DeliveryNotFound,
    AttemptNotFound,
    ReplayNotFound,
    MethodNotAllowed,
    BodyTimedOut,
    TenantExists,
    TenantExpunging,
    TenantExpungedRecently,
    EventTypeExists,
    EventTypesLimit,
    KeysLimit,
    TenantNotEmpty,
    ProfileFixed,
    ActiveEndpointsLimit,
    EndpointsLimit,
    EndpointDisabled,
    EndpointPaused,
    EndpointUnvalidated,
    ValidationRefused,
    ReplaysLimit,
    DeliveryConcluded,
    DeliveryUnderWay,
    DeliveryBehindOthers,
    ChangedMeanwhile,
    IdempotencyInProgress,
    IdempotencyUnknown,
    PlaceGone,
    PreconditionFailed,
    BodyTooLarge,
    MediaTypeUnsupported,
    EventRefused,
    IdempotencyReused,
    StreamsLimit,
    RateLimited,
    TooOften,
    Internal,
    Unavailable,
    Busy,
    TimedOut,
    JournalTooLong,
    DeliveryLogUnavailable,
    OutcomeUnknown,
}

impl Code {
    /// Returns the code of an endpoint's URL that is not admitted.
    pub(crate) const fn of_url(refused: &UrlError) -> Self {
        match refused {
            UrlError::TooLong => Self::UrlTooLong,
            UrlError::Character => Self::UrlCharacter,
            UrlError::Scheme => Self::UrlScheme,
            UrlError::HttpsRequired => Self::UrlHttpsRequired,
            UrlError::Credentials => Self::UrlCredentials,
            UrlError::Fragment => Self::UrlFragment,
            UrlError::Host => Self::UrlHost,
            UrlError::Localhost => Self::UrlLocalhost,
            UrlError::Forbidden(_) => Self::UrlAddress,
            UrlError::Port(_) => Self::UrlPort,
        }
    }

    /// Tells whether the same request may fare better a second later.
    pub(crate) const fn asks_for_patience(self) -> bool {
        matches!(
            self,
            Self::TooOften | Self::Unavailable | Self::Busy | Self::DeliveryLogUnavailable
        )
    }

    /// Returns the HTTP status.
    pub(crate) const fn status(self) -> StatusCode {
        self.row().0
    }

    /// Returns the stable name.
    pub(crate) const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Returns what it means, for people.
    pub(crate) const fn title(self) -> &'static str {
        self.row().2
    }

    #[rustfmt::skip]
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BodyMalformed => (StatusCode::BAD_REQUEST, "body_malformed", "The body is not the JSON that this operation takes."),
            Self::QueryMalformed => (StatusCode::BAD_REQUEST, "query_malformed", "The query is not what this operation takes."),
            Self::CursorInvalid => (StatusCode::BAD_REQUEST, "cursor_invalid", "The cursor is none that this list gave out."),
            Self::ValueInvalid => (StatusCode::BAD_REQUEST, "value_invalid", "A value is not admitted."),
            Self::ProfileForbids => (StatusCode::BAD_REQUEST, "profile_forbids", "The tenant's profile does not allow it."),
            Self::BatchUnsupported => (StatusCode::BAD_REQUEST, "batch_unsupported", "The profile has no batches."),
            Self::BatchAndOrdering => (StatusCode::BAD_REQUEST, "batch_and_ordering", "An endpoint takes batches or wants order, not both."),
            Self::UrlTooLong => (StatusCode::BAD_REQUEST, UrlError::TooLong.as_str(), "The URL is too long."),
            Self::UrlCharacter => (StatusCode::BAD_REQUEST, UrlError::Character.as_str(), "The URL has a character that it cannot have."),
            Self::UrlScheme => (StatusCode::BAD_REQUEST, UrlError::Scheme.as_str(), "The URL must begin with https:// or http://."),
            Self::UrlHttpsRequired => (StatusCode::BAD_REQUEST, UrlError::HttpsRequired.as_str(), "The URL must begin with https://."),
            Self::UrlCredentials => (StatusCode::BAD_REQUEST, UrlError::Credentials.as_str(), "The URL has a user name or a password."),
            Self::UrlFragment => (StatusCode::BAD_REQUEST, UrlError::Fragment.as_str(), "The URL has a fragment."),
            Self::UrlHost => (StatusCode::BAD_REQUEST, UrlError::Host.as_str(), "The URL has no valid host and port."),
            Self::UrlLocalhost => (StatusCode::BAD_REQUEST, UrlError::Localhost.as_str(), "The URL leads to this machine."),
            Self::UrlAddress => (StatusCode::BAD_REQUEST, "url_address_forbidden", "The URL's address is not allowed."),
            Self::UrlPort => (StatusCode::BAD_REQUEST, UrlError::Port(0).as_str(), "The URL's port is not allowed."),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "A valid API key is needed: Authorization: Bearer fk_…"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "The API key does not allow this."),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is nothing at this path."),
            Self::TenantNotFound => (StatusCode::NOT_FOUND, "tenant_not_found", "There is no such tenant."),
            Self::EndpointNotFound => (StatusCode::NOT_FOUND, "endpoint_not_found", "There is no such endpoint."),
            Self::KeyNotFound => (StatusCode::NOT_FOUND, "key_not_found", "There is no such API key."),
            Self::EventNotFound => (StatusCode::NOT_FOUND, "event_not_found", "No event of this id has been routed."),
            Self::EventTypeNotFound => (StatusCode::NOT_FOUND, "event_type_not_found", "There is no such event type in this catalogue."),
            Self::DeliveryNotFound => (StatusCode::NOT_FOUND, "delivery_not_found", "There is no such delivery."),
            Self::AttemptNotFound => (StatusCode::NOT_FOUND, "attempt_not_found", "There is no such attempt."),
            Self::ReplayNotFound => (StatusCode::NOT_FOUND, "replay_not_found", "There is no such replay."),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The path does not have this method."),
            Self::BodyTimedOut => (StatusCode::REQUEST_TIMEOUT, "body_timed_out", "The body did not arrive in time."),
            Self::TenantExists => (StatusCode::CONFLICT, "tenant_exists", "There is a tenant with this id."),
            Self::TenantExpunging => (StatusCode::CONFLICT, "tenant_expunging", "The tenant of this id is being expunged: wait until that is done."),
            Self::TenantExpungedRecently => (StatusCode::CONFLICT, "tenant_expunged_recently", "The tenant of this id was expunged not long ago: its id rests."),
            Self::EventTypeExists => (StatusCode::CONFLICT, "event_type_exists", "The event type is in this catalogue."),
            Self::EventTypesLimit => (StatusCode::CONFLICT, "event_types_limit", "The catalogue has no room for another event type."),
            Self::KeysLimit => (StatusCode::CONFLICT, "keys_limit", "There are as many API keys as there may be: delete some."),
            Self::TenantNotEmpty => (StatusCode::CONFLICT, "tenant_not_empty", "The tenant has endpoints: delete them first."),
            Self::ProfileFixed => (StatusCode::CONFLICT, "profile_fixed", "The tenant has endpoints, and so keeps its profile."),
            Self::ActiveEndpointsLimit => (StatusCode::CONFLICT, "active_endpoints_limit", "The profile allows no more active endpoints."),
            Self::EndpointsLimit => (StatusCode::CONFLICT, "endpoints_limit", "The tenant may have no more endpoints."),
            Self::EndpointDisabled => (StatusCode::CONFLICT, "endpoint_disabled", "The endpoint is disabled: enable it first."),
            Self::EndpointPaused => (StatusCode::CONFLICT, "endpoint_paused", "The endpoint is paused: resume it first."),
            Self::EndpointUnvalidated => (StatusCode::CONFLICT, "endpoint_unvalidated", "The endpoint has not allowed us to send: validate it first."),
            Self::ValidationRefused => (StatusCode::CONFLICT, "validation_refused", "The endpoint does not allow us to send."),
            Self::ReplaysLimit => (StatusCode::CONFLICT, "replays_limit", "The tenant has as many replays under way as it may: wait, or cancel some."),
            Self::DeliveryConcluded => (StatusCode::CONFLICT, "delivery_concluded", "The delivery has ended."),
            Self::DeliveryUnderWay => (StatusCode::CONFLICT, "delivery_under_way", "The delivery has not ended."),
            Self::DeliveryBehindOthers => (StatusCode::CONFLICT, "delivery_behind_others", "The delivery waits for its turn at the endpoint."),
            Self::ChangedMeanwhile => (StatusCode::CONFLICT, "changed_meanwhile", "It was changed by others at the same time: try again."),
            Self::IdempotencyInProgress => (StatusCode::CONFLICT, "idempotency_in_progress", "The first request with this Idempotency-Key is not answered yet: try again."),
            Self::IdempotencyUnknown => (StatusCode::CONFLICT, "idempotency_unknown", "The answer to the first request with this Idempotency-Key is not known: look, and use another key."),
            Self::PlaceGone => (StatusCode::GONE, "place_gone", "It cannot be gone on from this place: begin anew, and look up what happened meanwhile."),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed", "It has changed since the version that If-Match names."),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large."),
            Self::MediaTypeUnsupported => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type_unsupported", "The body must be application/json."),
            Self::EventRefused => (StatusCode::UNPROCESSABLE_ENTITY, "event_refused", "The event cannot be taken."),
            Self::IdempotencyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_reused", "The Idempotency-Key came with another request before."),
            Self::StreamsLimit => (StatusCode::TOO_MANY_REQUESTS, "streams_limit", "Too many streams are open: try again later."),
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Requests come faster than they may: wait as long as Retry-After says."),
            Self::TooOften => (StatusCode::TOO_MANY_REQUESTS, "too_often", "This is asked for too often: try again later."),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side."),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service cannot do this at the moment: try again."),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Too much of this kind is under way: try again."),
            Self::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "timed_out", "The request took too long."),
            Self::JournalTooLong => (StatusCode::SERVICE_UNAVAILABLE, "journal_too_long", "There is too much to read for one request."),
            Self::DeliveryLogUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "delivery_log_unavailable", "The delivery log cannot be read at the moment; deliveries are made all the same."),
            Self::OutcomeUnknown => (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", "It is not known whether the event was taken: publish it again with the same Idempotency-Key."),
        }
    }
}

#[cfg(test)]
impl Code {
    /// Every code, in the order of the table.
    pub(crate) const ALL: [Self; 67] = [
        Self::BodyMalformed,
        Self::QueryMalformed,
        Self::CursorInvalid,
        Self::ValueInvalid,
        Self::ProfileForbids,
        Self::BatchUnsupported,
        Self::BatchAndOrdering,
        Self::UrlTooLong,
        Self::UrlCharacter,
        Self::UrlScheme,
        Self::UrlHttpsRequired,
        Self::UrlCredentials,
        Self::UrlFragment,
        Self::UrlHost,
        Self::UrlLocalhost,
        Self::UrlAddress,
        Self::UrlPort,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::TenantNotFound,
        Self::EndpointNotFound,
        Self::KeyNotFound,
        Self::EventNotFound,
        Self::EventTypeNotFound,
        Self::DeliveryNotFound,
        Self::AttemptNotFound,
        Self::ReplayNotFound,
        Self::MethodNotAllowed,
        Self::BodyTimedOut,
        Self::TenantExists,
        Self::TenantExpunging,
        Self::TenantExpungedRecently,
        Self::EventTypeExists,
        Self::EventTypesLimit,
        Self::KeysLimit,
        Self::TenantNotEmpty,
        Self::ProfileFixed,
        Self::ActiveEndpointsLimit,
        Self::EndpointsLimit,
        Self::EndpointDisabled,
        Self::EndpointPaused,
        Self::EndpointUnvalidated,
        Self::ValidationRefused,
        Self::ReplaysLimit,
        Self::DeliveryConcluded,
        Self::DeliveryUnderWay,
        Self::DeliveryBehindOthers,
        Self::ChangedMeanwhile,
        Self::IdempotencyInProgress,
        Self::IdempotencyUnknown,
        Self::PlaceGone,
        Self::PreconditionFailed,
        Self::BodyTooLarge,
        Self::MediaTypeUnsupported,
        Self::EventRefused,
        Self::IdempotencyReused,
        Self::StreamsLimit,
        Self::RateLimited,
        Self::TooOften,
        Self::Internal,
        Self::Unavailable,
        Self::Busy,
        Self::TimedOut,
        Self::JournalTooLong,
        Self::DeliveryLogUnavailable,
        Self::OutcomeUnknown,
    ];
}
