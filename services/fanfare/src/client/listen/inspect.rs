//! What is to be seen in a request: what it is about, and whether it is signed as it should be.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fanfare_domain::{Profile, Timestamp, seal::Clear, verify::Unverified};
use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{
        receiver::Arrival,
        text::{body, clock, count, printable, span},
    },
    output::{Output, Tone},
};

/// How long before its arrival a request may have been signed, and how long after it by a clock
/// that differs, before a receiver should refuse it.
const APART_MAX: Duration = Duration::from_mins(5);
/// How many lines of a body are shown.
const BODY_LINES_MAX: usize = 24;

/// Knows the profile and the secret of an endpoint.
pub(crate) struct Inspector {
    profile: Option<Arc<Profile>>,
    secret: Option<Clear>,
}

/// What was seen in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// The event's type, as far as the body tells.
    event_type: Option<String>,
    /// The headers that the profile sets.
    headers: Vec<(String, String)>,
    /// Whether it is signed as it should be; `None` if that cannot be known here.
    signature: Option<Result<(), Unverified>>,
    /// What it would take to know that.
    missing: Missing,
    /// When it was signed.
    signed: Option<Signed>,
}

/// When a request was signed, by what it says of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signed {
    /// So long before its arrival.
    Before(Duration),
    /// So long after it.
    After(Duration),
}

/// What it takes to check a signature, and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Nothing,
    Profile,
    Secret,
}

impl Inspector {
    /// Inspects requests of one endpoint.
    pub(crate) fn new(profile: Option<Arc<Profile>>, secret: Option<Clear>) -> Self {
        Self { profile, secret }
    }

    /// Looks at a request.
    pub(crate) fn inspect(&self, arrival: &Arrival) -> Inspected {
        let value = |name: &str| value(&arrival.headers, name);
        let names = || self.profile.iter().flat_map(|profile| profile.header_names());
        let owned = |name: &str| Some((String::from(name), printable(value(name)?)));
        let (signature, missing) = match (&self.profile, &self.secret) {
            (Some(profile), Some(secret)) => {
                (Some(profile.verify(secret, value, &arrival.body)), Missing::Nothing)
            }
            (Some(_), None) => (None, Missing::Secret),
            (None, _) => (None, Missing::Profile),
        };
        let signed_at = names()
            .filter(|name| name.ends_with("-timestamp"))
            .find_map(|name| instant(value(name)?));
        Inspected {
            event_type: event_type(&arrival.body),
            headers: names().filter_map(owned).collect(),
            signature,
            missing,
            signed: signed_at.map(|signed_at| Signed::of(signed_at, arrival.at)),
        }
    }
}

