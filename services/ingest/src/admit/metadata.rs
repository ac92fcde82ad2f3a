//! What a producer says of an event beside its data, from headers and from payloads.

use std::collections::BTreeMap;

use fanfare_domain::{Timestamp, TraceContext};
use fanfare_event_log::{Headers, idempotency::IdempotencyKeys, topology::header};

use super::rejection::{Reason, Rejection};

/// How many attributes an event may have.
pub(super) const ATTRIBUTES_MAX: usize = 32;
/// The longest name of an attribute, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// The longest value of an attribute, in bytes.
pub(super) const VALUE_BYTES_MAX: usize = 1_024;
/// The longest ordering key, in bytes.
pub(super) const ORDERING_KEY_BYTES_MAX: usize = 256;

/// What a producer says of an event beside its data. All of it is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// When it happened.
    pub(crate) occurred_at: Option<Timestamp>,
    /// See [`fanfare_domain::Event::ordering_key`].
    pub(crate) ordering_key: Option<String>,
    /// See [`fanfare_domain::Event::idempotency_key`].
    pub(crate) idempotency_key: Option<String>,
    /// Names are lower case.
    pub(crate) attributes: BTreeMap<String, String>,
    /// Where the event stands in its producer's trace.
    pub(crate) trace: TraceContext,
}

impl Metadata {
    /// Adds what headers say. A header counts more than what stands for it in the payload, but
    /// for the trace: headers may tell of the message's own way, and not of the event's.
    pub(super) fn fill(mut self, headers: &Headers) -> Result<Self, Rejection> {
        if let Some(text) = single(headers, header::OCCURRED_AT)? {
            let at = Timestamp::parse(text).ok_or_else(|| {
                malformed(header::OCCURRED_AT, "is not an RFC 3339 date and time")
            })?;
            self.occurred_at = Some(at);
        }
        if let Some(text) = single(headers, header::ORDERING_KEY)? {
            self.ordering_key = Some(text.to_owned());
        }
        if let Some(text) = single(headers, header::IDEMPOTENCY_KEY)? {
            self.idempotency_key = Some(text.to_owned());
        }
        for (name, value) in headers.pairs() {
            if let Some(name) = strip_prefix(name, header::ATTRIBUTE_PREFIX) {
                self.attribute(name, value)?;
            }
        }
        if self.trace.is_empty() {
            let (parent, state) =
                (lines(headers, header::TRACEPARENT), lines(headers, header::TRACESTATE));
            self.trace = TraceContext::from_lines(parent, state);
        }
        Ok(self)
    }

    /// Adds an attribute; its name is made lower case.
    pub(super) fn attribute(&mut self, name: &str, value: &str) -> Result<(), Rejection> {
        let name = name.to_ascii_lowercase();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
            let what = format_args!("is not 1 to {NAME_BYTES_MAX} of a-z 0-9 - _ .").to_string();
            return Err(malformed(&format!("the name of attribute {name:?}"), &what));
        }
        if value.len() > VALUE_BYTES_MAX || value.contains(char::is_control) {
            let what = format!("is longer than {VALUE_BYTES_MAX} bytes or has control characters");
            return Err(malformed(&format!("attribute {name}"), &what));
        }
        if self.attributes.insert(name.clone(), value.to_owned()).is_some() {
            return Err(malformed(&format!("attribute {name}"), "is given twice"));
        }
        if self.attributes.len() > ATTRIBUTES_MAX {
            return Err(malformed("an event", &format!("has at most {ATTRIBUTES_MAX} attributes")));
        }
        Ok(())
    }

    /// Checks the keys, wherever they came from.
    pub(super) fn check(self) -> Result<Self, Rejection> {
        check_key("the ordering key", self.ordering_key.as_deref(), ORDERING_KEY_BYTES_MAX)?;
        let longest = IdempotencyKeys::LENGTH_MAX;
        check_key("the idempotency key", self.idempotency_key.as_deref(), longest)?;
        Ok(self)
    }
}

/// Whether a text can be a key of at most so many bytes.
pub(super) fn is_key(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.contains(char::is_control)
}

fn check_key(what: &str, key: Option<&str>, bytes_max: usize) -> Result<(), Rejection> {
    match key {
        Some(key) if !is_key(key, bytes_max) => {
            Err(malformed(what, &format!("is not 1 to {bytes_max} bytes of printable characters")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Returns the values of a header, in their order.
fn lines<'a>(headers: &'a Headers, name: &str) -> impl Iterator<Item = &'a str> {
    let pairs = headers.pairs().iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name));
    pairs.map(|(_, value)| value.as_str())
}

/// Returns the value of a header that may stand only once, because what follows would depend on
/// which of its values counts.
pub(super) fn single<'a>(headers: &'a Headers, name: &str) -> Result<Option<&'a str>, Rejection> {
    let mut values = lines(headers, name);
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(malformed(name, "is given twice")),
    }
}

/// Returns what follows a prefix that is compared without case.
pub(super) fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn malformed(what: &str, how: &str) -> Rejection {
    Reason::MalformedHeader.because(format_args!("{what} {how}"))
}
