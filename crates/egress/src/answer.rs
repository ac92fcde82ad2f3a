//! What came of a request.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use bytes::Bytes;
use fanfare_domain::{Fault, trace::span::Moments};
use http::{HeaderMap, Version, header::RETRY_AFTER};

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The head of the answer, or why there is none.
    pub result: Result<Head, Failure>,
    /// The first bytes of the body, up to the limit.
    pub body: Bytes,
    /// Whether the body was longer, or did not end within the deadline, or broke off.
    pub truncated: bool,
    /// How long it took, from the call on.
    pub duration: Duration,
    /// Who answered: the endpoint, or the proxy.
    pub remote: Option<SocketAddr>,
    /// When its parts were done, from the call on.
    pub moments: Moments,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status, 101 or 200 to 999.
    pub status: u16,
    /// The version of HTTP that was spoken.
    pub version: Version,
    /// The headers, as they were received.
    pub headers: HeaderMap,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub fault: Fault,
    /// A few words for the endpoint's owner. They hold nothing of the request, and nothing of the
    /// network that we are in.
    pub detail: Cow<'static, str>,
}

impl Answer {
    /// Says that there is none.
    pub fn failed(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            body: Bytes::new(),
            truncated: false,
            duration: Duration::ZERO,
            remote: None,
            moments: Moments::default(),
        }
    }

    /// Returns the status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.result.as_ref().ok().map(|head| head.status)
    }

    /// Returns the text of the answer's `Retry-After`, if it has one; the first of several.
    pub fn retry_after(&self) -> Option<&str> {
        self.result.as_ref().ok()?.headers.get(RETRY_AFTER)?.to_str().ok()
    }
}

impl Head {
    /// Returns the headers in their order, as many as fit in `bytes_max` bytes of names and values.
    pub fn pairs(&self, bytes_max: usize) -> Vec<(String, Bytes)> {
        let mut room = bytes_max;
        let fits = |(name, value): &(&http::HeaderName, &http::HeaderValue)| {
            let rest = room.checked_sub(name.as_str().len() + value.len());
            room = rest.unwrap_or(0);
            rest.is_some()
        };
        let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (String::from(name.as_str()), Bytes::copy_from_slice(value.as_bytes()))
        };
        self.headers.iter().take_while(fits).map(pair).collect()
    }
}

impl Failure {
    /// Says why.
    pub fn new(fault: Fault, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { fault, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_headers_end_before_the_limit() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "12345678"), ("bb", "1234"), ("ccc", "1")] {
            headers.append(name, value.parse().unwrap());
        }
        let head = Head { status: 200, version: Version::HTTP_11, headers };
        let kept = |bytes_max| head.pairs(bytes_max).len();
        assert_eq!([0, 8, 9, 14, 15, 19].map(kept), [0, 0, 1, 1, 2, 3]);
        let first = head.pairs(9).pop();
        assert_eq!(first, Some((String::from("a"), Bytes::from_static(b"12345678"))));
    }

    #[test]
    fn retry_after_is_the_first_that_was_sent() {
        let mut headers = HeaderMap::new();
        headers.append(RETRY_AFTER, "120".parse().unwrap());
        headers.append(RETRY_AFTER, "5".parse().unwrap());
        let head = Head { status: 503, version: Version::HTTP_11, headers };
        let none = Answer::failed(Failure::new(Fault::TimedOut, "no answer"));
        assert_eq!(none.retry_after(), None);
        let answer = Answer { result: Ok(head), ..none };
        assert_eq!((answer.status(), answer.retry_after()), (Some(503), Some("120")));
    }
}
