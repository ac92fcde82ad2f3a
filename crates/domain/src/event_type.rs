//! Event types, and the patterns by which endpoints choose them.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of a kind of event: dot-separated tokens, for example `invoice.paid`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Arc<str>);

/// Text that is not an event type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event type is 1 to {max} bytes of dot-separated tokens of a-z A-Z 0-9 - _, for example invoice.paid", max = EventType::LENGTH_MAX)]
pub struct MalformedEventType;

fn is_token(token: &str) -> bool {
    !token.is_empty()
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

impl EventType {
    /// The longest type, in bytes.
    pub const LENGTH_MAX: usize = 128;

    /// Returns the type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the type as text that is not copied.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Returns the tokens between the dots.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl FromStr for EventType {
    type Err = MalformedEventType;

    fn from_str(text: &str) -> Result<Self, MalformedEventType> {
        let admitted = text.len() <= Self::LENGTH_MAX && text.split('.').all(is_token);
        if admitted { Ok(Self(Arc::from(text))) } else { Err(MalformedEventType) }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Chooses event types, with NATS wildcards: `*` stands for one token, a last `>` for one or more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypePattern(Arc<str>);

/// Text that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pattern is an event type in which * stands for one token and a last > for the rest, for example invoice.* or >"
)]
pub struct MalformedPattern;

impl TypePattern {
    /// Returns the pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the tokens between the dots, wildcards included.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Tells whether the pattern chooses the type.
    pub fn matches(&self, event_type: &EventType) -> bool {
        let mut tokens = event_type.tokens();
        for wanted in self.tokens() {
            let Some(token) = tokens.next() else { return false };
            if wanted == ">" {
                return true;
            }
            if wanted != "*" && wanted != token {
                return false;
            }
        }
        tokens.next().is_none()
    }
}

impl FromStr for TypePattern {
    type Err = MalformedPattern;

    fn from_str(text: &str) -> Result<Self, MalformedPattern> {
        let last = text.split('.').count() - 1;
        let admitted = text.len() <= EventType::LENGTH_MAX
            && text
                .split('.')
                .enumerate()
                .all(|(at, token)| is_token(token) || token == "*" || (token == ">" && at == last));
        if admitted { Ok(Self(Arc::from(text))) } else { Err(MalformedPattern) }
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_nats_subjects() {
        for (pattern, event_type, expected) in [
            ("invoice.paid", "invoice.paid", true),
            ("invoice.*", "invoice.paid", true),
            ("invoice.*", "invoice", false),
            ("invoice.*", "invoice.paid.late", false),
            ("invoice.>", "invoice.paid.late", true),
            ("invoice.>", "invoice", false),
            (">", "invoice", true),
            ("*", "invoice.paid", false),
            ("*.paid", "invoice.paid", true),
        ] {
            let matches =
                pattern.parse::<TypePattern>().unwrap().matches(&event_type.parse().unwrap());
            assert_eq!(matches, expected, "{pattern} {event_type}");
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        let long = "a".repeat(129);
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "$JS", "é", &long] {
            assert!(bad.parse::<EventType>().is_err(), "{bad}");
        }
        for bad in ["", "a.>.b", "a.**", "a.b>", "é"] {
            assert!(bad.parse::<TypePattern>().is_err(), "{bad}");
        }
    }
}
