//! Versions of things, and the refusal to lose somebody else's change (RFC 9110, section 13.1.1).
//!
//! The version of a thing is its revision in CONFIG: `ETag: "42"`.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header, request::Parts},
};

use crate::error::{ApiError, Code};

/// The versions that a change may be made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// The caller does not say: whatever is there is changed.
    #[default]
    Absent,
    /// Any version, but there has to be one.
    Any,
    /// One of these. Tags that are no revisions of ours match nothing.
    Revisions(Vec<u64>),
}

impl IfMatch {
    /// Admits the version that is there.
    pub(crate) fn admit(&self, revision: u64) -> Result<(), ApiError> {
        match self {
            Self::Absent | Self::Any => Ok(()),
            Self::Revisions(named) if named.contains(&revision) => Ok(()),
            Self::Revisions(_) => Err(Code::PreconditionFailed.into()),
        }
    }

    fn parse(text: &str) -> Self {
        if text.trim() == "*" {
            return Self::Any;
        }
        let revision = |tag: &str| tag.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok();
        Self::Revisions(text.split(',').filter_map(revision).collect())
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let text = |value: &HeaderValue| String::from(value.to_str().unwrap_or_default());
        let values: Vec<String> =
            parts.headers.get_all(header::IF_MATCH).iter().map(text).collect();
        Ok(if values.is_empty() { Self::Absent } else { Self::parse(&values.join(",")) })
    }
}

/// Returns the tag of a version.
pub(crate) fn tag(revision: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).expect("digits and quotes are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_versions_are_changed() {
        for (text, admitted) in [
            ("\"7\"", true),
            ("*", true),
            (" \"6\" , \"7\"", true),
            ("\"8\"", false),
            ("W/\"7\"", false),
            ("7", false),
            ("", false),
            ("\"x\"", false),
        ] {
            assert_eq!(IfMatch::parse(text).admit(7).is_ok(), admitted, "{text}");
        }
        assert!(IfMatch::Absent.admit(7).is_ok());
    }

    #[test]
    fn a_tag_is_read_back() {
        assert_eq!(IfMatch::parse(tag(42).to_str().unwrap()), IfMatch::Revisions(vec![42]));
    }
}
