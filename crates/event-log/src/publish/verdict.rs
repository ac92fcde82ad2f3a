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

/// How one try of a batch ended.
#[derive(Debug)]
pub(crate) enum BatchVerdict {
    /// All of it is stored, one message after the other.
    Stored {
        /// The sequence of the first message.
        first: u64,
        /// How many they are.
        count: u64,
    },
    /// Nothing is stored by this try; the messages one by one may be. A message that the server
    /// knows already is reason enough.
    Refused(Refusal),
    /// The stream takes no batches at all. Nothing is stored.
    NotTaken,
    /// All of it may be stored or nothing, now or in a while.
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
    /// Of a batch: how many messages it has.
    #[serde(default)]
    count: u64,
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

/// The stream does not allow atomic batches.
const BATCHES_DISABLED: u64 = 10174;

/// Why an answer tells nothing.
const NO_STREAM: &str = "no stream answers";
const NO_SENSE: &str = "the acknowledgement makes no sense";

/// Judges the answer to a publish.
pub(crate) fn judge(message: &Message) -> Verdict {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Verdict::Unknown(NO_STREAM);
    }
    match serde_json::from_slice::<Answer<'_>>(&message.payload) {
        Ok(Answer { error: None, seq, duplicate, .. }) if seq > 0 => {
            Verdict::Stored(Stored { sequence: seq, duplicate })
        }
        Ok(Answer { error: Some(error), .. }) => judge_error(&error),
        Ok(Answer { error: None, .. }) | Err(_) => Verdict::Unknown(NO_SENSE),
    }
}

/// Judges the answer to the last message of a batch.
pub(crate) fn judge_batch(message: &Message) -> BatchVerdict {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return BatchVerdict::Unknown(NO_STREAM);
    }
    match serde_json::from_slice::<Answer<'_>>(&message.payload) {
        Ok(Answer { error: None, seq, count, .. }) if count > 0 && seq >= count => {
            BatchVerdict::Stored { first: seq - count + 1, count }
        }
        Ok(Answer { error: Some(error), .. }) if error.err_code == BATCHES_DISABLED => {
            BatchVerdict::NotTaken
        }
        Ok(Answer { error: Some(error), .. }) => BatchVerdict::Refused(Refusal {
            code: error.err_code,
            description: error.description.into_owned(),
        }),
        Ok(Answer { error: None, .. }) | Err(_) => BatchVerdict::Unknown(NO_SENSE),
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

    fn answer(payload: &'static str) -> Message {
        Message {
            subject: "_INBOX.a.1".into(),
            reply: None,
            payload: Bytes::from_static(payload.as_bytes()),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn judged(payload: &'static str) -> Verdict {
        judge(&answer(payload))
    }

    #[test]
    fn a_batch_is_stored_whole_or_sent_one_by_one() {
        let judged = |payload| judge_batch(&answer(payload));
        let stored = judged(r#"{"stream":"A","seq":14,"batch":"x.1","count":5}"#);
        assert!(matches!(stored, BatchVerdict::Stored { first: 10, count: 5 }), "{stored:?}");
        let first = judged(r#"{"stream":"A","seq":5,"batch":"x.1","count":5}"#);
        assert!(matches!(first, BatchVerdict::Stored { first: 1, count: 5 }), "{first:?}");
        for text in [
            r#"{"error":{"code":400,"err_code":10201,"description":"atomic publish batch contains duplicate message id"},"seq":0}"#,
            r#"{"error":{"code":400,"err_code":10176,"description":"atomic publish batch is incomplete"},"seq":0}"#,
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"seq":0}"#,
        ] {
            assert!(matches!(judged(text), BatchVerdict::Refused(_)), "{text}");
        }
        let disabled =
            r#"{"error":{"code":400,"err_code":10174,"description":"atomic publish is disabled"}}"#;
        assert!(matches!(judged(disabled), BatchVerdict::NotTaken));
        for senseless in ["+OK", "", r#"{"seq":4,"count":5}"#, r#"{"seq":4}"#] {
            assert!(matches!(judged(senseless), BatchVerdict::Unknown(_)), "{senseless}");
        }
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
