//! Headers that an endpoint may add to its requests, and those that it may not.

use super::Profile;

/// The most headers of an endpoint's own.
pub const HEADERS_MAX: usize = 32;
/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 4_096;
/// The most bytes of all names and values together.
pub const ALL_BYTES_MAX: usize = 8_192;

/// A header that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderRefused {
    /// The name is empty, or has something else than the characters of a token (RFC 9110, 5.6.2).
    #[error("a header's name has letters, digits and !#$%&'*+-.^_`|~ only, not {name:?}")]
    NameMalformed {
        /// The name's first 64 characters.
        name: String,
    },
    /// The name is too long.
    #[error("a header's name has {length} bytes, and can have {NAME_BYTES_MAX} at most")]
    NameTooLong {
        /// Its length.
        length: usize,
    },
    /// The header is part of how HTTP works, or of what the service sends itself.
    #[error("the header {name} cannot be set")]
    Reserved {
        /// The name, in lower case.
        name: String,
    },
    /// The profile sets the header.
    #[error("the header {name} is set by the profile")]
    OfProfile {
        /// The name, in lower case.
        name: String,
    },
    /// The value has something else than visible ASCII characters and spaces between them.
    #[error(
        "the value of the header {name} has characters other than visible ASCII, or begins or ends with a space"
    )]
    ValueMalformed {
        /// The name, in lower case.
        name: String,
    },
    /// The value is too long.
    #[error(
        "the value of the header {name} has {length} bytes, and can have {VALUE_BYTES_MAX} at most"
    )]
    ValueTooLong {
        /// The name, in lower case.
        name: String,
        /// The value's length.
        length: usize,
    },
    /// The same header twice.
    #[error("the header {name} is set twice")]
    Twice {
        /// The name, in lower case.
        name: String,
    },
    /// Too many headers.
    #[error("{count} headers are more than the {HEADERS_MAX} that are allowed")]
    TooMany {
        /// How many they are.
        count: usize,
    },
    /// The headers are too large together.
    #[error("the headers have {length} bytes together, and can have {ALL_BYTES_MAX} at most")]
    TooLarge {
        /// Their length.
        length: usize,
    },
}

/// Headers that are not the endpoint's to set: those of one connection or one message (RFC 9110,
/// sections 7.6.1, 8 and 10.1), what the service says of the body and its own trace.
const RESERVED: [&str; 22] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "range",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

impl Profile {
    /// Tells whether an endpoint may add the header to its requests.
    pub fn header_admitted(&self, name: &str, value: &str) -> Result<(), HeaderRefused> {
        let name = check_name(name)?;
        if is_reserved(&name) {
            return Err(HeaderRefused::Reserved { name });
        }
        if self.header_names().any(|own| own == name) {
            return Err(HeaderRefused::OfProfile { name });
        }
        check_value(name, value)
    }

    /// Tells whether an endpoint may add all of the headers to its requests.
    pub fn headers_admitted<'a>(
        &self,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), HeaderRefused> {
        let (mut names, mut length) = (Vec::new(), 0);
        for (name, value) in headers {
            self.header_admitted(name, value)?;
            names.push(name.to_ascii_lowercase());
            length += name.len() + value.len();
        }
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [one, other] if one == other => Some(one.clone()),
            _ => None,
        });
        match twice {
            Some(name) => Err(HeaderRefused::Twice { name }),
            None if names.len() > HEADERS_MAX => Err(HeaderRefused::TooMany { count: names.len() }),
            None if length > ALL_BYTES_MAX => Err(HeaderRefused::TooLarge { length }),
            None => Ok(()),
        }
    }
}

/// Checks a header's name, and returns it in lower case.
pub(super) fn check_name(name: &str) -> Result<String, HeaderRefused> {
    if name.len() > NAME_BYTES_MAX {
        return Err(HeaderRefused::NameTooLong { length: name.len() });
    }
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(HeaderRefused::NameMalformed { name: name.chars().take(64).collect() });
    }
    Ok(name.to_ascii_lowercase())
}

/// Tells whether neither an endpoint nor, but for the three `webhook-` ones, a profile may set
/// the header. The name is in lower case.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with("proxy-") || RESERVED.contains(&name)
}

