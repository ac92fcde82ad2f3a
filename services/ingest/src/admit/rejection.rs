//! Why ingest refuses a message.

use std::fmt;

use fanfare_domain::{body::DataRefused, json::Refused};

/// The most characters of a detail.
const DETAIL_MAX: usize = 300;

/// A message that does not become an event, now or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Which kind of refusal.
    pub(crate) reason: Reason,
    /// What is wrong, for people. One line.
    pub(crate) detail: String,
}

/// The kinds of refusal. Names and codes are part of the interface, and stay as they are.
///
/// | name | code | when |
/// | ---- | ---- | ---- |
/// | `unknown_tenant` | 404 | there is no such tenant |
/// | `unknown_profile` | 422 | the tenant's profile is not known to ingest, or unusable |
/// | `malformed_type` | 400 | the event type is malformed |
/// | `unknown_event_type` | 422 | the event type is in no catalogue, and the tenant refuses such |
/// | `schema_violation` | 422 | the data does not follow the schema of its event type |
/// | `type_not_representable` | 422 | the tenant's profile cannot carry the event type |
/// | `too_large` | 413 | the data, or the message around it, is too large |
/// | `invalid_utf8` | 400 | the data is not UTF-8 |
/// | `invalid_json` | 400 | the data is not one JSON value |
/// | `too_deep` | 400 | arrays and objects are nested too deep |
/// | `duplicate_key` | 400 | an object has a key twice |
/// | `number_not_representable` | 422 | the tenant's profile cannot carry a number exactly |
/// | `unsupported_content_type` | 415 | the data is something else than JSON |
/// | `malformed_cloudevent` | 400 | it does not follow CloudEvents 1.0 |
/// | `malformed_protobuf` | 400 | it is not a `fanfare.v1.InboxEvent` |
/// | `malformed_header` | 400 | a header, or what stands for it in the payload, is malformed, too long or given twice |
/// | `internal_error` | 500 | judging it failed: a defect of ours, worth a report |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    UnknownTenant,
    UnknownProfile,
    MalformedType,
    UnknownEventType,
    SchemaViolation,
    TypeNotRepresentable,
    TooLarge,
    InvalidUtf8,
    InvalidJson,
    TooDeep,
    DuplicateKey,
    NumberNotRepresentable,
    UnsupportedContentType,
    MalformedCloudEvent,
    MalformedProtobuf,
    MalformedHeader,
    InternalError,
}

impl Reason {
    /// Every reason, in the order of declaration.
    pub(crate) const ALL: [Self; 17] = [
        Self::UnknownTenant,
        Self::UnknownProfile,
        Self::MalformedType,
        Self::UnknownEventType,
        Self::SchemaViolation,
        Self::TypeNotRepresentable,
        Self::TooLarge,
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::TooDeep,
        Self::DuplicateKey,
        Self::NumberNotRepresentable,
        Self::UnsupportedContentType,
        Self::MalformedCloudEvent,
        Self::MalformedProtobuf,
        Self::MalformedHeader,
        Self::InternalError,
    ];

    /// Returns the stable name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTenant => "unknown_tenant",
            Self::UnknownProfile => "unknown_profile",
            Self::MalformedType => "malformed_type",
            Self::UnknownEventType => "unknown_event_type",
            Self::SchemaViolation => "schema_violation",
            Self::TypeNotRepresentable => "type_not_representable",
            Self::TooLarge => "too_large",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::TooDeep => "too_deep",
            Self::DuplicateKey => "duplicate_key",
            Self::NumberNotRepresentable => "number_not_representable",
            Self::UnsupportedContentType => "unsupported_content_type",
            Self::MalformedCloudEvent => "malformed_cloudevent",
            Self::MalformedProtobuf => "malformed_protobuf",
            Self::MalformedHeader => "malformed_header",
            Self::InternalError => "internal_error",
        }
    }

    /// Returns what it would be as an HTTP status.
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::UnknownTenant => 404,
            Self::TooLarge => 413,
            Self::UnsupportedContentType => 415,
            Self::UnknownProfile
            | Self::UnknownEventType
            | Self::SchemaViolation
            | Self::TypeNotRepresentable
            | Self::NumberNotRepresentable => 422,
            Self::MalformedType
            | Self::InvalidUtf8
            | Self::InvalidJson
            | Self::TooDeep
            | Self::DuplicateKey
            | Self::MalformedCloudEvent
            | Self::MalformedProtobuf
            | Self::MalformedHeader => 400,
            Self::InternalError => 500,
        }
    }

    /// Rejects for this reason. What a producer sent may be part of the detail: it is made one
    /// line of bounded length.
    pub(crate) fn because(self, detail: impl fmt::Display) -> Rejection {
        let plain = |symbol: char| if symbol.is_control() { '\u{fffd}' } else { symbol };
        let detail = detail.to_string().chars().map(plain).take(DETAIL_MAX).collect();
        Rejection { reason: self, detail }
    }
}

impl From<DataRefused> for Rejection {
    fn from(refused: DataRefused) -> Self {
        match &refused {
            DataRefused::Json(json) => return json.into(),
            DataRefused::Number(_) => Reason::NumberNotRepresentable,
        }
        .because(&refused)
    }
}

impl From<&Refused> for Rejection {
    fn from(refused: &Refused) -> Self {
        use fanfare_domain::json::Malformed;

        match refused {
            Refused::TooLarge { .. } => Reason::TooLarge,
            Refused::Malformed(Malformed::NotUtf8 { .. }) => Reason::InvalidUtf8,
            Refused::Malformed(Malformed::NotJson { .. }) => Reason::InvalidJson,
            Refused::TooDeep { .. } => Reason::TooDeep,
            Refused::DuplicateKey { .. } => Reason::DuplicateKey,
        }
        .because(refused)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn a_detail_is_one_line_of_bounded_length() {
        let rejection = Reason::InvalidJson.because("a\r\nNats-Rollup: all\u{1b}[31m".repeat(50));
        assert!(!rejection.detail.contains(char::is_control));
        assert_eq!(rejection.detail.chars().count(), DETAIL_MAX);
    }
}
