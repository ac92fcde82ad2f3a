//! What is kept under an idempotency key. Decisions only.

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode, header, request, response},
    response::Response,
};
use data_encoding::{BASE64, HEXLOWER};
use fanfare_domain::{
    Timestamp,
    seal::{Keyring, Sealed},
};
use fanfare_event_log::HeldAnswer;
use fanfare_service::random_bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What an answer's record takes beside its body, in bytes.
const HEADROOM: usize = 16 << 10;
/// The headers that are part of an answer.
const HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];

/// What is kept under a key, as JSON.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(super) enum Record {
    /// Nothing: the request changed nothing, and may be made anew.
    Free,
    /// Somebody carries the request out.
    Running(Claim),
    /// It was answered.
    Answered {
        /// Tells one request from another.
        request: String,
        /// The answer.
        answer: Answer,
    },
    /// It may have changed something, and its answer is not known.
    Unknown {
        /// Tells one request from another.
        request: String,
    },
}

/// That somebody carries a request out.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Claim {
    /// Tells one request from another.
    request: String,
    /// When it has ended, or whoever carried it out is dead.
    until_ms: u64,
}

/// An answer: what it says is sealed, since it may hold secrets.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    key_id: String,
    body: String,
}

/// What follows from what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The key can be claimed, from this sequence.
    Free(u64),
    /// The request was answered.
    Answered(Answer),
    /// It is being carried out.
    Running,
    /// Its answer is not known.
    Unknown,
    /// The key stands for another request.
    Other,
}

impl Record {
    /// Judges what is kept under a key, for a request that would claim it.
    pub(super) fn judge(held: Option<&HeldAnswer>, claim: &Claim, now: Timestamp) -> Judgement {
        let Some(held) = held else { return Judgement::Free(0) };
        match serde_json::from_slice(&held.value) {
            Ok(Self::Free) => Judgement::Free(held.sequence),
            Ok(Self::Running(other)) if other.request == claim.request => {
                let over = now.as_millis() >= other.until_ms;
                if over { Judgement::Unknown } else { Judgement::Running }
            }
            Ok(Self::Answered { request, answer }) if request == claim.request => {
                Judgement::Answered(answer)
            }
            Ok(Self::Unknown { request }) if request == claim.request => Judgement::Unknown,
            Ok(Self::Running(_) | Self::Answered { .. } | Self::Unknown { .. }) => Judgement::Other,
            // A later version wrote it.
            Err(_) => Judgement::Unknown,
        }
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers are what JSON has").into()
    }
}

impl Claim {
    /// Claims a key for a request until an instant.
    pub(super) fn new(request: String, until: Timestamp) -> Self {
        Self { request, until_ms: until.as_millis() }
    }

    /// Returns what is kept while the request is carried out.
    pub(super) fn encode(&self) -> Bytes {
        Record::Running(self.clone()).encode()
    }

    /// Returns what is kept once it is answered.
    pub(super) fn answered(self, answer: Answer) -> Bytes {
        Record::Answered { request: self.request, answer }.encode()
    }

    /// Returns what is kept if it may have changed something, and has no answer that can be kept.
    pub(super) fn unknown(self) -> Bytes {
        Record::Unknown { request: self.request }.encode()
    }

    /// Returns what is kept if it changed nothing.
    pub(super) fn free() -> Bytes {
        Record::Free.encode()
    }
}

impl Answer {
    /// Seals an answer; `None` if it is too large to be kept in a message of up to `bytes_max`.
    pub(super) fn seal(
        keyring: &Keyring,
        owner: &str,
        head: &response::Parts,
        body: &Bytes,
        bytes_max: usize,
    ) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let Sealed { key_id, bytes } = keyring.seal(owner, text, random_bytes());
        let body = BASE64.encode(&bytes);
        if body.len() > bytes_max.saturating_sub(HEADROOM) {
            return None;
        }
        let pair = |name: HeaderName| {
            let value = head.headers.get(&name)?.to_str().ok()?;
            Some((String::from(name.as_str()), String::from(value)))
        };
        let headers = HEADERS.into_iter().filter_map(pair).collect();
        Some(Self { status: head.status.as_u16(), headers, key_id, body })
    }

    /// Opens an answer; `None` if it was sealed with a key that is gone.
    pub(super) fn open(&self, keyring: &Keyring, owner: &str) -> Option<Response> {
        let bytes = BASE64.decode(self.body.as_bytes()).ok()?;
        let sealed = Sealed { key_id: self.key_id.clone(), bytes: bytes.into() };
        let body = keyring.open(owner, &sealed).ok()?;
        let mut response = Response::new(Body::from(String::from(body.expose())));
        *response.status_mut() = StatusCode::from_u16(self.status).ok()?;
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            response.headers_mut().insert(name, HeaderValue::from_str(value).ok()?);
        }
        Some(response)
    }
}

