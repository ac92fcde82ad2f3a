//! The tree.

use fanfare_domain::Timestamp;
use serde_json::Value;

use super::Story;
use crate::{
    client::{
        api::text,
        delivery::words,
        text::{clock, count, printable, span},
    },
    output::{Output, Tone},
};

/// Puts stories of one event's deliveries into lines: those of one trace are below one another.
pub(super) fn lines(stories: &[Story], output: Output) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = stories;
    while let Some(first) = rest.first() {
        let trace = text(&first.trace, "trace_id");
        let same = |story: &&Story| text(&story.trace, "trace_id") == trace;
        let (group, others) = rest.split_at(rest.iter().take_while(same).count());
        rest = others;
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(group_lines(group, output));
    }
    lines
}

fn group_lines(stories: &[Story], output: Output) -> Vec<String> {
    let Some(first) = stories.first() else { return Vec::new() };
    let trace = &first.trace;
    let accepted = time(trace, "accepted_at");
    let generation = trace.get("generation").and_then(Value::as_u64).unwrap_or_default();
    let routed = if generation == 0 { "matched" } else { "replayed" };
    let deliveries = count(u64::try_from(stories.len()).unwrap_or(u64::MAX), "delivery");
    let deliveries = deliveries.replace("deliverys", "deliveries");
    let mut lines = vec![
        format!("trace {}", output.tone(Tone::Strong, text(trace, "trace_id"))),
        row(accepted, accepted, &format!("{} accepted", text(trace, "event_id")), output),
        row(routed_at(trace, accepted), accepted, &format!("└─ {routed}: {deliveries}"), output),
    ];
    for (index, story) in stories.iter().enumerate() {
        let is_last = index + 1 == stories.len();
        lines.extend(story_lines(story, accepted, is_last, output));
    }
    lines
}

fn story_lines(story: &Story, accepted: Timestamp, is_last: bool, output: Output) -> Vec<String> {
    let (branch, trunk) = if is_last { ("└─", "  ") } else { ("├─", "│ ") };
    let state = text(&story.delivery, "state");
    let tone = match state {
        "delivered" => Tone::Good,
        "exhausted" | "refused" | "cancelled" => Tone::Bad,
        _ => Tone::Warning,
    };
    let heading = format!(
        "   {branch} {} to {}  {}",
        text(&story.trace, "delivery_id"),
        text(&story.trace, "endpoint_id"),
        output.tone(tone, state),
    );
    let mut lines = vec![row(routed_at(&story.trace, accepted), accepted, &heading, output)];
    for (index, fact) in story.facts.iter().enumerate() {
        let leaf = if index + 1 == story.facts.len() { "└─" } else { "├─" };
        let recorded = time(fact, "recorded_at");
        let begun = Timestamp::parse(text(fact, "started_at")).unwrap_or(recorded);
        let (tone, what, details) = words(fact, recorded);
        let span = match text(fact, "span_id") {
            "" => String::new(),
            span => output.tone(Tone::Dim, &format!("  span {}", printable(span))),
        };
        let said = output.tone(tone, &format!("{what:<10}  {details}"));
        lines.push(row(begun, accepted, &format!("   {trunk} {leaf} {said}{span}"), output));
    }
    lines
}

/// One line: when, how long after the acceptance, and what.
fn row(at: Timestamp, accepted: Timestamp, what: &str, output: Output) -> String {
    let after = format!("+{}", span(at.since(accepted)));
    let when = output.tone(Tone::Dim, &format!("{}  {after:>9}", clock(at)));
    format!("{when}  {what}")
}

/// When it was matched; unknown where that was long after the acceptance.
fn routed_at(trace: &Value, accepted: Timestamp) -> Timestamp {
    Timestamp::parse(text(trace, "routed_at")).unwrap_or(accepted)
}

fn time(value: &Value, name: &str) -> Timestamp {
    Timestamp::parse(text(value, name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn story(number: u8, facts: &[Value]) -> Story {
        Story {
            trace: json!({
                "trace_id": "0af7651916cd43dd8448eb211c80319c",
                "span_id": "0707070707070707",
                "delivery_id": format!("dlv_{number}"),
                "event_id": "evt_1",
                "endpoint_id": format!("ep_{number}"),
                "generation": 0,
                "accepted_at": "2026-11-22T06:15:03.120Z",
                "routed_at": "2026-11-22T06:15:03.123Z",
            }),
            delivery: json!({ "state": "delivered" }),
            facts: facts.to_vec(),
        }
    }

    #[test]
    fn a_story_is_a_tree_with_times() {
        let attempt = |number: u8, outcome: &str, at: &str| {
            json!({
                "fact": "attempt_made", "attempt": number, "outcome": outcome, "status": 500,
                "started_at": at, "recorded_at": at, "duration_ms": 12,
                "span_id": "b7ad6b7169203331",
            })
        };
        let concluded = json!({
            "fact": "delivery_concluded", "recorded_at": "2026-11-22T06:15:08.142Z",
            "conclusion": "delivered", "reason": "outcome", "attempts": 1,
        });
        let one = story(1, &[attempt(1, "accepted", "2026-11-22T06:15:03.130Z"), concluded]);
        let output = Output { json: false, colours: false };
        let expected = [
            "trace 0af7651916cd43dd8448eb211c80319c",
            "06:15:03.120Z      +0 ms  evt_1 accepted",
            "06:15:03.123Z      +3 ms  └─ matched: 2 deliveries",
            "06:15:03.123Z      +3 ms     ├─ dlv_1 to ep_1  delivered",
            "06:15:03.130Z     +10 ms     │  ├─ attempt 1   500 in 12 ms  span b7ad6b7169203331",
            "06:15:08.142Z       +5 s     │  └─ delivered   after 1 attempt",
            "06:15:03.123Z      +3 ms     └─ dlv_2 to ep_2  delivered",
        ];
        assert_eq!(lines(&[one, story(2, &[])], output), expected);
    }

    #[test]
    fn a_replay_is_told_apart_because_its_trace_is_another() {
        let (one, mut two) = (story(1, &[]), story(2, &[]));
        two.trace["trace_id"] = json!("1af7651916cd43dd8448eb211c80319c");
        two.trace["generation"] = json!(7);
        let lines = lines(&[one, two], Output { json: false, colours: false });
        assert_eq!(lines.iter().filter(|line| line.starts_with("trace ")).count(), 2);
        assert!(lines.iter().any(|line| line.ends_with("└─ replayed: 1 delivery")), "{lines:?}");
    }
}
