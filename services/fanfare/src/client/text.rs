//! Words and figures for people.

use std::{fmt::Write as _, time::Duration};

use fanfare_domain::Timestamp;

/// Shows a length of time with the two units that matter: `12 ms`, `1.5 s`, `5 min`, `2 h 30 min`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let pair = |whole: u64, unit: &str, rest: u64, small: &str| match rest {
        0 => format!("{whole} {unit}"),
        rest => format!("{whole} {unit} {rest} {small}"),
    };
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => match span.subsec_millis() / 100 {
            0 => format!("{seconds} s"),
            tenths => format!("{seconds}.{tenths} s"),
        },
        60..3_600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// Shows how far in the future something is, rounded to what was probably meant: a time is taken
/// a few milliseconds after the plan for it was made.
pub(crate) fn span_until(later: Timestamp, now: Timestamp) -> String {
    let exact = later.since(now);
    let step = match exact.as_secs() {
        0 => 10,
        1..60 => 100,
        _ => 1_000,
    };
    let millis = u64::try_from(exact.as_millis()).unwrap_or(u64::MAX);
    span(Duration::from_millis(millis.saturating_add(step / 2) / step * step))
}

/// Shows the time of day, in UTC: `06:15:03.123Z`.
pub(crate) fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('T') {
        Some((_, time)) => String::from(time),
        None => text,
    }
}

/// Shows a number with its noun: `1 event`, `1,200 events`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// Shows a number with a comma between thousands.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Makes text from outside safe to show: what would steer a terminal becomes a replacement sign.
pub(crate) fn printable(text: &str) -> String {
    let steers = |symbol: char| {
        symbol.is_control() || matches!(symbol, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|symbol| if steers(symbol) { '\u{fffd}' } else { symbol }).collect()
}

/// Spreads JSON over lines, its values exactly as they are written; up to `max` lines, then how
/// many more there are. What is no JSON is shown as text.
pub(crate) fn body(bytes: &[u8], max: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
    let spread = if is_json { spread(&text) } else { text.into_owned() };
    let all: Vec<&str> = spread.lines().collect();
    let mut lines: Vec<String> = all.iter().take(max).map(|line| shorten(line)).collect();
    if all.len() > max {
        lines.push(format!("… {}", count(u64_of(all.len() - max), "more line")));
    }
    lines
}

/// The most symbols of one line of a body.
const LINE_MAX: usize = 200;

fn shorten(line: &str) -> String {
    let mut short: String = line.chars().take(LINE_MAX).collect();
    let rest = line.chars().count().saturating_sub(LINE_MAX);
    if rest > 0 {
        let _infallible = write!(short, "… {}", count(u64_of(rest), "more character"));
    }
    printable(&short)
}

fn u64_of(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Spreads valid JSON over lines.
fn spread(json: &str) -> String {
    let mut lines = String::new();
    let mut depth = 0_usize;
    let (mut quoted, mut escaped) = (false, false);
    let mut symbols = json.chars().filter(significant()).peekable();
    while let Some(symbol) = symbols.next() {
        if quoted {
            lines.push(symbol);
            quoted = escaped || symbol != '"';
            escaped = !escaped && symbol == '\\';
            continue;
        }
        match symbol {
            '{' | '[' => {
                lines.push(symbol);
                if matches!(symbols.peek(), Some('}' | ']')) {
                    lines.extend(symbols.next());
                } else {
                    depth += 1;
                    begin_line(&mut lines, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                begin_line(&mut lines, depth);
                lines.push(symbol);
            }
            ',' => {
                lines.push(symbol);
                begin_line(&mut lines, depth);
            }
            ':' => lines.push_str(": "),
            other => {
                quoted = other == '"';
                lines.push(other);
            }
        }
    }
    lines
}

/// Passes over white space between the tokens of JSON.
fn significant() -> impl FnMut(&char) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    move |symbol| {
        if quoted {
            quoted = escaped || *symbol != '"';
            escaped = !escaped && *symbol == '\\';
            return true;
        }
        quoted = *symbol == '"';
        !symbol.is_ascii_whitespace()
    }
}

fn begin_line(lines: &mut String, depth: usize) {
    lines.push('\n');
    for _ in 0..depth {
        lines.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_shown_with_the_units_that_matter() {
        for (millis, shown) in [
            (0, "0 ms"),
            (12, "12 ms"),
            (1_000, "1 s"),
            (1_560, "1.5 s"),
            (59_999, "59.9 s"),
            (300_000, "5 min"),
            (320_000, "5 min 20 s"),
            (9_000_000, "2 h 30 min"),
            (7_200_000, "2 h"),
            (100_800_000, "1 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), shown);
        }
    }

    #[test]
    fn a_time_to_come_is_shown_as_it_was_meant() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let after = |millis| span_until(now.saturating_add(Duration::from_millis(millis)), now);
        assert_eq!(after(4_998), "5 s");
        assert_eq!(after(299_990), "5 min");
        assert_eq!(after(996), "1 s");
        assert_eq!(span_until(Timestamp::EPOCH, now), "0 ms");
    }

    #[test]
    fn numbers_have_their_nouns() {
        assert_eq!(count(1, "event"), "1 event");
        assert_eq!(count(0, "event"), "0 events");
        assert_eq!(count(1_234_567, "event"), "1,234,567 events");
        assert_eq!(thousands(999), "999");
    }

    #[test]
    fn json_is_spread_without_touching_its_values() {
        let text = r#"{ "a":[1.50,{}, []],"b\"}":"x, {y}: \\","c":null}"#;
        let lines = body(text.as_bytes(), 20).join("\n");
        let expected = "{\n  \"a\": [\n    1.50,\n    {},\n    []\n  ],\n  \"b\\\"}\": \"x, {y}: \\\\\",\n  \"c\": null\n}";
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_long_is_cut_and_counted() {
        assert_eq!(body(b"[1,2,3]", 2), ["[", "  1,", "… 3 more lines"]);
        let long = format!("\"{}\"", "x".repeat(300));
        let lines = body(long.as_bytes(), 1);
        assert!(lines[0].ends_with("x… 102 more characters"), "{lines:?}");
    }

    #[test]
    fn nothing_from_outside_steers_the_terminal() {
        assert_eq!(body(b"\x1b[2Jhi\x07", 5), ["\u{fffd}[2Jhi\u{fffd}"]);
        assert_eq!(printable("a\u{202e}b\u{9b}c"), "a\u{fffd}b\u{fffd}c");
    }
}