impl Inspected {
    /// Shows it to people, in several lines.
    pub(crate) fn show(&self, arrival: &Arrival, output: Output) -> String {
        let mut lines = vec![self.heading(arrival, output)];
        let mut indented = |line: &str| lines.push(format!("  {line}"));
        let width = self.headers.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.headers {
            let name = output.tone(Tone::Dim, &format!("{name:<width$}"));
            indented(&format!("{name}  {value}"));
        }
        let (tone, verdict) = self.verdict();
        indented(&format!("signature {}", output.tone(tone, &verdict)));
        for line in body(&arrival.body, BODY_LINES_MAX) {
            indented(&line);
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn heading(&self, arrival: &Arrival, output: Output) -> String {
        let status = arrival.answer.status;
        let tone = if status.is_success() { Tone::Good } else { Tone::Bad };
        let later = match arrival.answer.delay {
            Duration::ZERO => String::new(),
            delay => format!(" after {}", span(delay)),
        };
        let (method, path) = (&arrival.method, printable(&arrival.path));
        let request = match &self.event_type {
            Some(event_type) => format!(
                "{}  {}",
                output.tone(Tone::Strong, &printable(event_type)),
                output.tone(Tone::Dim, &format!("{method} {path}")),
            ),
            None => output.tone(Tone::Strong, &format!("{method} {path}")),
        };
        format!(
            "{}  {request}  attempt {}  {}",
            output.tone(Tone::Dim, &clock(arrival.at)),
            arrival.attempt,
            output.tone(tone, &format!("answered {}{later}", status.as_u16())),
        )
    }

    /// Says in words whether the signature is right.
    pub(crate) fn verdict(&self) -> (Tone, String) {
        let (tone, verdict) = match &self.signature {
            Some(Ok(())) => (Tone::Good, String::from("verified")),
            Some(Err(why)) => (Tone::Bad, format!("NOT verified: {why}")),
            None => (Tone::Dim, format!("not checked: {}", self.missing.advice())),
        };
        let Some(signed) = self.signed else { return (tone, verdict) };
        if signed.is_timely() {
            return (tone, format!("{verdict}, signed {}", signed.words()));
        }
        let why = match signed {
            Signed::Before(_) => "a replay?",
            Signed::After(_) => "is a clock wrong?",
        };
        let warning = format!("{verdict}, but signed {}: {why}", signed.words());
        (if tone == Tone::Good { Tone::Warning } else { tone }, warning)
    }

    /// The headers that the profile sets, by their names in lower case.
    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Shows it to programs.
    pub(crate) fn document(&self, arrival: &Arrival) -> Value {
        let headers: serde_json::Map<String, Value> = arrival
            .headers
            .iter()
            .map(|(name, value)| {
                (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes())))
            })
            .collect();
        let text = String::from_utf8_lossy(&arrival.body);
        json!({
            "received_at": arrival.at.to_string(),
            "method": arrival.method.as_str(),
            "path": arrival.path,
            "event_type": self.event_type,
            "attempt": arrival.attempt,
            "signature": match &self.signature {
                Some(Ok(())) => "verified",
                Some(Err(_)) => "refused",
                None => "unchecked",
            },
            "signature_error": match &self.signature {
                Some(Err(why)) => Some(why.to_string()),
                Some(Ok(())) | None => None,
            },
            "signed_ms_ago": self.signed.map(Signed::ms_ago),
            "timely": self.signed.map(Signed::is_timely),
            "headers": headers,
            "body": text,
            "answer": arrival.answer.status.as_u16(),
        })
    }
}

impl Signed {
    fn of(signed_at: Timestamp, arrived_at: Timestamp) -> Self {
        if signed_at > arrived_at {
            Self::After(signed_at.since(arrived_at))
        } else {
            Self::Before(arrived_at.since(signed_at))
        }
    }

    /// Whether a receiver should accept it, as far as its time goes.
    fn is_timely(self) -> bool {
        match self {
            Self::Before(apart) | Self::After(apart) => apart <= APART_MAX,
        }
    }

    /// How many milliseconds ago it was; negative if that is still to come.
    fn ms_ago(self) -> i64 {
        let ms = |apart: Duration| i64::try_from(apart.as_millis()).unwrap_or(i64::MAX);
        match self {
            Self::Before(apart) => ms(apart),
            Self::After(apart) => -ms(apart),
        }
    }

    fn words(self) -> String {
        match self {
            Self::Before(apart) | Self::After(apart) if apart < Duration::from_secs(1) => {
                String::from("just now")
            }
            Self::Before(apart) => format!("{} ago", span(apart)),
            Self::After(apart) => format!("{} from now", span(apart)),
        }
    }
}

impl Missing {
    const fn advice(self) -> &'static str {
        match self {
            Self::Nothing => "there is nothing to check",
            Self::Profile => {
                "this command can check what the built-in profiles sign, and this is none of them"
            }
            Self::Secret => "give the endpoint's secret with --secret",
        }
    }
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads a time as profiles write it: Unix seconds, or RFC 3339.
fn instant(text: &str) -> Option<Timestamp> {
    match text.parse::<u64>() {
        Ok(seconds) => Some(Timestamp::from_millis(seconds.saturating_mul(1_000))),
        Err(_) => Timestamp::parse(text),
    }
}

