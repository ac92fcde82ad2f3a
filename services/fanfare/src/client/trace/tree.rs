//! The tree.

use fanfare_domain::{EventId, Timestamp};
use serde_json::Value;

use super::{Branch, Matching, Story};
use crate::{
    client::{
        api::text,
        delivery::words,
        text::{clock, count, printable, span, thousands},
    },
    output::{Output, Tone},
};

/// Puts what came of an event into lines, each matching below a heading of its own; `event` is the one that
/// was asked about, if it was not a single delivery.
pub(super) fn lines(matchings: &[Matching], event: Option<EventId>, output: Output) -> Vec<String> {
    let mut lines = Vec::new();
    for matching in matchings.iter().filter(|matching| !matching.branches.is_empty()) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(matching_lines(matching, event, output));
    }
    lines
}

fn matching_lines(matching: &Matching, event: Option<EventId>, output: Output) -> Vec<String> {
    let Matching { generation, deliveries, branches } = matching;
    let story = branches.iter().find_map(|branch| match branch {
        Branch::Told(story) => Some(story),
        Branch::Untold { .. } | Branch::Skipped { .. } => None,
    });
    // Where nothing is told, the event's id still has its time.
    let own = event.map(|event| (event.to_string(), event.time()));
    let (name, accepted) = own.unwrap_or_else(|| {
        let trace = story.map(|story| &story.trace);
        let name = trace.map(|trace| String::from(text(trace, "event_id")));
        let accepted = trace.map(|trace| time(trace, "accepted_at"));
        (name.unwrap_or_default(), accepted.unwrap_or_default())
    });
    let routed = story.map_or(accepted, |story| routed_at(&story.trace, accepted));
    let mut lines = Vec::new();
    if let Some(story) = story {
        let trace = output.tone(Tone::Strong, text(&story.trace, "trace_id"));
        lines.push(format!("trace {trace}"));
    }
    let matched = if *generation == 0 { "matched" } else { "replayed" };
    let heading = match deliveries {
        Some(deliveries) => format!("└─ {matched}: {}", counted(*deliveries, branches)),
        None => format!("└─ {matched}"),
    };
    lines.push(row(accepted, accepted, &format!("{name} accepted"), output));
    lines.push(row(routed, accepted, &heading, output));
    for (index, branch) in branches.iter().enumerate() {
        let is_last = index + 1 == branches.len();
        match branch {
            Branch::Told(story) => lines.extend(story_lines(story, accepted, is_last, output)),
            Branch::Untold { delivery, endpoint, problem } => {
                let problem = output.tone(Tone::Warning, &printable(problem));
                let what = format!("{delivery} to {endpoint}  its story is not told: {problem}");
                lines.push(leaf(routed, accepted, (&what, is_last), output));
            }
            Branch::Skipped { endpoint } => {
                let skipped = output.tone(Tone::Bad, "skipped");
                let what = format!("{endpoint}  {skipped}: the endpoint was paused");
                lines.push(leaf(routed, accepted, (&what, is_last), output));
            }
        }
    }
    lines
}

/// How many deliveries there are, and who skipped.
fn counted(deliveries: usize, branches: &[Branch]) -> String {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let made = match deliveries {
        0 => String::from("no delivery"),
        1 => String::from("1 delivery"),
        more => format!("{} deliveries", thousands(number(more))),
    };
    match branches.iter().filter(|branch| matches!(branch, Branch::Skipped { .. })).count() {
        0 => made,
        skipped => format!("{made}, skipped by {}", count(number(skipped), "endpoint")),
    }
}

fn leaf(
    at: Timestamp,
    accepted: Timestamp,
    (what, is_last): (&str, bool),
    output: Output,
) -> String {
    let branch = if is_last { "└─" } else { "├─" };
    row(at, accepted, &format!("   {branch} {what}"), output)
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

    const PLAIN: Output = Output { json: false, colours: false };

    fn matching(generation: u64, deliveries: usize, branches: Vec<Branch>) -> Matching {
        Matching { generation, deliveries: Some(deliveries), branches }
    }

    fn told(story: Story) -> Branch {
        Branch::Told(Box::new(story))
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
        let untold = Branch::Untold {
            delivery: String::from("dlv_3"),
            endpoint: String::from("ep_3"),
            problem: String::from("too long [journal_too_long]"),
        };
        let skipped = Branch::Skipped { endpoint: String::from("ep_4") };
        let branches = vec![told(one), told(story(2, &[])), untold, skipped];
        let expected = [
            "trace 0af7651916cd43dd8448eb211c80319c",
            "06:15:03.120Z      +0 ms  evt_1 accepted",
            "06:15:03.123Z      +3 ms  └─ matched: 1,200 deliveries, skipped by 1 endpoint",
            "06:15:03.123Z      +3 ms     ├─ dlv_1 to ep_1  delivered",
            "06:15:03.130Z     +10 ms     │  ├─ attempt 1   500 in 12 ms  span b7ad6b7169203331",
            "06:15:08.142Z       +5 s     │  └─ delivered   after 1 attempt",
            "06:15:03.123Z      +3 ms     ├─ dlv_2 to ep_2  delivered",
            "06:15:03.123Z      +3 ms     ├─ dlv_3 to ep_3  its story is not told: too long \
             [journal_too_long]",
            "06:15:03.123Z      +3 ms     └─ ep_4  skipped: the endpoint was paused",
        ];
        assert_eq!(lines(&[matching(0, 1_200, branches)], None, PLAIN), expected);
    }

    #[test]
    fn a_replay_is_told_apart_because_its_trace_is_another() {
        let (one, mut two) = (story(1, &[]), story(2, &[]));
        two.trace["trace_id"] = json!("1af7651916cd43dd8448eb211c80319c");
        two.trace["generation"] = json!(7);
        let both = [matching(0, 1, vec![told(one)]), matching(7, 1, vec![told(two)])];
        let lines = lines(&both, None, PLAIN);
        assert_eq!(lines.iter().filter(|line| line.starts_with("trace ")).count(), 2);
        assert!(lines.iter().any(|line| line.ends_with("└─ replayed: 1 delivery")), "{lines:?}");
    }

    #[test]
    fn an_event_that_every_endpoint_skipped_says_so() {
        let accepted = Timestamp::parse("2026-11-22T06:15:03.120Z").unwrap();
        let event = EventId::new(accepted, [7; 10]);
        let skipped = Branch::Skipped { endpoint: String::from("ep_4") };
        let expected = [
            format!("06:15:03.120Z      +0 ms  {event} accepted"),
            String::from(
                "06:15:03.120Z      +0 ms  └─ matched: no delivery, skipped by 1 endpoint",
            ),
            String::from("06:15:03.120Z      +0 ms     └─ ep_4  skipped: the endpoint was paused"),
        ];
        assert_eq!(lines(&[matching(0, 0, vec![skipped])], Some(event), PLAIN), expected);
    }
}
