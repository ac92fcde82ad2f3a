//! What producers send.

use async_nats::HeaderMap;
use bytes::Bytes;

/// Headers of a message from outside: names are compared without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Wraps pairs.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// Takes the headers of a message, ordered by name: the client does not keep their order.
    pub(crate) fn of(map: Option<&HeaderMap>) -> Self {
        let mut pairs = Vec::new();
        for (name, values) in map.into_iter().flat_map(HeaderMap::iter) {
            pairs.extend(values.iter().map(|value| (name.to_string(), value.to_string())));
        }
        // Stable: values of one name keep their order.
        pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
        Self(pairs)
    }

    /// Returns the first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns every pair, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// What a producer sent, as it came: nothing of it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxMessage {
    /// The first token after `inbox.` (or `publish.`): should be a tenant's id.
    pub tenant: String,
    /// The rest of the subject: should be an event type.
    pub event_type: String,
    /// The headers.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
}

impl InboxMessage {
    /// Takes a message apart. `rest` is what follows `inbox.` or `publish.` in its subject.
    pub(crate) fn of(rest: &str, headers: Option<&HeaderMap>, payload: Bytes) -> Self {
        let (tenant, event_type) = rest.split_once('.').unwrap_or((rest, ""));
        Self {
            tenant: tenant.to_owned(),
            event_type: event_type.to_owned(),
            headers: Headers::of(headers),
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case() {
        let pair = |name: &str, value: &str| (String::from(name), String::from(value));
        let headers = Headers::new(vec![pair("A-b", "1"), pair("a-B", "2")]);
        assert_eq!(headers.get("a-b"), Some("1"));
        assert_eq!(headers.get("a"), None);
    }

    #[test]
    fn the_first_token_is_the_tenant() {
        let message = InboxMessage::of("acme.invoice.paid", None, Bytes::new());
        assert_eq!(
            (message.tenant.as_str(), message.event_type.as_str()),
            ("acme", "invoice.paid")
        );
        let message = InboxMessage::of("acme", None, Bytes::new());
        assert_eq!((message.tenant.as_str(), message.event_type.as_str()), ("acme", ""));
    }
}