/// Checks a header's value.
pub(super) fn check_value(name: String, value: &str) -> Result<(), HeaderRefused> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(HeaderRefused::ValueTooLong { name, length: value.len() });
    }
    let plain = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if plain && !value.starts_with(' ') && !value.ends_with(' ') {
        Ok(())
    } else {
        Err(HeaderRefused::ValueMalformed { name })
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::profile::Profiles;

    fn profile(name: &str) -> Arc<Profile> {
        Arc::clone(Profiles::built_in().get(name).unwrap())
    }

    #[test]
    fn plain_headers_are_admitted() {
        let standard = profile("standard-webhooks");
        for (name, value) in [
            ("Authorization", "Bearer abc.def-_~+/="),
            ("X-Api-Key", ""),
            ("x-note", "two words"),
            ("User-Agent", "acme/1.0"),
        ] {
            assert_eq!(standard.header_admitted(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_could_split_a_request_are_refused() {
        let standard = profile("standard-webhooks");
        for name in [
            "",
            "X: a",
            "X\r\nHost",
            "X\n",
            "X\0",
            "X Y",
            " X",
            "X:",
            ":authority",
            "ñame",
            "X\u{ff1a}",
            "\"x\"",
            "a,b",
        ] {
            let refused = standard.header_admitted(name, "x");
            assert!(matches!(refused, Err(HeaderRefused::NameMalformed { .. })), "{name:?}");
        }
    }

    #[test]
    fn values_that_could_split_a_request_are_refused() {
        let standard = profile("standard-webhooks");
        for value in
            ["a\r\nHost: evil", "a\nb", "a\r", "\0", "a\r\n b", " a", "a ", "a\tb", "é", "\u{7f}"]
        {
            let refused = standard.header_admitted("x-note", value);
            assert!(matches!(refused, Err(HeaderRefused::ValueMalformed { .. })), "{value:?}");
        }
    }

    #[test]
    fn headers_of_http_and_of_the_profile_are_refused() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "CONNECTION",
            "TE",
            "Upgrade",
            "Proxy-Authorization",
            "proxy-anything",
            "Expect",
            "Trailer",
            "Keep-Alive",
            "Content-Type",
            "Accept-Encoding",
            "traceparent",
            "webhook-id",
            "Webhook-Signature",
        ] {
            for profile in ["standard-webhooks", "killb"].map(profile) {
                let refused = profile.header_admitted(name, "x");
                assert!(matches!(refused, Err(HeaderRefused::Reserved { .. })), "{name}");
            }
        }
        for (name, own) in [
            ("kryptos", "X-Webhook-Event"),
            ("kryptos", "x-webhook-signature"),
            ("killb", "X-Signature-SHA256"),
            ("kyberaccess", "x-kyberaccess-delivery"),
        ] {
            let refused = profile(name).header_admitted(own, "x");
            assert!(matches!(refused, Err(HeaderRefused::OfProfile { .. })), "{own}");
        }
    }

    #[test]
    fn headers_have_limits_alone_and_together() {
        let standard = profile("standard-webhooks");
        let names: Vec<_> = (0..33).map(|number| format!("x-{number}")).collect();
        let all = |count: usize, value: &'static str| {
            standard
                .headers_admitted(names.iter().take(count).map(move |name| (name.as_str(), value)))
        };
        assert_eq!(all(32, "x"), Ok(()));
        assert_eq!(all(33, "x"), Err(HeaderRefused::TooMany { count: 33 }));
        let long = String::leak("x".repeat(4_096));
        assert_eq!(all(1, long), Ok(()));
        assert!(matches!(all(2, long), Err(HeaderRefused::TooLarge { .. })));
        let longer = "x".repeat(4_097);
        assert!(matches!(
            standard.header_admitted("x", &longer),
            Err(HeaderRefused::ValueTooLong { length: 4_097, .. })
        ));
        assert!(matches!(
            standard.header_admitted(&longer, "x"),
            Err(HeaderRefused::NameTooLong { .. })
        ));
        assert!(matches!(
            standard.headers_admitted([("X-A", "1"), ("x-a", "2")]),
            Err(HeaderRefused::Twice { .. })
        ));
    }
}