/// Tells one request from another: its path and query, the version that it is made from, its body.
pub(super) fn fingerprint(parts: &request::Parts, body: &Bytes) -> String {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let versions = parts.headers.get_all(header::IF_MATCH);
    let mut hash = Sha256::new();
    for part in [target.as_bytes(), body].into_iter().chain(versions.iter().map(AsRef::as_ref)) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    HEXLOWER.encode(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: &str = "answer/key_1/k";

    fn held(value: Bytes) -> HeldAnswer {
        HeldAnswer { sequence: 7, value }
    }

    fn claim(request: &str) -> Claim {
        Claim::new(String::from(request), Timestamp::from_millis(100))
    }

    fn keyring(byte: &str) -> Keyring {
        Keyring::parse(&byte.repeat(32)).unwrap()
    }

    fn answer(body: &'static str, bytes_max: usize) -> Option<Answer> {
        let response = Response::builder().status(201).header("etag", "\"4\"").body(()).unwrap();
        let body = Bytes::from_static(body.as_bytes());
        Answer::seal(&keyring("ab"), OWNER, &response.into_parts().0, &body, bytes_max)
    }

    #[test]
    fn what_is_kept_decides_on_a_repeat() {
        let at = Timestamp::from_millis;
        let kept = answer("{}", 1 << 20).unwrap();
        for (value, now, expected) in [
            (Claim::free(), 0, Judgement::Free(7)),
            (claim("a").encode(), 99, Judgement::Running),
            (claim("a").encode(), 100, Judgement::Unknown),
            (claim("b").encode(), 0, Judgement::Other),
            (claim("a").unknown(), 0, Judgement::Unknown),
            (claim("b").unknown(), 0, Judgement::Other),
            (claim("a").answered(kept.clone()), 0, Judgement::Answered(kept.clone())),
            (claim("b").answered(kept), 0, Judgement::Other),
            (Bytes::from_static(b"?"), 0, Judgement::Unknown),
        ] {
            assert_eq!(Record::judge(Some(&held(value)), &claim("a"), at(now)), expected);
        }
        assert_eq!(Record::judge(None, &claim("a"), at(0)), Judgement::Free(0));
    }

    #[test]
    fn an_answer_is_sealed_and_opens_for_its_own_key() {
        let kept = answer(r#"{"secret":"whsec_x"}"#, 1 << 20).unwrap();
        assert!(!String::from_utf8_lossy(&claim("a").answered(kept.clone())).contains("whsec"));
        let opened = kept.open(&keyring("ab"), OWNER).unwrap();
        assert_eq!(
            (opened.status().as_u16(), &opened.headers()["etag"]),
            (201, &"\"4\"".parse::<HeaderValue>().unwrap())
        );
        assert!(kept.open(&keyring("ab"), "answer/key_2/k").is_none());
        assert!(kept.open(&keyring("cd"), OWNER).is_none());
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_kept() {
        assert!(answer("{}", HEADROOM).is_none());
    }

    #[test]
    fn every_part_of_a_request_tells_it_from_others() {
        let print = |uri: &str, version: Option<&str>, body: &'static str| {
            let mut request = axum::http::Request::builder().uri(uri);
            if let Some(version) = version {
                request = request.header("if-match", version);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            fingerprint(&parts, &Bytes::from_static(body.as_bytes()))
        };
        let first = print("/v1/a?b=1", None, "{}");
        assert_eq!(first, print("/v1/a?b=1", None, "{}"));
        for other in [
            print("/v1/a?b=2", None, "{}"),
            print("/v1/a?b=1", Some("\"1\""), "{}"),
            print("/v1/a?b=1", None, "{ }"),
        ] {
            assert_ne!(first, other);
        }
    }
}
