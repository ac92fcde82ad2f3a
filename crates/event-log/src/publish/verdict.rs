//! What the server's answer to a publish means.

use async_nats::{Message, StatusCode};
use serde::Deserialize;

use crate::Stored;

/// How one try of a publish ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The message is stored.
    Stored(Stored),
    /// The subject's last sequence is not the expected one. Nothing is stored by this try.
    Conflict,
    /// The stream refuses what is new. Nothing is stored by this try.
    Full,
    /// The server refuses the message, and always will.
    Refused(Refusal),
    /// It may be stored or not, now or in a while.
    Unknown(&'static str),
}

/// What a server said when it refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{description} (error code {code})")]
pub(crate) struct Refusal {
    code: u64,
    description: String,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    error: Option<Error<'a>>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct Error<'a> {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default, borrow)]
    description: std::borrow::Cow<'a, str>,
}

/// Account, server, storage: short of resources.
const SHORT: [u64; 4] = [10002, 10023, 10028, 10047];
/// The stream could not store the message; only the text says why.
const STORE_FAILED: u64 = 10077;
/// The last sequence, or last sequence of the subject, is another one.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
/// A message of the same id is being stored.
const DUPLICATE_UNDER_WAY: u64 = 10158;

/// Judges the answer to a publish.
pub(crate) fn judge(message: &Message) -> Verdict {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Verdict::Unknown("no stream answers");
    }
    match serde_json::from_slice::<Answer<'_>>(&message.payload) {
        Ok(Answer { error: None, seq, duplicate }) if seq > 0 => {
            Verdict::Stored(Stored { sequence: seq, duplicate })
        }
        Ok(Answer { error: Some(error), .. }) => judge_error(&error),
        Ok(Answer { error: None, .. }) | Err(_) => {
            Verdict::Unknown("the acknowledgement makes no sense")
        }
    }
}

fn judge_error(error: &Error<'_>) -> Verdict {
    let code = error.err_code;
    if is_full(code, &error.description) {
        return Verdict::Full;
    }
    if WRONG_LAST_SEQUENCE.contains(&code) {
        return Verdict::Conflict;
    }
    if code == DUPLICATE_UNDER_WAY || error.code >= 500 {
        return Verdict::Unknown("the servers are not able to say at this moment");
    }
    Verdict::Refused(Refusal { code, description: error.description.clone().into_owned() })
}

/// Whether the server means that there is no room.
pub(crate) fn is_full(code: u64, description: &str) -> bool {
    SHORT.contains(&code)
        || code == STORE_FAILED
            && (description.contains("maximum") || description.contains("no space"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn judged(payload: &'static str) -> Verdict {
        judge(&Message {
            subject: "_INBOX.a.1".into(),
            reply: None,
            payload: Bytes::from_static(payload.as_bytes()),
            headers: None,
            status: None,
            description: None,
            length: 0,
        })
    }

    #[test]
    fn an_acknowledgement_tells_where_it_is_stored() {
        let Verdict::Stored(stored) = judged(r#"{"stream":"A","seq":7,"duplicate":true}"#) else {
            panic!("not stored");
        };
        assert_eq!(stored, Stored { sequence: 7, duplicate: true });
    }

    #[test]
    fn a_full_stream_is_told_from_a_broken_one() {
        for text in [
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"A","seq":0}"#,
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages per subject exceeded"}}"#,
            r#"{"error":{"code":400,"err_code":10002,"description":"resource limits exceeded for account"}}"#,
        ] {
            assert!(matches!(judged(text), Verdict::Full), "{text}");
        }
        let broken =
            r#"{"error":{"code":503,"err_code":10077,"description":"input/output error"}}"#;
        assert!(matches!(judged(broken), Verdict::Unknown(_)));
    }

    #[test]
    fn what_may_pass_is_unknown_and_what_may_not_is_refused() {
        let leaderless =
            r#"{"error":{"code":503,"err_code":10008,"description":"temporarily unavailable"}}"#;
        assert!(matches!(judged(leaderless), Verdict::Unknown(_)));
        let conflict =
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"}}"#;
        assert!(matches!(judged(conflict), Verdict::Conflict));
        let large = r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#;
        assert!(matches!(judged(large), Verdict::Refused(_)));
        assert!(matches!(judged("+OK"), Verdict::Unknown(_)));
    }
}
