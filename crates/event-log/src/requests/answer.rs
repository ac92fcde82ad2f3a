//! What a producer is told.

use std::borrow::Cow;

use bytes::Bytes;
use fanfare_domain::EventId;
use serde::{Deserialize, Serialize};

/// The code of an answer that says "not at this moment".
pub const CODE_UNAVAILABLE: u16 = 503;

/// The reason that goes with [`CODE_UNAVAILABLE`].
const REASON_UNAVAILABLE: &str = "unavailable";

/// What a producer is told of its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishAnswer {
    /// It is stored.
    Accepted {
        /// Its id.
        event: EventId,
        /// Whether it was accepted before, under the same idempotency key.
        duplicate: bool,
    },
    /// It is not taken, and will not be.
    Refused {
        /// What it would be as an HTTP status: 400 to 499.
        code: u16,
        /// The stable name of the reason.
        reason: Cow<'static, str>,
        /// The reason in words.
        detail: String,
    },
    /// It is not taken at this moment. Sent again later, it may be.
    Unavailable {
        /// Why, in words.
        detail: String,
    },
}

/// An answer on the wire.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Accepted { id: Cow<'a, str>, duplicate: bool },
    Refused { reason: Cow<'a, str>, detail: Cow<'a, str> },
}

impl PublishAnswer {
    /// Returns the code and the stable name of the reason of an answer that is not an acceptance.
    pub fn refusal(&self) -> Option<(u16, &str)> {
        match self {
            Self::Accepted { .. } => None,
            Self::Refused { code, reason, .. } => Some((*code, reason)),
            Self::Unavailable { .. } => Some((CODE_UNAVAILABLE, REASON_UNAVAILABLE)),
        }
    }

    pub(super) fn to_json(&self) -> String {
        let body = match self {
            Self::Accepted { event, duplicate } => {
                Body::Accepted { id: event.to_string().into(), duplicate: *duplicate }
            }
            Self::Refused { reason, detail, .. } => {
                Body::Refused { reason: reason.as_ref().into(), detail: detail.into() }
            }
            Self::Unavailable { detail } => {
                Body::Refused { reason: REASON_UNAVAILABLE.into(), detail: detail.into() }
            }
        };
        serde_json::to_string(&body).expect("two strings make JSON")
    }

    /// Reads an answer with the code of its header, if there is one. `None` if it is none.
    pub(super) fn read(code: Option<&str>, body: &Bytes) -> Option<Self> {
        let body = serde_json::from_slice::<Body<'_>>(body).ok()?;
        match (code, body) {
            (None, Body::Accepted { id, duplicate }) => {
                Some(Self::Accepted { event: id.parse().ok()?, duplicate })
            }
            (Some(code), Body::Refused { reason, detail }) => match code.parse().ok()? {
                CODE_UNAVAILABLE => Some(Self::Unavailable { detail: detail.into_owned() }),
                code => Some(Self::Refused {
                    code,
                    reason: Cow::Owned(reason.into_owned()),
                    detail: detail.into_owned(),
                }),
            },
            (None, Body::Refused { .. }) | (Some(_), Body::Accepted { .. }) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::Timestamp;

    use super::*;

    #[test]
    fn an_answer_reads_back() {
        let event = EventId::new(Timestamp::from_millis(1), [3; 10]);
        let refused = PublishAnswer::Refused {
            code: 422,
            reason: "number_not_representable".into(),
            detail: String::from("a \"number\"\n"),
        };
        for answer in [
            PublishAnswer::Accepted { event, duplicate: true },
            PublishAnswer::Unavailable { detail: String::from("EVENTS is full") },
            refused,
        ] {
            let code = answer.refusal().map(|(code, _)| code.to_string());
            let read = PublishAnswer::read(code.as_deref(), &Bytes::from(answer.to_json()));
            assert_eq!(read, Some(answer));
        }
    }

    #[test]
    fn the_body_of_an_acceptance_is_as_documented() {
        let event = EventId::new(Timestamp::from_millis(1), [3; 10]);
        let json = PublishAnswer::Accepted { event, duplicate: false }.to_json();
        assert_eq!(json, format!(r#"{{"id":"{event}","duplicate":false}}"#));
    }

    #[test]
    fn other_bodies_are_no_answers() {
        for (code, body) in [
            (None, ""),
            (None, "{}"),
            (None, r#"{"id":"ep_1","duplicate":false}"#),
            (None, r#"{"reason":"a","detail":"b"}"#),
            (Some("x"), r#"{"reason":"a","detail":"b"}"#),
        ] {
            assert_eq!(PublishAnswer::read(code, &Bytes::from(body)), None, "{code:?} {body}");
        }
    }
}
