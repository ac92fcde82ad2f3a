//! The facts about a delivery, as the API shows them, in words.

use std::time::Duration;

use fanfare_domain::Timestamp;
use serde_json::Value;

use crate::{
    client::{
        api::text,
        text::{body, clock, count, printable, span, span_until},
    },
    output::{Output, Tone},
};

/// How many lines of an answer's body are shown.
const BODY_LINES_MAX: usize = 6;

/// Puts a fact in words: what happened, and below it what else is known.
pub(super) fn lines(fact: &Value, output: Output) -> Vec<String> {
    let at = Timestamp::parse(text(fact, "recorded_at")).unwrap_or_default();
    let (tone, what, details) = words(fact, at);
    let heading = format!(
        "{}  {}  {}",
        output.tone(Tone::Dim, &clock(at)),
        output.tone(tone, &format!("{what:<10}")),
        output.tone(tone, &details),
    );
    let more = more(fact).into_iter();
    let indented = more.map(|line| format!("{:15}{}", "", output.tone(Tone::Dim, &line)));
    std::iter::once(heading).chain(indented).collect()
}

/// Says what happened: the tone, the fact, and what else is known of it.
pub(crate) fn words(fact: &Value, at: Timestamp) -> (Tone, String, String) {
    let attempt = number(fact, "attempt");
    let until = |name| Timestamp::parse(text(fact, name)).map(|later| span_until(later, at));
    let soon = |name| until(name).unwrap_or_default();
    match text(fact, "fact") {
        "attempt_made" => {
            let tone = match (text(fact, "outcome"), until("retry_at")) {
                ("accepted", _) => Tone::Good,
                (_, Some(_)) => Tone::Warning,
                (_, None) => Tone::Bad,
            };
            let took = took(fact);
            let next = until("retry_at").map(|next| format!(", next attempt in {next}"));
            let details = format!("{} in {took}{}", outcome(fact), next.unwrap_or_default());
            (tone, format!("attempt {attempt}"), details)
        }
        "retry_scheduled" => {
            let details = format!("attempt {attempt} in {}", soon("due_at"));
            (Tone::Dim, String::from("scheduled"), details)
        }
        "delivery_deferred" => {
            let details =
                format!("attempt {attempt} in {}: {}", soon("until"), text(fact, "reason"));
            (Tone::Dim, String::from("put off"), details)
        }
        "delivery_parked" => {
            let details = format!("attempt {attempt} waits until the endpoint is resumed");
            (Tone::Warning, String::from("parked"), details)
        }
        "delivery_concluded" => {
            let conclusion = text(fact, "conclusion");
            let tone = if conclusion == "delivered" { Tone::Good } else { Tone::Bad };
            let attempts = count(number(fact, "attempts"), "attempt");
            let why = match text(fact, "reason") {
                "outcome" | "" => String::new(),
                reason => format!(": {}", reason.replace('_', " ")),
            };
            (tone, String::from(conclusion), format!("after {attempts}{why}"))
        }
        other => (Tone::Dim, printable(other), String::new()),
    }
}

/// How long an attempt took, and its parts as far as they are known: `12 ms (connect 3 ms, first byte
/// 11 ms)`.
pub(super) fn took(attempt: &Value) -> String {
    let millis = |name| attempt.get(name).and_then(Value::as_u64).map(Duration::from_millis);
    let part = |(name, what)| millis(name).map(|after| format!("{what} {}", span(after)));
    let parts = [("connect_ms", "connect"), ("first_byte_ms", "first byte")];
    let parts: Vec<String> = parts.into_iter().filter_map(part).collect();
    let whole = span(millis("duration_ms").unwrap_or_default());
    if parts.is_empty() { whole } else { format!("{whole} ({})", parts.join(", ")) }
}

fn outcome(fact: &Value) -> String {
    let status = fact.get("status").and_then(Value::as_u64);
    let what =
        status.map_or_else(|| String::from(text(fact, "fault")), |status| status.to_string());
    match text(fact, "detail") {
        "" => what,
        detail => format!("{what}: {}", printable(detail)),
    }
}

/// The request and the answer of an attempt.
fn more(fact: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if !text(fact, "url").is_empty() {
        lines.push(format!("POST {}", printable(text(fact, "url"))));
    }
    if !text(fact, "signature").is_empty() {
        lines.push(format!("signed {}", printable(text(fact, "signature"))));
    }
    if !text(fact, "response_body").is_empty() {
        lines.push(String::from("answered:"));
        let body = body(text(fact, "response_body").as_bytes(), BODY_LINES_MAX);
        lines.extend(body.into_iter().map(|line| format!("  {line}")));
    }
    lines
}

fn number(fact: &Value, name: &str) -> u64 {
    fact.get(name).and_then(Value::as_u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_timeline_tells_attempts_with_request_and_answer() {
        let output = Output { json: false, colours: false };
        let attempt = json!({
            "fact": "attempt_made",
            "recorded_at": "2026-11-22T06:15:03.123Z",
            "attempt": 1,
            "duration_ms": 12,
            "connect_ms": 3,
            "first_byte_ms": 11,
            "outcome": "refused",
            "status": 500,
            "fault": null,
            "detail": "",
            "url": "https://example.com/hook",
            "signature": "v1,abc",
            "response_body": "oh no",
            "retry_at": "2026-11-22T06:15:08.120Z",
        });
        let expected = [
            "06:15:03.123Z  attempt 1   500 in 12 ms (connect 3 ms, first byte 11 ms), \
             next attempt in 5 s",
            "               POST https://example.com/hook",
            "               signed v1,abc",
            "               answered:",
            "                 oh no",
        ];
        assert_eq!(lines(&attempt, output), expected);
    }

    #[test]
    fn each_fact_has_its_words() {
        let at = Timestamp::parse("2026-11-22T06:15:00Z").unwrap();
        for (fact, tone, what, details) in [
            (
                json!({ "fact": "attempt_made", "attempt": 3, "fault": "timed_out", "outcome": "failed",
                    "duration_ms": 15_000, "detail": "no answer" }),
                Tone::Bad,
                "attempt 3",
                "timed_out: no answer in 15 s",
            ),
            (
                json!({ "fact": "retry_scheduled", "attempt": 2, "due_at": "2026-11-22T06:20:00Z" }),
                Tone::Dim,
                "scheduled",
                "attempt 2 in 5 min",
            ),
            (
                json!({ "fact": "delivery_concluded", "conclusion": "exhausted", "attempts": 3,
                    "reason": "attempts_spent" }),
                Tone::Bad,
                "exhausted",
                "after 3 attempts: attempts spent",
            ),
            (
                json!({ "fact": "delivery_concluded", "conclusion": "delivered", "attempts": 1,
                    "reason": "outcome" }),
                Tone::Good,
                "delivered",
                "after 1 attempt",
            ),
        ] {
            let expected = (tone, String::from(what), String::from(details));
            assert_eq!(words(&fact, at), expected, "{fact}");
        }
    }
}