/// The event's type, where the profiles' bodies have it.
fn event_type(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "type")]
        kind: Option<String>,
        event: Option<String>,
        action: Option<String>,
    }
    let of = |body: Body| match (body.kind, body.event, body.action) {
        (Some(kind), _, _) => Some(kind),
        (None, Some(event), Some(action)) => Some(format!("{event}.{action}")),
        (None, Some(event), None) => Some(event),
        (None, None, _) => None,
    };
    // A batch is an array of bodies.
    let Ok(batch) = serde_json::from_slice::<Vec<Body>>(body) else {
        return serde_json::from_slice(body).ok().and_then(of);
    };
    let events = count(u64::try_from(batch.len()).unwrap_or(u64::MAX), "event");
    let types: BTreeSet<String> = batch.into_iter().filter_map(of).collect();
    let types: Vec<String> = types.into_iter().collect();
    Some(format!("{events}: {}", types.join(", ")))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfare_domain::Profiles;
    use hyper::{Method, StatusCode, header::HeaderName};

    use super::*;
    use crate::client::receiver::Answer;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn arrival(signature: &str, seconds_later: u64) -> Arrival {
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ];
        Arrival {
            at: Timestamp::from_millis((1_614_265_330 + seconds_later) * 1_000),
            method: Method::POST,
            path: String::from("/"),
            headers: headers
                .map(|(key, value)| (HeaderName::from_static(key), value.parse().unwrap()))
                .into_iter()
                .collect(),
            body: Bytes::from_static(b"{\"test\": 2432232314}"),
            attempt: 1,
            answer: Answer { status: StatusCode::OK, delay: Duration::ZERO },
        }
    }

    fn inspector() -> Inspector {
        let profile = Profiles::built_in().get("standard-webhooks").cloned();
        Inspector::new(profile, Some(Clear::new(String::from(SECRET))))
    }

    #[test]
    fn a_right_signature_is_verified_and_its_age_told() {
        let seen = inspector().inspect(&arrival(SIGNATURE, 2));
        assert_eq!(seen.verdict(), (Tone::Good, String::from("verified, signed 2 s ago")));
        assert_eq!(seen.headers.len(), 3);
    }

    #[test]
    fn an_old_or_wrong_signature_stands_out() {
        let old = inspector().inspect(&arrival(SIGNATURE, 301));
        assert_eq!(old.verdict().0, Tone::Warning);
        assert!(old.verdict().1.contains("a replay?"), "{old:?}");
        let wrong = inspector().inspect(&arrival("v1,AAAA", 0));
        assert_eq!(wrong.signature, Some(Err(Unverified::Mismatch)));
        assert_eq!(wrong.verdict().0, Tone::Bad);
        let unknown = Inspector::new(None, None).inspect(&arrival(SIGNATURE, 0));
        assert_eq!(unknown.signature, None);
        assert!(unknown.verdict().1.contains("built-in profiles"), "{unknown:?}");
        let profile = inspector().profile;
        let unchecked = Inspector::new(profile, None).inspect(&arrival(SIGNATURE, 0));
        assert!(unchecked.verdict().1.contains("--secret"), "{unchecked:?}");
    }

    #[test]
    fn what_is_signed_too_long_before_or_after_its_arrival_is_not_timely() {
        let signed_at = Timestamp::from_millis(1_614_265_330_000);
        for (ms, timely) in [(-300_001, false), (-300_000, true), (300_000, true), (300_001, false)]
        {
            let arrived_at =
                Timestamp::from_millis(1_614_265_330_000_u64.saturating_add_signed(ms));
            let signed = Signed::of(signed_at, arrived_at);
            assert_eq!((signed.ms_ago(), signed.is_timely()), (ms, timely));
        }
        let mut early = arrival(SIGNATURE, 0);
        early.at = Timestamp::from_millis(1_614_265_000_000);
        let (tone, verdict) = inspector().inspect(&early).verdict();
        assert_eq!(tone, Tone::Warning);
        assert!(verdict.ends_with("5 min 30 s from now: is a clock wrong?"), "{verdict}");
    }

    #[test]
    fn every_profiles_body_tells_the_type() {
        for (body, expected) in [
            (r#"{"type":"invoice.paid","event":"x"}"#, Some("invoice.paid")),
            (r#"{"event":"RAMP","action":"UPDATE"}"#, Some("RAMP.UPDATE")),
            (r#"{"event":"visitor.denied"}"#, Some("visitor.denied")),
            (r#"[{"type":"b"},{"type":"a"},{"type":"b"}]"#, Some("3 events: a, b")),
            (r#"{"id":1}"#, None),
            ("text", None),
        ] {
            assert_eq!(event_type(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn times_are_read_in_both_forms() {
        let expected = Some(Timestamp::from_millis(1_614_265_330_000));
        assert_eq!(instant("1614265330"), expected);
        assert_eq!(instant("2021-02-25T15:02:10Z"), expected);
        assert_eq!(instant("now"), None);
    }
}
